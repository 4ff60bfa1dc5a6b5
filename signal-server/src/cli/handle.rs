//! `handle create | show | list | delete`.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use serde_json::value::RawValue;
use signal_protocol::handle::{HandleId, HandleView};

use crate::api::{CreateHandle, HandlePage};
use crate::cli::output::{Failure, Output};
use crate::cli::{ConnectionArgs, Exit, positive_duration};
use crate::client::HandleRef;
use crate::duration::DurationText;

#[derive(Debug, Subcommand)]
pub(crate) enum HandleCommand {
    /// Make a handle and print its signal URL
    Create(CreateArgs),
    /// Print a handle and its signals
    Show(ShowArgs),
    /// Print the handles of the account
    List(ListArgs),
    /// Remove a handle and its signals
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// How many signals with distinct ids complete it
    #[arg(long, default_value_t = 1)]
    count: u32,

    /// How long it waits for them: 120s, 10m, 12h or seconds
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = positive_duration)]
    timeout: Duration,

    /// A line for people
    #[arg(long)]
    label: Option<String>,

    /// File with any JSON to keep with the handle
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Id or poll URL
    #[arg(value_parser = HandleRef::parse)]
    handle: HandleRef,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Most handles to print; all unless told otherwise
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Id
    #[arg(value_parser = |text: &str| HandleId::parse(text))]
    handle: HandleId,

    #[command(flatten)]
    connection: ConnectionArgs,
}

impl HandleCommand {
    pub(crate) fn output(&self) -> Output {
        match self {
            HandleCommand::Create(args) => args.connection.output(),
            HandleCommand::Show(args) => args.connection.output(),
            HandleCommand::List(args) => args.connection.output(),
            HandleCommand::Delete(args) => args.connection.output(),
        }
    }
}

pub(crate) async fn handle(command: &HandleCommand) -> Result<Exit, Failure> {
    match command {
        HandleCommand::Create(args) => create(args).await?,
        HandleCommand::Show(args) => show(args).await?,
        HandleCommand::List(args) => list(args).await?,
        HandleCommand::Delete(args) => delete(args).await?,
    }
    Ok(Exit::Success)
}

async fn create(args: &CreateArgs) -> Result<(), Failure> {
    let asked = CreateHandle {
        count: Some(args.count),
        timeout: Some(DurationText(args.timeout)),
        label: args.label.clone(),
        metadata: args.metadata.as_ref().map(read_json).transpose()?,
    };
    let created = args.connection.client(None)?.create(&asked).await?;
    let text = format!(
        "id          {}\nsignal URL  {}\npoll URL    {}\nexpires at  {}",
        created.id, created.signal_url, created.poll_url, created.expires_at
    );
    args.connection.output().answer(&created, text);
    Ok(())
}

fn read_json(path: &PathBuf) -> Result<Box<RawValue>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("failed to read {}: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{} is not JSON: {error}", path.display())))
}

async fn show(args: &ShowArgs) -> Result<(), Failure> {
    let client = args.connection.client(Some(&args.handle))?;
    let view = client.show(&args.handle, Duration::ZERO, None).await?;
    args.connection.output().answer(&view, describe(&view));
    Ok(())
}

/// A handle and its signals for a person.
pub(crate) fn describe(view: &HandleView) -> String {
    let mut text = match &view.reason {
        Some(reason) => format!("{}: {reason}", view.state),
        None => format!("{}: {} of {} received", view.state, view.signals.len(), view.count),
    };
    for signal in &view.signals {
        let (id, status, reason) = (&signal.id, signal.status, &signal.reason);
        let at = signal.received_at;
        // Writing into a string cannot fail.
        let _ = write!(text, "\n  {at:.0}  {status}  {id}  {reason}");
    }
    text
}

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let client = args.connection.client(None)?;
    let mut all = HandlePage { handles: Vec::new(), next_marker: None };
    let limit = args.limit.unwrap_or(usize::MAX);
    loop {
        let page = client.list(None, all.next_marker.as_ref()).await?;
        all.handles.extend(page.handles);
        all.next_marker = page.next_marker;
        if all.next_marker.is_none() || all.handles.len() >= limit {
            break;
        }
    }
    all.handles.truncate(limit);
    let lines: Vec<String> = all
        .handles
        .iter()
        .map(|entry| {
            let label = entry.label.as_deref().unwrap_or("-");
            format!(
                "{}  {:8}  {}/{}  {label}",
                entry.id,
                entry.state.to_string(),
                entry.n_signals,
                entry.count
            )
        })
        .collect();
    args.connection.output().answer(&json!({ "handles": all.handles }), lines.join("\n"));
    Ok(())
}

async fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    args.connection.client(None)?.delete(&args.handle).await?;
    let answer = json!({ "id": args.handle, "deleted": true });
    args.connection.output().answer(&answer, format!("deleted {}", args.handle));
    Ok(())
}
