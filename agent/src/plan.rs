//! The plan: what the engine will be asked to do, as a pure value.
//!
//! `plan` decides, `engine` acts. Nothing here reads a file, a clock or the environment, so the
//! same document gives the same plan everywhere, and `heliograph-agent plan FILE` shows on a
//! laptop what the instance will do.

mod create;

use std::fmt;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

// `engine` and `outputs` import this module and not `userdata`, so the plan's own vocabulary is
// complete here.
pub use crate::userdata::document::{OutputName, PullPolicy, When};
pub use crate::userdata::image::ImageReference;

use crate::userdata::document::{Document, Service, SignalTarget};
use crate::userdata::value::Value;

/// The first part of a container's name, as Compose has its project's name there.
const PROJECT: &str = "heliograph";

/// 64 bits: enough to tell one instance's documents apart, short enough for an id.
const HASH_HEX_DIGITS: usize = 16;

/// Everything that the engine needs to know about one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The first 16 hex digits of the SHA-256 of the canonical document.
    pub document_hash: String,
    pub containers: Vec<ContainerPlan>,
    pub watch: Watch,
    pub outputs: Vec<OutputName>,
}

/// One container to pull, create and start.
#[derive(Clone, PartialEq)]
pub struct ContainerPlan {
    pub service: String,
    /// The `name` parameter of `/containers/create`.
    pub name: String,
    pub image: ImageReference,
    pub pull: PullPolicy,
    /// The body of `POST /containers/create`, Engine API 1.41, with every label but the instance's.
    pub create: serde_json::Value,
}

/// The body holds environment values, which must not reach a log.
impl fmt::Debug for ContainerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerPlan")
            .field("service", &self.service)
            .field("name", &self.name)
            .field("image", &self.image)
            .field("pull", &self.pull)
            .finish_non_exhaustive()
    }
}

/// What success means for this document.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Resolved: `healthy` if the document has a health check, else `running`.
    pub when: When,
    pub stable_for: Duration,
    pub timeout: Duration,
    pub success_exit_codes: Vec<i64>,
}

impl Plan {
    pub fn new(document: &Document) -> Plan {
        let document_hash = hash(document);
        let watch = watch(document);
        let containers = document
            .services
            .iter()
            .map(|service| plan_container(service, watch.when, &document_hash))
            .collect();
        Plan { document_hash, containers, watch, outputs: document.outputs.clone() }
    }

    /// The plan as `heliograph-agent plan` prints it, environment values included: it is the
    /// user's own document on the user's own terminal. The handle is not in it.
    pub fn to_json(&self) -> serde_json::Value {
        let containers: Vec<_> = self
            .containers
            .iter()
            .map(|container| {
                json!({
                    "service": container.service,
                    "name": container.name,
                    "image": container.image.to_string(),
                    "pull": container.pull,
                    "create": container.create,
                })
            })
            .collect();
        json!({
            "document_hash": self.document_hash,
            "containers": containers,
            "watch": {
                "when": self.watch.when,
                "stable_for_ms": self.watch.stable_for.as_millis() as u64,
                "timeout_ms": self.watch.timeout.as_millis() as u64,
                "success_exit_codes": self.watch.success_exit_codes,
            },
            "outputs": self.outputs,
        })
    }
}

fn watch(document: &Document) -> Watch {
    let signal = &document.signal;
    let has_check = document.services.iter().any(|service| {
        matches!(service.values.get("healthcheck"), Some(Value::Healthcheck(check)) if !check.is_disabled())
    });
    let default = if has_check { When::Healthy } else { When::Running };
    Watch {
        when: signal.when.unwrap_or(default),
        stable_for: signal.stable_for,
        timeout: signal.timeout,
        success_exit_codes: vec![0],
    }
}

fn plan_container(service: &Service, when: When, document_hash: &str) -> ContainerPlan {
    let name = match service.values.get("container_name") {
        Some(Value::Text(name)) => name.clone(),
        _ => format!("{PROJECT}-{}-1", service.name),
    };
    let pull = match service.values.get("pull_policy") {
        Some(Value::Pull(pull)) => *pull,
        _ => PullPolicy::Missing,
    };
    ContainerPlan {
        service: service.name.clone(),
        name,
        image: service.image.clone(),
        pull,
        create: create::body(service, when, document_hash),
    }
}

/// Hashes what the document means, not how it is written: comments, order of keys and notation do
/// not count. The handle counts, because a new handle waits for a signal of its own.
fn hash(document: &Document) -> String {
    let signal = &document.signal;
    let target = match &signal.target {
        None => serde_json::Value::Null,
        Some(SignalTarget::Url(url)) => url.as_str().into(),
        Some(SignalTarget::Json(json)) => json.clone().into(),
    };
    let canonical = json!({
        "services": document.services,
        "signal": {
            "target": target,
            "id": signal.id,
            "when": signal.when,
            "stable_for_ms": signal.stable_for.as_millis() as u64,
            "timeout_ms": signal.timeout.as_millis() as u64,
            "log_lines": signal.log_lines,
        },
        "outputs": document.outputs,
    });
    let mut digest = hex::encode(Sha256::digest(canonical.to_string()));
    digest.truncate(HASH_HEX_DIGITS);
    digest
}

#[cfg(test)]
mod tests;
