//! The body of `POST /containers/create`.
//!
//! A key whose row in the schema names a field is put there by one loop; what needs more than one
//! field has a function here. Empty fields are left out, so that the engine's own defaults hold.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::plan::mounts;
use crate::plan::networks::Joined;
use crate::userdata::document::{Document, Service, When};
use crate::userdata::ports::{HostPort, PortMapping};
use crate::userdata::schema::host::HOST_KEYS;
use crate::userdata::schema::service::SERVICE_KEYS;
use crate::userdata::schema::{LOG_DRIVER, LOG_OPTIONS, Placement};
use crate::userdata::together::container_name;
use crate::userdata::value::{Healthcheck, Peer, RestartPolicy, Value};

/// What the body of one container is made from.
pub(crate) struct Making<'a> {
    pub(crate) document: &'a Document,
    pub(crate) service: &'a Service,
    /// The service's name in the plan, which differs from the document's for a second container.
    pub(crate) name: &'a str,
    pub(crate) when: When,
    pub(crate) document_hash: &'a str,
    pub(crate) mounts: &'a mounts::Mounts,
    pub(crate) joined: &'a Joined,
}

/// The body for one container.
pub(crate) fn body(making: &Making<'_>) -> Json {
    let values = &making.service.values;
    let mut body = Map::new();
    put(&mut body, "Image", making.service.image.to_string().into());
    for key in SERVICE_KEYS.iter().chain(HOST_KEYS) {
        match (key.placement, values.get(key.name)) {
            (Placement::Field(path), Some(value)) => {
                if let Some(json) = to_json(value) {
                    put(&mut body, path, json);
                }
            }
            (_, Some(Value::Fields(fields))) => {
                for (path, json) in fields {
                    put(&mut body, path, json.clone());
                }
            }
            _ => {}
        }
    }
    put_ports(&mut body, making.service);
    making.mounts.put(&mut body, making.document, making.service);
    put_peers(&mut body, making);
    making.joined.put(&mut body);
    put_life(&mut body, making);
    put_labels(&mut body, making);
    Json::Object(body)
}

/// Puts a value at a path with dots between its levels. Maps and lists that are there grow.
pub(crate) fn put(body: &mut Map<String, Json>, path: &str, value: Json) {
    let Some((level, rest)) = path.split_once('.') else {
        match (body.get_mut(path), value) {
            (Some(Json::Object(there)), Json::Object(more)) => there.extend(more),
            (Some(Json::Array(there)), Json::Array(more)) => there.extend(more),
            (_, value) => drop(body.insert(path.to_owned(), value)),
        }
        return;
    };
    let inner = body.entry(level).or_insert_with(|| Json::Object(Map::new()));
    if let Json::Object(inner) = inner {
        put(inner, rest, value);
    }
}

/// The engine's form of a value that has one field. None: it has a function of its own.
fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Json(json) => json.clone(),
        Value::Words(words) => words.clone().into(),
        Value::Assignments(assignments) => {
            assignments.iter().map(|(name, value)| format!("{name}={value}")).collect()
        }
        Value::Restart(restart) => restart_json(*restart),
        Value::Healthcheck(healthcheck) => healthcheck_json(healthcheck),
        _ => return None,
    })
}

fn restart_json(restart: RestartPolicy) -> Json {
    let (name, retries) = match restart {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(retries) => ("on-failure", retries),
    };
    json!({ "Name": name, "MaximumRetryCount": retries })
}

fn healthcheck_json(healthcheck: &Healthcheck) -> Json {
    let mut body = Map::new();
    if let Some(test) = &healthcheck.test {
        body.insert("Test".to_owned(), test.clone().into());
    }
    let durations = [
        ("Interval", healthcheck.interval),
        ("Timeout", healthcheck.timeout),
        ("StartPeriod", healthcheck.start_period),
    ];
    for (name, duration) in durations {
        if let Some(duration) = duration {
            body.insert(name.to_owned(), nanoseconds(duration).into());
        }
    }
    if let Some(retries) = healthcheck.retries {
        body.insert("Retries".to_owned(), retries.into());
    }
    Json::Object(body)
}

/// The document allows seven days at most, which fits.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A port must be exposed to be published.
fn put_ports(body: &mut Map<String, Json>, service: &Service) {
    let mut exposed = Map::new();
    let mut bindings: Map<String, Json> = Map::new();
    for port in ports(service) {
        let name = format!("{}/{}", port.container_port, port.protocol.as_str());
        exposed.insert(name.clone(), json!({}));
        let host_port = match port.host_port {
            HostPort::Unpublished => continue,
            HostPort::Any => String::new(),
            HostPort::Fixed(port) => port.to_string(),
            HostPort::OneOf(first, last) => format!("{first}-{last}"),
        };
        let host_ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let places = bindings.entry(name).or_insert_with(|| json!([]));
        if let Json::Array(places) = places {
            places.push(json!({ "HostIp": host_ip, "HostPort": host_port }));
        }
    }
    if !exposed.is_empty() {
        put(body, "ExposedPorts", Json::Object(exposed));
    }
    if !bindings.is_empty() {
        put(body, "HostConfig.PortBindings", Json::Object(bindings));
    }
}

fn ports(service: &Service) -> impl Iterator<Item = &PortMapping> {
    let lists = ["ports", "port_bindings", "expose"].into_iter();
    lists.filter_map(|key| service.values.get(key)).flat_map(|value| match value {
        Value::Ports(ports) => ports.as_slice(),
        _ => &[],
    })
}

/// What the container shares with another one.
fn put_peers(body: &mut Map<String, Json>, making: &Making<'_>) {
    let modes = [
        ("network_mode", "HostConfig.NetworkMode"),
        ("ipc", "HostConfig.IpcMode"),
        ("pid", "HostConfig.PidMode"),
    ];
    for (key, path) in modes {
        if let Some(Value::Peer(peer)) = making.service.values.get(key) {
            let mode = match peer {
                Peer::Word(word) => word.clone(),
                other => format!("container:{}", container_of(making.document, other)),
            };
            put(body, path, mode.into());
        }
    }
    if let Some(Value::VolumesFrom(sources)) = making.service.values.get("volumes_from") {
        let sources = sources.iter().map(|source| {
            let name = container_of(making.document, &source.source);
            if source.read_only { format!("{name}:ro") } else { name }
        });
        put(body, "HostConfig.VolumesFrom", sources.collect());
    }
}

/// The container that a key names: a service's first, or one of that name.
pub(crate) fn container_of(document: &Document, peer: &Peer) -> String {
    let (Peer::Word(name) | Peer::Service(name) | Peer::Container(name)) = peer;
    let is_service = !matches!(peer, Peer::Container(_));
    let service = document.services.iter().find(|service| is_service && service.name == *name);
    service.map_or_else(|| name.clone(), |service| container_name(service, 1))
}

/// How the container ends, and what is kept of what it said.
fn put_life(body: &mut Map<String, Json>, making: &Making<'_>) {
    let values = &making.service.values;
    let host = body.get("HostConfig");
    if host.and_then(|host| host.get("RestartPolicy")).is_none() {
        let restart = match making.when {
            When::Exit => RestartPolicy::No,
            When::Created | When::Running | When::Healthy => RestartPolicy::UnlessStopped,
        };
        put(body, "HostConfig.RestartPolicy", restart_json(restart));
    }
    if let Some(Value::Duration(grace)) = values.get("stop_grace_period") {
        // Whole seconds; a part of one counts as one.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        put(body, "StopTimeout", seconds.into());
    }
    if !values.contains_key("logging") {
        let options: Map<String, Json> =
            LOG_OPTIONS.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        put(body, "HostConfig.LogConfig", json!({ "Type": LOG_DRIVER, "Config": options }));
    }
}

/// The document's labels, and those by which the agent finds its own containers again. The
/// instance's is not known here; it is added where the container is made.
fn put_labels(body: &mut Map<String, Json>, making: &Making<'_>) {
    let mut labels = Map::new();
    if let Some(Value::Assignments(assignments)) = making.service.values.get("labels") {
        labels.extend(assignments.iter().map(|(name, value)| (name.clone(), value.clone().into())));
    }
    let ours = [("agent", "1"), ("document", making.document_hash), ("service", making.name)];
    for (name, value) in ours {
        labels.insert(format!("io.heliograph.{name}"), value.into());
    }
    // A list of assignments is put as one, which this replaces.
    body.insert("Labels".to_owned(), Json::Object(labels));
}
