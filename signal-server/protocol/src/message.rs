//! Messages: what an instance says over Neutron's metadata path, before it is cut into frames.
//!
//! A message is one line of JSON, and a second line where the instance has a key:
//!
//! | `kind` | other keys | meaning |
//! |---|---|---|
//! | `signal` | `signal`, perhaps `to` | a signal; without `to` for the handle that the relay knows this instance by |
//! | `progress` | `phase`, `text` | how far the instance has come |
//! | `log` | `text` | the last lines of a log, when something failed |
//! | `key` | `key` | from now on, believe only messages with this key |
//!
//! `to` names where the signal would have gone if the instance had a route: `url`, and what Heat's
//! transports need beside it (`token`, or `auth_url`, `user_id`, `password` and `project_id`). Such a
//! message carries a credential, so it must never be put into a query: [`Message::carries_secret`].
//!
//! **The key.** The metadata path proves which instance speaks, and not who inside it: a container
//! that reaches 169.254.169.254 speaks with the instance's voice. So an agent may give the relay a
//! random key before it starts its first container; the first key is kept. From then on the second
//! line of every message is the HMAC-SHA256, with that key, of boot, number and first line, and a
//! message without it is refused. A key may be given again by who knows it, which is what a repeated
//! request does.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;

use crate::frame::MessageId;
use crate::signal::{Signal, SignalError};

/// The longest name of a phase, in bytes: a word or two.
pub const MAX_PHASE_BYTES: usize = 64;

/// The longest text of a progress message, in bytes: one line on a screen or two.
pub const MAX_TEXT_BYTES: usize = 512;

/// The most of a log that is kept, in bytes: what somebody reads first, and three requests.
pub const MAX_LOG_BYTES: usize = 4_096;

/// What an instance says.
#[derive(Clone, PartialEq)]
pub enum Message {
    Signal { signal: Signal, to: Option<Destination> },
    Progress { phase: String, text: String },
    Log { text: String },
    Key(InstanceKey),
}

/// Where a signal would have gone without the metadata path.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    pub url: String,
    /// Heat's `TOKEN_SIGNAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Heat's `HEAT_SIGNAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
}

/// A user that Heat made for one handle.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub auth_url: String,
    pub user_id: String,
    pub password: String,
    pub project_id: String,
}

/// A secret that an instance and the relay share.
#[derive(Clone, PartialEq, Eq)]
pub struct InstanceKey([u8; 32]);

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    #[error("the message is not JSON of a known kind with the keys that belong to it")]
    NotMessage,
    #[error("the message's signal is not one")]
    BadSignal(#[source] SignalError),
    #[error(
        "a phase has up to {MAX_PHASE_BYTES} bytes, a text {MAX_TEXT_BYTES}, a log {MAX_LOG_BYTES}"
    )]
    TooLong,
    #[error("the message is not signed with the instance's key")]
    BadMac,
}

impl MessageError {
    /// The stable name of the error in a receipt.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            MessageError::NotMessage => "message_malformed",
            MessageError::BadSignal(error) => error.code(),
            MessageError::TooLong => "message_text_too_long",
            MessageError::BadMac => "message_bad_mac",
        }
    }
}

/// The JSON, read and written. Which keys go together is checked by hand: a tagged enum would be read by
/// way of a buffer, and that would change the numbers in a signal's data.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Destination>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phase: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Signal,
    Progress,
    Log,
    Key,
}

impl Wire {
    fn new(kind: Kind) -> Wire {
        Wire { kind, signal: None, to: None, phase: None, text: None, key: None }
    }
}

impl Message {
    /// The bytes that travel, signed if there is a key.
    #[must_use]
    pub fn to_bytes(&self, id: MessageId, key: Option<&InstanceKey>) -> Vec<u8> {
        let wire = match self.clone() {
            Message::Signal { signal, to } => {
                let signal = RawValue::from_string(signal.to_json()).ok();
                Wire { signal, to, ..Wire::new(Kind::Signal) }
            }
            Message::Progress { phase, text } => {
                Wire { phase: Some(phase), text: Some(text), ..Wire::new(Kind::Progress) }
            }
            Message::Log { text } => Wire { text: Some(text), ..Wire::new(Kind::Log) },
            Message::Key(key) => Wire { key: Some(key.reveal()), ..Wire::new(Kind::Key) },
        };
        // Strings and checked JSON cannot fail to serialise.
        let mut bytes = serde_json::to_vec(&wire).unwrap_or_default();
        if let Some(key) = key {
            let mac = hex::encode(key.mac(id, &bytes).finalize().into_bytes());
            bytes.push(b'\n');
            bytes.extend_from_slice(mac.as_bytes());
        }
        bytes
    }

    /// Reads a message of an instance that has given this key, or none so far.
    pub fn parse(
        id: MessageId,
        bytes: &[u8],
        key: Option<&InstanceKey>,
    ) -> Result<Message, MessageError> {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let (line, mac) = (lines.next().unwrap_or_default(), lines.next());
        if let Some(key) = key {
            let mut given = [0; 32];
            hex::decode_to_slice(mac.unwrap_or_default(), &mut given)
                .map_err(|_| MessageError::BadMac)?;
            // Compares in constant time.
            key.mac(id, line).verify(&given.into()).map_err(|_| MessageError::BadMac)?;
        }
        Message::from_json(line)
    }

    fn from_json(line: &[u8]) -> Result<Message, MessageError> {
        let wire: Wire = serde_json::from_slice(line).map_err(|_| MessageError::NotMessage)?;
        let check = |text: &str, limit: usize| match text.len() <= limit {
            true => Ok(()),
            false => Err(MessageError::TooLong),
        };
        let keys = (wire.kind, wire.signal, wire.to, wire.phase, wire.text, wire.key);
        Ok(match keys {
            (Kind::Signal, Some(signal), to, None, None, None) => {
                let signal = Signal::parse(signal.get().as_bytes());
                Message::Signal { signal: signal.map_err(MessageError::BadSignal)?, to }
            }
            (Kind::Progress, None, None, Some(phase), text, None) => {
                let text = text.unwrap_or_default();
                check(&phase, MAX_PHASE_BYTES)?;
                check(&text, MAX_TEXT_BYTES)?;
                Message::Progress { phase, text }
            }
            (Kind::Log, None, None, None, Some(text), None) => {
                check(&text, MAX_LOG_BYTES)?;
                Message::Log { text }
            }
            (Kind::Key, None, None, None, None, Some(key)) => {
                Message::Key(InstanceKey::parse(&key).ok_or(MessageError::NotMessage)?)
            }
            _ => return Err(MessageError::NotMessage),
        })
    }

    /// Whether the message must not be put where proxies log it. That is so for a URL, which is a
    /// credential of its own, and for what goes with it.
    #[must_use]
    pub fn carries_secret(&self) -> bool {
        matches!(self, Message::Key(_) | Message::Signal { to: Some(_), .. })
    }
}

impl InstanceKey {
    /// A key made of random bytes, which the caller draws.
    #[must_use]
    pub fn from_random(random: [u8; 32]) -> InstanceKey {
        InstanceKey(random)
    }

    /// Reads a key as it is stored: 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<InstanceKey> {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(InstanceKey(key))
    }

    /// The secret itself, to be stored. Never for a log.
    #[must_use]
    pub fn reveal(&self) -> String {
        hex::encode(self.0)
    }

    fn mac(&self, id: MessageId, line: &[u8]) -> Hmac<Sha256> {
        let mut mac = match Hmac::<Sha256>::new_from_slice(&self.0) {
            Ok(mac) => mac,
            // HMAC takes a key of any length.
            Err(_) => unreachable!("a key of 32 bytes was refused"),
        };
        mac.update(format!("{} {}\n", id.boot, id.seq).as_bytes());
        mac.update(line);
        mac
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InstanceKey(…)")
    }
}

/// Shows the kind alone.
impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Message::Signal { .. } => "Message(signal)",
            Message::Progress { .. } => "Message(progress)",
            Message::Log { .. } => "Message(log)",
            Message::Key(_) => "Message(key)",
        })
    }
}

/// Shows nothing: a URL is a credential.
impl fmt::Debug for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Destination(…)")
    }
}

/// Shows nothing.
impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Login(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::BootId;

    fn id() -> MessageId {
        MessageId { boot: BootId::from_random(7), seq: 3 }
    }

    fn messages() -> Vec<Message> {
        let body =
            br#"{"status":"FAILURE","reason":"exit 3","id":"a","data":{"n":1.10,"b":"\u0000"}}"#;
        let signal = Signal::parse(body).expect("a signal");
        let login = Login {
            auth_url: "http://k:5000/v3".to_owned(),
            user_id: "u".to_owned(),
            password: "p".to_owned(),
            project_id: "q".to_owned(),
        };
        let to = Destination { url: "http://h/x".to_owned(), token: None, login: Some(login) };
        vec![
            Message::Signal { signal: signal.clone(), to: None },
            Message::Signal { signal, to: Some(to) },
            Message::Progress { phase: "pull".to_owned(), text: "40 %\nof it".to_owned() },
            Message::Log { text: "last words\n".to_owned() },
            Message::Key(InstanceKey::from_random([9; 32])),
        ]
    }

    #[test]
    fn what_is_written_is_read_with_and_without_a_key() {
        let key = InstanceKey::from_random([1; 32]);
        for message in messages() {
            for key in [None, Some(&key)] {
                let bytes = message.to_bytes(id(), key);
                assert_eq!(Message::parse(id(), &bytes, key), Ok(message.clone()));
                // A relay that knows no key reads a signed message all the same.
                assert_eq!(Message::parse(id(), &bytes, None), Ok(message.clone()));
            }
        }
    }

    #[test]
    fn with_a_key_nobody_else_can_speak() {
        let key = InstanceKey::from_random([1; 32]);
        let other = InstanceKey::from_random([2; 32]);
        let message = &messages()[0];
        let next = MessageId { seq: 4, ..id() };
        let mut changed = message.to_bytes(id(), Some(&key));
        changed[40] ^= 1;
        for forged in [
            message.to_bytes(id(), None),
            message.to_bytes(id(), Some(&other)),
            message.to_bytes(next, Some(&key)),
            changed,
            Vec::new(),
        ] {
            let refused = Message::parse(id(), &forged, Some(&key));
            assert_eq!(refused, Err(MessageError::BadMac));
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_a_code() {
        let long = format!(r#"{{"kind":"log","text":"{}"}}"#, "x".repeat(MAX_LOG_BYTES + 1));
        for (bytes, expect) in [
            ("", "message_malformed"),
            ("{}", "message_malformed"),
            (r#"{"kind":"shell","text":"x"}"#, "message_malformed"),
            (r#"{"kind":"log","text":"x","more":1}"#, "message_malformed"),
            (r#"{"kind":"key","key":"00"}"#, "message_malformed"),
            (r#"{"kind":"log","text":"x","phase":"y"}"#, "message_malformed"),
            (r#"{"kind":"signal"}"#, "message_malformed"),
            (r#"{"kind":"signal","signal":[]}"#, "signal_not_object"),
            (r#"{"kind":"signal","signal":{"status":"ok"}}"#, "signal_bad_status"),
            (r#"{"kind":"signal","signal":{"stauts":1}}"#, "signal_unknown_key"),
            (&long, "message_text_too_long"),
        ] {
            let error = Message::parse(id(), bytes.as_bytes(), None).expect_err(bytes);
            assert_eq!(error.code(), expect, "{bytes}");
        }
    }

    #[test]
    fn nothing_secret_is_shown_or_put_into_a_query() {
        let shown = format!("{:?}", messages());
        assert_eq!(
            shown,
            "[Message(signal), Message(signal), Message(progress), Message(log), Message(key)]"
        );
        let secret: Vec<bool> = messages().iter().map(Message::carries_secret).collect();
        assert_eq!(secret, [false, true, false, false, true]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Message::parse(id(), &bytes, None);
            let _ = Message::parse(id(), &bytes, Some(&InstanceKey::from_random([1; 32])));
        }
    }
}
