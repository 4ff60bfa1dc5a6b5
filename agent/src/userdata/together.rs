//! What services say of one another and of what they share: everything named is there, and nothing
//! waits for itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::userdata::diagnostic::{Diagnostic, Position, quote_key};
use crate::userdata::document::{Document, Service};
use crate::userdata::services::Written;
use crate::userdata::suggest::nearest;
use crate::userdata::value::{Peer, Value};
use crate::userdata::volumes::MountSource;

/// Containers of one document, `scale` counted.
const MAX_CONTAINERS: u32 = 128;

pub(crate) fn check(document: &Document, written: &[Written]) -> Result<(), Diagnostic> {
    let names: BTreeSet<&str> = written.iter().map(|one| one.service.name.as_str()).collect();
    for one in written {
        check_services(document, one, &names)?;
        check_shared(document, one)?;
    }
    check_counts(written)?;
    check_cycles(written)
}

fn check_counts(written: &[Written]) -> Result<(), Diagnostic> {
    let mut n_containers = 0;
    let mut container_names = BTreeSet::new();
    for one in written {
        n_containers += scale(&one.service);
        for index in 1..=scale(&one.service) {
            let name = container_name(&one.service, index);
            if n_containers > MAX_CONTAINERS || !container_names.insert(name) {
                let message = "the document has too many containers, or two of the same name";
                return Err(Diagnostic::new("bad_services", one.position, message));
            }
        }
    }
    Ok(())
}

/// How many containers a service has.
pub(crate) fn scale(service: &Service) -> u32 {
    match service.values.get("scale") {
        Some(Value::Count(count)) => *count,
        _ => 1,
    }
}

/// The name of a service's container, counted from 1.
pub(crate) fn container_name(service: &Service, index: u32) -> String {
    match service.values.get("container_name") {
        Some(Value::Text(name)) => name.clone(),
        _ => format!("heliograph-{}-{index}", service.name),
    }
}

/// The other services that a service needs, with the key that says so.
pub(crate) fn needed(service: &Service) -> Vec<(&'static str, &str, bool)> {
    let mut needed = Vec::new();
    for (key, value) in &service.values {
        match value {
            Value::DependsOn(others) => {
                needed.extend(
                    others.iter().map(|other| (*key, other.service.as_str(), other.required)),
                );
            }
            Value::Peer(Peer::Service(name)) => needed.push((*key, name, true)),
            Value::VolumesFrom(sources) => {
                for source in sources {
                    if let Peer::Service(name) = &source.source {
                        needed.push((*key, name, true));
                    }
                }
            }
            Value::Links(links) if *key == "links" => {
                needed.extend(links.iter().map(|link| (*key, link.name.as_str(), true)));
            }
            _ => {}
        }
    }
    needed
}

fn check_services(
    document: &Document,
    one: &Written,
    names: &BTreeSet<&str>,
) -> Result<(), Diagnostic> {
    for (key, name, required) in needed(&one.service) {
        // Beside one service there are only containers, which these keys name as well.
        let may_be_container = !document.is_composed && matches!(key, "links" | "volumes_from");
        if names.contains(name) || may_be_container || !required {
            continue;
        }
        let message =
            format!("{} names {}, which is no active service", quote_key(key), quote_key(name));
        let diagnostic = Diagnostic::new("unknown_service", place(one, key), message);
        return Err(match nearest(name, names.iter().copied()) {
            Some(meant) => diagnostic.suggest(format!("did you mean {}?", quote_key(meant))),
            None if key == "volumes_from" => {
                diagnostic.suggest("write `container:` before a container's name")
            }
            None => diagnostic,
        });
    }
    Ok(())
}

fn place(one: &Written, key: &str) -> Position {
    one.places.get(key).copied().unwrap_or(one.position)
}

fn check_shared(document: &Document, one: &Written) -> Result<(), Diagnostic> {
    for (key, value) in &one.service.values {
        match value {
            Value::Grants(grants) => {
                let known = if *key == "secrets" { &document.secrets } else { &document.configs };
                for grant in grants {
                    require(one, key, &grant.source, known.keys())?;
                }
            }
            Value::Networks(networks) if document.is_composed => {
                for network in networks.iter().filter(|network| network.network != "default") {
                    require(one, key, &network.network, document.networks.keys())?;
                }
            }
            Value::Mounts(mounts) if document.is_composed => {
                for mount in mounts.iter().filter(|mount| mount.device.is_none()) {
                    if let MountSource::Volume(name) = &mount.source {
                        require(one, key, name, document.volumes.keys())?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn require<'a>(
    one: &Written,
    key: &str,
    name: &str,
    known: impl Iterator<Item = &'a String>,
) -> Result<(), Diagnostic> {
    let known: Vec<&str> = known.map(String::as_str).collect();
    if known.contains(&name) {
        return Ok(());
    }
    let message = format!("the document's {} have no {}", quote_key(key), quote_key(name));
    let diagnostic = Diagnostic::new("unknown_name", place(one, key), message);
    Err(match nearest(name, known.iter().copied()) {
        Some(meant) => diagnostic.suggest(format!("did you mean {}?", quote_key(meant))),
        None => diagnostic.suggest(format!("add it to the {} of the document", quote_key(key))),
    })
}

/// Goes along the needs of each service; to come back to one that is on the way is a cycle.
fn check_cycles(written: &[Written]) -> Result<(), Diagnostic> {
    let by_name: BTreeMap<&str, &Written> =
        written.iter().map(|one| (one.service.name.as_str(), one)).collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for one in written {
        let mut way: Vec<&str> = Vec::new();
        walk(&by_name, &one.service.name, &mut way, &mut done)?;
    }
    Ok(())
}

/// At most as deep as there are services, of which there are few.
fn walk<'a>(
    by_name: &BTreeMap<&'a str, &'a Written>,
    name: &'a str,
    way: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Result<(), Diagnostic> {
    let Some(one) = by_name.get(name) else { return Ok(()) };
    if done.contains(name) {
        return Ok(());
    }
    way.push(name);
    for (key, other, _) in needed(&one.service) {
        if let Some(start) = way.iter().position(|before| *before == other) {
            let cycle: Vec<String> =
                way[start..].iter().chain([&other]).map(|name| quote_key(name)).collect();
            let message = format!("services wait for each other: {}", cycle.join(" → "));
            return Err(Diagnostic::new("dependency_cycle", place(one, key), message));
        }
        walk(by_name, other, way, done)?;
    }
    way.pop();
    done.insert(name);
    Ok(())
}
