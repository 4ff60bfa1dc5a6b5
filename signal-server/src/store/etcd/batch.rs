//! A batch as a transaction of etcd, and what etcd's answer says of it.

use std::collections::HashMap;

use tonic::Status;

use crate::store::etcd::gather::commits::Commit;
use crate::store::etcd::wire::{
    Compare, CompareResult, CompareTarget, Compared, DeleteRangeRequest, OneRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use crate::store::etcd::{EtcdStore, detail, unanswered};
use crate::store::{Batch, CommitError, Expect, KeyKind, MAX_BATCH_BYTES, Operation};

/// What is remembered of a batch while etcd has it, to say what became of it.
pub(crate) struct Asked {
    expectations: Vec<Expect>,
    n_operations: usize,
    n_bytes: usize,
}

impl Asked {
    /// Refuses a batch that is too large.
    pub(crate) fn of(batch: &Batch) -> Result<Asked, CommitError> {
        batch.check_size()?;
        Ok(Asked {
            expectations: batch.expectations().to_vec(),
            n_operations: batch.n_operations(),
            n_bytes: batch.n_bytes(),
        })
    }

    pub(crate) fn outcome(&self, answer: Result<TxnResponse, Status>) -> Result<(), CommitError> {
        let answer =
            answer.map_err(|error| uncommitted(&error, self.n_operations, self.n_bytes))?;
        if answer.succeeded {
            return Ok(());
        }
        Err(CommitError::Conflict { kind: broken(&self.expectations, &answer) })
    }
}

impl EtcdStore {
    /// A batch as a transaction.
    pub(crate) fn translate(&self, batch: Batch) -> Commit {
        let n_bytes = batch.n_bytes();
        let has_puts = batch.operations().iter().any(|change| matches!(change, Operation::Put(..)));
        let written = batch.operations().iter().map(|change| self.name(change.key())).collect();
        let (expectations, operations) = batch.into_parts();
        let kinds_differ =
            expectations.windows(2).any(|pair| pair[0].key().kind() != pair[1].key().kind());
        let n_key_bytes: usize =
            expectations.iter().map(|expectation| expectation.key().as_bytes().len()).sum();
        let looks = kinds_differ && n_bytes + n_key_bytes <= MAX_BATCH_BYTES;
        let compare: Vec<Compare> =
            expectations.iter().map(|expectation| self.compare(expectation)).collect();
        Commit {
            expected: compare.iter().map(|compare| compare.key.clone()).collect(),
            written,
            has_puts,
            n_bytes,
            request: TxnRequest {
                compare,
                success: self.changes_of(operations),
                failure: match looks {
                    true => expectations.iter().map(|expected| self.look_at(expected)).collect(),
                    false => Vec::new(),
                },
            },
        }
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

pub(crate) fn uncommitted(error: &Status, n_operations: usize, n_bytes: usize) -> CommitError {
    let text = error.message();
    if has_no_space(error) {
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

/// Whether etcd says that it has no space left.
pub(crate) fn has_no_space(error: &Status) -> bool {
    error.message().contains("database space exceeded")
}
