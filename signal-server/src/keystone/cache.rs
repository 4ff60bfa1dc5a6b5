//! What Keystone said lately, bounded in number and in age.
//!
//! Refusals have a room of their own: whoever sends made-up tokens pushes out other refusals, and never
//! the verdict on a token that is good.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::keystone::verdict::{TokenHash, Verdict};
use crate::keystone::{FRESH, REFUSED, STALE};

/// How many good tokens are remembered. Heat has one for each stack action under way; a verdict takes
/// some 200 bytes.
const MAX_KNOWN: usize = 10_000;

/// How many refused tokens are remembered.
const MAX_UNKNOWN: usize = 1_000;

/// What is remembered of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    Fresh(Verdict),
    /// Good for as long as nobody can be asked.
    Stale(Verdict),
    Nothing,
}

#[derive(Debug)]
pub(super) struct VerdictCache {
    known: Room,
    unknown: Room,
}

impl VerdictCache {
    pub(super) fn new() -> VerdictCache {
        VerdictCache { known: Room::new(MAX_KNOWN), unknown: Room::new(MAX_UNKNOWN) }
    }

    pub(super) fn get(&self, hash: TokenHash, now: Instant) -> Cached {
        if let Some((verdict, age)) = self.known.get(hash, now) {
            return match age {
                age if age < FRESH => Cached::Fresh(verdict),
                age if age < STALE => Cached::Stale(verdict),
                _ => Cached::Nothing,
            };
        }
        match self.unknown.get(hash, now) {
            Some((verdict, age)) if age < REFUSED => Cached::Fresh(verdict),
            _ => Cached::Nothing,
        }
    }

    pub(super) fn put(&mut self, hash: TokenHash, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Known { .. } => {
                self.unknown.verdicts.remove(&hash);
                self.known.put(hash, verdict, now);
            }
            Verdict::Unknown => {
                self.known.verdicts.remove(&hash);
                self.unknown.put(hash, verdict, now);
            }
        }
    }
}

/// Verdicts of one kind, of which the one that was put first goes first.
#[derive(Debug)]
struct Room {
    capacity: usize,
    verdicts: HashMap<TokenHash, (Verdict, Instant)>,
    /// In the order in which they were put. One that was put again stands here twice, and its first place
    /// no longer counts: the times differ.
    order: VecDeque<(TokenHash, Instant)>,
}

impl Room {
    fn new(capacity: usize) -> Room {
        Room { capacity, verdicts: HashMap::new(), order: VecDeque::new() }
    }

    fn get(&self, hash: TokenHash, now: Instant) -> Option<(Verdict, Duration)> {
        let (verdict, put_at) = self.verdicts.get(&hash)?;
        Some((verdict.clone(), now.saturating_duration_since(*put_at)))
    }

    fn put(&mut self, hash: TokenHash, verdict: Verdict, now: Instant) {
        self.verdicts.insert(hash, (verdict, now));
        self.order.push_back((hash, now));
        while self.verdicts.len() > self.capacity || self.order.len() > 2 * self.capacity {
            let Some((oldest, put_at)) = self.order.pop_front() else {
                return;
            };
            if self.verdicts.get(&oldest).is_some_and(|(_, latest)| *latest == put_at) {
                self.verdicts.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn hash(number: usize) -> TokenHash {
        TokenHash::of(&number.to_string())
    }

    fn known() -> Verdict {
        Verdict::Known { project: None, expires_at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_verdict_ages() {
        let (mut cache, start) = (VerdictCache::new(), Instant::now());
        let second = Duration::from_secs(1);
        cache.put(hash(1), known(), start);
        cache.put(hash(2), Verdict::Unknown, start);
        for (number, age, expect) in [
            (1, Duration::ZERO, Cached::Fresh(known())),
            (1, FRESH - second, Cached::Fresh(known())),
            (1, FRESH, Cached::Stale(known())),
            (1, STALE - second, Cached::Stale(known())),
            (1, STALE, Cached::Nothing),
            (2, REFUSED - second, Cached::Fresh(Verdict::Unknown)),
            (2, REFUSED, Cached::Nothing),
            (3, Duration::ZERO, Cached::Nothing),
        ] {
            assert_eq!(cache.get(hash(number), start + age), expect, "{number} {age:?}");
        }
    }

    #[test]
    fn the_last_verdict_counts() {
        let (mut cache, start) = (VerdictCache::new(), Instant::now());
        cache.put(hash(1), known(), start);
        cache.put(hash(1), Verdict::Unknown, start);
        assert_eq!(cache.get(hash(1), start), Cached::Fresh(Verdict::Unknown));
        cache.put(hash(1), known(), start);
        assert_eq!(cache.get(hash(1), start), Cached::Fresh(known()));
    }

    #[test]
    fn made_up_tokens_push_out_one_another_only() {
        let (mut cache, start) = (VerdictCache::new(), Instant::now());
        cache.put(hash(0), known(), start);
        for number in 1..=2 * MAX_UNKNOWN {
            cache.put(hash(number), Verdict::Unknown, start);
        }
        assert_eq!(cache.get(hash(0), start), Cached::Fresh(known()));
        assert_eq!(cache.get(hash(1), start), Cached::Nothing);
        assert_eq!(cache.get(hash(2 * MAX_UNKNOWN), start), Cached::Fresh(Verdict::Unknown));
        assert_eq!(cache.unknown.verdicts.len(), MAX_UNKNOWN);
    }

    #[test]
    fn neither_many_tokens_nor_one_put_often_grow_the_cache() {
        let (mut cache, start) = (VerdictCache::new(), Instant::now());
        for number in 0..3 * MAX_KNOWN {
            let now = start + Duration::from_millis(number as u64);
            cache.put(hash(0), known(), now);
            cache.put(hash(number % (2 * MAX_KNOWN)), known(), now);
        }
        assert!(cache.known.verdicts.len() <= MAX_KNOWN);
        assert!(cache.known.order.len() <= 2 * MAX_KNOWN);
        let end = start + Duration::from_millis(3 * MAX_KNOWN as u64);
        assert_ne!(cache.get(hash(0), end), Cached::Nothing);
    }
}
