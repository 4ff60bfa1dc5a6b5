//! The task that empties the queue.
//!
//! It begins by reading what a former process left behind. Then it sends what is due, a bounded number at
//! a time, writes down each end, and removes records that are old. When it is told to stop it waits a
//! little for what is under way; what is cut is sent again after the next start.
//!
//! While another relay on the same store does this, it only keeps its queue as the store has it.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::chain;
use crate::forward::queue::{LaneName, Suspect, Waiting};
use crate::forward::record::{End, EntryRecord, ForwardId, OutcomeRecord, encode};
use crate::forward::upstream::Attempt;
use crate::forward::{ForwardError, Forwarder, RETENTION, Shared, expiry, later, parse};
use crate::metrics::EndLabels;
use crate::store::sharing::{Change, Job};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind};

/// How many signals are sent at once: as many as a small heat-api has workers, twice over.
const MAX_DELIVERIES: usize = 16;

/// How often old records are looked for, and the store is read again if need be.
const TICK: Duration = Duration::from_secs(60);

/// How soon the store is read again after it could not be.
const SCAN_PAUSE: Duration = Duration::from_secs(1);

/// How many records are read at a time.
const SCAN_PAGE: usize = 256;

/// How many old records are removed at a time, three operations each of the 128 of a batch.
const REMOVED_PER_COMMIT: usize = 40;

/// How long a stopping relay waits for signals that are being sent: longer than heat-api needs for one,
/// and not so long that anybody notices.
const DRAIN: Duration = Duration::from_secs(3);

impl Forwarder {
    /// Sends signals until `stop` returns.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut deliveries = JoinSet::new();
        let mut next_tick = Instant::now();
        let mut changes = self.shared.store.changes(KeyKind::Forward);
        let mut leadership = self.shared.store.lead(Job::Forward);
        loop {
            let now = Instant::now();
            let is_sender = leadership.is_held();
            if now >= next_tick {
                next_tick = now + self.shared.tick(is_sender).await;
            }
            // Asked again, as a look at a store that is away lasts as long as a lease.
            while is_sender
                && leadership.is_held()
                && deliveries.len() < MAX_DELIVERIES
                && let Some((lane, waiting)) = self.shared.take_due()
            {
                let shared = self.shared.clone();
                deliveries.spawn(async move { shared.deliver(&lane, waiting).await });
            }
            let may_send = is_sender && deliveries.len() < MAX_DELIVERIES;
            let next_due = self.shared.next_due().filter(|_| may_send).unwrap_or(next_tick);
            tokio::select! {
                // In an order of its own, so that the same events lead to the same attempts. None can hold
                // up the others: what is due is sent above, whatever it was that came.
                biased;
                () = &mut stop => break,
                () = leadership.becomes(!is_sender) => {
                    next_tick = Instant::now();
                    match is_sender {
                        true => tracing::info!("this relay no longer sends signals to heat"),
                        false => tracing::info!("this relay sends signals to heat from now on"),
                    }
                }
                Some(_delivered) = deliveries.join_next() => {}
                () = self.shared.wake.notified() => {}
                change = changes.next() => {
                    if self.shared.follow(change) {
                        next_tick = Instant::now();
                    }
                }
                () = sleep_until(next_due.min(next_tick)) => {}
            }
        }
        let draining = async { while deliveries.join_next().await.is_some() {} };
        if timeout(DRAIN, draining).await.is_err() {
            tracing::info!(
                "stopped while signals were being sent: they are sent again after a start"
            );
        }
    }
}

impl Shared {
    fn take_due(&self) -> Option<(LaneName, Waiting)> {
        self.state().queue.take_due(Instant::now())
    }

    fn next_due(&self) -> Option<Instant> {
        self.state().queue.next_due()
    }

    /// What has changed in the store. Whether the store has to be read for it.
    fn follow(&self, change: Change) -> bool {
        match change {
            Change::Missed => {
                let mut state = self.state();
                state.must_scan = true;
                state.must_forget = true;
                // What is written down by now is read, and of the rest the store will tell.
                state.accepting.clear();
                return true;
            }
            Change::Put(key, bytes) => {
                if let Some(id) = ForwardId::after(&key, &all_entries()) {
                    self.add_found(id, &bytes);
                }
            }
            Change::Deleted(key) => {
                let mut state = self.state();
                if let Some(id) = ForwardId::after(&key, &all_entries()) {
                    state.accepting.remove(&id);
                    state.queue.forget(id);
                }
                self.gauge_pending(&state);
            }
        }
        false
    }

    /// Reads what the queue does not know, and removes what is old. When to do so again.
    async fn tick(&self, is_sender: bool) -> Duration {
        let must_scan = std::mem::take(&mut self.state().must_scan);
        if must_scan && let Err(error) = self.scan().await {
            self.state().must_scan = true;
            tracing::warn!(error = %chain(&error), "failed to read the signals that wait for heat");
            return SCAN_PAUSE;
        }
        if is_sender && let Err(error) = self.remove_old().await {
            tracing::warn!(error = %chain(&error), "failed to remove records of forwarded signals");
        }
        TICK
    }

    /// Adds everything that is on disk and not in the queue. Where others may have finished signals, what
    /// was in the queue and is not on disk goes.
    async fn scan(&self) -> Result<(), ForwardError> {
        let mut gone: HashSet<ForwardId> = {
            let state = self.state();
            let all = state.queue.ids();
            all.take_while(|_| state.must_forget).collect()
        };
        let prefix = all_entries();
        let mut after: Option<Key> = None;
        loop {
            let page = self
                .store
                .scan(&prefix, after.as_ref(), SCAN_PAGE)
                .await
                .map_err(|source| ForwardError::Read { source })?;
            let is_last = page.len() < SCAN_PAGE;
            for (key, bytes) in page {
                if let Some(id) = ForwardId::after(&key, &prefix) {
                    gone.remove(&id);
                    self.add_found(id, &bytes);
                }
                after = Some(key);
            }
            if is_last {
                break;
            }
        }
        let mut state = self.state();
        state.must_forget = false;
        gone.into_iter().for_each(|id| state.queue.forget(id));
        self.gauge_pending(&state);
        Ok(())
    }

    fn add_found(&self, id: ForwardId, bytes: &Bytes) {
        let entry: EntryRecord = match parse(KeyKind::Forward, bytes) {
            Ok(entry) => entry,
            // The others are not to wait for somebody to look at this one.
            Err(error) => {
                tracing::error!(forward.id = %id, error = %chain(&error), "a signal cannot be forwarded");
                return;
            }
        };
        let mut state = self.state();
        state.last_number = state.last_number.max(id.number());
        let expires_at = expiry(&entry);
        state.queue.add(LaneName::of(&entry), id, entry.n_bytes, expires_at, Instant::now());
        self.gauge_pending(&state);
    }

    async fn deliver(&self, lane: &LaneName, mut waiting: Waiting) {
        let id = waiting.id;
        if let Some((end, reason)) = waiting.end.clone() {
            return self.finish(lane, &waiting, end, reason).await;
        }
        let (entry, body) = match self.read(id).await {
            Ok(Some(read)) => read,
            // Somebody else has finished it.
            Ok(None) => return self.drop_from_queue(lane),
            Err(error) => {
                tracing::warn!(forward.id = %id, error = %chain(&error), "failed to read a signal");
                let reason = "the store is away".to_owned();
                return self.retry(lane, &waiting, reason, Suspect::Upstream);
            }
        };
        if self.clock.now() >= waiting.expires_at {
            let last = waiting.last_failure.clone();
            let reason = last.unwrap_or_else(|| "there was no time to try".to_owned());
            return self.finish(lane, &waiting, End::Expired, reason).await;
        }
        let attempt = self.upstream.send(&entry, &body).await;
        waiting.n_attempts = waiting.n_attempts.saturating_add(1);
        match attempt {
            Attempt::Delivered(reason) => {
                self.finish(lane, &waiting, End::Delivered, reason).await;
            }
            Attempt::Refused(reason) => {
                self.finish(lane, &waiting, End::Refused, reason).await;
            }
            Attempt::TryAgain(reason, suspect) => {
                if waiting.n_attempts == 1 {
                    tracing::info!(forward.id = %id, reason, "heat has not taken a signal; trying on");
                }
                self.metrics.failed_attempts.inc();
                self.retry(lane, &waiting, reason, suspect);
            }
        }
    }

    async fn read(&self, id: ForwardId) -> Result<Option<(EntryRecord, Bytes)>, ForwardError> {
        let Some(entry) = self.get(&id.key(KeyKind::Forward)).await? else {
            return Ok(None);
        };
        // Both are removed by one commit, which another relay may have made between the two reads.
        let Some(body) = self.get(&id.key(KeyKind::ForwardBody)).await? else {
            return Ok(None);
        };
        Ok(Some((parse(KeyKind::Forward, &entry)?, body)))
    }

    /// Writes down how a signal ended, in the commit that forgets its secret and its body.
    async fn finish(&self, lane: &LaneName, waiting: &Waiting, end: End, reason: String) {
        let id = waiting.id;
        match self.write_end(waiting, end, &reason).await {
            Ok(accepted_after) => {
                self.drop_from_queue(lane);
                self.metrics.ended.get_or_create(&EndLabels { end: end.as_str() }).inc();
                match end {
                    End::Delivered => {
                        self.metrics.delivery_seconds.observe(accepted_after);
                        tracing::debug!(forward.id = %id, reason, "heat has taken a signal");
                    }
                    End::Refused | End::Expired => {
                        tracing::warn!(forward.id = %id, reason, end = end.as_str(), "a signal has not reached heat");
                    }
                }
            }
            Err(error) => {
                tracing::warn!(forward.id = %id, error = %chain(&error), "failed to write how a signal ended");
                let cut = id.cut(waiting.n_attempts);
                let mut state = self.state();
                state.queue.fail_to_finish(lane, end, reason, cut, Instant::now());
                self.gauge_pending(&state);
                drop(state);
                self.wake.notify_one();
            }
        }
    }

    /// Returns how long the signal took, in seconds.
    async fn write_end(
        &self,
        waiting: &Waiting,
        end: End,
        reason: &str,
    ) -> Result<f64, ForwardError> {
        let Some((entry, _body)) = self.read(waiting.id).await? else {
            return Ok(0.0);
        };
        let ended_at = self.clock.now();
        let outcome = OutcomeRecord {
            account: entry.account,
            target: entry.target,
            transport: entry.route.transport(),
            accepted_at: entry.accepted_at,
            ended_at,
            end,
            n_attempts: waiting.n_attempts,
            reason: reason.to_owned(),
        };
        let mut batch = Batch::new();
        batch.expect(Expect::Present(waiting.id.key(KeyKind::Forward)));
        batch.delete(waiting.id.key(KeyKind::Forward));
        batch.delete(waiting.id.key(KeyKind::ForwardBody));
        batch.put(waiting.id.key(KeyKind::ForwardOutcome), encode(&outcome));
        match self.store.commit(batch).await {
            // Gone already: the reply to an earlier commit was lost.
            Ok(()) | Err(CommitError::Conflict { .. }) => {}
            Err(source) => return Err(ForwardError::Write { source }),
        }
        Ok(ended_at.duration_since(outcome.accepted_at).as_secs_f64().max(0.0))
    }

    fn drop_from_queue(&self, lane: &LaneName) {
        let mut state = self.state();
        state.queue.finish(lane, Instant::now());
        self.gauge_pending(&state);
        drop(state);
        self.wake.notify_one();
    }

    fn retry(&self, lane: &LaneName, waiting: &Waiting, reason: String, suspect: Suspect) {
        let cut = waiting.id.cut(waiting.n_attempts);
        let mut state = self.state();
        state.queue.fail(lane, reason, suspect, cut, Instant::now());
        self.gauge_pending(&state);
        drop(state);
        self.wake.notify_one();
    }

    /// Removes what became of signals long ago. Ids sort by time, so the oldest come first.
    async fn remove_old(&self) -> Result<(), ForwardError> {
        let prefix = Key::new(KeyKind::ForwardOutcome, &[]);
        let now = self.clock.now();
        loop {
            let page = self
                .store
                .scan(&prefix, None, REMOVED_PER_COMMIT)
                .await
                .map_err(|source| ForwardError::Read { source })?;
            let mut batch = Batch::new();
            let mut n_removed = 0;
            for (key, bytes) in &page {
                let Some(id) = ForwardId::after(key, &prefix) else {
                    continue;
                };
                let outcome: OutcomeRecord = parse(KeyKind::ForwardOutcome, bytes)?;
                if later(outcome.ended_at, RETENTION) > now {
                    break;
                }
                batch.delete(key.clone());
                batch.delete(id.index_key(&outcome.account));
                batch.delete(id.index_key(&self.operator));
                n_removed += 1;
            }
            if n_removed == 0 {
                return Ok(());
            }
            self.store.commit(batch).await.map_err(|source| ForwardError::Write { source })?;
            if n_removed < REMOVED_PER_COMMIT {
                return Ok(());
            }
        }
    }
}

/// What the keys of all signals that wait begin with.
fn all_entries() -> Key {
    Key::new(KeyKind::Forward, &[])
}
