//! `stack ID`: who has signalled the handles of a stack of Heat's, and who was expected to.

use std::fmt::Write as _;

use clap::Args;

use crate::cli::output::Failure;
use crate::cli::{ConnectionArgs, Exit};
use crate::stack::view::{ExpectedState, StackView};

#[derive(Debug, Args)]
pub(crate) struct StackArgs {
    /// Id of the stack
    id: String,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

pub(crate) async fn stack(args: &StackArgs) -> Result<Exit, Failure> {
    let client = args.connection.client(None)?;
    let view = client.stack(&args.id).await?;
    args.connection.output().answer(&view, describe(&view));
    Ok(if view.n_missing == 0 { Exit::Success } else { Exit::TimedOut })
}

fn describe(view: &StackView) -> String {
    let mut text = format!("stack {}: {}", view.id, view.reason);
    for handle in &view.handles {
        let _infallible = write!(
            text,
            "\n  handle {}: {} received, {} not read by Heat yet",
            handle.name, handle.n_received, handle.n_pending
        );
        for sender in &handle.senders {
            let _infallible = write!(text, "\n    {:.0} {}", sender.received_at, sender.id);
        }
    }
    for expected in &view.expected {
        let state = match expected.state {
            ExpectedState::Signalled => "signalled",
            ExpectedState::Contacted => "contacted",
            ExpectedState::SignalledElsewhere => "signalled elsewhere",
            ExpectedState::NeverContacted => "never contacted",
            ExpectedState::Missing => "missing",
        };
        let _infallible = write!(text, "\n  expected {}: {state}", expected.name);
        for more in expected.instance_name.iter().chain(&expected.reason) {
            let _infallible = write!(text, ": {more}");
        }
    }
    text
}
