//! The scenes: what a person does with the product, and what they see, on real engines.
//!
//! Scenes share one engine of each kind and a few registries, which are started when the first scene
//! wants them and ended when the last is over. Scenes of one engine take turns at it, because every
//! agent names its container alike; the engines, and the relay's own scenes, run side by side.

mod archives;
mod cloud_init;
mod crashing;
mod devices;
mod failing;
mod forms;
mod guard;
mod life;
mod looking;
mod nested;
mod properties;
mod registries;
mod relaying;
mod running;
mod services;
mod stage;
mod stored;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::stage::{Scene, Stage};

/// Scenes wait far more than they work: two engines and two scenes of the relay fit two cores.
const N_SCENES_AT_ONCE: usize = 4;

fn main() -> ExitCode {
    // A second installation, by whoever, is no harm.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(N_SCENES_AT_ONCE);

    let stage = Arc::new(Stage::default());
    let scenes = [
        relaying::scenes(),
        crashing::scenes(),
        failing::scenes(),
        devices::scenes(),
        guard::scenes(),
        life::scenes(),
        nested::scenes(),
        properties::scenes(),
        running::scenes(),
        registries::scenes(),
        archives::scenes(),
        cloud_init::scenes(),
        services::scenes(),
        forms::scenes(),
        looking::scenes(),
        stored::scenes(),
    ];
    let trials = scenes.into_iter().flatten().map(|scene| trial(scene, &stage)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = stage.end() {
        eprintln!("the stage was not left clean: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn trial(scene: Scene, stage: &Arc<Stage>) -> Trial {
    let stage = Arc::clone(stage);
    let name = scene.name.clone();
    Trial::test(scene.name, move || {
        let begin = Instant::now();
        let outcome = (scene.play)(&stage);
        eprintln!("  {name}: {:.1} s", begin.elapsed().as_secs_f32());
        outcome.map_err(|error| Failed::from(format!("{error:#}")))
    })
}
