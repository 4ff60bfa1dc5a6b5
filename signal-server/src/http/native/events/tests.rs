use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures_util::StreamExt;
use jiff::Timestamp;
use signal_protocol::path::AccountName;
use signal_protocol::signal::{Signal, Status};
use signal_protocol::tempurl::{Digest, sign};

use super::*;
use crate::clock::ManualClock;
use crate::http::edge::{Edge, EdgeLimits};
use crate::http::native::handles::handle_path;
use crate::http::{public_router, public_surface};
use crate::mailbox::limits::Limits;
use crate::mailbox::{Handle, Mailboxes, NewHandle};
use crate::store::Store;
use crate::store::memory::MemoryStore;

/// What is told of signals with these numbers to a client at this position: the numbers.
fn check(position: &str, numbers: &[u64], expect: &[u64]) {
    let view = |number: &u64| SignalView {
        id: number.to_string(),
        status: Status::Success,
        reason: String::new(),
        data: None,
        received_at: Timestamp::UNIX_EPOCH,
    };
    let signals: Vec<SignalView> = numbers.iter().map(view).collect();
    let position = Position::parse(position).expect("an event id").within(numbers);
    let news = position.news(&signals, numbers);
    assert!(news.iter().all(|(number, signal)| signal.id == number.to_string()), "{news:?}");
    assert_eq!(news.into_keys().collect::<Vec<_>>(), expect, "{position} {numbers:?}");
}

#[test]
fn a_client_that_was_cut_off_gets_what_came_after() {
    check("0.0", &[1, 2, 3], &[1, 2, 3]);
    check("1.1", &[1, 2, 3], &[2, 3]);
    check("4.3", &[1, 2, 3], &[]);
    // The first sender signalled again: its place is the first, its signal the latest.
    check("4.3", &[4, 2, 3], &[4]);
    check("2.1", &[4, 2, 3], &[2, 3, 4]);
    // The mailbox is older than what was read of it.
    check("4.3", &[1, 2], &[1, 2]);
    check("4.3", &[], &[]);
    // From an earlier relay.
    check("3.1795248000123456.1", &[1, 2], &[1, 2]);
}

#[test]
fn an_event_id_reads_back_and_nothing_else_does() {
    let position = Position { version: 3, number: 2 };
    assert_eq!(position.to_string(), "3.2");
    assert_eq!(Position::parse("3.2"), Some(position));
    for text in
        ["", "1", "1.2.3.4", "a.b", "a.b.c", "-1.0", "1.-1.0", "1.", "18446744073709551616.0"]
    {
        assert_eq!(Position::parse(text), None, "{text}");
    }
}

/// One of the relays on a store, with a clock of its own.
struct Relay {
    mailboxes: Mailboxes,
    state: AppState,
}

impl Relay {
    fn over(store: &Arc<MemoryStore>, second: i64) -> Relay {
        let clock = ManualClock::new(Timestamp::from_second(second).expect("in range"));
        let store: Arc<dyn Store> = store.clone();
        let mailboxes = Mailboxes::new(store, Arc::new(clock), Limits::default());
        let mut state = AppState::for_tests();
        state.mailboxes = mailboxes.clone();
        Relay { mailboxes, state }
    }

    async fn handle(&self, count: u32) -> Handle {
        let account = AccountName::parse("AUTH_p").expect("an account");
        let timeout = Duration::from_secs(60);
        let new = NewHandle { account, count, timeout, label: None, metadata: None };
        self.mailboxes.create_handle(new).await.expect("a handle")
    }

    async fn signal(&self, handle: &Handle, id: &str) {
        let signal = Signal { id: Some(id.to_owned()), ..Signal::new(Status::Success) };
        self.mailboxes.signal_handle(&handle.id, &signal).await.expect("it is taken");
    }

    /// The stream of a client that comes with this id; nothing if it is told not to come again.
    async fn events(&self, handle: &Handle, last_id: Option<&str>) -> Option<Events> {
        let (path, expires) = (handle_path(handle.id.as_str()), 2_147_483_586);
        let key = handle.signing_key.as_ref();
        let signature = sign(Digest::Sha256, key, "GET", expires, &path);
        let signed = format!("{path}/events?temp_url_sig={signature}&temp_url_expires={expires}");
        let mut request = Request::get(signed);
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Body::empty()).expect("a request");
        let limits = EdgeLimits { max_in_flight: 1, max_long_polls: 1 };
        let edge = Edge::new(public_surface, limits, self.state.metrics.clone());
        let answer = edge.call(public_router(self.state.clone()), request).await;
        match answer.status() {
            StatusCode::OK => {
                let (stream, text) = (answer.into_body().into_data_stream(), String::new());
                Some(Events { stream, text })
            }
            status => {
                assert_eq!(status, StatusCode::NO_CONTENT);
                None
            }
        }
    }
}

struct Events {
    stream: BodyDataStream,
    text: String,
}

impl Events {
    /// The next events, until a state that is `last` or the end: `event id` and what it is about, one after
    /// the other.
    async fn until(&mut self, last: &str) -> String {
        let mut seen: Vec<String> = Vec::new();
        while !seen.last().is_some_and(|event| event.starts_with("state") && event.ends_with(last))
        {
            let Some((event, rest)) = self.text.split_once("\n\n") else {
                let Some(bytes) = self.stream.next().await else { break };
                self.text += str::from_utf8(&bytes.expect("a stream")).expect("text");
                continue;
            };
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let data: serde_json::Value =
                serde_json::from_str(field("data: ").expect("data")).expect("JSON");
            let about = data["state"].as_str().or_else(|| data["id"].as_str()).expect("a string");
            let (name, id) = (field("event: ").expect("a name"), field("id: ").expect("an id"));
            seen.push(format!("{name} {id} {about}"));
            self.text = rest.to_owned();
        }
        seen.join(", ")
    }
}

#[tokio::test]
async fn a_stream_tells_what_a_relay_with_another_clock_has_taken() {
    let store = Arc::new(MemoryStore::new());
    for (here, there) in [(100, 98), (100, 100), (98, 100)] {
        let (here, there) = (Relay::over(&store, here), Relay::over(&store, there));
        let handle = here.handle(3).await;
        here.signal(&handle, "a").await;
        let mut events = here.events(&handle, None).await.expect("a stream");
        assert_eq!(events.until("pending").await, "signal 0.1 a, state 2.1 pending");
        there.signal(&handle, "b").await;
        // A client that was cut off goes on there.
        let mut others = there.events(&handle, Some("2.1")).await.expect("a stream");
        assert_eq!(others.until("pending").await, "signal 2.2 b, state 3.2 pending");
        here.signal(&handle, "c").await;
        let rest = events.until("complete").await;
        assert_eq!(rest, "signal 2.2 b, signal 2.3 c, state 4.3 complete");
        assert_eq!(events.until("").await, "");

        assert!(there.events(&handle, Some("4.3")).await.is_none());
        let mut anew = there.events(&handle, Some("4.1795248000123456.1")).await.expect("a stream");
        let all = "signal 4.1 a, signal 4.2 b, signal 4.3 c, state 4.3 complete";
        assert_eq!(anew.until("complete").await, all);
    }
}

#[tokio::test]
async fn who_was_told_of_the_end_by_a_clock_that_is_ahead_hears_of_a_signal_in_time() {
    let store = Arc::new(MemoryStore::new());
    let (ahead, behind) = (Relay::over(&store, 61), Relay::over(&store, 0));
    let handle = behind.handle(2).await;
    behind.signal(&handle, "a").await;
    let mut events = ahead.events(&handle, None).await.expect("a stream");
    assert_eq!(events.until("expired").await, "signal 0.1 a, state 3.1 expired");
    behind.signal(&handle, "b").await;
    // The version is the same: to the one it counts the end of the time, to the other the signal.
    let mut events = behind.events(&handle, Some("3.1")).await.expect("a stream");
    assert_eq!(events.until("complete").await, "signal 3.2 b, state 3.2 complete");
}
