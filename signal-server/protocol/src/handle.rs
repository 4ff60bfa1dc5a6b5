//! What is signalled, and what the signals so far mean.
//!
//! A handle is complete, failed or still pending by the rules of Heat's wait condition
//! (`heat/engine/resources/openstack/heat/wait_condition.py`), so that a stack and a script that
//! look at the same signals say the same:
//!
//! * the signals form a map keyed by `id`; a later signal with the same id takes the earlier
//!   one's place and does not count again;
//! * any `FAILURE` fails the handle, with the reasons of all failures joined by `;`;
//! * otherwise `count` distinct ids complete it;
//! * when the time is over it has expired, and the text is Heat's: `1 of 2 received - <reasons>`.
//!   What comes later is shown, and changes nothing.
//!
//! One rule differs. Heat gives a signal without an id the number of signals so far plus one, even
//! if a sender has used that number as its own id; the two then overwrite each other and the count
//! is never reached. Here the next number that is free is taken.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::signal::{Signal, Status};

/// The name of a handle of the native API: `h-` and 32 lowercase hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HandleId(String);

/// The text is not a handle's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a handle's id is \"h-\" and 32 lowercase hexadecimal digits")]
pub struct HandleIdError;

impl HandleId {
    /// The id made of 128 random bits, which the caller draws.
    #[must_use]
    pub fn from_random(random: [u8; 16]) -> HandleId {
        HandleId(format!("h-{}", hex::encode(random)))
    }

    /// Reads an id as it is printed.
    pub fn parse(text: &str) -> Result<HandleId, HandleIdError> {
        let digits = text.strip_prefix("h-").ok_or(HandleIdError)?;
        let lowercase_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 32 || !digits.bytes().all(lowercase_hex) {
            return Err(HandleIdError);
        }
        Ok(HandleId(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HandleId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for HandleId {
    type Error = HandleIdError;

    fn try_from(text: String) -> Result<HandleId, HandleIdError> {
        HandleId::parse(&text)
    }
}

impl From<HandleId> for String {
    fn from(id: HandleId) -> String {
        id.0
    }
}

/// Where a handle stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandleState {
    /// Not enough signals yet, and time left.
    Pending,
    /// As many distinct ids as were asked for, all successes.
    Complete,
    /// At least one failure.
    Failed,
    /// The time was over before either.
    Expired,
}

impl fmt::Display for HandleState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            HandleState::Pending => "pending",
            HandleState::Complete => "complete",
            HandleState::Failed => "failed",
            HandleState::Expired => "expired",
        })
    }
}

/// A signal that a mailbox holds.
#[derive(Clone, Debug)]
pub struct HeldSignal {
    pub signal: Signal,
    /// Its place in the order in which the mailbox took its signals. Times do not give that order: each is
    /// by the clock of the relay that took the signal.
    pub number: u64,
    pub received_at: jiff::Timestamp,
}

/// One signal as the native API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignalView {
    pub id: String,
    pub status: Status,
    pub reason: String,
    /// `null` where the signal had none, so that a reader finds the key in every signal.
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
    /// When the relay had it on disk, in UTC.
    pub received_at: jiff::Timestamp,
}

/// What the signals of a handle mean.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub state: HandleState,
    /// Set for every state but pending.
    pub reason: Option<String>,
    /// The signals that count, in the order in which their ids first came.
    pub signals: Vec<SignalView>,
    /// The number of each of `signals`.
    pub numbers: Vec<u64>,
}

/// Reads the signals of a handle, oldest first, as Heat's wait condition would.
pub fn evaluate(
    signals: impl IntoIterator<Item = HeldSignal>,
    count: u32,
    expires_at: jiff::Timestamp,
    now: jiff::Timestamp,
) -> Evaluation {
    let mut views: Vec<SignalView> = Vec::new();
    let mut numbers: Vec<u64> = Vec::new();
    let mut position_of_id: BTreeMap<String, usize> = BTreeMap::new();
    let mut verdict_at_expiry = None;
    for HeldSignal { signal, number, received_at } in signals {
        if received_at > expires_at && verdict_at_expiry.is_none() {
            verdict_at_expiry = Some(judge(&views, count, true));
        }
        let nth = views.len() + 1;
        let id = signal.id.unwrap_or_else(|| free_number(nth, &position_of_id));
        let reason = signal.reason.unwrap_or_else(|| format!("Signal {nth} received"));
        let status = signal.status;
        let view = SignalView { id: id.clone(), status, reason, data: signal.data, received_at };
        match position_of_id.get(&id) {
            Some(position) => (views[*position], numbers[*position]) = (view, number),
            None => {
                position_of_id.insert(id, views.len());
                views.push(view);
                numbers.push(number);
            }
        }
    }
    let (state, reason) = match verdict_at_expiry {
        Some((HandleState::Expired, reason)) => (HandleState::Expired, reason),
        _ => judge(&views, count, now > expires_at),
    };
    Evaluation { state, reason, signals: views, numbers }
}

fn free_number(first: usize, taken: &BTreeMap<String, usize>) -> String {
    let mut number = first;
    while taken.contains_key(&number.to_string()) {
        number += 1;
    }
    number.to_string()
}

fn judge(signals: &[SignalView], count: u32, time_is_over: bool) -> (HandleState, Option<String>) {
    let reasons_of = |status: Status| {
        let reasons: Vec<&str> = signals
            .iter()
            .filter(|signal| signal.status == status)
            .map(|signal| signal.reason.as_str())
            .collect();
        reasons.join(";")
    };
    if signals.iter().any(|signal| signal.status == Status::Failure) {
        return (HandleState::Failed, Some(reasons_of(Status::Failure)));
    }
    let received = signals.len();
    if u32::try_from(received).is_ok_and(|received| received < count) {
        if !time_is_over {
            return (HandleState::Pending, None);
        }
        let text = match received {
            0 => format!("0 of {count} received"),
            _ => format!("{received} of {count} received - {}", reasons_of(Status::Success)),
        };
        return (HandleState::Expired, Some(text));
    }
    (HandleState::Complete, Some(reasons_of(Status::Success)))
}

/// A handle as the native API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HandleView {
    pub id: HandleId,
    pub state: HandleState,
    pub reason: Option<String>,
    /// How many distinct ids complete it.
    pub count: u32,
    pub timeout_seconds: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    pub created_at: jiff::Timestamp,
    /// When the time is over, in UTC.
    pub expires_at: jiff::Timestamp,
    /// Grows by at least one with every change; a long-poll waits for it to pass a value.
    pub version: u64,
    pub signals: Vec<SignalView>,
    /// The data of the signals by id, as Heat's `data` attribute has it.
    pub data: BTreeMap<String, Option<Box<RawValue>>>,
}

/// The data of signals by id; a signal without data is there with `null`, as with Heat.
#[must_use]
pub fn data_of(signals: &[SignalView]) -> BTreeMap<String, Option<Box<RawValue>>> {
    signals.iter().map(|signal| (signal.id.clone(), signal.data.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).expect("in range")
    }

    /// A signal that came in this second and has the same number.
    fn held(body: &str, second: i64) -> HeldSignal {
        let signal = Signal::parse(body.as_bytes()).expect("valid signal");
        HeldSignal { signal, number: second.unsigned_abs(), received_at: at(second) }
    }

    /// `bodies` are signals oldest first, one a second from second 1 on; the time is over after
    /// second 10. The result is `state | reason | ids`.
    fn check_at(bodies: &[&str], count: u32, now: i64, expect: &str) {
        let signals = (1..).zip(bodies).map(|(second, body)| held(body, second));
        let seen = evaluate(signals, count, at(10), at(now));
        let ids: Vec<&str> = seen.signals.iter().map(|signal| signal.id.as_str()).collect();
        let reason = seen.reason.unwrap_or_default();
        assert_eq!(format!("{} | {reason} | {}", seen.state, ids.join(",")), expect, "{bodies:?}");
    }

    fn check(bodies: &[&str], count: u32, time_is_over: bool, expect: &str) {
        check_at(bodies, count, if time_is_over { 11 } else { 10 }, expect);
    }

    #[test]
    fn a_handle_ends_as_the_wait_condition_would() {
        check(&[], 1, false, "pending |  | ");
        check(&[], 2, true, "expired | 0 of 2 received | ");
        check(&[r#"{"reason":"only one"}"#], 2, true, "expired | 1 of 2 received - only one | 1");
        check(&["{}", "{}"], 2, false, "complete | Signal 1 received;Signal 2 received | 1,2");
        check(&["{}", "{}"], 2, true, "complete | Signal 1 received;Signal 2 received | 1,2");
        check(
            &["{}", r#"{"status":"FAILURE","reason":"disk"}"#, r#"{"status":"FAILURE"}"#],
            1,
            false,
            "failed | disk;Signal 3 received | 1,2,3",
        );
    }

    #[test]
    fn the_same_id_counts_once_and_the_later_signal_stands() {
        check(&[r#"{"id":5}"#, r#"{"id":"5"}"#], 2, false, "pending |  | 5");
        check(
            &[r#"{"id":"a","status":"FAILURE"}"#, r#"{"id":"a","reason":"ok now"}"#],
            1,
            false,
            "complete | ok now | a",
        );
    }

    #[test]
    fn a_signal_keeps_its_place_and_has_the_number_of_the_latest() {
        let bodies = ["{}", r#"{"id":"a"}"#, r#"{"id":"1"}"#];
        let signals = (1..).zip(bodies).map(|(second, body)| held(body, second));
        let seen = evaluate(signals, 3, at(10), at(4));
        let ids = seen.signals.iter().map(|signal| signal.id.as_str());
        assert_eq!(ids.zip(seen.numbers).collect::<Vec<_>>(), [("1", 3), ("a", 2)]);
    }

    #[test]
    fn what_comes_after_the_time_is_over_changes_nothing() {
        let mut bodies = vec![r#"{"id":"a"}"#; 10];
        bodies.push(r#"{"id":"b"}"#);
        check_at(&bodies, 2, 11, "expired | 1 of 2 received - Signal 2 received | a,b");
        check_at(&bodies, 1, 11, "complete | Signal 2 received;Signal 2 received | a,b");
    }

    #[test]
    fn a_number_that_a_sender_took_is_not_given_again() {
        check(
            &[r#"{"id":"2"}"#, "{}", "{}"],
            3,
            false,
            "complete | Signal 1 received;Signal 2 received;Signal 3 received | 2,3,4",
        );
    }

    #[test]
    fn data_without_a_value_is_null() {
        let seen = evaluate([held(r#"{"id":"a"}"#, 1)], 1, at(10), at(2));
        let data = serde_json::to_string(&data_of(&seen.signals)).expect("serialises");
        assert_eq!(data, r#"{"a":null}"#);
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = HandleId::from_random([0xab; 16]);
        assert_eq!(HandleId::parse(id.as_str()), Ok(id));
        for text in ["", "h-", "h-AB", "abababababababababababababababab", "h-../../etc/passwd"] {
            assert_eq!(HandleId::parse(text), Err(HandleIdError), "{text}");
        }
    }
}
