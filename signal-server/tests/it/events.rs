//! Server-sent events.

use heliograph_server::config::StoreKind;
use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Relay, client, in_time, signal, text};

/// Reads an event stream: event by event, as `(id, name, data)`.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    async fn open(url: &str, last_id: Option<&str>) -> Events {
        let mut request = client().get(url);
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = in_time(request.send()).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { response, text: String::new() }
    }

    /// The next event; nothing at the end of the stream.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    let line = event.lines().find_map(|line| line.strip_prefix(&prefix));
                    line.unwrap_or_default().to_owned()
                };
                let seen = (field("id"), field("event"), field("data"));
                self.text = rest.to_owned();
                let data = serde_json::from_str(&seen.2).expect("JSON");
                return Some((seen.0, seen.1, data));
            }
            let chunk = in_time(self.response.chunk()).await.expect("a whole stream")?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }

    async fn check(&mut self, name: &str, key: &str, expect: &str) -> String {
        let (id, seen, data) = self.next().await.expect("an event");
        assert_eq!((seen.as_str(), &data[key]), (name, &json!(expect)), "{data}");
        id
    }
}

fn events_url(created: &Value) -> String {
    text(&created["poll_url"]).replacen('?', "/events?", 1)
}

#[tokio::test]
async fn a_stream_tells_every_signal_and_ends_with_the_handle() {
    for store in [StoreKind::Memory, StoreKind::Embedded] {
        let relay = Relay::start(store).await;
        let created = relay.create(r#"{"count":2}"#).await;
        signal(&created, r#"{"id":"a","data":[1, 2]}"#).await;

        let mut events = Events::open(&events_url(&created), None).await;
        events.check("signal", "id", "a").await;
        events.check("state", "state", "pending").await;
        relay.until_metric("heliograph_http_long_polls 1").await;
        signal(&created, r#"{"id":"b"}"#).await;
        events.check("signal", "id", "b").await;
        events.check("state", "state", "complete").await;
        assert_eq!(events.next().await, None);
        relay.until_metric("heliograph_http_long_polls 0").await;
        relay.stopped().await;
    }
}

#[tokio::test]
async fn a_client_that_was_cut_off_goes_on_where_it_was() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create(r#"{"count":3}"#).await;
    signal(&created, r#"{"id":"a"}"#).await;
    let mut events = Events::open(&events_url(&created), None).await;
    events.check("signal", "id", "a").await;
    let last_id = events.check("state", "state", "pending").await;
    drop(events);
    signal(&created, r#"{"id":"b"}"#).await;

    let mut events = Events::open(&events_url(&created), Some(&last_id)).await;
    events.check("signal", "id", "b").await;
    events.check("state", "state", "pending").await;
    signal(&created, r#"{"id":"a","status":"FAILURE","reason":"after all"}"#).await;
    let (_, _, data) = events.next().await.expect("an event");
    assert_eq!((&data["id"], &data["status"]), (&json!("a"), &json!("FAILURE")));
    let last_id = events.check("state", "state", "failed").await;
    assert_eq!(events.next().await, None);

    // Who has seen the end is told not to come again.
    let again = client().get(events_url(&created)).header("Last-Event-ID", last_id).send();
    assert_eq!(in_time(again).await.expect("an answer").status(), 204);
    let wrong = client().get(events_url(&created)).header("Last-Event-ID", "x").send();
    assert_eq!(in_time(wrong).await.expect("an answer").status(), 400);
    relay.stopped().await;
}

#[tokio::test]
async fn the_end_of_the_time_is_an_event() {
    let relay = Relay::start(StoreKind::Memory).await;
    let created = relay.create(r#"{"timeout":"1s"}"#).await;
    let mut events = Events::open(&events_url(&created), None).await;
    events.check("state", "state", "pending").await;
    events.check("state", "state", "expired").await;
    assert_eq!(events.next().await, None);
    relay.stopped().await;
}
