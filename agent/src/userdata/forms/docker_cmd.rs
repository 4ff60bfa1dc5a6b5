//! Heat's docker-cmd: a map of names to containers, under the line `#docker-cmd`.
//!
//! The keys are those of `docker run` as its hook knows them. Containers start in the order of
//! `start_order`, and of the document among equals.

use crate::userdata::context::Context;
use crate::userdata::diagnostic::Diagnostic;
use crate::userdata::forms::{entries_of, entry, list, map, scalar, service_name, unsupported};
use crate::userdata::read::plain::number;
use crate::userdata::scalar::any_text;
use crate::userdata::yaml::{Content, Entry, Node};

/// Keys that mean the same here.
const SAME: [&str; 19] = [
    "image",
    "command",
    "exit_codes",
    "environment",
    "env_file",
    "privileged",
    "restart",
    "user",
    "volumes",
    "volumes_from",
    "pid",
    "ipc",
    "uts",
    "ulimits",
    "cap_add",
    "mem_limit",
    "healthcheck",
    "labels",
    "hostname",
];

pub(crate) fn to_document(root: &Node, context: &mut Context) -> Result<Node, Diagnostic> {
    let mut services: Vec<(i64, Entry)> = Vec::new();
    for container in entries_of("the document", root)? {
        // A value of its own for the whole document, as in ours.
        if matches!(container.key.as_str(), "signal" | "outputs") {
            continue;
        }
        let (order, service) = service(container, context)?;
        services.push((
            order,
            Entry {
                key: service_name(&container.key),
                key_position: container.key_position,
                value: service,
            },
        ));
    }
    services.sort_by_key(|(order, _)| *order);
    let mut services: Vec<Entry> = services.into_iter().map(|(_, service)| service).collect();
    // Each starts after the one before it.
    for index in 1..services.len() {
        let before = services[index - 1].key.clone();
        let position = services[index].key_position;
        if let Content::Map(entries) = &mut services[index].value.content {
            let before = scalar(before, position);
            entries.push(entry("depends_on", list(vec![before], position)));
        }
    }
    let shared = ["signal", "outputs"].into_iter();
    let shared =
        shared.filter_map(|key| Some(entry(key, root.get(key)?.clone()))).collect::<Vec<_>>();
    // With `services` even for one, so that the name is kept.
    let mut entries = vec![entry("services", map(services, root.position))];
    entries.extend(shared);
    Ok(map(entries, root.position))
}

fn service(container: &Entry, context: &mut Context) -> Result<(i64, Node), Diagnostic> {
    let mut order = 0;
    let mut entries = Vec::new();
    let mut has_network = false;
    for one in entries_of(&container.key, &container.value)? {
        let (key, value) = (one.key.as_str(), one.value.clone());
        match key {
            _ if SAME.contains(&key) => entries.push(one.clone()),
            "net" => {
                has_network = true;
                entries.push(entry("network_mode", network_mode(value)?));
            }
            "start_order" => order = number("start_order", &one.value, -1_000_000, 1_000_000)?,
            "detach" | "remove" | "interactive" | "tty" => {
                context.warn(
                    "no_effect",
                    one.key_position,
                    format!("`{key}` of docker-cmd has no effect"),
                );
            }
            // `action: exec` runs a command in a container that is there.
            _ => return Err(unsupported("docker-cmd", one)),
        }
    }
    if !has_network {
        let position = container.key_position;
        entries.push(entry("network_mode", scalar("bridge", position)));
    }
    // As `docker run` has it.
    if container.value.get("restart").is_none() {
        entries.push(entry("restart", scalar("no", container.key_position)));
    }
    Ok((order, map(entries, container.value.position)))
}

/// `container:` there names a container of the same document.
fn network_mode(node: Node) -> Result<Node, Diagnostic> {
    let written = any_text("net", &node)?;
    Ok(match written.strip_prefix("container:") {
        Some(name) => scalar(format!("service:{name}"), node.position),
        None => node,
    })
}
