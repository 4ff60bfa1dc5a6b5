//! The store of a relay on etcd: the relay's own code down to the messages that it sends, and an etcd in memory
//! that answers them.
//!
//! Whatever it says is compared with what that etcd has. A read has to show a moment between its question and its
//! answer, a scan one moment in all its records. A commit that was acknowledged was made, as a whole and when all
//! that it expected was so; after a conflict something was not so, and nothing was made.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::etcd::EtcdStore;
use crate::store::etcd::model::line::Line;
use crate::store::etcd::model::{Cluster, PREFIX, name};
use crate::store::sharing::{Changes, Job, Leadership};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind, Operation, Store, StoreError};
use crate::tests::histories::model::{Rule, Violation};
use crate::tests::histories::store::{Hub, Member};

/// A relay's store.
pub(super) struct EtcdMember {
    store: EtcdStore,
    cluster: Arc<Cluster>,
    /// Which relay it is, for the cluster.
    number: u64,
    hub: Arc<Hub>,
    /// What a relay is told by etcd.
    member: Member,
    /// What is written by commits of which nobody knows whether they were made, or will be.
    unknown: Mutex<Vec<Vec<Operation>>>,
}

/// All records as they are, without asking anybody.
#[derive(Debug)]
pub(super) struct Records(pub(super) Arc<Cluster>);

/// What was asked for, and when.
struct Asked {
    since: i64,
    expectations: Vec<Expect>,
    operations: Vec<Operation>,
}

impl EtcdMember {
    pub(super) fn new(line: Line, hub: &Arc<Hub>, member: Member) -> EtcdMember {
        let (cluster, number) = (Arc::clone(&line.cluster), line.number);
        let (store, hub) = (EtcdStore::by(line), Arc::clone(hub));
        EtcdMember { store, cluster, number, hub, member, unknown: Mutex::default() }
    }

    /// Whether some moment since then is as wanted.
    fn was_ever(&self, since: i64, is_wanted: impl FnMut(i64) -> bool) -> bool {
        (since..=self.cluster.now()).any(is_wanted)
    }

    fn check_found(&self, since: i64, keys: &[Key], found: &[Option<Bytes>]) {
        let is_right = |(key, value): (&Key, &Option<Bytes>)| {
            let name = name(key.as_bytes());
            self.was_ever(since, |moment| self.cluster.value_at(&name, moment) == *value)
        };
        if found.len() != keys.len() || !keys.iter().zip(found).all(is_right) {
            self.hub.report(Violation::of(Rule::Store, format!("{keys:?} were never so")));
        }
    }

    fn check_scanned(
        &self,
        since: i64,
        (prefix, after): (&Key, Option<&Key>),
        limit: usize,
        found: &[(Key, Bytes)],
    ) {
        let is_right = |moment| {
            let expect = scan(&self.cluster, prefix, after, limit, moment);
            expect == found
        };
        if !self.was_ever(since, is_right) {
            let text = format!("{} records of {prefix:?} were never all there", found.len());
            self.hub.report(Violation::of(Rule::Store, text));
        }
    }

    fn check_committed(&self, asked: &Asked, outcome: &Result<(), CommitError>) {
        let wrong = match outcome {
            Err(CommitError::Unavailable { .. }) => {
                return self.unknown().push(asked.operations.clone());
            }
            Ok(()) if !self.was_made(asked) => "a commit was acknowledged and not made",
            Err(CommitError::Conflict { .. }) if !self.was_in_conflict(asked) => {
                "a commit was refused without a conflict"
            }
            Err(CommitError::Conflict { .. } | CommitError::Overloaded)
                if self.was_written(asked) =>
            {
                "a commit was refused and made"
            }
            _ => return,
        };
        self.hub.report(Violation::of(Rule::Store, wrong));
    }

    fn was_made(&self, asked: &Asked) -> bool {
        self.was_ever(asked.since, |moment| {
            let is_after = asked.operations.iter().all(|change| {
                // The last change of a key is the one that counts.
                let later = asked.operations.iter().rev().find(|one| one.key() == change.key());
                let present = self.cluster.value_at(&name(change.key().as_bytes()), moment);
                match later.unwrap_or(change) {
                    Operation::Put(_, value) => present.as_ref() == Some(value),
                    Operation::Delete(_) => present.is_none(),
                }
            });
            // A change is one step; what changes nothing is none.
            let before = [moment - 1, moment];
            is_after && before.into_iter().any(|moment| self.broken(asked, moment).is_none())
        })
    }

    fn was_in_conflict(&self, asked: &Asked) -> bool {
        self.was_ever(asked.since, |moment| self.broken(asked, moment).is_some())
    }

    fn broken<'a>(&self, asked: &'a Asked, moment: i64) -> Option<&'a Expect> {
        asked.expectations.iter().find(|expected| {
            let present = self.cluster.value_at(&name(expected.key().as_bytes()), moment);
            !expected.holds(present.as_deref())
        })
    }

    fn unknown(&self) -> MutexGuard<'_, Vec<Vec<Operation>>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this relay has written all of it, and not by an earlier try that came late.
    fn was_written(&self, asked: &Asked) -> bool {
        if self.unknown().contains(&asked.operations) {
            return false;
        }
        let puts: Vec<(Bytes, &Bytes)> = asked
            .operations
            .iter()
            .filter_map(|change| match change {
                Operation::Put(key, value) => Some((name(key.as_bytes()), value)),
                Operation::Delete(_) => None,
            })
            .collect();
        let changes = self.cluster.changes_by(self.number, asked.since);
        let is_written = |(key, value): &(Bytes, &Bytes)| {
            changes
                .iter()
                .any(|revision| revision.changes.get(key) == Some(&Some((*value).clone())))
        };
        !puts.is_empty() && puts.iter().all(is_written)
    }
}

/// What a scan shows at a moment.
fn scan(
    cluster: &Cluster,
    prefix: &Key,
    after: Option<&Key>,
    limit: usize,
    moment: i64,
) -> Vec<(Key, Bytes)> {
    let first = name(prefix.as_bytes());
    let start = match after {
        Some(after) if after >= prefix => name(&[after.as_bytes(), &[0]].concat()),
        _ => first.clone(),
    };
    let records = cluster.records_at(&start, &first, limit, moment);
    let key = |name: &Bytes| Key::from_bytes(name.slice(PREFIX.len()..));
    records.into_iter().filter_map(|(name, value)| Some((key(&name)?, value))).collect()
}

impl fmt::Debug for EtcdMember {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EtcdMember").field("number", &self.number).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EtcdMember {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let since = self.cluster.now();
        let found = self.store.get(key).await?;
        self.check_found(since, std::slice::from_ref(key), std::slice::from_ref(&found));
        Ok(found)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let since = self.cluster.now();
        let found = self.store.get_many(keys).await?;
        self.check_found(since, keys, &found);
        Ok(found)
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let since = self.cluster.now();
        let found = self.store.scan(prefix, after, limit).await?;
        self.check_scanned(since, (prefix, after), limit, &found);
        Ok(found)
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.member.die_perhaps()?;
        let (since, expectations) = (self.cluster.now(), batch.expectations().to_vec());
        let asked = Asked { since, expectations, operations: batch.operations().to_vec() };
        let outcome = self.store.commit(batch).await;
        self.check_committed(&asked, &outcome);
        self.member.die_perhaps()?;
        outcome
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.member.ready().await
    }

    fn changes(&self, kind: KeyKind) -> Changes {
        self.member.changes(kind)
    }

    fn lead(&self, job: Job) -> Leadership {
        self.member.lead(job)
    }
}

#[async_trait]
impl Store for Records {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.value_at(&name(key.as_bytes()), self.0.now()))
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        Ok(scan(&self.0, prefix, after, limit, self.0.now()))
    }

    async fn commit(&self, _batch: Batch) -> Result<(), CommitError> {
        Err(CommitError::Overloaded)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
