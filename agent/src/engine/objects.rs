//! Networks and volumes: what the containers of one document share.
//!
//! Both have names and labels, and outlive the containers that use them. A volume holds data, so
//! nothing here is done by force: an engine refuses to remove what a container still uses.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use crate::engine::EngineError;

/// An engine's networks and volumes.
///
/// Every call may be repeated after a failure: removing what is not there succeeds, creating a
/// volume that exists changes nothing. Creating a network that exists is refused.
#[async_trait]
pub trait Objects: Send + Sync {
    /// The network of that name or id; None if there is none.
    async fn network(&self, name: &str) -> Result<Option<SharedObject>, EngineError>;

    /// All networks that carry the label.
    async fn networks(&self, label: &str) -> Result<Vec<SharedObject>, EngineError>;

    async fn create_network(&self, body: &Value) -> Result<(), EngineError>;

    /// Gives the container an endpoint in one more network. It need not run.
    async fn connect(
        &self,
        network: &str,
        container: &str,
        endpoint: &Value,
    ) -> Result<(), EngineError>;

    async fn remove_network(&self, name: &str) -> Result<(), EngineError>;

    /// The volume of that name; None if there is none.
    async fn volume(&self, name: &str) -> Result<Option<SharedObject>, EngineError>;

    /// All volumes that carry the label.
    async fn volumes(&self, label: &str) -> Result<Vec<SharedObject>, EngineError>;

    async fn create_volume(&self, body: &Value) -> Result<(), EngineError>;

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError>;
}

/// A network or a volume, as far as the flow cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedObject {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

/// Which of the two an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Network,
    Volume,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Network => "network",
            ObjectKind::Volume => "volume",
        })
    }
}
