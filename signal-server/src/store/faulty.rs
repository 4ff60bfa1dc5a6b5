//! A store that breaks on purpose, around another one.
//!
//! What goes wrong is either written down, one entry for each commit in the order in which they come, or
//! drawn from a seed, so that a run that found something can be repeated.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::store::sharing::{Changes, Job, Leadership};
use crate::store::snapshot::Snapshot;
use crate::store::{Batch, CommitError, Key, KeyKind, Store, StoreError};

/// What goes wrong with one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this error and never reaches the store.
    FailBefore(CommitError),
    /// It reaches the store after this time.
    Delay(Duration),
    /// It takes effect, and the caller is told that the store is unavailable.
    LoseReply,
}

/// How often what goes wrong, in commits of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRates {
    /// [`Fault::FailBefore`], as unavailable.
    pub fail_before: u32,
    /// [`Fault::Delay`], by up to `max_delay`.
    pub delay: u32,
    /// The longest delay.
    pub max_delay: Duration,
    /// [`Fault::LoseReply`].
    pub lose_reply: u32,
}

/// See the module's own words.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Mutex<Plan>,
    n_commits: AtomicUsize,
    n_reads: AtomicUsize,
    is_cut: AtomicBool,
}

/// What is still to go wrong.
enum Plan {
    Script(VecDeque<Option<Fault>>),
    Dice(Box<StdRng>, FaultRates),
}

impl FaultyStore {
    /// Breaks as the script says; when the script is over nothing breaks any more.
    pub fn scripted(
        inner: Arc<dyn Store>,
        script: impl IntoIterator<Item = Option<Fault>>,
    ) -> Self {
        FaultyStore::new(inner, Plan::Script(script.into_iter().collect()))
    }

    /// Breaks at random, the same way for the same seed and the same order of commits.
    pub fn seeded(inner: Arc<dyn Store>, seed: u64, rates: FaultRates) -> Self {
        let dice = Box::new(StdRng::seed_from_u64(seed));
        FaultyStore::new(inner, Plan::Dice(dice, rates))
    }

    fn new(inner: Arc<dyn Store>, plan: Plan) -> Self {
        FaultyStore {
            inner,
            plan: Mutex::new(plan),
            n_commits: AtomicUsize::new(0),
            n_reads: AtomicUsize::new(0),
            is_cut: AtomicBool::new(false),
        }
    }

    /// From now on nothing gets to the store any more, as from a process that was killed: what it was about
    /// to ask is never asked.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    fn check_cut(&self) -> Result<(), StoreError> {
        match self.is_cut.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable { detail: "the process is dead".to_owned() }),
            false => Ok(()),
        }
    }

    /// How many commits were asked for so far.
    pub fn n_commits(&self) -> usize {
        self.n_commits.load(Ordering::Relaxed)
    }

    /// How often something was read so far; several records at once count as one read.
    pub fn n_reads(&self) -> usize {
        self.n_reads.load(Ordering::Relaxed)
    }

    /// Adds to the end of a script; a store that breaks at random ignores it.
    pub fn then(&self, fault: Option<Fault>) {
        if let Plan::Script(script) = &mut *self.plan() {
            script.push_back(fault);
        }
    }

    fn next_fault(&self) -> Option<Fault> {
        self.n_commits.fetch_add(1, Ordering::Relaxed);
        self.plan().next_fault()
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn next_fault(&mut self) -> Option<Fault> {
        let (dice, rates) = match self {
            Plan::Script(script) => return script.pop_front().flatten(),
            Plan::Dice(dice, rates) => (dice, *rates),
        };
        let roll = dice.random_range(0..1_000);
        let part_of_delay = dice.random_range(0.0..=1.0);
        if roll < rates.fail_before {
            return Some(Fault::FailBefore(lost("a fault that was ordered")));
        }
        if roll < rates.fail_before + rates.delay {
            return Some(Fault::Delay(rates.max_delay.mul_f64(part_of_delay)));
        }
        if roll < rates.fail_before + rates.delay + rates.lose_reply {
            return Some(Fault::LoseReply);
        }
        None
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultyStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.check_cut()?;
        self.n_reads.fetch_add(1, Ordering::Relaxed);
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.check_cut()?;
        self.n_reads.fetch_add(1, Ordering::Relaxed);
        self.inner.get_many(keys).await
    }

    fn recall(&self, key: &Key) -> Option<Bytes> {
        self.inner.recall(key)
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.check_cut()?;
        self.n_reads.fetch_add(1, Ordering::Relaxed);
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let fault = self.next_fault();
        self.check_cut()?;
        match fault {
            None => self.inner.commit(batch).await,
            Some(Fault::FailBefore(error)) => Err(error),
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                self.check_cut()?;
                self.inner.commit(batch).await
            }
            Some(Fault::LoseReply) => {
                self.inner.commit(batch).await?;
                Err(lost("the reply was lost"))
            }
        }
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }

    fn changes(&self, kind: KeyKind) -> Changes {
        self.inner.changes(kind)
    }

    fn lead(&self, job: Job) -> Leadership {
        self.inner.lead(job)
    }

    fn snapshot(&self) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
        self.inner.snapshot()
    }
}

fn lost(detail: &str) -> CommitError {
    CommitError::Unavailable { detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn put(name: &str) -> (Key, Batch) {
        let key = Key::new(KeyKind::Seen, &[name.as_bytes()]);
        let mut batch = Batch::new();
        batch.put(key.clone(), Bytes::from_static(b"x"));
        (key, batch)
    }

    #[tokio::test(start_paused = true)]
    async fn a_script_is_followed_and_then_nothing_breaks() {
        let script = [
            Some(Fault::FailBefore(CommitError::Full { detail: "ordered".to_owned() })),
            None,
            Some(Fault::LoseReply),
            Some(Fault::Delay(Duration::from_secs(9))),
        ];
        let store = FaultyStore::scripted(Arc::new(MemoryStore::new()), script);
        let started = tokio::time::Instant::now();
        for (name, is_acknowledged, is_there) in [
            ("a", false, false),
            ("b", true, true),
            ("c", false, true),
            ("d", true, true),
            ("e", true, true),
        ] {
            let (key, batch) = put(name);
            assert_eq!(store.commit(batch).await.is_ok(), is_acknowledged, "{name}");
            assert_eq!(store.get(&key).await.unwrap().is_some(), is_there, "{name}");
        }
        assert_eq!(started.elapsed(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_breaks_the_same_commits() {
        let rates = FaultRates {
            fail_before: 100,
            delay: 100,
            max_delay: Duration::from_secs(1),
            lose_reply: 100,
        };
        let mut runs = Vec::new();
        for seed in [7, 7, 8] {
            let store = FaultyStore::seeded(Arc::new(MemoryStore::new()), seed, rates);
            let mut outcomes = Vec::new();
            for number in 0..200 {
                let (key, batch) = put(&number.to_string());
                let is_acknowledged = store.commit(batch).await.is_ok();
                outcomes.push((is_acknowledged, store.get(&key).await.unwrap().is_some()));
            }
            assert!(outcomes.contains(&(false, false)) && outcomes.contains(&(false, true)));
            runs.push(outcomes);
        }
        assert_eq!(runs[0], runs[1]);
        assert_ne!(runs[0], runs[2]);
    }
}
