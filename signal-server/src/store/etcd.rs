//! The store of many relays: an etcd cluster, which any number of relays may use at once.
//!
//! A record is one key of etcd: a prefix that the operator chooses, and then the key's own bytes. One commit
//! is one transaction, whose compares are the batch's expectations: an absent record has version 0, a
//! present one a version above, and values are compared as they are. If one does not hold, the same
//! transaction reads what is there instead, so that the error can name what was changed.
//!
//! etcd answers a transaction when most members have written it to disk, and its reads are linearizable: so
//! the contract of [`Store`] is etcd's own. When a member or the connection to it is lost in the middle of a
//! commit, nobody can know whether it was made; the caller is told `Unavailable`, as the contract says.
//!
//! What several callers want at the same moment travels in one request, see `gather`.
//!
//! Beside the records there are keys below `<prefix>lead/`: who does which [`Job`], see `lead`; and
//! `<prefix>group`, which means nothing, see `gather`. No kind of record begins with those letters.
//!
//! Choices not taken: leases for records that end some time, since most of them are removed long before,
//! and a lease for each is one more transaction; reads from whichever member is near (`serializable`), which
//! may show what is old.

mod batch;
mod client;
mod gather;
mod lead;
mod scan;
mod watch;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::{Code, Status};

pub use crate::store::etcd::client::settings::{EtcdError, EtcdSettings, EtcdTls, EtcdUser};

use crate::store::etcd::batch::Asked;
use crate::store::etcd::client::{Client, Effect};
use crate::store::etcd::gather::Gatherer;
use crate::store::etcd::gather::commits::commit_alone;
use crate::store::etcd::gather::reads::read;
use crate::store::etcd::scan::{MAX_SCAN_ATTEMPTS, PAGE, Strides, successor};
use crate::store::etcd::wire::{Empty, RANGE, RangeRequest, RangeResponse, STATUS, StatusResponse};
use crate::store::sharing::{Changes, Job, Leadership};
use crate::store::{Batch, CommitError, Key, KeyKind, Store, StoreError};

/// Longest prefix of keys. A batch of the largest size is to stay below etcd's limit for a request, with
/// the prefix in front of each of its keys.
pub const MAX_PREFIX_BYTES: usize = 64;

/// How many changes may wait for whoever wants to be told of them; then etcd keeps them.
const MAX_WAITING_CHANGES: usize = 256;

/// See the module's own words.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    client: Arc<Client>,
    gatherer: Gatherer,
    prefix: Bytes,
    strides: Arc<Strides>,
    /// How many records are asked for at once.
    page: usize,
}

impl EtcdStore {
    /// Checks the settings; whether somebody answers is seen with the first call. To be called inside a
    /// runtime.
    pub fn new(settings: &EtcdSettings) -> Result<EtcdStore, EtcdError> {
        if settings.prefix.len() > MAX_PREFIX_BYTES {
            return Err(EtcdError::PrefixTooLong { limit: MAX_PREFIX_BYTES });
        }
        let prefix = Bytes::copy_from_slice(settings.prefix.as_bytes());
        let client = Arc::new(Client::new(settings)?);
        let counted = [prefix.as_ref(), b"group"].concat().into();
        let gatherer = Gatherer::start(Arc::clone(&client), counted);
        Ok(EtcdStore { client, gatherer, prefix, strides: Arc::default(), page: PAGE })
    }

    /// Commits a batch by a request of its own, whatever else waits: what etcd itself takes, to measure by.
    pub async fn commit_alone(&self, batch: Batch) -> Result<(), CommitError> {
        let asked = Asked::of(&batch)?;
        let commit = self.translate(batch);
        asked.outcome(commit_alone(&self.client, commit.request).await)
    }

    /// Whether some relay does a job on this store at present: then relays run on it.
    pub async fn is_led(&self) -> Result<bool, StoreError> {
        let key = Bytes::from([self.prefix.as_ref(), b"lead/"].concat());
        let request = RangeRequest { range_end: end_of(&key), key, ..RangeRequest::default() };
        let answer = self.range(request).await.map_err(|error| unanswered(&error))?;
        Ok(!answer.kvs.is_empty())
    }

    /// The key in etcd.
    fn name(&self, key: &Key) -> Bytes {
        [self.prefix.as_ref(), key.as_bytes()].concat().into()
    }

    /// The key of the relay, without the prefix.
    fn key(&self, name: &Bytes) -> Option<Key> {
        let has_prefix = name.starts_with(&self.prefix);
        has_prefix.then(|| name.slice(self.prefix.len()..)).and_then(Key::from_bytes)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.client.call(RANGE, request, Effect::Repeatable).await
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let found = self.get_many(std::slice::from_ref(key)).await?;
        Ok(found.into_iter().next().flatten())
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let names = keys.iter().map(|key| self.name(key)).collect();
        // Bodies may be large, and nothing is to wait for them.
        let found = match keys.iter().all(|key| is_small(key.kind())) {
            true => self.gatherer.read(names).await,
            false => read(&self.client, &names).await,
        };
        found.map_err(|error| unanswered(&error))
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => successor(&self.name(after)),
            _ => self.name(prefix),
        };
        for _ in 1..MAX_SCAN_ATTEMPTS {
            match self.try_scan(prefix, start.clone(), limit).await {
                Err(error) if is_compacted(&error) => {}
                outcome => return outcome.map_err(|error| unanswered(&error)),
            }
        }
        self.try_scan(prefix, start, limit).await.map_err(|error| unanswered(&error))
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let asked = Asked::of(&batch)?;
        let commit = self.translate(batch);
        if commit.request.compare.is_empty() && commit.request.success.is_empty() {
            return Ok(());
        }
        asked.outcome(self.gatherer.commit(commit).await)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        // A count of nothing: most members have to agree on it all the same.
        let key = self.name(&Key::new(KeyKind::Garbage, &[]));
        let request = RangeRequest { key, count_only: true, ..RangeRequest::default() };
        self.range(request).await.map_err(|error| unanswered(&error))?;
        let status: StatusResponse = self
            .client
            .call(STATUS, Empty {}, Effect::Repeatable)
            .await
            .map_err(|error| unanswered(&error))?;
        match status.errors.iter().any(|alarm| alarm.contains("NOSPACE")) {
            true => Err(StoreError::Unavailable { detail: "etcd has no space left".to_owned() }),
            false => Ok(()),
        }
    }

    fn changes(&self, kind: KeyKind) -> Changes {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_CHANGES);
        tokio::spawn(watch::watch(self.clone(), kind, sender));
        Changes::of(receiver)
    }

    fn lead(&self, job: Job) -> Leadership {
        let name = [self.prefix.as_ref(), b"lead/", job.name().as_bytes()].concat();
        lead::campaign(Arc::clone(&self.client), name.into())
    }
}

/// Whether records of this kind are small, so that reads of many may travel together.
fn is_small(kind: KeyKind) -> bool {
    !matches!(kind, KeyKind::ObjectBody | KeyKind::SignalBody | KeyKind::ForwardBody)
}

/// The first key behind all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    // Everything there is, as etcd writes it. No key of the relay begins with such bytes.
    Bytes::from_static(&[0])
}

fn is_compacted(error: &Status) -> bool {
    error.message().contains("has been compacted")
}

/// What etcd says holds neither keys nor values.
fn detail(error: &Status) -> String {
    format!("etcd: {}", error.message())
}

fn unanswered(error: &Status) -> StoreError {
    match error.code() {
        Code::DataLoss => StoreError::Corrupt { detail: detail(error) },
        _ => StoreError::Unavailable { detail: detail(error) },
    }
}

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
pub(crate) mod tests;
