//! The plan: what the engine will be asked to do, as a pure value.
//!
//! `plan` decides, `engine` acts. Nothing here reads a file, a clock or the environment, so the
//! same document gives the same plan everywhere, and `heliograph-agent plan FILE` shows on a
//! laptop what the instance will do.

mod create;

mod networks;

mod mounts;

mod order;

mod print;

mod parts;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

// `engine` and `outputs` import this module and not `userdata`, so the plan's own vocabulary is
// complete here.
pub use crate::plan::parts::{
    Attachment, Dependency, DevicePlan, FilePlan, NetworkPlan, VolumePlan,
};
pub use crate::userdata::access::{
    ArchiveLocation, Condition, DeviceSelector, FileContent, GlanceAccess, ImageSource,
    ProxyAccess, RegistryAccess,
};
pub use crate::userdata::document::{Output, OutputName, PullPolicy, When};
pub use crate::userdata::image::ImageReference;

use crate::plan::create::Making;
use crate::plan::mounts::Mounts;
use crate::plan::networks::Joined;
use crate::userdata::document::{Document, Service, SignalStyle, SignalTarget, SignalTransport};
use crate::userdata::together;
use crate::userdata::value::Value;

/// What both engines give a container that does not say it.
const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);

/// 64 bits: enough to tell one instance's documents apart, short enough for an id.
const HASH_HEX_DIGITS: usize = 16;

/// Everything that the engine needs to know about one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The first 16 hex digits of the SHA-256 of the canonical document.
    pub document_hash: String,
    pub networks: Vec<NetworkPlan>,
    pub volumes: Vec<VolumePlan>,
    pub devices: Vec<DevicePlan>,
    pub files: Vec<FilePlan>,
    /// In the order in which they start.
    pub containers: Vec<ContainerPlan>,
    /// By `host` or `host:port`.
    pub registries: BTreeMap<String, RegistryAccess>,
    /// By which images and archives are fetched; None: as the environment says.
    pub proxy: Option<ProxyAccess>,
    pub glance: Option<GlanceAccess>,
    /// Certificates, in PEM, that are trusted for HTTPS beside the system's.
    pub certificate_authorities: Vec<String>,
    pub watch: Watch,
    pub outputs: Vec<Output>,
}

/// One container to pull, create and start.
#[derive(Clone, PartialEq)]
pub struct ContainerPlan {
    pub service: String,
    /// The `name` parameter of `/containers/create`.
    pub name: String,
    pub image: ImageReference,
    pub source: ImageSource,
    pub pull: PullPolicy,
    /// As `os/architecture`; none means the engine's own.
    pub platform: Option<String>,
    /// The body of `POST /containers/create`, Engine API 1.41, with every label but the instance's.
    pub create: serde_json::Value,
    pub attachments: Vec<Attachment>,
    pub depends_on: Vec<Dependency>,
    /// What this container must reach for the document to succeed.
    pub when: When,
    pub success_exit_codes: Vec<i64>,
    /// How long the container has from the request to stop until it is killed.
    pub stop_grace: Duration,
    /// Whether the container may reach the metadata address.
    pub metadata_access: bool,
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
    pub fn new(document: &Document, state_directory: &Path) -> Plan {
        let document_hash = hash(document);
        let mounts = Mounts::new(document, state_directory);
        let mut containers = Vec::new();
        for service in order::in_start_order(document) {
            for index in 1..=together::scale(service) {
                containers.push(plan_container(document, service, index, &document_hash, &mounts));
            }
        }
        Plan {
            document_hash,
            networks: networks::plans(document),
            volumes: mounts.volumes,
            devices: mounts.devices,
            files: mounts.files,
            containers,
            registries: document.registries.clone(),
            proxy: document.proxy.clone(),
            glance: document.glance.clone(),
            certificate_authorities: document.certificate_authorities.clone(),
            watch: watch(document),
            outputs: document.outputs.clone(),
        }
    }
}

fn watch(document: &Document) -> Watch {
    let signal = &document.signal;
    let has_check = document.services.iter().any(has_healthcheck);
    let default = if has_check { When::Healthy } else { When::Running };
    Watch {
        when: signal.when.unwrap_or(default),
        stable_for: signal.stable_for,
        timeout: signal.timeout,
        success_exit_codes: match document.services.as_slice() {
            [only] => success_exit_codes(only),
            _ => vec![0],
        },
    }
}

fn has_healthcheck(service: &Service) -> bool {
    matches!(service.values.get("healthcheck"), Some(Value::Healthcheck(check)) if !check.is_disabled())
}

fn success_exit_codes(service: &Service) -> Vec<i64> {
    match service.values.get("exit_codes") {
        Some(Value::Codes(codes)) => codes.clone(),
        _ => vec![0],
    }
}

/// What one service must reach. What another waits for the end of is a job; and of several services,
/// `healthy` can only be asked of those that have a check.
fn when(document: &Document, service: &Service) -> When {
    let is_awaited = document.services.iter().any(|other| {
        matches!(other.values.get("depends_on"), Some(Value::DependsOn(others)) if others.iter().any(
            |one| one.service == service.name && one.condition == Condition::CompletedSuccessfully
        ))
    });
    match document.signal.when {
        _ if is_awaited => When::Exit,
        Some(When::Healthy) if document.services.len() > 1 && !has_healthcheck(service) => {
            When::Running
        }
        Some(when) => when,
        None if has_healthcheck(service) => When::Healthy,
        None => When::Running,
    }
}

fn plan_container(
    document: &Document,
    service: &Service,
    index: u32,
    document_hash: &str,
    mounts: &Mounts,
) -> ContainerPlan {
    let values = &service.values;
    let name = order::planned_name(service, index);
    let when = when(document, service);
    let joined = Joined::new(document, service);
    let create = create::body(&Making {
        document,
        service,
        name: &name,
        when,
        document_hash,
        mounts,
        joined: &joined,
    });
    ContainerPlan {
        service: name,
        name: together::container_name(service, index),
        image: service.image.clone(),
        source: match values.get("image_archive") {
            Some(Value::Archive(source)) => source.clone(),
            _ => ImageSource::Registry,
        },
        pull: match values.get("pull_policy") {
            Some(Value::Pull(pull)) => *pull,
            _ => PullPolicy::Missing,
        },
        platform: match values.get("platform") {
            Some(Value::Text(platform)) => Some(platform.clone()),
            _ => None,
        },
        create,
        attachments: joined.attachments,
        depends_on: order::dependencies(document, service),
        when,
        success_exit_codes: success_exit_codes(service),
        stop_grace: match values.get("stop_grace_period") {
            Some(Value::Duration(grace)) => *grace,
            _ => DEFAULT_STOP_GRACE,
        },
        metadata_access: matches!(
            values.get("metadata_access"),
            Some(Value::Json(serde_json::Value::Bool(true)))
        ),
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
    let mut canonical = json!({
        "services": document.services,
        "is_composed": document.is_composed,
        "networks": document.networks,
        "volumes": document.volumes,
        "secrets": document.secrets,
        "configs": document.configs,
        "registries": document.registries,
        "glance": document.glance,
        "certificate_authorities": document.certificate_authorities,
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
    // Not there where nothing is said, as before there were these: a document keeps its hash.
    let added = [
        ("style", (signal.style != SignalStyle::Auto).then(|| json!(signal.style))),
        ("transport", (signal.transport != SignalTransport::Auto).then(|| json!(signal.transport))),
    ];
    for (name, value) in added {
        if let Some(value) = value {
            canonical["signal"][name] = value;
        }
    }
    if let Some(proxy) = &document.proxy {
        canonical["proxy"] = json!(proxy);
    }
    let mut digest = hex::encode(Sha256::digest(canonical.to_string()));
    digest.truncate(HASH_HEX_DIGITS);
    digest
}

#[cfg(test)]
mod tests;
