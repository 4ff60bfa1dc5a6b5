//! konlet's declaration: the part of a Kubernetes pod that Google's `gce-container-declaration` had.
//!
//! As there, the network is the instance's own, `command` is the entrypoint, `args` the command, the
//! log is kept, and the container is always restarted unless `restartPolicy` says otherwise.

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::forms::{
    document, entries_of, entry, list, map, plain, scalar, service_name, unsupported,
};
use crate::userdata::read::plain::{list as items_of, one_of};
use crate::userdata::scalar::{any_text, flag, text};
use crate::userdata::yaml::{Content, Entry, Node};

/// A tree with `spec.containers`, whatever stands around it.
pub(crate) fn is_konlet(root: &Node) -> bool {
    root.get("spec").is_some_and(|spec| spec.get("containers").is_some())
}

pub(crate) fn to_document(root: &Node, context: &mut Context) -> Result<Node, Diagnostic> {
    for one in entries_of("the document", root)? {
        let is_known = ["apiVersion", "kind", "metadata", "spec", "signal", "outputs"];
        if !is_known.contains(&one.key.as_str()) {
            return Err(unsupported("konlet", one));
        }
    }
    let Some(spec) = root.get("spec") else {
        return Err(Diagnostic::new(
            "missing_key",
            root.position,
            "the document needs the key `spec`",
        ));
    };
    let mut containers: &[Node] = &[];
    let mut volumes: &[Node] = &[];
    let mut restart = "always";
    for one in entries_of("spec", spec)? {
        match one.key.as_str() {
            "containers" => containers = items_of("containers", &one.value, "a list of maps")?,
            "volumes" if one.value.is_null() => {}
            "volumes" => volumes = items_of("volumes", &one.value, "a list of maps")?,
            "restartPolicy" => {
                restart =
                    match one_of("restartPolicy", &one.value, &["Always", "OnFailure", "Never"])? {
                        "Always" => "always",
                        "OnFailure" => "on-failure",
                        _ => "no",
                    };
            }
            _ => return Err(unsupported("konlet", one)),
        }
    }
    let mut services = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let name = match container.get("name") {
            Some(name) => service_name(text("name", name, "a name")?),
            None => format!("container-{index}"),
        };
        let value = service(container, volumes, restart, context)?;
        services.push(Entry { key: name, key_position: container.position, value });
    }
    let shared: Vec<Entry> = ["signal", "outputs"]
        .into_iter()
        .filter_map(|key| Some(entry(key, root.get(key)?.clone())))
        .collect();
    if services.len() == 1 {
        let mut document = document(services, Vec::new(), root.position);
        if let Content::Map(entries) = &mut document.content {
            entries.extend(shared);
        }
        return Ok(document);
    }
    Ok(document(services, shared, root.position))
}

fn service(
    container: &Node,
    volumes: &[Node],
    restart: &str,
    context: &mut Context,
) -> Result<Node, Diagnostic> {
    let position = container.position;
    let mut entries = vec![
        entry("network_mode", scalar("host", position)),
        entry("restart", scalar(restart, position)),
    ];
    for one in entries_of("an entry of `containers`", container)? {
        let value = one.value.clone();
        let (key, value) = match one.key.as_str() {
            // A declaration of the console has these with nothing in them.
            _ if value.is_null() => continue,
            "name" => {
                ("container_name", scalar(service_name(any_text("name", &value)?), value.position))
            }
            "image" => ("image", value),
            "command" => ("entrypoint", value),
            "args" => ("command", value),
            "env" => ("environment", environment(&value)?),
            "stdin" => ("stdin_open", value),
            "tty" => ("tty", value),
            "workingDir" => ("working_dir", value),
            "imagePullPolicy" => ("pull_policy", value),
            "securityContext" => {
                for inner in entries_of("securityContext", &value)? {
                    if inner.key != "privileged" {
                        return Err(unsupported("konlet", inner));
                    }
                    entries.push(inner.clone());
                }
                continue;
            }
            "volumeMounts" => ("volumes", mounts(&value, volumes, context)?),
            _ => return Err(unsupported("konlet", one)),
        };
        let is_empty_list = matches!(&value.content, Content::List(items) if items.is_empty());
        if !is_empty_list {
            entries.push(Entry { key: key.to_owned(), key_position: one.key_position, value });
        }
    }
    Ok(map(entries, position))
}

/// A list of `{name, value}`.
fn environment(node: &Node) -> Result<Node, Diagnostic> {
    let mut variables = Vec::new();
    for item in items_of("env", node, "a list of maps of name and value")? {
        let Some(name) = item.get("name") else {
            let message = "an entry of `env` needs the key `name`";
            return Err(Diagnostic::new("missing_key", item.position, message));
        };
        let value = item.get("value").filter(|value| !value.is_null());
        let value = match value {
            Some(value) => scalar(any_text("value", value)?, value.position),
            None => scalar("", item.position),
        };
        let key = text("name", name, "a name")?.to_owned();
        variables.push(Entry { key, key_position: name.position, value });
    }
    Ok(map(variables, node.position))
}

fn mounts(node: &Node, volumes: &[Node], context: &mut Context) -> Result<Node, Diagnostic> {
    let mut mounts = Vec::new();
    for item in items_of("volumeMounts", node, "a list of maps")? {
        let require = |key: &'static str| {
            let message = format!("an entry of `volumeMounts` needs the key `{key}`");
            item.get(key).ok_or_else(|| Diagnostic::new("missing_key", item.position, message))
        };
        let name = text("name", require("name")?, "a name")?;
        let target = require("mountPath")?.clone();
        let volume = volumes.iter().find(|volume| {
            volume
                .get("name")
                .is_some_and(|node| any_text("name", node).is_ok_and(|other| other == name))
        });
        let Some(volume) = volume else {
            let message = format!("`volumes` has no {}", quote_key(name));
            return Err(Diagnostic::new("unknown_name", item.position, message));
        };
        let mut entries = vec![entry("target", target)];
        if let Some(read_only) = item.get("readOnly") {
            entries.push(entry(
                "read_only",
                plain(
                    if flag("readOnly", read_only)? { "true" } else { "false" },
                    read_only.position,
                ),
            ));
        }
        entries.extend(source(name, volume, context)?);
        mounts.push(map(entries, item.position));
    }
    Ok(list(mounts, node.position))
}

/// Where a volume of the declaration is, as the keys of a mount.
fn source(name: &str, volume: &Node, context: &mut Context) -> Result<Vec<Entry>, Diagnostic> {
    let kind = |kind: &str| entry("type", scalar(kind, volume.position));
    if let Some(host_path) = volume.get("hostPath") {
        let Some(path) = host_path.get("path") else {
            let message = "`hostPath` needs the key `path`";
            return Err(Diagnostic::new("missing_key", host_path.position, message));
        };
        return Ok(vec![kind("bind"), entry("source", path.clone())]);
    }
    if let Some(directory) = volume.get("emptyDir") {
        if directory.get("medium").is_some_and(|medium| any_text("medium", medium) == Ok("Memory"))
        {
            return Ok(vec![kind("tmpfs")]);
        }
        return Ok(vec![kind("volume")]);
    }
    if let Some(disk) = volume.get("gcePersistentDisk") {
        let Some(disk_name) = disk.get("pdName") else {
            let message = "`gcePersistentDisk` needs the key `pdName`";
            return Err(Diagnostic::new("missing_key", disk.position, message));
        };
        let label = any_text("pdName", disk_name)?;
        let message = "a persistent disk is looked for by its name as the file system's label";
        context.warn("old_key", disk.position, message);
        return Ok(vec![
            kind("volume"),
            entry("source", scalar(service_name(name), volume.position)),
            entry("device", scalar(format!("label:{label}"), disk_name.position)),
        ]);
    }
    let message = format!("the volume {} is of a kind that is not supported", quote_key(name));
    Err(Diagnostic::new("bad_volume", volume.position, message)
        .suggest("write `hostPath`, `emptyDir` or `gcePersistentDisk`"))
}
