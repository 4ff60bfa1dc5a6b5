//! A store in memory: the model that the other stores are compared with, and the store of unit tests.
//!
//! Nothing survives the process, so it must not be offered to an operator.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::snapshot::Snapshot;
use crate::store::{Batch, CommitError, Key, Operation, Store, StoreError};

/// See the module's own words.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<BTreeMap<Key, Bytes>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        MemoryStore::default()
    }

    /// How many records there are; lets a test show that nothing was left behind.
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        // No code below panics between two changes, so a poisoned map is still a whole one.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        Ok(self.records().get(key).cloned())
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Ok(self
            .records()
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        batch.check_size()?;
        let (expectations, operations) = batch.into_parts();
        let mut records = self.records();
        for expectation in &expectations {
            let present = records.get(expectation.key()).map(Bytes::as_ref);
            if !expectation.holds(present) {
                return Err(CommitError::Conflict { kind: expectation.key().kind() });
            }
        }
        for operation in operations {
            match operation {
                Operation::Put(key, value) => records.insert(key, value),
                Operation::Delete(key) => records.remove(&key),
            };
        }
        Ok(())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
        let copy = MemoryStore { records: Mutex::new(self.records().clone()) };
        Ok(Some(Box::new(copy)))
    }
}

#[async_trait]
impl Snapshot for MemoryStore {
    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        Store::scan(self, prefix, after, limit).await
    }
}
