//! Questions about tokens: all who wait for a verdict on one token wait for one question, which goes on
//! when they go away.
//!
//! Keystone may fail over one token and answer about all others, as when the directory behind one of its
//! domains is away. Whoever bears such a token is treated as all are while Keystone is away, and nobody
//! else is.

use std::collections::hash_map::Entry;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Secret;
use crate::keystone::cache::Cached;
use crate::keystone::verdict::{BearerError, TokenHash, Verdict};
use crate::keystone::{Keystone, MAX_WAITING, PROBE_INTERVAL, TokenUse, unavailable};

/// A question that is under way, and whose answer will arrive here. Nothing inside stands for a failure,
/// whose reason was logged where it happened.
pub(super) type Flight = watch::Receiver<Option<Option<Verdict>>>;

/// What became of the look into the memory.
enum LookUp {
    Remembered(Verdict),
    Asked { stale: Option<Verdict>, flight: Flight },
    Closed { away_for: Duration },
}

impl LookUp {
    fn or_closed(stale: Option<Verdict>, away_for: Duration) -> LookUp {
        match stale {
            Some(verdict) => LookUp::Remembered(verdict),
            None => LookUp::Closed { away_for },
        }
    }
}

/// Takes a question off the list when it ends, however it ends.
struct Landing<'a> {
    keystone: &'a Keystone,
    key: (TokenHash, TokenUse),
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.keystone.memory().flights.remove(&self.key);
    }
}

impl Keystone {
    pub(super) async fn verdict(
        &self,
        token: &str,
        hash: TokenHash,
        token_use: TokenUse,
    ) -> Result<Verdict, BearerError> {
        let (stale, mut flight) = match self.look_up(token, hash, token_use) {
            LookUp::Remembered(verdict) => return Ok(verdict),
            LookUp::Closed { away_for } => return Err(unavailable(away_for)),
            LookUp::Asked { stale, flight } => (stale, flight),
        };
        // An end without an answer is a question that panicked.
        let answer = match flight.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().flatten(),
            Err(_) => None,
        };
        answer.or(stale).ok_or_else(|| {
            let (memory, now) = (self.memory(), Instant::now());
            let failing = memory.verdicts.failing(hash, now).unwrap_or_default();
            unavailable(memory.outage.away_for(now).max(failing.lasts))
        })
    }

    /// What is remembered of a token, or the question about it, which is begun unless it is under way.
    fn look_up(&self, token: &str, hash: TokenHash, token_use: TokenUse) -> LookUp {
        let now = Instant::now();
        let mut memory = self.memory();
        let memory = &mut *memory;
        let stale = match (token_use, memory.verdicts.get(hash, now)) {
            (TokenUse::Finish, Cached::Fresh(verdict)) => return LookUp::Remembered(verdict),
            (TokenUse::Finish, Cached::Stale(verdict)) => Some(verdict),
            // That a token is alive is not remembered: this is asked at the end of its time only.
            (TokenUse::Begin, _) | (_, Cached::Nothing) => None,
        };
        let failing = memory.verdicts.failing(hash, now);
        let is_crowded = memory.flights.len() >= MAX_WAITING;
        let flight = match memory.flights.entry((hash, token_use)) {
            Entry::Occupied(flight) => flight.get().clone(),
            Entry::Vacant(_) if is_crowded => return LookUp::or_closed(stale, Duration::ZERO),
            Entry::Vacant(place) => {
                let just_failed = failing.filter(|failing| failing.tried_ago < PROBE_INTERVAL);
                let closed_for = memory.outage.closed_for(now);
                if let Some(away_for) = closed_for.max(just_failed.map(|failing| failing.lasts)) {
                    return LookUp::or_closed(stale, away_for);
                }
                let (sender, flight) = watch::channel(None);
                tokio::spawn(self.clone().ask(token.to_owned(), hash, token_use, sender));
                place.insert(flight).clone()
            }
        };
        match stale {
            // Whoever has another answer does not wait for one that may not come.
            Some(verdict) if failing.is_some() || !memory.outage.is_there() => {
                LookUp::Remembered(verdict)
            }
            stale => LookUp::Asked { stale, flight },
        }
    }

    /// Asks Keystone about a token, and tells all who wait for the answer.
    async fn ask(
        self,
        token: String,
        hash: TokenHash,
        token_use: TokenUse,
        sender: watch::Sender<Option<Option<Verdict>>>,
    ) {
        let _landing = Landing { keystone: &self, key: (hash, token_use) };
        let answer = self.answer(Secret::new(token), hash, token_use).await;
        sender.send_replace(Some(answer));
    }

    /// What Keystone says about a token, which is remembered; so is that it said nothing.
    async fn answer(&self, token: Secret, hash: TokenHash, token_use: TokenUse) -> Option<Verdict> {
        self.admit().await.ok()?;
        let asked =
            self.with_own_token(|own| self.shared.calls.validate(own, &token, token_use)).await;
        let verdict = self.note(asked).ok();
        let (mut memory, now) = (self.memory(), Instant::now());
        match &verdict {
            Some(verdict) if token_use == TokenUse::Finish => {
                memory.verdicts.put(hash, verdict.clone(), now);
            }
            Some(_) => memory.verdicts.forget_failure(hash),
            None => memory.verdicts.put_failure(hash, now),
        }
        verdict
    }
}
