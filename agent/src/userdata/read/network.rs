//! The values that name other containers and networks.

use serde_json::{Map, Value as Json, json};

use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::fields::Fields;
use crate::userdata::read::plain::{
    address, addresses, entries, list, mac_address, number, one_or_more, settings, texts,
};
use crate::userdata::scalar::{bad, text, wrong_type};
use crate::userdata::schema::Kind;
use crate::userdata::schema::parts::SERVICE_NETWORK;
use crate::userdata::value::{Link, Peer, ServiceNetwork, VolumesFrom};
use crate::userdata::yaml::{Content, Node};

/// `network_mode`. A network's own name belongs to `networks`.
pub(super) fn mode(label: &str, node: &Node) -> Result<Peer, Diagnostic> {
    peer(label, node, &["bridge", "host", "none"], Kind::NetworkMode.shape())
}

/// `ipc` and `pid`.
pub(super) fn namespace(label: &str, node: &Node) -> Result<Peer, Diagnostic> {
    let words: &[&str] = match label {
        "pid" => &["host"],
        _ => &["host", "private", "shareable", "none"],
    };
    peer(label, node, words, Kind::Namespace.shape())
}

fn peer(label: &str, node: &Node, words: &[&str], shape: &str) -> Result<Peer, Diagnostic> {
    let written = text(label, node, shape)?;
    if words.contains(&written) {
        return Ok(Peer::Word(written.to_owned()));
    }
    match written.split_once(':') {
        Some(("service", name)) if is_name(name) => Ok(Peer::Service(name.to_owned())),
        Some(("container", name)) if is_name(name) => Ok(Peer::Container(name.to_owned())),
        _ => {
            let diagnostic = bad("bad_word", label, node, shape);
            Err(match label {
                "network_mode" => diagnostic.suggest("name other networks under `networks`"),
                _ => diagnostic,
            })
        }
    }
}

/// A name of a service, a container or a network.
pub(crate) fn is_name(name: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    starts_well && name.len() <= 128 && name.bytes().all(is_word)
}

fn checked<'a>(label: &str, node: &Node, name: &'a str) -> Result<&'a str, Diagnostic> {
    if is_name(name) {
        return Ok(name);
    }
    Err(bad("bad_name", label, node, "names of letters, digits, `_`, `.` and `-`"))
}

/// A list of `name[:alias]`, or a map of name to alias.
pub(super) fn links(label: &str, node: &Node) -> Result<Vec<Link>, Diagnostic> {
    let link = |name: &str, alias: &str, node: &Node| -> Result<Link, Diagnostic> {
        let name = checked(label, node, name)?.to_owned();
        Ok(Link { name, alias: checked(label, node, alias)?.to_owned() })
    };
    match &node.content {
        Content::Map(entries) => entries
            .iter()
            .map(|entry| link(&entry.key, text(label, &entry.value, "a name")?, &entry.value))
            .collect(),
        Content::List(items) => items
            .iter()
            .map(|item| {
                let written = text(label, item, "name[:alias]")?;
                let (name, alias) = written.split_once(':').unwrap_or((written, written));
                link(name, alias, item)
            })
            .collect(),
        Content::Scalar(_) => Err(wrong_type(label, node, Kind::Links.shape())),
    }
}

/// `[container:]name[:ro|rw]`, one or more.
pub(super) fn volumes_from(label: &str, node: &Node) -> Result<Vec<VolumesFrom>, Diagnostic> {
    let shape = Kind::VolumesFrom.shape();
    let mut sources = Vec::new();
    for item in one_or_more(label, node, shape)? {
        let written = text(label, item, shape)?;
        let (written, read_only) = match written.rsplit_once(':') {
            Some((rest, "ro")) => (rest, true),
            Some((rest, "rw")) => (rest, false),
            _ => (written, false),
        };
        let source = match written.strip_prefix("container:") {
            Some(name) => Peer::Container(checked(label, item, name)?.to_owned()),
            None => Peer::Service(checked(label, item, written)?.to_owned()),
        };
        sources.push(VolumesFrom { source, read_only });
    }
    Ok(sources)
}

/// The engine's form: `name:address`.
pub(super) fn extra_hosts(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    let shape = Kind::ExtraHosts.shape();
    let host = |name: &str, to: &str, node: &Node| -> Result<String, Diagnostic> {
        let name = checked(label, node, name.trim())?;
        let to = to.trim();
        let bare = to.strip_prefix('[').and_then(|to| to.strip_suffix(']')).unwrap_or(to);
        if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(bad("bad_address", label, node, shape));
        }
        Ok(format!("{name}:{bare}"))
    };
    match &node.content {
        Content::Map(entries) => {
            let mut hosts = Vec::new();
            for entry in entries {
                for item in one_or_more(label, &entry.value, shape)? {
                    hosts.push(host(&entry.key, text(label, item, shape)?, item)?);
                }
            }
            Ok(hosts)
        }
        Content::List(items) => items
            .iter()
            .map(|item| {
                let written = text(label, item, shape)?;
                let split = written.split_once('=').or_else(|| written.split_once(':'));
                let (name, to) = split.ok_or_else(|| bad("bad_address", label, item, shape))?;
                host(name, to, item)
            })
            .collect(),
        Content::Scalar(_) => Err(wrong_type(label, node, shape)),
    }
}

/// A list of names, or a map of names to what the container has there.
pub(super) fn networks(label: &str, node: &Node) -> Result<Vec<ServiceNetwork>, Diagnostic> {
    let mut networks: Vec<ServiceNetwork> = Vec::new();
    match &node.content {
        Content::List(_) => {
            for item in list(label, node, Kind::Networks.shape())? {
                let name = checked(label, item, text(label, item, "a name")?)?;
                if networks.iter().any(|network| network.network == name) {
                    let message = format!("{} names one network twice", quote_key(label));
                    return Err(Diagnostic::new("duplicate_key", item.position, message));
                }
                networks.push(plain_network(name));
            }
        }
        _ => {
            for entry in entries(label, node, Kind::Networks.shape())? {
                let name = checked(label, &entry.value, &entry.key)?;
                networks.push(if entry.value.is_null() {
                    plain_network(name)
                } else {
                    network(name, &entry.value)?
                });
            }
        }
    }
    // The first is the one that the container is made in.
    networks.sort_by_key(|network| std::cmp::Reverse(network.priority));
    Ok(networks)
}

fn plain_network(name: &str) -> ServiceNetwork {
    let network = name.to_owned();
    ServiceNetwork { network, aliases: Vec::new(), endpoint: json!({}), priority: 0 }
}

fn network(name: &str, node: &Node) -> Result<ServiceNetwork, Diagnostic> {
    let fields = Fields::of("an entry of `networks`", node, SERVICE_NETWORK.keys)?;
    let mut network = plain_network(name);
    let (mut endpoint, mut ipam) = (Map::new(), Map::new());
    let mut put = |name: &str, value: Json| endpoint.insert(name.to_owned(), value);
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        match label {
            "aliases" => network.aliases = texts(label, node)?,
            "priority" => network.priority = number(label, node, -1_000_000, 1_000_000)?,
            "ipv4_address" => {
                drop(ipam.insert("IPv4Address".into(), address_of(label, node, true)?));
            }
            "ipv6_address" => {
                drop(ipam.insert("IPv6Address".into(), address_of(label, node, false)?));
            }
            "link_local_ips" => {
                ipam.insert("LinkLocalIPs".into(), addresses(label, node)?.into());
            }
            "driver_opts" => drop(put("DriverOpts", settings(label, node)?)),
            // `mac_address`
            _ => drop(put("MacAddress", mac_address(label, node)?.into())),
        }
    }
    if !ipam.is_empty() {
        put("IPAMConfig", Json::Object(ipam));
    }
    network.endpoint = Json::Object(endpoint);
    Ok(network)
}

fn address_of(label: &str, node: &Node, is_ipv4: bool) -> Result<Json, Diagnostic> {
    let written = address(label, node)?;
    if written.contains(':') == is_ipv4 {
        let shape = if is_ipv4 { "an IPv4 address" } else { "an IPv6 address" };
        return Err(bad("bad_address", label, node, shape));
    }
    Ok(written.into())
}
