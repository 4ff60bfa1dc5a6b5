//! What senders send: the good is passed on as it is, the bad is refused while its sender still listens.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::heat::put;
use serde_json::{Value, json};

use crate::stage::{END_LIMIT, Scene, Stage, wait_condition};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("bodies::bad_ones_are_refused_and_good_ones_complete", bad_and_good)]
}

/// Each of these fails a stack for good when Heat reads it.
const BAD: &[(&str, &[u8])] = &[
    ("cut off", br#"{"status": "SUCC"#),
    ("two documents", b"{\"id\": \"1\"}\n{\"id\": \"2\"}\n"),
    ("a byte order mark", b"\xef\xbb\xbf{}"),
    ("no UTF-8", b"{\"reason\": \"\xff\"}"),
    ("not JSON", b"done"),
    ("an unknown key", br#"{"state": "SUCCESS"}"#),
    ("a status in small letters", br#"{"status": "success"}"#),
    ("an unknown status", br#"{"status": "DONE"}"#),
    ("keys of both dialects", br#"{"status": "SUCCESS", "Reason": "both"}"#),
    ("an array", b"[]"),
    ("a text", br#""SUCCESS""#),
    ("a number", b"17"),
    ("a reason that is a map", br#"{"status": "FAILURE", "reason": {"code": 1}}"#),
    ("a hook", br#"{"unset_hook": "pre-create"}"#),
];

fn bad_and_good(stage: &Stage) -> Result<()> {
    let _turn = stage.together();
    let user = stage.cloud()?.lab.user("demo")?;
    let template = wait_condition("TEMP_URL_SIGNAL", 7, Duration::from_secs(600));
    let stack = user.create_stack("bodies", &template, &json!({}))?;
    stack.reached("wait")?;
    let url = stack.alarm_url("signal")?;

    for (what, body) in BAD {
        let (status, answer) = put(&url, *body)?;
        ensure!(status == 400, "{what} was answered with {status}: {answer}");
        let answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["error"]["code"].is_string(), "{what} has no code: {answer}");
        ensure!(answer["error"]["message"].is_string(), "{what} has no message: {answer}");
    }

    let big = "x".repeat(200_000);
    let good = [
        // Heat itself fails on an empty body; it means success.
        String::new(),
        // To Heat all ids that are null would be one.
        json!({"id": null, "reason": null}).to_string(),
        json!({"id": null, "reason": null}).to_string(),
        json!({"id": "unicode", "reason": "日本 \u{0} 🐳", "data": {"ü": "ß"}}).to_string(),
        json!({"id": "big", "data": big}).to_string(),
        // The same id twice, once as a number: counted once, and the later data stays.
        json!({"id": 7, "data": "first"}).to_string(),
        json!({"id": "7", "data": "second"}).to_string(),
        json!({"Status": "SUCCESS", "Reason": "r", "UniqueId": "cfn", "Data": "d"}).to_string(),
    ];
    for body in good {
        let (status, answer) = put(&url, body.clone())?;
        let shown: String = body.chars().take(80).collect();
        ensure!(status == 201, "{shown} was answered with {status}: {answer}");
    }
    stack.completed(END_LIMIT)?;
    let expected = json!({
        "1": null, "2": null, "3": null,
        "unicode": {"ü": "ß"}, "big": big, "7": "second", "cfn": "d",
    });
    let data = stack.json_output("data")?;
    ensure!(data == expected, "data has the keys {:?}", data.as_object().map(|map| map.keys()));
    stack.delete()
}
