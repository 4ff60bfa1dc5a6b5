//! Commits that travel together.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tonic::{Code, Status};

use crate::store::etcd::client::{Client, Effect};
use crate::store::etcd::gather::{Group, Waiting, incomplete, refuse};
use crate::store::etcd::wire::{OneRequest, PutRequest, RequestOp, TXN, TxnRequest, TxnResponse};

/// Most commits in one request. etcd takes 128 operations (`--max-txn-ops`), and counts those of an inner
/// transaction and those of the outer one together. One of the outer ones is the record that etcd counts.
pub(crate) const MAX_COMMITS: usize = 63;

/// Most compares, or changes, of a commit that travels with others: what the outer ones leave of
/// etcd's limit.
pub(crate) const MAX_OPERATIONS: usize = 64;

/// Most bytes of a commit that travels with others. A larger one gains nothing from company.
pub(crate) const MAX_COMMIT_BYTES: usize = 16 << 10;

/// Most bytes of commits that travel together, far enough below etcd's limit of 1.5 MiB for a request that the
/// keys may stand in it three times: in compares, in changes, and in what is looked at where a compare fails.
pub(crate) const MAX_GROUP_BYTES: usize = 256 << 10;

/// A commit, as etcd takes it.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) request: TxnRequest,
    /// The keys that it expects something of.
    pub(crate) expected: Vec<Bytes>,
    /// The keys that it changes.
    pub(crate) written: Vec<Bytes>,
    /// Whether it writes something, and does not only remove.
    pub(crate) has_puts: bool,
    pub(crate) n_bytes: usize,
}

/// Commits that have nothing to do with one another.
pub(crate) struct Commits {
    /// Where something is written for etcd to count.
    counted: Bytes,
    waiting: Vec<Waiting<Commit, TxnResponse>>,
    expected: HashSet<Bytes>,
    written: HashSet<Bytes>,
    pub(crate) n_bytes: usize,
}

impl Commit {
    pub(crate) fn may_travel(&self) -> bool {
        self.has_puts
            && self.n_bytes <= MAX_COMMIT_BYTES
            && self.request.compare.len() <= MAX_OPERATIONS
            && self.request.success.len() <= MAX_OPERATIONS
    }
}

impl Commits {
    pub(crate) fn new(counted: Bytes) -> Commits {
        Commits {
            counted,
            waiting: Vec::new(),
            expected: HashSet::new(),
            written: HashSet::new(),
            n_bytes: 0,
        }
    }
}

impl Group for Commits {
    type Question = Commit;
    type Answer = TxnResponse;

    fn has_room_for(&self, next: &Commit) -> bool {
        let expects_what_is_written = next.expected.iter().any(|key| self.written.contains(key));
        let is_known = |key: &Bytes| self.written.contains(key) || self.expected.contains(key);
        let writes_what_is_known = next.written.iter().any(is_known);
        self.waiting.len() < MAX_COMMITS
            && self.n_bytes + next.n_bytes <= MAX_GROUP_BYTES
            && !expects_what_is_written
            && !writes_what_is_known
    }

    fn push(&mut self, next: Waiting<Commit, TxnResponse>) {
        self.expected.extend(next.question.expected.iter().cloned());
        self.written.extend(next.question.written.iter().cloned());
        self.n_bytes += next.question.n_bytes;
        self.waiting.push(next);
    }

    async fn send(self, client: Arc<Client>) {
        if self.waiting.len() == 1 {
            return commit_each(&client, self.waiting).await;
        }
        let counted = PutRequest { key: self.counted, ..PutRequest::default() };
        let requests = self.waiting.iter().map(|waiting| waiting.question.request.clone());
        let success: Vec<RequestOp> = std::iter::once(OneRequest::Put(counted))
            .chain(requests.map(OneRequest::Txn))
            .map(RequestOp::from)
            .collect();
        let n_operations = success.len();
        let together = TxnRequest { success, ..TxnRequest::default() };
        match commit_alone(&client, together).await {
            Ok(answer) if answer.responses.len() == n_operations => {
                let responses = answer.responses.into_iter().skip(1);
                for (waiting, response) in self.waiting.into_iter().zip(responses) {
                    let _gone = waiting.caller.send(response.txn.ok_or_else(incomplete));
                }
            }
            // Refused before it was begun: there is something that etcd will not have together.
            Err(status) if status.code() == Code::InvalidArgument => {
                commit_each(&client, self.waiting).await;
            }
            Ok(_) => refuse(self.waiting.into_iter().map(|waiting| waiting.caller), &incomplete()),
            Err(status) => refuse(self.waiting.into_iter().map(|waiting| waiting.caller), &status),
        }
    }
}

/// All at once, and each by itself.
async fn commit_each(client: &Client, waiting: Vec<Waiting<Commit, TxnResponse>>) {
    let each = waiting.into_iter().map(|waiting| async move {
        let answer = commit_alone(client, waiting.question.request).await;
        let _gone = waiting.caller.send(answer);
    });
    join_all(each).await;
}

/// Makes one transaction.
pub(crate) async fn commit_alone(
    client: &Client,
    request: TxnRequest,
) -> Result<TxnResponse, Status> {
    client.call(TXN, request, Effect::Once).await
}
