//! `signal`: what an instance does with curl, with retries and an id; or what it wrote on its console.

mod console;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;
use signal_protocol::signal::{Signal, Status};
use tokio::time::{Instant, sleep};

use crate::cli::output::Failure;
use crate::cli::{ConnectionArgs, Exit, StatusArg, positive_duration};
use crate::client::backoff::Backoff;
use crate::client::{Client, HandleRef};

#[derive(Debug, Args)]
pub(crate) struct SignalArgs {
    /// Signal URL or id
    #[arg(value_name = "URL|HANDLE", value_parser = HandleRef::parse)]
    handle: HandleRef,

    /// How it went
    #[arg(long, default_value = "SUCCESS", ignore_case = true)]
    status: StatusArg,

    /// Why, for a person
    #[arg(long)]
    reason: Option<String>,

    /// What makes two signals the same one; a random one unless told otherwise
    #[arg(long)]
    id: Option<String>,

    /// Any JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,

    /// Send the results that this console log of an instance has in it; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["status", "reason", "id", "data"])]
    from_console: Option<PathBuf>,

    /// How long to try
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive_duration)]
    timeout: Duration,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

pub(crate) async fn signal(args: &SignalArgs) -> Result<Exit, Failure> {
    let signals = match &args.from_console {
        Some(path) => console::results(path)?,
        None => vec![build(args)?],
    };
    let client = args.connection.client(Some(&args.handle))?;
    let deadline = Instant::now() + args.timeout;
    for signal in &signals {
        deliver(args, &client, signal, deadline).await?;
    }
    Ok(Exit::Success)
}

/// Tries until the relay has it, or the time is over.
async fn deliver(
    args: &SignalArgs,
    client: &Client,
    signal: &Signal,
    deadline: Instant,
) -> Result<(), Failure> {
    let mut backoff = Backoff::default();
    loop {
        let error = match client.signal(&args.handle, signal).await {
            Ok(answer) => {
                let outcome = answer.map(|answer| answer.outcome);
                let value = json!({ "id": signal.id, "outcome": outcome });
                args.connection.output().answer(&value, "acknowledged");
                return Ok(());
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

/// The signal, judged by the rules of the relay before it is sent.
fn build(args: &SignalArgs) -> Result<Signal, Failure> {
    let data: Option<Box<RawValue>> = args
        .data
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| Failure::usage(format!("--data is not JSON: {error}")))?;
    let signal = Signal {
        status: match args.status {
            StatusArg::Success => Status::Success,
            StatusArg::Failure => Status::Failure,
        },
        reason: args.reason.clone(),
        // With an id, a signal that is sent again because its answer was lost counts once.
        id: Some(args.id.clone().unwrap_or_else(random_id)),
        data,
    };
    Signal::parse(signal.to_json().as_bytes()).map_err(Failure::usage)
}

fn random_id() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}
