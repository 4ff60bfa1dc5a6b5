//! Moves everything from one store to another, and makes sure that it arrived.
//!
//! Both stores are walked side by side, kind by kind, in the order of their keys; a record that the second
//! one lacks is written there. Nobody else may change either meanwhile: a relay that runs on one of them is
//! stopped first.
//!
//! **Resumed.** What arrived before an interruption is found there and only compared, so whoever is
//! interrupted simply begins again. No note of how far it got is kept that could be wrong.
//!
//! **Verified.** At the end both stores are read once more from the beginning, and their digests have to be
//! the same: the SHA-256 of all records in order, each as the lengths of key and value (eight bytes each,
//! little end first), the key, and the value. It depends on the records only, so that the digest of a store
//! here can be compared with one elsewhere.
//!
//! **Nothing is lost by it.** A record in the second store that the first one does not have, or has with
//! another value, stops the migration, unless it is told to make the two the same.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::store::{
    Batch, CommitError, Key, KeyKind, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, Store, StoreError,
};

/// How many records are read at a time. Few enough that the largest ones fit into memory.
const PAGE: usize = 100;

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    pub n_records: u64,
    pub digest: [u8; 32],
}

/// How far a migration is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records that were written.
    pub n_copied: u64,
    /// Records that were there already.
    pub n_present: u64,
    /// Records that the first store does not have, and that were removed.
    pub n_removed: u64,
}

/// What to do about records of the second store that are not those of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    Refuse,
    Overwrite,
}

/// Why a migration did not come to its end. It may be begun again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MigrateError {
    #[error("failed to read from the store {side}")]
    Read { side: Side, source: StoreError },
    #[error("failed to write to the second store")]
    Write { source: CommitError },
    #[error("the second store has a {kind} record that the first one does not have, or not so")]
    Foreign { kind: KeyKind },
    #[error("the stores are not the same afterwards: {from} in the first one, {to} in the second")]
    Differ { from: Contents, to: Contents },
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    First,
    Second,
}

/// Moves everything, calls `told` whenever some more has arrived, and gives what both stores hold then.
pub async fn migrate(
    from: &dyn Store,
    to: &dyn Store,
    foreign: Foreign,
    mut told: impl FnMut(Progress),
) -> Result<(Progress, Contents), MigrateError> {
    let mut progress = Progress::default();
    for kind in KeyKind::ALL {
        let walk = Walk {
            from: Records::new(from, *kind, Side::First),
            to: Records::new(to, *kind, Side::Second),
            foreign,
        };
        walk.run(&mut progress, &mut told).await?;
    }
    let (from, to) = (contents(from, Side::First).await?, contents(to, Side::Second).await?);
    if from != to {
        return Err(MigrateError::Differ { from, to });
    }
    Ok((progress, to))
}

/// Reads everything in a store.
pub(crate) async fn contents(store: &dyn Store, side: Side) -> Result<Contents, MigrateError> {
    let mut tally = Tally::default();
    for kind in ordered_kinds() {
        let mut records = Records::new(store, kind, side);
        while let Some((key, value)) = records.take().await? {
            tally.add(&key, &value);
        }
    }
    Ok(tally.contents())
}

/// The kinds of record in the order of their keys.
pub(crate) fn ordered_kinds() -> Vec<KeyKind> {
    let mut kinds = KeyKind::ALL.to_vec();
    kinds.sort_unstable_by_key(|kind| *kind as u8);
    kinds
}

/// Counts and digests records that are given in order.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    n_records: u64,
    hash: Sha256,
}

impl Tally {
    pub(crate) fn add(&mut self, key: &Key, value: &[u8]) {
        self.hash.update((key.as_bytes().len() as u64).to_le_bytes());
        self.hash.update((value.len() as u64).to_le_bytes());
        self.hash.update(key.as_bytes());
        self.hash.update(value);
        self.n_records += 1;
    }

    pub(crate) fn contents(self) -> Contents {
        Contents { n_records: self.n_records, digest: self.hash.finalize().into() }
    }
}

/// The records of one kind, in order, one at a time.
struct Records<'a> {
    store: &'a dyn Store,
    side: Side,
    prefix: Key,
    after: Option<Key>,
    page: VecDeque<(Key, Bytes)>,
    is_last_page: bool,
}

impl<'a> Records<'a> {
    fn new(store: &'a dyn Store, kind: KeyKind, side: Side) -> Self {
        let (prefix, page) = (Key::new(kind, &[]), VecDeque::new());
        Records { store, side, prefix, after: None, page, is_last_page: false }
    }

    /// The next record, which stays.
    async fn peek(&mut self) -> Result<Option<&(Key, Bytes)>, MigrateError> {
        if self.page.is_empty() && !self.is_last_page {
            let side = self.side;
            let page = self.store.scan(&self.prefix, self.after.as_ref(), PAGE).await;
            let page = page.map_err(|source| MigrateError::Read { side, source })?;
            self.is_last_page = page.len() < PAGE;
            self.after = page.last().map(|(key, _)| key.clone());
            self.page = page.into();
        }
        Ok(self.page.front())
    }

    async fn take(&mut self) -> Result<Option<(Key, Bytes)>, MigrateError> {
        self.peek().await?;
        Ok(self.page.pop_front())
    }
}

/// Two stores side by side.
struct Walk<'a> {
    from: Records<'a>,
    to: Records<'a>,
    foreign: Foreign,
}

/// What to do next.
enum Step {
    Skip,
    Write,
    Replace,
    Remove,
    End,
}

impl Walk<'_> {
    async fn run(
        mut self,
        progress: &mut Progress,
        told: &mut impl FnMut(Progress),
    ) -> Result<(), MigrateError> {
        let mut batch = Batch::new();
        loop {
            let step = self.step().await?;
            let is_foreign = matches!(step, Step::Replace | Step::Remove);
            if is_foreign && self.foreign == Foreign::Refuse {
                return Err(MigrateError::Foreign { kind: self.from.prefix.kind() });
            }
            match step {
                Step::End => break,
                Step::Skip => {
                    self.from.take().await?;
                    self.to.take().await?;
                    progress.n_present += 1;
                    continue;
                }
                Step::Remove => {
                    if let Some((key, _)) = self.to.take().await? {
                        self.commit_if_full(&mut batch, key.as_bytes().len()).await?;
                        batch.delete(key);
                        progress.n_removed += 1;
                    }
                }
                Step::Write | Step::Replace => {
                    if matches!(step, Step::Replace) {
                        self.to.take().await?;
                    }
                    if let Some((key, value)) = self.from.take().await? {
                        let n_bytes = key.as_bytes().len() + value.len();
                        if self.commit_if_full(&mut batch, n_bytes).await? {
                            told(*progress);
                        }
                        batch.put(key, value);
                        progress.n_copied += 1;
                    }
                }
            }
        }
        if batch.n_operations() > 0 {
            self.commit(batch).await?;
            told(*progress);
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<Step, MigrateError> {
        let from = self.from.peek().await?;
        let to = self.to.peek().await?;
        Ok(match (from, to) {
            (None, None) => Step::End,
            (Some(_), None) => Step::Write,
            (None, Some(_)) => Step::Remove,
            (Some((wanted, _)), Some((present, _))) if wanted < present => Step::Write,
            (Some((wanted, _)), Some((present, _))) if wanted > present => Step::Remove,
            (Some((_, wanted)), Some((_, present))) if wanted == present => Step::Skip,
            (Some(_), Some(_)) => Step::Replace,
        })
    }

    /// Makes room for one more operation of this size. Whether a commit was needed for it.
    async fn commit_if_full(
        &self,
        batch: &mut Batch,
        n_bytes: usize,
    ) -> Result<bool, MigrateError> {
        let has_room = batch.n_operations() < MAX_BATCH_OPERATIONS
            && batch.n_bytes() + n_bytes <= MAX_BATCH_BYTES;
        if has_room {
            return Ok(false);
        }
        self.commit(std::mem::take(batch)).await?;
        Ok(true)
    }

    async fn commit(&self, batch: Batch) -> Result<(), MigrateError> {
        self.to.store.commit(batch).await.map_err(|source| MigrateError::Write { source })
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} records, sha256 {}", self.n_records, hex::encode(self.digest))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Side::First => "that is read",
            Side::Second => "that is written",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::etcd::EtcdStore;
    use crate::store::etcd::tests::fresh;
    use crate::store::faulty::{Fault, FaultyStore};
    use crate::store::memory::MemoryStore;

    async fn put(store: &dyn Store, kind: KeyKind, name: &str, value: &[u8]) {
        let mut batch = Batch::new();
        batch.put(Key::new(kind, &[name.as_bytes()]), Bytes::copy_from_slice(value));
        store.commit(batch).await.expect("a commit");
    }

    /// Records of every kind, more than a page of one, and some large ones.
    async fn filled() -> MemoryStore {
        let store = MemoryStore::new();
        for kind in KeyKind::ALL {
            put(&store, *kind, "one", b"x").await;
        }
        for number in 0..PAGE * 3 {
            put(&store, KeyKind::Signal, &format!("{number:04}"), b"signal").await;
        }
        for number in 0..4 {
            put(&store, KeyKind::SignalBody, &format!("{number}"), &vec![b'x'; 600_000]).await;
        }
        store
    }

    #[tokio::test]
    async fn everything_arrives_in_every_kind_of_store_and_comes_back() {
        let from = filled().await;
        let directory = tempfile::tempdir().expect("a directory");
        let embedded = EmbeddedStore::open(directory.path()).expect("a store");
        let etcd = EtcdStore::new(&fresh()).expect("a store");
        let back = MemoryStore::new();
        let steps: [(&dyn Store, &dyn Store); 3] =
            [(&from, &embedded), (&embedded, &etcd), (&etcd, &back)];
        let expect = contents(&from, Side::First).await.expect("contents");
        assert_eq!(expect.n_records, from.len() as u64);
        for (from, to) in steps {
            let moved = migrate(from, to, Foreign::Refuse, |_| {}).await;
            let (progress, seen) = moved.expect("a migration");
            assert_eq!(seen, expect);
            assert_eq!((progress.n_copied, progress.n_present), (expect.n_records, 0));
        }
    }

    #[tokio::test]
    async fn whoever_is_interrupted_begins_again() {
        let from = filled().await;
        let to: Arc<MemoryStore> = Arc::new(MemoryStore::new());
        let lost = || CommitError::Unavailable { detail: "ordered".to_owned() };
        let script = [None, None, None, Some(Fault::LoseReply), Some(Fault::FailBefore(lost()))];
        let broken = FaultyStore::scripted(to.clone(), script);
        for _ in 0..2 {
            let interrupted = migrate(&from, &broken, Foreign::Refuse, |_| {}).await;
            assert!(matches!(interrupted, Err(MigrateError::Write { .. })));
        }
        assert!(!to.is_empty() && to.len() < from.len());
        let before = to.len() as u64;
        let (progress, _) =
            migrate(&from, &broken, Foreign::Refuse, |_| {}).await.expect("a migration");
        assert_eq!(progress.n_present, before);
        assert_eq!(progress.n_copied, from.len() as u64 - before);
    }

    #[tokio::test]
    async fn records_of_others_are_not_overwritten_unless_it_is_wanted() {
        let from = filled().await;
        for (name, value) in [("foreign", &b"x"[..]), ("0007", b"another value")] {
            let to = MemoryStore::new();
            put(&to, KeyKind::Signal, name, value).await;
            let refused = migrate(&from, &to, Foreign::Refuse, |_| {}).await;
            let expect = "the second store has a signal record that the first one does not have, \
                          or not so";
            assert_eq!(refused.map_err(|error| error.to_string()).err().as_deref(), Some(expect));
            let forced = migrate(&from, &to, Foreign::Overwrite, |_| {}).await;
            assert_eq!(forced.expect("a migration").1.n_records, from.len() as u64);
        }
    }
}
