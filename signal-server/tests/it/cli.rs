//! The commands, as a script would use them.

use heliograph_server::config::StoreKind;
use serde_json::json;

use crate::harness::{Process, Relay, command, signal, stdout_json, text};

/// Waits for a handle with one signal; the result is exit code and state.
async fn check(timeout: &str, handle_timeout: &str, body: Option<&str>, code: i32, state: &str) {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create(&format!(r#"{{"timeout":"{handle_timeout}"}}"#)).await;
    if let Some(body) = body {
        signal(&created, body).await;
    }
    let arguments =
        ["wait", text(&created["id"]), "--server", &relay.url, "--timeout", timeout, "--json"];
    let output = command(&arguments, Some(&relay.token)).await;
    let seen = stdout_json(&output);
    assert_eq!((output.status.code(), &seen["state"]), (Some(code), &json!(state)), "{seen}");
    relay.stopped().await;
}

#[tokio::test]
async fn the_exit_code_of_wait_tells_how_it_went() {
    check("30s", "1m", Some(r#"{"id":"a"}"#), 0, "complete").await;
    check("30s", "1m", Some(r#"{"status":"FAILURE","reason":"x"}"#), 1, "failed").await;
    check("1s", "1m", None, 2, "pending").await;
    check("30s", "1s", None, 2, "expired").await;
}

#[tokio::test]
async fn wait_prints_what_scripts_rely_on() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create(r#"{"count":1}"#).await;
    signal(&created, r#"{"id":"a","reason":"up","data":{"ip":"::1"}}"#).await;
    // The poll URL alone is enough: neither server nor token.
    let output = command(&["wait", text(&created["poll_url"]), "--json"], None).await;
    assert_eq!(output.status.code(), Some(0));
    let mut seen = stdout_json(&output);
    assert!(seen["signals"][0]["received_at"].take().is_string());
    assert_eq!(seen["reason"], "up");
    assert_eq!(
        seen["signals"],
        json!([{"id": "a", "status": "SUCCESS", "reason": "up", "data": {"ip": "::1"}, "received_at": null}])
    );
    assert_eq!(seen["data"], json!({"a": {"ip": "::1"}}));

    let output = command(&["wait", text(&created["poll_url"])], None).await;
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(printed.starts_with("complete: up\n"), "{printed}");
    relay.stopped().await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_from_what_failed() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create("{}").await;
    let id = text(&created["id"]);
    let nowhere = "http://127.0.0.1:9";
    let unknown = format!("h-{}", "0".repeat(32));
    for (arguments, token, code) in [
        (vec!["wait", id, "--server", &relay.url], None, "no_permit"),
        (vec!["wait", id, "--server", &relay.url], Some("not-a-token-at-all"), "token_unknown"),
        (
            vec!["wait", &unknown, "--server", &relay.url],
            Some(relay.token.as_str()),
            "handle_not_found",
        ),
        (vec!["wait", id, "--server", nowhere, "--timeout", "1s"], None, "unreachable"),
        (vec!["handle", "show", id, "--token-file", "/nonexistent"], None, "bad_token_file"),
        (vec!["signal", id, "--server", nowhere, "--timeout", "500ms"], None, "unreachable"),
        (vec!["signal", id, "--data", "{"], None, "bad_usage"),
        (
            vec!["handle", "create", "--count", "0", "--server", &relay.url],
            Some(relay.token.as_str()),
            "bad_field",
        ),
    ] {
        let output = command(&[&arguments[..], &["--json"]].concat(), token).await;
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert_eq!(text(&stdout_json(&output)["error"]["code"]), code, "{arguments:?}");

        let output = command(&arguments, token).await;
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    relay.stopped().await;
}

#[tokio::test]
async fn handles_are_made_listed_shown_signalled_and_removed() {
    let relay = Relay::start(StoreKind::Memory).await;
    let run = async |arguments: &[&str]| {
        let all = [arguments, &["--server", &relay.url, "--json"]].concat();
        let output = command(&all, Some(&relay.token)).await;
        (output.status.code(), stdout_json(&output))
    };
    let arguments = ["handle", "create", "--count", "2", "--timeout", "120s", "--label", "web"];
    let (code, created) = run(&arguments).await;
    assert_eq!(code, Some(0), "{created}");
    assert_eq!((&created["count"], &created["timeout_seconds"]), (&json!(2), &json!(120)));
    let id = text(&created["id"]);

    let (code, seen) =
        run(&["signal", text(&created["signal_url"]), "--id", "1", "--data", "7"]).await;
    assert_eq!((code, seen), (Some(0), json!({"id": "1", "outcome": "stored"})));
    let (code, seen) = run(&["signal", id, "--id", "1", "--data", "7"]).await;
    assert_eq!((code, seen), (Some(0), json!({"id": "1", "outcome": "repeated"})));
    let (code, _) = run(&["signal", id, "--status", "failure", "--reason", "disk"]).await;
    assert_eq!(code, Some(0));

    let (_, seen) = run(&["handle", "show", id]).await;
    assert_eq!((&seen["state"], &seen["reason"]), (&json!("failed"), &json!("disk")));
    let (_, seen) = run(&["handle", "list"]).await;
    assert_eq!(seen["handles"][0]["id"], created["id"]);
    assert_eq!(seen["handles"][0]["n_signals"], 2);
    assert_eq!(run(&["handle", "delete", id]).await.0, Some(0));
    assert_eq!(run(&["handle", "list"]).await.1, json!({"handles": []}));
    assert_eq!(run(&["handle", "delete", id]).await.0, Some(3));
    relay.stopped().await;
}

#[tokio::test]
async fn watch_prints_lines_until_the_end() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create(r#"{"count":2}"#).await;
    signal(&created, r#"{"id":"a","reason":"one"}"#).await;
    let poll_url = text(&created["poll_url"]).to_owned();
    let watching = tokio::spawn(async move { command(&["watch", &poll_url], None).await });
    relay.until_metric("heliograph_http_long_polls 1").await;
    signal(&created, r#"{"id":"b","reason":"two"}"#).await;
    let output = watching.await.expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).expect("text"),
        "signal  a SUCCESS: one\nstate   pending\nsignal  b SUCCESS: two\nstate   complete: one;two\n"
    );
    relay.stopped().await;
}

#[tokio::test]
async fn wait_survives_a_restart_of_the_relay() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let relay = Process::start(dir.path(), &["--listen", "127.0.0.1:0"]);
    let address = relay.url.strip_prefix("http://").expect("an address").to_owned();
    let token_file = dir.path().join("operator.token").display().to_string();
    let connection = ["--server", &relay.url, "--token-file", &token_file, "--json"];
    let output = command(&[&["handle", "create"][..], &connection].concat(), None).await;
    let created = stdout_json(&output);
    let poll_url = text(&created["poll_url"]).to_owned();

    let admin_url = relay.admin_url.clone();
    let waiting = tokio::spawn(async move { command(&["wait", &poll_url, "--json"], None).await });
    crate::harness::until(async || {
        let page = crate::harness::client().get(format!("{admin_url}/metrics")).send().await;
        let page = page.expect("metrics").text().await.expect("text");
        page.lines().any(|line| line == "heliograph_http_long_polls 1")
    })
    .await;
    relay.kill();
    let _relay = Process::start(dir.path(), &["--listen", &address]);
    assert_eq!(signal(&created, r#"{"id":"a"}"#).await.0, 201);
    let output = waiting.await.expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(stdout_json(&output)["state"], "complete");
}
