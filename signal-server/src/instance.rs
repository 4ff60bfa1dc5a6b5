//! Instances: what each has said by way of the metadata surface, kept after it is gone.
//!
//! An instance that has no handle is known by its id alone, and somebody who runs `nova boot` wants
//! to know what became of it: whether it ever contacted the relay, how far it came, how it ended, and
//! what its log said last. That is one record for each instance; it stays until nothing has been heard
//! for the [retention](Instances::sweep).
//!
//! Messages arrive at least once. A mark for each that was taken in, kept beside the record and written
//! in the same commit, makes a repeated one change nothing.
//!
//! | key | record |
//! |---|---|
//! | `V <instance>` | what is known of the instance |
//! | `W <instance> <boot> <number>` | the digest of a message that was taken in |
//!
//! This module knows neither HTTP nor how messages travel.

pub mod error;
mod record;
pub mod view;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use signal_protocol::frame::MessageId;
use signal_protocol::handle::HandleId;
use signal_protocol::message::InstanceKey;
use signal_protocol::signal::Signal;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::instance::error::InstanceError;
use crate::instance::record::InstanceRecord;
use crate::instance::view::InstanceView;
use crate::store::{Batch, CommitError, Expect, Key, KeyKind, Store};

/// The most messages of one instance: at one a second, which is more than the metadata path lets
/// through, eighteen hours of them; an agent sends some tens.
pub const MAX_MESSAGES: u64 = 65_536;

/// How often a change begins anew because somebody else changed the same record. Two relays that hear
/// the same instance do that to each other once or twice.
const MAX_ATTEMPTS: usize = 16;

/// Waiters are told of changes in this many groups, each told of the changes of all its instances: a
/// power of two well above the number of people who watch.
const N_BELLS: usize = 256;

/// How many records one [sweep](Instances::sweep) looks at.
const SWEPT_RECORDS: usize = 256;

/// How many marks are removed in one commit, below what a batch may hold.
const REMOVED_MARKS: usize = 100;

/// The operator's account: it sees all instances, and its handles are open to all.
pub(crate) const OPERATOR_ACCOUNT: &str = "AUTH_operator";

/// The UUID of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId([u8; 16]);

/// What is known of an instance from elsewhere: from Neutron's headers and from Nova's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub project: String,
    pub name: Option<String>,
    /// The handle that its metadata names.
    pub handle: Option<HandleId>,
}

/// What a message adds to the record.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A signal with an id.
    Signal(Signal),
    Progress {
        phase: String,
        text: String,
    },
    Log {
        text: String,
    },
    Key(InstanceKey),
}

/// Where an instance stands when a message of it arrives.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The key that its messages have to be signed with.
    pub key: Option<InstanceKey>,
    /// The digest of this message, if it has been taken in before.
    pub taken: Option<[u8; 32]>,
    /// Whether anything was heard of the instance before, and which project it was of then.
    pub known_project: Option<String>,
}

/// The records of all instances of one store. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Instances {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    bells: Vec<Notify>,
    hasher: RandomState,
    sweep_cursor: Mutex<Option<Key>>,
}

impl Instances {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Instances {
        let bells = std::iter::repeat_with(Notify::new).take(N_BELLS).collect();
        let hasher = RandomState::new();
        let sweep_cursor = Mutex::default();
        Instances { shared: Arc::new(Shared { store, clock, bells, hasher, sweep_cursor }) }
    }

    /// What has to be known before a message is read.
    pub async fn standing(
        &self,
        id: InstanceId,
        message: MessageId,
    ) -> Result<Standing, InstanceError> {
        let record = self.shared.record(id).await?.map(|(record, _)| record);
        let mark = self.shared.store.get(&mark_key(id, message)).await;
        let taken = match mark.map_err(InstanceError::Read)? {
            Some(mark) => Some(mark[..].try_into().map_err(|_| InstanceError::BadRecord)?),
            None => None,
        };
        Ok(Standing {
            key: record.as_ref().and_then(InstanceRecord::key),
            known_project: record.map(|record| record.project),
            taken,
        })
    }

    /// Notes that an instance has spoken, if nothing was heard of it in this boot. Durable when it
    /// returns.
    pub async fn contact(&self, id: InstanceId, identity: &Identity) -> Result<(), InstanceError> {
        self.change(id, identity, None, |record| {
            record.handle = identity.handle.clone().or(record.handle.take());
            Ok(())
        })
        .await
    }

    /// Takes in a message. Durable when it returns. A message that has been taken in before changes
    /// nothing.
    pub async fn receive(
        &self,
        id: InstanceId,
        identity: &Identity,
        message: MessageId,
        digest: [u8; 32],
        news: &News,
    ) -> Result<(), InstanceError> {
        let now = self.shared.clock.now();
        self.change(id, identity, Some((message, digest)), |record| {
            record.note_boot(message.boot, now);
            record.apply(news, now)
        })
        .await
    }

    /// Adds a signal that came for a handle by another way of the metadata surface.
    pub async fn note_signal(
        &self,
        id: InstanceId,
        identity: &Identity,
        signal: &Signal,
    ) -> Result<(), InstanceError> {
        let now = self.shared.clock.now();
        let news = News::Signal(signal.clone());
        self.change(id, identity, None, |record| record.apply(&news, now)).await
    }

    async fn change(
        &self,
        id: InstanceId,
        identity: &Identity,
        mark: Option<(MessageId, [u8; 32])>,
        change: impl Fn(&mut InstanceRecord) -> Result<(), InstanceError>,
    ) -> Result<(), InstanceError> {
        let shared = &self.shared;
        for _ in 0..MAX_ATTEMPTS {
            let mut batch = Batch::new();
            let now = shared.clock.now();
            let mut record = match shared.record(id).await? {
                Some((record, bytes)) => {
                    batch.expect(Expect::Value(record_key(id), bytes));
                    record
                }
                None => {
                    batch.expect(Expect::Absent(record_key(id)));
                    InstanceRecord::new(identity, now)
                }
            };
            if let Some((message, digest)) = mark {
                let key = mark_key(id, message);
                if shared.store.get(&key).await.map_err(InstanceError::Read)?.is_some() {
                    return Ok(());
                }
                if record.n_messages >= MAX_MESSAGES {
                    return Err(InstanceError::TooManyMessages);
                }
                record.n_messages += 1;
                batch.expect(Expect::Absent(key.clone()));
                batch.put(key, digest.to_vec().into());
            }
            change(&mut record)?;
            record.touch(identity, now);
            batch.put(record_key(id), record.encode());
            match shared.store.commit(batch).await {
                Ok(()) => {
                    shared.bell(id).notify_waiters();
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(InstanceError::Write(error)),
            }
        }
        Err(InstanceError::Contended)
    }

    /// What is known of an instance; nothing when it has never contacted the relay.
    pub async fn view(&self, id: InstanceId) -> Result<Option<InstanceView>, InstanceError> {
        let record = self.shared.record(id).await?;
        Ok(record.map(|(record, _)| record.into_view(id)))
    }

    /// Returns when something has been heard of the instance since `version`, or when the wait is over.
    /// Zero is the version of an instance that nothing was heard of.
    pub async fn changed(
        &self,
        id: InstanceId,
        version: u64,
        wait: Duration,
    ) -> Result<(), InstanceError> {
        let deadline = Instant::now() + wait;
        loop {
            // Listening begins before the record is read, so nothing between the two is missed.
            let mut rung = std::pin::pin!(self.shared.bell(id).notified());
            rung.as_mut().enable();
            let present = self.shared.record(id).await?.map_or(0, |(record, _)| record.version);
            if present > version || timeout_at(deadline, rung).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Removes the instances of which nothing has been heard for `retention`, looking at some records;
    /// the next call goes on from there. Returns how many were removed and whether the end was reached.
    pub async fn sweep(&self, retention: Duration) -> Result<(usize, bool), InstanceError> {
        let shared = &self.shared;
        let retention = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
        let end = shared.clock.now().saturating_sub(retention).unwrap_or(Timestamp::MIN);
        let after = shared.cursor().clone();
        let prefix = Key::new(KeyKind::Instance, &[]);
        let page = shared.store.scan(&prefix, after.as_ref(), SWEPT_RECORDS).await;
        let page = page.map_err(InstanceError::Read)?;
        let finished = page.len() < SWEPT_RECORDS;
        let mut n_removed = 0;
        for (key, bytes) in page {
            // Before anything is done: a record that fails must not hold up all that follow, and comes
            // again in the next round.
            *shared.cursor() = Some(key.clone());
            n_removed += usize::from(shared.sweep_record(key, bytes, end).await?);
        }
        if finished {
            *shared.cursor() = None;
        }
        Ok((n_removed, finished))
    }
}

impl Shared {
    async fn record(
        &self,
        id: InstanceId,
    ) -> Result<Option<(InstanceRecord, Bytes)>, InstanceError> {
        match self.store.get(&record_key(id)).await.map_err(InstanceError::Read)? {
            Some(bytes) => Ok(Some((InstanceRecord::decode(&bytes)?, bytes))),
            None => Ok(None),
        }
    }

    /// Removes an instance that was last heard of before `end`. Returns whether it was.
    async fn sweep_record(
        &self,
        key: Key,
        bytes: Bytes,
        end: Timestamp,
    ) -> Result<bool, InstanceError> {
        if InstanceRecord::decode(&bytes)?.last_contact_at >= end {
            return Ok(false);
        }
        let id = key.after(&Key::new(KeyKind::Instance, &[])).and_then(|rest| rest.try_into().ok());
        let id = InstanceId(id.ok_or(InstanceError::BadRecord)?);
        self.remove_marks(id).await?;
        let mut batch = Batch::new();
        batch.expect(Expect::Value(key.clone(), bytes));
        batch.delete(key);
        match self.store.commit(batch).await {
            Ok(()) => Ok(true),
            // It has spoken again.
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(error) => Err(InstanceError::Write(error)),
        }
    }

    async fn remove_marks(&self, id: InstanceId) -> Result<(), InstanceError> {
        let prefix = Key::new(KeyKind::InstanceMessage, &[&id.0]);
        loop {
            let marks = self.store.scan(&prefix, None, REMOVED_MARKS).await;
            let marks = marks.map_err(InstanceError::Read)?;
            if marks.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (key, _) in marks {
                batch.delete(key);
            }
            self.store.commit(batch).await.map_err(InstanceError::Write)?;
        }
    }

    fn bell(&self, id: InstanceId) -> &Notify {
        let hash = usize::try_from(self.hasher.hash_one(id) % N_BELLS as u64).unwrap_or_default();
        &self.bells[hash]
    }

    fn cursor(&self) -> std::sync::MutexGuard<'_, Option<Key>> {
        self.sweep_cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record_key(id: InstanceId) -> Key {
    Key::new(KeyKind::Instance, &[&id.0])
}

fn mark_key(id: InstanceId, message: MessageId) -> Key {
    let boot = message.boot.to_string();
    Key::new(KeyKind::InstanceMessage, &[&id.0, boot.as_bytes(), &message.seq.to_be_bytes()])
}

impl InstanceId {
    /// Reads a UUID with its four hyphens, in either case.
    pub fn parse(text: &str) -> Option<InstanceId> {
        let hyphens = [8, 13, 18, 23];
        let bytes = text.as_bytes();
        if bytes.len() != 36 || hyphens.iter().any(|position| bytes[*position] != b'-') {
            return None;
        }
        let digits: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'-').collect();
        let mut id = [0; 16];
        hex::decode_to_slice(digits, &mut id).ok()?;
        Some(InstanceId(id))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = hex::encode(self.0);
        let [a, b, c, d, e] =
            [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        write!(formatter, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "InstanceId({self})")
    }
}

#[cfg(test)]
mod tests;
