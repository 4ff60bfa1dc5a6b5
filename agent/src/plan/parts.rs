//! The parts of a plan beside its containers: what has to be there before one can start.

use std::path::PathBuf;

use serde_json::Value as Json;

use crate::userdata::access::{Condition, DeviceSelector, FileContent};

/// A network to make before any container.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkPlan {
    /// The engine's name for it.
    pub name: String,
    /// Somebody else makes it; it only has to be there.
    pub external: bool,
    /// The body of `POST /networks/create`.
    pub create: Json,
}

/// A named volume that has options of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumePlan {
    pub name: String,
    /// Somebody else makes it; it only has to be there.
    pub external: bool,
    /// The body of `POST /volumes/create`.
    pub create: Json,
}

/// A block device to mount before the containers start and to unmount after they stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    /// The volume of the document that it stands for.
    pub volume: String,
    pub selector: DeviceSelector,
    /// What an empty device is formatted with; none means ext4.
    pub filesystem: Option<String>,
    pub read_only: bool,
    pub mount_point: PathBuf,
}

/// A file that the agent writes and a container sees: a secret, a config or a `files` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlan {
    pub path: PathBuf,
    pub content: FileContent,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A further network of a container; the engine takes only one when a container is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    pub network: String,
    /// The `EndpointConfig` of `POST /networks/{id}/connect`.
    pub endpoint: Json,
}

/// What has to be true of another service before a container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    pub service: String,
    pub condition: Condition,
    /// Whether its failure keeps the container from starting.
    pub required: bool,
}
