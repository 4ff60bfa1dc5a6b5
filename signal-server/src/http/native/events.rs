//! Server-sent events: every signal and every change of state of one handle, as it happens.
//!
//! ```text
//! id: 3.1795248000123456.1
//! event: signal
//! data: {"id":"1","status":"SUCCESS","reason":"Signal 1 received","received_at":"…"}
//!
//! id: 3.1795248000123456.1
//! event: state
//! data: {"state":"complete","reason":"Signal 1 received","version":3}
//! ```
//!
//! The stream begins with what is there already, and ends when the handle is no longer pending. A client
//! that was cut off sends the last id it saw as `Last-Event-ID` and gets what came after it. The id holds
//! the version of the handle, the time of the latest signal that was sent in microseconds, and how many
//! signals of this very microsecond were sent, for several may share one commit.
//!
//! A client that has seen the end is answered 204, which tells a browser not to connect again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use signal_protocol::handle::{HandleId, HandleState, HandleView, SignalView};

use crate::api::StateEvent;
use crate::app::AppState;
use crate::error::{ApiError, chain};
use crate::http::edge::LongPollSlot;
use crate::http::native::permit::ReadPermit;
use crate::http::native::query;

/// How often a comment is sent on a silent stream: proxies commonly cut a silent request after 60 s, and
/// some after 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long one wait for a change lasts before it is begun again.
const WAIT: Duration = Duration::from_secs(3600);

/// `GET /api/v1/handles/{id}/events`
pub(crate) async fn events(
    permit: ReadPermit,
    State(state): State<AppState>,
    Extension(slot): Extension<Arc<LongPollSlot>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    query::none(&uri)?;
    let sent = match headers.get("last-event-id") {
        Some(value) => Position::parse(value.to_str().unwrap_or_default()).ok_or_else(|| {
            let message = "Last-Event-ID is not an id of this stream";
            ApiError::new(StatusCode::BAD_REQUEST, "bad_event_id", message)
        })?,
        None => Position::default(),
    };
    let view = state.mailboxes.handle_view(&permit.handle.id).await?;
    if view.version == sent.version && view.state != HandleState::Pending {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut feed = Feed {
        id: view.id.clone(),
        sent,
        queue: VecDeque::new(),
        is_over: false,
        state,
        _slot: slot,
    };
    feed.take(&view);
    let stream = stream::unfold(feed, |mut feed| async {
        feed.next().await.map(|event| (Ok::<_, Infallible>(event), feed))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// How far a client has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    version: u64,
    /// When the latest signal that was sent was received.
    microsecond: i64,
    /// How many signals that were received in this microsecond have been sent.
    n_signals: usize,
}

impl Position {
    fn parse(text: &str) -> Option<Position> {
        let mut parts = text.split('.');
        let position = Position {
            version: parts.next()?.parse().ok()?,
            microsecond: parts.next()?.parse().ok()?,
            n_signals: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(position)
    }

    /// The signals that come after this position, oldest first.
    fn news<'a>(&self, signals: &'a [SignalView]) -> Vec<&'a SignalView> {
        let microsecond = |signal: &SignalView| signal.received_at.as_microsecond();
        let mut news: Vec<&SignalView> =
            signals.iter().filter(|signal| microsecond(signal) >= self.microsecond).collect();
        news.sort_by_key(|signal| signal.received_at);
        let n_same = news.iter().filter(|signal| microsecond(signal) == self.microsecond).count();
        news.split_off(self.n_signals.min(n_same))
    }

    fn pass(&mut self, signal: &SignalView) {
        let microsecond = signal.received_at.as_microsecond();
        if microsecond > self.microsecond {
            (self.microsecond, self.n_signals) = (microsecond, 0);
        }
        self.n_signals += 1;
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.version, self.microsecond, self.n_signals)
    }
}

/// One client's stream.
struct Feed {
    id: HandleId,
    sent: Position,
    queue: VecDeque<Event>,
    is_over: bool,
    state: AppState,
    /// Counts this stream among the requests that wait for as long as it lives.
    _slot: Arc<LongPollSlot>,
}

impl Feed {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            let mailboxes = &self.state.mailboxes;
            tokio::select! {
                changed = mailboxes.changed(&self.id, self.sent.version, WAIT) => changed.ok()?,
                () = self.state.shutdown.begun() => return None,
            };
            // A handle that is gone ends the stream; the client learns the rest when it asks again.
            let view = mailboxes.handle_view(&self.id).await.ok()?;
            self.take(&view);
        }
    }

    /// Queues what the client has not seen of this view.
    fn take(&mut self, view: &HandleView) {
        if view.version == self.sent.version {
            return;
        }
        for signal in self.sent.news(&view.signals) {
            self.sent.pass(signal);
            self.queue.extend(event("signal", self.sent, signal));
        }
        self.sent.version = view.version;
        let state =
            StateEvent { state: view.state, reason: view.reason.clone(), version: view.version };
        self.queue.extend(event("state", self.sent, &state));
        self.is_over = view.state != HandleState::Pending;
    }
}

fn event(name: &str, position: Position, data: &impl serde::Serialize) -> Option<Event> {
    // One line: a line break would end the field, and compact JSON has none, but the text of a
    // signal's data is kept as it was sent.
    match serde_json::to_string(data) {
        Ok(text) => {
            let line = text.replace(['\n', '\r'], " ");
            Some(Event::default().id(position.to_string()).event(name).data(line))
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "failed to write an event");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use signal_protocol::signal::Status;

    use super::*;

    fn signals(microseconds: &[i64]) -> Vec<SignalView> {
        let view = |(n, microsecond): (usize, &i64)| SignalView {
            id: n.to_string(),
            status: Status::Success,
            reason: String::new(),
            data: None,
            received_at: Timestamp::from_microsecond(*microsecond).expect("in range"),
        };
        microseconds.iter().enumerate().map(view).collect()
    }

    fn check(position: &str, microseconds: &[i64], expect: &str) {
        let position = Position::parse(position).expect("an event id");
        let signals = signals(microseconds);
        let news: Vec<&str> =
            position.news(&signals).iter().map(|signal| signal.id.as_str()).collect();
        assert_eq!(news.join(","), expect, "{position} {microseconds:?}");
    }

    #[test]
    fn a_client_that_was_cut_off_gets_what_came_after() {
        check("0.0.0", &[10, 20, 20], "0,1,2");
        check("1.10.1", &[10, 20, 20], "1,2");
        check("2.20.1", &[10, 20, 20], "2");
        check("3.20.2", &[10, 20, 20], "");
        // The signal 0 came again with another content and is now the latest.
        check("3.20.2", &[30, 20, 20], "0");
        check("1.10.5", &[20, 10], "0");
    }

    #[test]
    fn an_event_id_reads_back_and_nothing_else_does() {
        let mut position = Position::default();
        for signal in signals(&[10, 20, 20]) {
            position.pass(&signal);
        }
        assert_eq!(position.to_string(), "0.20.2");
        assert_eq!(Position::parse("0.20.2"), Some(position));
        for text in ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
