//! A container's life after its start: stopped, taken up again, replaced, updated, taken down.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::{Asked, Instance};
use e2e::engine::{Engine, Kind};
use e2e::{registry, wait};
use serde_json::Value;
use tempfile::TempDir;

use crate::stage::{IDLE, Scene, Stage, Waiting};

/// How long what an agent does by itself may take to be seen.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn scenes() -> Vec<Scene> {
    let mut scenes = vec![Scene::new("life::docker::an_update_replaces_what_runs", |stage| {
        an_update_replaces_what_runs(stage, Kind::Docker)
    })];
    for kind in [Kind::Docker, Kind::Podman] {
        let name = kind.name();
        scenes.push(Scene::new(format!("life::{name}::from_launch_to_terminate"), move |stage| {
            from_launch_to_terminate(stage, kind)
        }));
        scenes.push(Scene::new(format!("life::{name}::a_snapshot_is_an_image"), move |stage| {
            a_snapshot_is_an_image(stage, kind)
        }));
    }
    scenes
}

fn from_launch_to_terminate(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    // Two are waited for, so that a second id would be seen as one.
    let waiting = Waiting::for_many(2)?;
    let keys = format!("image: busybox\nvolumes: [\"life-data:/data\"]\ncmd: {IDLE}");
    let instance = Instance::new("life", &turn.engine.url(), &waiting.document("", &keys))?;

    let launched = instance.run()?;
    ensure!(launched.status.success(), "{}{}", launched.status, launched.last_words);
    let id = only_container(turn.engine)?;

    let stopped = instance.ask(&["stop"])?;
    ensure!(stopped.exit_code == Some(0), "{stopped:?}");
    let state = turn.engine.inspect(&id)?["State"].clone();
    ensure!(state["Running"] == false, "{state}");
    ensure!(state["ExitCode"] == 0, "it was to end by itself, not to be killed: {state}");

    // Taking up again, and a reboot of the instance: the same container, and nothing is told twice.
    for _ in 0..2 {
        let resumed = instance.run()?;
        ensure!(resumed.status.success(), "{}{}", resumed.status, resumed.last_words);
        ensure!(only_container(turn.engine)? == id, "the container was replaced");
        ensure!(turn.engine.inspect(&id)?["State"]["Running"] == true, "it was to run again");
    }
    ensure!(n_signals(&waiting)? == 1, "one signal is expected");

    // A request to stop ends the agent in good order at any moment, and the containers stay.
    let n_outcomes = |console: &str| console.matches("was signalled before").count();
    let n_before = n_outcomes(&instance.console()?);
    let following = instance.follow()?;
    wait::until("the agent's outcome", LIMIT, || {
        Ok((n_outcomes(&following.console()?) > n_before).then_some(()))
    })?;
    let busy = instance.ask(&["logs", "--tail", "1"])?;
    ensure!(busy.exit_code == Some(0), "{busy:?}");
    let status = following.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    ensure!(turn.engine.inspect(&id)?["State"]["Running"] == true, "containers were to stay");

    let terminated = instance.ask(&["terminate"])?;
    ensure!(terminated.exit_code == Some(0), "{terminated:?}");
    ensure!(turn.engine.containers()?.is_empty(), "{:?}", turn.engine.containers()?);
    ensure!(has_volume(turn.engine, "life-data")?, "a volume holds data and was to be kept");
    let terminated = instance.ask(&["terminate", "--volumes"])?;
    ensure!(terminated.exit_code == Some(0), "{terminated:?}");
    ensure!(!has_volume(turn.engine, "life-data")?, "the volume was to be removed");
    ensure!(n_signals(&waiting)? == 1, "one signal is expected");
    Ok(())
}

/// The metadata changes while the agent runs: another document, another container, another signal.
fn an_update_replaces_what_runs(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_many(2)?;
    let document = |word: &str| {
        let command = IDLE.replacen('"', &format!("\"echo {word}; "), 1);
        waiting.document("", &format!("image: busybox\ncmd: {command}"))
    };
    let instance = Instance::new("updated", &turn.engine.url(), &document("first"))?;
    let agent = instance.follow_with(&["--watch-metadata", "1"])?;
    let signals = |n_signals: usize| {
        wait::until(&format!("{n_signals} signals"), LIMIT, || {
            Ok((self::n_signals(&waiting)? == n_signals).then_some(()))
        })
        .with_context(|| agent.last_words())
    };
    signals(1)?;
    let before = only_container(turn.engine)?;

    instance.rewrite(&document("second"))?;
    signals(2)?;
    let after = only_container(turn.engine)?;
    ensure!(before != after, "the container was to be replaced");
    let Asked { printed, complained, .. } = instance.ask(&["logs", "main"])?;
    ensure!(printed == "second\n", "{printed}{complained}");
    let unknown = instance.ask(&["logs", "nobody"])?;
    ensure!(unknown.exit_code == Some(2), "{unknown:?}");

    let status = agent.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    Ok(())
}

/// What a container has written into its file system is in the image, wherever that goes.
fn a_snapshot_is_an_image(stage: &Stage, kind: Kind) -> Result<()> {
    let registries = stage.filled_registries()?;
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let command = IDLE.replacen('"', "\"echo kept > /tmp/state; ", 1);
    let document = waiting.document("", &format!("image: busybox\ncmd: {command}"));
    let instance = Instance::new("saved", &turn.engine.url(), &document)?;
    let ran = instance.run()?;
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);

    let directory = TempDir::new()?;
    let archive = directory.path().join("saved.tar");
    let file = ["snapshot", "main", "--to", "file", path_text(&archive)?];
    let saved = instance.ask(&file)?;
    ensure!(saved.exit_code == Some(0), "{saved:?}");
    let mode = fs::metadata(&archive)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "an image may hold secrets: {mode:o}");

    let password = directory.path().join("password");
    fs::write(&password, format!("{}\n", registry::PASSWORD))?;
    let image = format!("{}/saved:1", registries.protected_address());
    let to_registry = ["snapshot", "main", "--to", "registry", &image];
    let user_data = instance.user_data_file();
    let by_document = [&to_registry[..], &["--user-data", path_text(&user_data)?]].concat();
    let refused = instance.ask(&by_document)?;
    ensure!(refused.exit_code == Some(1), "a push without a password: {refused:?}");
    let user = ["--username", registry::USER, "--password-file", path_text(&password)?];
    let pushed = instance.ask(&[&to_registry[..], &user[..]].concat())?;
    ensure!(pushed.exit_code == Some(0), "{pushed:?}");
    let (host, name, word) = (registries.protected_address(), registry::USER, registry::PASSWORD);
    let access = format!("registries: {{\"{host}\": {{username: {name}, password: {word}}}}}\n");
    instance.rewrite(&format!("{document}{access}"))?;
    let pushed = instance.ask(&by_document)?;
    ensure!(pushed.exit_code == Some(0), "{pushed:?}");

    turn.engine.load(fs::read(&archive)?)?;
    let loaded = "heliograph-snapshot/main:latest";
    let labels = turn.engine.get(&format!("/images/{loaded}/json"))?["Config"]["Labels"].clone();
    ensure!(labels["io.heliograph.agent"] == "0", "it must not pass for the agent's: {labels}");
    let again = format!(
        "#docker\nimage: {loaded}\npull_policy: never\ncmd: cat /tmp/state\n\
         signal: {{when: exit}}\noutputs: [logs]\n"
    );
    let ran = Instance::new("restored", &turn.engine.url(), &again)?.run()?;
    ensure!(ran.console.contains("\nkept\n"), "{}", ran.console);
    turn.engine.remove_image(loaded)
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}

fn only_container(engine: &Engine) -> Result<String> {
    let containers = engine.containers()?;
    ensure!(containers.len() == 1, "one container is expected: {containers:?}");
    Ok(containers[0]["Id"].as_str().context("no Id")?.to_owned())
}

fn n_signals(waiting: &Waiting) -> Result<usize> {
    let view = waiting.relay.poll(&waiting.handle)?;
    Ok(view["signals"].as_array().context("no list of signals")?.len())
}

fn has_volume(engine: &Engine, name: &str) -> Result<bool> {
    let volumes = engine.get("/volumes")?;
    let volumes = volumes["Volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(volumes.iter().any(|volume: &Value| volume["Name"] == name))
}
