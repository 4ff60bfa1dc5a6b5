//! `wait --instance`: asks until an instance has said how it went or the time is over, and says what is
//! known of it then. That an instance was never heard of is told from one that fell silent, for they are
//! looked into in different places.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::Exit;
use crate::cli::output::{Failure, line};
use crate::client::backoff::Backoff;
use crate::client::{Client, POLL_WAIT};
use crate::instance::InstanceId;
use crate::instance::view::{InstanceState, InstanceView};

/// The pause after an answer without news.
const PAUSE: Duration = Duration::from_millis(100);

/// The instance as it was when it had a result, or when the deadline came.
pub(crate) async fn wait(
    client: &Client,
    id: InstanceId,
    deadline: Instant,
) -> Result<InstanceView, Failure> {
    let mut backoff = Backoff::default();
    let mut version = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match client.instance(id, left.min(POLL_WAIT), version).await {
            Ok(view) => {
                backoff.reset();
                let has_result = exit_of(view.state) != Exit::TimedOut;
                if has_result || Instant::now() >= deadline {
                    return Ok(view);
                }
                let has_news = version.replace(view.version) != Some(view.version);
                if has_news {
                    show(&view);
                    continue;
                }
                // The wait was over, or the relay is stopping and answers at once.
                sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now()))).await;
                continue;
            }
            Err(error) => error,
        };
        let delay = backoff.next(error.retry_after());
        if !error.is_retriable() || Instant::now() + delay >= deadline {
            return Err(error.into());
        }
        sleep(delay).await;
    }
}

pub(crate) fn exit_of(state: InstanceState) -> Exit {
    match state {
        InstanceState::Complete => Exit::Success,
        InstanceState::Failed => Exit::Failed,
        InstanceState::NeverContacted | InstanceState::Contacted => Exit::TimedOut,
    }
}

/// Progress, for a person at a terminal.
fn show(view: &InstanceView) {
    if !io::stderr().is_terminal() {
        return;
    }
    if let Some(last) = view.phases.last() {
        line(&mut io::stderr(), &format!("waiting: {} {}", last.phase, last.text));
    }
}

/// What is known of an instance, for a person.
pub(crate) fn describe(view: &InstanceView) -> String {
    let state = match view.state {
        InstanceState::NeverContacted => "never contacted",
        InstanceState::Contacted => "contacted",
        InstanceState::Complete => "complete",
        InstanceState::Failed => "failed",
    };
    let mut text = format!("instance {}: {state}: {}", view.id, view.reason);
    if view.state == InstanceState::Complete {
        return text;
    }
    for phase in &view.phases {
        let _infallible = write!(text, "\n  {:.0} {} {}", phase.at, phase.phase, phase.text);
    }
    if let Some(log) = &view.log {
        let _infallible = write!(text, "\n  last lines of the log:");
        for log_line in log.lines() {
            let _infallible = write!(text, "\n    {log_line}");
        }
    }
    text
}
