//! A relay that stops answers whoever waits, and starts again where it was.

use heliograph_server::config::StoreKind;
use serde_json::json;

use crate::harness::{Process, Relay, answer, client, in_time, json as body, signal, text, until};

#[tokio::test]
async fn waiting_requests_are_answered_with_what_there_is() {
    for store in [StoreKind::Memory, StoreKind::Embedded] {
        let mut relay = Relay::start(store).await;
        let created = relay.create("{}").await;
        let poll_url = text(&created["poll_url"]).to_owned();
        let waiting = tokio::spawn(client().get(format!("{poll_url}&wait=55s")).send());
        let events_url = poll_url.replacen('?', "/events?", 1);
        let events = in_time(client().get(events_url).send()).await.expect("an answer");
        relay.until_metric("heliograph_http_long_polls 2").await;

        relay.begin_stop();
        let seen = body(in_time(waiting).await.expect("no panic").expect("an answer")).await;
        assert_eq!(seen["state"], "pending");
        let stream = in_time(events.text()).await.expect("a whole stream");
        assert!(stream.contains("event: state"), "{stream}");
        let url = relay.url.clone();
        relay.stopped().await;
        assert!(client().get(url).send().await.is_err(), "nobody listens");
    }
}

#[tokio::test]
async fn a_stopping_relay_is_not_ready() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let relay = Process::start(dir.path(), &["--listen", "127.0.0.1:0", "--shutdown-grace", "20s"]);
    // A request whose body does not come to its end keeps the relay busy; that most of it has come gives it 20 s.
    let address = relay.url.strip_prefix("http://").expect("an address").to_owned();
    let mut busy = tokio::net::TcpStream::connect(&address).await.expect("a connection");
    let token = std::fs::read_to_string(dir.path().join("operator.token")).expect("a token");
    let body = format!("{}{{}}", " ".repeat((1 << 20) - 2));
    let (begin, end) = body.split_at(body.len() - 2);
    let head = format!(
        "POST /api/v1/handles HTTP/1.1\r\nhost: a\r\nx-auth-token: {}\r\ncontent-length: {}\r\n\r\n{begin}",
        token.trim(),
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut busy, head.as_bytes()).await.expect("it is sent");
    let metrics = format!("{}/metrics", relay.admin_url);
    until(async || {
        let page =
            client().get(&metrics).send().await.expect("metrics").text().await.expect("text");
        page.lines().any(|line| line == "heliograph_http_arriving 1")
    })
    .await;

    relay.terminate();
    let ready = format!("{}/readyz", relay.admin_url);
    until(async || answer(client().get(&ready)).await.0 == 503).await;
    let (_, seen) = answer(client().get(&ready)).await;
    assert_eq!(seen["reasons"], json!(["the relay is stopping"]));

    // The request that was begun is finished, and then the relay is gone.
    tokio::io::AsyncWriteExt::write_all(&mut busy, end.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    in_time(tokio::io::AsyncReadExt::read_to_string(&mut busy, &mut answer))
        .await
        .expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(
        in_time(tokio::task::spawn_blocking(|| relay.exit_code())).await.expect("it ends"),
        Some(0)
    );
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_restart_or_a_kill() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let flags = ["--public-url", "http://relay.example/prefix/"];
    let start =
        |listen: &str| Process::start(dir.path(), &[&flags[..], &["--listen", listen]].concat());
    let relay = start("127.0.0.1:0");
    let token = std::fs::read_to_string(dir.path().join("operator.token")).expect("a token");
    let create = client()
        .post(format!("{}/api/v1/handles", relay.url))
        .bearer_auth(token.trim())
        .body(r#"{"count":3}"#);
    let (status, mut created) = answer(create).await;
    assert_eq!(status, 201, "{created}");
    let prefix = "http://relay.example/prefix";
    assert!(text(&created["signal_url"]).starts_with(prefix));
    // The signature does not cover the host, nor what a proxy puts in front of the path.
    let listen = relay.url.strip_prefix("http://").expect("an address").to_owned();
    created["signal_url"] = text(&created["signal_url"]).replacen(prefix, &relay.url, 1).into();
    let poll_url = text(&created["poll_url"]).replacen(prefix, &relay.url, 1);

    assert_eq!(signal(&created, r#"{"id":"1"}"#).await.0, 201);
    relay.kill();
    let relay = start(&listen);
    assert_eq!(signal(&created, r#"{"id":"1"}"#).await.0, 200, "it is known");
    assert_eq!(signal(&created, r#"{"id":"2"}"#).await.0, 201);
    relay.terminate();
    assert_eq!(relay.exit_code(), Some(0));
    let _relay = start(&listen);
    assert_eq!(signal(&created, r#"{"id":"3"}"#).await.0, 201);
    let (_, seen) = answer(client().get(poll_url)).await;
    assert_eq!(seen["state"], "complete");
    assert_eq!(seen["signals"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_up_a_stop_for_ever() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let flags = ["--listen", "127.0.0.1:0", "--shutdown-grace", "100ms"];
    let relay = Process::start(dir.path(), &flags);
    let address = relay.url.strip_prefix("http://").expect("an address");
    let mut stuck = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let head = b"PUT /v1/AUTH_a/c/o HTTP/1.1\r\nhost: a\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stuck, head).await.expect("it is sent");
    let metrics = format!("{}/metrics", relay.admin_url);
    until(async || {
        let page = client().get(&metrics).send().await.expect("metrics").text().await;
        let page = page.expect("text");
        // This one and the one that asks.
        page.lines().any(|line| line == "heliograph_http_connections 2")
    })
    .await;
    relay.terminate();
    let ended = tokio::task::spawn_blocking(|| relay.exit_code());
    assert_eq!(in_time(ended).await.expect("it ends"), Some(0));
}
