//! Progress, told in passing.
//!
//! Somebody may be waiting and wonder. So each step of the run is told, if a relay is there; at most one
//! message in five seconds, of which the last step is the one that counts. Nothing waits for it, and
//! what cannot be told is left untold.

use std::sync::Arc;
use std::time::Duration;

use signal_protocol::message::{MAX_LOG_BYTES, MAX_PHASE_BYTES, Message};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::signal::gateway::Gateway;
use crate::signal::gateway::slot::Left;
use crate::text;

/// Between two messages.
const PAUSE: Duration = Duration::from_secs(5);

/// How long the end of a run waits for the log to be told.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a run waits for the password slot.
const SLOT_TIMEOUT: Duration = Duration::from_secs(15);

/// Tells the relay how far the run is.
#[derive(Debug)]
pub struct Reporter {
    gateway: Arc<Gateway>,
    phase: watch::Sender<String>,
    task: JoinHandle<()>,
    has_slot: bool,
}

impl Reporter {
    /// Begins. Needs a runtime.
    pub fn start(gateway: Arc<Gateway>) -> Reporter {
        let (phase, seen) = watch::channel(String::new());
        let task = tokio::spawn(tell(gateway.clone(), seen));
        Reporter { gateway, phase, task, has_slot: false }
    }

    /// Leaves the result in Nova's password slot, too.
    #[must_use]
    pub fn with_password_slot(mut self, has_slot: bool) -> Reporter {
        self.has_slot = has_slot;
        self
    }

    /// The run has come here.
    pub fn phase(&self, phase: &str) {
        let phase = text::clean(phase, MAX_PHASE_BYTES);
        self.phase.send_if_modified(|present| {
            let is_new = *present != phase;
            *present = phase;
            is_new
        });
    }

    /// The last lines of a log, when something failed. Told at once, or not at all.
    pub async fn log(&self, log: &str) {
        let text = text::clean_tail(log, MAX_LOG_BYTES);
        let telling = async {
            self.gateway.greet().await?;
            self.gateway.deliver(Message::Log { text }).await
        };
        match timeout(LOG_TIMEOUT, telling).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = crate::error::chain(&error), "log was not told");
            }
            Err(_) => tracing::debug!("log was not told in time"),
        }
    }
}

impl Reporter {
    /// The line of a result, if there is a slot for it.
    pub async fn result(&self, line: &str) {
        if !self.has_slot {
            return;
        }
        match timeout(SLOT_TIMEOUT, self.gateway.leave(line)).await {
            Ok(Ok(Left::Written)) => tracing::info!("result is in the password slot"),
            Ok(Ok(Left::Taken)) => {
                tracing::warn!("result is not in the password slot, which holds something already");
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = crate::error::chain(&error),
                    "result is not in the password slot"
                );
            }
            Err(_) => tracing::warn!("result is not in the password slot: no answer in time"),
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tell(gateway: Arc<Gateway>, mut phases: watch::Receiver<String>) {
    while phases.changed().await.is_ok() {
        let phase = phases.borrow_and_update().clone();
        if gateway.greet().await.is_ok() {
            let message = Message::Progress { phase, text: String::new() };
            if let Err(error) = gateway.deliver(message).await {
                tracing::debug!(error = crate::error::chain(&error), "progress was not told");
            }
        }
        sleep(PAUSE).await;
    }
}
