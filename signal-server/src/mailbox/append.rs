//! Puts signals into a mailbox: several signals, one commit.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::{MAX_COMMIT_ATTEMPTS, MAX_INLINE_BODY_BYTES, MAX_SIGNAL_NUMBER};
use crate::mailbox::record::{
    BodyPlace, ContainerRecord, HeadRecord, Number, ObjectRecord, decode, encode, encode_object,
    is_same_content, seen,
};
use crate::mailbox::{ContainerAddress, ObjectInfo, Receipt, Shared, key};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind};

/// Most signals in one commit. A signal needs up to three operations (itself, a large body, its mark),
/// and the head and the container need one each, of the 128 that a batch may have.
pub(crate) const MAX_ROUND_APPENDS: usize = 40;

/// Most bytes of signals in one commit, so that the batch stays under the store's limit with the keys,
/// the head and the expectations beside it. One signal of the largest size fits.
pub(crate) const MAX_ROUND_BYTES: usize = 1_200_000;

/// What the keys, marks and descriptions of one signal may take, beside its body.
const APPEND_OVERHEAD_BYTES: usize = 1_024;

/// A signal that is to be put in.
#[derive(Debug, Clone)]
pub(crate) struct Append {
    pub(crate) id: Option<String>,
    pub(crate) content_type: String,
    /// The MD5 of the body.
    pub(crate) etag: String,
    pub(crate) body: Bytes,
}

impl Append {
    pub(crate) fn n_bytes(&self) -> usize {
        self.body.len() + APPEND_OVERHEAD_BYTES
    }
}

/// What sort of mailbox the signals go to.
#[derive(Debug, Clone)]
pub(crate) enum AppendTarget {
    /// The mailbox of a signal handle in this container.
    InContainer(FoundContainer),
    /// The mailbox of a native handle.
    Native,
}

/// A container as whoever sends a signal has found it.
#[derive(Debug, Clone)]
pub(crate) struct FoundContainer {
    pub(crate) key: Key,
    pub(crate) number: Number,
    /// The whole record.
    pub(crate) bytes: Bytes,
    /// Whether it said that somebody is about to remove the container.
    pub(crate) removing: bool,
}

/// What became of one signal.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) receipt: Receipt,
    pub(crate) info: ObjectInfo,
}

type Results = Vec<Result<Stored, MailboxError>>;

impl Shared {
    pub(crate) async fn find_container(
        &self,
        address: &ContainerAddress,
    ) -> Result<FoundContainer, MailboxError> {
        let key = key::container(address);
        let bytes = self.get(&key).await?.ok_or(MailboxError::ContainerNotFound)?;
        let record = self.containers.decode(&key, &bytes)?;
        Ok(FoundContainer { key, number: record.number, bytes, removing: record.removing })
    }

    /// Puts `appends` into the mailbox whose head is at `head_key`; one result for each, in order.
    /// All that are stored are stored by one commit.
    pub(crate) async fn append(
        self: &Arc<Self>,
        head_key: &Key,
        target: AppendTarget,
        appends: &[Append],
    ) -> Results {
        match self.try_append(head_key, &target, appends).await {
            Ok(results) => results,
            Err(error) => appends.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn try_append(
        &self,
        head_key: &Key,
        target: &AppendTarget,
        appends: &[Append],
    ) -> Result<Results, MailboxError> {
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let mut batch = Batch::new();
            self.guard(target, &mut batch).await?;
            let Some(before) = self.get(head_key).await? else {
                return Err(match target {
                    AppendTarget::InContainer(..) => MailboxError::ObjectNotFound,
                    AppendTarget::Native => MailboxError::HandleNotFound,
                });
            };
            let head: HeadRecord = decode(head_key.kind(), &before)?;
            let number = head.number;
            let mut round = RoundState {
                head,
                batch,
                marks: HashMap::new(),
                now: self.clock.now(),
                is_changed: false,
            };
            let mut results = Vec::with_capacity(appends.len());
            for append in appends {
                results.push(self.add(&mut round, append).await?);
            }
            if !round.is_changed {
                return Ok(results);
            }
            round.batch.expect(Expect::Value(head_key.clone(), before));
            round.batch.put(head_key.clone(), encode(&round.head));
            match self.store.commit(round.batch).await {
                Ok(()) => {
                    self.wakers.wake(number);
                    return Ok(results);
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(MailboxError::Write(error)),
            }
        }
        Err(MailboxError::Contended { kind: head_key.kind(), attempts: MAX_COMMIT_ATTEMPTS })
    }

    /// Makes the batch fail if the container goes away meanwhile, and makes whoever is about to remove
    /// the container look again.
    async fn guard(&self, target: &AppendTarget, batch: &mut Batch) -> Result<(), MailboxError> {
        let AppendTarget::InContainer(found) = target else {
            return Ok(());
        };
        let Some(bytes) = self.get(&found.key).await? else {
            return Err(MailboxError::ContainerNotFound);
        };
        // As a rule it is as it was found, and need not be taken apart again.
        if bytes == found.bytes && !found.removing {
            batch.expect(Expect::Value(found.key.clone(), bytes));
            return Ok(());
        }
        let record: ContainerRecord = decode(KeyKind::Container, &bytes)?;
        if record.number != found.number {
            return Err(MailboxError::ObjectNotFound);
        }
        self.expect_container(&found.key, bytes, record, batch);
        Ok(())
    }

    /// The part of [`guard`](Shared::guard) for whoever has just read the container.
    pub(crate) fn expect_container(
        &self,
        container_key: &Key,
        bytes: Bytes,
        mut record: ContainerRecord,
        batch: &mut Batch,
    ) {
        batch.expect(Expect::Value(container_key.clone(), bytes));
        if record.removing {
            record.removing = false;
            batch.put(container_key.clone(), encode(&record));
        }
    }

    /// Adds one signal to the round. The inner result is the signal's own; the outer one fails all.
    async fn add(
        &self,
        round: &mut RoundState,
        append: &Append,
    ) -> Result<Result<Stored, MailboxError>, MailboxError> {
        let info = ObjectInfo {
            etag: append.etag.clone(),
            n_bytes: append.body.len() as u64,
            content_type: append.content_type.clone(),
            modified_at: round.now,
        };
        if let Some(id) = &append.id {
            let mark_key = key::seen(round.head.number, id);
            let mark = seen(&append.body, id, round.now);
            let last = match round.marks.get(&mark_key) {
                Some(last) => Some(last.clone()),
                None => self.get(&mark_key).await?,
            };
            if last.is_some_and(|last| is_same_content(&last, &mark)) {
                return Ok(Ok(Stored { receipt: Receipt::Repeated, info }));
            }
            if let Err(error) = self.check_room(&round.head, &info) {
                return Ok(Err(error));
            }
            round.batch.put(mark_key.clone(), mark.clone());
            round.marks.insert(mark_key, mark);
        } else if let Err(error) = self.check_room(&round.head, &info) {
            return Ok(Err(error));
        }
        round.push(&info, &append.body);
        Ok(Ok(Stored { receipt: Receipt::Stored, info }))
    }

    fn check_room(&self, head: &HeadRecord, info: &ObjectInfo) -> Result<(), MailboxError> {
        let has_room = head.n_pending < self.limits.signals_per_mailbox
            && head.n_bytes + info.n_bytes <= self.limits.bytes_per_mailbox
            && head.next_signal <= MAX_SIGNAL_NUMBER;
        if !has_room {
            return Err(MailboxError::MailboxFull);
        }
        Ok(())
    }
}

/// What one commit will do, as far as it is known.
struct RoundState {
    head: HeadRecord,
    batch: Batch,
    /// Marks that this very commit sets.
    marks: HashMap<Key, Bytes>,
    now: Timestamp,
    is_changed: bool,
}

impl RoundState {
    fn push(&mut self, info: &ObjectInfo, body: &Bytes) {
        let (mailbox, signal) = (self.head.number, self.head.next_signal);
        let is_inline = body.len() <= MAX_INLINE_BODY_BYTES;
        let record = ObjectRecord {
            info: info.clone(),
            body: if is_inline { BodyPlace::Inline } else { BodyPlace::Apart(mailbox) },
        };
        self.batch
            .put(key::of_signal(KeyKind::Signal, mailbox, signal), encode_object(&record, body));
        if !is_inline {
            self.batch.put(key::of_signal(KeyKind::SignalBody, mailbox, signal), body.clone());
        }
        self.head.next_signal += 1;
        self.head.n_pending += 1;
        self.head.n_bytes += info.n_bytes;
        self.head.version += 1;
        self.head.used_at = self.now;
        self.is_changed = true;
    }
}
