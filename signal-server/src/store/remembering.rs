//! A store that remembers, around one that is far away.
//!
//! What a signal is decided from, its account, its container and the head of its mailbox, hardly ever changes
//! behind the relay's back: most changes go through the relay itself. So the relay keeps what it last saw or
//! wrote, and offers it by [`Store::recall`]. Whoever decides something from it has the commit expect just that,
//! and asks the store if it does not hold; reads still ask the store always.
//!
//! What is remembered may be wrong, and nothing is done to keep it right: what other relays change is not
//! followed, and of two commits that end at the same moment the earlier one may be remembered. A conflict makes
//! the store forget what was expected.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::sharing::{Changes, Job, Leadership};
use crate::store::snapshot::Snapshot;
use crate::store::{Batch, CommitError, Expect, Key, KeyKind, Operation, Store, StoreError};

/// Spreads records over several locks; a power of two some way above the number of cores.
const N_SHARDS: usize = 64;

/// How many records one shard remembers; a full one is emptied. With all shards full of records of 300 bytes,
/// some 10 MiB; of the largest ones, 128 MiB.
const MAX_SHARD_RECORDS: usize = 512;

/// A larger record is not remembered: a handle may come with 16 KiB of its owner's. Others are far smaller.
const MAX_RECORD_BYTES: usize = 4 << 10;

/// See the module's own words.
pub struct RememberingStore {
    inner: Arc<dyn Store>,
    shards: Vec<Mutex<HashMap<Key, Bytes>>>,
    hasher: RandomState,
}

impl RememberingStore {
    /// Remembers nothing yet.
    pub fn new(inner: Arc<dyn Store>) -> RememberingStore {
        RememberingStore {
            inner,
            shards: std::iter::repeat_with(Mutex::default).take(N_SHARDS).collect(),
            hasher: RandomState::new(),
        }
    }

    fn note(&self, key: &Key, value: Option<&Bytes>) {
        if !key.kind().is_hot() {
            return;
        }
        let mut shard = self.shard(key);
        let Some(value) = value.filter(|value| value.len() <= MAX_RECORD_BYTES) else {
            shard.remove(key);
            return;
        };
        if shard.len() >= MAX_SHARD_RECORDS && !shard.contains_key(key) {
            shard.clear();
        }
        // A copy of its own: what was read is a part of the buffer that the whole answer came in.
        shard.insert(key.clone(), Bytes::copy_from_slice(value));
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Bytes>> {
        let index = self.hasher.hash_one(key) as usize % N_SHARDS;
        // A panic cannot leave a map half changed.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows no record: accounts and containers hold keys.
impl fmt::Debug for RememberingStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RememberingStore")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RememberingStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let value = self.inner.get(key).await?;
        self.note(key, value.as_ref());
        Ok(value)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let values = self.inner.get_many(keys).await?;
        for (key, value) in keys.iter().zip(&values) {
            self.note(key, value.as_ref());
        }
        Ok(values)
    }

    fn recall(&self, key: &Key) -> Option<Bytes> {
        self.shard(key).get(key).cloned()
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let is_hot = |key: &Key| key.kind().is_hot();
        let expected: Vec<Key> = batch
            .expectations()
            .iter()
            .map(Expect::key)
            .filter(|key| is_hot(key))
            .cloned()
            .collect();
        let operations: Vec<Operation> =
            batch.operations().iter().filter(|change| is_hot(change.key())).cloned().collect();
        let outcome = self.inner.commit(batch).await;
        match &outcome {
            Ok(()) => {
                for operation in &operations {
                    match operation {
                        Operation::Put(key, value) => self.note(key, Some(value)),
                        Operation::Delete(key) => self.note(key, None),
                    }
                }
            }
            // Whoever comes next asks.
            Err(_) => expected.iter().for_each(|key| self.note(key, None)),
        }
        outcome
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn key(name: &str) -> Key {
        Key::new(KeyKind::Mailbox, &[name.as_bytes()])
    }

    async fn put(store: &dyn Store, key: &Key, value: &'static str) {
        let mut batch = Batch::new();
        batch.put(key.clone(), Bytes::from(value));
        store.commit(batch).await.expect("a commit");
    }

    /// Two relays on one store, and what the first one recalls of `key`.
    struct Relays {
        shared: Arc<MemoryStore>,
        store: RememberingStore,
    }

    impl Relays {
        fn new() -> Relays {
            let shared = Arc::new(MemoryStore::new());
            Relays { store: RememberingStore::new(shared.clone()), shared }
        }

        fn check(&self, key: &Key, expect: Option<&'static str>) {
            assert_eq!(self.store.recall(key), expect.map(Bytes::from));
        }
    }

    #[tokio::test]
    async fn what_was_seen_or_written_is_recalled_until_a_commit_fails() {
        let (relays, key) = (Relays::new(), key("a"));
        relays.check(&key, None);
        put(&relays.store, &key, "1").await;
        relays.check(&key, Some("1"));
        put(&*relays.shared, &key, "2").await;
        relays.check(&key, Some("1"));
        let mut batch = Batch::new();
        batch.expect(Expect::Value(key.clone(), Bytes::from("1")));
        assert!(relays.store.commit(batch).await.is_err());
        relays.check(&key, None);
        let read = relays.store.get_many(std::slice::from_ref(&key)).await.expect("a read");
        assert_eq!(read, [Some(Bytes::from("2"))]);
        relays.check(&key, Some("2"));
        let mut batch = Batch::new();
        batch.delete(key.clone());
        relays.store.commit(batch).await.expect("a commit");
        relays.check(&key, None);
    }

    #[tokio::test]
    async fn what_another_relay_removed_is_forgotten_with_the_next_look() {
        let (relays, key) = (Relays::new(), key("a"));
        put(&relays.store, &key, "1").await;
        let mut batch = Batch::new();
        batch.delete(key.clone());
        relays.shared.commit(batch).await.expect("a commit");
        relays.check(&key, Some("1"));
        assert_eq!(relays.store.get(&key).await, Ok(None));
        relays.check(&key, None);
    }

    #[tokio::test]
    async fn there_is_a_bound_and_signals_are_not_remembered() {
        let relays = Relays::new();
        for n in 0..2 * N_SHARDS * MAX_SHARD_RECORDS {
            relays.store.note(&key(&n.to_string()), Some(&Bytes::new()));
        }
        let lengths = relays.store.shards.iter().map(|shard| shard.lock().expect("a shard").len());
        assert!(lengths.max() <= Some(MAX_SHARD_RECORDS));
        for (n_bytes, is_remembered) in [(MAX_RECORD_BYTES, true), (MAX_RECORD_BYTES + 1, false)] {
            relays.store.note(&key("large"), Some(&vec![0; n_bytes].into()));
            assert_eq!(relays.store.recall(&key("large")).is_some(), is_remembered, "{n_bytes}");
        }
        let signal = Key::new(KeyKind::Signal, &[b"s"]);
        put(&relays.store, &signal, "1").await;
        relays.check(&signal, None);
    }
}
