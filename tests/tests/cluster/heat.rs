//! A real Heat that polls three relays through a load balancer, in round robin, while they die.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::etcd::{Etcd, Place};
use e2e::heat::{HeatRelay, Lab, put};
use e2e::neutron::free_port;
use e2e::process::Process;
use serde_json::json;
use tempfile::TempDir;

/// How long a stack may take from its last signal to its end, on busy cores.
const END_LIMIT: Duration = Duration::from_secs(120);

const TEMPLATE: &str = "heat_template_version: 2018-08-31
resources:
  handle:
    type: OS::Heat::WaitConditionHandle
    properties: {signal_transport: TEMP_URL_SIGNAL}
  wait:
    type: OS::Heat::WaitCondition
    properties: {handle: {get_resource: handle}, count: 3, timeout: 600}
outputs:
  signal: {value: {get_attr: [handle, signal]}}
  data: {value: {get_attr: [wait, data]}}
";

pub(crate) fn load_balancer() -> Result<()> {
    let etcd = Etcd::start(&[Place::Loopback, Place::Loopback, Place::Loopback])?;
    let relays = [HeatRelay::plan()?, HeatRelay::plan()?, HeatRelay::plan()?];
    let directory = TempDir::new()?;
    let port = free_port()?;
    let configuration = directory.path().join("haproxy.cfg");
    fs::write(&configuration, haproxy(port, &relays))?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&configuration);
    let balancer = Process::spawn("haproxy", &mut command, directory.path())?;

    let lab = Lab::stand_up(Some(&format!("http://127.0.0.1:{port}")), false)?;
    let endpoints = etcd.endpoints().join("\", \"");
    let store = format!("[store.etcd]\nendpoints = [\"{endpoints}\"]\n");
    for relay in &relays {
        relay.start_for_with(&lab, &store)?;
    }
    let outcome = play(&lab, &relays);
    let words = || format!("{}{}{}", lab.last_words(), balancer.last_words(), etcd.last_words());
    outcome.with_context(words)
}

fn play(lab: &Lab, relays: &[HeatRelay; 3]) -> Result<()> {
    let stack = lab.user("demo")?.create_stack("many-relays", TEMPLATE, &json!({}))?;
    stack.reached("wait")?;
    let url = stack.alarm_url("signal")?;
    for (relay, id) in relays.iter().zip(["a", "b", "c"]) {
        // Acknowledged by any of them, and most likely not collected when one dies.
        let (status, answer) = put(&url, json!({"id": id, "data": id}).to_string())?;
        ensure!(status == 201, "the signal {id} was answered with {status}: {answer}");
        relay.kill()?;
        if id != "c" {
            relay.start()?;
        }
    }
    stack.completed(END_LIMIT)?;
    let data = stack.json_output("data")?;
    ensure!(data == json!({"a": "a", "b": "b", "c": "c"}), "{data}");
    stack.delete()
}

/// Each request to the next relay; one that a relay did not take to the one after it.
fn haproxy(port: u16, relays: &[HeatRelay; 3]) -> String {
    let mut text = format!(
        "defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch 1
    retry-on all-retryable-errors
listen relays
    bind 127.0.0.1:{port}
    balance roundrobin
"
    );
    for (index, relay) in relays.iter().enumerate() {
        let address = relay.public().replace("http://", "");
        text.push_str(&format!(
            "    server relay{index} {address} check inter 500ms fall 1 rise 1\n"
        ));
    }
    text
}
