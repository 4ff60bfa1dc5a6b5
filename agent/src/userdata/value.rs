//! The typed value of one key, after it has been checked and before the engine's JSON.
//!
//! Serialized, the values are the canonical form of a service, which is what the document hash is
//! taken over: two spellings of the same thing are one value here.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;

use crate::userdata::access::{Condition, ImageSource};
use crate::userdata::document::PullPolicy;
use crate::userdata::ports::PortMapping;
use crate::userdata::volumes::Mount;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Value {
    /// What needs no more than its check is in the engine's own form already.
    Json(Json),
    /// The same for several fields of the create body.
    Fields(Vec<(&'static str, Json)>),
    Text(String),
    /// A command in exec form.
    Words(Vec<String>),
    /// `environment`, `labels` and `env_file`, in the order of the document.
    Assignments(Vec<(String, String)>),
    Count(u32),
    Duration(Duration),
    Codes(Vec<i64>),
    Ports(Vec<PortMapping>),
    Mounts(Vec<Mount>),
    Restart(RestartPolicy),
    Healthcheck(Healthcheck),
    Pull(PullPolicy),
    Peer(Peer),
    Links(Vec<Link>),
    VolumesFrom(Vec<VolumesFrom>),
    Networks(Vec<ServiceNetwork>),
    DependsOn(Vec<DependsOn>),
    Grants(Vec<Grant>),
    Files(Vec<FileEntry>),
    Archive(ImageSource),
}

/// Whose namespace or network a container uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Peer {
    /// A word of the engine, such as `host`.
    Word(String),
    Service(String),
    Container(String),
}

/// Another container under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) alias: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VolumesFrom {
    pub(crate) source: Peer,
    pub(crate) read_only: bool,
}

/// A network that a service is in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ServiceNetwork {
    pub(crate) network: String,
    pub(crate) aliases: Vec<String>,
    /// The rest of the engine's `EndpointConfig`.
    pub(crate) endpoint: Json,
    pub(crate) priority: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DependsOn {
    pub(crate) service: String,
    pub(crate) condition: Condition,
    pub(crate) required: bool,
}

/// A secret or config of the document that a service sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Grant {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) access: FileAccess,
}

/// A file that the document brings for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileEntry {
    pub(crate) path: String,
    pub(crate) content: Vec<u8>,
    pub(crate) access: FileAccess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileAccess {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What the engine does when the container's process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestartPolicy {
    No,
    Always,
    UnlessStopped,
    /// At most this often; 0 is without end.
    OnFailure(u32),
}

/// How the engine finds out whether the container is healthy. None: as the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Healthcheck {
    /// As the Engine API wants it: `["CMD", …]`, `["CMD-SHELL", line]` or `["NONE"]`.
    pub(crate) test: Option<Vec<String>>,
    pub(crate) interval: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) start_period: Option<Duration>,
    pub(crate) retries: Option<u32>,
}

impl Healthcheck {
    pub(crate) fn is_disabled(&self) -> bool {
        self.test.as_ref().is_some_and(|test| test.first().is_some_and(|word| word == "NONE"))
    }
}
