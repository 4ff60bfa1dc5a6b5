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
//! Beside the records there are keys below `<prefix>lead/`: who does which [`Job`], see `lead`. No kind of
//! record begins with that letter.
//!
//! Choices not taken: leases for records that end some time, since most of them are removed long before,
//! and a lease for each is one more transaction; reads from whichever member is near (`serializable`), which
//! may show what is old.

mod client;
mod lead;
mod watch;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::{Code, Status};

pub use crate::store::etcd::client::{EtcdError, EtcdSettings, EtcdTls, EtcdUser};

use crate::store::etcd::client::{Client, Effect};
use crate::store::etcd::wire::{
    Compare, CompareResult, CompareTarget, Compared, DeleteRangeRequest, Empty, OneRequest,
    PutRequest, RANGE, RangeRequest, RangeResponse, RequestOp, STATUS, StatusResponse, TXN,
    TxnRequest, TxnResponse,
};
use crate::store::sharing::{Changes, Job, Leadership};
use crate::store::{
    Batch, CommitError, Expect, Key, KeyKind, MAX_BATCH_BYTES, Operation, Store, StoreError,
};

/// Longest prefix of keys. A batch of the largest size is to stay below etcd's limit for a request, with
/// the prefix in front of each of its keys.
pub const MAX_PREFIX_BYTES: usize = 64;

/// How many records are asked for at once. A scan of more is several questions about one revision.
const PAGE: usize = 256;

/// How often a scan is begun anew whose revision was compacted away between two of its pages.
const MAX_SCAN_ATTEMPTS: usize = 3;

/// How many changes may wait for whoever wants to be told of them; then etcd keeps them.
const MAX_WAITING_CHANGES: usize = 256;

/// See the module's own words.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    client: Arc<Client>,
    prefix: Bytes,
}

impl EtcdStore {
    /// Checks the settings; whether somebody answers is seen with the first call.
    pub fn new(settings: &EtcdSettings) -> Result<EtcdStore, EtcdError> {
        if settings.prefix.len() > MAX_PREFIX_BYTES {
            return Err(EtcdError::PrefixTooLong { limit: MAX_PREFIX_BYTES });
        }
        let prefix = Bytes::copy_from_slice(settings.prefix.as_bytes());
        Ok(EtcdStore { client: Arc::new(Client::new(settings)?), prefix })
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

    fn compare(&self, expectation: &Expect) -> Compare {
        let (result, target, compared) = match expectation {
            Expect::Absent(_) => {
                (CompareResult::Equal, CompareTarget::Version, Compared::Version(0))
            }
            Expect::Present(_) => {
                (CompareResult::Greater, CompareTarget::Version, Compared::Version(0))
            }
            // Does not hold where there is no such key, whatever the value.
            Expect::Value(_, value) => {
                (CompareResult::Equal, CompareTarget::Value, Compared::Value(value.clone()))
            }
        };
        Compare {
            result: result as i32,
            target: target as i32,
            key: self.name(expectation.key()),
            compared: Some(compared),
        }
    }

    /// The changes of a batch. etcd refuses to change one key twice in a transaction, so the last change of
    /// each key is the one that is sent.
    fn changes_of(&self, operations: Vec<Operation>) -> Vec<RequestOp> {
        let mut last = HashMap::with_capacity(operations.len());
        for (index, operation) in operations.iter().enumerate() {
            last.insert(operation.key().clone(), index);
        }
        let is_last = |(index, operation): &(usize, Operation)| last[operation.key()] == *index;
        operations
            .into_iter()
            .enumerate()
            .filter(is_last)
            .map(|(_, operation)| match operation {
                Operation::Put(key, value) => {
                    OneRequest::Put(PutRequest { key: self.name(&key), value, lease: 0 }).into()
                }
                Operation::Delete(key) => {
                    OneRequest::Delete(DeleteRangeRequest { key: self.name(&key) }).into()
                }
            })
            .collect()
    }

    fn look_at(&self, expectation: &Expect) -> RequestOp {
        let key = self.name(expectation.key());
        OneRequest::Range(RangeRequest { key, ..RangeRequest::default() }).into()
    }

    /// A page of a scan, of the revision that the first page was of.
    async fn page(
        &self,
        start: Bytes,
        end: &Bytes,
        limit: usize,
        revision: i64,
    ) -> Result<RangeResponse, Status> {
        let request = RangeRequest {
            key: start,
            range_end: end.clone(),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            revision,
            count_only: false,
        };
        self.range(request).await
    }

    async fn try_scan(
        &self,
        mut start: Bytes,
        end: &Bytes,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, Status> {
        let mut found = Vec::new();
        let mut revision = 0;
        while found.len() < limit {
            let wanted = PAGE.min(limit - found.len());
            let answer = self.page(start, end, wanted, revision).await?;
            if revision == 0 {
                revision = answer.header.map_or(0, |header| header.revision);
            }
            let n_records = answer.kvs.len();
            start = answer.kvs.last().map_or_else(Bytes::new, |last| successor(&last.key));
            for record in answer.kvs {
                // What is not a key of the relay is not the relay's.
                found.extend(self.key(&record.key).map(|key| (key, record.value)));
            }
            if n_records < wanted {
                break;
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let request = RangeRequest { key: self.name(key), ..RangeRequest::default() };
        let mut answer = self.range(request).await.map_err(|error| unanswered(&error))?;
        Ok(answer.kvs.pop().map(|record| record.value))
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let first = self.name(prefix);
        let end = end_of(&first);
        let start = match after {
            Some(after) if after >= prefix => successor(&self.name(after)),
            _ => first,
        };
        if start >= end {
            return Ok(Vec::new());
        }
        for _ in 1..MAX_SCAN_ATTEMPTS {
            match self.try_scan(start.clone(), &end, limit).await {
                Err(error) if is_compacted(&error) => {}
                outcome => return outcome.map_err(|error| unanswered(&error)),
            }
        }
        self.try_scan(start, &end, limit).await.map_err(|error| unanswered(&error))
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        batch.check_size()?;
        let (n_operations, n_bytes) = (batch.n_operations(), batch.n_bytes());
        let (expectations, operations) = batch.into_parts();
        let kinds_differ =
            expectations.windows(2).any(|pair| pair[0].key().kind() != pair[1].key().kind());
        let n_key_bytes: usize =
            expectations.iter().map(|expectation| expectation.key().as_bytes().len()).sum();
        let looks = kinds_differ && n_bytes + n_key_bytes <= MAX_BATCH_BYTES;
        let request = TxnRequest {
            compare: expectations.iter().map(|expectation| self.compare(expectation)).collect(),
            success: self.changes_of(operations),
            failure: match looks {
                true => expectations.iter().map(|expectation| self.look_at(expectation)).collect(),
                false => Vec::new(),
            },
        };
        if request.compare.is_empty() && request.success.is_empty() {
            return Ok(());
        }
        let answer: TxnResponse = self
            .client
            .call(TXN, request, Effect::Once)
            .await
            .map_err(|error| uncommitted(&error, n_operations, n_bytes))?;
        if answer.succeeded {
            return Ok(());
        }
        Err(CommitError::Conflict { kind: broken(&expectations, &answer) })
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

/// The kind of the first expectation that does not hold, as far as the answer tells.
fn broken(expectations: &[Expect], answer: &TxnResponse) -> KeyKind {
    let present = answer.responses.iter().map(|response| {
        let range = response.range.as_ref();
        range.and_then(|range| range.kvs.first()).map(|record| record.value.as_ref())
    });
    let broken = expectations
        .iter()
        .zip(present)
        .find(|(expectation, present)| !expectation.holds(*present))
        .map(|(expectation, _)| expectation);
    broken.or(expectations.first()).map_or(KeyKind::Garbage, |expectation| expectation.key().kind())
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

/// The first key behind this one.
fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
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

fn uncommitted(error: &Status, n_operations: usize, n_bytes: usize) -> CommitError {
    let text = error.message();
    if text.contains("database space exceeded") {
        return CommitError::Full { detail: detail(error) };
    }
    if text.contains("too many requests") {
        return CommitError::Overloaded;
    }
    if text.contains("request is too large") || text.contains("too many operations") {
        return CommitError::TooLarge { n_operations, n_bytes };
    }
    unanswered(error).into()
}

#[cfg(test)]
pub(crate) mod tests;
