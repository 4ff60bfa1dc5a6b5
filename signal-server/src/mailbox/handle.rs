//! Native handles: made, signalled, read, waited for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use signal_protocol::handle::{Evaluation, HandleId, HandleView, HeldSignal, data_of, evaluate};
use signal_protocol::path::AccountName;
use signal_protocol::signal::Signal;
use tokio::time::Instant;

use crate::mailbox::account::{put_account, put_or_forget_account};
use crate::mailbox::append::{Append, AppendTarget};
use crate::mailbox::container::PAGE;
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::{
    MAX_COMMIT_ATTEMPTS, MAX_HANDLE_COUNT, MAX_HANDLE_LABEL_BYTES, MAX_HANDLE_METADATA_BYTES,
    MAX_HANDLE_PAGE, MAX_HANDLE_TIMEOUT,
};
use crate::mailbox::object::md5_hex;
use crate::mailbox::record::{
    BodyPlace, HandleRecord, HeadRecord, Number, decode, decode_object, encode,
};
use crate::mailbox::{Handle, HandleSummary, NewHandle, Receipt, Shared, SigningKey, key};
use crate::store::{Batch, CommitError, Expect, KeyKind};

impl Shared {
    pub(crate) async fn create_handle(
        self: &Arc<Self>,
        new: NewHandle,
    ) -> Result<Handle, MailboxError> {
        let timeout_seconds = new.check()?;
        let shared = Arc::clone(self);
        self.in_turn(key::account(&new.account), async move {
            for _ in 0..MAX_COMMIT_ATTEMPTS {
                let number = Number::random();
                let now = shared.clock.now();
                let record = HandleRecord {
                    account: new.account.clone(),
                    count: new.count,
                    timeout_seconds,
                    label: new.label.clone(),
                    metadata: new.metadata.clone(),
                    created_at: now,
                    expires_at: later(now, Duration::from_secs(timeout_seconds.into())),
                    signing_key: SigningKey::random(),
                };
                let mut batch = Batch::new();
                let mut account = shared.expect_account(&new.account, &mut batch).await?;
                if account.n_handles >= shared.limits.handles_per_account {
                    return Err(MailboxError::TooManyHandles);
                }
                account.n_handles += 1;
                put_account(&new.account, &mut account, &mut batch);
                batch.expect(Expect::Absent(key::handle(number)));
                batch.put(key::handle(number), encode(&record));
                batch.put(key::handle_mailbox(number), encode(&HeadRecord::new(number, now)));
                batch.put(key::handle_index_entry(&new.account, number), Bytes::new());
                match shared.store.commit(batch).await {
                    Ok(()) => return Ok(record.into_handle(HandleId::from_random(number.0))),
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => return Err(MailboxError::Write(error)),
                }
            }
            Err(contended())
        })
        .await
    }

    pub(crate) async fn handle(&self, id: &HandleId) -> Result<Handle, MailboxError> {
        // Who asks is about to signal the handle or to wait for it, and will want the head.
        let (record, _) = self.handle_and_head(number_of(id)?).await?;
        Ok(record.into_handle(id.clone()))
    }

    pub(crate) async fn handle_view(&self, id: &HandleId) -> Result<HandleView, MailboxError> {
        let (view, _) = self.handle_view_in_order(id).await?;
        Ok(view)
    }

    pub(crate) async fn handle_view_in_order(
        &self,
        id: &HandleId,
    ) -> Result<(HandleView, Vec<u64>), MailboxError> {
        let number = number_of(id)?;
        let (record, head) = self.handle_and_head(number).await?;
        let (version, seen) = self.evaluate(number, &record, head).await?;
        let view = HandleView {
            id: id.clone(),
            state: seen.state,
            reason: seen.reason,
            count: record.count,
            timeout_seconds: record.timeout_seconds,
            label: record.label,
            metadata: record.metadata,
            created_at: record.created_at,
            expires_at: record.expires_at,
            version,
            data: data_of(&seen.signals),
            signals: seen.signals,
        };
        Ok((view, seen.numbers))
    }

    pub(crate) async fn list_handles(
        &self,
        account: &AccountName,
        after: Option<&HandleId>,
        limit: usize,
    ) -> Result<Vec<HandleSummary>, MailboxError> {
        let prefix = key::handle_index(account);
        let after = match after {
            Some(id) => Some(key::handle_index_entry(account, number_of(id)?)),
            None => None,
        };
        let limit = limit.min(MAX_HANDLE_PAGE);
        let mut summaries = Vec::new();
        let mut last = after;
        // Handles that are removed while the page is read leave gaps, and a short page would read as
        // the end of the list.
        while summaries.len() < limit {
            let wanted = limit - summaries.len();
            let entries = self.scan(&prefix, last.as_ref(), wanted).await?;
            for (key, _) in &entries {
                let number = key::number_after(key, &prefix)
                    .ok_or(MailboxError::BadRecord { kind: KeyKind::HandleIndex })?;
                match self.summary(number).await {
                    Ok(summary) => summaries.push(summary),
                    Err(MailboxError::HandleNotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            match entries.last() {
                Some((key, _)) if entries.len() == wanted => last = Some(key.clone()),
                _ => break,
            }
        }
        Ok(summaries)
    }

    async fn summary(&self, number: Number) -> Result<HandleSummary, MailboxError> {
        let (record, head) = self.handle_and_head(number).await?;
        let (version, seen) = self.evaluate(number, &record, head).await?;
        Ok(HandleSummary {
            handle: record.into_handle(HandleId::from_random(number.0)),
            state: seen.state,
            reason: seen.reason,
            n_signals: seen.signals.len(),
            version,
        })
    }

    /// Reads all signals of a handle and what they mean. The head has been read before, and so the version:
    /// a signal that arrives in between is in the picture, and whoever waits for a later version is told at
    /// once.
    async fn evaluate(
        &self,
        number: Number,
        record: &HandleRecord,
        head: Option<Bytes>,
    ) -> Result<(u64, Evaluation), MailboxError> {
        let now = self.clock.now();
        let version = version_of(head, record, now)?;
        let prefix = key::under(KeyKind::Signal, number);
        let mut signals = Vec::new();
        let mut after = None;
        loop {
            let page = self.scan(&prefix, after.as_ref(), PAGE).await?;
            for (key, bytes) in &page {
                let (object, inline) = decode_object(KeyKind::Signal, bytes)?;
                let damaged = MailboxError::BadRecord { kind: KeyKind::Signal };
                let signal_number = key::signal_number(key, &prefix).ok_or(damaged.clone())?;
                let body = match object.body {
                    BodyPlace::Inline => inline,
                    BodyPlace::Apart(_) => {
                        let body_key = key::of_signal(KeyKind::SignalBody, number, signal_number);
                        // Gone only if the handle is: then nobody may be told what it means.
                        self.get(&body_key).await?.ok_or(MailboxError::HandleNotFound)?
                    }
                };
                let signal = Signal::parse_again(&body).map_err(|_| damaged)?;
                let received_at = object.info.modified_at;
                signals.push(HeldSignal { signal, number: signal_number, received_at });
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                _ => break,
            }
        }
        let seen = evaluate(signals, record.count, record.expires_at, now);
        Ok((version, seen))
    }

    pub(crate) async fn delete_handle(self: &Arc<Self>, id: &HandleId) -> Result<(), MailboxError> {
        let number = number_of(id)?;
        let account = self.handle_record(number).await?.account;
        let shared = Arc::clone(self);
        self.in_turn(key::account(&account), async move {
            for _ in 0..MAX_COMMIT_ATTEMPTS {
                let mut batch = Batch::new();
                let mut record = shared.expect_account(&account, &mut batch).await?;
                record.n_handles = record.n_handles.saturating_sub(1);
                put_or_forget_account(&account, &mut record, &mut batch);
                if shared.get(&key::handle(number)).await?.is_none() {
                    return Err(MailboxError::HandleNotFound);
                }
                batch.expect(Expect::Present(key::handle(number)));
                batch.delete(key::handle(number));
                batch.delete(key::handle_mailbox(number));
                batch.delete(key::handle_index_entry(&account, number));
                batch.put(key::garbage(number), Bytes::new());
                match shared.store.commit(batch).await {
                    Ok(()) => {
                        shared.wakers.wake(number);
                        return Ok(());
                    }
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => return Err(MailboxError::Write(error)),
                }
            }
            Err(contended())
        })
        .await
    }

    pub(crate) async fn signal_handle(
        self: &Arc<Self>,
        id: &HandleId,
        signal: &Signal,
    ) -> Result<Receipt, MailboxError> {
        let body = Bytes::from(signal.to_json());
        let append = Append {
            id: signal.id.clone(),
            content_type: "application/json".to_owned(),
            etag: md5_hex(&body),
            body,
        };
        let head_key = key::handle_mailbox(number_of(id)?);
        let stored = self.append_in_turn(head_key, AppendTarget::Native, append).await?;
        Ok(stored.receipt)
    }

    pub(crate) async fn changed(
        &self,
        id: &HandleId,
        version: u64,
        wait: Duration,
    ) -> Result<u64, MailboxError> {
        let number = number_of(id)?;
        let end = Instant::now() + wait;
        let listener = self.wakers.listen(number);
        loop {
            let mut notified = std::pin::pin!(listener.notify().notified());
            // From here on no change is missed, so the mailbox is read after this.
            notified.as_mut().enable();
            // In a box, which is gone while this waits: there may be a hundred thousand who do.
            let (present, left) = Box::pin(self.version_and_time(number)).await?;
            if present > version || Instant::now() >= end {
                return Ok(present);
            }
            let until = match left {
                Some(left) => end.min(Instant::now() + left),
                None => end,
            };
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The version of a handle, and how long until its time is over, if it is not.
    async fn version_and_time(
        &self,
        number: Number,
    ) -> Result<(u64, Option<Duration>), MailboxError> {
        let now = self.clock.now();
        let (record, head) = self.handle_and_head(number).await?;
        Ok((version_of(head, &record, now)?, time_to_expiry(now, &record)))
    }

    /// A handle and, read at the same time, the head of its mailbox.
    async fn handle_and_head(
        &self,
        number: Number,
    ) -> Result<(HandleRecord, Option<Bytes>), MailboxError> {
        let keys = [&key::handle(number), &key::handle_mailbox(number)];
        let [record, head] = self.get_both(keys).await?;
        let record = record.ok_or(MailboxError::HandleNotFound)?;
        Ok((decode(KeyKind::Handle, &record)?, head))
    }

    async fn handle_record(&self, number: Number) -> Result<HandleRecord, MailboxError> {
        let Some(bytes) = self.get(&key::handle(number)).await? else {
            return Err(MailboxError::HandleNotFound);
        };
        decode(KeyKind::Handle, &bytes)
    }
}

impl NewHandle {
    /// Refuses what is out of range; returns the timeout in seconds.
    fn check(&self) -> Result<u32, MailboxError> {
        let refuse = |field, rule| Err(MailboxError::BadField { field, rule });
        if !(1..=MAX_HANDLE_COUNT).contains(&self.count) {
            return refuse("count", "1 to 1000");
        }
        let is_whole = self.timeout.subsec_nanos() == 0 && !self.timeout.is_zero();
        let timeout_seconds = u32::try_from(self.timeout.as_secs());
        let (true, true, Ok(timeout_seconds)) =
            (is_whole, self.timeout <= MAX_HANDLE_TIMEOUT, timeout_seconds)
        else {
            return refuse("timeout", "a whole number of seconds, 1 to 604800");
        };
        if self.label.as_ref().is_some_and(|label| label.len() > MAX_HANDLE_LABEL_BYTES) {
            return refuse("label", "at most 256 bytes long");
        }
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        if metadata > MAX_HANDLE_METADATA_BYTES {
            return refuse("metadata", "at most 16384 bytes long");
        }
        Ok(timeout_seconds)
    }
}

impl HandleRecord {
    fn into_handle(self, id: HandleId) -> Handle {
        Handle {
            id,
            account: self.account,
            count: self.count,
            timeout_seconds: self.timeout_seconds,
            label: self.label,
            metadata: self.metadata,
            created_at: self.created_at,
            expires_at: self.expires_at,
            signing_key: self.signing_key,
        }
    }
}

/// Counts the changes of a handle; the end of its time is one of them.
fn version_of(
    head: Option<Bytes>,
    record: &HandleRecord,
    now: Timestamp,
) -> Result<u64, MailboxError> {
    let head = head.ok_or(MailboxError::HandleNotFound)?;
    let head: HeadRecord = decode(KeyKind::HandleMailbox, &head)?;
    Ok(head.version + u64::from(now > record.expires_at))
}

/// How long until the handle's time is over, a moment added so that it is over then; nothing if it is.
fn time_to_expiry(now: Timestamp, record: &HandleRecord) -> Option<Duration> {
    if now > record.expires_at {
        return None;
    }
    let left = record.expires_at.duration_since(now);
    Some(left.unsigned_abs() + Duration::from_millis(1))
}

pub(crate) fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn number_of(id: &HandleId) -> Result<Number, MailboxError> {
    key::number_of_handle(id).ok_or(MailboxError::HandleNotFound)
}

fn contended() -> MailboxError {
    MailboxError::Contended { kind: KeyKind::Handle, attempts: MAX_COMMIT_ATTEMPTS }
}
