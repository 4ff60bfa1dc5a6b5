//! What is refused, each with the code that programs rely on.

use heliograph_server::config::{ServeArgs, StoreKind};
use reqwest::{Body, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Relay, answer, client, in_time, signal, text};

const HANDLES: &str = "/api/v1/handles";

/// Asks; the result is `status code`.
async fn check(relay: &Relay, method: Method, path: &str, body: impl Into<Body>, expect: &str) {
    let (status, seen) = answer(relay.request(method.clone(), path).body(body)).await;
    let code = seen["error"]["code"].as_str().unwrap_or("");
    assert_eq!(format!("{status} {code}"), expect, "{method} {path}: {seen}");
}

#[tokio::test]
async fn a_handle_is_made_by_the_rules() {
    let relay = Relay::start(StoreKind::Memory).await;
    let long = |n: usize| "x".repeat(n);
    for (body, expect) in [
        ("", "201 "),
        ("{}", "201 "),
        (r#"{"count":1000,"timeout":43200}"#, "201 "),
        (r#"{"timeout":"12h"}"#, "201 "),
        (r#"{"count":0}"#, "400 bad_field"),
        (r#"{"count":1001}"#, "400 bad_field"),
        (r#"{"count":-1}"#, "400 bad_body"),
        (r#"{"count":"2"}"#, "400 bad_body"),
        (r#"{"timeout":0}"#, "400 bad_field"),
        (r#"{"timeout":"500ms"}"#, "400 bad_field"),
        (r#"{"timeout":43201}"#, "400 bad_field"),
        (r#"{"timeout":"soon"}"#, "400 bad_body"),
        (r#"{"cuont":2}"#, "400 bad_body"),
        ("[]", "400 bad_body"),
        ("{", "400 bad_body"),
        ("{} {}", "400 bad_body"),
        ("\u{feff}{}", "400 bad_body"),
        (&format!(r#"{{"label":"{}"}}"#, long(255)), "201 "),
        (&format!(r#"{{"label":"{}"}}"#, long(256)), "400 bad_field"),
        (&format!(r#"{{"metadata":"{}"}}"#, long((16 << 10) - 2)), "201 "),
        (&format!(r#"{{"metadata":"{}"}}"#, long(16 << 10)), "400 bad_field"),
    ] {
        check(&relay, Method::POST, HANDLES, body.to_owned(), expect).await;
    }
    // The complaint names what is wrong.
    let request = relay.request(Method::POST, HANDLES).body(r#"{"cuont":2}"#);
    let (_, seen) = answer(request).await;
    assert!(text(&seen["error"]["message"]).contains("cuont"), "{seen}");
    relay.stopped().await;
}

#[tokio::test]
async fn what_would_fail_a_stack_is_refused() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create("{}").await;
    let path = format!("{HANDLES}/{}/signals", text(&created["id"]));
    for (body, expect) in [
        ("", "201 "),
        (r#"{"status":"DONE"}"#, "400 signal_bad_status"),
        (r#"{"state":"SUCCESS"}"#, "400 signal_unknown_key"),
        ("[]", "400 signal_not_object"),
        ("SUCCESS", "400 signal_not_json"),
        (r#"{"reason":{}}"#, "400 signal_bad_reason"),
        (r#"{"id":[]}"#, "400 signal_bad_id"),
    ] {
        check(&relay, Method::PUT, &path, body, expect).await;
    }
    relay.stopped().await;
}

#[tokio::test]
async fn sizes_are_limited_at_the_edge() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create(r#"{"count":9}"#).await;
    let signals = format!("{HANDLES}/{}/signals", text(&created["id"]));
    let data = |n: usize| format!(r#"{{"id":"a","data":"{}"}}"#, "x".repeat(n));
    let overhead = data(0).len();
    let limit = 1 << 20;
    check(&relay, Method::PUT, &signals, data(limit - overhead), "201 ").await;
    check(&relay, Method::PUT, &signals, data(limit - overhead + 1), "413 body_too_large").await;
    // A body of unknown length, as `curl -T -` sends it.
    let chunks = (0..40).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 64 << 10]));
    let stream = Body::wrap_stream(futures_util::stream::iter(chunks));
    check(&relay, Method::PUT, &signals, stream, "413 body_too_large").await;

    let long_query = format!("{HANDLES}?limit={}", "1".repeat(5000));
    check(&relay, Method::GET, &long_query, "", "414 query_too_long").await;
    let long_path = format!("{HANDLES}/{}", "x".repeat(6000));
    check(&relay, Method::GET, &long_path, "", "414 path_too_long").await;
    let request = relay.request(Method::GET, HANDLES).header("x-long", "x".repeat(17 << 10));
    let (status, seen) = answer(request).await;
    assert_eq!((status, text(&seen["error"]["code"])), (431, "headers_too_large"));
    // Beyond what is buffered at all, there is no code, but an answer.
    let request = relay.request(Method::GET, HANDLES).header("x-long", "x".repeat(200 << 10));
    assert_eq!(answer(request).await.0, 431);
    relay.stopped().await;
}

#[tokio::test]
async fn what_is_not_there_has_the_same_shape() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create("{}").await;
    let handle = format!("{HANDLES}/{}", text(&created["id"]));
    for (method, path, expect) in [
        (Method::GET, "/".to_owned(), "404 not_found"),
        (Method::GET, "/api/v2/handles".to_owned(), "404 not_found"),
        (Method::PATCH, HANDLES.to_owned(), "405 method_not_allowed"),
        (Method::GET, format!("{handle}/signals"), "405 method_not_allowed"),
        (Method::GET, format!("{HANDLES}/h-1"), "404 handle_not_found"),
        (Method::GET, format!("{HANDLES}/h-{}", "0".repeat(32)), "404 handle_not_found"),
        (Method::GET, format!("{handle}?wiat=1s"), "400 unknown_parameter"),
        (Method::GET, format!("{handle}?wait=long"), "400 bad_parameter"),
        (Method::GET, format!("{HANDLES}?limit=0"), "400 bad_parameter"),
        (Method::GET, format!("{HANDLES}?marker=x"), "400 bad_parameter"),
        (Method::DELETE, format!("{handle}?force=1"), "400 unknown_parameter"),
    ] {
        check(&relay, method, &path, "", expect).await;
    }
    relay.stopped().await;
}

#[tokio::test]
async fn too_many_waiting_requests_are_refused() {
    let relay = Relay::start_with(ServeArgs {
        store: Some(StoreKind::Memory),
        max_long_polls: Some(1),
        ..ServeArgs::default()
    })
    .await;
    let created = relay.create("{}").await;
    let url = format!("{}&wait=55s", text(&created["poll_url"]));
    let waiting = tokio::spawn(client().get(&url).send());
    relay.until_metric("heliograph_http_long_polls 1").await;
    let (status, seen) = answer(client().get(&url)).await;
    assert_eq!((status, text(&seen["error"]["code"])), (503, "overloaded"));
    waiting.abort();
    relay.stopped().await;
}

/// A signal of two bytes, of which the second one is still to be sent.
async fn slow_signal(url: &str) -> TcpStream {
    let (address, path) =
        url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let head = format!("PUT /{path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\n\r\n{{");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(head.as_bytes()).await.expect("a request");
    stream
}

/// A URL to signal by is all that this takes, and every instance has one.
#[tokio::test]
async fn slow_bodies_keep_nobody_out() {
    const N_SLOW: usize = 32;
    let relay = Relay::start_with(ServeArgs {
        store: Some(StoreKind::Memory),
        max_in_flight: Some(8),
        ..ServeArgs::default()
    })
    .await;
    let created = relay.create(r#"{"count":100}"#).await;
    let mut slow = Vec::new();
    for _ in 0..N_SLOW {
        slow.push(slow_signal(text(&created["signal_url"])).await);
    }
    relay.until_metric(&format!("heliograph_http_arriving {N_SLOW}")).await;

    // Heat's polls and their like, and whoever signals.
    assert_eq!(relay.get("/v1/AUTH_operator?format=json").await.0, 200);
    assert_eq!(relay.get(&format!("{HANDLES}/{}", text(&created["id"]))).await.0, 200);
    assert_eq!(signal(&created, r#"{"id":"whole"}"#).await.0, 201);
    // Those who were slow are answered when the rest has come.
    for mut stream in slow {
        stream.write_all(b"}").await.expect("the rest");
        let mut start = [0; 12];
        in_time(stream.read_exact(&mut start)).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 201");
    }
    relay.until_metric("heliograph_http_arriving 0").await;
    relay.until_metric("heliograph_http_shed_total 0").await;
    relay.stopped().await;
}
