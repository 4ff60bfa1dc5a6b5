//! Frames: how a message crosses Neutron's metadata path.
//!
//! Between an instance and the relay's metadata surface stand haproxy and Neutron's metadata agent.
//! What they let through is narrow (`neutron/common/metadata.py`, `neutron/agent/metadata/`):
//!
//! * the agent of 2025.1 and later reads a request with one `recv(4096)`: what comes later is lost,
//!   what is longer is cut, and the length is corrected, so that the relay cannot see it;
//! * of the request only method, path, query and body arrive; the path is decoded and encoded anew,
//!   the query arrives as it was sent, the body must be UTF-8;
//! * a `404` makes it send the request a second time, and haproxy may repeat one, too.
//!
//! So a message is cut into frames that each fit one small request and whose repetition changes
//! nothing, and each is answered with a receipt of what arrived. The fields of a frame:
//!
//! | where | field | meaning |
//! |---|---|---|
//! | path | `/heliograph/v1/f/<boot>/<seq>/<n>-<of>` | `boot`: 16 lowercase hexadecimal digits, new at every boot; `seq`: number of the message in that boot; `n`: number of the frame, from 1; `of`: how many there are |
//! | body or query | `len` | bytes of the whole message |
//! | | `part` | bytes of the message in every frame but the last |
//! | | `sha256` | digest of the whole message, hexadecimal |
//! | | `d` | this frame's part of the message, base64url without padding |
//!
//! In the body these four are a JSON object. In the query, which survives a proxy that reads too
//! early, they are four fields, and the body is empty. A query is written to the hypervisor's
//! haproxy log, so a sender tries the body first and puts no secret into a query.
//!
//! The sender chooses how large a frame is: with
//! [`SMALL_FRAME_DATA_BYTES`] the whole request fits one TCP segment, and then its body cannot be torn
//! from its head.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::percent;

/// What the metadata surface answers itself begins with this. No OpenStack version directory and no
/// EC2 date does.
pub const METADATA_PREFIX: &str = "/heliograph/v1/";

/// Where frames go.
pub const FRAME_PREFIX: &str = "/heliograph/v1/f/";

/// The most bytes of a message in one frame: 2,400 characters of base64url. With path, fields and
/// HTTP's own headers that stays below 3,000 bytes, and with the headers that Neutron's haproxy adds
/// well below the 4,096 that its metadata agent reads.
pub const MAX_FRAME_DATA_BYTES: usize = 1_800;

/// Bytes of a message in one frame of a request that is to fit one TCP segment, also where tunnels leave
/// 1,280 bytes of it. No sender cuts smaller.
pub const SMALL_FRAME_DATA_BYTES: usize = 600;

/// The most bytes of a message. At 8 frames in 10 seconds the largest takes three minutes; what is
/// larger does not belong on this path.
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;

/// The most frames of a message.
pub const MAX_FRAMES: usize = MAX_MESSAGE_BYTES.div_ceil(SMALL_FRAME_DATA_BYTES);

/// One boot of an instance, so that numbers may start anew after a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(u64);

/// What tells one message of an instance from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    pub boot: BootId,
    pub seq: u32,
}

/// One frame, checked: its data fits its place in the message.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub message: MessageId,
    /// From 1 to `of`.
    pub number: u16,
    pub of: u16,
    /// Bytes of the whole message.
    pub length: usize,
    /// Bytes of the message in every frame but the last.
    pub size: usize,
    /// Digest of the whole message.
    pub sha256: [u8; 32],
    pub data: Vec<u8>,
}

/// How a frame is put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Body,
    Query,
}

/// A frame as a request: what stands in the request line, and the body.
#[derive(Clone, PartialEq, Eq)]
pub struct FrameRequest {
    pub target: String,
    pub body: String,
}

/// What the relay says of a frame. `len` and `sha256` are of this frame's data as it arrived: where
/// they are not what was sent, something on the way has cut it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub ok: bool,
    /// `stored`: more frames are awaited. `complete`: the message is whole and on disk. Otherwise a
    /// stable name of what is wrong.
    pub code: String,
    #[serde(default)]
    pub seq: u32,
    #[serde(default)]
    pub len: usize,
    #[serde(default)]
    pub sha256: String,
    /// With the code `retry`: how long to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
}

/// Why something is not a frame, or not one of this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    #[error("the path is not {FRAME_PREFIX}BOOT/SEQ/N-OF")]
    BadPath,
    #[error("the fields len, part, sha256 and d are not all there, or not well formed")]
    BadFields,
    #[error("the message has more than {MAX_MESSAGE_BYTES} bytes")]
    TooLarge,
    #[error("the frame's data does not fit its place in the message")]
    BadPlace,
    #[error("the frame belongs to another message with the same number")]
    OtherMessage,
    #[error("the frames together do not have the digest that each of them names")]
    BadDigest,
}

impl FrameError {
    /// The stable name of the error in a receipt.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            FrameError::BadPath => "frame_bad_path",
            FrameError::BadFields => "frame_bad_fields",
            FrameError::TooLarge => "frame_too_large",
            FrameError::BadPlace => "frame_bad_place",
            FrameError::OtherMessage => "frame_other_message",
            FrameError::BadDigest => "frame_bad_digest",
        }
    }
}

impl BootId {
    #[must_use]
    pub fn from_random(random: u64) -> BootId {
        BootId(random)
    }

    /// Reads an id as it is printed.
    #[must_use]
    pub fn parse(text: &str) -> Option<BootId> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_hex) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(BootId)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// Shows no data.
impl fmt::Debug for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Frame({} {} {}-{})",
            self.message.boot, self.message.seq, self.number, self.of
        )
    }
}

/// Shows no data.
impl fmt::Debug for FrameRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FrameRequest({} + {} bytes)", self.target.len(), self.body.len())
    }
}

/// Cuts a message into frames of the largest size. An empty message has one, empty frame.
pub fn split(message: MessageId, bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    split_into(message, bytes, MAX_FRAME_DATA_BYTES)
}

/// Cuts a message into frames of a size, which is brought into its bounds.
pub fn split_into(message: MessageId, bytes: &[u8], size: usize) -> Result<Vec<Frame>, FrameError> {
    let size = size.clamp(SMALL_FRAME_DATA_BYTES, MAX_FRAME_DATA_BYTES);
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(FrameError::TooLarge);
    }
    let sha256 = Sha256::digest(bytes).into();
    let of = bytes.len().div_ceil(size).max(1);
    let of = u16::try_from(of).map_err(|_| FrameError::TooLarge)?;
    let part = |number: u16| {
        let start = usize::from(number - 1) * size;
        bytes[start..bytes.len().min(start + size)].to_vec()
    };
    Ok((1..=of)
        .map(|number| Frame {
            message,
            number,
            of,
            length: bytes.len(),
            size,
            sha256,
            data: part(number),
        })
        .collect())
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    len: usize,
    part: usize,
    sha256: String,
    d: String,
}

impl Frame {
    /// The frame as a `PUT` with a body, or with all in the query.
    #[must_use]
    pub fn to_request(&self, form: Form) -> FrameRequest {
        let MessageId { boot, seq } = self.message;
        let path = format!("{FRAME_PREFIX}{boot}/{seq}/{}-{}", self.number, self.of);
        let fields = Fields {
            len: self.length,
            part: self.size,
            sha256: hex::encode(self.sha256),
            d: URL_SAFE_NO_PAD.encode(&self.data),
        };
        match form {
            Form::Body => FrameRequest {
                target: path,
                // Four plain fields cannot fail to serialise.
                body: serde_json::to_string(&fields).unwrap_or_default(),
            },
            Form::Query => FrameRequest {
                target: format!(
                    "{path}?len={}&part={}&sha256={}&d={}",
                    fields.len, fields.part, fields.sha256, fields.d
                ),
                body: String::new(),
            },
        }
    }

    /// Reads a request for a path below [`FRAME_PREFIX`].
    pub fn parse(path: &str, query: Option<&str>, body: &[u8]) -> Result<Frame, FrameError> {
        let (message, number, of) = parse_path(path).ok_or(FrameError::BadPath)?;
        let fields = match query {
            Some(query) => parse_query(query).ok_or(FrameError::BadFields)?,
            None => serde_json::from_slice(body).map_err(|_| FrameError::BadFields)?,
        };
        let mut sha256 = [0; 32];
        hex::decode_to_slice(&fields.sha256, &mut sha256).map_err(|_| FrameError::BadFields)?;
        let data = URL_SAFE_NO_PAD.decode(&fields.d).map_err(|_| FrameError::BadFields)?;
        if fields.len > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLarge);
        }
        let (length, size) = (fields.len, fields.part);
        let frame = Frame { message, number, of, length, size, sha256, data };
        match frame.fits_its_place() {
            true => Ok(frame),
            false => Err(FrameError::BadPlace),
        }
    }

    /// Every frame but the last is full, so that number and size say where the data belongs.
    fn fits_its_place(&self) -> bool {
        let (number, of) = (usize::from(self.number), usize::from(self.of));
        let sizes = SMALL_FRAME_DATA_BYTES..=MAX_FRAME_DATA_BYTES;
        if number == 0 || number > of || !sizes.contains(&self.size) {
            return false;
        }
        let before = (number - 1) * self.size;
        of == self.length.div_ceil(self.size).max(1)
            && self.data.len() == (self.length - before).min(self.size)
    }

    /// The receipt of this frame as it arrived.
    #[must_use]
    pub fn receipt(&self, code: &str) -> Receipt {
        Receipt {
            ok: true,
            code: code.to_owned(),
            seq: self.message.seq,
            len: self.data.len(),
            sha256: hex::encode(Sha256::digest(&self.data)),
            after_ms: None,
        }
    }
}

fn parse_path(path: &str) -> Option<(MessageId, u16, u16)> {
    let mut segments = path.strip_prefix(FRAME_PREFIX)?.split('/');
    let boot = BootId::parse(segments.next()?)?;
    let seq = segments.next()?.parse().ok()?;
    let (number, of) = segments.next()?.split_once('-')?;
    match segments.next() {
        None => Some((MessageId { boot, seq }, number.parse().ok()?, of.parse().ok()?)),
        Some(_) => None,
    }
}

fn parse_query(query: &str) -> Option<Fields> {
    let (mut len, mut part, mut sha256, mut d) = (None, None, None, None);
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=')?;
        let slot = match name {
            "len" => &mut len,
            "part" => &mut part,
            "sha256" => &mut sha256,
            "d" => &mut d,
            _ => return None,
        };
        if slot.replace(percent::decode_query(value)?).is_some() {
            return None;
        }
    }
    let (len, part) = (len?.parse().ok()?, part?.parse().ok()?);
    Some(Fields { len, part, sha256: sha256?, d: d? })
}

/// The frames of one message that have arrived so far, in any order, any of them more than once.
#[derive(Clone, Debug)]
pub struct Assembly {
    message: MessageId,
    sha256: [u8; 32],
    length: usize,
    size: usize,
    parts: Vec<Option<Vec<u8>>>,
    n_missing: usize,
}

impl Assembly {
    /// Begins with the frame that came first, which is still to be [added](Assembly::add).
    #[must_use]
    pub fn begin(first: &Frame) -> Assembly {
        Assembly {
            message: first.message,
            sha256: first.sha256,
            length: first.length,
            size: first.size,
            parts: vec![None; usize::from(first.of)],
            n_missing: usize::from(first.of),
        }
    }

    /// Takes a frame. Returns the message when it is whole.
    pub fn add(&mut self, frame: Frame) -> Result<Option<Vec<u8>>, FrameError> {
        let same = (frame.message, frame.sha256, frame.length, frame.size)
            == (self.message, self.sha256, self.length, self.size);
        if !same {
            return Err(FrameError::OtherMessage);
        }
        let part = &mut self.parts[usize::from(frame.number) - 1];
        if part.is_none() {
            *part = Some(frame.data);
            self.n_missing -= 1;
        }
        if self.n_missing > 0 {
            return Ok(None);
        }
        let bytes: Vec<u8> = self.parts.iter().flatten().flatten().copied().collect();
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if digest != self.sha256 {
            return Err(FrameError::BadDigest);
        }
        Ok(Some(bytes))
    }

    /// How many bytes are held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.parts.iter().flatten().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests;
