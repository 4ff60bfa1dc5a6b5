//! Server-sent events: every signal and every change of state of one handle, as it happens.
//!
//! ```text
//! id: 2.2
//! event: signal
//! data: {"id":"b","status":"SUCCESS","reason":"Signal 2 received","received_at":"…"}
//!
//! id: 3.2
//! event: state
//! data: {"state":"complete","reason":"Signal 1 received;Signal 2 received","version":3}
//! ```
//!
//! The stream begins with what is there already, and ends when the handle is no longer pending. A client
//! that was cut off sends the last id it saw as `Last-Event-ID` and gets what came after it. The id holds
//! the version of the handle that was last told, and the number of the latest signal that was: numbers are the
//! mailbox's own order, so they mean the same to every relay on the store. A time would not do: each signal's
//! is by the clock of the relay that took it, and a signal of a relay that is behind would look like an old one.
//!
//! Rather twice than never: who brings an id that does not tell how far it has read gets all from the beginning.
//! That is an id of an earlier relay, which has a time in the middle (`3.1795248000123456.1`), and one that is
//! ahead of the mailbox, for the store has been restored from a backup since.
//!
//! A client that has seen the end is answered 204, which tells a browser not to connect again.

use std::collections::{BTreeMap, VecDeque};
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
    let (view, numbers) = state.mailboxes.handle_view_in_order(&permit.handle.id).await?;
    let mut feed = Feed {
        id: view.id.clone(),
        sent: sent.within(&numbers),
        queue: VecDeque::new(),
        is_over: false,
        state,
        _slot: slot,
    };
    feed.take(&view, &numbers);
    if feed.queue.is_empty() && view.state != HandleState::Pending {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let stream = stream::unfold(feed, |mut feed| async {
        feed.next().await.map(|event| (Ok::<_, Infallible>(event), feed))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// How far a client has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    version: u64,
    /// The number of the latest signal that was sent; 0 before the first one.
    number: u64,
}

impl Position {
    fn parse(text: &str) -> Option<Position> {
        let parts: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
        match *parts? {
            [version, number] => Some(Position { version, number }),
            // Of an earlier relay.
            [version, _, _] => Some(Position { version, number: 0 }),
            _ => None,
        }
    }

    /// The position in a mailbox that has signals with these numbers.
    fn within(self, numbers: &[u64]) -> Position {
        let latest = numbers.iter().copied().max().unwrap_or(0);
        if self.number > latest { Position::default() } else { self }
    }

    /// The signals that come after this position, oldest first, with their numbers.
    fn news<'a>(
        &self,
        signals: &'a [SignalView],
        numbers: &[u64],
    ) -> BTreeMap<u64, &'a SignalView> {
        let numbered = numbers.iter().copied().zip(signals);
        numbered.filter(|(number, _)| *number > self.number).collect()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.version, self.number)
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
            let (view, numbers) = mailboxes.handle_view_in_order(&self.id).await.ok()?;
            self.take(&view, &numbers);
        }
    }

    /// Queues what the client has not seen of this view, whose signals have these numbers.
    fn take(&mut self, view: &HandleView, numbers: &[u64]) {
        let news = self.sent.news(&view.signals, numbers);
        // A relay whose clock is ahead has counted the end of the time, and may have told this very version.
        if news.is_empty() && view.version == self.sent.version {
            return;
        }
        for (number, signal) in news {
            self.sent.number = number;
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
mod tests;
