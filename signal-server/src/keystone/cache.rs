//! What Keystone said lately, and about which tokens it could say nothing; bounded in number and in age.
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

/// How many tokens are remembered that nothing could be learned about.
const MAX_FAILING: usize = 1_000;

/// What is remembered of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    Fresh(Verdict),
    /// Good for as long as nobody can be asked.
    Stale(Verdict),
    Nothing,
}

/// No question about a token has been answered lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) lasts: Duration,
    /// How long ago the last question ended.
    pub(super) tried_ago: Duration,
}

#[derive(Debug)]
pub(super) struct VerdictCache {
    known: Room<Verdict>,
    unknown: Room<Verdict>,
    /// With the time of the first failure.
    failing: Room<Instant>,
}

impl VerdictCache {
    pub(super) fn new() -> VerdictCache {
        VerdictCache {
            known: Room::new(MAX_KNOWN),
            unknown: Room::new(MAX_UNKNOWN),
            failing: Room::new(MAX_FAILING),
        }
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
        self.forget_failure(hash);
        match verdict {
            Verdict::Known { .. } => {
                self.unknown.entries.remove(&hash);
                self.known.put(hash, verdict, now);
            }
            Verdict::Unknown => {
                self.known.entries.remove(&hash);
                self.unknown.put(hash, verdict, now);
            }
        }
    }

    /// Whether the last question about the token failed. One that nobody has asked about for [`FRESH`] is
    /// taken for new.
    pub(super) fn failing(&self, hash: TokenHash, now: Instant) -> Option<Failing> {
        let (since, tried_ago) = self.failing.get(hash, now)?;
        let lasts = now.saturating_duration_since(since);
        (tried_ago < FRESH).then_some(Failing { lasts, tried_ago })
    }

    pub(super) fn put_failure(&mut self, hash: TokenHash, now: Instant) {
        let lasts = self.failing(hash, now).map_or(Duration::ZERO, |failing| failing.lasts);
        self.failing.put(hash, now.checked_sub(lasts).unwrap_or(now), now);
    }

    pub(super) fn forget_failure(&mut self, hash: TokenHash) {
        self.failing.entries.remove(&hash);
    }
}

/// What is known of tokens of one kind. The one that was put first goes first.
#[derive(Debug)]
struct Room<T> {
    capacity: usize,
    entries: HashMap<TokenHash, (T, Instant)>,
    /// In the order in which they were put. One that was put again stands here twice, and its first place
    /// no longer counts: the times differ.
    order: VecDeque<(TokenHash, Instant)>,
}

impl<T: Clone> Room<T> {
    fn new(capacity: usize) -> Room<T> {
        Room { capacity, entries: HashMap::new(), order: VecDeque::new() }
    }

    fn get(&self, hash: TokenHash, now: Instant) -> Option<(T, Duration)> {
        let (entry, put_at) = self.entries.get(&hash)?;
        Some((entry.clone(), now.saturating_duration_since(*put_at)))
    }

    fn put(&mut self, hash: TokenHash, entry: T, now: Instant) {
        self.entries.insert(hash, (entry, now));
        self.order.push_back((hash, now));
        while self.entries.len() > self.capacity || self.order.len() > 2 * self.capacity {
            let Some((oldest, put_at)) = self.order.pop_front() else {
                return;
            };
            if self.entries.get(&oldest).is_some_and(|(_, latest)| *latest == put_at) {
                self.entries.remove(&oldest);
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
        assert_eq!(cache.unknown.entries.len(), MAX_UNKNOWN);
    }

    #[test]
    fn a_token_fails_until_a_question_about_it_is_answered() {
        let (mut cache, start) = (VerdictCache::new(), Instant::now());
        let second = Duration::from_secs(1);
        let check = |cache: &VerdictCache, after: u32, expect: Option<(u32, u32)>| {
            let failing = cache.failing(hash(1), start + second * after);
            let expect = expect.map(|(lasts, tried_ago)| Failing {
                lasts: second * lasts,
                tried_ago: second * tried_ago,
            });
            assert_eq!(failing, expect, "after {after} s");
        };
        check(&cache, 0, None);
        cache.put_failure(hash(1), start);
        cache.put_failure(hash(1), start + second * 8);
        check(&cache, 9, Some((9, 1)));
        cache.put(hash(1), known(), start + second * 10);
        check(&cache, 10, None);
        cache.put_failure(hash(1), start + second * 11);
        check(&cache, 12, Some((1, 1)));
        check(&cache, 11 + 60, None);
        for number in 2..=MAX_FAILING + 1 {
            cache.put_failure(hash(number), start + second * 12);
        }
        check(&cache, 12, None);
        assert_eq!(cache.failing.entries.len(), MAX_FAILING);
    }

    #[test]
    fn neither_many_tokens_nor_one_put_often_grow_the_cache() {
        let (mut cache, start) = (VerdictCache::new(), Instant::now());
        for number in 0..3 * MAX_KNOWN {
            let now = start + Duration::from_millis(number as u64);
            cache.put(hash(0), known(), now);
            cache.put(hash(number % (2 * MAX_KNOWN)), known(), now);
        }
        assert!(cache.known.entries.len() <= MAX_KNOWN);
        assert!(cache.known.order.len() <= 2 * MAX_KNOWN);
        let end = start + Duration::from_millis(3 * MAX_KNOWN as u64);
        assert_ne!(cache.get(hash(0), end), Cached::Nothing);
    }
}
