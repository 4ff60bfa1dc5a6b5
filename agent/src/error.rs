//! How a failure is told: to programs by a code and an exit code, to people by a reason.
//!
//! Modules have their own errors; only this file maps them. A reason goes into a signal and onto
//! the console, where strangers read it: it names the step and what to do, and carries no user
//! data, environment value, token or URL query. The log gets the whole chain.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use crate::boot::files::FileError;
use crate::boot::step::Step;
use crate::boot::watch::WatchFailure;
use crate::cli::snapshot::SnapshotError;
use crate::config::ConfigError;
use crate::device::DeviceError;
use crate::engine::pull::PullProblem;
use crate::engine::{EngineError, Operation};
use crate::guard::GuardError;
use crate::image::ImageError;
use crate::signal::outbox::OutboxError;
use crate::signal::{HandleError, SendError};
use crate::state::StateError;
use crate::userdata::UserDataError;

/// How many of the services that were not started a reason names: a handful tells the pattern.
const MAX_NAMED_SERVICES: usize = 8;

/// A cause from a library, kept for the log.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What the process's exit code says. The numbers are an interface; see docs/agent.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The outcome is a success, or there was nothing to do.
    Success = 0,
    /// The container or the document failed.
    Failure = 1,
    /// The command line, the configuration, or a document that was only to be checked.
    Usage = 2,
    /// The engine did not answer, or not so that it could be understood.
    Engine = 3,
    /// The signal was not acknowledged; it is in the outbox if it can still be.
    Undelivered = 4,
    /// No user data was found, or it could not be read.
    NoUserData = 5,
    /// The state directory could not be used.
    State = 6,
    /// `status`: the run is not over.
    Pending = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Everything that can end a run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("configuration cannot be used")]
    Config(#[source] ConfigError),
    #[error("read {path}")]
    ReadFile { path: String, source: std::io::Error },
    #[error("state directory cannot be used")]
    State(#[source] StateError),
    #[error("outbox cannot be used")]
    Outbox(#[source] OutboxError),
    #[error("no datasource has this instance's user data: {reports}")]
    NoDatasource { reports: String },
    /// There is user data, and it is not for this agent; that is no failure.
    #[error("nothing to do: {why}")]
    NothingToDo { why: String },
    #[error("user data is not a document")]
    UserData(#[source] UserDataError),
    #[error("handle cannot be used")]
    Handle(#[source] HandleError),
    #[error("engine failed in step {step}")]
    Engine { step: Step, source: EngineError },
    #[error("container failed")]
    Container(#[source] WatchFailure),
    /// In a document of several services: which one, and which were not started because of it.
    #[error("service {service} failed")]
    Service { service: String, not_started: Vec<String>, source: Box<AgentError> },
    #[error("no container of a service {service} is here")]
    NoSuchService { service: String },
    #[error("container cannot be saved")]
    Snapshot(#[source] SnapshotError),
    #[error("image was not provided")]
    Image(#[source] ImageError),
    #[error("block device cannot be used")]
    Device(#[source] DeviceError),
    #[error("containers are not kept from the metadata service")]
    Guard(#[source] GuardError),
    #[error("file for a container cannot be provided")]
    File(#[source] FileError),
    #[error("step {step} was not done after {}", seconds(*after))]
    Deadline { step: Step, after: Duration, last_trouble: Option<String> },
    #[error("signal was not acknowledged")]
    Undelivered(#[source] SendError),
}

impl AgentError {
    /// Stable: scripts and tests compare it, and a FAILURE signal's data carries it.
    pub fn code(&self) -> &'static str {
        match self {
            AgentError::Config(_) => "config_unusable",
            AgentError::ReadFile { .. } => "file_unreadable",
            AgentError::State(_) => "state_unusable",
            AgentError::Outbox(_) => "outbox_unusable",
            AgentError::NoDatasource { .. } => "no_datasource",
            AgentError::NothingToDo { .. } => "nothing_to_do",
            AgentError::UserData(error) => error.code(),
            AgentError::Handle(error) => error.code(),
            AgentError::Engine { source, .. } => source.code(),
            AgentError::Container(failure) => failure.code(),
            AgentError::Service { source, .. } => source.code(),
            AgentError::File(_) => "file_not_provided",
            AgentError::Device(error) => error.code(),
            AgentError::Guard(_) => "guard_not_raised",
            AgentError::Image(error) => error.code(),
            AgentError::NoSuchService { .. } => "no_such_service",
            AgentError::Snapshot(_) => "snapshot_failed",
            AgentError::Deadline { .. } => "deadline_passed",
            AgentError::Undelivered(error) => error.code(),
        }
    }

    pub fn exit(&self) -> Exit {
        match self {
            AgentError::NothingToDo { .. } => Exit::Success,
            AgentError::UserData(_)
            | AgentError::Container(_)
            | AgentError::Image(_)
            | AgentError::Deadline { .. } => Exit::Failure,
            AgentError::Service { source, .. } => source.exit(),
            AgentError::Device(_) | AgentError::Guard(_) => Exit::Failure,
            AgentError::Config(_)
            | AgentError::ReadFile { .. }
            | AgentError::Snapshot(_)
            | AgentError::NoSuchService { .. } => Exit::Usage,
            AgentError::Engine { source, .. } => match source {
                EngineError::Unreachable { .. }
                | EngineError::Broken { .. }
                | EngineError::Unreadable { .. }
                | EngineError::TooOld { .. } => Exit::Engine,
                EngineError::Refused { .. }
                | EngineError::NameTaken { .. }
                | EngineError::ObjectNameTaken { .. }
                | EngineError::ObjectMissing { .. }
                | EngineError::Pull { .. } => Exit::Failure,
            },
            AgentError::Handle(_) | AgentError::Undelivered(_) => Exit::Undelivered,
            AgentError::NoDatasource { .. } => Exit::NoUserData,
            AgentError::State(_) | AgentError::Outbox(_) | AgentError::File(_) => Exit::State,
        }
    }

    /// What became of the container that failed, if one did.
    pub fn watch_failure(&self) -> Option<&WatchFailure> {
        match self {
            AgentError::Container(failure) => Some(failure),
            AgentError::Service { source, .. } => source.watch_failure(),
            _ => None,
        }
    }

    /// One line that tells a person which step failed, why, and what to do.
    pub fn reason(&self) -> String {
        match self {
            AgentError::UserData(error) => format!("document: {}", chain(error)),
            AgentError::Engine { step, source } => format!("{step}: {}", engine_reason(source)),
            AgentError::Container(failure) => format!("watch: {}", failure.reason()),
            AgentError::Service { service, not_started, source } => {
                format!("service {service}: {}{}", source.reason(), without(not_started))
            }
            AgentError::File(error) => format!("create: {}", chain(error)),
            AgentError::Device(error) => format!("create: {}", chain(error)),
            AgentError::Snapshot(error) => chain(error),
            AgentError::Deadline { step, after, last_trouble } => {
                let trouble =
                    last_trouble.as_deref().map_or(String::new(), |last| format!(": {last}"));
                format!(
                    "{step}: not done after {}{trouble}; raise signal.timeout if it only needs more time",
                    seconds(*after)
                )
            }
            AgentError::NothingToDo { .. }
            | AgentError::NoDatasource { .. }
            | AgentError::NoSuchService { .. } => self.to_string(),
            AgentError::Image(error) => format!("pull: {}", error.reason()),
            AgentError::Handle(error) => format!("signal: {error}"),
            AgentError::Undelivered(error) => format!("signal: {}", chain(error)),
            AgentError::Config(error) => chain(error),
            AgentError::State(error) => chain(error),
            AgentError::Outbox(error) => chain(error),
            AgentError::Guard(_) | AgentError::ReadFile { .. } => chain(self),
        }
    }
}

/// The services that were not started. A reason has room for some names.
fn without(not_started: &[String]) -> String {
    if not_started.is_empty() {
        return String::new();
    }
    let named = not_started.iter().take(MAX_NAMED_SERVICES).map(String::as_str);
    let named = named.collect::<Vec<_>>().join(", ");
    let n_more = not_started.len().saturating_sub(MAX_NAMED_SERVICES);
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    format!("; not started because of it: {named}{more}")
}

fn engine_reason(error: &EngineError) -> String {
    match error {
        EngineError::Unreachable { address, source } => format!(
            "engine did not answer at {address} ({}); check that Docker or Podman is installed and starts",
            innermost(source.as_ref())
        ),
        EngineError::Pull { image, problem: problem @ PullProblem::NotLocal, .. } => {
            format!("{problem}, and pull_policy is never: {image}; {}", problem.advice())
        }
        EngineError::Pull { image, problem, message } => {
            format!("{problem}: {image}; {} (engine: {message})", problem.advice())
        }
        EngineError::NameTaken { name } => format!(
            "the name {name} is taken by a container that the agent did not make; choose another container_name or remove that container"
        ),
        EngineError::ObjectNameTaken { kind, name } => format!(
            "the name {name} is taken by a {kind} that the agent did not make; choose another name, remove that {kind}, or declare it `external: true`"
        ),
        EngineError::ObjectMissing { kind, name } => format!(
            "the {kind} {name} is declared external and does not exist; make it before, or leave `external` out"
        ),
        EngineError::Refused { message, .. } if error.lacks_apparmor() => format!(
            "engine cannot load its AppArmor profile; install the package apparmor where the engine runs (engine: {message})"
        ),
        EngineError::Refused { operation: Operation::Start, message, .. } => {
            match error.start_exit_code() {
                Some(127) => format!(
                    "command not found (exit code 127); check cmd, command and entrypoint against what the image holds (engine: {message})"
                ),
                Some(code) => format!(
                    "command is not executable (exit code {code}); check cmd, command and entrypoint (engine: {message})"
                ),
                None => format!("engine cannot start the container: {message}"),
            }
        }
        EngineError::Refused { operation, status, message } => {
            format!("engine refuses to {operation} (status {status}): {message}")
        }
        EngineError::TooOld { newest, required } => {
            format!("engine speaks API {newest}, and at least {required} is needed; update it")
        }
        EngineError::Broken { .. } | EngineError::Unreadable { .. } => chain(error),
    }
}

/// The error and all its sources on one line: the one adapter for logs.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    line
}

/// The cause at the bottom, which for a connection is the operating system's.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A duration for people.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_the_step_and_what_to_do() {
        let check = |source: EngineError, step: Step, expect: &str, exit: Exit| {
            let error = AgentError::Engine { step, source };
            assert_eq!(error.reason(), expect);
            assert_eq!(error.exit(), exit, "{expect}");
        };
        let refused = std::io::Error::from_raw_os_error(111);
        check(
            EngineError::Unreachable { address: "unix:///e".to_owned(), source: refused.into() },
            Step::Engine,
            "engine: engine did not answer at unix:///e (Connection refused (os error 111)); check that Docker or Podman is installed and starts",
            Exit::Engine,
        );
        check(
            EngineError::Pull {
                image: "r.example/a:1".to_owned(),
                problem: PullProblem::NotFound,
                message: "manifest unknown".to_owned(),
            },
            Step::Pull,
            "pull: image not found: r.example/a:1; check the image's name and tag (engine: manifest unknown)",
            Exit::Failure,
        );
        check(
            EngineError::NameTaken { name: "web".to_owned() },
            Step::Create,
            "create: the name web is taken by a container that the agent did not make; choose another container_name or remove that container",
            Exit::Failure,
        );
    }

    #[test]
    fn a_service_that_fails_is_named_with_what_was_not_started() {
        let check = |not_started: &[&str], expect: &str| {
            let failure =
                WatchFailure::Exited { exit_code: 3, is_job: true, has_memory_limit: false };
            let error = AgentError::Service {
                service: "db".to_owned(),
                not_started: not_started.iter().map(|name| (*name).to_owned()).collect(),
                source: AgentError::Container(failure).into(),
            };
            assert_eq!(error.reason(), expect);
            assert_eq!((error.code(), error.exit()), ("container_exited", Exit::Failure));
        };
        check(&[], "service db: watch: job ended with exit code 3");
        check(
            &["web", "jobs"],
            "service db: watch: job ended with exit code 3; not started because of it: web, jobs",
        );
        check(
            &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"],
            "service db: watch: job ended with exit code 3; not started because of it: a, b, c, d, e, f, g, h and 2 more",
        );
    }

    #[test]
    fn a_chain_has_every_cause_once() {
        let error = AgentError::ReadFile {
            path: "/x".to_owned(),
            source: std::io::Error::from_raw_os_error(2),
        };
        assert_eq!(chain(&error), "read /x: No such file or directory (os error 2)");
    }
}
