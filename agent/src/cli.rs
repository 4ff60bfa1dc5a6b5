//! The commands.

mod signal;
mod status;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::signal::unix::SignalKind;
use tracing_subscriber::EnvFilter;

use crate::boot::fault::{FaultPoint, Faults};
use crate::boot::{self, Settings, sources};
use crate::cli::signal::SignalArguments;
use crate::config::{Config, ConfigError, Flags};
use crate::console::Console;
use crate::durable;
use crate::error::{AgentError, Exit, chain};
use crate::plan::Plan;
use crate::signal::Transport;
use crate::signal::direct::Direct;
use crate::signal::gateway::{Gateway, Reporter};
use crate::signal::ladder::Ladder;
use crate::state;
use crate::userdata;
use crate::userdata::document::Document;

/// User data has 64 KiB; a larger file is some other file.
const MAX_DOCUMENT_FILE_BYTES: u64 = 1024 * 1024;

/// Runs the container that this instance's user data describes, and signals the outcome.
#[derive(Debug, Parser)]
#[command(name = "heliograph-agent", disable_version_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the container of the user data and signal the outcome; ends when that is acknowledged
    Run {
        #[command(flatten)]
        flags: Flags,
        /// Stay, and keep writing the container's output to the console
        #[arg(long)]
        follow: bool,
    },
    /// Print what would be asked of the engine, as JSON, without asking anything
    Plan { file: PathBuf },
    /// Check a document
    Validate { file: PathBuf },
    /// Tell how far the run on this instance is
    Status {
        #[command(flatten)]
        flags: Flags,
        /// Wait until the run is over
        #[arg(long)]
        wait: bool,
        #[arg(long)]
        json: bool,
    },
    /// Send a signal to the document's handle, from a script on the instance
    Signal {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        arguments: SignalArguments,
    },
    /// Print the version
    Version,
    /// Print the names that HELIOGRAPH_FAULT_POINT takes; for tests
    #[command(hide = true)]
    FaultPoints,
}

/// Runs one command. What is printed is the result; what is logged goes to standard error.
pub async fn run(cli: Cli) -> Exit {
    let result = dispatch(cli.command).await;
    result.unwrap_or_else(|error| {
        complain(&error.reason());
        error.exit()
    })
}

async fn dispatch(command: Command) -> Result<Exit, AgentError> {
    match command {
        Command::Run { flags, follow } => run_boot(&configure(flags)?, follow).await,
        Command::Plan { file } => plan(&file),
        Command::Validate { file } => validate(&file),
        Command::Status { flags, wait, json } => {
            status::status(&configure(flags)?.state_dir, wait, json).await
        }
        Command::Signal { flags, arguments } => {
            signal::send_by_hand(&configure(flags)?, arguments).await
        }
        Command::Version => {
            print(&format!("heliograph-agent {}", env!("CARGO_PKG_VERSION")));
            Ok(Exit::Success)
        }
        Command::FaultPoints => {
            FaultPoint::ALL.iter().for_each(|point| print(point.as_str()));
            Ok(Exit::Success)
        }
    }
}

async fn run_boot(config: &Config, follow: bool) -> Result<Exit, AgentError> {
    let (transport, gateway) = transports(config)?;
    let settings = Settings {
        datasources: sources::sources(config),
        is_user_data_named: config.user_data.is_some(),
        engine_sockets: config.engine_sockets.clone(),
        instance_id: config.instance_id.clone(),
        state_directory: config.state_dir.clone(),
        console: Console::new(&config.console),
        transport,
        reporter: gateway.map(Reporter::start),
        faults: Faults(config.fault_point),
    };
    let (run, exit) = boot::boot(settings).await?;
    if follow {
        run.follow(shutdown()).await;
    }
    Ok(exit)
}

/// All ways to a handle as one transport, and the gateway also by itself, if there is one.
type Transports = (Arc<dyn Transport>, Option<Arc<Gateway>>);

fn transports(config: &Config) -> Result<Transports, AgentError> {
    let direct: Arc<dyn Transport> = Arc::new(Direct::default());
    let Some(address) = config.metadata_address else {
        return Ok((direct, None));
    };
    let key = match config.instance_key {
        true => Some(state::instance_key(&config.state_dir).map_err(AgentError::State)?),
        false => None,
    };
    let gateway = Arc::new(Gateway::new(address, key));
    Ok((Arc::new(Ladder::new(direct, gateway.clone())), Some(gateway)))
}

/// Prints what the engine would be asked: it is the user's own document on the user's own terminal.
fn plan(file: &Path) -> Result<Exit, AgentError> {
    let Some(document) = load(file)? else {
        return Ok(Exit::Usage);
    };
    let json = Plan::new(&document).to_json();
    print(&serde_json::to_string_pretty(&json).unwrap_or_default());
    Ok(Exit::Success)
}

fn validate(file: &Path) -> Result<Exit, AgentError> {
    let Some(document) = load(file)? else {
        return Ok(Exit::Usage);
    };
    for warning in &document.warnings {
        complain(&format!("{}: warning: {warning}", file.display()));
    }
    print(&format!("{}: the document is good", file.display()));
    Ok(Exit::Success)
}

/// None: the file is not a document, and that was said.
fn load(file: &Path) -> Result<Option<Document>, AgentError> {
    match userdata::load(&read(file)?) {
        Ok(document) => Ok(Some(document)),
        Err(error) => {
            complain(&format!("{}: {} ({})", file.display(), chain(&error), error.code()));
            Ok(None)
        }
    }
}

pub(crate) fn read(file: &Path) -> Result<Vec<u8>, AgentError> {
    let failed = |source| AgentError::ReadFile { path: file.display().to_string(), source };
    let content = durable::read(file, MAX_DOCUMENT_FILE_BYTES).map_err(failed)?;
    content.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
}

fn configure(flags: Flags) -> Result<Config, AgentError> {
    let config = Config::load(flags).map_err(AgentError::Config)?;
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|source| AgentError::Config(ConfigError::Log { source: source.into() }))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .finish();
    // A test that runs two commands has one already.
    drop(tracing::subscriber::set_global_default(subscriber));
    Ok(config)
}

/// When the process is asked to stop. Containers keep running.
async fn shutdown() {
    let (terminate, interrupt) =
        (unix_signal(SignalKind::terminate()), unix_signal(SignalKind::interrupt()));
    tokio::select! {
        () = terminate => {}
        () = interrupt => {}
    }
}

async fn unix_signal(kind: SignalKind) {
    match tokio::signal::unix::signal(kind) {
        Ok(mut stream) => drop(stream.recv().await),
        // Without a handler the signal ends the process, which is what it asks for.
        Err(_) => std::future::pending().await,
    }
}

/// Writes a result to standard output. A reader that has gone away has had enough.
pub(crate) fn print(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn complain(line: &str) {
    drop(writeln!(std::io::stderr(), "heliograph-agent: {line}"));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_command_lines_are_understood() {
        let check = |line: &str, expect: bool| {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), expect, "{line}");
        };
        check(
            "heliograph-agent run --user-data F --state-dir D --console C --engine unix:///e --instance-id i",
            true,
        );
        check("heliograph-agent run --follow", true);
        check("heliograph-agent plan F", true);
        check("heliograph-agent validate F", true);
        check("heliograph-agent status --wait --json --state-dir D", true);
        check("heliograph-agent signal --status FAILURE --reason r --id i --data {}", true);
        check("heliograph-agent signal --status MAYBE", false);
        check("heliograph-agent version", true);
        check("heliograph-agent fault-points", true);
        check("heliograph-agent run --fault-point after_create", true);
        check("heliograph-agent plan", false);
        check("heliograph-agent", false);
    }
}
