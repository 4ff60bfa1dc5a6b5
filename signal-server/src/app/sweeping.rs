//! The removal of what is old, now and then: by one of the relays on a store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};

use crate::clock::Clock;
use crate::error::chain;
use crate::instance::Instances;
use crate::mailbox::{Mailboxes, SweepReport};
use crate::store::sharing::Leadership;

/// How often expired records are looked for. What expires has waited for days; a minute more is nothing.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// For so many times as long as a step took that found nothing to remove the next one waits: so nobody who
/// signals or asks feels that millions of records are looked through, a round of which takes minutes then.
/// What is found is removed without a pause: as much may be deleted in a minute as is made in one.
const REST_PER_LOOK: u32 = 9;

/// Removes what nobody came for, now and then.
pub(crate) async fn sweep(mailboxes: Mailboxes, clock: Arc<dyn Clock>, leadership: Leadership) {
    let mut rounds = Rounds::new(leadership);
    loop {
        rounds.next_step().await;
        match mailboxes.sweep(clock.now()).await {
            Ok(report) => {
                tell(&report);
                rounds.last_step = Step::of(report.finished_round, report.has_removed());
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to look for expired records");
                rounds.last_step = Step::EndedRound;
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
            Ok((n_removed, finished_round)) => {
                rounds.last_step = Step::of(finished_round, n_removed > 0);
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to look for old instances");
                rounds.last_step = Step::EndedRound;
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

/// How a step went, which says when the next one comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    OnlyLooked,
    Removed,
    EndedRound,
}

impl Step {
    fn of(finished_round: bool, has_removed: bool) -> Step {
        match (finished_round, has_removed) {
            (true, _) => Step::EndedRound,
            (false, true) => Step::Removed,
            (false, false) => Step::OnlyLooked,
        }
    }
}

/// Gives out the steps of a job that goes round over the whole store, a round for each interval, while this
/// relay is the one that does it.
struct Rounds {
    ticks: Interval,
    leadership: Leadership,
    /// Whoever does a step says how it went.
    last_step: Step,
    /// When it was given out.
    began_at: Instant,
}

impl Rounds {
    fn new(leadership: Leadership) -> Rounds {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Rounds { ticks, leadership, last_step: Step::EndedRound, began_at: Instant::now() }
    }

    /// Returns when a step may be done.
    async fn next_step(&mut self) {
        match self.last_step {
            Step::EndedRound => {}
            // Whoever waits for the store comes in between.
            Step::Removed => tokio::task::yield_now().await,
            Step::OnlyLooked => {
                sleep((self.began_at.elapsed() * REST_PER_LOOK).min(SWEEP_INTERVAL)).await;
            }
        }
        while self.last_step == Step::EndedRound || !self.leadership.is_held() {
            self.ticks.tick().await;
            self.leadership.gained().await;
            self.last_step = Step::OnlyLooked;
        }
        self.began_at = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_steps_of_a_round_follow_one_another_and_rounds_have_an_interval_between_them() {
        let mut rounds = Rounds::new(Leadership::always());
        let begin = Instant::now();
        let mut begun = Vec::new();
        let took = Duration::from_secs(1);
        for last_step in
            [Step::OnlyLooked, Step::Removed, Step::EndedRound, Step::EndedRound, Step::OnlyLooked]
        {
            rounds.next_step().await;
            begun.push(begin.elapsed().as_secs());
            sleep(took).await;
            rounds.last_step = last_step;
        }
        let after_a_look = 1 + u64::from(REST_PER_LOOK);
        assert_eq!(begun, [0, after_a_look, after_a_look + 1, 60, 120]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_slow_to_look_through_has_an_interval_of_rest() {
        let mut rounds = Rounds::new(Leadership::always());
        rounds.next_step().await;
        sleep(SWEEP_INTERVAL).await;
        rounds.last_step = Step::OnlyLooked;
        let begin = Instant::now();
        rounds.next_step().await;
        assert_eq!(begin.elapsed(), SWEEP_INTERVAL);
    }
}
