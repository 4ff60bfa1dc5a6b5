//! Whose token is it? Keystone knows, and the relay remembers what it said.
//!
//! The relay has a user of its own, with the role `service` (or `admin`) in some project. With that
//! user's token it asks `GET /v3/auth/tokens` about the tokens of its callers. The answer names the
//! caller's project, and the project `P` opens the account `AUTH_P`.
//!
//! **Expired tokens.** Heat polls with the token of whoever created the stack, to the end, which may be
//! twelve hours away; Keystone's tokens live for one. So the question is always asked with
//! `allow_expired=1`, the way that Keystone has for services which finish what a user began, and the
//! answer says when the token ends. A use that begins something (`TokenUse::Begin`) needs a token that
//! is alive; one that carries on or collects does not (`TokenUse::Finish`).
//!
//! **What is remembered.** One poll per second and wait condition would be one question per second. A
//! verdict is good for `FRESH`; what is kept is the SHA-256 of the token, never the token. All who wait
//! for a verdict on one token wait for one question, which goes on when they go away.
//!
//! **When Keystone is away.** Heat fails a stack at once over a 401 or a 403, and gives up 31 seconds after
//! the first 503. Neither may happen because of trouble between the relay and Keystone, so:
//!
//! | the token | the answer |
//! |---|---|
//! | is known, and Keystone said so less than `STALE` ago | as Keystone said then |
//! | is not known, and Keystone has just gone | `BearerError::Unavailable`, that is 503 |
//! | is not known, and Keystone has been away for `PATIENCE` | `BearerError::AwayForLong`, that is 503, but for listings: they are empty, and Heat goes on polling |
//!
//! While Keystone is away it is tried every `PROBE_INTERVAL` by one caller; the others are not held up.
//! A refusal of the relay's own user is Keystone being away, too: it is the operator's mistake and not the
//! caller's.
//!
//! Choices not taken: validating Fernet tokens here, which needs Keystone's keys on every relay; the
//! `memcached` of Keystone's own middleware, one more service to run; a negative answer kept for long,
//! which would lock out a token that was checked in the second before it was issued.

pub(crate) mod calls;
pub(crate) mod verdict;

mod cache;
mod outage;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signal_protocol::message::Login;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::Secret;
use crate::error::chain;
use crate::keystone::cache::{Cached, VerdictCache};
use crate::keystone::calls::{CallError, Calls, ExchangedToken, OwnToken, PresignedRequest};
use crate::keystone::outage::{Line, Outages, Passage};
use crate::keystone::verdict::{BearerError, ProjectId, TokenHash, Verdict};
use crate::outbound::{ClientError, ServiceUrl};

/// How long a verdict is used without asking again. A revoked token opens its project for so much longer;
/// Keystone's own middleware keeps verdicts for five minutes.
pub(crate) const FRESH: Duration = Duration::from_secs(60);

/// How long a verdict is used while Keystone cannot be asked: longer than a restart or an upgrade of
/// Keystone takes. Afterwards a poll finds nothing instead, so no stack fails and nothing is lost.
pub(crate) const STALE: Duration = Duration::from_secs(3600);

/// How long a token that Keystone does not know is refused without asking again: enough to make a client
/// that repeats itself cheap, too short to matter to a person.
pub(crate) const REFUSED: Duration = Duration::from_secs(5);

/// How long a caller may be told to try again before it is given an empty listing. Heat asks again after
/// 1, 2, 4, 8 and 16 seconds, so its fourth repetition, 15 seconds after the first request, still comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// How often Keystone is tried while it is away.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long one call may take. Keystone answers in tens of milliseconds; a heat-engine thread waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// How many calls are under way at once: a few more than a Keystone has workers, so that a rush of unknown
/// tokens does not become a rush on Keystone.
const MAX_CALLS: usize = 16;

/// How many questions may wait for one of the [`MAX_CALLS`]; more are told to come again.
const MAX_WAITING: usize = 1024;

/// How to reach Keystone, and as whom.
#[derive(Clone, Debug)]
pub struct KeystoneSettings {
    pub auth_url: ServiceUrl,
    pub username: String,
    pub password: Secret,
    pub project: String,
    pub user_domain: String,
    pub project_domain: String,
    pub ca_file: Option<PathBuf>,
}

/// What a token is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenUse {
    /// Something begins, or is handed out: the token has to be alive.
    Begin,
    /// Something that began with a token which was alive is carried on: it may have expired since.
    Finish,
}

/// A question that is under way, and whose answer will arrive here. Nothing inside stands for a failure,
/// whose reason was logged where it happened.
type Flight = watch::Receiver<Option<Option<Verdict>>>;

/// Asks Keystone. Clones share what is remembered.
#[derive(Clone, Debug)]
pub struct Keystone {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    calls: Calls,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
    /// One caller at a time fetches the relay's own token.
    fetching: Semaphore,
    slots: Semaphore,
}

#[derive(Debug)]
struct Memory {
    verdicts: VerdictCache,
    flights: HashMap<(TokenHash, TokenUse), Flight>,
    own_token: Option<OwnToken>,
    outages: Outages,
}

impl Keystone {
    /// Makes the client; asks nothing yet, so that a relay starts while Keystone is away.
    pub fn new(
        settings: &KeystoneSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Keystone, ClientError> {
        let memory = Memory {
            verdicts: VerdictCache::new(),
            flights: HashMap::new(),
            own_token: None,
            outages: Outages::new(),
        };
        let shared = Shared {
            calls: Calls::new(settings, CALL_TIMEOUT)?,
            clock,
            memory: Mutex::new(memory),
            fetching: Semaphore::new(1),
            slots: Semaphore::new(MAX_CALLS),
        };
        Ok(Keystone { shared: Arc::new(shared) })
    }

    /// The project of whoever bears the token.
    pub(crate) async fn project_of(
        &self,
        token: &str,
        token_use: TokenUse,
    ) -> Result<ProjectId, BearerError> {
        let hash = TokenHash::of(token);
        let verdict = self.verdict(token, hash, TokenUse::Finish).await?;
        let is_over = match &verdict {
            Verdict::Known { expires_at, .. } => *expires_at <= self.shared.clock.now(),
            Verdict::Unknown => false,
        };
        if token_use == TokenUse::Finish || !is_over {
            return verdict.project();
        }
        // By the relay's clock the token is over, but it is Keystone's clock that counts.
        self.verdict(token, hash, TokenUse::Begin).await?.project()
    }

    /// The token and the project of whoever signed a request with an EC2 credential.
    pub(crate) async fn exchange(
        &self,
        request: &PresignedRequest<'_>,
    ) -> Result<ExchangedToken, BearerError> {
        self.admit(Line::Signatures)?;
        let asked = self.with_own_token(|own| self.shared.calls.exchange(own, request)).await;
        self.note(Line::Signatures, asked)?.ok_or(BearerError::Invalid)
    }

    /// A token for a user that Heat has made for one handle. It is asked of the configured Keystone,
    /// wherever the sender believes Keystone to be.
    pub(crate) async fn login(&self, login: &Login) -> Result<Secret, BearerError> {
        self.admit(Line::Signatures)?;
        let asked = self.shared.calls.login(login).await;
        self.note(Line::Signatures, asked)?.ok_or(BearerError::Invalid)
    }

    /// A token of the relay's own user, to be shown beside a caller's: services then take the caller's
    /// token although it has expired.
    pub(crate) async fn service_token(&self) -> Result<Secret, BearerError> {
        self.admit(Line::Tokens)?;
        let fetched = self.own_token(None).await;
        self.note(Line::Tokens, fetched)
    }

    /// Forgets the relay's own token, because somebody refused it.
    pub(crate) fn forget_service_token(&self, refused: &Secret) {
        let mut memory = self.memory();
        if memory.own_token.as_ref().is_some_and(|own| own.is(refused)) {
            memory.own_token = None;
        }
    }

    async fn verdict(
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
        match answer.or(stale) {
            Some(verdict) => Ok(verdict),
            None => {
                Err(unavailable(self.memory().outages.of(Line::Tokens).away_for(Instant::now())))
            }
        }
    }

    /// What is remembered of a token, or the question about it, which is begun unless it is under way.
    fn look_up(&self, token: &str, hash: TokenHash, token_use: TokenUse) -> LookUp {
        let now = Instant::now();
        let mut memory = self.memory();
        let memory = &mut *memory;
        let outage = memory.outages.of(Line::Tokens);
        let stale = match (token_use, memory.verdicts.get(hash, now)) {
            (TokenUse::Finish, Cached::Fresh(verdict)) => return LookUp::Remembered(verdict),
            (TokenUse::Finish, Cached::Stale(verdict)) => Some(verdict),
            // That a token is alive is not remembered: this is asked at the end of its time only.
            (TokenUse::Begin, _) | (_, Cached::Nothing) => None,
        };
        let is_crowded = memory.flights.len() >= MAX_WAITING;
        let flight = match memory.flights.entry((hash, token_use)) {
            Entry::Occupied(flight) => flight.get().clone(),
            Entry::Vacant(_) if is_crowded => return LookUp::or_closed(stale, Duration::ZERO),
            Entry::Vacant(place) => match outage.admit(now) {
                Passage::Closed { away_for } => return LookUp::or_closed(stale, away_for),
                Passage::Open => {
                    let (sender, flight) = watch::channel(None);
                    tokio::spawn(self.clone().ask(token.to_owned(), hash, token_use, sender));
                    place.insert(flight).clone()
                }
            },
        };
        match stale {
            // The question is a probe, and whoever has another answer does not wait for it.
            Some(verdict) if outage.is_on() => LookUp::Remembered(verdict),
            stale => LookUp::Asked { stale, flight },
        }
    }

    /// Asks Keystone about a token, remembers the answer, and tells all who wait for it.
    async fn ask(
        self,
        token: String,
        hash: TokenHash,
        token_use: TokenUse,
        sender: watch::Sender<Option<Option<Verdict>>>,
    ) {
        let _landing = Landing { keystone: &self, key: (hash, token_use) };
        let token = Secret::new(token);
        let asked =
            self.with_own_token(|own| self.shared.calls.validate(own, &token, token_use)).await;
        let answer = self.note(Line::Tokens, asked).ok();
        if let Some(verdict) = &answer
            && token_use == TokenUse::Finish
        {
            self.memory().verdicts.put(hash, verdict.clone(), Instant::now());
        }
        sender.send_replace(Some(answer));
    }

    /// Makes a call with the relay's own token, and once more with a new one if that is refused.
    async fn with_own_token<T, F>(&self, call: impl Fn(Secret) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let Ok(_slot) = self.shared.slots.acquire().await else {
            return Err(CallError::NoSlot);
        };
        let own = self.own_token(None).await?;
        match call(own.clone()).await {
            Err(CallError::OwnTokenRefused) => call(self.own_token(Some(&own)).await?).await,
            answered => answered,
        }
    }

    /// The relay's own token, fetched if there is none, or if the one there is has been refused.
    async fn own_token(&self, refused: Option<&Secret>) -> Result<Secret, CallError> {
        let Ok(_turn) = self.shared.fetching.acquire().await else {
            return Err(CallError::NoSlot);
        };
        if let Some(own) = &self.memory().own_token
            && own.is_good(Instant::now())
            && !refused.is_some_and(|refused| own.is(refused))
        {
            return Ok(own.secret());
        }
        let own = self.shared.calls.authenticate().await?;
        let secret = own.secret();
        self.memory().own_token = Some(own);
        Ok(secret)
    }

    fn admit(&self, line: Line) -> Result<(), BearerError> {
        match self.memory().outages.of(line).admit(Instant::now()) {
            Passage::Open => Ok(()),
            Passage::Closed { away_for } => Err(unavailable(away_for)),
        }
    }

    /// Keeps the books on whether Keystone is there; the log hears of the changes only.
    fn note<T>(&self, line: Line, called: Result<T, CallError>) -> Result<T, BearerError> {
        let now = Instant::now();
        let mut memory = self.memory();
        let outage = memory.outages.of(line);
        match called {
            Ok(value) => {
                if let Some(away_for) = outage.end(now) {
                    tracing::info!(away_s = away_for.as_secs(), "keystone checks {line} again");
                }
                Ok(value)
            }
            Err(error) => {
                if outage.begin(now) {
                    tracing::warn!(error = %chain(&error), "keystone cannot check {line}");
                }
                Err(unavailable(outage.away_for(now)))
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is whole before the next statement can panic.
        self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

fn unavailable(away_for: Duration) -> BearerError {
    if away_for >= PATIENCE { BearerError::AwayForLong } else { BearerError::Unavailable }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
