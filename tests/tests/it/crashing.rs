//! An agent that is killed at any step of its flow, and started again, as by a reset of its instance.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::{self, Instance};
use e2e::engine::{Engine, Kind};
use e2e::image;

use crate::stage::{IDLE, Scene, Stage, Waiting};

/// A fault point per step is what makes this worth something.
const MIN_FAULT_POINTS: usize = 6;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new(
        "crashing::docker::one_container_and_one_signal_whatever_step_is_cut",
        |stage| one_container_and_one_signal(stage, Kind::Docker),
    )]
}

fn one_container_and_one_signal(stage: &Stage, kind: Kind) -> Result<()> {
    let registries = stage.filled_registries()?;
    // An engine of its own: this takes as long as all scenes of the other together.
    let engine = Engine::start(kind, &[])?;
    engine.import("busybox:latest", image::root_file_system(0)?)?;
    let fault_points = agent::fault_points()?;
    ensure!(fault_points.len() >= MIN_FAULT_POINTS, "too few fault points: {fault_points:?}");
    for fault_point in &fault_points {
        let turn = engine.turn()?;
        // Two are waited for, so that a second id would be seen as one.
        let waiting = Waiting::for_many(2)?;
        let keys = format!("image: {}\npull_policy: always\ncmd: {IDLE}", registries.hello_image());
        let document = waiting.document("", &keys);
        let id = format!("cut-{fault_point}");
        // What a former instance left is to be replaced, which is a step of its own.
        let left = format!("#docker\nimage: busybox\ncmd: {IDLE}\nsignal: {{when: created}}\n");
        let former = Instance::new("former", &turn.engine.url(), &left)?.run()?;
        ensure!(former.status.success(), "{}{}", former.status, former.last_words);

        let instance = Instance::new(&id, &turn.engine.url(), &document)?;
        instance.run_into(fault_point)?;
        let again = instance.run()?;
        ensure!(
            again.status.success(),
            "after {fault_point}: {}{}",
            again.status,
            again.last_words
        );

        let containers = turn.engine.containers()?;
        ensure!(containers.len() == 1, "after {fault_point}: {containers:?}");
        ensure!(containers[0]["State"] == "running", "after {fault_point}: {containers:?}");
        let view = waiting.relay.show(&waiting.handle)?;
        let signals = view["signals"].as_array().context("no signals")?;
        ensure!(signals.len() == 1, "after {fault_point}: {view}");
        ensure!(signals[0]["status"] == "SUCCESS", "after {fault_point}: {view}");
        let waited = waiting.relay.wait(&waiting.handle, Duration::from_secs(1))?;
        ensure!(
            waited.exit_code == Some(2),
            "a second id has come after {fault_point}: {waited:?}"
        );
    }
    engine.stop()
}
