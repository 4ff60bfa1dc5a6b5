//! What the records say, and how they are written.
//!
//! A record is one byte that names its format, and then what it says. Records that are written now and then
//! are JSON (format 1), so that an operator can read them with any tool. The two that every signal writes,
//! the head of its mailbox and the description of its object, are binary (format 2): less to make, to read
//! and to sync. The numbers in them have the little end first.
//!
//! | binary record | after the format byte |
//! |---|---|
//! | head of a mailbox | its number (16 bytes); next signal, pending signals, bytes, version (8 each); created, used (12 each) |
//! | signal, plain object | length of the description (4), description, body if it is in the same record |
//! | description of an object | number of a body that is apart, else zeroes (16), whether it is (1), bytes (8), modified (12), length of the etag (2), etag, content type |
//!
//! A time is seconds since 1970 (8 bytes) and nanoseconds (4). Relays before this format wrote heads and
//! descriptions as JSON too, and those are still read; the next change of a record writes it anew.
//!
//! A mark that an id has been received is format byte 1, sixteen bytes of hash, eight bytes of time
//! (microseconds, little end first), and the id.
//!
//! A reader refuses a format byte it does not know rather than guess. A field that is added later needs
//! a default; a change that an older relay would misread needs a new format byte.

mod binary;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use signal_protocol::path::AccountName;

use crate::mailbox::error::MailboxError;
use crate::mailbox::record::binary::Fields;
use crate::mailbox::{ObjectInfo, SigningKey, SigningKeys};
use crate::store::KeyKind;

/// The format of a record whose content is JSON, and of marks.
const FORMAT: u8 = 1;

/// The format of a record whose content is binary.
const BINARY_FORMAT: u8 = 2;

/// How long the binary head of a mailbox is, without the format byte.
const HEAD_BYTES: usize = 16 + 4 * 8 + 2 * 12;

/// How long the part of a mark is that tells contents apart: the format and half a hash.
const MARK_CONTENT_BYTES: usize = 17;

/// How much of an id a mark keeps. An agent's own id begins with the UUID of its instance and has less than
/// this; whoever wants to be told apart by what follows can be expected to put it first.
const MAX_MARKED_ID_BYTES: usize = 128;

/// 128 random bits under which the records of one container, mailbox or body lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Number(pub(crate) [u8; 16]);

impl Number {
    pub(crate) fn random() -> Self {
        #[cfg(test)]
        if let Some(number) = drawn::next() {
            return number;
        }
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
    /// Whether a client has set a key or removed one: then the account stays when nothing is left in
    /// it. So does one whose record is too old to tell.
    #[serde(default = "unknown_and_so_chosen")]
    pub(crate) has_chosen_keys: bool,
}

fn unknown_and_so_chosen() -> bool {
    true
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) number: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) versions_location: Option<String>,
    pub(crate) keys: SigningKeys,
    /// Who is expected to signal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) expected: Vec<String>,
    pub(crate) created_at: Timestamp,
    /// Somebody looks whether the container is empty, to remove it. Whoever puts something into the
    /// container meanwhile takes this mark away, which makes the removal begin again.
    #[serde(default)]
    pub(crate) removing: bool,
    /// Who has set this mark: one that was taken away and set again by another removal is another mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) removal: Option<Number>,
    /// When the container was deleted, if somebody may still wait for a handle in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_at: Option<Timestamp>,
}

impl ContainerRecord {
    /// Takes the mark of a removal away, and returns whether there was one.
    pub(crate) fn take_mark_away(&mut self) -> bool {
        self.removal = None;
        std::mem::take(&mut self.removing)
    }
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

/// A record that stands alone, without a body behind it.
pub(crate) trait Record: Sized {
    fn encode(&self) -> Bytes;

    /// Nothing when these bytes do not say such a record.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

macro_rules! json_records {
    ($($record:ty),*) => {
        $(impl Record for $record {
            fn encode(&self) -> Bytes {
                to_json(self)
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                from_json(bytes)
            }
        })*
    };
}

json_records!(AccountRecord, ContainerRecord, HandleRecord);

impl Record for HeadRecord {
    fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(1 + HEAD_BYTES);
        bytes.push(BINARY_FORMAT);
        bytes.extend_from_slice(&self.number.0);
        for count in [self.next_signal, self.n_pending, self.n_bytes, self.version] {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        binary::put_time(&mut bytes, self.created_at);
        binary::put_time(&mut bytes, self.used_at);
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Option<HeadRecord> {
        let Some(content) = bytes.strip_prefix(&[BINARY_FORMAT]) else {
            return from_json(bytes);
        };
        let mut fields = Fields::new(content);
        let head = HeadRecord {
            number: Number(fields.array()?),
            next_signal: fields.count()?,
            n_pending: fields.count()?,
            n_bytes: fields.count()?,
            version: fields.count()?,
            created_at: fields.time()?,
            used_at: fields.time()?,
        };
        fields.rest().is_empty().then_some(head)
    }
}

fn to_json<T: Serialize>(record: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(FORMAT);
    // Structs with string keys and finite numbers always serialise; a failure would leave a record that
    // the decoder refuses.
    let _ = serde_json::to_writer(&mut bytes, record);
    bytes.into()
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes.strip_prefix(&[FORMAT])?).ok()
}

/// Writes a record without a body.
pub(crate) fn encode<T: Record>(record: &T) -> Bytes {
    record.encode()
}

/// Reads a record without a body.
pub(crate) fn decode<T: Record>(kind: KeyKind, bytes: &[u8]) -> Result<T, MailboxError> {
    T::decode(bytes).ok_or(MailboxError::BadRecord { kind })
}

/// Writes the record of a signal or of a plain object.
pub(crate) fn encode_object(record: &ObjectRecord, body: &[u8]) -> Bytes {
    let (apart, body) = match record.body {
        BodyPlace::Inline => (None, body),
        BodyPlace::Apart(number) => (Some(number), &[][..]),
    };
    let info = &record.info;
    // An etag is made here and the length of a content type has a limit, so nothing is ever cut.
    let etag_length = u16::try_from(info.etag.len()).unwrap_or(u16::MAX);
    let length = 16 + 1 + 8 + 12 + 2 + info.etag.len() + info.content_type.len();
    let mut bytes = Vec::with_capacity(5 + length + body.len());
    bytes.push(BINARY_FORMAT);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&apart.map_or([0; 16], |number| number.0));
    bytes.push(u8::from(apart.is_some()));
    bytes.extend_from_slice(&info.n_bytes.to_le_bytes());
    binary::put_time(&mut bytes, info.modified_at);
    bytes.extend_from_slice(&etag_length.to_le_bytes());
    bytes.extend_from_slice(info.etag.as_bytes());
    bytes.extend_from_slice(info.content_type.as_bytes());
    bytes.extend_from_slice(body);
    bytes.into()
}

/// Reads the record of a signal or of a plain object. The bytes are those behind the description; they
/// are the body if it is [`BodyPlace::Inline`].
pub(crate) fn decode_object(
    kind: KeyKind,
    bytes: &Bytes,
) -> Result<(ObjectRecord, Bytes), MailboxError> {
    split_object(bytes).ok_or(MailboxError::BadRecord { kind })
}

fn split_object(bytes: &Bytes) -> Option<(ObjectRecord, Bytes)> {
    let (&[format, a, b, c, d], _) = bytes.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    let end = length.checked_add(5).filter(|end| *end <= bytes.len())?;
    let record = match format {
        FORMAT => serde_json::from_slice(&bytes[5..end]).ok()?,
        BINARY_FORMAT => read_description(&bytes[5..end])?,
        _ => return None,
    };
    Some((record, bytes.slice(end..)))
}

fn read_description(description: &[u8]) -> Option<ObjectRecord> {
    let mut fields = Fields::new(description);
    let number = Number(fields.array()?);
    let body = match fields.array::<1>()? {
        [0] => BodyPlace::Inline,
        [1] => BodyPlace::Apart(number),
        _ => return None,
    };
    let n_bytes = fields.count()?;
    let modified_at = fields.time()?;
    let etag_length = u16::from_le_bytes(fields.array()?);
    let etag = fields.text(usize::from(etag_length))?;
    let content_type = str::from_utf8(fields.rest()).ok()?.to_owned();
    Some(ObjectRecord { info: ObjectInfo { etag, n_bytes, content_type, modified_at }, body })
}

/// What a mark says about the content that was last received under an id: enough to know it again, when it
/// came, and the beginning of the id, so that somebody can be told who has signalled after the signal itself
/// has been read and removed.
pub(crate) fn seen(content: &[u8], id: &str, now: Timestamp) -> Bytes {
    let hash = Sha256::digest(content);
    let is_boundary = |end: &usize| id.is_char_boundary(*end);
    let end = (0..=MAX_MARKED_ID_BYTES.min(id.len())).rev().find(is_boundary).unwrap_or_default();
    let id = &id[..end];
    let mut bytes = Vec::with_capacity(MARK_CONTENT_BYTES + 8 + id.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&hash[..16]);
    bytes.extend_from_slice(&now.as_microsecond().to_le_bytes());
    bytes.extend_from_slice(id.as_bytes());
    bytes.into()
}

/// Whether two marks are of the same content, whenever it came. Marks of earlier versions end after the
/// content.
pub(crate) fn is_same_content(one: &[u8], other: &[u8]) -> bool {
    let content = |mark: &[u8]| mark.first_chunk::<MARK_CONTENT_BYTES>().copied();
    content(one).is_some_and(|one| content(other) == Some(one))
}

/// The id and the time of a mark; nothing if the mark is of an earlier version.
pub(crate) fn read_mark(mark: &[u8]) -> Option<(String, Timestamp)> {
    let (time, id) = mark.get(MARK_CONTENT_BYTES..)?.split_first_chunk::<8>()?;
    let time = Timestamp::from_microsecond(i64::from_le_bytes(*time)).ok()?;
    Some((String::from_utf8_lossy(id).into_owned(), time))
}

/// Numbers of a history that is to be the same each time that it is played: records are walked over in their
/// order.
#[cfg(test)]
mod drawn {
    use std::cell::RefCell;

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use crate::mailbox::Mailboxes;
    use crate::mailbox::record::Number;

    thread_local! {
        static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    impl Mailboxes {
        /// From now on, in this thread.
        pub(crate) fn draw_numbers_from(seed: u64) {
            DICE.set(Some(StdRng::seed_from_u64(seed)));
        }
    }

    pub(super) fn next() -> Option<Number> {
        DICE.with_borrow_mut(|dice| dice.as_mut().map(|dice| Number(dice.random())))
    }
}

#[cfg(test)]
mod tests;
