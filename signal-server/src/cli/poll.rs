//! Asking by long-poll until something has ended or the time is over, through restarts of the relay and
//! of whatever stands in front of it.

use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::output::line;
use crate::client::backoff::Backoff;
use crate::client::{ClientError, POLL_WAIT};

/// The pause after an answer without news.
const PAUSE: Duration = Duration::from_millis(100);

/// What is asked for again and again.
pub(crate) trait Polled {
    /// Grows with each change.
    fn version(&self) -> u64;

    /// Whether nothing more is awaited.
    fn has_ended(&self) -> bool;

    /// What a person who waits wants to know now, in one line.
    fn progress(&self) -> Option<String>;
}

/// The view as it was when it ended, or when the deadline came. An error when the relay could not be
/// asked at that time: what it said before may be old. `ask` takes how long the relay may wait for news,
/// and the version after which something is new.
pub(crate) async fn until_ended<V: Polled>(
    deadline: Instant,
    ask: impl AsyncFn(Duration, Option<u64>) -> Result<V, ClientError>,
) -> Result<V, ClientError> {
    let mut backoff = Backoff::default();
    let mut progress = Progress::new();
    let mut version = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match ask(left.min(POLL_WAIT), version).await {
            Ok(view) => {
                backoff.reset();
                if view.has_ended() || Instant::now() >= deadline {
                    return Ok(view);
                }
                progress.show(&view);
                let has_news = version.replace(view.version()) != Some(view.version());
                if !has_news {
                    // Nothing new, and yet an answer: the wait was over, or the relay is stopping and
                    // answers at once. Asking again without a pause would be a busy loop.
                    sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now()))).await;
                }
                continue;
            }
            Err(error) => error,
        };
        let delay = backoff.next(error.retry_after());
        if !error.is_retriable() || Instant::now() + delay >= deadline {
            return Err(error);
        }
        progress.trouble(&error);
        sleep(delay).await;
    }
}

/// What a person at a terminal sees while a command waits; nothing where nobody looks.
struct Progress {
    is_shown: bool,
    last: Option<String>,
    in_trouble: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { is_shown: io::stderr().is_terminal(), last: None, in_trouble: false }
    }

    fn show(&mut self, view: &impl Polled) {
        self.in_trouble = false;
        let text = view.progress();
        if self.is_shown
            && text != self.last
            && let Some(text) = &text
        {
            line(&mut io::stderr(), &format!("waiting: {text}"));
        }
        self.last = text;
    }

    fn trouble(&mut self, error: &ClientError) {
        if self.is_shown && !std::mem::replace(&mut self.in_trouble, true) {
            line(&mut io::stderr(), &format!("{error}; trying again"));
        }
    }
}
