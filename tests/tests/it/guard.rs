//! Containers and the metadata service: most may not reach it, some may, the instance always does.
//!
//! Over IPv4 a container's packets are routed to the service. The address of IPv6 is link-local, so over
//! IPv6 a container reaches its own bridge and no further: there it is the instance itself that answers.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::{Instance, Ran};
use e2e::engine::{Engine, Kind};
use e2e::{image, wait};
use tempfile::TempDir;

use crate::link_local::{MetadataService, get, in_a_network_of_its_own, succeed};
use crate::stage::Scene;

/// The service's addresses as a container writes them.
const V4: &str = "169.254.169.254";
const V6: &str = "fe80::a9fe:a9fe%eth0";

const LIMIT: Duration = Duration::from_secs(20);

const GUARD: [&str; 2] = ["--metadata-guard", "true"];

pub(crate) fn scenes() -> Vec<Scene> {
    let scene = |kind: Kind| {
        let name = kind.name();
        let name = format!("guard::{name}::containers_are_kept_from_the_metadata_service");
        Scene::new(name, move |_| in_a_network_of_its_own(move || containers_are_kept_away(kind)))
    };
    let reboot = Scene::new("guard::docker::a_reboot_opens_no_way", |_| {
        in_a_network_of_its_own(a_reboot_opens_no_way)
    });
    [Kind::Docker, Kind::Podman].map(scene).into_iter().chain([reboot]).collect()
}

/// A reboot takes the rules away, and Docker starts a container that is to be restarted before its API
/// answers. The agent keeps it away all the same, although it cannot ask for anything yet.
fn a_reboot_opens_no_way() -> Result<()> {
    let document = format!(
        "#docker\nimage: busybox\nrestart: always\nstop_signal: SIGKILL\n\
         signal: {{stable_for: 0s, timeout: 60s}}\n\
         cmd: while :; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {V4} 80; sleep 1; done\n"
    );
    let _service = MetadataService::start()?;
    let engine = Engine::start(Kind::Docker, &[])?;
    engine.import("busybox:latest", image::root_file_system(0)?)?;
    let instance = Instance::new("rebooted", &engine.url(), &document)?;
    let options = [&GUARD[..], &["--metadata-address", "off"]].concat();
    let ran = instance.run_with(&options)?;
    ensure!(ran.status.success(), "{}{}", ran.console, ran.last_words);

    let mut agent = None;
    engine.restart_docker(|| {
        remove_the_rules()?;
        ensure!(is_raised_by_command(&instance)?, "the unit before the engine has raised nothing");
        remove_the_rules()?;
        let agent = agent.insert(instance.follow_with(&options)?);
        wait::until("an agent that waits for the engine", LIMIT, || {
            Ok(agent.console()?.contains("waiting for the engine").then_some(()))
        })
    })?;
    wait_for_refusals(&instance)?;
    agent.context("no agent")?.stop()?;

    let terminated = instance.ask(&["terminate"])?;
    ensure!(terminated.exit_code == Some(0), "{terminated:?}");
    ensure!(!is_raised_by_command(&instance)?, "what was taken down is back");
    engine.stop()
}

/// What the unit does that comes before the engine.
fn is_raised_by_command(instance: &Instance) -> Result<bool> {
    let raised = instance.ask(&[&["guard"], &GUARD[..]].concat())?;
    ensure!(raised.exit_code == Some(0), "{raised:?}");
    Ok(succeed(Command::new("nft").args(["list", "tables"]))?.contains("heliograph"))
}

fn remove_the_rules() -> Result<()> {
    succeed(Command::new("nft").args(["delete", "table", "inet", "heliograph"])).map(drop)
}

/// Until the container has been refused twice more, and never got through.
fn wait_for_refusals(instance: &Instance) -> Result<()> {
    let n_refusals = || {
        let log = instance.ask(&["logs"])?.printed;
        ensure!(!log.contains("the metadata"), "the container has got through: {log}");
        Ok(log.matches("onnection refused").count())
    };
    let n_before = n_refusals()?;
    wait::until("refusals", LIMIT, || Ok((n_refusals()? > n_before + 1).then_some(())))
}

fn containers_are_kept_away(kind: Kind) -> Result<()> {
    let _service = MetadataService::start()?;
    let engine = Engine::start(kind, &[])?;
    engine.import("busybox:latest", image::root_file_system(0)?)?;
    only_the_allowed_get_through(&engine, V4)?;
    // Docker gives containers no IPv6 on a network that has none.
    if kind == Kind::Podman {
        // A bridge of Podman's is there as long as a container is on it.
        engine.run_foreign("neighbour", "busybox")?;
        let _bridge = OnTheBridge::start()?;
        only_the_allowed_get_through(&engine, V6)?;
    }
    engine.stop()
}

fn only_the_allowed_get_through(engine: &Engine, address: &str) -> Result<()> {
    let (unguarded, _) = ask(engine, "unguarded", address, "", "false")?;
    ensure!(unguarded.status.success(), "{}{}", unguarded.console, unguarded.last_words);
    ensure!(unguarded.console.contains("\nthe metadata\n"), "{}", unguarded.console);

    let (guarded, _) = ask(engine, "guarded", address, "", "true")?;
    ensure!(!guarded.status.success(), "the container has got through: {}", guarded.console);
    ensure!(guarded.console.contains("onnection refused"), "{}", guarded.console);
    ensure!(get()?.contains("the metadata"), "the instance itself was to get through");

    let (allowed, instance) = ask(engine, "allowed", address, "metadata_access: true\n", "true")?;
    ensure!(allowed.status.success(), "{}{}", allowed.console, allowed.last_words);
    ensure!(allowed.console.contains("\nthe metadata\n"), "{}", allowed.console);

    let terminated = instance.ask(&["terminate"])?;
    ensure!(terminated.exit_code == Some(0), "{terminated:?}");
    let rules = succeed(Command::new("nft").args(["list", "tables"]))?;
    ensure!(!rules.contains("heliograph"), "the guard was left: {rules}");
    Ok(())
}

/// What a container gets when it asks for the metadata.
fn ask(
    engine: &Engine,
    id: &str,
    address: &str,
    keys: &str,
    guard: &str,
) -> Result<(Ran, Instance)> {
    let instance = Instance::new(id, &engine.url(), &document(address, keys))?;
    let ran = instance.run_with(&["--metadata-guard", guard, "--metadata-address", "off"])?;
    Ok((ran, instance))
}

/// The container's way is opened just after its start, and an address of IPv6 takes a second or two to
/// be good, so it may have to ask again. Busybox's wget looks names up in libraries, which its image has
/// not.
fn document(address: &str, keys: &str) -> String {
    let attempts = if address == V4 { "1 2" } else { "1 2 3 4 5" };
    format!(
        "#docker\nimage: busybox\n{keys}signal: {{when: exit, timeout: 30s}}\n\
         cmd: for i in {attempts}; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | \
         nc -w 5 {address} 80 && exit 0; sleep 1; done; exit 1\n"
    )
}

/// The instance's own server, with the address of IPv6 on the engine's bridge.
struct OnTheBridge {
    server: Child,
    _directory: TempDir,
}

impl OnTheBridge {
    fn start() -> Result<OnTheBridge> {
        let links =
            succeed(Command::new("ip").args(["-oneline", "link", "show", "type", "bridge"]))?;
        let bridge = links.split(": ").nth(1).with_context(|| format!("no bridge: {links}"))?;
        let address = ["address", "add", "fe80::a9fe:a9fe/64", "dev", bridge, "nodad"];
        succeed(Command::new("ip").args(address))?;
        let directory = TempDir::new()?;
        fs::write(directory.path().join("index.html"), "the metadata\n")?;
        let mut server = Command::new("busybox");
        server.args(["httpd", "-f", "-p", "[::]:80", "-h"]).arg(directory.path());
        let server = OnTheBridge { server: server.spawn()?, _directory: directory };
        wait::until("the server on the bridge", LIMIT, || {
            Ok(TcpStream::connect("127.0.0.1:80").ok().map(drop))
        })?;
        Ok(server)
    }
}

impl Drop for OnTheBridge {
    fn drop(&mut self) {
        let _gone = self.server.kill();
        let _reaped = self.server.wait();
    }
}
