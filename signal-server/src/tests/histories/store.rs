//! One store for several relays, as etcd is one: with changes that are told, jobs that change hands, and
//! processes that die between a question and its answer.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::store::etcd::model::{Cluster, PREFIX, Revision};
use crate::store::memory::MemoryStore;
use crate::store::sharing::{Change, Changes, Job, Leadership};
use crate::store::{Batch, CommitError, Key, KeyKind, Operation, Store, StoreError};
use crate::tests::histories::etcd::Records;
use crate::tests::histories::life::Life;
use crate::tests::histories::model::Violation;

/// How many changes may wait for one who is told of them, as with etcd.
const MAX_WAITING_CHANGES: usize = 256;

/// How often something goes wrong beside what a `FaultyStore` does, in cases of a thousand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// A read is not answered.
    pub(super) fail_read: u32,
    /// A read takes up to `max_delay`.
    pub(super) delay_read: u32,
    pub(super) max_delay: Duration,
    /// The process dies just before, or just after, a commit.
    pub(super) crash: u32,
    /// A change is told twice.
    pub(super) tell_twice: u32,
    /// The thread of changes is lost, and goes on some time later.
    pub(super) lose_thread: u32,
}

/// The one store, and who takes part.
#[derive(Debug)]
pub(super) struct Hub {
    /// All that is stored, without anything going wrong.
    pub(super) records: Arc<dyn Store>,
    rates: Rates,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dice: StdRng,
    violation: Option<Violation>,
    followers: Vec<Follower>,
    candidates: Vec<Candidate>,
}

#[derive(Debug)]
struct Follower {
    life: Arc<Life>,
    kind: KeyKind,
    told: mpsc::UnboundedSender<Change>,
}

#[derive(Debug)]
struct Candidate {
    life: Arc<Life>,
    job: Job,
    held: watch::Sender<bool>,
}

impl Hub {
    /// In memory.
    pub(super) fn new(seed: u64, rates: Rates) -> Arc<Hub> {
        Arc::new(Hub::with(Arc::new(MemoryStore::new()), seed, rates))
    }

    /// In a cluster of etcd.
    pub(super) fn with_cluster(seed: u64, rates: Rates) -> (Arc<Hub>, Arc<Cluster>) {
        let mut made = None;
        let hub = Arc::new_cyclic(|hub: &Weak<Hub>| {
            let hub = hub.clone();
            let cluster = Arc::new(Cluster::new(move |revision| {
                let hub = hub.upgrade();
                hub.iter()
                    .for_each(|hub| changes_of(revision).for_each(|change| hub.tell(&change)));
            }));
            let records = Arc::new(Records(Arc::clone(&cluster)));
            made = Some(cluster);
            Hub::with(records, seed, rates)
        });
        (hub, made.expect("it was made together with the hub"))
    }

    fn with(records: Arc<dyn Store>, seed: u64, rates: Rates) -> Hub {
        let (dice, followers, candidates) = (StdRng::seed_from_u64(seed), Vec::new(), Vec::new());
        let state = State { dice, violation: None, followers, candidates };
        Hub { records, rates, state: Mutex::new(state) }
    }

    /// Takes down what must not be. The first one counts.
    pub(super) fn report(&self, violation: Violation) {
        self.state().violation.get_or_insert(violation);
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.state().violation.clone()
    }

    /// The store, as this process sees it.
    pub(super) fn seen_by(self: &Arc<Self>, life: &Arc<Life>) -> Member {
        Member { hub: self.clone(), life: life.clone() }
    }

    /// Makes another process than the present one do a job. For a moment nobody may do it, or, where the old
    /// one was stopped and notices late, both.
    pub(super) async fn depose(self: &Arc<Self>, job: Job) {
        let pause = self.roll_delay(Duration::from_millis(50));
        let (old, both) = {
            let mut state = self.state();
            let both = state.dice.random_range(0..2) == 0;
            (
                state.candidates_for(job).find(|one| *one.held.borrow()).map(|one| one.life.number),
                both,
            )
        };
        if both {
            self.elect(job, old);
            sleep(pause).await;
        }
        for candidate in self.state().candidates_for(job).filter(|one| Some(one.life.number) == old)
        {
            candidate.held.send_replace(false);
        }
        if !both {
            sleep(pause).await;
            self.elect(job, old);
        }
        // Perhaps there was nobody else.
        self.elect_later(job);
    }

    /// The process is dead: its lease ends after a while, and then the others may have its jobs.
    pub(super) fn bury(self: &Arc<Self>, number: u64) {
        let mut state = self.state();
        state.followers.retain(|follower| follower.life.number != number);
        let is_dead = |candidate: &Candidate| candidate.life.number == number;
        let jobs: Vec<Job> =
            state.candidates.iter().filter(|one| is_dead(one)).map(|one| one.job).collect();
        state.candidates.retain(|candidate| !is_dead(candidate));
        drop(state);
        for job in jobs {
            self.elect_later(job);
        }
    }

    fn elect_later(self: &Arc<Self>, job: Job) {
        let (hub, pause) = (self.clone(), self.roll_delay(Duration::from_secs(4)));
        tokio::spawn(async move {
            sleep(pause).await;
            if hub.state().candidates_for(job).all(|candidate| !*candidate.held.borrow()) {
                hub.elect(job, None);
            }
        });
    }

    fn elect(&self, job: Job, not: Option<u64>) {
        let mut state = self.state();
        let State { dice, candidates, .. } = &mut *state;
        let others: Vec<&Candidate> = candidates
            .iter()
            .filter(|candidate| candidate.job == job && Some(candidate.life.number) != not)
            .filter(|candidate| !candidate.life.has_ended())
            .collect();
        if let Some(chosen) = others.choose(dice) {
            chosen.held.send_replace(true);
        }
    }

    fn tell(&self, change: &Change) {
        let (Change::Put(key, _) | Change::Deleted(key)) = change else { return };
        for follower in self.state().followers.iter().filter(|one| one.kind == key.kind()) {
            // Whoever has ended is not told.
            let _ended = follower.told.send(change.clone());
        }
    }

    fn roll(&self) -> u32 {
        self.state().dice.random_range(0..1_000)
    }

    fn roll_delay(&self, longest: Duration) -> Duration {
        let part: f64 = self.state().dice.random();
        longest.mul_f64(part)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn candidates_for(&self, job: Job) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(move |candidate| candidate.job == job)
    }
}

/// The store, as one process sees it.
pub(super) struct Member {
    hub: Arc<Hub>,
    life: Arc<Life>,
}

impl Member {
    fn check_life(&self) -> Result<(), StoreError> {
        match self.life.has_ended() {
            true => Err(unavailable("the process is dead")),
            false => Ok(()),
        }
    }

    /// To be asked before a commit and after it.
    pub(super) fn die_perhaps(&self) -> Result<(), StoreError> {
        if self.hub.roll() < self.hub.rates.crash {
            self.life.end();
        }
        self.check_life()
    }

    async fn read(&self) -> Result<(), StoreError> {
        self.check_life()?;
        let (roll, rates) = (self.hub.roll(), self.hub.rates);
        if roll < rates.fail_read {
            return Err(unavailable("a fault that was ordered"));
        }
        if roll < rates.fail_read + rates.delay_read {
            sleep(self.hub.roll_delay(rates.max_delay)).await;
        }
        self.check_life()
    }

    /// What the batch changes, as watchers are told. Read before it is made: of what was not there nobody
    /// is told that it is gone.
    async fn changes_of(&self, batch: &Batch) -> Result<Vec<Change>, StoreError> {
        let mut changes = Vec::new();
        for operation in batch.operations() {
            match operation {
                Operation::Put(key, value) => changes.push(Change::Put(key.clone(), value.clone())),
                Operation::Delete(key) if self.hub.records.get(key).await?.is_some() => {
                    changes.push(Change::Deleted(key.clone()));
                }
                Operation::Delete(_) => {}
            }
        }
        Ok(changes)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Member").field("life", &self.life).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Member {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.read().await?;
        self.hub.records.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.read().await?;
        self.hub.records.get_many(keys).await
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.read().await?;
        self.hub.records.scan(prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.die_perhaps()?;
        // None of these waits: to the others it is one step.
        let changes = self.changes_of(&batch).await?;
        self.hub.records.commit(batch).await?;
        changes.iter().for_each(|change| self.hub.tell(change));
        Ok(self.die_perhaps()?)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.check_life()
    }

    fn changes(&self, kind: KeyKind) -> Changes {
        let (told, waiting) = mpsc::unbounded_channel();
        let (sender, receiver) = mpsc::channel(MAX_WAITING_CHANGES);
        let life = self.life.clone();
        self.hub.state().followers.push(Follower { life, kind, told });
        tokio::spawn(follow(self.hub.clone(), waiting, sender));
        Changes::of(receiver)
    }

    fn lead(&self, job: Job) -> Leadership {
        let (held, seen) = watch::channel(false);
        let life = self.life.clone();
        let is_first = {
            let mut state = self.hub.state();
            let is_first = state.candidates_for(job).next().is_none();
            state.candidates.push(Candidate { life, job, held });
            is_first
        };
        if is_first {
            self.hub.elect_later(job);
        }
        Leadership::of(seen)
    }
}

/// Tells of changes, as late, as often and as incompletely as a watch may.
async fn follow(
    hub: Arc<Hub>,
    mut waiting: mpsc::UnboundedReceiver<Change>,
    told: mpsc::Sender<Change>,
) {
    if told.send(Change::Missed).await.is_err() {
        return;
    }
    while let Some(change) = waiting.recv().await {
        let (roll, rates) = (hub.roll(), hub.rates);
        sleep(hub.roll_delay(rates.max_delay)).await;
        let mut tellings = vec![change];
        if roll < rates.tell_twice {
            tellings.extend_from_within(..);
        } else if roll < rates.tell_twice + rates.lose_thread {
            sleep(hub.roll_delay(Duration::from_secs(2))).await;
            while waiting.try_recv().is_ok() {}
            tellings = vec![Change::Missed];
        }
        for change in tellings {
            if told.send(change).await.is_err() {
                return;
            }
        }
    }
}

/// What is told of a revision of etcd.
fn changes_of(revision: &Revision) -> impl Iterator<Item = Change> {
    revision.changes.iter().filter_map(|(name, value)| {
        let key = Key::from_bytes(name.slice(PREFIX.len()..))?;
        Some(match value {
            Some(value) => Change::Put(key, value.clone()),
            None => Change::Deleted(key),
        })
    })
}

fn unavailable(detail: &str) -> StoreError {
    StoreError::Unavailable { detail: detail.to_owned() }
}
