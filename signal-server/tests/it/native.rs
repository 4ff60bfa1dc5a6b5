//! Handles from creation to deletion.

use heliograph_server::config::{ServeArgs, StoreKind};
use reqwest::Method;
use serde_json::json;

use crate::harness::{Relay, answer, client, in_time, json as body, signal, text};

const STORES: [StoreKind; 2] = [StoreKind::Memory, StoreKind::Embedded];

#[tokio::test]
async fn a_handle_is_made_signalled_read_and_removed() {
    for store in STORES {
        let relay = Relay::start(store).await;
        let created = relay
            .create(r#"{"count":2,"timeout":"10m","label":"web","metadata":{"n":1.50}}"#)
            .await;
        let path = format!("/api/v1/handles/{}", text(&created["id"]));
        assert!(text(&created["signal_url"]).starts_with(&format!("{}{path}/signals?", relay.url)));
        assert_eq!(created["count"], 2);
        assert_eq!(created["timeout_seconds"], 600);

        let (status, seen) = relay.get(&path).await;
        assert_eq!(
            (status, &seen["state"], &seen["reason"]),
            (200, &json!("pending"), &json!(null))
        );
        assert_eq!(seen["label"], "web");
        assert_eq!(seen["metadata"].to_string(), r#"{"n":1.5}"#);

        let first = r#"{"id":"a","reason":"up","data":{"ip":"10.0.0.7"}}"#;
        assert_eq!(signal(&created, first).await, (201, json!({"outcome": "stored"})));
        assert_eq!(signal(&created, first).await, (200, json!({"outcome": "repeated"})));
        // Any HTTP client can signal, also one that can only POST forms.
        let post = client()
            .post(text(&created["signal_url"]))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(r#"{"status":"SUCCESS","id":"b","reason":"up too"}"#);
        assert_eq!(answer(post).await.0, 201);

        // The poll URL needs no token.
        let (status, seen) = answer(client().get(text(&created["poll_url"]))).await;
        assert_eq!((status, &seen["state"]), (200, &json!("complete")));
        assert_eq!(seen["reason"], "up;up too");
        assert_eq!(seen["signals"][0]["id"], "a");
        assert_eq!(seen["signals"][1]["status"], "SUCCESS");
        assert!(text(&seen["signals"][1]["received_at"]).ends_with('Z'));
        assert_eq!(seen["data"], json!({"a": {"ip": "10.0.0.7"}, "b": null}));

        assert_eq!(answer(relay.request(Method::DELETE, &path)).await.0, 204);
        assert_eq!(relay.get(&path).await.0, 404);
        assert_eq!(signal(&created, first).await.0, 404);
        relay.stopped().await;
    }
}

#[tokio::test]
async fn a_failure_fails_and_time_expires() {
    for store in STORES {
        let relay = Relay::start(store).await;
        let failed = relay.create("").await;
        signal(&failed, r#"{"status":"FAILURE","id":"a","reason":"no disk"}"#).await;
        let (_, seen) = answer(client().get(text(&failed["poll_url"]))).await;
        assert_eq!((&seen["state"], &seen["reason"]), (&json!("failed"), &json!("no disk")));

        let expired = relay.create(r#"{"count":2,"timeout":1}"#).await;
        signal(&expired, r#"{"id":"a","reason":"only one"}"#).await;
        let url = format!("{}&wait=30s", text(&expired["poll_url"]));
        let (_, seen) = answer(client().get(url)).await;
        assert_eq!(seen["state"], "expired");
        assert_eq!(seen["reason"], "1 of 2 received - only one");
        relay.stopped().await;
    }
}

#[tokio::test]
async fn a_long_poll_wakes_at_once_and_not_before() {
    for store in STORES {
        let relay = Relay::start(store).await;
        let created = relay.create(r#"{"count":2}"#).await;
        let poll_url = text(&created["poll_url"]).to_owned();
        let (_, seen) = answer(client().get(&poll_url)).await;
        let version = seen["version"].as_u64().expect("a version");

        let any_news = format!("{poll_url}&wait=55s&version={version}");
        let news = tokio::spawn(client().get(any_news).send());
        let end = tokio::spawn(client().get(format!("{poll_url}&wait=55s")).send());
        relay.until_metric("heliograph_http_long_polls 2").await;
        signal(&created, r#"{"id":"a"}"#).await;
        let seen = body(in_time(news).await.expect("no panic").expect("an answer")).await;
        assert_eq!(seen["state"], "pending");
        assert!(seen["version"].as_u64() > Some(version), "{seen}");

        relay.until_metric("heliograph_http_long_polls 1").await;
        signal(&created, r#"{"id":"b"}"#).await;
        let seen = body(in_time(end).await.expect("no panic").expect("an answer")).await;
        assert_eq!(seen["state"], "complete");

        // Nothing new and nothing to wait for: at once.
        let (_, again) = answer(client().get(format!("{poll_url}&wait=55s"))).await;
        assert_eq!(again["version"], seen["version"]);
        relay.stopped().await;
    }
}

#[tokio::test]
async fn a_handle_that_is_removed_is_not_waited_for() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create("{}").await;
    let waiting =
        tokio::spawn(client().get(format!("{}&wait=55s", text(&created["poll_url"]))).send());
    relay.until_metric("heliograph_http_long_polls 1").await;
    let path = format!("/api/v1/handles/{}", text(&created["id"]));
    assert_eq!(answer(relay.request(Method::DELETE, &path)).await.0, 204);
    let response = in_time(waiting).await.expect("no panic").expect("an answer");
    assert_eq!(response.status(), 404);
    relay.stopped().await;
}

#[tokio::test]
async fn a_list_has_pages() {
    let relay = Relay::start(StoreKind::Memory).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let created = relay.create(&format!(r#"{{"label":"{n}"}}"#)).await;
        ids.push(text(&created["id"]).to_owned());
    }
    ids.sort();
    let mut seen = Vec::new();
    let mut path = "/api/v1/handles?limit=2".to_owned();
    loop {
        let (status, page) = relay.get(&path).await;
        assert_eq!(status, 200, "{page}");
        let handles = page["handles"].as_array().expect("handles");
        seen.extend(handles.iter().map(|handle| text(&handle["id"]).to_owned()));
        let Some(marker) = page["next_marker"].as_str() else { break };
        path = format!("/api/v1/handles?limit=2&marker={marker}");
    }
    assert_eq!(seen, ids);
    relay.stopped().await;
}

#[tokio::test]
async fn a_permit_opens_its_own_and_nothing_else() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "a-token-of-another-account").expect("file is written");
    let config = dir.path().join("relay.toml");
    let text_of_config =
        format!("[[tokens]]\naccount = 'AUTH_other'\ntoken_file = '{}'", token_file.display());
    std::fs::write(&config, text_of_config).expect("file is written");
    let relay = Relay::start_with(ServeArgs {
        store: Some(StoreKind::Memory),
        config: Some(config),
        ..ServeArgs::default()
    })
    .await;
    let created = relay.create("{}").await;
    let path = format!("/api/v1/handles/{}", text(&created["id"]));
    let url = format!("{}{path}", relay.url);
    let check = async |method: Method, url: &str, token: &str, expect: &str| {
        let mut request = client().request(method.clone(), url);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (status, seen) = answer(request).await;
        let code = seen["error"]["code"].as_str().unwrap_or("");
        assert_eq!(format!("{status} {code}"), expect, "{method} {url}");
    };
    let (operator, other) = (relay.token.as_str(), "a-token-of-another-account");
    check(Method::GET, &url, operator, "200 ").await;
    check(Method::GET, &url, "", "401 no_permit").await;
    check(Method::GET, &url, "not-a-token-at-all", "401 token_unknown").await;
    check(Method::GET, &url, other, "404 handle_not_found").await;
    check(Method::DELETE, &url, other, "404 handle_not_found").await;
    check(Method::PUT, &format!("{url}/signals"), other, "404 handle_not_found").await;
    check(Method::PUT, &format!("{url}/signals"), operator, "201 ").await;

    let (signal_url, poll_url) = (text(&created["signal_url"]), text(&created["poll_url"]));
    let query = |url: &str| url.split_once('?').expect("a query").1.to_owned();
    // Each URL does one thing.
    check(Method::GET, &format!("{url}?{}", query(signal_url)), "", "401 temp_url_bad_signature")
        .await;
    let poll_as_signal = format!("{url}/signals?{}", query(poll_url));
    check(Method::PUT, &poll_as_signal, "", "401 temp_url_bad_signature").await;
    check(Method::DELETE, poll_url, "", "401 no_permit").await;
    // A signature is judged even where a token would do.
    let forged = format!("{url}?temp_url_sig=00&temp_url_expires=4000000000");
    check(Method::GET, &forged, operator, "401 temp_url_malformed").await;
    let elsewhere =
        format!("{}/api/v1/handles/h-{}?{}", relay.url, "0".repeat(32), query(poll_url));
    check(Method::GET, &elsewhere, "", "404 handle_not_found").await;
    relay.stopped().await;
}
