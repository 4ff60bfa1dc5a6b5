//! The body of `POST /containers/create`.
//!
//! A key whose row in the schema names a field is put there by one loop; what needs more than one
//! field has a function here. Empty fields are left out, so that the engine's own defaults hold.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::userdata::document::{Service, When};
use crate::userdata::ports::{HostPort, PortMapping};
use crate::userdata::schema::Placement;
use crate::userdata::schema::keys::DOCUMENT_KEYS;
use crate::userdata::value::{Healthcheck, RestartPolicy, Value};
use crate::userdata::volumes::{Mount, MountSource};

/// Every container is made with these, so that a chatty one cannot fill the instance's disk:
/// `docker logs` keeps the last 30 MB. Podman knows `json-file` as a name of its own format.
const LOG_DRIVER: &str = "json-file";
const LOG_OPTIONS: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

/// The body for one service.
pub(crate) fn body(service: &Service, when: When, document_hash: &str) -> Json {
    let mut body = Map::new();
    put(&mut body, "Image", service.image.to_string().into());
    for key in DOCUMENT_KEYS {
        if let (Placement::Field(path), Some(value)) = (key.placement, service.values.get(key.name))
        {
            put(&mut body, path, to_json(value));
        }
    }
    if let Some(Value::Ports(ports)) = service.values.get("ports") {
        put_ports(&mut body, ports);
    }
    if let Some(Value::Mounts(mounts)) = service.values.get("volumes") {
        put_mounts(&mut body, mounts);
    }
    if !service.values.contains_key("restart") {
        let restart = match when {
            When::Exit => RestartPolicy::No,
            When::Created | When::Running | When::Healthy => RestartPolicy::UnlessStopped,
        };
        put(&mut body, "HostConfig.RestartPolicy", restart_json(restart));
    }
    let options: Map<String, Json> =
        LOG_OPTIONS.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    put(&mut body, "HostConfig.LogConfig", json!({ "Type": LOG_DRIVER, "Config": options }));
    put_labels(&mut body, service, document_hash);
    Json::Object(body)
}

/// Puts a value at a path with dots between its levels.
fn put(body: &mut Map<String, Json>, path: &str, value: Json) {
    match path.split_once('.') {
        None => {
            body.insert(path.to_owned(), value);
        }
        Some((level, rest)) => {
            let inner = body.entry(level).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Flag(flag) => (*flag).into(),
        Value::Bytes(number) | Value::NanoCpus(number) => (*number).into(),
        Value::Words(words) => words.clone().into(),
        Value::Assignments(assignments) => {
            assignments.iter().map(|(name, value)| format!("{name}={value}")).collect()
        }
        Value::Restart(restart) => restart_json(*restart),
        Value::Healthcheck(healthcheck) => healthcheck_json(healthcheck),
        // These have more than one field, and functions of their own.
        Value::Ports(_) | Value::Mounts(_) | Value::Pull(_) => Json::Null,
    }
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
fn put_ports(body: &mut Map<String, Json>, ports: &[PortMapping]) {
    let mut exposed = Map::new();
    let mut bindings: Map<String, Json> = Map::new();
    for port in ports {
        let name = format!("{}/{}", port.container_port, port.protocol.as_str());
        let host_port = match port.host_port {
            HostPort::Any => String::new(),
            HostPort::Fixed(port) => port.to_string(),
            HostPort::OneOf(first, last) => format!("{first}-{last}"),
        };
        let host_ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        exposed.insert(name.clone(), json!({}));
        let places = bindings.entry(name).or_insert_with(|| json!([]));
        if let Json::Array(places) = places {
            places.push(json!({ "HostIp": host_ip, "HostPort": host_port }));
        }
    }
    if !ports.is_empty() {
        put(body, "ExposedPorts", Json::Object(exposed));
        put(body, "HostConfig.PortBindings", Json::Object(bindings));
    }
}

/// Bind strings rather than `Mounts`: with them the engine makes a missing directory, as people
/// expect from `docker run -v`.
fn put_mounts(body: &mut Map<String, Json>, mounts: &[Mount]) {
    let mut binds: Vec<String> = Vec::new();
    let mut anonymous = Map::new();
    let mut tmpfs = Map::new();
    for mount in mounts {
        let mut options: Vec<&str> = mount.options.clone();
        if mount.read_only {
            options.insert(0, "ro");
        }
        let options = options.join(",");
        match &mount.source {
            MountSource::Bind(source) | MountSource::Volume(source) if options.is_empty() => {
                binds.push(format!("{source}:{}", mount.target));
            }
            MountSource::Bind(source) | MountSource::Volume(source) => {
                binds.push(format!("{source}:{}:{options}", mount.target));
            }
            MountSource::Anonymous => {
                anonymous.insert(mount.target.clone(), json!({}));
            }
            MountSource::Tmpfs => {
                tmpfs.insert(mount.target.clone(), options.into());
            }
        }
    }
    if !binds.is_empty() {
        put(body, "HostConfig.Binds", binds.into());
    }
    if !anonymous.is_empty() {
        put(body, "Volumes", Json::Object(anonymous));
    }
    if !tmpfs.is_empty() {
        put(body, "HostConfig.Tmpfs", Json::Object(tmpfs));
    }
}

/// The document's labels, and those by which the agent finds its own containers again. The
/// instance's is not known here; it is added where the container is made.
fn put_labels(body: &mut Map<String, Json>, service: &Service, document_hash: &str) {
    let mut labels = Map::new();
    if let Some(Value::Assignments(assignments)) = service.values.get("labels") {
        labels.extend(assignments.iter().map(|(name, value)| (name.clone(), value.clone().into())));
    }
    let ours = [("agent", "1"), ("document", document_hash), ("service", service.name.as_str())];
    for (name, value) in ours {
        labels.insert(format!("io.heliograph.{name}"), value.into());
    }
    put(body, "Labels", Json::Object(labels));
}
