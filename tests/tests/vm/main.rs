//! The scenes of packages and of virtual machines that the agent is baked into.
//!
//! A machine takes both cores of a small computer, so the scenes come one after the other.

mod isolated;
mod packages;
mod power;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

/// A scene and its name.
pub(crate) type Scene = (&'static str, fn() -> Result<()>);

fn main() -> ExitCode {
    // A second installation, by whoever, is no harm.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let scenes = [packages::scenes(), power::scenes(), isolated::scenes()].into_iter().flatten();
    let trials = scenes.map(|(name, play)| {
        Trial::test(name, move || {
            let begin = Instant::now();
            let outcome = play();
            eprintln!("  {name}: {:.1} s", begin.elapsed().as_secs_f32());
            outcome.map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
