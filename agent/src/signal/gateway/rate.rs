//! Staying below Neutron's limit.
//!
//! Where it is switched on, Neutron's haproxy lets an address ask ten times in ten seconds, and every
//! program in the instance counts. So the agent takes eight of them at most.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The window of Neutron's limit (`[metadata_rate_limiting] base_window_duration`).
const WINDOW: Duration = Duration::from_secs(10);

/// How many requests the agent makes in one window; Neutron's default limit is 10.
const MAX_REQUESTS: usize = 8;

/// When the last requests were, or will be.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    turns: Mutex<VecDeque<Instant>>,
}

impl Rate {
    /// Waits until a request may be made.
    pub(crate) async fn turn(&self) {
        sleep_until(self.next()).await;
    }

    fn next(&self) -> Instant {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut next = now;
        if turns.len() >= MAX_REQUESTS
            && let Some(oldest) = turns.pop_front()
        {
            next = now.max(oldest + WINDOW);
        }
        turns.push_back(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_window_has_more_than_its_share() {
        let rate = Rate::default();
        let start = Instant::now();
        let mut at = Vec::new();
        for _ in 0..50 {
            rate.turn().await;
            at.push(Instant::now() - start);
        }
        assert_eq!(at[MAX_REQUESTS - 1], Duration::ZERO, "the first ones do not wait");
        for window in at.windows(MAX_REQUESTS + 1) {
            assert!(window[MAX_REQUESTS] - window[0] >= WINDOW, "{window:?}");
        }
    }
}
