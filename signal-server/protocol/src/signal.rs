//! The signal: one JSON object that says how something on an instance went.
//!
//! Two spellings exist, and both are read into one [`Signal`]:
//!
//! | `OS::Heat::*` handles (every key optional) | `AWS::CloudFormation::WaitConditionHandle` (all required) |
//! |---|---|
//! | `status`: `SUCCESS` or `FAILURE` | `Status` |
//! | `reason`: string | `Reason` |
//! | `id`: string or number | `UniqueId` |
//! | `data`: any JSON value | `Data` |
//!
//! Heat reads a signal long after its sender has gone, and one that it dislikes fails the whole
//! stack at once and for good (`heat/engine/resources/openstack/heat/wait_condition_handle.py`).
//! So a signal is judged here, while the sender still waits for the answer, by Heat's rules and
//! those of the Python that runs them: a key it does not know, a reason that is not a string, a
//! nesting that its JSON parser would not survive.
//!
//! `data` is kept as the text that was sent. Reading it into numbers and back would change large
//! integers and the spelling of floats.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The largest signal body, in bytes: Heat's own `max_json_body_size`, so that whatever the relay
/// accepts, Heat accepts too.
pub const MAX_SIGNAL_BYTES: usize = 1 << 20;

/// The longest `id`, in bytes. An id is a key in Heat's database and in the relay's store; real
/// ones are a UUID and a few words.
pub const MAX_ID_BYTES: usize = 1024;

/// How much of a name that the sender chose is repeated in an error message, in characters: enough
/// to recognise it, too little to carry a secret that was pasted in the wrong place.
const MAX_QUOTED_CHARS: usize = 40;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub enum Status {
    #[serde(rename = "SUCCESS")]
    Success,
    #[serde(rename = "FAILURE")]
    Failure,
}

/// One signal, checked: whatever holds one may pass it on to Heat.
#[derive(Clone)]
pub struct Signal {
    pub status: Status,
    pub reason: Option<String>,
    /// What makes two signals the same one. Heat numbers signals that carry none, so a repeated
    /// signal without an id counts twice.
    pub id: Option<String>,
    pub data: Option<Box<RawValue>>,
}

/// Why a body is not a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    #[error("the signal has {length} bytes, more than the {MAX_SIGNAL_BYTES} that are taken")]
    TooLarge { length: usize },
    #[error("the signal is not JSON in UTF-8: line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("the signal is not a JSON object")]
    NotObject,
    #[error("unknown key \"{key}\": a signal has the keys status, reason, id and data")]
    UnknownKey { key: String },
    #[error("the key \"{key}\" stands twice")]
    DuplicateKey { key: String },
    #[error(
        "the key \"{key}\" is missing: a CloudFormation signal has Status, Reason, UniqueId and Data"
    )]
    MissingKey { key: &'static str },
    #[error("status is neither \"SUCCESS\" nor \"FAILURE\", in capitals")]
    BadStatus,
    #[error("reason is not a string")]
    BadReason,
    #[error("id is neither a string nor a number, or has more than {MAX_ID_BYTES} bytes")]
    BadId,
    #[error(
        "data is JSON that its reader cannot hold: nested too deep, a number out of range, or half of a surrogate pair"
    )]
    BadData,
}

impl Signal {
    /// A signal that says only how it went.
    #[must_use]
    pub fn new(status: Status) -> Signal {
        Signal { status, reason: None, id: None, data: None }
    }

    /// Reads the body of a request. An empty body is `{}`: Heat means a success by it, yet fails
    /// over it when it comes by way of an object store.
    pub fn parse(body: &[u8]) -> Result<Signal, SignalError> {
        check_length(body)?;
        Signal::parse_again(body)
    }

    /// Reads what [`to_json`](Signal::to_json) made of a body that was taken. That says the status and has
    /// quotes around the id, so it may be longer than any body that is taken.
    pub fn parse_again(json: &[u8]) -> Result<Signal, SignalError> {
        match read_members(json)? {
            Some(Members(members)) => Signal::from_members(members),
            None => Ok(Signal::new(Status::Success)),
        }
    }

    /// Reads the body of a request that Heat will read in its turn, and returns beside the signal what Heat is
    /// to be given in the body's place; nothing if it reads the same in the body itself. It does not in an
    /// empty body, and not in CloudFormation's spelling. Nor where a member is `null`, which says here what
    /// its absence says: Heat fills in what is absent, while a `null` stays, so that all ids that are `null`
    /// are one id, `None`, and a failure whose reason is `null` fails in joining the reasons.
    pub fn parse_for_heat(body: &[u8]) -> Result<(Signal, Option<String>), SignalError> {
        check_length(body)?;
        let members = read_members(body)?;
        let is_heats = members.as_ref().is_some_and(|Members(members)| {
            members.iter().all(|(key, raw)| HEAT.index(key).is_some() && raw.get() != "null")
        });
        let signal = match members {
            Some(Members(members)) => Signal::from_members(members)?,
            None => Signal::new(Status::Success),
        };
        let rewritten = (!is_heats).then(|| signal.to_json());
        Ok((signal, rewritten))
    }

    fn from_members(members: Vec<(String, Box<RawValue>)>) -> Result<Signal, SignalError> {
        let spelling = match members.first() {
            Some((key, _)) if CLOUD_FORMATION.index(key).is_some() => &CLOUD_FORMATION,
            _ => &HEAT,
        };
        let mut values: [Option<Box<RawValue>>; 4] = [None, None, None, None];
        for (key, value) in members {
            let Some(index) = spelling.index(&key) else {
                return Err(SignalError::UnknownKey { key: quoted(&key) });
            };
            if values[index].replace(value).is_some() {
                return Err(SignalError::DuplicateKey { key: quoted(&key) });
            }
        }
        let missing = values.iter().position(Option::is_none);
        if let Some(index) = missing.filter(|_| spelling.all_required) {
            return Err(SignalError::MissingKey { key: spelling.keys[index] });
        }
        let [status, reason, id, data] = values;
        Ok(Signal {
            status: status.map_or(Ok(Status::Success), |raw| parse_status(&raw))?,
            reason: reason.map_or(Ok(None), |raw| parse_reason(&raw))?,
            id: id.map_or(Ok(None), |raw| parse_id(&raw))?,
            data: data.map_or(Ok(None), parse_data)?,
        })
    }

    /// The signal in Heat's spelling, with the keys that are set.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A map with string keys and checked JSON inside cannot fail to serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The signal in `body` in the other one of the two spellings. Nothing for what is no signal, or has no
    /// id: Heat counts that each time it arrives.
    #[must_use]
    pub fn respelled(body: &[u8]) -> Option<String> {
        let signal = Signal::parse(body).ok()?;
        let id = signal.id.as_deref()?;
        let Members(members) = serde_json::from_slice(body).ok()?;
        let (first, _) = members.first()?;
        if CLOUD_FORMATION.index(first).is_some() {
            return Some(signal.to_json());
        }
        let values = CloudFormation {
            status: signal.status,
            reason: signal.reason.as_deref().unwrap_or_default(),
            id,
            data: signal.data.as_deref(),
        };
        serde_json::to_string(&values).ok()
    }
}

/// A signal in CloudFormation's spelling, which has all keys.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CloudFormation<'a> {
    status: Status,
    reason: &'a str,
    #[serde(rename = "UniqueId")]
    id: &'a str,
    data: Option<&'a RawValue>,
}

/// The names of the four members, in the order status, reason, id, data.
struct Spelling {
    keys: [&'static str; 4],
    all_required: bool,
}

const HEAT: Spelling = Spelling { keys: ["status", "reason", "id", "data"], all_required: false };

const CLOUD_FORMATION: Spelling =
    Spelling { keys: ["Status", "Reason", "UniqueId", "Data"], all_required: true };

impl Spelling {
    fn index(&self, key: &str) -> Option<usize> {
        self.keys.iter().position(|known| *known == key)
    }
}

fn check_length(body: &[u8]) -> Result<(), SignalError> {
    match body.len() {
        length if length > MAX_SIGNAL_BYTES => Err(SignalError::TooLarge { length }),
        _ => Ok(()),
    }
}

/// The members of a body; nothing if it is empty.
fn read_members(body: &[u8]) -> Result<Option<Members>, SignalError> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(body).map(Some).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => SignalError::NotObject,
        _ => SignalError::NotJson { line: error.line(), column: error.column() },
    })
}

fn parse_status(raw: &RawValue) -> Result<Status, SignalError> {
    serde_json::from_str(raw.get()).map_err(|_| SignalError::BadStatus)
}

fn parse_reason(raw: &RawValue) -> Result<Option<String>, SignalError> {
    serde_json::from_str(raw.get()).map_err(|_| SignalError::BadReason)
}

/// Heat makes a string of a number; here its own text is taken, so that 7 and "7" are one id.
fn parse_id(raw: &RawValue) -> Result<Option<String>, SignalError> {
    let id = match serde_json::from_str(raw.get()).map_err(|_| SignalError::BadId)? {
        serde_json::Value::Null => return Ok(None),
        serde_json::Value::String(text) => text,
        serde_json::Value::Number(_) => raw.get().to_owned(),
        _ => return Err(SignalError::BadId),
    };
    if id.len() > MAX_ID_BYTES {
        return Err(SignalError::BadId);
    }
    Ok(Some(id))
}

/// Reads `data` once in full and throws the result away: taking the raw text alone would let
/// through a nesting of a million brackets, on which Python's parser gives up.
fn parse_data(raw: Box<RawValue>) -> Result<Option<Box<RawValue>>, SignalError> {
    match serde_json::from_str(raw.get()).map_err(|_| SignalError::BadData)? {
        serde_json::Value::Null => Ok(None),
        _ => Ok(Some(raw)),
    }
}

fn quoted(name: &str) -> String {
    name.chars().take(MAX_QUOTED_CHARS).flat_map(char::escape_debug).collect()
}

/// The members of a JSON object in the order sent, duplicates included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::with_capacity(4);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Signal", 4)?;
        map.serialize_field("status", &self.status)?;
        match &self.reason {
            Some(reason) => map.serialize_field("reason", reason)?,
            None => map.skip_field("reason")?,
        }
        match &self.id {
            Some(id) => map.serialize_field("id", id)?,
            None => map.skip_field("id")?,
        }
        match &self.data {
            Some(data) => map.serialize_field("data", data)?,
            None => map.skip_field("data")?,
        }
        map.end()
    }
}

impl PartialEq for Signal {
    fn eq(&self, other: &Signal) -> bool {
        let data = |signal: &Signal| signal.data.as_ref().map(|raw| raw.get().to_owned());
        self.status == other.status
            && self.reason == other.reason
            && self.id == other.id
            && data(self) == data(other)
    }
}

/// Shows no reason and no data: both may carry what an instance wants only its owner to read.
impl fmt::Debug for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Signal")
            .field("status", &self.status)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Status::Success => "SUCCESS",
            Status::Failure => "FAILURE",
        })
    }
}

impl SignalError {
    /// The stable name of the error in an API's answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            SignalError::TooLarge { .. } => "signal_too_large",
            SignalError::NotJson { .. } => "signal_not_json",
            SignalError::NotObject => "signal_not_object",
            SignalError::UnknownKey { .. } => "signal_unknown_key",
            SignalError::DuplicateKey { .. } => "signal_duplicate_key",
            SignalError::MissingKey { .. } => "signal_missing_key",
            SignalError::BadStatus => "signal_bad_status",
            SignalError::BadReason => "signal_bad_reason",
            SignalError::BadId => "signal_bad_id",
            SignalError::BadData => "signal_bad_data",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], expect: &str) {
        let seen = match Signal::parse(body) {
            Ok(signal) => signal.to_json(),
            Err(error) => error.code().to_owned(),
        };
        assert_eq!(seen, expect, "body {:?}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    }

    #[test]
    fn bodies_that_heat_accepts_are_accepted() {
        for (body, expect) in [
            ("", r#"{"status":"SUCCESS"}"#),
            (" \n", r#"{"status":"SUCCESS"}"#),
            ("{}", r#"{"status":"SUCCESS"}"#),
            (r#"{"status":"FAILURE"}"#, r#"{"status":"FAILURE"}"#),
            (
                r#"{"data":{"a":[1,2.50,12345678901234567890123]},"id":7,"reason":"r"}"#,
                r#"{"status":"SUCCESS","reason":"r","id":"7","data":{"a":[1,2.50,12345678901234567890123]}}"#,
            ),
            (r#"{"id":"7","data":null,"reason":null}"#, r#"{"status":"SUCCESS","id":"7"}"#),
            (
                r#"{"Status":"SUCCESS","Reason":"up","UniqueId":"x","Data":"d"}"#,
                r#"{"status":"SUCCESS","reason":"up","id":"x","data":"d"}"#,
            ),
            (
                "{\"reason\":\"grüß \u{1F680}\",\"data\":\"a\\u0000b\"}",
                "{\"status\":\"SUCCESS\",\"reason\":\"grüß \u{1F680}\",\"data\":\"a\\u0000b\"}",
            ),
        ] {
            check(body.as_bytes(), expect);
        }
    }

    #[test]
    fn heat_is_given_what_it_reads_as_it_is_read_here() {
        for (body, expect) in [
            ("{}", None),
            (" { }\n", None),
            (r#"{"status":"FAILURE","reason":"","id":"","data":{"a":null}}"#, None),
            (r#"{"id":7,"data":[null]}"#, None),
            (r#"{"id":"null","reason":"null"}"#, None),
            (r#"{"\u0069d":"a"}"#, None),
            ("", Some(r#"{"status":"SUCCESS"}"#)),
            (" \n", Some(r#"{"status":"SUCCESS"}"#)),
            (r#"{"id":null}"#, Some(r#"{"status":"SUCCESS"}"#)),
            (r#"{"\u0069d": null }"#, Some(r#"{"status":"SUCCESS"}"#)),
            (
                r#"{"status":"FAILURE","id":7,"reason":null}"#,
                Some(r#"{"status":"FAILURE","id":"7"}"#),
            ),
            (
                r#"{"data":{"a": null},"id":"x","reason":null}"#,
                Some(r#"{"status":"SUCCESS","id":"x","data":{"a": null}}"#),
            ),
            (r#"{"data":null,"id":"x"}"#, Some(r#"{"status":"SUCCESS","id":"x"}"#)),
            (
                r#"{"Status":"FAILURE","Reason":null,"UniqueId":null,"Data":null}"#,
                Some(r#"{"status":"FAILURE"}"#),
            ),
            (
                r#"{"\u0053tatus":"SUCCESS","Reason":"r","UniqueId":"1","Data":"d"}"#,
                Some(r#"{"status":"SUCCESS","reason":"r","id":"1","data":"d"}"#),
            ),
        ] {
            let (signal, given) = Signal::parse_for_heat(body.as_bytes()).expect("a signal");
            assert_eq!(given.as_deref(), expect, "{body}");
            assert_eq!(Ok(signal), Signal::parse(body.as_bytes()), "{body}");
        }
        assert_eq!(Signal::parse_for_heat(br#"{"status":null}"#), Err(SignalError::BadStatus));
    }

    #[test]
    fn bodies_that_would_fail_a_stack_are_refused() {
        let deep = format!(r#"{{"data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        let long_id = format!(r#"{{"id":"{}"}}"#, "x".repeat(MAX_ID_BYTES + 1));
        for (body, code) in [
            ("null", "signal_not_object"),
            ("false", "signal_not_object"),
            ("0", "signal_not_object"),
            ("[1]", "signal_not_object"),
            ("\"text\"", "signal_not_object"),
            ("{\"status\":", "signal_not_json"),
            ("{}\n{}", "signal_not_json"),
            ("\u{feff}{}", "signal_not_json"),
            ("status=SUCCESS", "signal_not_json"),
            (r#"{"unset_hook":"x"}"#, "signal_unknown_key"),
            (r#"{"status":"SUCCESS","Reason":"x"}"#, "signal_unknown_key"),
            (r#"{"id":1,"id":2}"#, "signal_duplicate_key"),
            (r#"{"Status":"SUCCESS"}"#, "signal_missing_key"),
            (r#"{"status":"success"}"#, "signal_bad_status"),
            (r#"{"status":"DONE"}"#, "signal_bad_status"),
            (r#"{"status":null}"#, "signal_bad_status"),
            (r#"{"reason":{"a":1}}"#, "signal_bad_reason"),
            (r#"{"id":true}"#, "signal_bad_id"),
            (r#"{"id":["a"]}"#, "signal_bad_id"),
            (r#"{"data":1e999}"#, "signal_bad_data"),
            (r#"{"data":"\ud800"}"#, "signal_bad_data"),
            (deep.as_str(), "signal_bad_data"),
            (long_id.as_str(), "signal_bad_id"),
        ] {
            check(body.as_bytes(), code);
        }
        check(b"{\"reason\":\"\xff\"}", "signal_not_json");
    }

    #[test]
    fn the_body_limit_is_exact() {
        let body_of = |length: usize| {
            let mut body = String::from(r#"{"data":""#);
            body.push_str(&"x".repeat(length - body.len() - 2));
            body.push_str(r#""}"#);
            body
        };
        let largest = Signal::parse(body_of(MAX_SIGNAL_BYTES).as_bytes()).expect("it is taken");
        let too_large = body_of(MAX_SIGNAL_BYTES + 1);
        check(too_large.as_bytes(), "signal_too_large");
        assert!(Signal::parse_for_heat(too_large.as_bytes()).is_err());
        // What was taken is read again, although it has become longer.
        let json = largest.to_json();
        assert!(json.len() > MAX_SIGNAL_BYTES);
        assert_eq!(Signal::parse_again(json.as_bytes()), Ok(largest));
    }

    #[test]
    fn a_signal_with_an_id_has_another_spelling() {
        for (body, expect) in [
            (
                r#"{"id":7,"data":{"a":1.50}}"#,
                Some(r#"{"Status":"SUCCESS","Reason":"","UniqueId":"7","Data":{"a":1.50}}"#),
            ),
            (
                r#"{"status":"FAILURE","reason":"r","id":"1"}"#,
                Some(r#"{"Status":"FAILURE","Reason":"r","UniqueId":"1","Data":null}"#),
            ),
            (
                r#"{"Status":"FAILURE","Reason":"r","UniqueId":"1","Data":"d"}"#,
                Some(r#"{"status":"FAILURE","reason":"r","id":"1","data":"d"}"#),
            ),
            (r#"{"status":"SUCCESS"}"#, None),
            (r#"{"deploy_status_code":0}"#, None),
            ("", None),
        ] {
            assert_eq!(Signal::respelled(body.as_bytes()).as_deref(), expect, "{body}");
        }
    }

    #[test]
    fn an_error_repeats_a_bounded_and_printable_name_only() {
        let body = format!("{{\"\\u001b{}\":1}}", "k".repeat(500));
        let message = Signal::parse(body.as_bytes()).expect_err("unknown key").to_string();
        assert!(message.len() < 160 && !message.contains('\u{1b}'), "{message}");
    }

    #[test]
    fn debug_output_carries_neither_reason_nor_data() {
        let signal = Signal::parse(br#"{"reason":"hunter2","data":"hunter2"}"#).expect("valid");
        assert!(!format!("{signal:?}").contains("hunter2"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_survives_a_round_trip(body in r#"\{("id":("[a-z]{0,3}"|[0-9]{1,3})),?"data":(\[[0-9]{1,2}\]|"[ -!#-\[\]-~]{0,8}")\}"#) {
            if let Ok(signal) = Signal::parse(body.as_bytes()) {
                proptest::prop_assert_eq!(Signal::parse(signal.to_json().as_bytes()), Ok(signal));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>) {
            let _ = Signal::parse(&body);
        }
    }
}
