//! The commands.

mod analyze;
mod convert;
mod doctor;
mod generate;
mod guard;
mod logs;
mod run;
mod schema;
mod signal;
pub mod snapshot;
mod status;
mod stop;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

use crate::boot::fault::FaultPoint;
use crate::cli::logs::LogsArguments;
use crate::cli::signal::SignalArguments;
use crate::cli::snapshot::SnapshotArguments;
use crate::config::{Config, ConfigError, DEFAULT_STATE_DIRECTORY, Flags};
use crate::durable;
use crate::error::{AgentError, Exit, chain};
use crate::plan::Plan;
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
        /// Where the service manager wants to be told that the success is acknowledged
        #[arg(long, hide = true, env = "NOTIFY_SOCKET")]
        notify_socket: Option<String>,
    },
    /// Print what would be asked of the engine, as JSON, without asking anything
    Plan {
        file: PathBuf,
        /// Hide the values of environment variables
        #[arg(long)]
        redact: bool,
    },
    /// Write a document of another program as a `#docker` document
    Convert { from: convert::From, file: PathBuf },
    /// Print the JSON Schema of documents
    Schema,
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
    /// Print what the containers have written
    Logs {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        arguments: LogsArguments,
    },
    /// Save a container as an image: to a registry, or to a file that `docker load` takes
    Snapshot {
        #[command(flatten)]
        flags: Flags,
        #[command(flatten)]
        arguments: SnapshotArguments,
    },
    /// Stop the containers in the reverse order of their start; the next run starts them again
    Stop {
        #[command(flatten)]
        flags: Flags,
    },
    /// Remove the containers, networks and files that the agent made; volumes are kept
    Terminate {
        #[command(flatten)]
        flags: Flags,
        /// Remove the volumes that the agent made, too, with the data in them
        #[arg(long)]
        volumes: bool,
    },
    /// Keep containers from the metadata service again, if a run did so before the machine was restarted
    Guard {
        #[command(flatten)]
        flags: Flags,
    },
    /// Ask every hop from user data to the handle whether it works; exit code 1 if one is broken
    Doctor {
        #[command(flatten)]
        flags: Flags,
        #[arg(long)]
        json: bool,
    },
    /// Print where the time of the last run went
    Analyze {
        #[command(flatten)]
        flags: Flags,
        #[arg(long)]
        json: bool,
    },
    /// Print a shell's completions for this program
    Completions { shell: Shell },
    /// Write man pages into a directory
    Man { directory: PathBuf },
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
        Command::Run { flags, follow, notify_socket } => {
            run::run(&configure(flags)?, follow, notify_socket.as_deref()).await
        }
        Command::Plan { file, redact } => plan(&file, redact),
        Command::Convert { from, file } => convert::convert(from, &file),
        Command::Schema => Ok(schema::schema()),
        Command::Validate { file } => validate(&file),
        Command::Status { flags, wait, json } => {
            status::status(&configure(flags)?.state_dir, wait, json).await
        }
        Command::Logs { flags, arguments } => logs::logs(&configure(flags)?, &arguments).await,
        Command::Snapshot { flags, arguments } => {
            snapshot::snapshot(&configure(flags)?, &arguments).await
        }
        Command::Stop { flags } => stop::stop(&configure(flags)?).await,
        Command::Terminate { flags, volumes } => stop::terminate(&configure(flags)?, volumes).await,
        Command::Signal { flags, arguments } => {
            signal::send_by_hand(&configure(flags)?, arguments).await
        }
        Command::Guard { flags } => guard::guard(&configure(flags)?).await,
        Command::Doctor { flags, json } => doctor::doctor(&configure(flags)?, json).await,
        Command::Analyze { flags, json } => analyze::analyze(&configure(flags)?.state_dir, json),
        Command::Completions { shell } => Ok(generate::completions(shell)),
        Command::Man { directory } => generate::man_pages(&directory),
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

/// Prints what the engine would be asked: it is the user's own document on the user's own terminal.
fn plan(file: &Path, redact: bool) -> Result<Exit, AgentError> {
    let Some(document) = load(file)? else {
        return Ok(Exit::Usage);
    };
    let plan = Plan::new(&document, Path::new(DEFAULT_STATE_DIRECTORY));
    let json = if redact { plan.to_redacted_json() } else { plan.to_json() };
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

/// Writes a result to standard output. A reader that has gone away has had enough.
pub(crate) fn print(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

pub(crate) fn complain(line: &str) {
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
        check("heliograph-agent logs web --follow --tail 10", true);
        check("heliograph-agent snapshot web --to registry r.example/web:1", true);
        check("heliograph-agent snapshot web --to file /tmp/web.tar", true);
        check("heliograph-agent snapshot web --to glance web --auth-url u --token-file t", true);
        let credential = "--auth-url u --application-credential-id i";
        let to_glance = format!("heliograph-agent snapshot web --to glance web {credential}");
        check(&format!("{to_glance} --secret-file s"), true);
        check(&to_glance, false);
        check("heliograph-agent snapshot web", false);
        check("heliograph-agent stop --engine unix:///e", true);
        check("heliograph-agent terminate --volumes", true);
        check("heliograph-agent guard --state-dir D --metadata-guard true", true);
        check("heliograph-agent run --follow --watch-metadata 5", true);
        check("heliograph-agent version", true);
        check("heliograph-agent fault-points", true);
        check("heliograph-agent run --fault-point after_create", true);
        check("heliograph-agent plan", false);
        check("heliograph-agent", false);
    }
}
