//! What a signal's `data` says about the container, under the names of Heat's Docker plugin.
//!
//! Values are read from the engine's inspection, tolerantly: what the engine does not say is
//! `null`. The inspection itself (`info`) leaves out everything that a document's author wrote and
//! may have meant to be secret: environment, commands, arguments and health checks.

pub mod host;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::outputs::host::HostAddresses;
use crate::plan::{Output, OutputName};
use crate::text;

/// Heat's plugin gives the whole log; a signal is limited to a megabyte and an orchestrator's
/// database should not hold that much either.
const MAX_LOGS_BYTES: usize = 16 * 1024;

/// The longest `logs_head` and `logs_tail`.
const MAX_LOG_LINE_BYTES: usize = 1024;

/// An inspection has 10 KiB; one that is longer is not worth a place in a signal.
const MAX_INFO_BYTES: usize = 64 * 1024;

/// Keys whose values come from the document, wherever they stand in the inspection.
const SECRET_KEYS: [&str; 8] =
    ["Env", "Cmd", "Entrypoint", "Args", "Path", "Healthcheck", "LogConfig", "CreateCommand"];

/// What is known when the outputs are put together.
#[derive(Debug, Default)]
pub struct Facts {
    /// The engine's inspection of the container.
    pub inspection: Value,
    pub image_digest: Option<String>,
    /// The beginning and the end of the log, where an output asks for it.
    pub log_beginning: String,
    pub log_end: String,
    pub host: HostAddresses,
    pub timings: Map<String, Value>,
}

/// True if the log's beginning and end have to be read.
pub fn needs_logs(outputs: &[Output]) -> bool {
    let is_log = |output: &Output| {
        matches!(output.source, OutputName::Logs | OutputName::LogsHead | OutputName::LogsTail)
    };
    outputs.iter().any(is_log)
}

/// These outputs, under the names that they have in the document.
pub fn collect(outputs: &[Output], facts: &Facts) -> Map<String, Value> {
    let of = |output: &Output| {
        let value = value(output.source, facts);
        match &output.path {
            Some(path) => at_path(&value, path),
            None => value,
        }
    };
    outputs.iter().map(|output| (output.name.clone(), of(output))).collect()
}

/// What is at a place whose names have dots between them; null if nothing is. A name may have dots
/// itself, as those of labels have.
fn at_path(value: &Value, path: &str) -> Value {
    let inner = |name: &str| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    };
    if let Some(found) = inner(path) {
        return found.clone();
    }
    let through = path.match_indices('.').filter_map(|(dot, _)| {
        let found = at_path(inner(&path[..dot])?, &path[dot + 1..]);
        (!found.is_null()).then_some(found)
    });
    through.into_iter().next().unwrap_or(Value::Null)
}

fn value(name: OutputName, facts: &Facts) -> Value {
    let at = |pointer: &str| facts.inspection.pointer(pointer).cloned().unwrap_or(Value::Null);
    match name {
        OutputName::Info => info(&facts.inspection),
        OutputName::NetworkInfo => network_info(&facts.inspection),
        OutputName::NetworkIp => network_field(&facts.inspection, "IPAddress"),
        OutputName::NetworkGateway => network_field(&facts.inspection, "Gateway"),
        OutputName::NetworkTcpPorts => json!(host_ports(&facts.inspection, "/tcp")),
        OutputName::NetworkUdpPorts => json!(host_ports(&facts.inspection, "/udp")),
        OutputName::Logs => json!(text::clean_tail(&facts.log_end, MAX_LOGS_BYTES)),
        OutputName::LogsHead => log_line(facts.log_beginning.lines()),
        OutputName::LogsTail => log_line(facts.log_end.lines().rev()),
        OutputName::HostIp => json!(facts.host.primary),
        OutputName::HostIps => json!(facts.host.all),
        OutputName::ContainerId => at("/Id"),
        OutputName::ImageDigest => json!(facts.image_digest),
        OutputName::ExitCode => at("/State/ExitCode"),
        OutputName::OomKilled => at("/State/OOMKilled"),
        OutputName::Health => non_empty(at("/State/Health/Status")),
        OutputName::RestartCount => at("/RestartCount"),
        OutputName::StartedAt => at("/State/StartedAt"),
        OutputName::Timings => Value::Object(facts.timings.clone()),
    }
}

/// The inspection without what may be secret.
fn info(inspection: &Value) -> Value {
    let info = without_secrets(inspection);
    if info.to_string().len() > MAX_INFO_BYTES {
        return Value::Null;
    }
    info
}

fn without_secrets(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| !SECRET_KEYS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), without_secrets(value)))
            .collect(),
        Value::Array(list) => list.iter().map(without_secrets).collect(),
        other => other.clone(),
    }
}

/// Heat's plugin adds the joined ports to the engine's network settings.
fn network_info(inspection: &Value) -> Value {
    let mut settings = inspection.get("NetworkSettings").cloned().unwrap_or(Value::Null);
    if let Some(settings) = settings.as_object_mut() {
        settings.insert("TcpPorts".to_owned(), json!(host_ports(inspection, "/tcp")));
        settings.insert("UdpPorts".to_owned(), json!(host_ports(inspection, "/udp")));
    }
    settings
}

/// The container's address on the default network, or on its first network: the field at the top
/// is empty for a network that somebody made.
fn network_field(inspection: &Value, field: &str) -> Value {
    let settings = inspection.get("NetworkSettings");
    let top = settings.and_then(|settings| settings.get(field)).cloned().unwrap_or(Value::Null);
    if !non_empty(top.clone()).is_null() {
        return top;
    }
    let networks =
        settings.and_then(|settings| settings.get("Networks")).and_then(Value::as_object);
    let mut addresses = networks.into_iter().flat_map(|networks| networks.values());
    let address = addresses.find_map(|network| network.get(field).cloned().map(non_empty));
    address.unwrap_or(Value::Null)
}

fn non_empty(value: Value) -> Value {
    if value.as_str() == Some("") { Value::Null } else { value }
}

/// The published ports of a protocol on the host, in numerical order, joined by commas. An IPv4
/// and an IPv6 binding of one port are one.
fn host_ports(inspection: &Value, protocol: &str) -> String {
    let ports = inspection.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
    let host_ports: BTreeSet<u16> = ports
        .into_iter()
        .flatten()
        .filter(|(port, _)| port.ends_with(protocol))
        .flat_map(|(_, bindings)| bindings.as_array().into_iter().flatten())
        .filter_map(|binding| binding.get("HostPort")?.as_str()?.parse().ok())
        .collect();
    host_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// The first line that is not empty.
fn log_line<'a>(mut lines: impl Iterator<Item = &'a str>) -> Value {
    let line = lines.find(|line| !line.trim().is_empty());
    json!(line.map(|line| text::shorten(&text::clean_tail(line, line.len()), MAX_LOG_LINE_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_sorted_by_number_and_merged() {
        let check = |ports: Value, expect: (&str, &str)| {
            let inspection = json!({"NetworkSettings": {"Ports": ports}});
            let seen = (host_ports(&inspection, "/tcp"), host_ports(&inspection, "/udp"));
            assert_eq!((seen.0.as_str(), seen.1.as_str()), expect, "{inspection}");
        };
        check(json!({}), ("", ""));
        check(Value::Null, ("", ""));
        check(json!({"80/tcp": null}), ("", ""));
        check(
            json!({
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
                "443/tcp": [{"HostIp": "", "HostPort": "443"}],
                "53/udp": [{"HostIp": "", "HostPort": "10053"}],
                "54/udp": [{"HostIp": "", "HostPort": "9053"}, {"HostIp": "", "HostPort": "?"}],
            }),
            ("443,8080", "9053,10053"),
        );
    }

    #[test]
    fn the_address_is_that_of_the_first_network_with_one() {
        let check = |settings: Value, expect: Value| {
            let inspection = json!({"NetworkSettings": settings});
            assert_eq!(network_field(&inspection, "IPAddress"), expect);
        };
        check(json!({"IPAddress": "10.0.0.2", "Networks": {}}), json!("10.0.0.2"));
        check(
            json!({"IPAddress": "", "Networks": {"a": {"IPAddress": "10.1.0.2"}}}),
            json!("10.1.0.2"),
        );
        check(json!({"IPAddress": "", "Networks": {"host": {"IPAddress": ""}}}), Value::Null);
        check(Value::Null, Value::Null);
    }

    #[test]
    fn info_carries_no_secret() {
        let inspection = json!({
            "Id": "1", "Path": "/bin/sh", "Args": ["-c", "hunter2"],
            "Config": {"Env": ["PASSWORD=hunter2"], "Cmd": ["hunter2"], "Image": "web"},
            "HostConfig": {"LogConfig": {"Config": {"splunk-token": "hunter2"}}},
        });
        let info = info(&inspection);
        assert_eq!(info, json!({"Id": "1", "Config": {"Image": "web"}, "HostConfig": {}}));
        assert_eq!(super::info(&json!({"x": "y".repeat(MAX_INFO_BYTES)})), Value::Null);
    }

    #[test]
    fn log_lines_are_the_first_and_the_last_that_say_something() {
        let facts = Facts {
            log_beginning: "\n \nfirst\nsecond\n".to_owned(),
            log_end: "before\nlast\u{7}\n\n".to_owned(),
            ..Facts::default()
        };
        let names =
            [OutputName::LogsHead, OutputName::LogsTail, OutputName::Logs].map(Output::from);
        assert!(needs_logs(&names));
        let expect = json!({"logs_head": "first", "logs_tail": "last", "logs": "before\nlast"});
        assert_eq!(Value::Object(collect(&names, &facts)), expect);

        let names = [OutputName::LogsHead, OutputName::LogsTail].map(Output::from);
        let expect = json!({"logs_head": null, "logs_tail": null});
        assert_eq!(Value::Object(collect(&names, &Facts::default())), expect);
    }

    #[test]
    fn an_output_may_be_a_place_in_another() {
        let inspection = json!({
            "State": {"StartedAt": "now"},
            "Config": {"Labels": {"com.example.team": "web"}},
            "Mounts": [{"Destination": "/data"}],
        });
        let facts = Facts { inspection, ..Facts::default() };
        let check = |path: &str, expect: Value| {
            let path = Some(path.to_owned());
            let output = Output { name: "mine".to_owned(), source: OutputName::Info, path };
            assert_eq!(collect(&[output], &facts)["mine"], expect);
        };
        check("State.StartedAt", json!("now"));
        check("Config.Labels.com.example.team", json!("web"));
        check("Mounts.0.Destination", json!("/data"));
        check("Mounts.1.Destination", Value::Null);
        check("Mounts.first", Value::Null);
        check("State.StartedAt.Year", Value::Null);
        check("Nothing", Value::Null);
    }

    #[test]
    fn every_name_has_a_value_without_a_container() {
        let outputs = collect(&OutputName::ALL.map(Output::from), &Facts::default());
        assert_eq!(outputs.len(), OutputName::ALL.len());
    }
}
