//! The command line: what can be typed, and what the exit code says about how it went.

mod backup;
mod handle;
mod health;
mod instance;
mod migrate;
mod output;
mod poll;
mod serve;
mod signal;
mod stack;
mod wait;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitCode, Termination};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

use crate::client::{Client, HandleRef};
use crate::config::{self, ServeArgs};
use crate::duration::parse_duration;

use crate::cli::output::{Failure, Output};

/// How a command went. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done; a handle that was waited for is complete.
    Success = 0,
    /// The handle that was waited for has failed.
    Failed = 1,
    /// The time was over: the handle is still pending, or has expired.
    TimedOut = 2,
    /// Nothing is known: the command line is wrong, or the relay could not be asked, or refused.
    CouldNotAsk = 3,
    /// The relay could not start or had to stop: configuration, data directory, store or address.
    CouldNotServe = 4,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// Keeps signals from instances until the orchestrator asks for them
#[derive(Debug, Parser)]
#[command(name = "heliograph-server", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay
    Serve(Box<ServeArgs>),
    /// Move everything from one store to another; no relay may run on either
    Migrate(migrate::MigrateArgs),
    /// Save everything that a relay on an embedded store has, while it serves
    Backup(backup::BackupArgs),
    /// Put a backup into an empty data directory
    Restore(backup::RestoreArgs),
    /// Say whether the relay on this machine is ready; for health checks
    #[command(after_help = HEALTH_EXIT_CODES)]
    Health(health::HealthArgs),
    /// Make, show, list and delete handles
    #[command(subcommand)]
    Handle(handle::HandleCommand),
    /// Wait until a handle is complete, has failed or has expired
    #[command(after_help = EXIT_CODES)]
    Wait(wait::WaitArgs),
    /// Print the signals of a handle as they come
    #[command(after_help = EXIT_CODES)]
    Watch(watch::WatchArgs),
    /// Signal a handle
    Signal(signal::SignalArgs),
    /// Say who has signalled a stack of Heat's, and who has not
    #[command(after_help = STACK_EXIT_CODES)]
    Stack(stack::StackArgs),
}

const EXIT_CODES: &str = "Exit codes:
  0  complete
  1  failed: a FAILURE was signalled
  2  timed out: still pending, or expired
  3  could not ask";

const STACK_EXIT_CODES: &str = "Exit codes:
  0  nobody is missing
  2  somebody who is expected has not signalled
  3  could not ask";

const HEALTH_EXIT_CODES: &str = "Exit codes:
  0  ready
  3  not ready, or could not ask";

/// The relay to ask, and how to answer.
#[derive(Clone, Debug, Args)]
struct ConnectionArgs {
    /// URL of the relay
    #[arg(
        long,
        env = "HELIOGRAPH_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8090"
    )]
    server: Url,

    /// File that holds the token; else HELIOGRAPH_TOKEN or OS_TOKEN is taken from the environment
    #[arg(long, env = "HELIOGRAPH_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Answer in JSON, errors too
    #[arg(long)]
    json: bool,
}

/// A status as it is typed: in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StatusArg {
    #[value(name = "SUCCESS")]
    Success,
    #[value(name = "FAILURE")]
    Failure,
}

impl ConnectionArgs {
    fn output(&self) -> Output {
        Output { json: self.json }
    }

    /// A client of the relay that is meant: of the handle's own, if it is named by a URL.
    fn client(&self, handle: Option<&HandleRef>) -> Result<Client, Failure> {
        let token = config::client_token(self.token_file.as_deref())?;
        let server = match handle {
            Some(HandleRef::Url(url)) => url,
            _ => &self.server,
        };
        Ok(Client::new(server.clone(), token)?)
    }
}

/// Reads the command line and does what it says.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::CouldNotAsk } else { Exit::Success };
            // Help that nobody reads is nobody's loss.
            let _ = error.print();
            return exit;
        }
    };
    match cli.command {
        Command::Serve(args) => serve::serve(&args),
        Command::Migrate(args) => migrate::migrate(&args),
        Command::Backup(args) => output::block_on(args.connection.output(), backup::backup(&args)),
        Command::Restore(args) => backup::restore(&args),
        Command::Health(args) => output::block_on(args.output(), health::health(&args)),
        Command::Handle(command) => output::block_on(command.output(), handle::handle(&command)),
        Command::Wait(args) => output::block_on(args.connection.output(), wait::wait(&args)),
        Command::Watch(args) => output::block_on(args.connection.output(), watch::watch(&args)),
        Command::Signal(args) => output::block_on(args.connection.output(), signal::signal(&args)),
        Command::Stack(args) => output::block_on(args.connection.output(), stack::stack(&args)),
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("must be more than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
