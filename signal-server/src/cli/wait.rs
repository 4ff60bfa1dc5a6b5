//! `wait`: until a handle has ended, or with `--instance` an instance, or the time is over.

use std::time::Duration;

use clap::Args;
use signal_protocol::handle::{HandleState, HandleView};
use tokio::time::Instant;

use crate::cli::handle::describe;
use crate::cli::output::Failure;
use crate::cli::poll::{Polled, until_ended};
use crate::cli::{ConnectionArgs, Exit, instance, positive_duration};
use crate::client::HandleRef;
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
    let output = args.connection.output();
    match (&args.handle, args.instance) {
        (Some(handle), _) => {
            let view =
                until_ended(deadline, async |wait, seen| client.show(handle, wait, seen).await)
                    .await?;
            output.answer(&view, describe(&view));
            Ok(exit_of(view.state))
        }
        (None, Some(id)) => {
            let view =
                until_ended(deadline, async |wait, seen| client.instance(id, wait, seen).await)
                    .await?;
            output.answer(&view, instance::describe(&view));
            Ok(instance::exit_of(view.state))
        }
        // The parser of the command line has seen to it.
        (None, None) => Err(Failure::usage("neither a handle nor an instance is named")),
    }
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

impl Polled for HandleView {
    fn version(&self) -> u64 {
        self.version
    }

    fn has_ended(&self) -> bool {
        self.state != HandleState::Pending
    }

    fn progress(&self) -> Option<String> {
        let last = self.signals.last().map_or(String::new(), |signal| {
            format!(", last {}: {} {}", signal.id, signal.status, signal.reason)
        });
        Some(format!("{} of {} received{last}", self.signals.len(), self.count))
    }
}
