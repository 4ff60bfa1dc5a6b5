//! The values that say what of the instance a container may use, in the engine's own form.

use serde_json::{Map, Value as Json, json};

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::fields::Fields;
use crate::userdata::read::MAX_SCALE;
use crate::userdata::read::plain::{
    entries, list, number, one_of, one_or_more, settings, small, texts,
};
use crate::userdata::read::process::memory;
use crate::userdata::scalar::{
    absolute_path, any_text, bad, is_absolute_path, nano_cpus, size, text,
};
use crate::userdata::schema::Kind;
use crate::userdata::schema::parts::{BLKIO, BLKIO_DEVICE, DEPLOY, DEVICE, GPU, LOGGING, ULIMIT};
use crate::userdata::suggest::nearest;
use crate::userdata::yaml::{Content, Node};

/// What Linux 6.1 knows, without `CAP_`, and the engine's word for all of them.
const CAPABILITIES: [&str; 42] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

pub(super) fn capabilities(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    let mut capabilities = Vec::new();
    for item in list(label, node, Kind::Capabilities.shape())? {
        let written = text(label, item, "a capability")?.to_ascii_uppercase();
        let name = written.strip_prefix("CAP_").unwrap_or(&written);
        if !CAPABILITIES.contains(&name) {
            let diagnostic = bad("bad_word", label, item, "names of capabilities");
            return Err(match nearest(name, CAPABILITIES) {
                Some(meant) => diagnostic.suggest(format!("did you mean {meant}?")),
                None => diagnostic,
            });
        }
        capabilities.push(name.to_owned());
    }
    Ok(capabilities)
}

/// A map of path to options.
pub(super) fn tmpfs(label: &str, node: &Node) -> Result<Json, Diagnostic> {
    let shape = Kind::Tmpfs.shape();
    let mut places = Map::new();
    for item in one_or_more(label, node, shape)? {
        let written = text(label, item, shape)?;
        let (path, options) = written.split_once(':').unwrap_or((written, ""));
        if !is_absolute_path(path) || path == "/" || options.contains(char::is_control) {
            return Err(bad(
                "bad_path",
                label,
                item,
                "absolute paths below `/`, each with options after a colon",
            ));
        }
        places.insert(path.trim_end_matches('/').to_owned(), options.into());
    }
    Ok(Json::Object(places))
}

pub(super) fn devices(label: &str, node: &Node) -> Result<Json, Diagnostic> {
    let devices = list(label, node, Kind::Devices.shape())?.iter();
    devices.map(|item| device(label, item)).collect::<Result<Vec<_>, _>>().map(Json::from)
}

fn device(label: &str, node: &Node) -> Result<Json, Diagnostic> {
    let error =
        |node: &Node| bad("bad_device", label, node, "host[:container[:rwm]] with absolute paths");
    let (host, container, permissions) = match &node.content {
        Content::Map(_) => {
            let fields =
                Fields::of(&format!("an entry of {}", quote_key(label)), node, DEVICE.keys)?;
            let host = absolute_path("path_on_host", fields.require("path_on_host")?.node)?;
            let container = fields.get("path_in_container");
            let container = match container {
                Some(field) => absolute_path("path_in_container", field.node)?,
                None => host,
            };
            let permissions = match fields.get("permissions") {
                Some(field) => any_text("permissions", field.node)?,
                None => "rwm",
            };
            (host, container, permissions)
        }
        _ => {
            let written = text(label, node, Kind::Devices.shape())?;
            match written.split(':').collect::<Vec<_>>()[..] {
                [host] => (host, host, "rwm"),
                [host, container] if container.starts_with('/') => (host, container, "rwm"),
                [host, permissions] => (host, host, permissions),
                [host, container, permissions] => (host, container, permissions),
                _ => return Err(error(node)),
            }
        }
    };
    let are_permissions = !permissions.is_empty()
        && permissions.len() <= 3
        && permissions.bytes().all(|byte| matches!(byte, b'r' | b'w' | b'm'));
    if !is_absolute_path(host) || !is_absolute_path(container) || !are_permissions {
        return Err(error(node));
    }
    Ok(json!({
        "PathOnHost": host, "PathInContainer": container, "CgroupPermissions": permissions,
    }))
}

pub(super) fn gpus(label: &str, node: &Node) -> Result<Json, Diagnostic> {
    if let Content::Scalar(_) = node.content {
        one_of(label, node, &["all"])?;
        return Ok(json!([{ "Count": -1, "Capabilities": [["gpu"]] }]));
    }
    let mut requests = Vec::new();
    for item in list(label, node, Kind::Gpus.shape())? {
        let fields = Fields::of("an entry of `gpus`", item, GPU.keys)?;
        if let (Some(_), Some(ids)) = (fields.get("count"), fields.get("device_ids")) {
            let message = "`count` and `device_ids` exclude each other";
            return Err(Diagnostic::new("bad_device", ids.position, message));
        }
        let mut request = Map::new();
        request.insert("Capabilities".into(), json!([["gpu"]]));
        if fields.get("device_ids").is_none() {
            request.insert("Count".into(), (-1).into());
        }
        for field in fields.iter() {
            let (label, node) = (field.key.name, field.node);
            let (name, value) = match label {
                "driver" => ("Driver", text(label, node, "a string")?.into()),
                "count" if any_text(label, node)? == "all" => ("Count", (-1).into()),
                "count" => ("Count", number(label, node, 1, 1024)?.into()),
                "device_ids" => ("DeviceIDs", texts(label, node)?.into()),
                "capabilities" => ("Capabilities", json!([texts(label, node)?])),
                _ => ("Options", settings(label, node)?),
            };
            request.insert(name.into(), value);
        }
        requests.push(Json::Object(request));
    }
    Ok(requests.into())
}

pub(super) fn ulimits(label: &str, node: &Node) -> Result<Json, Diagnostic> {
    let mut limits = Vec::new();
    for entry in entries(label, node, Kind::Ulimits.shape())? {
        if entry.key.is_empty() || !entry.key.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Err(bad(
                "bad_name",
                label,
                &entry.value,
                "a map whose keys are names of limits",
            ));
        }
        let (soft, hard) = match &entry.value.content {
            Content::Map(_) => {
                let fields = Fields::of("an entry of `ulimits`", &entry.value, ULIMIT.keys)?;
                let soft = number("soft", fields.require("soft")?.node, -1, i64::MAX)?;
                (soft, number("hard", fields.require("hard")?.node, -1, i64::MAX)?)
            }
            _ => {
                let both = number(label, &entry.value, -1, i64::MAX)?;
                (both, both)
            }
        };
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(bad(
                "bad_number",
                label,
                &entry.value,
                "limits whose soft one is not above the hard one",
            ));
        }
        limits.push(json!({ "Name": entry.key, "Soft": soft, "Hard": hard }));
    }
    Ok(limits.into())
}

/// The driver and its options; those that keep a log small are the agent's, unless it has some.
pub(super) fn logging(label: &str, node: &Node) -> Result<Json, Diagnostic> {
    let fields = Fields::of(&quote_key(label), node, LOGGING.keys)?;
    let driver = match fields.get("driver") {
        Some(field) => text("driver", field.node, "a string")?,
        None => crate::userdata::schema::LOG_DRIVER,
    };
    let mut options = match fields.get("options") {
        Some(field) => settings("options", field.node)?,
        None => json!({}),
    };
    if let Json::Object(options) = &mut options
        && driver == crate::userdata::schema::LOG_DRIVER
    {
        for (name, value) in crate::userdata::schema::LOG_OPTIONS {
            options.entry(name).or_insert_with(|| value.into());
        }
    }
    Ok(json!({ "Type": driver, "Config": options }))
}

type Puts = Vec<(&'static str, Json)>;

pub(super) fn blkio(node: &Node) -> Result<Puts, Diagnostic> {
    let fields = Fields::of("`blkio_config`", node, BLKIO.keys)?;
    let mut puts = Vec::new();
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        puts.push(match label {
            "weight" => ("HostConfig.BlkioWeight", number(label, node, 10, 1000)?.into()),
            "weight_device" => ("HostConfig.BlkioWeightDevice", throttles(label, node, "weight")?),
            "device_read_bps" => ("HostConfig.BlkioDeviceReadBps", throttles(label, node, "rate")?),
            "device_write_bps" => {
                ("HostConfig.BlkioDeviceWriteBps", throttles(label, node, "rate")?)
            }
            "device_read_iops" => {
                ("HostConfig.BlkioDeviceReadIOps", throttles(label, node, "rate")?)
            }
            _ => ("HostConfig.BlkioDeviceWriteIOps", throttles(label, node, "rate")?),
        });
    }
    Ok(puts)
}

fn throttles(label: &str, node: &Node, figure: &'static str) -> Result<Json, Diagnostic> {
    let mut throttles = Vec::new();
    for item in list(label, node, "a list of maps")? {
        let fields =
            Fields::of(&format!("an entry of {}", quote_key(label)), item, BLKIO_DEVICE.keys)?;
        let path = absolute_path("path", fields.require("path")?.node)?;
        let field = fields.require(figure)?;
        throttles.push(match figure {
            "weight" => json!({ "Path": path, "Weight": number("weight", field.node, 10, 1000)? }),
            _ => json!({ "Path": path, "Rate": size("rate", field.node)? }),
        });
    }
    Ok(throttles.into())
}

/// The part of `deploy` that means something on one machine.
pub(super) fn deploy(label: &str, node: &Node, context: &mut Context) -> Result<Puts, Diagnostic> {
    let mut puts = Vec::new();
    for field in Fields::of(&quote_key(label), node, DEPLOY.keys)?.iter() {
        match field.key.name {
            "resources" => resources(field.node, &mut puts)?,
            "restart_policy" => puts.push(("HostConfig.RestartPolicy", restart(field.node)?)),
            // Taken by the service, for it is `scale`.
            "replicas" => drop(small("replicas", field.node, 1, MAX_SCALE)?),
            name => {
                let message =
                    format!("{} in `deploy` has no effect: it is for a swarm", quote_key(name));
                context.warn("no_effect", field.position, message);
            }
        }
    }
    Ok(puts)
}

fn resources(node: &Node, puts: &mut Puts) -> Result<(), Diagnostic> {
    for entry in entries("resources", node, "a map of limits and reservations")? {
        let is_limit = match entry.key.as_str() {
            "limits" => true,
            "reservations" => false,
            other => return Err(unknown("resources", other, entry.key_position)),
        };
        for figure in entries(&entry.key, &entry.value, "a map")? {
            let (name, node) = (figure.key.as_str(), &figure.value);
            match (name, is_limit) {
                ("cpus", true) => puts.push(("HostConfig.NanoCpus", nano_cpus(name, node)?.into())),
                ("memory", true) => puts.push(("HostConfig.Memory", memory(name, node)?.into())),
                ("pids", true) => {
                    puts.push(("HostConfig.PidsLimit", number(name, node, -1, 4_194_304)?.into()));
                }
                ("memory", false) => {
                    puts.push(("HostConfig.MemoryReservation", memory(name, node)?.into()));
                }
                // Processors cannot be reserved on one machine.
                ("cpus", false) => drop(nano_cpus(name, node)?),
                _ => return Err(unknown(&entry.key, name, figure.key_position)),
            }
        }
    }
    Ok(())
}

fn restart(node: &Node) -> Result<Json, Diagnostic> {
    let (mut name, mut retries) = ("always", 0);
    for entry in entries("restart_policy", node, "a map of condition and max_attempts")? {
        match entry.key.as_str() {
            "condition" => {
                name = match one_of("condition", &entry.value, &["none", "on-failure", "any"])? {
                    "none" => "no",
                    "on-failure" => "on-failure",
                    _ => "always",
                };
            }
            "max_attempts" => retries = number("max_attempts", &entry.value, 0, 1_000_000)?,
            "delay" | "window" => {}
            other => return Err(unknown("restart_policy", other, entry.key_position)),
        }
    }
    let retries = if name == "on-failure" { retries } else { 0 };
    Ok(json!({ "Name": name, "MaximumRetryCount": retries }))
}

fn unknown(map: &str, key: &str, position: crate::userdata::diagnostic::Position) -> Diagnostic {
    let message = format!("{} has no key {}", quote_key(map), quote_key(key));
    Diagnostic::new("unknown_key", position, message)
}
