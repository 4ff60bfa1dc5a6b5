//! The removal of what is old, now and then: by one of the relays on a store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::error::chain;
use crate::instance::Instances;
use crate::mailbox::Mailboxes;
use crate::store::sharing::Leadership;

/// How often expired records are looked for. What expires has waited for days; a minute more is nothing.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Removes what nobody came for, now and then.
pub(crate) async fn sweep(mailboxes: Mailboxes, clock: Arc<dyn Clock>, mut leadership: Leadership) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        leadership.gained().await;
        while leadership.is_held() {
            match mailboxes.sweep(clock.now()).await {
                Ok(report) => {
                    if report.n_signals > 0 || report.n_handles > 0 {
                        tracing::info!(
                            n_signals = report.n_signals,
                            n_handles = report.n_handles,
                            n_mailboxes = report.n_mailboxes,
                            n_containers = report.n_containers,
                            "removed what nobody came for"
                        );
                    }
                    if report.finished_round {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "failed to look for expired records");
                    break;
                }
            }
        }
    }
}

/// Forgets instances of which nothing was heard for long, now and then.
pub(crate) async fn sweep_instances(
    instances: Instances,
    retention: Option<Duration>,
    mut leadership: Leadership,
) {
    let Some(retention) = retention else { return };
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        leadership.gained().await;
        while leadership.is_held() {
            match instances.sweep(retention).await {
                Ok((_, true)) => break,
                Ok((_, false)) => tokio::task::yield_now().await,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "failed to look for old instances");
                    break;
                }
            }
        }
    }
}
