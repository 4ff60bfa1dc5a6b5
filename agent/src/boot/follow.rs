//! After the signal: the container's output keeps going to the console, and what could not be
//! delivered is tried again.

use std::future::Future;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::boot::Run;

/// How often an undelivered signal is tried. The run itself tried for as long as the document said.
const LEFTOVER_INTERVAL: Duration = Duration::from_secs(60);

/// Waiting for the console before the process ends.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(2);

impl Run {
    /// Until the container is gone, or somebody asks to stop. Containers are left as they are.
    pub async fn follow(mut self, shutdown: impl Future<Output = ()>) {
        let Some(pump) = self.pump.take() else {
            return;
        };
        let mut ticks = tokio::time::interval(LEFTOVER_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the run has just tried.
        ticks.tick().await;
        let work = async {
            let mut pump = pump;
            loop {
                tokio::select! {
                    () = pump.ended() => return,
                    _ = ticks.tick() => self.deliver_leftovers().await,
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = shutdown => {}
        }
        self.settings.console.flush(CONSOLE_TIMEOUT);
    }
}
