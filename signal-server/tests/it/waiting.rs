//! What a long-poll is on a connection: one request among others.

use heliograph_server::config::StoreKind;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Relay, in_time, signal, text};

const NOBODY_WAITS: &str = "heliograph_http_long_polls 0";
const ONE_WAITS: &str = "heliograph_http_long_polls 1";

async fn connect(relay: &Relay) -> TcpStream {
    let address = relay.url.strip_prefix("http://").expect("an address");
    TcpStream::connect(address).await.expect("a connection")
}

/// A request for the handle, with `more` behind its signature and among its headers.
fn poll(created: &Value, query: &str, header: &str) -> String {
    let (_, path) = text(&created["poll_url"]).split_once("/api/").expect("a path");
    format!("GET /api/{path}{query} HTTP/1.1\r\nhost: relay\r\n{header}\r\n")
}

/// One answer: its head and its body.
async fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(in_time(stream.read_u8()).await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("a length").parse().expect("a number")];
    in_time(stream.read_exact(&mut body)).await.expect("a body");
    (head, String::from_utf8(body).expect("text"))
}

#[tokio::test]
async fn other_requests_come_before_and_behind_it_in_their_order() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create(r#"{"count":2}"#).await;
    let mut stream = connect(&relay).await;
    // All at once: one that is answered at once, one that waits, and one that has been sent meanwhile.
    let requests = [poll(&created, "", ""), poll(&created, "&wait=50s&version=1", "")].concat();
    let requests = requests + "GET /nowhere HTTP/1.1\r\nhost: relay\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.expect("they are sent");
    assert!(answer(&mut stream).await.1.contains(r#""version":1"#));
    relay.until_metric(ONE_WAITS).await;
    signal(&created, r#"{"id":"a"}"#).await;
    let (head, body) = answer(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nx-request-id: "), "{head}");
    assert!(body.contains(r#""version":2"#), "{body}");
    assert!(answer(&mut stream).await.0.starts_with("HTTP/1.1 404"));

    // And again on the same connection.
    stream.write_all(poll(&created, "&wait=50s", "").as_bytes()).await.expect("it is sent");
    relay.until_metric(ONE_WAITS).await;
    signal(&created, r#"{"id":"b"}"#).await;
    assert!(answer(&mut stream).await.1.contains(r#""state":"complete""#));
    stream.write_all(poll(&created, "", "").as_bytes()).await.expect("it is sent");
    assert!(answer(&mut stream).await.1.contains(r#""version":3"#));
    relay.stopped().await;
}

#[tokio::test]
async fn a_connection_is_closed_behind_it_if_it_says_so() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create("{}").await;
    for (header, closes) in [("Connection: close\r\n", true), ("Connection: keep-alive\r\n", false)]
    {
        let mut stream = connect(&relay).await;
        let request = poll(&created, "&wait=100ms", header);
        stream.write_all(request.as_bytes()).await.expect("it is sent");
        let (head, _) = answer(&mut stream).await;
        assert_eq!(head.contains("\r\nconnection: close\r\n"), closes, "{head}");
        if closes {
            assert_eq!(in_time(stream.read(&mut [0])).await.expect("the end"), 0);
        }
    }
    relay.stopped().await;
}

#[tokio::test]
async fn whoever_goes_away_does_not_wait_any_more() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create("{}").await;
    let mut stream = connect(&relay).await;
    // What is sent behind a long-poll does not hide that nobody is there.
    let requests = poll(&created, "&wait=50s", "") + "GET /nowhere HTTP/1.1\r\n";
    stream.write_all(requests.as_bytes()).await.expect("it is sent");
    relay.until_metric(ONE_WAITS).await;
    drop(stream);
    relay.until_metric(NOBODY_WAITS).await;
    relay.stopped().await;
}
