//! Puts what waits into one request.
//!
//! A request costs etcd and the relay about the same, whatever is in it, and a transaction costs etcd a sync of
//! its log. So reads that wait go out as one transaction of reads, which goes through no log; and commits that
//! have nothing to do with one another go out as transactions within one transaction, which is one entry of the
//! log. There is no timer: a request goes at once while few are under way, and what comes meanwhile gathers by
//! itself.
//!
//! etcd judges each inner transaction by its own compares, so one that does not hold stops no other. But it
//! compares before it changes anything, and refuses to write a key twice. So commits that travel together
//! must not see one another: none writes a key that another one expects or writes. Two signals of one
//! container go together, as both expect the container and neither writes it.
//!
//! What is large travels alone, and so does a commit that only removes something: when etcd has no space left
//! it refuses whatever writes, but takes those (from 3.4.28 on; before, it refuses all transactions then, also
//! those of reads, which are asked for one by one then).
//!
//! etcd counts the space that a transaction needs by what it writes itself, and overlooks what transactions
//! within it write (`costTxn` in its `quota.go`): it would take them although there is no space left. So each
//! group also writes a record of its own, always the same one, which means nothing.
//!
//! Choice not taken: all compares and all changes side by side in one flat transaction. One compare that does
//! not hold would stop all, and each would have to be sent again.

pub(crate) mod commits;
pub(crate) mod reads;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tonic::Status;

use crate::store::etcd::client::{CALL_TIMEOUT, Client};
use crate::store::etcd::gather::commits::{Commit, Commits, commit_alone};
use crate::store::etcd::gather::reads::{Found, Reads, read};
use crate::store::etcd::wire::TxnResponse;

/// How many requests of one sort may be under way; what comes then gathers. With two, etcd has one to work on
/// while the next one is on its way; more would only make them smaller.
const MAX_UNDER_WAY: usize = 2;

/// How many reads, or commits, may wait; one more is told to come again. The relay has fewer requests at once.
const MAX_WAITING: usize = 4_096;

/// Takes reads and commits until it is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Gatherer {
    client: Arc<Client>,
    reads: Lane<Vec<Bytes>, Found>,
    commits: Lane<Commit, TxnResponse>,
}

/// The way of one sort of request.
#[derive(Debug)]
struct Lane<Q, A> {
    waiting: mpsc::Sender<Waiting<Q, A>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Waiting<Q, A> {
    question: Q,
    caller: oneshot::Sender<Result<A, Status>>,
}

impl Gatherer {
    /// Starts two tasks, for which there must be a runtime. Each group of commits writes something to
    /// `counted`.
    pub(crate) fn start(client: Arc<Client>, counted: Bytes) -> Gatherer {
        let reads = Lane::start(&client, Reads::default);
        let commits = Lane::start(&client, move || Commits::new(counted.clone()));
        Gatherer { client, reads, commits }
    }

    /// What is at these keys, each as it was at some moment of the call.
    pub(crate) async fn read(&self, keys: Vec<Bytes>) -> Result<Found, Status> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match self.reads.places.try_acquire() {
            Ok(_place) => read(&self.client, &keys).await,
            Err(_) => self.reads.ask(keys).await,
        }
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<TxnResponse, Status> {
        if !commit.may_travel() {
            return commit_alone(&self.client, commit.request).await;
        }
        match self.commits.places.try_acquire() {
            Ok(_place) => commit_alone(&self.client, commit.request).await,
            Err(_) => self.commits.ask(commit).await,
        }
    }
}

impl<Q, A> Clone for Lane<Q, A> {
    fn clone(&self) -> Lane<Q, A> {
        Lane { waiting: self.waiting.clone(), places: Arc::clone(&self.places) }
    }
}

impl<Q: Send + 'static, A: Send + 'static> Lane<Q, A> {
    fn start<G: Group<Question = Q, Answer = A>>(
        client: &Arc<Client>,
        empty: impl Fn() -> G + Send + 'static,
    ) -> Lane<Q, A> {
        let (waiting, receiver) = mpsc::channel(MAX_WAITING);
        let places = Arc::new(Semaphore::new(MAX_UNDER_WAY));
        tokio::spawn(gather(Arc::clone(client), receiver, Arc::clone(&places), empty));
        Lane { waiting, places }
    }

    async fn ask(&self, question: Q) -> Result<A, Status> {
        let (caller, answer) = oneshot::channel();
        self.waiting.try_send(Waiting { question, caller }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Status::resource_exhausted("too many requests wait for etcd")
            }
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        // No longer than a call of its own: those before it may each take that long while etcd is away.
        match timeout(CALL_TIMEOUT, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(stopped())),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

fn stopped() -> Status {
    Status::unavailable("the relay is stopping")
}

/// What goes out as one request.
trait Group: Send + 'static {
    type Question: Send + 'static;
    type Answer: Send + 'static;

    fn has_room_for(&self, next: &Self::Question) -> bool;

    fn push(&mut self, next: Waiting<Self::Question, Self::Answer>);

    /// Answers all callers.
    fn send(self, client: Arc<Client>) -> impl Future<Output = ()> + Send;
}

/// Sends group after group, each when there is a place for it.
async fn gather<G: Group>(
    client: Arc<Client>,
    mut waiting: mpsc::Receiver<Waiting<G::Question, G::Answer>>,
    places: Arc<Semaphore>,
    empty: impl Fn() -> G,
) {
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        // Whoever has gone away, or has been told that it took too long, wants nothing any more.
        if first.caller.is_closed() {
            continue;
        }
        let mut group = empty();
        group.push(first);
        while let Ok(next) = waiting.try_recv() {
            if next.caller.is_closed() {
                continue;
            }
            if !group.has_room_for(&next.question) {
                left_over = Some(next);
                break;
            }
            group.push(next);
        }
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            group.send(client).await;
            drop(place);
        });
    }
}

fn refuse<A>(callers: impl Iterator<Item = oneshot::Sender<Result<A, Status>>>, status: &Status) {
    for caller in callers {
        let _gone = caller.send(Err(status.clone()));
    }
}

fn incomplete() -> Status {
    Status::internal("etcd answered less than it was asked")
}

#[cfg(test)]
mod tests;
