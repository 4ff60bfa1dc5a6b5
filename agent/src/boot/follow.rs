//! After the signal: the containers' output keeps going to the console, and what could not be
//! delivered is tried again.

use std::future::Future;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::boot::Run;
use crate::boot::pumps::Pumps;
use crate::boot::update::{Fingerprint, Update};

/// How often an undelivered signal is tried. The run itself tried for as long as the document said.
const LEFTOVER_INTERVAL: Duration = Duration::from_secs(60);

/// How often a container that may reach the metadata service is looked at: one that was restarted
/// may have another address.
const GUARD_INTERVAL: Duration = Duration::from_secs(10);

/// Waiting for the console before the process ends.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is nothing to follow any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// The containers are gone, or somebody asked to stop.
    Ended,
    /// The metadata is not what this run was given.
    Changed,
}

impl Run {
    /// What the run was given, to be compared with what the datasources say later.
    pub(crate) fn given(&self) -> Option<Fingerprint> {
        self.given
    }

    /// Until all containers are gone, somebody asks to stop, or the metadata changes. Containers
    /// are left as they are.
    pub(crate) async fn follow(
        mut self,
        update: Option<Update<'_>>,
        shutdown: impl Future<Output = ()>,
    ) -> Followed {
        let mut pumps = std::mem::take(&mut self.pumps);
        let changed = async {
            match &update {
                Some(update) => update.changed().await,
                None => std::future::pending().await,
            }
        };
        let followed = tokio::select! {
            // Without containers there may be some when the metadata has changed.
            () = self.follow_containers(&mut pumps), if update.is_none() || !pumps.is_empty() => {
                Followed::Ended
            }
            () = changed => Followed::Changed,
            () = shutdown => Followed::Ended,
        };
        self.settings.console.flush(CONSOLE_TIMEOUT);
        followed
    }

    async fn follow_containers(&mut self, pumps: &mut Pumps) {
        let mut ticks = tokio::time::interval(LEFTOVER_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the run has just tried.
        ticks.tick().await;
        let mut guard_ticks = tokio::time::interval(GUARD_INTERVAL);
        guard_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = pumps.ended() => return,
                _ = guard_ticks.tick() => {}
                _ = ticks.tick() => {
                    self.deliver_leftovers().await;
                    self.guarding.forget();
                }
            }
            if let Some(engine) = &self.engine {
                self.guarding.update(engine, &self.members, &self.settings.console).await;
            }
        }
    }
}
