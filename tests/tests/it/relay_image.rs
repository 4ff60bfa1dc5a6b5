//! The relay's container image: built by its recipe, run as its own user on a volume, asked for its health
//! by the engine, signalled and waited for from outside.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::engine::{Engine, Kind};
use e2e::{image, programs, vm, wait};
use serde_json::Value;

use crate::stage::{Scene, Stage, free_address};

const IMAGE: &str = "heliograph-server:scene";
const BASE: &str = "relay-base";
const NAME: &str = "relay-of-a-scene";

/// A start of the engine's shim, and of the relay, on busy cores.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("relay_image::docker::it_is_built_runs_and_keeps_signals", runs)]
}

fn runs(stage: &Stage) -> Result<()> {
    let engine = stage.engine(Kind::Docker)?;
    let server = programs::heliograph_server()?;
    // The program of the tests needs libraries; that of `make relay-image` needs none.
    engine.import(BASE, image::root_file_system_with(&[&server])?)?;
    let turn = engine.turn()?;
    let mut build = Command::new(programs::source_tree().join("images/relay/build"));
    build.env("ENGINE", format!("docker --host {}", engine.url())).env("BASE", BASE);
    vm::run(build.arg(&server).arg(IMAGE))?;

    let address = free_address()?;
    let publish = format!("{address}:8090");
    let public = format!("HELIOGRAPH_PUBLIC_URL=http://{address}");
    // A second is soon enough for a scene.
    let run = [
        "run",
        "--detach",
        "--name",
        NAME,
        "--read-only",
        "--cap-drop",
        "ALL",
        "--health-interval",
        "1s",
    ];
    docker(turn.engine, &[&run[..], &["--publish", &publish, "--env", &public, IMAGE]].concat())?;
    healthy(turn.engine)?;
    let status = docker(turn.engine, &["exec", NAME, "/bin/busybox", "cat", "/proc/1/status"])?;
    ensure!(status.contains("Uid:\t10001\t10001"), "another user: {status}");

    let token = "/var/lib/heliograph/operator.token";
    let create = [
        "exec",
        NAME,
        "/usr/bin/heliograph-server",
        "handle",
        "create",
        "--json",
        "--token-file",
        token,
    ];
    let handle: Value = serde_json::from_str(&docker(turn.engine, &create)?)?;
    let url = |key: &str| handle[key].as_str().with_context(|| format!("no {key}: {handle}"));
    vm::run(Command::new(&server).args(["signal", url("signal_url")?, "--id", "1"]))?;
    // The signal is on the volume.
    docker(turn.engine, &["restart", NAME])?;
    healthy(turn.engine)?;
    let wait = ["wait", url("poll_url")?, "--timeout", "30s", "--json"];
    let view: Value = serde_json::from_str(&vm::run(Command::new(&server).args(wait))?)?;
    ensure!(view["state"] == "complete" && view["signals"][0]["id"] == "1", "{view}");

    docker(turn.engine, &["stop", NAME])?;
    let state = turn.engine.inspect(NAME)?["State"].clone();
    ensure!(state["ExitCode"] == 0, "it did not stop by itself: {state}");
    Ok(())
}

fn healthy(engine: &Engine) -> Result<()> {
    wait::until("the engine to find the relay healthy", LIMIT, || {
        let state = engine.inspect(NAME)?["State"].clone();
        ensure!(state["Running"] == true, "the relay has ended: {state}");
        Ok((state["Health"]["Status"] == "healthy").then_some(()))
    })
}

fn docker(engine: &Engine, arguments: &[&str]) -> Result<String> {
    vm::run(Command::new("docker").args(["--host", &engine.url()]).args(arguments))
}
