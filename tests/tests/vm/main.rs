//! The scenes of packages and of virtual machines that the agent is baked into.
//!
//! A machine takes both cores of a small computer, so the scenes come one after the other.

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

fn main() -> ExitCode {
    let scenes = [
        packages::scenes(),
        contents::scenes(),
        power::scenes(),
        isolated::scenes(),
        devices::scenes(),
        pitfalls::scenes(),
    ];
    let scenes = scenes.into_iter().flatten();
    e2e::scene::play(1, scenes.map(|(name, play)| e2e::scene::Scene::new(name, move |()| play())))
}
