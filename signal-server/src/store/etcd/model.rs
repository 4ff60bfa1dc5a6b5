//! An etcd in memory, for histories in which everything goes wrong that may: what is asked of it is the very
//! messages that are sent to members, and what it answers is what etcd would.
//!
//! It keeps every version of every key, so that whoever looks on can say whether an answer may be: a read is right
//! if it shows a moment between its question and its answer.
//!
//! Transactions go as in etcd's `applyTxn` (`etcdserver/apply.go`): all compares, those of inner transactions
//! too, are judged before anything is changed; what a transaction changes has one revision, and one that changes
//! nothing has none. What `checkTxnRequest` (`api/v3rpc/key.go`) refuses is refused: more operations than 128,
//! inner ones counted, and a key that is written twice.
//!
//! Choice not taken: a server on a socket. Its frames would cost most of the time of a history, and nothing would be
//! the same twice.

pub(crate) mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tonic::Status;

use crate::store::etcd::EtcdStore;
use crate::store::etcd::client::Client;
use crate::store::etcd::gather::Gatherer;
use crate::store::etcd::model::line::Line;
use crate::store::etcd::wire::{
    Compare, CompareResult, CompareTarget, Compared, KeyValue, OneRequest, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

/// etcd's `--max-txn-ops`.
const MAX_OPERATIONS: usize = 128;

/// How many records the relay asks for at once: so few that even a short listing has several pages.
const PAGE: usize = 3;

/// What every key of the relay begins with here.
pub(crate) const PREFIX: &str = "relay/";

/// What the store becomes by one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) number: i64,
    /// Whose transaction it was.
    pub(crate) author: u64,
    /// Nothing where a key was removed.
    pub(crate) changes: BTreeMap<Bytes, Option<Bytes>>,
}

/// The cluster. What is told of each revision to `told` is told in their order.
pub(crate) struct Cluster {
    state: Mutex<State>,
    told: Box<dyn Fn(&Revision) + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    /// Their numbers follow one another, and begin with 1.
    revisions: Vec<Revision>,
    /// Since when each key has which value.
    versions: BTreeMap<Bytes, Vec<(i64, Option<Bytes>)>>,
    /// What was before is not known any more.
    compacted: i64,
}

impl EtcdStore {
    /// A store on this way to a cluster. To be called inside a runtime.
    pub(crate) fn by(line: Line) -> EtcdStore {
        let prefix = Bytes::from_static(PREFIX.as_bytes());
        let client = Arc::new(Client::by(line));
        let gatherer = Gatherer::start(Arc::clone(&client), name(b"group"));
        EtcdStore { client, gatherer, prefix, strides: Arc::default(), page: PAGE }
    }
}

/// The key in etcd of a key of the relay.
pub(crate) fn name(key: &[u8]) -> Bytes {
    [PREFIX.as_bytes(), key].concat().into()
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    pub(crate) fn new(told: impl Fn(&Revision) + Send + Sync + 'static) -> Cluster {
        Cluster { state: Mutex::default(), told: Box::new(told) }
    }

    /// The number of the last revision.
    pub(crate) fn now(&self) -> i64 {
        self.state().now()
    }

    /// Forgets what was before this moment, for those who ask.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.compacted = state.now();
    }

    /// The value of a key, as of a revision.
    pub(crate) fn value_at(&self, key: &[u8], revision: i64) -> Option<Bytes> {
        self.state().value_at(key, revision)
    }

    /// The first records from a key on that begin with `prefix`, as of a revision.
    pub(crate) fn records_at(
        &self,
        start: &Bytes,
        prefix: &Bytes,
        limit: usize,
        revision: i64,
    ) -> Vec<(Bytes, Bytes)> {
        let state = self.state();
        let from = (Bound::Included(start), Bound::Unbounded);
        let records = state.versions.range::<Bytes, _>(from);
        let present = records
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, versions)| Some((key.clone(), value_of(versions, revision)?)));
        present.take(limit).collect()
    }

    /// What this author has changed after a revision.
    pub(crate) fn changes_by(&self, author: u64, after: i64) -> Vec<Revision> {
        let state = self.state();
        let first = usize::try_from(after).unwrap_or_default();
        let later = state.revisions.iter().skip(first);
        later.filter(|revision| revision.author == author).cloned().collect()
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        self.state().range(request)
    }

    pub(crate) fn txn(&self, author: u64, request: &TxnRequest) -> Result<TxnResponse, Status> {
        check(request, MAX_OPERATIONS)?;
        written(&[&request.success, &request.failure])?;
        let mut state = self.state();
        let before = state.now();
        let mut changes = BTreeMap::new();
        let answer = state.apply(request, &mut changes)?;
        if changes.is_empty() {
            return Ok(answer);
        }
        let revision = Revision { number: before + 1, author, changes };
        for (key, value) in &revision.changes {
            let versions = state.versions.entry(key.clone()).or_default();
            versions.push((revision.number, value.clone()));
        }
        (self.told)(&revision);
        state.revisions.push(revision);
        Ok(answer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn now(&self) -> i64 {
        self.revisions.last().map_or(0, |revision| revision.number)
    }

    fn value_at(&self, key: &[u8], revision: i64) -> Option<Bytes> {
        value_of(self.versions.get(key)?, revision)
    }

    fn range_at(&self, first: &Bytes, end: &Bytes, limit: usize, at: i64) -> Vec<(Bytes, Bytes)> {
        let within = (Bound::Included(first), Bound::Excluded(end));
        if first >= end {
            return Vec::new();
        }
        let records = self.versions.range::<Bytes, _>(within);
        let present =
            records.filter_map(|(key, versions)| Some((key.clone(), value_of(versions, at)?)));
        present.take(limit).collect()
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        let now = self.now();
        let at = if request.revision == 0 { now } else { request.revision };
        if at < self.compacted {
            return Err(Status::out_of_range(
                "etcdserver: mvcc: required revision has been compacted",
            ));
        }
        let limit = match request.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or_default(),
        };
        let found = match request.range_end.is_empty() {
            true => {
                let value = self.value_at(&request.key, at);
                value.map(|value| (request.key.clone(), value)).into_iter().collect()
            }
            false => self.range_at(&request.key, &request.range_end, limit, at),
        };
        let record = |(key, value)| KeyValue { key, mod_revision: 0, value };
        let kvs =
            if request.count_only { Vec::new() } else { found.into_iter().map(record).collect() };
        Ok(RangeResponse { header: Some(ResponseHeader { revision: now }), kvs })
    }

    /// Takes the branches that the compares say, each by the state before all of this.
    fn apply(
        &self,
        request: &TxnRequest,
        changes: &mut BTreeMap<Bytes, Option<Bytes>>,
    ) -> Result<TxnResponse, Status> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &request.success } else { &request.failure };
        let mut responses = Vec::with_capacity(branch.len());
        for operation in branch {
            let mut response = ResponseOp::default();
            match &operation.request {
                Some(OneRequest::Range(range)) => response.range = Some(self.range(range)?),
                Some(OneRequest::Put(put)) => {
                    changes.insert(put.key.clone(), Some(put.value.clone()));
                }
                Some(OneRequest::Delete(delete)) => {
                    if self.value_at(&delete.key, self.now()).is_some() {
                        changes.insert(delete.key.clone(), None);
                    }
                }
                Some(OneRequest::Txn(inner)) => {
                    response.txn = Some(self.apply(inner, changes)?);
                }
                None => return Err(Status::invalid_argument("etcdserver: key is not provided")),
            }
            responses.push(response);
        }
        Ok(TxnResponse { succeeded, responses })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let present = self.value_at(&compare.key, self.now());
        let is_equal = compare.result == CompareResult::Equal as i32;
        match &compare.compared {
            Some(Compared::Value(value)) if compare.target == CompareTarget::Value as i32 => {
                // etcd says no where there is no such key, whatever is asked.
                is_equal && present.as_ref() == Some(value)
            }
            Some(Compared::Version(0)) if compare.target == CompareTarget::Version as i32 => {
                present.is_none() == is_equal
            }
            // Nothing else is ever asked.
            _ => false,
        }
    }
}

fn value_of(versions: &[(i64, Option<Bytes>)], at: i64) -> Option<Bytes> {
    let known = versions.iter().rev().find(|(since, _)| *since <= at)?;
    known.1.clone()
}

/// As etcd's `checkTxnRequest`: what the outer ones leave is for the inner ones.
fn check(request: &TxnRequest, left: usize) -> Result<(), Status> {
    let parts = [request.compare.len(), request.success.len(), request.failure.len()];
    let n_operations = parts.into_iter().max().unwrap_or_default();
    if n_operations > left {
        return Err(Status::invalid_argument("etcdserver: too many operations in txn request"));
    }
    for operation in request.success.iter().chain(&request.failure) {
        if let Some(OneRequest::Txn(inner)) = &operation.request {
            check(inner, left - n_operations)?;
        }
    }
    Ok(())
}

/// As etcd's `checkIntervals`: the keys that are put and those that are removed, if none of them is put twice, or
/// put and removed, by what may be done together. The branches of one transaction are never both taken.
fn written(branches: &[&Vec<RequestOp>]) -> Result<[BTreeSet<Bytes>; 2], Status> {
    let twice = || Status::invalid_argument("etcdserver: duplicate key given in txn request");
    let (mut all_puts, mut all_deletes) = (BTreeSet::new(), BTreeSet::new());
    for branch in branches {
        let (mut puts, mut deletes) = (BTreeSet::new(), BTreeSet::new());
        for operation in *branch {
            if let Some(OneRequest::Delete(delete)) = &operation.request {
                deletes.insert(delete.key.clone());
            }
        }
        for operation in *branch {
            let [new_puts, new_deletes] = match &operation.request {
                Some(OneRequest::Txn(inner)) => written(&[&inner.success, &inner.failure])?,
                Some(OneRequest::Put(put)) => [BTreeSet::from([put.key.clone()]), BTreeSet::new()],
                _ => continue,
            };
            if new_puts.iter().any(|key| puts.contains(key) || deletes.contains(key)) {
                return Err(twice());
            }
            puts.extend(new_puts);
            deletes.extend(new_deletes);
        }
        if puts.iter().any(|key| deletes.contains(key)) {
            return Err(twice());
        }
        all_puts.extend(puts);
        all_deletes.extend(deletes);
    }
    Ok([all_puts, all_deletes])
}
