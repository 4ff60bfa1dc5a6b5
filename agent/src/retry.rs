//! When to try again.
//!
//! A schedule only says how long to wait. Who decides that a failure is worth another try is the
//! layer that knows, and who decides that time is up is the caller, with one overall deadline.

use std::time::Duration;

use rand::Rng;

/// Doubling delays up to a cap, each shortened by a random part so that a thousand instances that
/// booted together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    first: Duration,
    cap: Duration,
}

impl Schedule {
    /// For an engine that is still starting: 0.2, 0.4, 0.8, 1.6, 2, 2 … s. Waiting longer would
    /// delay the container by more than the poll costs.
    pub const ENGINE: Schedule =
        Schedule { first: Duration::from_millis(200), cap: Duration::from_secs(2) };

    /// For a registry: 1, 2, 4, 8 s between the five attempts of a pull.
    pub const PULL: Schedule =
        Schedule { first: Duration::from_secs(1), cap: Duration::from_secs(8) };

    /// For a handle: 0.5, 1, 2, 4, 8, 16, 30, 30 … s. A relay that restarts is back within the first
    /// few; one that is down for an hour gets two requests a minute from each instance.
    pub const SIGNAL: Schedule =
        Schedule { first: Duration::from_millis(500), cap: Duration::from_secs(30) };

    /// The wait before retry number `n_failures` (1 = after the first failure), drawn from the
    /// upper half of the nominal delay.
    pub fn delay(self, n_failures: u32) -> Duration {
        let nominal = self.nominal(n_failures);
        nominal.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    fn nominal(self, n_failures: u32) -> Duration {
        let doublings = n_failures.saturating_sub(1).min(30);
        self.first.saturating_mul(1 << doublings).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_follow_the_numbers_in_the_comments() {
        let check = |schedule: Schedule, expect_ms: &[u64]| {
            let delays: Vec<u64> = (1..=u32::try_from(expect_ms.len()).unwrap())
                .map(|n| u64::try_from(schedule.nominal(n).as_millis()).unwrap())
                .collect();
            assert_eq!(delays, expect_ms);
        };
        check(Schedule::ENGINE, &[200, 400, 800, 1600, 2000, 2000]);
        check(Schedule::PULL, &[1000, 2000, 4000, 8000]);
        check(Schedule::SIGNAL, &[500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn jitter_stays_in_the_upper_half() {
        for n_failures in [1, 5, 40, u32::MAX] {
            let nominal = Schedule::SIGNAL.nominal(n_failures);
            for _ in 0..100 {
                let delay = Schedule::SIGNAL.delay(n_failures);
                assert!(delay <= nominal && delay >= nominal / 2, "{delay:?} of {nominal:?}");
            }
        }
    }
}
