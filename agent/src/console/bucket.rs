//! A token bucket: a burst at once, then a steady rate, in pieces that can be read.
//!
//! Once it is empty it gives nothing until it is half full again. Otherwise it would let single
//! lines through, each with a gap before it, and nobody could read anything.

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Bucket {
    capacity: f64,
    per_second: f64,
    level: f64,
    is_refilling: bool,
    filled_at: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(capacity: u32, per_second: u32) -> Bucket {
        let capacity = f64::from(capacity);
        let per_second = f64::from(per_second);
        Bucket { capacity, per_second, level: capacity, is_refilling: false, filled_at: None }
    }

    /// Takes all of it or nothing.
    pub(crate) fn take(&mut self, n: usize, now: Instant) -> bool {
        let filled_at = *self.filled_at.get_or_insert(now);
        let elapsed = now.saturating_duration_since(filled_at).as_secs_f64();
        self.level = (self.level + elapsed * self.per_second).min(self.capacity);
        self.filled_at = Some(now.max(filled_at));
        let wanted = f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        self.is_refilling &= self.level < self.capacity / 2.0;
        if self.is_refilling || wanted > self.level {
            self.is_refilling = true;
            return false;
        }
        self.level -= wanted;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_the_rate_in_pieces() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, 10);
        let mut check = |milliseconds: u64, n: usize, expect: bool| {
            let now = start + Duration::from_millis(milliseconds);
            assert_eq!(bucket.take(n, now), expect, "{n} at {milliseconds} ms");
        };
        check(0, 60, true);
        check(0, 41, false);
        check(500, 1, false);
        check(1000, 50, true);
        check(1000, 1, false);
        check(5900, 1, false);
        check(6000, 1, true);
        check(60_000, 101, false);
        check(60_000, 100, true);
        check(0, 1, false);
    }
}
