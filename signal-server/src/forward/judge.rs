//! Whether Heat would take a body, asked while the sender still listens.
//!
//! heat-api says 200 to anything and drops what it does not like; heat-api-cfn closes the connection or is
//! silent for a minute. Below `/v1/waitcondition/` only wait conditions are signalled, and their rules are
//! those of `Signal`. The other paths take signals for resources of every type: a deployment reports
//! `deploy_status_code` and outputs of any name, an alarm its state. Nothing in the request tells the
//! type, so the keys have to:
//!
//! | the body | is judged as |
//! |---|---|
//! | not JSON, or no object | nothing that Heat takes: refused |
//! | has `unset_hook` | an attempt to pass a hook, which is not for instances: refused |
//! | has a key that begins with `deploy_` | a deployment's: passed on as it is |
//! | all its keys are a signal's, in capitals or not | a wait condition's: strictly |
//! | `status` is `SUCCESS` or `FAILURE` | a wait condition's: strictly |
//! | anything else | somebody else's: passed on as it is |
//!
//! **A signal without an id** gets one. Heat counts a signal without an id each time that it arrives, and
//! a relay that did not hear Heat's answer has to send again. A body without any key is passed on as it is,
//! but below `/v1/waitcondition/`: to some types of resource an empty signal has a meaning of its own.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use signal_protocol::signal::{Signal, SignalError};

/// The keys of a signal, in small letters: Heat's and CloudFormation's.
const SIGNAL_KEYS: [&str; 5] = ["status", "reason", "id", "uniqueid", "data"];

/// What the path says about the resource that is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It is a wait condition's handle.
    WaitCondition,
    /// It may be of any type.
    Anything,
}

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JudgeError {
    #[error("the signal would be refused by Heat")]
    BadSignal { source: SignalError },
    #[error("unset_hook: a hook is passed by whoever owns the stack, at Heat itself")]
    Hook,
}

/// The body to forward; `id` is for a signal that has none.
pub(crate) fn judge(body: &Bytes, expected: Expected, id: &str) -> Result<Bytes, JudgeError> {
    let bad_signal = |source| JudgeError::BadSignal { source };
    let is_empty = body.trim_ascii().is_empty();
    if is_empty && expected == Expected::Anything {
        return Ok(body.clone());
    }
    let members = if is_empty { HashMap::new() } else { members(body).map_err(bad_signal)? };
    if expected == Expected::Anything {
        if members.contains_key("unset_hook") {
            return Err(JudgeError::Hook);
        }
        if members.is_empty() || !is_of_wait_condition(&members) {
            return Ok(body.clone());
        }
    }
    let signal = Signal::parse(body).map_err(bad_signal)?;
    // Heat keeps it, and of a failure it then joins the reasons.
    let has_null_reason = members.get("reason").is_some_and(|reason| reason.get() == "null");
    if signal.id.is_some() && !has_null_reason {
        return Ok(body.clone());
    }
    let id = signal.id.clone().unwrap_or_else(|| id.to_owned());
    let signal = Signal { id: Some(id), ..signal };
    Ok(signal.to_json().into())
}

/// The keys and values of a JSON object. What is wrong with the rest, [`Signal`] knows how to say.
fn members(body: &[u8]) -> Result<HashMap<String, Box<RawValue>>, SignalError> {
    serde_json::from_slice(body).map_err(|error| match Signal::parse(body) {
        Err(known @ (SignalError::NotObject | SignalError::TooLarge { .. })) => known,
        _ => SignalError::NotJson { line: error.line(), column: error.column() },
    })
}

fn is_of_wait_condition(members: &HashMap<String, Box<RawValue>>) -> bool {
    if members.keys().any(|key| key.starts_with("deploy_")) {
        return false;
    }
    let is_signal_key = |key: &String| SIGNAL_KEYS.contains(&key.to_ascii_lowercase().as_str());
    let says_how_it_went = ["status", "Status"].iter().any(|key| {
        members
            .get(*key)
            .is_some_and(|status| matches!(status.get(), r#""SUCCESS""# | r#""FAILURE""#))
    });
    says_how_it_went || members.keys().all(is_signal_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Expected, expect: &str) {
        let judged = match judge(&Bytes::copy_from_slice(body.as_bytes()), expected, "f-1") {
            Ok(judged) if judged == body.as_bytes() => "as it is".to_owned(),
            Ok(judged) => String::from_utf8(judged.to_vec()).unwrap(),
            Err(JudgeError::BadSignal { source }) => source.code().to_owned(),
            Err(JudgeError::Hook) => "hook".to_owned(),
        };
        assert_eq!(judged, expect, "{body} {expected:?}");
    }

    #[test]
    fn a_wait_condition_is_judged_strictly_wherever_it_is_recognised() {
        for (body, expect) in [
            (r#"{"status":"SUCCESS","id":"1"}"#, "as it is"),
            (r#"{"status":"SUCCESS","id":7,"data":{"a":1.50}}"#, "as it is"),
            (r#"{"Status":"SUCCESS","Reason":"r","UniqueId":"1","Data":"d"}"#, "as it is"),
            (r#"{"status":"FAILURE"}"#, r#"{"status":"FAILURE","id":"f-1"}"#),
            (r#"{"data":1.50}"#, r#"{"status":"SUCCESS","id":"f-1","data":1.50}"#),
            (r#"{"id":null}"#, r#"{"status":"SUCCESS","id":"f-1"}"#),
            (r#"{"id":"1","data":null}"#, "as it is"),
            (r#"{"status":"FAILURE","id":"1","reason":null}"#, r#"{"status":"FAILURE","id":"1"}"#),
            (r#"{"status":"success"}"#, "signal_bad_status"),
            (r#"{"STATUS":"SUCCESS"}"#, "signal_unknown_key"),
            (r#"{"status":"SUCCESS","reson":"x"}"#, "signal_unknown_key"),
            (r#"{"reason":{}}"#, "signal_bad_reason"),
            (r#"{"Status":"SUCCESS"}"#, "signal_missing_key"),
            ("[]", "signal_not_object"),
            ("null", "signal_not_object"),
            ("{", "signal_not_json"),
            ("{}{}", "signal_not_json"),
            ("status=SUCCESS", "signal_not_json"),
        ] {
            check(body, Expected::Anything, expect);
            check(body, Expected::WaitCondition, expect);
        }
    }

    #[test]
    fn what_may_be_somebody_elses_is_passed_on_where_it_may_be() {
        for (body, anywhere, wait_condition) in [
            (r#"{"deploy_status_code":0,"status":"x"}"#, "as it is", "signal_unknown_key"),
            (r#"{"deploy_stdout":"","status":"SUCCESS"}"#, "as it is", "signal_unknown_key"),
            (
                r#"{"current":"alarm","reason":"r","alarm_id":"a"}"#,
                "as it is",
                "signal_unknown_key",
            ),
            (r#"{"status":"DONE","output":1}"#, "as it is", "signal_unknown_key"),
            (r#"{"unset_hook":"pre-create"}"#, "hook", "signal_unknown_key"),
            (r#"{"unset_hook":"x","status":"SUCCESS"}"#, "hook", "signal_unknown_key"),
            ("", "as it is", r#"{"status":"SUCCESS","id":"f-1"}"#),
            ("{}", "as it is", r#"{"status":"SUCCESS","id":"f-1"}"#),
        ] {
            check(body, Expected::Anything, anywhere);
            check(body, Expected::WaitCondition, wait_condition);
        }
    }
}
