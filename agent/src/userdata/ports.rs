//! `ports`: short `[ip:][host:]container[/protocol]`, and the map form.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::fields::Fields;
use crate::userdata::read::plain::{entries, one_or_more};
use crate::userdata::scalar::{any_text, wrong_type};
use crate::userdata::schema::parts::PORT;
use crate::userdata::schema::{Key, Kind, Placement, keys};
use crate::userdata::yaml::{Content, Node};

/// Ports published by one document. The engine starts a proxy process for each; a thousand of
/// them make the start of a container take minutes.
pub(crate) const MAX_PUBLISHED_PORTS: usize = 1024;

/// One port of the container and where the instance publishes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct PortMapping {
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host_port: HostPort,
}

/// Where a port is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HostPort {
    /// Any free one.
    Any,
    Fixed(u16),
    /// Any free one of these.
    OneOf(u16, u16),
    /// None: the port is only exposed.
    Unpublished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    fn parse(text: &str) -> Option<Protocol> {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        protocols.into_iter().find(|p| text.eq_ignore_ascii_case(p.as_str()))
    }
}

const SHAPE: &str = "[ip:][host:]container[/protocol] with ports from 1 to 65535, or a map";

/// Reads the whole list.
pub(crate) fn read(label: &str, node: &Node) -> Result<Vec<PortMapping>, Diagnostic> {
    let Content::List(items) = &node.content else {
        return Err(wrong_type(label, node, "a list of ports"));
    };
    let mut mappings: Vec<PortMapping> = Vec::new();
    let mut published = HashSet::new();
    for item in items {
        let expanded = match &item.content {
            Content::Map(_) => read_map(label, item)?,
            Content::Scalar(_) => {
                let text = any_text(label, item)?;
                parse_short(text).ok_or_else(|| bad_port(label, item, SHAPE))?
            }
            Content::List(_) => return Err(wrong_type(label, item, SHAPE)),
        };
        for mapping in expanded {
            let is_fixed = matches!(mapping.host_port, HostPort::Fixed(_));
            let place = (mapping.host_ip, mapping.host_port, mapping.protocol);
            if is_fixed && !published.insert(place) {
                let message =
                    format!("{} publishes a port of the instance twice", quote_key(label));
                return Err(Diagnostic::new("duplicate_port", item.position, message));
            }
            mappings.push(mapping);
        }
        if mappings.len() > MAX_PUBLISHED_PORTS {
            let message =
                format!("{} publishes more than {MAX_PUBLISHED_PORTS} ports", quote_key(label));
            return Err(Diagnostic::new("too_many_ports", item.position, message));
        }
    }
    Ok(mappings)
}

/// `expose` and Heat's `port_specs`. What names a port of the instance, as `port_specs` once did,
/// publishes it.
pub(crate) fn exposed(
    label: &str,
    node: &Node,
    context: &mut Context,
) -> Result<Vec<PortMapping>, Diagnostic> {
    let mut mappings = Vec::new();
    for item in one_or_more(label, node, "a list of ports")? {
        let expanded = parse_short(any_text(label, item)?);
        let expanded = expanded.ok_or_else(|| bad_port(label, item, "container[/protocol]"))?;
        if any_text(label, item)?.contains(':') {
            let message =
                "an entry of `expose` publishes a port of the instance; write it under `ports`";
            context.warn("old_key", item.position, message);
            mappings.extend(expanded);
        } else {
            let unpublished = |mapping| PortMapping { host_port: HostPort::Unpublished, ..mapping };
            mappings.extend(expanded.into_iter().map(unpublished));
        }
        check_count(label, item, &mappings)?;
    }
    Ok(mappings)
}

/// Heat's `port_bindings`, whose keys are the container's ports.
pub(crate) fn bindings(label: &str, node: &Node) -> Result<Vec<PortMapping>, Diagnostic> {
    let mut mappings = Vec::new();
    for entry in entries(label, node, "a map of container[/protocol] to ports of the instance")? {
        let shape = "container[/protocol] with ports from 1 to 65535 as keys";
        let container = parse_short(&entry.key).filter(|_| !entry.key.contains(':'));
        let container = container.ok_or_else(|| bad_port(label, &entry.value, shape))?;
        let places = match &entry.value.content {
            Content::List(items) => items.iter().collect(),
            _ => vec![&entry.value],
        };
        for place in places {
            for container in &container {
                mappings.push(bound(label, place, container)?);
            }
        }
        check_count(label, &entry.value, &mappings)?;
    }
    Ok(mappings)
}

fn bound(label: &str, node: &Node, container: &PortMapping) -> Result<PortMapping, Diagnostic> {
    let shape = "a port, a list of ports, or a list of maps with HostIp and HostPort";
    if node.is_null() {
        return Ok(container.clone());
    }
    let (ip, port) = match &node.content {
        Content::Map(_) => {
            let fields = Fields::of(&format!("an entry of {}", quote_key(label)), node, BINDING)?;
            let ip = match fields.get("host_ip") {
                Some(field) => any_text("host_ip", field.node)?,
                None => "",
            };
            (ip, any_text("host_port", fields.require("host_port")?.node)?)
        }
        _ => {
            let written = any_text(label, node)?;
            written.rsplit_once(':').unwrap_or(("", written))
        }
    };
    let host_ip = match ip {
        "" => None,
        ip => Some(parse_ip(ip).ok_or_else(|| bad_port(label, node, shape))?),
    };
    let host_port = match port {
        "" => HostPort::Any,
        port => HostPort::Fixed(parse_port(port).ok_or_else(|| bad_port(label, node, shape))?),
    };
    Ok(PortMapping { host_ip, host_port, ..container.clone() })
}

/// The keys of one place in `port_bindings`, as the Engine API has them.
static BINDING: &[Key] = keys! {
    "host_ip", "HostIp" => Kind::Part("an IP address"), Placement::Elsewhere(""); default "every address"; from "heat";
        "The address of the instance to listen on."
    "host_port", "HostPort" => Kind::Part("a port"), Placement::Elsewhere(""); default "required"; from "heat";
        "The port of the instance."
};

fn check_count(label: &str, node: &Node, mappings: &[PortMapping]) -> Result<(), Diagnostic> {
    if mappings.len() > MAX_PUBLISHED_PORTS {
        let message = format!("{} has more than {MAX_PUBLISHED_PORTS} ports", quote_key(label));
        return Err(Diagnostic::new("too_many_ports", node.position, message));
    }
    Ok(())
}

fn bad_port(label: &str, node: &Node, shape: &str) -> Diagnostic {
    let message = format!("an entry of {} must be {shape}", quote_key(label));
    Diagnostic::new("bad_port", node.position, message)
}

fn read_map(label: &str, node: &Node) -> Result<Vec<PortMapping>, Diagnostic> {
    let fields = Fields::of(&format!("an entry of {}", quote_key(label)), node, PORT.keys)?;
    let text_of = |name: &'static str| -> Result<Option<(&str, &Node)>, Diagnostic> {
        let Some(field) = fields.get(name) else { return Ok(None) };
        Ok(Some((any_text(name, field.node)?, field.node)))
    };
    let target = fields.require("target")?;
    let container = any_text("target", target.node)?;
    let container = parse_range(container)
        .ok_or_else(|| bad_port(label, target.node, "a port from 1 to 65535 as its `target`"))?;
    let host = match text_of("published")? {
        Some(("", _)) | None => None,
        Some((text, node)) => Some(parse_range(text).ok_or_else(|| {
            bad_port(label, node, "a port or a range of ports as its `published`")
        })?),
    };
    let host_ip = match text_of("host_ip")? {
        Some((text, node)) => Some(
            parse_ip(text)
                .ok_or_else(|| bad_port(label, node, "an IP address as its `host_ip`"))?,
        ),
        None => None,
    };
    let protocol = match text_of("protocol")? {
        Some((text, node)) => Protocol::parse(text)
            .ok_or_else(|| bad_port(label, node, "tcp, udp or sctp as its `protocol`"))?,
        None => Protocol::Tcp,
    };
    pair(host_ip, host, container, protocol)
        .ok_or_else(|| bad_port(label, node, "ranges of the same length"))
}

/// `[ip:][host:]container[/protocol]`; an IPv6 address stands in brackets.
fn parse_short(text: &str) -> Option<Vec<PortMapping>> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, Protocol::parse(protocol)?),
        None => (text, Protocol::Tcp),
    };
    let (host, container) = match ports.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, ports),
    };
    let (host_ip, host) = match host {
        Some(host) => match host.rsplit_once(':') {
            Some((ip, host)) => (Some(parse_ip(ip)?), host),
            None => (None, host),
        },
        None => (None, ""),
    };
    // `ip::80` publishes any free port of that address; `:80` is a slip.
    let host = match host {
        "" if host_ip.is_some() || !ports.contains(':') => None,
        host => Some(parse_range(host)?),
    };
    pair(host_ip, host, parse_range(container)?, protocol)
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    let unbracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    unbracketed.unwrap_or(text).parse().ok()
}

/// `80` or `8000-8010`.
fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    (first <= last).then_some((first, last))
}

fn parse_port(text: &str) -> Option<u16> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_digits && *port > 0)
}

/// Pairs a host range with a container range: of the same length, or many hosts for one container
/// port, which means any free one of them.
fn pair(
    host_ip: Option<IpAddr>,
    host: Option<(u16, u16)>,
    (first, last): (u16, u16),
    protocol: Protocol,
) -> Option<Vec<PortMapping>> {
    let mapping =
        |container_port, host_port| PortMapping { container_port, protocol, host_ip, host_port };
    match host {
        None => Some((first..=last).map(|port| mapping(port, HostPort::Any)).collect()),
        Some((host_first, host_last)) if host_last - host_first == last - first => {
            let pairs = (first..=last).zip(host_first..=host_last);
            Some(pairs.map(|(port, host)| mapping(port, HostPort::Fixed(host))).collect())
        }
        Some((host_first, host_last)) if first == last => {
            Some(vec![mapping(first, HostPort::OneOf(host_first, host_last))])
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::userdata::yaml;

    fn check(written: &str, expected: Result<&str, &str>) {
        let node = yaml::parse(written).unwrap().unwrap();
        let got = read("ports", &node);
        let got: Result<String, &str> = match &got {
            Ok(mappings) => Ok(mappings.iter().map(show).collect::<Vec<_>>().join(" ")),
            Err(diagnostic) => Err(diagnostic.code),
        };
        assert_eq!(got.as_deref().map_err(|code| *code), expected, "{written}");
    }

    fn show(mapping: &PortMapping) -> String {
        let ip = mapping.host_ip.map(|ip| format!("{ip}|")).unwrap_or_default();
        let host = match mapping.host_port {
            HostPort::Unpublished => "none".to_owned(),
            HostPort::Any => "*".to_owned(),
            HostPort::Fixed(port) => port.to_string(),
            HostPort::OneOf(first, last) => format!("{first}-{last}"),
        };
        format!("{ip}{host}>{}/{}", mapping.container_port, mapping.protocol.as_str())
    }

    #[test]
    fn short_form() {
        let cases = [
            ("[80]", Ok("*>80/tcp")),
            ("['80']", Ok("*>80/tcp")),
            ("[8080:80]", Ok("8080>80/tcp")),
            ("['53:53/udp', '53:53/tcp']", Ok("53>53/udp 53>53/tcp")),
            ("['127.0.0.1:8080:80']", Ok("127.0.0.1|8080>80/tcp")),
            ("['127.0.0.1::80']", Ok("127.0.0.1|*>80/tcp")),
            ("['[::1]:8080:80']", Ok("::1|8080>80/tcp")),
            ("['3000-3001:4000-4001']", Ok("3000>4000/tcp 3001>4001/tcp")),
            ("['3000-3001']", Ok("*>3000/tcp *>3001/tcp")),
            ("['9000-9010:80']", Ok("9000-9010>80/tcp")),
            ("[]", Ok("")),
            ("['0:80']", Err("bad_port")),
            ("['65536']", Err("bad_port")),
            ("['+80']", Err("bad_port")),
            ("[':80']", Err("bad_port")),
            ("['80:']", Err("bad_port")),
            ("['web:80']", Err("bad_port")),
            ("['1.2.3:80:80']", Err("bad_port")),
            ("['80/icmp']", Err("bad_port")),
            ("['3000-3002:4000-4001']", Err("bad_port")),
            ("['10-5']", Err("bad_port")),
            ("['80:80', '80:81']", Err("duplicate_port")),
            ("['1-2000']", Err("too_many_ports")),
            ("[[80]]", Err("wrong_type")),
            ("[null]", Err("missing_value")),
            ("'80:80'", Err("wrong_type")),
        ];
        for (written, expected) in cases {
            check(written, expected);
        }
    }

    #[test]
    fn map_form() {
        let cases = [
            ("[{target: 80}]", Ok("*>80/tcp")),
            ("[{target: 80, published: '8080', protocol: udp}]", Ok("8080>80/udp")),
            ("[{target: 80, published: 8080-8090}]", Ok("8080-8090>80/tcp")),
            ("[{target: 80, published: 8080, host_ip: '::1'}]", Ok("::1|8080>80/tcp")),
            ("[{published: 80}]", Err("missing_key")),
            ("[{target: http}]", Err("bad_port")),
            ("[{target: 80, publish: 80}]", Err("unknown_key")),
            ("[{target: 80, protocol: icmp}]", Err("bad_port")),
        ];
        for (written, expected) in cases {
            check(written, expected);
        }
    }
}
