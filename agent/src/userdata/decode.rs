//! From the bytes that a datasource gives to the `#docker` text in them.
//!
//! User data arrives wrapped: Horizon and the Nova API encode it in base64 (and people encode it
//! once more), packers gzip it, and Heat's default `user_data_format` puts it into a MIME message
//! beside its own scripts. Each wrapping is recognised by its content, unwrapped within limits, and
//! looked at again, until a text starts with the `#docker` line or nothing more can be unwrapped.
//!
//! The MIME reader is our own (`mime.rs`, under 300 lines) because what it must do is narrow, and a
//! mail library brings character sets, headers and leniency that user data has no use for.

mod mime;

use std::fmt;
use std::io::Read;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;

/// What a datasource may give. Nova accepts 64 KiB; a file may be larger.
pub const MAX_USER_DATA_BYTES: usize = 1024 * 1024;

/// What gzip may unpack to. A bomb of 64 KiB could hold 64 MiB otherwise.
pub(crate) const MAX_UNPACKED_BYTES: usize = 1024 * 1024;

/// One level is Nova's, one is a person's who encoded it too.
pub(crate) const MAX_BASE64_LEVELS: u32 = 2;

/// Packing twice helps nobody.
pub(crate) const MAX_GZIP_LEVELS: u32 = 2;

/// Heat wraps once; a person may have wrapped before.
pub(crate) const MAX_MIME_LEVELS: u32 = 3;

/// What is in the user data.
#[derive(Clone, PartialEq, Eq)]
pub enum Decoded {
    /// The text from its first character, so that positions count from there.
    Docker(String),
    NotDocker(ContentKind),
}

/// The text is user data, which must not reach a log.
impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decoded::Docker(text) => write!(f, "Docker({} bytes)", text.len()),
            Decoded::NotDocker(kind) => write!(f, "NotDocker({kind:?})"),
        }
    }
}

/// What user data is, if it is not for us: enough for a message, without quoting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentKind {
    CloudConfig,
    Script,
    Ignition,
    /// A MIME message without a `#docker` part.
    Mime,
    /// `image: …` without the line that says for whom.
    HeaderMissing,
    Text,
    Binary,
}

impl fmt::Display for ContentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContentKind::CloudConfig => "a cloud-config",
            ContentKind::Script => "a script",
            ContentKind::Ignition => "JSON, perhaps an Ignition config",
            ContentKind::Mime => "a MIME message without a `#docker` part",
            ContentKind::HeaderMissing => "a document whose first line, `#docker`, is missing",
            ContentKind::Text => "some other text",
            ContentKind::Binary => "binary data",
        })
    }
}

/// Why user data cannot be unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// In a template, `user_data: #docker` is a comment and leaves nothing.
    #[error(
        "it is empty; in a template, a value that starts with `#` is a comment unless it is quoted \
         or starts with `|`"
    )]
    Empty,
    #[error("it is larger than 1 MiB")]
    TooLarge,
    #[error("it is encoded in base64 more than twice")]
    Base64Depth,
    #[error("its gzip data is broken or cut off")]
    GzipBroken,
    #[error("its gzip data unpacks to more than 1 MiB")]
    GzipTooLarge,
    #[error("it is packed by gzip more than twice")]
    GzipDepth,
    #[error("its MIME message has no boundary, or its parts never end")]
    MimeBoundary,
    #[error("its MIME message nests too deep")]
    MimeDepth,
    #[error("its MIME message has too many parts")]
    MimeParts,
    #[error("its MIME message has a header that is too long or malformed")]
    MimeHeader,
    #[error("its `#docker` part has a Content-Transfer-Encoding that is unknown or broken")]
    MimeEncoding,
    #[error("it has more than one `#docker` part")]
    MimeManyDocker,
    #[error("it is not UTF-8")]
    NotUtf8,
}

impl DecodeError {
    /// Stable: scripts and tests compare it.
    pub fn code(&self) -> &'static str {
        match self {
            DecodeError::Empty => "user_data_empty",
            DecodeError::TooLarge => "user_data_too_large",
            DecodeError::Base64Depth => "user_data_base64_depth",
            DecodeError::GzipBroken => "user_data_gzip_broken",
            DecodeError::GzipTooLarge => "user_data_gzip_too_large",
            DecodeError::GzipDepth => "user_data_gzip_depth",
            DecodeError::MimeBoundary => "user_data_mime_boundary",
            DecodeError::MimeDepth => "user_data_mime_depth",
            DecodeError::MimeParts => "user_data_mime_parts",
            DecodeError::MimeHeader => "user_data_mime_header",
            DecodeError::MimeEncoding => "user_data_mime_encoding",
            DecodeError::MimeManyDocker => "user_data_mime_many_docker",
            DecodeError::NotUtf8 => "user_data_not_utf8",
        }
    }
}

/// Unwraps user data until the `#docker` text is found.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.len() > MAX_USER_DATA_BYTES {
        return Err(DecodeError::TooLarge);
    }
    if bytes.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        return Err(DecodeError::Empty);
    }
    unwrap(bytes, Levels::default())
}

/// How often each wrapping was taken off on the way here.
#[derive(Clone, Copy, Default)]
struct Levels {
    base64: u32,
    gzip: u32,
    mime: u32,
}

/// One step. Recursion is bounded by the levels.
fn unwrap(bytes: &[u8], levels: Levels) -> Result<Decoded, DecodeError> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let levels = Levels { gzip: levels.gzip + 1, ..levels };
        if levels.gzip > MAX_GZIP_LEVELS {
            return Err(DecodeError::GzipDepth);
        }
        return unwrap(&gunzip(bytes)?, levels);
    }
    if is_docker(bytes) {
        return text_of(bytes).map(Decoded::Docker);
    }
    if mime::is_message(bytes) {
        let levels = Levels { mime: levels.mime + 1, ..levels };
        if levels.mime > MAX_MIME_LEVELS {
            return Err(DecodeError::MimeDepth);
        }
        return unwrap_parts(bytes, levels);
    }
    if let Some(decoded) = decode_base64(bytes) {
        let levels = Levels { base64: levels.base64 + 1, ..levels };
        let is_wrapped = |bytes: &[u8]| {
            is_docker(bytes) || bytes.starts_with(&[0x1f, 0x8b]) || mime::is_message(bytes)
        };
        if levels.base64 > MAX_BASE64_LEVELS {
            let hides_more = is_wrapped(&decoded) || decode_base64(&decoded).is_some();
            return if hides_more {
                Err(DecodeError::Base64Depth)
            } else {
                Ok(Decoded::NotDocker(classify(bytes)))
            };
        }
        return match unwrap(&decoded, levels) {
            // A few words without punctuation are base64 by accident.
            Ok(Decoded::NotDocker(ContentKind::Binary)) => Ok(Decoded::NotDocker(classify(bytes))),
            outcome => outcome,
        };
    }
    Ok(Decoded::NotDocker(classify(bytes)))
}

/// The one `#docker` part of a message.
fn unwrap_parts(bytes: &[u8], levels: Levels) -> Result<Decoded, DecodeError> {
    let mut docker: Option<String> = None;
    for part in mime::parts(bytes)? {
        let is_ours = part.media_type == "text/x-docker";
        let payload = match part.payload() {
            Ok(payload) => payload,
            Err(error) if is_ours => return Err(error),
            // What somebody else's part holds is not our concern.
            Err(_) => continue,
        };
        let text = match unwrap(&payload, levels) {
            Ok(Decoded::Docker(text)) => text,
            // The type says so; the line may then be missing.
            Ok(Decoded::NotDocker(_)) if is_ours => text_of(&payload)?,
            Err(error) if is_ours || part.is_multipart() => return Err(error),
            Ok(Decoded::NotDocker(_)) | Err(_) => continue,
        };
        if docker.replace(text).is_some() {
            return Err(DecodeError::MimeManyDocker);
        }
    }
    Ok(docker.map_or(Decoded::NotDocker(ContentKind::Mime), Decoded::Docker))
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

fn text_of(bytes: &[u8]) -> Result<String, DecodeError> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    // A block device pads with zeros.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    std::str::from_utf8(&bytes[..end]).map(str::to_owned).map_err(|_| DecodeError::NotUtf8)
}

/// The first line that is not blank.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).map(|line| line.trim_ascii());
    lines.find(|line| !line.is_empty())
}

/// Whether the first line is that of Heat's docker-cmd documents.
pub(crate) fn is_docker_cmd(bytes: &[u8]) -> bool {
    first_line(bytes).is_some_and(|line| line.eq_ignore_ascii_case(b"#docker-cmd"))
}

/// Whether the first line is `#docker`, `#docker 1`, `#docker v1` or `#docker-cmd`.
fn is_docker(bytes: &[u8]) -> bool {
    let Some(first) = first_line(bytes) else { return false };
    if is_docker_cmd(bytes) {
        return true;
    }
    if first.len() < 7 || !first[..7].eq_ignore_ascii_case(b"#docker") {
        return false;
    }
    let rest = &first[7..];
    let version = rest.trim_ascii_start();
    let is_separate = version.len() < rest.len();
    version.is_empty() || is_separate && matches!(version, b"1" | b"v1" | b"V1")
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut unpacked = Vec::new();
    let limit = MAX_UNPACKED_BYTES as u64 + 1;
    let read = MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut unpacked);
    if unpacked.len() > MAX_UNPACKED_BYTES {
        return Err(DecodeError::GzipTooLarge);
    }
    read.map(|_| unpacked).map_err(|_| DecodeError::GzipBroken)
}

/// The bytes behind base64 in either alphabet, wrapped or not, padded or not.
pub(crate) fn decode_base64(bytes: &[u8]) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let compact: Vec<u8> =
        bytes.iter().copied().filter(|b| !b.is_ascii_whitespace() && *b != 0).collect();
    // `IA==` is the shortest thing that could hold a line.
    if compact.len() < 4 {
        return None;
    }
    let is_url_safe = compact.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if is_url_safe { URL_SAFE } else { STANDARD };
    engine.decode(&compact).ok()
}

fn classify(bytes: &[u8]) -> ContentKind {
    let Ok(text) = std::str::from_utf8(bytes) else { return ContentKind::Binary };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let has_line = |key: &str| text.lines().take(100).any(|line| line.starts_with(key));
    if text.starts_with("#cloud-config") {
        return ContentKind::CloudConfig;
    }
    if text.starts_with("#!") {
        return ContentKind::Script;
    }
    if text.starts_with('{') {
        return ContentKind::Ignition;
    }
    if has_line("image:") {
        return ContentKind::HeaderMissing;
    }
    if text.contains(|c: char| c.is_control() && !c.is_whitespace()) {
        return ContentKind::Binary;
    }
    ContentKind::Text
}

#[cfg(test)]
mod tests;
