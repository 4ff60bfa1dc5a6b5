//! The scenes of an instance whose only way out is the metadata address, on the real Neutron and Nova.
//!
//! Most share one stood-up path (see `tests/neutron`) and one relay, so each has instances of its own:
//! the last byte of an instance's address is used by one scene only.

mod arriving;
mod guide;
mod heat;
mod knowing;
mod outages;
mod passing;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use e2e::neutron::{Gateway, Lab};
use e2e::programs;

/// What the scenes share, made when the first wants it. What could not be made is not tried again: it
/// would take each scene as long, and end the same way.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    set: Mutex<Option<Result<Arc<Set>, String>>>,
}

/// The path with a relay in it.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) gateway: Gateway,
    pub(crate) lab: Lab,
}

impl e2e::scene::Stage for Stage {}

impl Stage {
    pub(crate) fn set(&self) -> Result<Arc<Set>> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let made = set.get_or_insert_with(|| Set::make().map_err(|error| format!("{error:#}")));
        made.clone().map_err(anyhow::Error::msg)
    }
}

impl Set {
    fn make() -> Result<Arc<Set>> {
        programs::heliograph_agent()?;
        programs::heliograph_server()?;
        let lab = Lab::stand_up()?;
        // The first server is dead: it must not be noticed anywhere.
        let gateway = lab.gateway(&["127.0.0.1:9", lab.fact("nova")?])?;
        Ok(Arc::new(Set { gateway, lab }))
    }
}

/// A scene and its name.
pub(crate) type Scene = (&'static str, fn(&Set) -> Result<()>);

/// Likewise, with a path of its own.
type SceneAlone = (&'static str, fn() -> Result<()>);

/// They wait more than they work, but Neutron's agents are slow.
const N_SCENES_AT_ONCE: usize = 6;

fn main() -> ExitCode {
    let scenes = [knowing::scenes(), arriving::scenes(), passing::scenes(), outages::scenes()];
    let scenes = scenes.into_iter().flatten().map(|(name, play)| {
        e2e::scene::Scene::new(name, move |stage: &Stage| play(&*stage.set()?))
    });
    let alone: [SceneAlone; 2] = [
        ("heats_stacks_complete_from_an_isolated_network", heat::stacks_complete),
        ("every_command_of_the_page_works_and_the_agent_stays_below_neutrons_limit", guide::play),
    ];
    let alone = alone.map(|(name, play)| e2e::scene::Scene::new(name, move |_: &Stage| play()));
    e2e::scene::play(N_SCENES_AT_ONCE, scenes.chain(alone))
}
