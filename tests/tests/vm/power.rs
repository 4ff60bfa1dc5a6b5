//! A machine with a config drive and no network at all: whatever happens to its power, the containers are
//! back and the outcome is told once, on the console. A reboot stops them in order, before it stops their
//! engine. A copy of its disk is another instance. What a power cut leaves is seen in `devices`, too.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::programs;
use e2e::relay::Relay;
use e2e::vm::{self, Image, Machine, Plugged};
use tempfile::TempDir;

use crate::{RESULT, Scene, packages};

/// Each writes a line when it is asked to end. `web` takes its time over it, so that its line is the first
/// only if `db` is asked after it.
const PAIR: &str = r##"#docker
services:
  db:
    image: localhost/busybox
    cmd: "trap 'echo db >>/said/ends; exit' TERM; while true; do sleep 1; done"
    volumes: ["/srv/said:/said"]
  web:
    image: localhost/busybox
    cmd: "trap 'sleep 2; echo web >>/said/ends; exit' TERM; while true; do sleep 1; done"
    volumes: ["/srv/said:/said"]
    depends_on: [db]
signal:
  stable_for: 2s
"##;

/// Its output is what the cloud's console log shows.
const CLOCK: &str = "#docker\nimage: localhost/busybox\ncmd: \"while true; do date; sleep 1; done\"\nsignal:\n  stable_for: 2s\n";

const ID: &str = "5e0a1a40-1111-4222-8333-000000000001";
const OTHER_ID: &str = "5e0a1a40-1111-4222-8333-000000000002";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![("a_config_drive_is_enough_and_the_containers_are_back_after_reset_and_reboot", power)]
}

fn power() -> Result<()> {
    let directory = TempDir::new()?;
    let image = vm::image()?;
    let disk = image.new_disk(directory.path())?;
    let drive = vm::drive::config(directory.path(), ID, PAIR)?;
    let plugged = Plugged { config_drive: Some(drive), ..Plugged::default() };

    // Reset while the engine makes the container: it may be there and never have been started.
    let mut machine = Machine::start(image, &disk, &plugged)?;
    machine.until("ls /var/lib/docker/containers | grep .")?;
    machine.reset()?;
    machine.said(RESULT)?;
    let containers = running_containers(&mut machine, 2)?;
    ensure!(results(&machine)? == 1, "{}", machine.last_words());

    machine.until("systemctl is-active heliograph-containers")?;
    machine.run("systemctl reboot --no-block")?;
    machine.begins_anew();
    machine.said("was signalled before")?;
    let again = running_containers(&mut machine, 2)?;
    ensure!(again == containers, "other containers after the reboot");
    let ends = machine.run("cat /srv/said/ends")?;
    ensure!(ends == "web\ndb", "the containers ended so: {ends:?}");
    ensure!(results(&machine)? == 1, "{}", machine.last_words());
    machine.run("sync")?;
    machine.cut_power()?;

    let copy = vm::copy_of_disk(&disk, directory.path())?;
    another_instance(image, &copy, &containers, directory.path())
}

/// The disk as a snapshot, booted with another document.
fn another_instance(image: &Image, copy: &Path, old: &[String], directory: &Path) -> Result<()> {
    let drive = vm::drive::config(directory, OTHER_ID, CLOCK)?;
    let volumes = vec![packages::volume(directory)?];
    let plugged = Plugged { config_drive: Some(drive), volumes, ..Plugged::default() };
    let mut machine = Machine::start(image, copy, &plugged)?;
    machine.said(RESULT)?;
    machine.said(" UTC ")?;
    ensure!(machine.console()?.contains("heliograph: SUCCESS"), "{}", machine.last_words());
    let new = running_containers(&mut machine, 1)?;
    ensure!(!old.contains(&new[0]), "the container is an old one");
    let all = machine.run("docker ps --all --quiet --no-trunc")?;
    ensure!(all.lines().count() == 1, "an old container is still there: {all}");

    // The login prompt has hung the line up meanwhile, and the engine waited for no network.
    machine.said("login: ")?;
    let n_lines = machine.console()?.matches(" UTC ").count();
    machine.until("systemctl is-active heliograph-agent")?;
    machine.until("test \"$(systemctl is-system-running --wait)\" = running")?;
    machine_said_more(&mut machine, n_lines)?;
    told_to_a_relay(directory, &machine.console_file())?;
    packages::upgrade(&mut machine)
}

fn machine_said_more(machine: &mut Machine, n_lines: usize) -> Result<()> {
    let limit = Duration::from_secs(60);
    e2e::wait::until("more output of the container on the console", limit, || {
        Ok((machine.console()?.matches(" UTC ").count() > n_lines).then_some(()))
    })
}

/// What `signal --from-console` makes of it.
fn told_to_a_relay(directory: &Path, console: &Path) -> Result<()> {
    let relay = Relay::start(&directory.join("relay"))?;
    let handle = relay.create_handle(1, Duration::from_secs(600))?;
    for _ in 0..2 {
        let mut command = Command::new(programs::heliograph_server()?);
        command.args(["signal", &handle.signal_url, "--from-console"]).arg(console);
        vm::run(&mut command)?;
    }
    let view = relay.show(&handle)?;
    ensure!(view["state"] == "complete", "{view}");
    let signals = view["signals"].as_array().context("no signals")?;
    ensure!(signals.len() == 1, "{view}");
    let id = signals[0]["id"].as_str().unwrap_or_default();
    ensure!(id.starts_with(&format!("{OTHER_ID}/main/")), "{view}");
    Ok(())
}

/// The ids of the containers, so many, which all run.
pub(crate) fn running_containers(
    machine: &mut Machine,
    n_containers: usize,
) -> Result<Vec<String>> {
    let running = machine.run("docker ps --quiet --no-trunc")?;
    let mut ids: Vec<String> = running.lines().map(str::to_owned).collect();
    ids.sort();
    ensure!(ids.len() == n_containers, "not {n_containers} containers run: {running:?}");
    Ok(ids)
}

fn results(machine: &Machine) -> Result<usize> {
    Ok(machine.console()?.matches(RESULT).count())
}
