//! The output of all containers on the console.
//!
//! The lines of a document's only container come as they are; where there are several, each line
//! begins with the name of its service, as in `web | listening`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::boot::pump::{Liveliness, Pump};
use crate::boot::services::Members;
use crate::console::Console;
use crate::engine::logs::LogStart;
use crate::engine::{ContainerStatus, Engine};

/// One task per container that writes its output to the console.
#[derive(Debug, Default)]
pub(crate) struct Pumps {
    by_container: BTreeMap<String, Pump>,
}

impl Pumps {
    /// Does nothing for a container whose output is shown already.
    pub(crate) fn start(
        &mut self,
        engine: &Arc<dyn Engine>,
        console: &Console,
        container: &str,
        start: LogStart,
        label: Option<String>,
    ) {
        self.by_container.entry(container.to_owned()).or_insert_with(|| {
            Pump::start(Arc::clone(engine), console.clone(), container.to_owned(), start, label)
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_container.is_empty()
    }

    /// Waits until what the containers have written so far is on its way to the console.
    pub(crate) async fn catch_up(&mut self, engine: &Arc<dyn Engine>, members: &Members) {
        let pumps = self.by_container.iter_mut().map(async |(id, pump)| {
            let member = members.iter().find(|member| member.container.id == *id);
            let restarts_before = member.map_or(0, |member| member.container.restarts_before);
            pump.catch_up(liveliness(engine, id, restarts_before).await).await;
        });
        join_all(pumps).await;
    }

    /// When all containers are gone.
    pub(crate) async fn ended(&mut self) {
        join_all(self.by_container.values_mut().map(Pump::ended)).await;
    }
}

async fn liveliness(engine: &Arc<dyn Engine>, id: &str, restarts_before: i64) -> Liveliness {
    match engine.inspect(id).await {
        Ok(Some(found)) if found.restart_count > restarts_before => Liveliness::Looping,
        Ok(Some(found)) if found.state.status == ContainerStatus::Running => Liveliness::Running,
        _ => Liveliness::Ended,
    }
}
