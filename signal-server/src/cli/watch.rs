//! `watch`: prints every signal and every state of a handle as it comes, until the handle has ended.

use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;
use signal_protocol::handle::SignalView;
use tokio::time::sleep;

use crate::api::StateEvent;
use crate::cli::output::{Failure, Output};
use crate::cli::wait::exit_of;
use crate::cli::{ConnectionArgs, Exit};
use crate::client::HandleRef;
use crate::client::backoff::Backoff;
use crate::client::events::ServerEvent;

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Id or poll URL
    #[arg(value_parser = HandleRef::parse)]
    handle: HandleRef,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// How many attempts in a row may fail before the command gives up: about half a minute.
const MAX_FAILURES: usize = 10;

pub(crate) async fn watch(args: &WatchArgs) -> Result<Exit, Failure> {
    let client = args.connection.client(Some(&args.handle))?;
    let output = args.connection.output();
    let mut backoff = Backoff::default();
    let mut n_failures = 0;
    let mut last_id: Option<String> = None;
    let mut exit = Exit::TimedOut;
    loop {
        let delay = match client.events(&args.handle, last_id.as_deref()).await {
            Ok(None) => return Ok(exit),
            Ok(Some(mut events)) => {
                while let Some(event) = events.next().await {
                    (n_failures, backoff) = (0, Backoff::default());
                    exit = print(output, &event).unwrap_or(exit);
                    last_id = Some(event.id);
                }
                // The end of the handle, of the relay, or of patience in a proxy: asking again tells.
                backoff.next(None)
            }
            Err(error) => {
                n_failures += 1;
                if !error.is_retriable() || n_failures >= MAX_FAILURES {
                    return Err(error.into());
                }
                backoff.next(error.retry_after())
            }
        };
        sleep(delay).await;
    }
}

/// Prints an event; the exit code if it is a state.
fn print(output: Output, event: &ServerEvent) -> Option<Exit> {
    let data: &RawValue = serde_json::from_str(&event.data).ok()?;
    let value = json!({ "event": event.name, "data": data });
    if event.name == "state" {
        let state: StateEvent = serde_json::from_str(&event.data).ok()?;
        output.answer(
            &value,
            match &state.reason {
                Some(reason) => format!("state   {}: {reason}", state.state),
                None => format!("state   {}", state.state),
            },
        );
        return Some(exit_of(state.state));
    }
    if let Ok(signal) = serde_json::from_str::<SignalView>(&event.data) {
        let text = format!("signal  {} {}: {}", signal.id, signal.status, signal.reason);
        output.answer(&value, text);
    }
    None
}
