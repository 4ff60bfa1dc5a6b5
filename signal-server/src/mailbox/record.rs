//! What the records say, and how they are written.
//!
//! A record is one byte that names its format, and then JSON, so that an operator can read it with any
//! tool. The records of signals and plain objects have two parts: format byte, length of the JSON as four
//! bytes (little end first), the JSON, and the body as it is. A mark that an id has been received is the
//! format byte and sixteen bytes of hash.
//!
//! A reader refuses a format byte it does not know rather than guess. A field that is added later needs
//! a default; a change that an older relay would misread needs a new format byte.

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use signal_protocol::path::AccountName;

use crate::mailbox::error::MailboxError;
use crate::mailbox::{ObjectInfo, SigningKey, SigningKeys};
use crate::store::KeyKind;

/// The format that this version writes.
const FORMAT: u8 = 1;

/// 128 random bits under which the records of one container, mailbox or body lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Number(pub(crate) [u8; 16]);

impl Number {
    pub(crate) fn random() -> Self {
        Number(rand::random())
    }
}

impl From<Number> for String {
    fn from(number: Number) -> Self {
        hex::encode(number.0)
    }
}

impl TryFrom<String> for Number {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut number = [0; 16];
        hex::decode_to_slice(text, &mut number)?;
        Ok(Number(number))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AccountRecord {
    pub(crate) keys: SigningKeys,
    pub(crate) n_containers: u64,
    pub(crate) n_handles: u64,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) number: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) versions_location: Option<String>,
    pub(crate) keys: SigningKeys,
    pub(crate) created_at: Timestamp,
    /// Somebody looks whether the container is empty, to remove it. Whoever puts something into the
    /// container meanwhile takes this mark away, which makes the removal begin again.
    #[serde(default)]
    pub(crate) removing: bool,
}

/// The head of a mailbox: what must be known to add a signal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HeadRecord {
    pub(crate) number: Number,
    /// The number of the next signal; the first one gets 1.
    pub(crate) next_signal: u64,
    pub(crate) n_pending: u64,
    pub(crate) n_bytes: u64,
    /// Grows with every change.
    pub(crate) version: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) used_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HandleRecord {
    pub(crate) account: AccountName,
    pub(crate) count: u32,
    pub(crate) timeout_seconds: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<Box<RawValue>>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) signing_key: SigningKey,
}

/// Where the body of a signal or of a plain object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BodyPlace {
    /// Behind the description, in the same record.
    Inline,
    /// In a record of its own. For a plain object it is named by this number, which is new with every
    /// put: so nobody ever reads the description of one version with the body of another.
    Apart(Number),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    #[serde(rename = "object")]
    pub(crate) info: ObjectInfo,
    pub(crate) body: BodyPlace,
}

impl HeadRecord {
    pub(crate) fn new(number: Number, now: Timestamp) -> Self {
        HeadRecord {
            number,
            next_signal: 1,
            n_pending: 0,
            n_bytes: 0,
            version: 1,
            created_at: now,
            used_at: now,
        }
    }
}

/// Writes a record that is JSON only.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(FORMAT);
    // Structs with string keys and finite numbers always serialise; a failure would leave a record that
    // the decoder refuses.
    let _ = serde_json::to_writer(&mut bytes, record);
    bytes.into()
}

/// Reads a record that is JSON only.
pub(crate) fn decode<T: DeserializeOwned>(kind: KeyKind, bytes: &[u8]) -> Result<T, MailboxError> {
    bytes
        .strip_prefix(&[FORMAT])
        .and_then(|json| serde_json::from_slice(json).ok())
        .ok_or(MailboxError::BadRecord { kind })
}

/// Writes the record of a signal or of a plain object.
pub(crate) fn encode_object(record: &ObjectRecord, body: &[u8]) -> Bytes {
    let json = serde_json::to_vec(record).unwrap_or_default();
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    let body = match record.body {
        BodyPlace::Inline => body,
        BodyPlace::Apart(_) => &[],
    };
    let mut bytes = Vec::with_capacity(5 + json.len() + body.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(body);
    bytes.into()
}

/// Reads the record of a signal or of a plain object. The bytes are those behind the description; they
/// are the body if it is [`BodyPlace::Inline`].
pub(crate) fn decode_object(
    kind: KeyKind,
    bytes: &Bytes,
) -> Result<(ObjectRecord, Bytes), MailboxError> {
    let damaged = MailboxError::BadRecord { kind };
    let Some((&[FORMAT, a, b, c, d], _)) = bytes.split_first_chunk::<5>() else {
        return Err(damaged);
    };
    let end = usize::try_from(u32::from_le_bytes([a, b, c, d]))
        .ok()
        .and_then(|length| length.checked_add(5))
        .filter(|end| *end <= bytes.len());
    let Some(end) = end else {
        return Err(damaged);
    };
    let record = serde_json::from_slice(&bytes[5..end]).map_err(|_| damaged)?;
    Ok((record, bytes.slice(end..)))
}

/// What a mark says about the content that was last received under an id.
pub(crate) fn seen(content: &[u8]) -> Bytes {
    let hash = Sha256::digest(content);
    let mut bytes = Vec::with_capacity(17);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&hash[..16]);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: BodyPlace) -> ObjectRecord {
        ObjectRecord {
            info: ObjectInfo {
                etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
                n_bytes: 5,
                content_type: "application/json".to_owned(),
                modified_at: Timestamp::UNIX_EPOCH,
            },
            body,
        }
    }

    #[test]
    fn an_object_reads_back_with_the_body_only_if_it_is_inline() {
        for (place, expect) in
            [(BodyPlace::Inline, "hello"), (BodyPlace::Apart(Number([7; 16])), "")]
        {
            let bytes = encode_object(&record(place), b"hello");
            let (read, body) = decode_object(KeyKind::Signal, &bytes).expect("reads back");
            assert_eq!(read.info, record(place).info);
            assert_eq!(read.body, place);
            assert_eq!(body, expect);
        }
    }

    #[test]
    fn a_record_that_is_cut_or_of_another_format_is_refused() {
        let whole = encode_object(&record(BodyPlace::Inline), b"");
        for length in 0..whole.len() {
            assert!(
                decode_object(KeyKind::Signal, &whole.slice(..length)).is_err(),
                "{length} bytes"
            );
        }
        let mut other = whole.to_vec();
        other[0] = FORMAT + 1;
        assert!(decode_object(KeyKind::Signal, &other.into()).is_err());
    }

    #[test]
    fn the_format_of_a_head_does_not_change_by_accident() {
        let head = HeadRecord::new(Number([0xab; 16]), Timestamp::UNIX_EPOCH);
        let bytes = encode(&head);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "\u{1}{\"number\":\"abababababababababababababababab\",\"next_signal\":1,\"n_pending\":0,\
             \"n_bytes\":0,\"version\":1,\"created_at\":\"1970-01-01T00:00:00Z\",\
             \"used_at\":\"1970-01-01T00:00:00Z\"}"
        );
        let read: HeadRecord = decode(KeyKind::Mailbox, &bytes).expect("reads back");
        assert_eq!(read.number, head.number);
    }
}
