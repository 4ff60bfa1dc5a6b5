//! The removal of what is old, now and then: by one of the relays on a store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::error::chain;
use crate::instance::Instances;
use crate::mailbox::{Mailboxes, SweepReport};
use crate::store::sharing::Leadership;

/// How often expired records are looked for. What expires has waited for days; a minute more is nothing.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Removes what nobody came for, now and then.
pub(crate) async fn sweep(mailboxes: Mailboxes, clock: Arc<dyn Clock>, leadership: Leadership) {
    let mut rounds = Rounds::new(leadership);
    loop {
        rounds.next_step().await;
        match mailboxes.sweep(clock.now()).await {
            Ok(report) => {
                tell(&report);
                rounds.is_over = report.finished_round;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to look for expired records");
                rounds.is_over = true;
            }
        }
    }
}

/// Forgets instances of which nothing was heard for long, now and then.
pub(crate) async fn sweep_instances(
    instances: Instances,
    retention: Option<Duration>,
    leadership: Leadership,
) {
    let Some(retention) = retention else { return };
    let mut rounds = Rounds::new(leadership);
    loop {
        rounds.next_step().await;
        match instances.sweep(retention).await {
            Ok((_, is_over)) => rounds.is_over = is_over,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to look for old instances");
                rounds.is_over = true;
            }
        }
    }
}

fn tell(report: &SweepReport) {
    if report.n_signals > 0 || report.n_handles > 0 {
        tracing::info!(
            n_signals = report.n_signals,
            n_handles = report.n_handles,
            n_mailboxes = report.n_mailboxes,
            n_containers = report.n_containers,
            "removed what nobody came for"
        );
    }
}

/// Gives out the steps of a job that goes round over the whole store, a round for each interval, while this
/// relay is the one that does it.
struct Rounds {
    ticks: Interval,
    leadership: Leadership,
    /// Whether the next step waits for the next interval. Whoever does a step says so.
    is_over: bool,
}

impl Rounds {
    fn new(leadership: Leadership) -> Rounds {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Rounds { ticks, leadership, is_over: true }
    }

    /// Returns when a step may be done.
    async fn next_step(&mut self) {
        if !self.is_over {
            // Whoever waits for the store comes in between.
            tokio::task::yield_now().await;
        }
        while self.is_over || !self.leadership.is_held() {
            self.ticks.tick().await;
            self.leadership.gained().await;
            self.is_over = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_steps_of_a_round_follow_one_another_and_rounds_have_an_interval_between_them() {
        let mut rounds = Rounds::new(Leadership::always());
        let begin = Instant::now();
        let mut steps = Vec::new();
        for is_over in [false, true, true, false] {
            rounds.next_step().await;
            steps.push(begin.elapsed() / SWEEP_INTERVAL.as_secs() as u32);
            rounds.is_over = is_over;
        }
        let seconds: Vec<u64> = steps.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 0, 1, 2]);
    }
}
