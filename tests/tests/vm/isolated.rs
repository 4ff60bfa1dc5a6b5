//! Machines on a network that leads to the metadata address and nowhere else: real Neutron hands out
//! their addresses and carries their signals to the relay, and real Heat waits for them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::heat::{HeatRelay, Lab as HeatLab, Stack, User};
use e2e::neutron::Lab;
use e2e::programs;
use e2e::vm::{self, Machine, Network, Plugged};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Scene;

/// How long a stack may take from its last signal to its end, on busy cores.
const END_LIMIT: Duration = Duration::from_secs(120);

/// The last bytes of the addresses of the two instances.
const GOOD: u8 = 6;
const BROKEN: u8 = 7;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![("heats_stack_completes_from_a_machine_that_reaches_nothing", stacks)]
}

fn stacks() -> Result<()> {
    let directory = TempDir::new()?;
    let image = vm::image()?;
    let neutron = Lab::stand_up()?;
    let relay = HeatRelay::plan()?;
    let heat = HeatLab::stand_up(Some(&relay.public()), false)?;
    relay.start_for_with(&heat, &neutron.metadata_table(&[neutron.fact("nova")?])?)?;
    let user = heat.user("demo")?;
    let (good, broken) = (stack(&user, "machine")?, stack(&user, "broken-document")?);

    let start = |byte: u8, document: &str| -> Result<Machine> {
        let network = plug(&neutron, byte, document, directory.path())?;
        let place = directory.path().join(byte.to_string());
        std::fs::create_dir(&place)?;
        let plugged = Plugged { network: Some(network), ..Plugged::default() };
        Machine::start(image, &image.new_disk(&place)?, &plugged)
    };
    let mut machine = start(
        GOOD,
        &format!(
            "#docker\nimage: localhost/busybox\ncmd: sleep 100000\nsignal: {}\n",
            handle(&good)?
        ),
    )?;
    let mut other = start(
        BROKEN,
        &format!(
            "#docker\nimage: localhost/busybox\nsignal: {}\nprots: [\"80:80\"]\n",
            handle(&broken)?
        ),
    )?;

    other.said("heliograph: FAILURE")?;
    let status = broken.created(END_LIMIT)?;
    ensure!(status.word == "CREATE_FAILED", "{status:?}{}", other.last_words());
    ensure!(status.reason.contains("line 4, column 1"), "{status:?}");
    // A machine with a broken document is usable all the same.
    other.until("systemctl is-failed heliograph-agent && systemctl is-active multi-user.target docker.socket")?;
    other.cut_power()?;

    machine.said("heliograph: SUCCESS")?;
    let played = good.completed(END_LIMIT).and_then(|()| good.json_output("data"));
    let data: Value =
        played.with_context(|| format!("{}{}", machine.last_words(), relay.last_words()))?;
    let signals = data.as_object().context("data is no map")?;
    ensure!(signals.len() == 1, "{data}");
    let outputs = signals.values().next().context("no signal")?;
    let address =
        machine.run("docker inspect --format '{{.NetworkSettings.IPAddress}}' $(docker ps -q)")?;
    ensure!(outputs["network_ip"] == json!(address), "{data} is not about {address}");
    ensure!(outputs["host_ip"] == json!(format!("10.77.0.{GOOD}")), "{data}");

    reaches_nothing(&mut machine, &[heat.fact("heat_url")?, &relay.public()])?;
    machine.cut_power()
}

fn stack(user: &User, name: &str) -> Result<Stack> {
    let template = "heat_template_version: 2018-08-31
resources:
  handle:
    type: OS::Heat::WaitConditionHandle
    properties: {signal_transport: TEMP_URL_SIGNAL}
  wait:
    type: OS::Heat::WaitCondition
    properties: {handle: {get_resource: handle}, timeout: 900}
outputs:
  signal: {value: {get_attr: [handle, signal]}}
  data: {value: {get_attr: [wait, data]}}
";
    let stack = user.create_stack(name, template, &json!({}))?;
    stack.reached("wait")?;
    Ok(stack)
}

/// What a template passes on in user data.
fn handle(stack: &Stack) -> Result<Value> {
    stack.json_output("signal")
}

/// Puts a machine in the place of one of the lab's instances.
fn plug(neutron: &Lab, byte: u8, document: &str, directory: &Path) -> Result<Network> {
    let user_data = directory.join(format!("user-data-{byte}"));
    std::fs::write(&user_data, document)?;
    let id = neutron.fact("id")?;
    let mut command = Command::new(programs::source_tree().join("tests/vm/plug"));
    command.arg(programs::target_directory()?.join("neutron")).args([id, &byte.to_string()]);
    vm::run(command.arg(user_data))?;
    Ok(Network {
        namespace: format!("hgg-{id}-debian"),
        tap: format!("hv{id}-{byte}"),
        mac: format!("fa:16:3e:00:01:{byte:02x}"),
    })
}

/// From inside, the services of the cloud are not there: neither by the address that they have, nor by
/// any that the network leads to.
fn reaches_nothing(machine: &mut Machine, urls: &[&str]) -> Result<()> {
    let routes = machine.run("ip route")?;
    ensure!(!routes.contains("default"), "there is a way out: {routes}");
    ensure!(routes.contains("169.254.169.254"), "{routes}");
    let own = vm::run(Command::new("hostname").arg("--all-ip-addresses"))?;
    let own = own.split_whitespace().find(|address| address.contains('.')).unwrap_or("192.0.2.1");
    for url in urls {
        let port =
            url.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap_or_default();
        for host in ["169.254.169.254", "10.77.0.2", own] {
            let asked = machine.run(&format!(
                "curl --silent --max-time 5 --output /dev/null http://{host}:{port}/; echo $?"
            ))?;
            // 7: no way there, or nobody there.
            ensure!(asked == "7", "{url} is reached as {host}:{port}: curl says {asked}");
        }
    }
    let metadata = "curl --silent --fail http://169.254.169.254/openstack/latest/meta_data.json";
    ensure!(machine.run(metadata)?.contains("uuid"), "the metadata address is not there");
    Ok(())
}
