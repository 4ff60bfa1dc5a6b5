//! The guard of the metadata service during a run: raised before the first container starts, and
//! opened for those that may pass, whose addresses the engine only gives out when they start. That it
//! was raised outlives the run and the machine's power, see [`raise_again`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::boot::services::Members;
use crate::console::Console;
use crate::engine::Engine;
use crate::error::chain;
use crate::guard::{self, GuardError, HardwareAddress};
use crate::plan::Plan;
use crate::state;

/// The guard, as it was raised last.
#[derive(Debug)]
pub(crate) struct Guarding {
    is_wanted: bool,
    state_directory: PathBuf,
    /// None: not raised yet.
    allowed: Option<BTreeSet<HardwareAddress>>,
}

impl Guarding {
    pub(crate) fn new(is_wanted: bool, state_directory: &Path) -> Guarding {
        Guarding { is_wanted, state_directory: state_directory.to_owned(), allowed: None }
    }

    /// Before anything is waited for. What cannot be raised now is said when it is raised anew for
    /// this run's containers.
    pub(crate) async fn raise_again(&self) {
        if !self.is_wanted {
            return;
        }
        if let Err(error) = raise_again(&self.state_directory).await {
            tracing::warn!(error = chain(&error), "guard was not raised again");
        }
    }

    /// Holds the containers back that may not pass. What is not held back is said: a container that
    /// runs unguarded is better than none, and its owner has to know.
    pub(crate) async fn update(
        &mut self,
        engine: &Arc<dyn Engine>,
        members: &Members,
        console: &Console,
    ) {
        if !self.is_wanted {
            return;
        }
        let mut allowed = BTreeSet::new();
        for id in members.with_metadata_access() {
            match engine.inspect(id).await {
                Ok(Some(inspection)) => allowed.extend(hardware_addresses(&inspection.raw)),
                Ok(None) => {}
                // An engine that is away has not taken anything from its containers yet.
                Err(_) => return,
            }
        }
        if self.allowed.as_ref() == Some(&allowed) {
            return;
        }
        if let Err(error) = state::mark_guarded(&self.state_directory) {
            tracing::warn!(error = chain(&error), "guard will be late after a reboot");
        }
        if let Err(error) = guard::raise(&allowed).await {
            tracing::warn!(error = chain(&error), "guard was not raised");
            console.say(&format!(
                "warning: containers are not kept from the metadata service: {}",
                chain(&error)
            ));
        }
        self.allowed = Some(allowed);
    }

    /// Makes the next update raise the guard anew: somebody may have flushed all rules meanwhile.
    pub(crate) fn forget(&mut self) {
        self.allowed = None;
    }

    /// Says which containers no guard can hold back.
    pub(crate) fn warn_of(&self, plan: &Plan, console: &Console) {
        let unheld = plan.containers.iter().filter(|one| {
            let mode = one.create.pointer("/HostConfig/NetworkMode").and_then(Value::as_str);
            !one.metadata_access && mode == Some("host")
        });
        for container in unheld.filter(|_| self.is_wanted) {
            console.say(&format!(
                "warning: {} is on the host's network, so it can reach the metadata service",
                container.service
            ));
        }
    }
}

/// Raises the guard where it was raised before and has gone with a reboot. Rules that are there stay:
/// they let those through who may pass.
pub(crate) async fn raise_again(state_directory: &Path) -> Result<(), GuardError> {
    if !state::is_guarded(state_directory) || guard::is_raised().await? {
        return Ok(());
    }
    guard::raise(&BTreeSet::new()).await
}

fn hardware_addresses(inspection: &Value) -> impl Iterator<Item = HardwareAddress> + '_ {
    let networks = inspection.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let networks = networks.into_iter().flat_map(|networks| networks.values());
    let addresses = networks.filter_map(|network| network.get("MacAddress")?.as_str());
    addresses.filter_map(HardwareAddress::parse)
}
