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
//! That Keystone is away is learned from a question of the relay's own, about its own token: some questions
//! of callers make a Keystone fail that answers all others (a signed request for the host `[:a` does), and
//! nobody may shut it to others by asking one. A caller's question that fails has the relay ask, and while
//! Keystone is away the relay asks every `PROBE_INTERVAL` that somebody wants something; callers are not
//! held up. A token that Keystone fails over although it is there is treated by the table, too, and no other
//! token is. A refusal of the relay's own user is Keystone being away: it is the operator's mistake and not
//! the caller's.
//!
//! Choices not taken: validating Fernet tokens here, which needs Keystone's keys on every relay; the
//! `memcached` of Keystone's own middleware, one more service to run; a negative answer kept for long,
//! which would lock out a token that was checked in the second before it was issued.

pub(crate) mod calls;
pub(crate) mod verdict;

mod cache;
mod flight;
mod outage;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signal_protocol::message::Login;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::clock::Clock;
use crate::config::Secret;
use crate::error::chain;
use crate::keystone::cache::VerdictCache;
use crate::keystone::calls::{CallError, Calls, ExchangedToken, OwnToken, PresignedRequest};
use crate::keystone::flight::Flight;
use crate::keystone::outage::{Outage, Passage};
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

/// How often Keystone is tried while it is away, or while it fails over somebody's questions.
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
    outage: Outage,
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
            outage: Outage::new(),
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
        self.admit().await?;
        let asked = self.with_own_token(|own| self.shared.calls.exchange(own, request)).await;
        self.note(asked)?.ok_or(BearerError::Invalid)
    }

    /// A token for a user that Heat has made for one handle. It is asked of the configured Keystone,
    /// wherever the sender believes Keystone to be.
    pub(crate) async fn login(&self, login: &Login) -> Result<Secret, BearerError> {
        self.admit().await?;
        let asked = self.shared.calls.login(login).await;
        self.note(asked)?.ok_or(BearerError::Invalid)
    }

    /// A token of the relay's own user, to be shown beside a caller's: services then take the caller's
    /// token although it has expired.
    pub(crate) async fn service_token(&self) -> Result<Secret, BearerError> {
        self.admit().await?;
        let fetched = self.own_token(None).await;
        self.note(fetched)
    }

    /// Forgets the relay's own token, because somebody refused it.
    pub(crate) fn forget_service_token(&self, refused: &Secret) {
        let mut memory = self.memory();
        if memory.own_token.as_ref().is_some_and(|own| own.is(refused)) {
            memory.own_token = None;
        }
    }

    /// Makes a caller's call with the relay's own token, when it is its turn.
    async fn with_own_token<T, F>(&self, call: impl Fn(Secret) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let Ok(_slot) = self.shared.slots.acquire().await else {
            return Err(CallError::NoSlot);
        };
        self.renewing_own_token(call).await
    }

    /// Makes a call with the relay's own token, and once more with a new one if that is refused.
    async fn renewing_own_token<T, F>(&self, call: impl Fn(Secret) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
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

    /// Whether a question may be asked now. While Keystone is away, the caller who comes when it is time to
    /// try waits for the relay's own question.
    async fn admit(&self) -> Result<(), BearerError> {
        let passage = self.memory().outage.admit(Instant::now());
        match passage {
            Passage::Open => Ok(()),
            Passage::Closed { away_for } => Err(unavailable(away_for)),
            // A task of its own, which a caller who goes away does not take along.
            Passage::Probe => match tokio::spawn(self.clone().probe()).await {
                Ok(probed) => probed,
                Err(_) => Err(BearerError::Unavailable),
            },
        }
    }

    /// Asks a question that has nothing of a caller's in it: what comes of it is Keystone's doing.
    async fn probe(self) -> Result<(), BearerError> {
        let asked = self.renewing_own_token(|own| self.shared.calls.confirm(own));
        let asked = timeout(CALL_TIMEOUT, asked).await.unwrap_or(Err(CallError::Silent));
        let (mut memory, now) = (self.memory(), Instant::now());
        let outage = &mut memory.outage;
        match asked {
            Ok(()) => {
                if let Some(away_for) = outage.end(now) {
                    tracing::info!(away_s = away_for.as_secs(), "keystone is there again");
                }
                Ok(())
            }
            Err(error) => {
                if outage.begin(now) {
                    tracing::warn!(error = %chain(&error), "keystone is away");
                }
                Err(unavailable(outage.away_for(now)))
            }
        }
    }

    /// The caller of a question that failed is told to come again. It may be Keystone that is away, or the
    /// question that it stumbled over: the relay looks which, unless it has done so just before.
    fn note<T>(&self, asked: Result<T, CallError>) -> Result<T, BearerError> {
        let error = match asked {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let (mut memory, now) = (self.memory(), Instant::now());
        if memory.outage.doubt(now) {
            tracing::warn!(error = %chain(&error), "keystone has left a question unanswered");
            tokio::spawn(self.clone().probe());
        }
        Err(unavailable(memory.outage.away_for(now)))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change is whole before the next statement can panic.
        self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(away_for: Duration) -> BearerError {
    if away_for >= PATIENCE { BearerError::AwayForLong } else { BearerError::Unavailable }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
