//! The Heat scenes: what a template author and an operator see, with a real Keystone and a real Heat.
//!
//! Scenes share one lab and one relay, which is the object store of the lab's catalog and forwards to the
//! lab's Heat. Most scenes wait far more than they work and run side by side. Those that take away what
//! the others stand on do so while they are alone ([`stage::Stage::alone`]), or have a lab of their own if
//! that takes long.

mod blog;
mod bodies;
mod cloudformation;
mod encrypted;
mod examples;
mod glance;
mod guide;
mod many;
mod outages;
mod reference;
mod stage;
mod swift;
mod transports;
mod updating;
mod waiting;

use std::process::ExitCode;

/// As many as there are scenes that wait: what they work fits two cores.
const N_SCENES_AT_ONCE: usize = 8;

fn main() -> ExitCode {
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
        updating::scenes(),
        waiting::scenes(),
        bodies::scenes(),
    ];
    e2e::scene::play(N_SCENES_AT_ONCE, scenes.into_iter().flatten())
}
