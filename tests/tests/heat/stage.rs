//! What scenes share: a lab, a relay, an engine, and a few templates.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::{Error, Result};
use e2e::engine::{Engine, Kind};
use e2e::heat::{HeatRelay, Lab};
use e2e::image;

/// How long a stack may take from its last signal to its end, on busy cores.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(120);

pub(crate) type Scene = e2e::scene::Scene<Stage>;

/// A lab with a relay in its catalog.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) lab: Lab,
    pub(crate) relay: HeatRelay,
}

impl Cloud {
    pub(crate) fn stand_up() -> Result<Cloud> {
        let relay = HeatRelay::plan()?;
        let lab = Lab::stand_up(Some(&relay.public()), true)?;
        relay.start_for(&lab)?;
        Ok(Cloud { lab, relay })
    }

    /// What its servers said last, for whoever reads of a failure.
    pub(crate) fn last_words(&self) -> String {
        format!("{}{}", self.lab.last_words(), self.relay.last_words())
    }
}

type Slot<T> = Mutex<Option<Result<Arc<T>, String>>>;

/// Everything shared, made when first wanted.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    cloud: Slot<Cloud>,
    engine: Slot<Engine>,
    turn: RwLock<()>,
}

impl Stage {
    pub(crate) fn cloud(&self) -> Result<Arc<Cloud>> {
        get_or_make(&self.cloud, Cloud::stand_up)
    }

    /// An engine with the images of the examples.
    pub(crate) fn engine(&self) -> Result<Arc<Engine>> {
        get_or_make(&self.engine, || {
            let engine = Engine::start(Kind::Docker, &[])?;
            let tar = image::root_file_system(0)?;
            engine.import("centos:latest", tar.clone())?;
            engine.import("busybox:latest", tar)?;
            Ok(engine)
        })
    }

    /// Others may be at work, too. Not to be asked for twice by one scene at a time.
    pub(crate) fn together(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else is at work.
    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.turn.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl e2e::scene::Stage for Stage {
    fn last_words(&self) -> String {
        let cloud = self.cloud.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cloud {
            Some(Ok(cloud)) => cloud.last_words(),
            _ => String::new(),
        }
    }

    fn end(&self) -> Result<()> {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Ok(engine)) = engine {
            engine.stop()?;
        }
        drop(self.cloud.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }
}

/// What could not be made is not tried again: it would take as long, and fail as well.
fn get_or_make<T>(slot: &Slot<T>, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    let made =
        slot.get_or_insert_with(|| make().map(Arc::new).map_err(|error| format!("{error:#}")));
    made.clone().map_err(Error::msg)
}

/// A template with one handle and one wait condition, whose handle is an output.
pub(crate) fn wait_condition(transport: &str, count: usize, timeout: Duration) -> String {
    let seconds = timeout.as_secs();
    format!(
        "heat_template_version: 2018-08-31
resources:
  handle:
    type: OS::Heat::WaitConditionHandle
    properties: {{signal_transport: {transport}}}
  wait:
    type: OS::Heat::WaitCondition
    properties: {{handle: {{get_resource: handle}}, count: {count}, timeout: {seconds}}}
outputs:
  signal: {{value: {{get_attr: [handle, signal]}}}}
  endpoint: {{value: {{get_attr: [handle, endpoint]}}}}
  token: {{value: {{get_attr: [handle, token]}}}}
  data: {{value: {{get_attr: [wait, data]}}}}
"
    )
}
