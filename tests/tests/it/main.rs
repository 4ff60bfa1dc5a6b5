//! The scenes: what a person does with the product, and what they see, on real engines.
//!
//! Scenes share one engine of each kind and a few registries, which are started when the first scene
//! wants them and ended when the last is over. Scenes of one engine take turns at it, because every
//! agent names its container alike; the engines, and the relay's own scenes, run side by side.

mod archives;
mod cloud_init;
mod crashing;
mod devices;
mod examples;
mod failing;
mod forms;
mod guard;
mod life;
mod link_local;
mod looking;
mod nested;
mod properties;
mod registries;
mod relay_image;
mod relaying;
mod running;
mod schema;
mod services;
mod stage;
mod stored;

use std::process::ExitCode;

/// Scenes wait far more than they work: two engines and two scenes of the relay fit two cores.
const N_SCENES_AT_ONCE: usize = 4;

fn main() -> ExitCode {
    let scenes = [
        relaying::scenes(),
        crashing::scenes(),
        failing::scenes(),
        devices::scenes(),
        examples::scenes(),
        guard::scenes(),
        life::scenes(),
        link_local::scenes(),
        nested::scenes(),
        properties::scenes(),
        running::scenes(),
        schema::scenes(),
        registries::scenes(),
        relay_image::scenes(),
        archives::scenes(),
        cloud_init::scenes(),
        services::scenes(),
        forms::scenes(),
        looking::scenes(),
        stored::scenes(),
    ];
    e2e::scene::play(N_SCENES_AT_ONCE, scenes.into_iter().flatten())
}
