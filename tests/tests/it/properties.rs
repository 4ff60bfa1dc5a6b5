//! Heat's Docker plugin, property by property and attribute by attribute, against what the engine
//! says it made.
//!
//! The rows of [`PROPERTIES`] are the plugin's 25 properties in both spellings. `docs/document.md`
//! has the same table for people.

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::Kind;
use serde_json::Value;

use crate::stage::{IDLE, Scene, Stage, Waiting, only_data};

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("properties::docker::snake_case", |stage| properties(stage, Spelling::Snake)),
        Scene::new("properties::docker::camel_case", |stage| properties(stage, Spelling::Camel)),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Heat's names today.
    Snake,
    /// Those of 2013.
    Camel,
}

/// One property: its two names, its value, and what the engine then says, where.
struct Property {
    snake: &'static str,
    camel: &'static str,
    value: &'static str,
    pointer: &'static str,
    /// JSON.
    expected: &'static str,
}

const fn property(
    snake: &'static str,
    camel: &'static str,
    value: &'static str,
    pointer: &'static str,
    expected: &'static str,
) -> Property {
    Property { snake, camel, value, pointer, expected }
}

/// `{port}` is a free port of the machine.
const PROPERTIES: [Property; 25] = [
    property(
        "docker_endpoint",
        "DockerEndpoint",
        "tcp://192.0.2.1:2375",
        "/Config/Domainname",
        "\"\"",
    ),
    property("hostname", "Hostname", "web-1", "/Config/Hostname", "\"web-1\""),
    property("user", "User", "\"1000:1000\"", "/Config/User", "\"1000:1000\""),
    property("memory", "Memory", "67108864", "/HostConfig/Memory", "67108864"),
    property("port_specs", "PortSpecs", "[\"3306\"]", "/Config/ExposedPorts/3306~1tcp", "{}"),
    property(
        "port_bindings",
        "PortBindings",
        "{80/tcp: {port}}",
        "/HostConfig/PortBindings/80~1tcp/0/HostPort",
        "\"{port}\"",
    ),
    property("links", "Links", "{database: db}", "/HostConfig/Links", "[\"/database:/plugin/db\"]"),
    property("name", "Name", "plugin", "/Name", "\"/plugin\""),
    property("privileged", "Privileged", "true", "/HostConfig/Privileged", "true"),
    property("tty", "Tty", "true", "/Config/Tty", "true"),
    property("open_stdin", "OpenStdin", "true", "/Config/OpenStdin", "true"),
    property("stdin_once", "StdinOnce", "true", "/Config/StdinOnce", "true"),
    property("env", "Env", "[\"A=1\", \"B=x y\"]", "/Config/Env", "[\"A=1\",\"B=x y\"]"),
    property("cmd", "Cmd", "[/bin/sh, -c, {idle}]", "/Config/Cmd/1", "\"-c\""),
    property("dns", "Dns", "[192.0.2.53]", "/HostConfig/Dns", "[\"192.0.2.53\"]"),
    property("image", "Image", "busybox", "/Config/Image", "\"busybox\""),
    property(
        "volumes",
        "Volumes",
        "{shared-data: {bind: /data, ro: true}}",
        "/HostConfig/Binds",
        "[\"shared-data:/data:ro\"]",
    ),
    property(
        "volumes_from",
        "VolumesFrom",
        "[database]",
        "/HostConfig/VolumesFrom",
        "[\"database\"]",
    ),
    property(
        "restart_policy",
        "RestartPolicy",
        "{Name: on-failure, MaximumRetryCount: 3}",
        "/HostConfig/RestartPolicy",
        "{\"Name\":\"on-failure\",\"MaximumRetryCount\":3}",
    ),
    property("cap_add", "CapAdd", "[NET_ADMIN]", "/HostConfig/CapAdd", "[\"CAP_NET_ADMIN\"]"),
    property("cap_drop", "CapDrop", "[MKNOD]", "/HostConfig/CapDrop", "[\"CAP_MKNOD\"]"),
    property("read_only", "ReadOnly", "true", "/HostConfig/ReadonlyRootfs", "true"),
    property("cpu_shares", "CpuShares", "512", "/HostConfig/CpuShares", "512"),
    property(
        "devices",
        "Devices",
        "[{path_on_host: /dev/null, path_in_container: /dev/zilch, permissions: rw}]",
        "/HostConfig/Devices",
        "[{\"PathOnHost\":\"/dev/null\",\"PathInContainer\":\"/dev/zilch\",\"CgroupPermissions\":\"rw\"}]",
    ),
    property("cpu_set", "CpuSet", "\"0\"", "/HostConfig/CpusetCpus", "\"0\""),
];

const ATTRIBUTES: [&str; 9] = [
    "info",
    "network_info",
    "network_ip",
    "network_gateway",
    "network_tcp_ports",
    "network_udp_ports",
    "logs",
    "logs_head",
    "logs_tail",
];

/// Everything at once, for the plugin had all of them on one resource, too.
fn properties(stage: &Stage, spelling: Spelling) -> Result<()> {
    let engine = stage.engine(Kind::Docker)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    turn.engine.run_foreign("database", "busybox")?;
    let port = std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port().to_string();
    let idle = IDLE.replacen('"', "\"echo first; echo last; ", 1);

    let mut keys = format!("outputs: [{}]\n", ATTRIBUTES.join(", "));
    for property in &PROPERTIES {
        let name = if spelling == Spelling::Snake { property.snake } else { property.camel };
        let value = property.value.replace("{port}", &port).replace("{idle}", &idle);
        keys.push_str(&format!("{name}: {value}\n"));
    }
    let instance = Instance::new("plugin", &turn.engine.url(), &waiting.document("", &keys))?;
    let ran = instance.run()?;
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    ensure!(ran.console.contains("`docker_endpoint` has no effect"), "console: {}", ran.console);

    let inspection = turn.engine.inspect("plugin")?;
    for property in &PROPERTIES {
        let found = inspection.pointer(property.pointer).unwrap_or(&Value::Null);
        let expected: Value = serde_json::from_str(&property.expected.replace("{port}", &port))?;
        ensure!(is_as(found, &expected), "{}: {found} instead of {expected}", property.snake);
    }
    attributes(&waiting, &inspection, &port)
}

/// Older engines leave `CAP_` out, and the image may add variables of its own.
fn is_as(found: &Value, expected: &Value) -> bool {
    let without_prefix = expected.to_string().replace("CAP_", "");
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) if found.len() > expected.len() => {
            expected.iter().all(|item| found.contains(item))
        }
        _ => {
            found == expected
                || serde_json::from_str(&without_prefix).is_ok_and(|plain: Value| plain == *found)
        }
    }
}

fn attributes(waiting: &Waiting, inspection: &Value, port: &str) -> Result<()> {
    let view = waiting.relay.show(&waiting.handle)?;
    let data = only_data(&view)?;
    let networks = &inspection["NetworkSettings"]["Networks"]["bridge"];
    ensure!(data["info"]["Id"] == inspection["Id"], "info: {data}");
    ensure!(data["info"]["Config"].get("Env").is_none(), "info must not have the environment");
    ensure!(data["network_info"]["TcpPorts"] == *port, "network_info: {data}");
    ensure!(data["network_ip"] == networks["IPAddress"], "network_ip: {data}");
    ensure!(data["network_gateway"] == networks["Gateway"], "network_gateway: {data}");
    ensure!(data["network_tcp_ports"] == *port, "network_tcp_ports: {data}");
    ensure!(data["network_udp_ports"] == "", "network_udp_ports: {data}");
    let logs = data["logs"].as_str().context("logs is no text")?;
    ensure!(logs.lines().map(str::trim_end).eq(["first", "last"]), "logs: {data}");
    ensure!(data["logs_head"] == "first", "logs_head: {data}");
    ensure!(data["logs_tail"] == "last", "logs_tail: {data}");
    Ok(())
}
