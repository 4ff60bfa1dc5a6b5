//! One change at a time for one record, without a lock: changes queue up behind the record's key, and
//! whoever came first works them off. It does so in its own task until its own change is made, because a
//! task of its own for every signal, and two more wake-ups, would cost as much as the signal itself; what
//! is left by then goes on in a task of its own.
//!
//! Signals for the same mailbox that meet in the queue are committed together. So a thousand instances
//! that signal one handle share the store's syncs just as a thousand handles do, and the optimistic
//! commits of one relay never race each other; what is left to race is another relay.
//!
//! A change goes on when its caller goes away, also in a task of its own: a client that hangs up must not
//! stop the others whose changes travel in the same commit.

use std::collections::{HashMap, VecDeque, hash_map};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::mailbox::Shared;
use crate::mailbox::append::{Append, AppendTarget, MAX_ROUND_APPENDS, MAX_ROUND_BYTES, Stored};
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::MAX_QUEUED_CHANGES;
use crate::store::Key;

/// Spreads keys over several locks; a power of two some way above the number of cores.
const N_SHARDS: usize = 64;

/// What waits for its turn.
enum Job {
    /// A signal, which may share a commit with the ones behind it.
    Append(AppendTarget, Append, oneshot::Sender<AppendResult>),
    /// Anything else.
    Alone(Work),
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

type AppendResult = Result<Stored, MailboxError>;

type Shard = HashMap<Key, VecDeque<Job>>;

/// The queues of all keys. A queue exists while a task works it off.
pub(crate) struct Queues {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

impl Default for Queues {
    fn default() -> Self {
        Queues {
            shards: std::iter::repeat_with(Mutex::default).take(N_SHARDS).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queues").finish_non_exhaustive()
    }
}

impl Shared {
    /// Adds a signal to the mailbox whose head is at `head`.
    pub(crate) async fn append_in_turn(
        self: &Arc<Self>,
        head: Key,
        target: AppendTarget,
        append: Append,
    ) -> AppendResult {
        let (reply, answer) = oneshot::channel();
        let work = self.enqueue(head, Job::Append(target, append, reply))?;
        Turn { work, answer }.await.unwrap_or(Err(MailboxError::Interrupted))
    }

    /// Runs `change` when nothing else that goes by `key` is running.
    pub(crate) async fn in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        key: Key,
        change: impl Future<Output = Result<T, MailboxError>> + Send + 'static,
    ) -> Result<T, MailboxError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::pin(async move {
            // Nobody listens any more when the caller went away; the change is made all the same.
            let _ = reply.send(change.await);
        });
        let work = self.enqueue(key, Job::Alone(job))?;
        Turn { work, answer }.await.unwrap_or(Err(MailboxError::Interrupted))
    }

    /// Returns the work of the queue if the job is the first there.
    fn enqueue(self: &Arc<Self>, key: Key, job: Job) -> Result<Option<Work>, MailboxError> {
        match self.queues.shard(&key).entry(key.clone()) {
            hash_map::Entry::Occupied(mut queue) => {
                if queue.get().len() >= MAX_QUEUED_CHANGES {
                    return Err(MailboxError::MailboxBusy);
                }
                queue.get_mut().push_back(job);
                return Ok(None);
            }
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(VecDeque::from([job]));
            }
        }
        let worker = Worker { shared: Arc::clone(self), key, has_queue: true };
        Ok(Some(Box::pin(worker.run())))
    }
}

/// A caller who waits for its change, and meanwhile does the work of the queue if it came first.
struct Turn<T> {
    work: Option<Work>,
    answer: oneshot::Receiver<T>,
}

impl<T> Future for Turn<T> {
    type Output = Result<T, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let is_done = self.work.as_mut().is_some_and(|work| work.as_mut().poll(context).is_ready());
        if is_done {
            self.work = None;
        }
        Pin::new(&mut self.answer).poll(context)
    }
}

impl<T> Drop for Turn<T> {
    /// Others wait for what is left. Work that has just panicked is not polled again, and without a
    /// runtime there is nobody left to wait.
    fn drop(&mut self) {
        let work = self.work.take().filter(|_| !std::thread::panicking());
        if let (Some(work), Ok(runtime)) = (work, Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

/// Works off one queue. If it is stopped half-way the queue goes with it, and those who wait learn
/// that they were interrupted.
struct Worker {
    shared: Arc<Shared>,
    key: Key,
    /// Whether the queue at `key` is still this worker's. Once it has been removed, the next one there
    /// belongs to another worker.
    has_queue: bool,
}

/// What is done in one go.
enum Round {
    Appends(AppendTarget, Vec<Append>, Vec<oneshot::Sender<AppendResult>>),
    Alone(Work),
}

impl Worker {
    async fn run(mut self) {
        while let Some(round) = self.next_round() {
            match round {
                Round::Alone(change) => change.await,
                Round::Appends(target, appends, replies) => {
                    let results = self.shared.append(&self.key, target, &appends).await;
                    for (reply, result) in replies.into_iter().zip(results) {
                        let _ = reply.send(result);
                    }
                }
            }
        }
    }

    /// Takes the next job and, if it is a signal, the signals directly behind it. Removes the queue
    /// when it is empty: under the lock, so that nobody adds to a queue without a worker.
    fn next_round(&mut self) -> Option<Round> {
        let mut shard = self.shared.queues.shard(&self.key);
        let queue = shard.get_mut(&self.key)?;
        let (target, append, reply) = match queue.pop_front() {
            None => {
                shard.remove(&self.key);
                self.has_queue = false;
                return None;
            }
            Some(Job::Alone(change)) => return Some(Round::Alone(change)),
            Some(Job::Append(target, append, reply)) => (target, append, reply),
        };
        let mut n_bytes = append.n_bytes();
        let (mut appends, mut replies) = (vec![append], vec![reply]);
        while appends.len() < MAX_ROUND_APPENDS {
            match queue.front() {
                Some(Job::Append(_, next, _)) if n_bytes + next.n_bytes() <= MAX_ROUND_BYTES => {}
                _ => break,
            }
            if let Some(Job::Append(_, append, reply)) = queue.pop_front() {
                n_bytes += append.n_bytes();
                appends.push(append);
                replies.push(reply);
            }
        }
        Some(Round::Appends(target, appends, replies))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.has_queue {
            return;
        }
        let abandoned = self.shared.queues.shard(&self.key).remove(&self.key);
        // Dropped here, when the lock is free again: it wakes those who wait.
        drop(abandoned);
    }
}

impl Queues {
    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % N_SHARDS as u64).unwrap_or(0);
        // A panic cannot leave a map half changed.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
