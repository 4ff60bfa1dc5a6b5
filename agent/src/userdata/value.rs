//! The typed value of one key, after it has been checked and before the engine's JSON.
//!
//! Serialized, the values are the canonical form of a service, which is what the document hash is
//! taken over: two spellings of the same thing are one value here.

use std::time::Duration;

use serde::Serialize;

use crate::userdata::document::PullPolicy;
use crate::userdata::ports::PortMapping;
use crate::userdata::volumes::Mount;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    /// A size, in bytes.
    Bytes(u64),
    /// Processors, in billionths of one.
    NanoCpus(u64),
    /// A command in exec form.
    Words(Vec<String>),
    /// `environment` and `labels`, in the order of the document.
    Assignments(Vec<(String, String)>),
    Ports(Vec<PortMapping>),
    Mounts(Vec<Mount>),
    Restart(RestartPolicy),
    Healthcheck(Healthcheck),
    Pull(PullPolicy),
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
