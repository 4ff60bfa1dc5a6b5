//! Puts signals into a mailbox: several signals, one commit.

use std::collections::{HashMap, HashSet};
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

    /// A container as the store recalls it: to be believed only with a commit that expects it to be so.
    pub(crate) fn recall_container(&self, address: &ContainerAddress) -> Option<FoundContainer> {
        let key = key::container(address);
        let bytes = self.store.recall(&key)?;
        let record = self.containers.decode(&key, &bytes).ok()?;
        Some(FoundContainer { key, number: record.number, bytes, removing: record.removing })
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
        if let Some(results) = self.append_to_recalled(head_key, target, appends).await? {
            return Ok(results);
        }
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let mut batch = Batch::new();
            let before = match target {
                AppendTarget::InContainer(found) => {
                    let [container, head] = self.get_both([&found.key, head_key]).await?;
                    self.guard(found, container, &mut batch)?;
                    head.ok_or(MailboxError::ObjectNotFound)?
                }
                AppendTarget::Native => {
                    self.get(head_key).await?.ok_or(MailboxError::HandleNotFound)?
                }
            };
            let mut round = RoundState::new(head_key, &before, batch, self.clock.now())?;
            let mark_keys = round.mark_keys(appends);
            let wanted: Vec<Key> = mark_keys.iter().flatten().cloned().collect();
            // After the head: a mark is never set without a change of the head, which is expected not to be.
            let found = self.get_many(&wanted).await?;
            let found = wanted.into_iter().zip(found);
            round.marks.extend(found.filter_map(|(key, mark)| Some((key, mark?))));
            let results = self.add_all(&mut round, appends, mark_keys);
            if !round.is_changed {
                return Ok(results);
            }
            if self.commit_round(head_key, before, round).await? {
                return Ok(results);
            }
        }
        Err(MailboxError::Contended { kind: head_key.kind(), attempts: MAX_COMMIT_ATTEMPTS })
    }

    /// Tries it with what the store recalls, and with the guess that all these signals are new. The commit
    /// expects all of that, so it is made only if reading would have led to the same. Nothing when something
    /// is not known or turns out to be otherwise, and when a signal would not be stored: a refusal must not
    /// rest on what is out of date.
    async fn append_to_recalled(
        &self,
        head_key: &Key,
        target: &AppendTarget,
        appends: &[Append],
    ) -> Result<Option<Results>, MailboxError> {
        let mut batch = Batch::new();
        if let AppendTarget::InContainer(found) = target {
            if found.removing || self.store.recall(&found.key).as_ref() != Some(&found.bytes) {
                return Ok(None);
            }
            batch.expect(Expect::Value(found.key.clone(), found.bytes.clone()));
        }
        let Some(before) = self.store.recall(head_key) else {
            return Ok(None);
        };
        let Ok(mut round) = RoundState::new(head_key, &before, batch, self.clock.now()) else {
            return Ok(None);
        };
        let mark_keys = round.mark_keys(appends);
        let distinct: HashSet<&Key> = mark_keys.iter().flatten().collect();
        for mark_key in distinct {
            round.batch.expect(Expect::Absent(mark_key.clone()));
        }
        let results = self.add_all(&mut round, appends, mark_keys);
        if results.iter().any(Result::is_err) {
            return Ok(None);
        }
        let is_made = self.commit_round(head_key, before, round).await?;
        Ok(is_made.then_some(results))
    }

    /// Makes the commit; false if something was changed meanwhile.
    async fn commit_round(
        &self,
        head_key: &Key,
        before: Bytes,
        mut round: RoundState,
    ) -> Result<bool, MailboxError> {
        round.batch.expect(Expect::Value(head_key.clone(), before));
        round.batch.put(head_key.clone(), encode(&round.head));
        match self.store.commit(round.batch).await {
            Ok(()) => {
                self.wakers.wake(round.head.number);
                Ok(true)
            }
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(error) => Err(MailboxError::Write(error)),
        }
    }

    /// Makes the batch fail if the container goes away meanwhile, and makes whoever is about to remove
    /// the container look again.
    fn guard(
        &self,
        found: &FoundContainer,
        present: Option<Bytes>,
        batch: &mut Batch,
    ) -> Result<(), MailboxError> {
        let bytes = present.ok_or(MailboxError::ContainerNotFound)?;
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
        if record.take_mark_away() {
            batch.put(container_key.clone(), encode(&record));
        }
    }

    fn add_all(
        &self,
        round: &mut RoundState,
        appends: &[Append],
        mark_keys: Vec<Option<Key>>,
    ) -> Results {
        let appends = appends.iter().zip(mark_keys);
        appends.map(|(append, mark_key)| self.add(round, append, mark_key)).collect()
    }

    /// Adds one signal to the round.
    fn add(
        &self,
        round: &mut RoundState,
        append: &Append,
        mark_key: Option<Key>,
    ) -> Result<Stored, MailboxError> {
        let info = ObjectInfo {
            etag: append.etag.clone(),
            n_bytes: append.body.len() as u64,
            content_type: append.content_type.clone(),
            modified_at: round.now,
        };
        if let (Some(id), Some(mark_key)) = (&append.id, mark_key) {
            let mark = seen(&append.body, id, round.now);
            let last = round.marks.get(&mark_key);
            if last.is_some_and(|last| is_same_content(last, &mark)) {
                return Ok(Stored { receipt: Receipt::Repeated, info });
            }
            self.check_room(&round.head, &info)?;
            round.batch.put(mark_key.clone(), mark.clone());
            round.marks.insert(mark_key, mark);
        } else {
            self.check_room(&round.head, &info)?;
        }
        round.push(&info, &append.body);
        Ok(Stored { receipt: Receipt::Stored, info })
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
    /// Marks that there are, and those that this very commit sets.
    marks: HashMap<Key, Bytes>,
    now: Timestamp,
    is_changed: bool,
}

impl RoundState {
    /// Nothing is to be done yet to the mailbox whose head is this.
    fn new(
        head_key: &Key,
        before: &Bytes,
        batch: Batch,
        now: Timestamp,
    ) -> Result<RoundState, MailboxError> {
        let head = decode(head_key.kind(), before)?;
        Ok(RoundState { head, batch, marks: HashMap::new(), now, is_changed: false })
    }

    /// Where the marks of these signals are; a signal without an id has none.
    fn mark_keys(&self, appends: &[Append]) -> Vec<Option<Key>> {
        let ids = appends.iter().map(|append| append.id.as_ref());
        ids.map(|id| id.map(|id| key::seen(self.head.number, id))).collect()
    }

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
