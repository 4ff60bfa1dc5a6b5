//! Heat's stacks complete although their instances have no route to Heat, to Keystone or to the relay.
//!
//! A relay with both the lab's Heat and Neutron behind and before it, and so a path of its own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::heat::{HeatRelay, Lab as HeatLab, Stack, User};
use e2e::neutron::{Kind, Lab, Pace, instance_id};
use e2e::programs;
use serde_json::json;
use tempfile::TempDir;

use crate::arriving::put;

/// How long a stack may take from its last signal to its end, on busy cores.
const END_LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn stacks_complete() -> Result<()> {
    programs::heliograph_agent()?;
    let neutron = Lab::stand_up()?;
    let relay = HeatRelay::plan()?;
    let heat = HeatLab::stand_up(Some(&relay.public()), true)?;
    relay.start_for_with(&heat, &neutron.metadata_table(&[neutron.fact("nova")?])?)?;
    let user = heat.user("demo")?;
    let transports = ["TEMP_URL_SIGNAL", "CFN_SIGNAL", "TOKEN_SIGNAL", "HEAT_SIGNAL"];
    let mut stacks = Vec::new();
    for transport in transports {
        let name = transport.to_lowercase().replace('_', "-");
        stacks.push((transport, stack(&user, transport, &name)?));
    }
    for (index, (transport, stack)) in stacks.iter().enumerate() {
        let play = || -> Result<()> {
            stack.reached("wait")?;
            by_hand(&neutron, transport, stack)?;
            by_the_agent(&neutron, transport, stack, 12 + u8::try_from(index)?)?;
            stack.completed(END_LIMIT)?;
            let data = stack.json_output("data")?;
            ensure!(data == json!({"a": 1, "b": {"n": 2}}), "{transport}: {data}");
            stack.delete()
        };
        play().map_err(|error| {
            error.context(format!("{transport}{}{}", heat.last_words(), relay.last_words()))
        })?;
    }
    as_it_is(&neutron, &heat, &user).map_err(|error| {
        error.context(format!("URL as it is{}{}", heat.last_words(), relay.last_words()))
    })
}

/// With one line in heat.conf Heat itself makes URLs with the metadata address: cfn-signal and scripts in
/// images use them as they are.
fn as_it_is(neutron: &Lab, heat: &HeatLab, user: &User) -> Result<()> {
    heat.knob(&["forward", "http://169.254.169.254"])?;
    let stack = stack(user, "CFN_SIGNAL", "as-it-is")?;
    stack.reached("wait")?;
    let url = stack.alarm_url("signal")?;
    let target = url.strip_prefix("http://169.254.169.254").unwrap_or(&url);
    ensure!(target.starts_with("/v1/waitcondition/"), "Heat has made {url}");
    for (kind, body) in [
        (Kind::Ovs, r#"{"id": "a", "data": 1}"#),
        (Kind::Debian, r#"{"id": "b", "data": {"n": 2}}"#),
    ] {
        let (status, answer) = neutron.ask(kind, 5, &put(target, body), Pace::Whole)?;
        ensure!(status == 200, "{kind:?}: {status} {answer}");
    }
    stack.completed(END_LIMIT)?;
    stack.delete()
}

fn stack(user: &User, transport: &str, name: &str) -> Result<Stack> {
    let template = format!(
        "heat_template_version: 2018-08-31
resources:
  handle:
    type: OS::Heat::WaitConditionHandle
    properties: {{signal_transport: {transport}}}
  wait:
    type: OS::Heat::WaitCondition
    properties: {{handle: {{get_resource: handle}}, count: {count}, timeout: 600}}
outputs:
  signal: {{value: {{get_attr: [handle, signal]}}}}
  endpoint: {{value: {{get_attr: [handle, endpoint]}}}}
  token: {{value: {{get_attr: [handle, token]}}}}
  data: {{value: {{get_attr: [wait, data]}}}}
",
        count = 2,
    );
    user.create_stack(&format!("isolated-{name}"), &template, &json!({}))
}

/// As a script with curl does it where there is no agent: the URL with the host replaced. Where a token
/// is needed this cannot be, and the agent sends both signals.
fn by_hand(neutron: &Lab, transport: &str, stack: &Stack) -> Result<()> {
    let is_possible = matches!(transport, "TEMP_URL_SIGNAL" | "CFN_SIGNAL");
    let body = r#"{"id": "a", "data": 1}"#;
    if !is_possible {
        return signal(neutron, transport, stack, 11, "a", "1");
    }
    let url = stack.alarm_url("signal")?;
    let rest = url.splitn(4, '/').nth(3).unwrap_or_default();
    for kind in Kind::ALL {
        let request = put(&format!("/{rest}"), body);
        // Three times the same signal, by three agents.
        let (status, answer) = neutron.ask(kind, 5, &request, Pace::Whole)?;
        ensure!(status == 200, "{kind:?}: {status} {answer}");
    }
    Ok(())
}

fn by_the_agent(neutron: &Lab, transport: &str, stack: &Stack, byte: u8) -> Result<()> {
    signal(neutron, transport, stack, byte, "b", r#"{"n": 2}"#)
}

/// The agent, with Heat's `signal` attribute as a template passes it on.
fn signal(
    neutron: &Lab,
    transport: &str,
    stack: &Stack,
    byte: u8,
    id: &str,
    data: &str,
) -> Result<()> {
    let directory = TempDir::new()?;
    let handle = match transport {
        "TOKEN_SIGNAL" => {
            json!({"endpoint": stack.output("endpoint")?, "token": stack.output("token")?})
        }
        _ => stack.json_output("signal")?,
    };
    let user_data = format!("#docker\nimage: busybox\nsignal: {handle}\n");
    std::fs::write(directory.path().join("user-data"), user_data)?;
    let output = Command::new("ip")
        .args(["netns", "exec", &neutron.own_namespace(Kind::Ovs, byte)?])
        .arg(programs::heliograph_agent()?)
        .args(["signal", "--id", id, "--data", data, "--instance-id", &instance_id(byte)])
        .arg("--user-data")
        .arg(directory.path().join("user-data"))
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{transport}: the agent ended with {}: {said}", output.status);
    Ok(())
}
