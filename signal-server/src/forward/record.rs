//! What is on disk of a forwarded signal.
//!
//! ```text
//! F <id>                    it waits; who sent it, whereto, and the secret that lets it in
//! D <id>                    its body
//! R <id>                    what became of it
//! X <length><account> <id>  that it belongs to an account
//! ```
//! An id is 16 bytes: a number that grows with every signal, and 8 random bytes, so that ids sort in the
//! order of arrival and none can be guessed. `F` and `D` go in the commit that writes `R`: from then on the
//! disk holds neither the secret nor the body.
//!
//! **The secret** is a token or a presigned URL, which Heat wants to see and which therefore cannot be kept
//! as a hash. It stands in the store as it is, in a directory that only the relay's user may enter.
//!
//! The encoding is one byte that names the format, and JSON.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use signal_protocol::path::AccountName;

use crate::config::Secret;
use crate::forward::target::Target;
use crate::store::{Key, KeyKind};

/// The format that this version writes.
const FORMAT: u8 = 1;

/// Names a forwarded signal: `f-` and 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ForwardId([u8; 16]);

/// The text is not the id of a forwarded signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a forwarded signal is \"f-\" and 32 hexadecimal digits in small letters")]
pub(crate) struct ForwardIdError;

/// The record is not one that this version wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {kind} record cannot be read")]
pub(crate) struct RecordError {
    pub(crate) kind: KeyKind,
}

/// How a signal came in, and so how it goes out.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "lowercase")]
pub(crate) enum Route {
    /// To heat-api, with the token that the sender showed.
    Heat { project: String, token: StoredSecret },
    /// To heat-api-cfn, as it was signed; and to heat-api with the token that the signature was exchanged
    /// for.
    Cfn { signed: SignedRequest, project: String, token: StoredSecret },
}

/// A presigned request as its sender made it. The signature covers method, host, path and query.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SignedRequest {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path_and_query: StoredSecret,
}

/// A secret that has to be written down.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) struct StoredSecret(Secret);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub(crate) account: AccountName,
    pub(crate) target: Target,
    pub(crate) route: Route,
    pub(crate) accepted_at: Timestamp,
    pub(crate) n_bytes: u64,
}

/// The way that a signal came: what a person calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Heat,
    Cfn,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum End {
    /// Heat has taken it.
    Delivered,
    /// Heat has refused it, and would again.
    Refused,
    /// Heat could not be reached for as long as anybody could have waited.
    Expired,
}

impl End {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            End::Delivered => "delivered",
            End::Refused => "refused",
            End::Expired => "expired",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OutcomeRecord {
    pub(crate) account: AccountName,
    pub(crate) target: Target,
    pub(crate) transport: Transport,
    pub(crate) accepted_at: Timestamp,
    pub(crate) ended_at: Timestamp,
    pub(crate) end: End,
    pub(crate) n_attempts: u32,
    /// What the last attempt came to.
    pub(crate) reason: String,
}

impl Route {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Route::Heat { .. } => Transport::Heat,
            Route::Cfn { .. } => Transport::Cfn,
        }
    }
}

/// Shows no path and no query: the query is the signature.
impl fmt::Debug for SignedRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SignedRequest")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Route({:?})", self.transport())
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoredSecret(..)")
    }
}

impl StoredSecret {
    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }
}

impl From<Secret> for StoredSecret {
    fn from(secret: Secret) -> StoredSecret {
        StoredSecret(secret)
    }
}

impl From<String> for StoredSecret {
    fn from(text: String) -> StoredSecret {
        StoredSecret(Secret::new(text))
    }
}

impl From<StoredSecret> for String {
    fn from(secret: StoredSecret) -> String {
        secret.0.expose().to_owned()
    }
}

impl ForwardId {
    /// An id that sorts after those with a smaller number.
    pub(crate) fn new(number: u64, random: [u8; 8]) -> ForwardId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id[8..].copy_from_slice(&random);
        ForwardId(id)
    }

    pub(crate) fn number(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// A number in 0..1 for the pause after the n-th attempt: another one for each signal, as ids are random.
    pub(crate) fn cut(self, n_attempts: u32) -> f64 {
        let [_, _, _, _, _, _, _, _, random @ ..] = self.0;
        f64::from(random[n_attempts as usize % random.len()]) / 256.0
    }

    pub(crate) fn key(self, kind: KeyKind) -> Key {
        Key::new(kind, &[&self.0])
    }

    pub(crate) fn index_key(self, account: &AccountName) -> Key {
        of_account(account, &self.0)
    }

    /// The id at the end of a key that was found under `prefix`.
    pub(crate) fn after(key: &Key, prefix: &Key) -> Option<ForwardId> {
        Some(ForwardId(key.after(prefix)?.try_into().ok()?))
    }

    pub(crate) fn parse(text: &str) -> Result<ForwardId, ForwardIdError> {
        let digits = text.strip_prefix("f-").ok_or(ForwardIdError)?;
        let is_small = digits.bytes().all(|byte| !byte.is_ascii_uppercase());
        let mut id = [0; 16];
        hex::decode_to_slice(digits, &mut id).map_err(|_| ForwardIdError)?;
        if is_small { Ok(ForwardId(id)) } else { Err(ForwardIdError) }
    }
}

/// The index of an account.
pub(crate) fn index_of(account: &AccountName) -> Key {
    of_account(account, b"")
}

fn of_account(account: &AccountName, rest: &[u8]) -> Key {
    let account = account.as_str().as_bytes();
    let length = u16::try_from(account.len()).unwrap_or(u16::MAX);
    Key::new(KeyKind::ForwardIndex, &[&length.to_be_bytes(), account, rest])
}

impl fmt::Display for ForwardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "f-{}", hex::encode(self.0))
    }
}

impl fmt::Debug for ForwardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<ForwardId> for String {
    fn from(id: ForwardId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for ForwardId {
    type Error = ForwardIdError;

    fn try_from(text: String) -> Result<ForwardId, ForwardIdError> {
        ForwardId::parse(&text)
    }
}

/// Writes a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    let mut bytes = vec![FORMAT];
    // Structs with string keys always serialise; a failure would leave a record that the decoder refuses.
    let _ = serde_json::to_writer(&mut bytes, record);
    bytes.into()
}

/// Reads a record.
pub(crate) fn decode<T: DeserializeOwned>(kind: KeyKind, bytes: &[u8]) -> Result<T, RecordError> {
    bytes
        .strip_prefix(&[FORMAT])
        .and_then(|json| serde_json::from_slice(json).ok())
        .ok_or(RecordError { kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> EntryRecord {
        EntryRecord {
            account: AccountName::parse("AUTH_q").unwrap(),
            target: Target {
                stack_name: "s".to_owned(),
                stack_id: "i".to_owned(),
                resource: "r".to_owned(),
            },
            route: Route::Cfn {
                signed: SignedRequest {
                    method: "PUT".to_owned(),
                    host: "relay".to_owned(),
                    path_and_query: StoredSecret::from("/v1/signal/a?Signature=geheim".to_owned()),
                },
                project: "q".to_owned(),
                token: StoredSecret::from("geheim".to_owned()),
            },
            accepted_at: Timestamp::UNIX_EPOCH,
            n_bytes: 2,
        }
    }

    #[test]
    fn the_format_of_an_entry_does_not_change_by_accident() {
        let bytes = encode(&entry());
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "\u{1}{\"account\":\"AUTH_q\",\"target\":{\"stack_name\":\"s\",\"stack_id\":\"i\",\
             \"resource\":\"r\"},\"route\":{\"transport\":\"cfn\",\"signed\":{\"method\":\"PUT\",\
             \"host\":\"relay\",\"path_and_query\":\"/v1/signal/a?Signature=geheim\"},\
             \"project\":\"q\",\"token\":\"geheim\"},\"accepted_at\":\"1970-01-01T00:00:00Z\",\
             \"n_bytes\":2}"
        );
        let read: EntryRecord = decode(KeyKind::Forward, &bytes).unwrap();
        assert_eq!(read.target, entry().target);
        assert!(decode::<EntryRecord>(KeyKind::Forward, &bytes[..bytes.len() - 1]).is_err());
        assert!(decode::<EntryRecord>(KeyKind::Forward, b"\x02{}").is_err());
    }

    #[test]
    fn an_entry_shows_no_secret() {
        assert!(!format!("{:?}", entry()).contains("geheim"));
    }

    #[test]
    fn ids_sort_by_their_number_and_read_back() {
        let (first, second) = (ForwardId::new(255, [9; 8]), ForwardId::new(256, [0; 8]));
        assert!(first < second);
        assert!(first.key(KeyKind::Forward) < second.key(KeyKind::Forward));
        assert_eq!(first.to_string(), "f-00000000000000ff0909090909090909");
        assert_eq!(ForwardId::parse(&first.to_string()), Ok(first));
        assert_eq!(second.number(), 256);
        let account = AccountName::parse("AUTH_q").unwrap();
        let key = first.index_key(&account);
        assert_eq!(ForwardId::after(&key, &index_of(&account)), Some(first));
        for text in ["", "f-", "f-00", "f-00000000000000FF0909090909090909", "h-00"] {
            assert_eq!(ForwardId::parse(text), Err(ForwardIdError), "{text}");
        }
    }
}
