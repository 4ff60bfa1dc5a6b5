//! Signals that go to Heat itself: taken from the instance at once, delivered when Heat can take them.
//!
//! A template with `TOKEN_SIGNAL`, `HEAT_SIGNAL` or `CFN_SIGNAL` has its instance call heat-api or
//! heat-api-cfn. When those are away the instance has to try again and again, and most senders do not. The
//! relay stands in their place. A signal is
//!
//! 1. checked: its sender (by Keystone) and its body (by Heat's rules), while somebody still listens;
//! 2. stored, and acknowledged in Heat's words when the store has synced it;
//! 3. sent to Heat until that takes it, refuses it for good, or nobody can be waiting any more;
//! 4. remembered for a while, without its body and its secret, so that somebody can ask what became of it.
//!
//! **Once, in effect.** A relay that is killed between Heat's answer and its own record of it sends the
//! signal again after its restart, and so does one that did not hear the answer. Heat replaces a signal by
//! one with the same id, so the second changes nothing; `judge` gives an id to signals without one. What
//! has no id, because it is not for a wait condition, may arrive twice.
//!
//! **In order, for each resource and account.** See `queue`, also for how accounts share the room and the turns.
//!
//! **By one relay at a time.** Of several relays on one store all take signals, and one sends them; all know
//! what waits, from the store, so that each can say when there is no more room, and any can go on where the
//! sender died. How often a signal was tried is known to its sender only. Of signals for one resource that
//! came by different relays at about the same time, either may be the first.
//!
//! **No open proxy.** The addresses of heat-api and heat-api-cfn come from the configuration; from the
//! request come the names of one stack and one resource, parsed and put together anew, or the very path
//! whose signature Keystone has found good.
//!
//! Choices not taken: passing a request through and answering what Heat answers, which helps nobody when
//! Heat is away; keeping tokens in memory only, which would lose acknowledged signals at a restart.

pub(crate) mod judge;
pub(crate) mod record;
pub(crate) mod target;
pub(crate) mod upstream;

pub(crate) mod queue;
mod worker;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use signal_protocol::path::AccountName;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::forward::queue::{LaneName, Queue, QueueFull};
use crate::forward::record::{
    End, EntryRecord, ForwardId, OutcomeRecord, RecordError, Route, Transport, decode, encode,
    index_of,
};
use crate::forward::target::Target;
use crate::forward::upstream::{HeatServices, HeatSettings, Upstream};
use crate::keystone::Keystone;
use crate::metrics::ForwardMetrics;
use crate::outbound::ClientError;
use crate::store::{Batch, CommitError, Expect, Key, KeyKind, Store, StoreError};

/// How long delivery is tried: the longest time that a wait condition can wait (`timeout`, 43,200 s).
pub(crate) const LIFETIME: Duration = Duration::from_secs(43_200);

/// How long it is remembered what became of a signal: a week, as with everything that nobody collected.
pub(crate) const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most entries of one page of the list.
pub(crate) const MAX_PAGE: usize = 1_000;

/// A signal that is to be forwarded: its sender is known and its body is good.
#[derive(Clone, Debug)]
pub(crate) struct NewForward {
    pub(crate) id: ForwardId,
    pub(crate) account: AccountName,
    pub(crate) target: Target,
    pub(crate) route: Route,
    pub(crate) body: Bytes,
}

/// A forwarded signal, as its account may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForwardView {
    pub(crate) id: ForwardId,
    pub(crate) state: ForwardState,
    pub(crate) transport: Transport,
    pub(crate) stack_name: String,
    pub(crate) stack_id: String,
    pub(crate) resource: String,
    pub(crate) accepted_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) n_attempts: u32,
    /// What the last attempt came to; null before the first.
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ForwardState {
    /// Acknowledged, and not yet with Heat.
    Pending,
    Delivered,
    Refused,
    Expired,
}

/// Why a forwarded signal was not taken, or is not shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ForwardError {
    #[error("there is no such forwarded signal")]
    NotFound,
    #[error("failed to queue the signal")]
    Queue { source: QueueFull },
    #[error("failed to write the signal down")]
    Write { source: CommitError },
    #[error("failed to read what became of a signal")]
    Read { source: StoreError },
    #[error("failed to understand what was written of a signal")]
    Parse { source: RecordError },
    #[error("the signal was taken while the relay stopped")]
    Stopping,
}

/// Takes signals for Heat, and knows what became of them. Clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct Forwarder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    upstream: Arc<dyn Upstream>,
    /// Whose list holds all signals, beside their own accounts'.
    operator: AccountName,
    metrics: ForwardMetrics,
    queue: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    last_number: u64,
    /// Signals that are being written down. One that somebody else is done with before its writer hears that
    /// it was written is no longer among them.
    accepting: HashSet<ForwardId>,
    /// The store may hold entries that the queue does not: at the start, and after a commit whose reply was
    /// lost.
    must_scan: bool,
    /// The queue may hold entries that the store does not, as another relay may be done with them.
    must_forget: bool,
}

impl Forwarder {
    /// Reads nothing yet: that is what [`Forwarder::run`] does first.
    pub(crate) fn new(
        settings: &HeatSettings,
        keystone: Keystone,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        operator: AccountName,
        metrics: ForwardMetrics,
    ) -> Result<Forwarder, ClientError> {
        let upstream = Arc::new(HeatServices::new(settings, keystone)?);
        Ok(Forwarder::to(upstream, store, clock, operator, metrics))
    }

    /// Likewise, to whomever.
    pub(crate) fn to(
        upstream: Arc<dyn Upstream>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        operator: AccountName,
        metrics: ForwardMetrics,
    ) -> Forwarder {
        let state = State {
            queue: Queue::default(),
            last_number: 0,
            accepting: HashSet::new(),
            must_scan: true,
            must_forget: false,
        };
        let shared = Shared {
            store,
            clock,
            upstream,
            operator,
            metrics,
            queue: Mutex::new(state),
            wake: Notify::new(),
        };
        Forwarder { shared: Arc::new(shared) }
    }

    /// Whether signals with a token can be forwarded.
    pub(crate) fn has_api(&self) -> bool {
        self.shared.upstream.has_api()
    }

    /// Whether a signed path can be sent on as it is.
    pub(crate) fn takes_path(&self, path_and_query: &str) -> bool {
        self.shared.upstream.takes_path(path_and_query)
    }

    /// The id for the next signal. It sorts behind all that were given out before, also when somebody has
    /// set the clock back meanwhile.
    pub(crate) fn new_id(&self) -> ForwardId {
        let now = u64::try_from(self.shared.clock.now().as_microsecond()).unwrap_or_default();
        let mut state = self.shared.state();
        state.last_number = now.max(state.last_number.saturating_add(1));
        ForwardId::new(state.last_number, rand::random())
    }

    /// Takes a signal. It is on disk when this returns.
    pub(crate) async fn accept(&self, new: NewForward) -> Result<(), ForwardError> {
        let shared = self.shared.clone();
        // A sender that goes away must not leave a signal on disk that no queue knows.
        let accepting = tokio::spawn(async move { shared.accept(new).await });
        accepting.await.unwrap_or(Err(ForwardError::Stopping))
    }

    /// What is known of a signal of this account.
    pub(crate) async fn view(
        &self,
        account: &AccountName,
        id: ForwardId,
    ) -> Result<ForwardView, ForwardError> {
        let index_key = id.index_key(account);
        let is_own = self.shared.get(&index_key).await?.is_some();
        if !is_own {
            return Err(ForwardError::NotFound);
        }
        self.shared.view(id).await?.ok_or(ForwardError::NotFound)
    }

    /// The signals of this account behind `marker`, oldest first.
    pub(crate) async fn list(
        &self,
        account: &AccountName,
        marker: Option<ForwardId>,
        limit: usize,
    ) -> Result<Vec<ForwardView>, ForwardError> {
        let prefix = index_of(account);
        let limit = limit.min(MAX_PAGE);
        let mut last = marker.map(|id| id.index_key(account));
        let mut views = Vec::new();
        // Signals that are removed while the page is read leave gaps, and a short page would read as the
        // end of the list.
        while views.len() < limit {
            let wanted = limit - views.len();
            let page = self
                .shared
                .store
                .scan(&prefix, last.as_ref(), wanted)
                .await
                .map_err(|source| ForwardError::Read { source })?;
            for id in page.iter().filter_map(|(key, _)| ForwardId::after(key, &prefix)) {
                views.extend(self.shared.view(id).await?);
            }
            match page.last() {
                Some((key, _)) if page.len() == wanted => last = Some(key.clone()),
                _ => break,
            }
        }
        Ok(views)
    }
}

impl Shared {
    async fn accept(&self, new: NewForward) -> Result<(), ForwardError> {
        let n_bytes = new.body.len() as u64;
        let lane = LaneName { account: new.account.clone(), target: new.target.clone() };
        {
            let mut state = self.state();
            let reserved = state.queue.reserve(&lane, n_bytes);
            reserved.map_err(|source| ForwardError::Queue { source })?;
            state.accepting.insert(new.id);
        }
        let accepted_at = self.clock.now();
        let entry = EntryRecord {
            account: new.account.clone(),
            target: new.target,
            route: new.route,
            accepted_at,
            n_bytes,
        };
        let mut batch = Batch::new();
        batch.expect(Expect::Absent(new.id.key(KeyKind::Forward)));
        batch.put(new.id.key(KeyKind::Forward), encode(&entry));
        batch.put(new.id.key(KeyKind::ForwardBody), new.body);
        for account in [&new.account, &self.operator] {
            batch.put(new.id.index_key(account), Bytes::new());
        }
        // Acknowledged means durable: this returns after the sync.
        let committed = self.store.commit(batch).await;
        {
            let mut state = self.state();
            state.queue.give_up_reservation(&new.account, n_bytes);
            let is_waiting = state.accepting.remove(&new.id);
            match &committed {
                Ok(()) if is_waiting => {
                    let expires_at = expiry(&entry);
                    state.queue.add(lane, new.id, n_bytes, expires_at, Instant::now());
                }
                Ok(()) => {}
                Err(_) => state.must_scan = true,
            }
            self.gauge_pending(&state);
        }
        committed.map_err(|source| ForwardError::Write { source })?;
        self.metrics.accepted.inc();
        self.wake.notify_one();
        Ok(())
    }

    async fn view(&self, id: ForwardId) -> Result<Option<ForwardView>, ForwardError> {
        if let Some(bytes) = self.get(&id.key(KeyKind::Forward)).await? {
            return Ok(Some(self.view_of_entry(id, parse(KeyKind::Forward, &bytes)?)));
        }
        // It may have ended between these two reads, and then it is here.
        let Some(bytes) = self.get(&id.key(KeyKind::ForwardOutcome)).await? else {
            return Ok(None);
        };
        Ok(Some(view_of_outcome(id, parse(KeyKind::ForwardOutcome, &bytes)?)))
    }

    fn view_of_entry(&self, id: ForwardId, entry: EntryRecord) -> ForwardView {
        let state = self.state();
        let waiting = state.queue.get(id);
        ForwardView {
            id,
            state: ForwardState::Pending,
            transport: entry.route.transport(),
            stack_name: entry.target.stack_name,
            stack_id: entry.target.stack_id,
            resource: entry.target.resource,
            accepted_at: entry.accepted_at,
            ended_at: None,
            n_attempts: waiting.map_or(0, |waiting| waiting.n_attempts),
            reason: waiting.and_then(|waiting| waiting.last_failure.clone()),
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, ForwardError> {
        self.store.get(key).await.map_err(|source| ForwardError::Read { source })
    }

    fn gauge_pending(&self, state: &State) {
        self.metrics.pending.set(i64::try_from(state.queue.len()).unwrap_or(i64::MAX));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before the next statement can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn view_of_outcome(id: ForwardId, outcome: OutcomeRecord) -> ForwardView {
    ForwardView {
        id,
        state: match outcome.end {
            End::Delivered => ForwardState::Delivered,
            End::Refused => ForwardState::Refused,
            End::Expired => ForwardState::Expired,
        },
        transport: outcome.transport,
        stack_name: outcome.target.stack_name,
        stack_id: outcome.target.stack_id,
        resource: outcome.target.resource,
        accepted_at: outcome.accepted_at,
        ended_at: Some(outcome.ended_at),
        n_attempts: outcome.n_attempts,
        reason: Some(outcome.reason),
    }
}

fn parse<T: serde::de::DeserializeOwned>(kind: KeyKind, bytes: &[u8]) -> Result<T, ForwardError> {
    decode(kind, bytes).map_err(|source| ForwardError::Parse { source })
}

/// When nobody can be waiting any more.
fn expiry(entry: &EntryRecord) -> Timestamp {
    later(entry.accepted_at, LIFETIME)
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
