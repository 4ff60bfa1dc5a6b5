//! `wait`: asks by long-poll until the handle has ended or the time is over, through restarts of the
//! relay and of whatever stands in front of it.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use signal_protocol::handle::{HandleState, HandleView};
use tokio::time::{Instant, sleep};

use crate::cli::handle::describe;
use crate::cli::output::{Failure, line};
use crate::cli::{ConnectionArgs, Exit, instance, positive_duration};
use crate::client::backoff::Backoff;
use crate::client::{Client, ClientError, HandleRef, POLL_WAIT};
use crate::instance::InstanceId;

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Id or poll URL
    #[arg(value_parser = HandleRef::parse, required_unless_present = "instance")]
    handle: Option<HandleRef>,

    /// Wait for an instance instead, which needs no handle
    #[arg(long, value_name = "UUID", value_parser = instance_id, conflicts_with = "handle")]
    instance: Option<InstanceId>,

    /// How long to wait: 60s, 10m, 12h or seconds
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = positive_duration)]
    timeout: Duration,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

pub(crate) async fn wait(args: &WaitArgs) -> Result<Exit, Failure> {
    let client = args.connection.client(args.handle.as_ref())?;
    let deadline = Instant::now() + args.timeout;
    let handle = match (&args.handle, args.instance) {
        (Some(handle), _) => handle,
        (None, Some(id)) => {
            let view = instance::wait(&client, id, deadline).await?;
            args.connection.output().answer(&view, instance::describe(&view));
            return Ok(instance::exit_of(view.state));
        }
        // The parser of the command line has seen to it.
        (None, None) => return Err(Failure::usage("neither a handle nor an instance is named")),
    };
    let mut progress = Progress::new();
    let view = poll(&client, handle, deadline, &mut progress).await?;
    args.connection.output().answer(&view, describe(&view));
    Ok(exit_of(view.state))
}

fn instance_id(text: &str) -> Result<InstanceId, String> {
    InstanceId::parse(text).ok_or_else(|| "an instance is named by its UUID".to_owned())
}

pub(crate) fn exit_of(state: HandleState) -> Exit {
    match state {
        HandleState::Complete => Exit::Success,
        HandleState::Failed => Exit::Failed,
        HandleState::Pending | HandleState::Expired => Exit::TimedOut,
    }
}

/// The handle as it was when it ended, or when the deadline came. An error when the relay could not be
/// asked at that time: what it said before may be old.
async fn poll(
    client: &Client,
    handle: &HandleRef,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<HandleView, ClientError> {
    let mut backoff = Backoff::default();
    let mut version = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match client.show(handle, left.min(POLL_WAIT), version).await {
            Ok(view) => {
                backoff.reset();
                progress.show(&view);
                if view.state != HandleState::Pending || Instant::now() >= deadline {
                    return Ok(view);
                }
                let has_news = version.replace(view.version) != Some(view.version);
                if has_news {
                    continue;
                }
                // Nothing new, and yet an answer: the wait was over, or the relay is stopping and
                // answers at once. Asking again without a pause would be a busy loop.
                sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now()))).await;
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

/// The pause after an answer without news.
const PAUSE: Duration = Duration::from_millis(100);

/// What a person at a terminal sees while the command waits; nothing where nobody looks.
struct Progress {
    is_shown: bool,
    n_signals: usize,
    in_trouble: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { is_shown: io::stderr().is_terminal(), n_signals: usize::MAX, in_trouble: false }
    }

    fn show(&mut self, view: &HandleView) {
        self.in_trouble = false;
        let has_changed = self.n_signals != view.signals.len();
        self.n_signals = view.signals.len();
        if !self.is_shown || !has_changed || view.state != HandleState::Pending {
            return;
        }
        let last = view.signals.last().map_or(String::new(), |signal| {
            format!(", last {}: {} {}", signal.id, signal.status, signal.reason)
        });
        let text = format!("waiting: {} of {} received{last}", view.signals.len(), view.count);
        line(&mut io::stderr(), &text);
    }

    fn trouble(&mut self, error: &ClientError) {
        if self.is_shown && !std::mem::replace(&mut self.in_trouble, true) {
            line(&mut io::stderr(), &format!("{error}; trying again"));
        }
    }
}
