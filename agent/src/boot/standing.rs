//! What stands on the instance apart from any run: stopping it, and taking it down.
//!
//! Containers are stopped in the reverse order of their start, one after another, each with the
//! grace time that its document gave it: a service may use what it depends on until its own end.
//! What is stopped is started again by the next run, in order. What is taken down leaves nothing but
//! volumes with data in them, and the mark of what was signalled.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::boot::containers::failed_in;
use crate::boot::labels::{self, ORDER_LABEL, SERVICE_LABEL};
use crate::boot::step::Step;
use crate::boot::{files, objects};
use crate::device;
use crate::engine::{Engine, EngineError, ListedContainer};
use crate::error::{AgentError, chain};
use crate::guard;
use crate::state::{self, StateDirectory, StateError};

/// When the instance goes down, the agent is asked to end at the same moment as this begins.
const HOLD_TIMEOUT: Duration = Duration::from_secs(12);

const HOLD_POLL: Duration = Duration::from_millis(100);

/// Keeps a run from beginning meanwhile. None: an agent that only follows holds the directory. A run
/// that is not over is given a moment to end.
pub(crate) async fn hold(state_directory: &Path) -> Result<Option<StateDirectory>, StateError> {
    let deadline = Instant::now() + HOLD_TIMEOUT;
    loop {
        match hold_now(state_directory) {
            Err(StateError::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(HOLD_POLL).await;
            }
            held => return held,
        }
    }
}

fn hold_now(state_directory: &Path) -> Result<Option<StateDirectory>, StateError> {
    match StateDirectory::open(state_directory) {
        Ok(directory) => Ok(Some(directory)),
        Err(error @ StateError::InUse { .. }) => {
            let status = state::read_status(state_directory)?;
            if status.is_some_and(|status| status.is_over) { Ok(None) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// The agent's containers in the order of their start.
pub(crate) async fn containers(
    engine: &Arc<dyn Engine>,
) -> Result<Vec<ListedContainer>, AgentError> {
    let listed = engine.list(&labels::ours()).await.map_err(failed_in(Step::Engine))?;
    let listed = listed.into_iter().filter(|one| labels::is_ours(&one.labels));
    let mut ours: Vec<ListedContainer> = listed.collect();
    ours.sort_by_key(|one| one.labels.get(ORDER_LABEL).and_then(|text| text.parse::<u32>().ok()));
    Ok(ours)
}

/// The name of a container's service.
pub(crate) fn service_of(container: &ListedContainer) -> &str {
    container.labels.get(SERVICE_LABEL).map_or(container.name.as_str(), String::as_str)
}

/// Stops them, and says of each that it did. One that cannot be stopped does not keep the others.
pub(crate) async fn stop(
    engine: &Arc<dyn Engine>,
    state_directory: &Path,
    say: &dyn Fn(&str),
) -> Result<(), AgentError> {
    let mut first_error: Option<EngineError> = None;
    for container in containers(engine).await?.iter().rev() {
        match engine.stop(&container.id).await {
            Ok(()) => say(&format!("stopped {}", container.name)),
            Err(error) => {
                say(&format!("{} was not stopped: {error}", container.name));
                first_error.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first_error {
        return Err(failed_in(Step::Engine)(error));
    }
    unmount(state_directory)
}

/// Removes everything that the agent made; volumes only if that is wanted.
pub(crate) async fn terminate(
    engine: &Arc<dyn Engine>,
    state_directory: &Path,
    with_volumes: bool,
    say: &dyn Fn(&str),
) -> Result<(), AgentError> {
    for container in containers(engine).await?.iter().rev() {
        // One that cannot be stopped is removed by force.
        drop(engine.stop(&container.id).await);
        engine.remove(&container.id).await.map_err(failed_in(Step::Engine))?;
        say(&format!("removed {}", container.name));
    }
    let removed = objects::remove_all(engine, with_volumes).await;
    for name in removed.map_err(failed_in(Step::Engine))? {
        say(&format!("removed {name}"));
    }
    unmount(state_directory)?;
    state::forget_guarded(state_directory).map_err(AgentError::State)?;
    // Where nothing was raised, because there is no nft, nothing is to be lowered.
    if let Err(error) = guard::lower().await {
        tracing::debug!(error = chain(&error), "guard was not lowered");
    }
    files::remove_all(&state::files_path(state_directory)).map_err(AgentError::File)
}

fn unmount(state_directory: &Path) -> Result<(), AgentError> {
    let directory = state::volumes_path(state_directory);
    device::unmount_others(&directory, &BTreeSet::new()).map_err(AgentError::Device)
}
