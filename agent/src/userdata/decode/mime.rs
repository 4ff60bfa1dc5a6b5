//! MIME multipart messages, as far as user data uses them.
//!
//! A message is headers, an empty line, and parts between boundary lines (RFC 2046 §5.1.1). Of the
//! headers only `Content-Type` and `Content-Transfer-Encoding` matter. Comments in headers,
//! RFC 2231 parameters and character sets are not read: no tool that makes user data writes them.
//! A message whose last boundary is missing is accepted only if it has a part, as cloud-init does;
//! one that is cut off inside its first part is an error.

use std::borrow::Cow;

use crate::userdata::decode::{DecodeError, decode_base64};

/// Heat makes four or five; a person adds a few.
pub(crate) const MAX_PARTS: usize = 64;

/// Headers of one message or part. A `Content-Type` with a long boundary has about 150 bytes.
pub(crate) const MAX_HEADER_BYTES: usize = 16 * 1024;

/// RFC 2046 §5.1.1.
const MAX_BOUNDARY_BYTES: usize = 70;

/// One part of a message, still encoded.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// Lower case, without parameters.
    pub(crate) media_type: String,
    encoding: String,
    whole: &'a [u8],
    body: &'a [u8],
}

impl<'a> Part<'a> {
    pub(crate) fn is_multipart(&self) -> bool {
        self.media_type.starts_with("multipart/")
    }

    /// The content with its transfer encoding removed. A part that is a message itself is given
    /// with its headers, which name its boundary.
    pub(crate) fn payload(&self) -> Result<Cow<'a, [u8]>, DecodeError> {
        if self.is_multipart() {
            return Ok(Cow::Borrowed(self.whole));
        }
        match self.encoding.as_str() {
            "" | "7bit" | "8bit" | "binary" => Ok(Cow::Borrowed(self.body)),
            "base64" => decode_base64(self.body).map(Cow::Owned).ok_or(DecodeError::MimeEncoding),
            "quoted-printable" => {
                quoted_printable(self.body).map(Cow::Owned).ok_or(DecodeError::MimeEncoding)
            }
            _ => Err(DecodeError::MimeEncoding),
        }
    }
}

/// Whether the bytes start with the headers of a MIME message.
pub(crate) fn is_message(bytes: &[u8]) -> bool {
    let bytes = skip_envelope(bytes);
    let Some((name, _)) = split_header(first_line(bytes)) else { return false };
    let names_mime = |name: &str| {
        name.eq_ignore_ascii_case("mime-version") || name.eq_ignore_ascii_case("content-type")
    };
    if names_mime(name) {
        return true;
    }
    // Other headers may stand before: all of them have a name without blanks, so a YAML document
    // with one of these keys on a later line, after a value, is still no message.
    let Ok((headers, _)) = split_headers(bytes) else { return false };
    headers.is_some_and(|headers| headers.iter().any(|(name, _)| name == "mime-version"))
}

/// The parts of a message.
pub(crate) fn parts(bytes: &[u8]) -> Result<Vec<Part<'_>>, DecodeError> {
    let bytes = skip_envelope(bytes);
    let (headers, body) = split_headers(bytes)?;
    let headers = headers.ok_or(DecodeError::MimeHeader)?;
    let content_type = value_of(&headers, "content-type");
    let media_type = media_type(content_type);
    if !media_type.starts_with("multipart/") {
        // A single part with headers of its own.
        let encoding = value_of(&headers, "content-transfer-encoding").to_ascii_lowercase();
        return Ok(vec![Part { media_type, encoding, whole: bytes, body }]);
    }
    let boundary = parameter(content_type, "boundary").ok_or(DecodeError::MimeBoundary)?;
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_BYTES {
        return Err(DecodeError::MimeBoundary);
    }
    split_parts(body, &boundary)?.into_iter().map(read_part).collect()
}

fn read_part(whole: &[u8]) -> Result<Part<'_>, DecodeError> {
    // Without any header the empty line stands first (RFC 2046 §5.1).
    let (headers, body) = split_headers(whole)?;
    let headers = headers.ok_or(DecodeError::MimeHeader)?;
    Ok(Part {
        media_type: media_type(value_of(&headers, "content-type")),
        encoding: value_of(&headers, "content-transfer-encoding").trim().to_ascii_lowercase(),
        whole,
        body,
    })
}

/// `From …` of a mailbox file, which cloud-init's own tool writes.
fn skip_envelope(bytes: &[u8]) -> &[u8] {
    let trimmed = bytes.trim_ascii_start();
    if !trimmed.starts_with(b"From ") {
        return trimmed;
    }
    let end = trimmed.iter().position(|byte| *byte == b'\n').map_or(trimmed.len(), |at| at + 1);
    &trimmed[end..]
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// `Name: value`, where the name is of letters, digits and `-`.
fn split_header(line: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let (name, value) = line.split_once(':')?;
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_name && !name.is_empty()).then(|| (name, value.trim()))
}

type Headers = Vec<(String, String)>;

/// The headers, folded lines joined, and what follows the empty line. None for the headers when a
/// line before it is no header.
fn split_headers(bytes: &[u8]) -> Result<(Option<Headers>, &[u8]), DecodeError> {
    let mut headers: Headers = Vec::new();
    let mut rest = bytes;
    loop {
        if bytes.len() - rest.len() > MAX_HEADER_BYTES {
            return Err(DecodeError::MimeHeader);
        }
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[][..], |end| &rest[end + 1..]);
        if line.trim_ascii().is_empty() {
            return Ok((Some(headers), rest));
        }
        if line.len() > MAX_HEADER_BYTES {
            return Err(DecodeError::MimeHeader);
        }
        let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
        match (is_folded, headers.last_mut()) {
            (true, Some((_, value))) => {
                let Ok(more) = std::str::from_utf8(line) else { return Ok((None, rest)) };
                value.push(' ');
                value.push_str(more.trim());
            }
            _ => match split_header(line) {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
                None => return Ok((None, rest)),
            },
        }
    }
}

fn value_of<'a>(headers: &'a Headers, name: &str) -> &'a str {
    headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
}

fn media_type(content_type: &str) -> String {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.is_empty() { "text/plain".to_owned() } else { media_type.to_ascii_lowercase() }
}

/// A parameter of a header value, quoted or not.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (written, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (parameter, tail) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if written.trim().trim_start_matches(';').trim().eq_ignore_ascii_case(name) {
            return Some(parameter);
        }
        rest = tail.trim_start().strip_prefix(';')?;
    }
}

/// What stands before the closing quote, and what stands behind it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(chars.next()?.1),
            plain => text.push(plain),
        }
    }
    None
}

/// Cuts a body at its boundary lines. The line break before a boundary belongs to the boundary.
fn split_parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<&'a [u8]>, DecodeError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut start: Option<usize> = None;
    let mut at = 0;
    while at < body.len() {
        let line_end =
            body[at..].iter().position(|b| *b == b'\n').map_or(body.len(), |n| at + n + 1);
        let line = body[at..line_end].trim_ascii_end();
        let delimiter = line.strip_prefix(b"--").and_then(|l| l.strip_prefix(boundary.as_bytes()));
        if let Some(tail @ (b"" | b"--")) = delimiter {
            if let Some(start) = start {
                parts.push(strip_line_break(&body[start..at.max(start)]));
            }
            if parts.len() > MAX_PARTS {
                return Err(DecodeError::MimeParts);
            }
            start = Some(line_end);
            if tail == b"--" {
                return Ok(parts);
            }
        }
        at = line_end;
    }
    // The closing boundary is missing: what was complete before it counts.
    if parts.is_empty() {
        return Err(DecodeError::MimeBoundary);
    }
    parts.extend(start.map(|start| &body[start..]));
    if parts.len() > MAX_PARTS { Err(DecodeError::MimeParts) } else { Ok(parts) }
}

fn strip_line_break(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// RFC 2045 §6.7. A `=` that is followed by neither two hex digits nor the end of the line is an
/// error: guessing could change a command.
fn quoted_printable(body: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(body.len());
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let has_break = line.ends_with(b"\n");
        // Blanks at the end of a line were added on the way.
        let content = line.trim_ascii_end();
        let (content, is_soft) = match content.strip_suffix(b"=") {
            Some(content) => (content, true),
            None => (content, false),
        };
        let mut bytes = content.iter();
        while let Some(byte) = bytes.next() {
            if *byte != b'=' {
                decoded.push(*byte);
                continue;
            }
            let high = hex_digit(*bytes.next()?)?;
            let low = hex_digit(*bytes.next()?)?;
            decoded.push(high << 4 | low);
        }
        if has_break && !is_soft {
            decoded.push(b'\n');
        }
    }
    Some(decoded)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
