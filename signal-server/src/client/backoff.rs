//! When to ask again.

use std::time::Duration;

/// The delays before the second, third, … attempt, in milliseconds; the last one repeats. Each is
/// spread over 50 to 150 %, so that clients that a restart cut off do not all come back at once.
const SCHEDULE_MS: [u64; 6] = [200, 400, 800, 1600, 3200, 5000];

/// The delays of one sequence of attempts.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    n_failures: usize,
}

impl Backoff {
    /// How long to wait after one more failure, at least as long as the relay asked for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let index = self.n_failures.min(SCHEDULE_MS.len() - 1);
        self.n_failures += 1;
        let spread = 0.5 + rand::random::<f64>();
        let delay = Duration::from_millis(SCHEDULE_MS[index]).mul_f64(spread);
        delay.max(asked.unwrap_or_default())
    }

    /// Begins anew after a success.
    pub(crate) fn reset(&mut self) {
        self.n_failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        for base in SCHEDULE_MS.into_iter().chain([5000, 5000]) {
            let delay = backoff.next(None);
            let base = Duration::from_millis(base);
            assert!(delay >= base / 2 && delay <= base * 3 / 2, "{delay:?} {base:?}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= Duration::from_millis(300));
        assert!(backoff.next(Some(Duration::from_secs(7))) >= Duration::from_secs(7));
    }
}
