//! The scenes of packages and of virtual machines that the agent is baked into.
//!
//! A machine has one processor, which it keeps busy, so two scenes at a time fill a small computer.

mod contents;
mod devices;
mod isolated;
mod packages;
mod pitfalls;
mod power;

use std::process::ExitCode;

use anyhow::Result;

/// What every result for programs has in it, on the console.
pub(crate) const RESULT: &str = "@@heliograph1 ";

/// A scene and its name.
pub(crate) type Scene = (&'static str, fn() -> Result<()>);

const N_SCENES_AT_ONCE: usize = 2;

fn main() -> ExitCode {
    // Those that take longest come first, so that none of them is left over at the end.
    let scenes = [
        power::scenes(),
        devices::scenes(),
        isolated::scenes(),
        pitfalls::scenes(),
        packages::scenes(),
        contents::scenes(),
    ];
    let scenes = scenes.into_iter().flatten();
    let scenes = scenes.map(|(name, play)| e2e::scene::Scene::new(name, move |()| play()));
    e2e::scene::play(N_SCENES_AT_ONCE, scenes)
}
