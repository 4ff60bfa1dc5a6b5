//! The engine: what runs containers on this instance.
//!
//! `plan` decides, `engine` acts: nothing below chooses what to run or when to give up. An
//! [`Engine`] does one thing per call and says what happened; patience, order and ownership are
//! the flow's.

pub mod docker;
pub mod export;
mod http;
pub mod logs;
pub mod objects;
pub mod pull;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde_json::Value;

use crate::engine::export::Export;
use crate::engine::logs::{LogLine, LogRange, LogStart};
use crate::engine::objects::{ObjectKind, Objects};
use crate::engine::pull::{PullProblem, PullProgress};
use crate::error::BoxError;
use crate::plan::ImageReference;

/// A container engine.
///
/// Every call may be repeated after a failure: `start`, `stop` and `remove` of a container that is
/// already started, stopped or removed succeed; `create` of a name that exists fails with
/// [`EngineError::NameTaken`] and changes nothing. No call is atomic with another: between any two
/// of them somebody else may have changed the container, and the engine may have restarted.
/// Dropping a call's future abandons the answer, not the work. [`EngineError::is_retriable`] says
/// whether the same call can succeed later without anybody's help.
#[async_trait]
pub trait Engine: Objects + Export + Send + Sync + fmt::Debug {
    /// Asks who is there, and settles the version of the API for the calls after it.
    async fn ping(&self) -> Result<EngineVersion, EngineError>;

    /// The local image of that name; None if it would have to be pulled.
    async fn image(&self, reference: &ImageReference) -> Result<Option<Image>, EngineError>;

    /// Pulls the image. `progress` is called for every report of the engine, many times a second.
    async fn pull(
        &self,
        request: &PullRequest<'_>,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<(), EngineError>;

    /// Loads the images of an archive, which is read while the engine takes it. Loading what is
    /// there already changes nothing.
    async fn load(&self, archive: ImageArchive) -> Result<(), EngineError>;

    /// Gives a local image, by its id or another name, one more name.
    async fn tag(&self, image: &str, name: &ImageReference) -> Result<(), EngineError>;

    /// Creates a container and answers its id. It is durable, and it does not run yet.
    async fn create(&self, name: &str, body: &Value) -> Result<String, EngineError>;

    async fn start(&self, container: &str) -> Result<(), EngineError>;

    /// The container of that id or name; None if there is none.
    async fn inspect(&self, container: &str) -> Result<Option<Inspection>, EngineError>;

    /// All containers, running or not, that carry the label.
    async fn list(&self, label: &str) -> Result<Vec<ListedContainer>, EngineError>;

    /// Asks the container to stop, and kills it after the grace time that it was created with.
    async fn stop(&self, container: &str) -> Result<(), EngineError>;

    /// Removes the container and its anonymous volumes, running or not.
    async fn remove(&self, container: &str) -> Result<(), EngineError>;

    /// A bounded part of what the container has written so far, standard output and error mixed.
    async fn logs(&self, container: &str, range: LogRange) -> Result<String, EngineError>;

    /// Calls `on_line` for each line that the container writes, until the engine ends the stream:
    /// when the container stops, or for any reason of its own.
    async fn follow(
        &self,
        container: &str,
        start: LogStart,
        on_line: &mut (dyn for<'l> FnMut(LogLine<'l>) + Send),
    ) -> Result<(), EngineError>;

    /// Calls `on_line` for each line that the container has written so far.
    async fn read_lines(
        &self,
        container: &str,
        start: LogStart,
        on_line: &mut (dyn for<'l> FnMut(LogLine<'l>) + Send),
    ) -> Result<(), EngineError>;
}

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineVersion {
    /// Product and version, as the engine's `Server` header has them: `Docker/20.10.24 (linux)`.
    pub server: String,
    /// The version of the API that both sides speak, such as `1.41`.
    pub api: String,
}

/// An image to pull.
#[derive(Clone, Copy, Debug)]
pub struct PullRequest<'a> {
    pub reference: &'a ImageReference,
    /// `os/architecture[/variant]`; None: the engine's own.
    pub platform: Option<&'a str>,
    pub credentials: Option<&'a Credentials>,
}

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// An archive of images as `docker save` makes it, piece by piece.
pub type ImageArchive = BoxStream<'static, io::Result<Vec<u8>>>;

/// A local image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// The registry's digest, or the image's own id if it never came from a registry.
    pub digest: String,
}

/// One row of the list of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedContainer {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

/// What the engine knows about one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub has_tty: bool,
    /// The memory limit in bytes; 0 means none.
    pub memory_limit: i64,
    /// The engine starts it again after some ends at least.
    pub has_restart_policy: bool,
    pub restart_count: i64,
    pub state: ContainerState,
    /// The engine's whole answer, for the outputs. It holds environment values.
    pub raw: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    pub status: ContainerStatus,
    pub exit_code: i64,
    pub oom_killed: bool,
    /// The engine's own words on why it could not start the container.
    pub error: String,
    /// When the main process was started last; None if never.
    pub started_at: Option<String>,
    /// None: the container has no health check.
    pub health: Option<Health>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerStatus {
    Created,
    Running,
    Paused,
    /// Waits to be started again by the engine, after an exit.
    Restarting,
    /// Podman only: the process has ended and the engine has not yet decided what follows.
    Stopped,
    Exited,
    /// Cannot be started any more, only removed.
    Dead,
    Removing,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub status: HealthStatus,
    /// What the last check wrote.
    pub last_output: Option<String>,
    pub last_exit_code: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// What was asked of the engine, in the words of a reason: "failed to {operation}".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Ping,
    InspectImage,
    Pull,
    Load,
    Tag,
    Create,
    Start,
    Inspect,
    List,
    Stop,
    Remove,
    ReadLogs,
    InspectNetwork,
    CreateNetwork,
    Connect,
    RemoveNetwork,
    InspectVolume,
    CreateVolume,
    RemoveVolume,
    Commit,
    Push,
    Save,
    RemoveImage,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Ping => "ask the engine's version",
            Operation::InspectImage => "look up the image",
            Operation::Pull => "pull the image",
            Operation::Load => "load the image",
            Operation::Tag => "name the image",
            Operation::Create => "create the container",
            Operation::Start => "start the container",
            Operation::Inspect => "inspect the container",
            Operation::List => "list the containers",
            Operation::Stop => "stop the container",
            Operation::Remove => "remove the container",
            Operation::ReadLogs => "read the container's log",
            Operation::InspectNetwork => "look up networks",
            Operation::CreateNetwork => "create the network",
            Operation::Connect => "connect the container to a network",
            Operation::RemoveNetwork => "remove the network",
            Operation::InspectVolume => "look up volumes",
            Operation::CreateVolume => "create the volume",
            Operation::RemoveVolume => "remove the volume",
            Operation::Commit => "make an image of the container",
            Operation::Push => "push the image",
            Operation::Save => "save the image",
            Operation::RemoveImage => "remove the image",
        })
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("engine did not answer at {address}")]
    Unreachable { address: String, source: BoxError },
    #[error("{operation}: connection to the engine broke")]
    Broken { operation: Operation, source: BoxError },
    /// The engine answered, and said no. `message` is the engine's, cleaned and bounded.
    #[error("{operation}: engine answered {status}: {message}")]
    Refused { operation: Operation, status: u16, message: String },
    #[error("{operation}: engine's answer cannot be read")]
    Unreadable { operation: Operation, source: BoxError },
    #[error("container name is taken by a container that is not ours")]
    NameTaken { name: String },
    #[error("name is taken by a {kind} that is not ours")]
    ObjectNameTaken { kind: ObjectKind, name: String },
    #[error("external {kind} does not exist")]
    ObjectMissing { kind: ObjectKind, name: String },
    #[error("image {image} was not pulled: {problem}: {message}")]
    Pull { image: String, problem: PullProblem, message: String },
    #[error("engine speaks the API up to {newest}, {required} is needed")]
    TooOld { newest: String, required: &'static str },
}

impl EngineError {
    /// Stable: scripts and tests compare it.
    pub fn code(&self) -> &'static str {
        match self {
            EngineError::Unreachable { .. } => "engine_unreachable",
            EngineError::Broken { .. } => "engine_connection_broken",
            EngineError::Refused { operation: Operation::Create, .. } => "container_create_refused",
            EngineError::Refused { operation: Operation::Start, .. } => {
                match self.start_exit_code() {
                    Some(127) => "command_not_found",
                    Some(_) => "command_not_executable",
                    None => "container_start_refused",
                }
            }
            EngineError::Refused { .. } => "engine_refused",
            EngineError::Unreadable { .. } => "engine_answer_unreadable",
            EngineError::NameTaken { .. } => "container_name_taken",
            EngineError::ObjectNameTaken { kind: ObjectKind::Network, .. } => "network_name_taken",
            EngineError::ObjectNameTaken { kind: ObjectKind::Volume, .. } => "volume_name_taken",
            EngineError::ObjectMissing { kind: ObjectKind::Network, .. } => "network_missing",
            EngineError::ObjectMissing { kind: ObjectKind::Volume, .. } => "volume_missing",
            EngineError::Pull { problem, .. } => problem.code(),
            EngineError::TooOld { .. } => "engine_too_old",
        }
    }

    /// True if the same call can succeed later without anybody's help.
    pub fn is_retriable(&self) -> bool {
        match self {
            EngineError::Unreachable { .. } | EngineError::Broken { .. } => true,
            EngineError::Pull { problem, .. } => problem.is_retriable(),
            EngineError::Refused { .. }
            | EngineError::Unreadable { .. }
            | EngineError::NameTaken { .. }
            | EngineError::ObjectNameTaken { .. }
            | EngineError::ObjectMissing { .. }
            | EngineError::TooOld { .. } => false,
        }
    }

    /// Whether the engine cannot load the AppArmor profile that it gives every container.
    pub fn lacks_apparmor(&self) -> bool {
        matches!(self, EngineError::Refused { message, .. } if message.contains("apparmor_parser"))
    }

    /// The exit code that a shell would give for a command that could not be started. Podman
    /// leaves it out of the container's state, so the engine's words decide.
    pub fn start_exit_code(&self) -> Option<i64> {
        let EngineError::Refused { operation: Operation::Start, message, .. } = self else {
            return None;
        };
        let not_found = message.contains("executable file not found") && !self.lacks_apparmor()
            || message.contains("no such file or directory") && message.contains("exec");
        if not_found {
            return Some(127);
        }
        (message.contains("permission denied") && message.contains("exec")).then_some(126)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_start_is_told_from_other_refusals() {
        let check = |message: &str, expect: (&str, Option<i64>)| {
            let error = EngineError::Refused {
                operation: Operation::Start,
                status: 400,
                message: message.to_owned(),
            };
            assert_eq!((error.code(), error.start_exit_code()), expect, "{message}");
        };
        // As Docker 20.10 and Podman 4.3 say it.
        check(
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to \
             start container process: exec: \"nosuchcmd\": executable file not found in $PATH: unknown",
            ("command_not_found", Some(127)),
        );
        check(
            "runc: runc create failed: unable to start container process: exec: \"/nope\": stat \
             /nope: no such file or directory: OCI runtime attempted to invoke a command that was \
             not found",
            ("command_not_found", Some(127)),
        );
        check(
            "unable to start container process: exec: \"/etc/passwd\": permission denied: unknown",
            ("command_not_executable", Some(126)),
        );
        check(
            "AppArmor enabled on system but the docker-default profile could not be loaded: running \
             […] error: exec: \"apparmor_parser\": executable file not found in $PATH",
            ("container_start_refused", None),
        );
        check(
            "cannot listen on the TCP port: listen tcp4 :80: bind: address already in use",
            ("container_start_refused", None),
        );
    }
}
