//! The Heat scenes: what a template author and an operator see, with a real Keystone and a real Heat.
//!
//! Scenes share one lab and one relay, which is the object store of the lab's catalog and forwards to the
//! lab's Heat. Most scenes wait far more than they work and run side by side. Those that take away what
//! the others stand on do so while they are alone ([`stage::Stage::alone`]).

mod blog;
mod bodies;
mod cloudformation;
mod encrypted;
mod examples;
mod glance;
mod guide;
mod many;
mod outages;
mod stage;
mod swift;
mod transports;
mod waiting;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::stage::{Scene, Stage};

/// As many as there are scenes that wait: what they work fits two cores.
const N_SCENES_AT_ONCE: usize = 8;

fn main() -> ExitCode {
    // A second installation, by whoever, is no harm.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(N_SCENES_AT_ONCE);

    let stage = Arc::new(Stage::default());
    // Those that wait longest come first, so that the others fill the time.
    let scenes = [
        guide::scenes(),
        outages::scenes(),
        transports::scenes(),
        blog::scenes(),
        many::scenes(),
        cloudformation::scenes(),
        encrypted::scenes(),
        examples::scenes(),
        glance::scenes(),
        swift::scenes(),
        waiting::scenes(),
        bodies::scenes(),
    ];
    let trials = scenes.iter().flatten().map(|scene| trial(scene, &stage)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = stage.end() {
        eprintln!("the stage was not left clean: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn trial(scene: &Scene, stage: &Arc<Stage>) -> Trial {
    let stage = Arc::clone(stage);
    let play = scene.play;
    Trial::test(scene.name, move || {
        play(&stage).map_err(|error| Failed::from(format!("{error:#}{}", stage.last_words())))
    })
}
