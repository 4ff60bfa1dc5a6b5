//! Faults of the relay's own, planted around its store and its way to Heat: each is one that a careless change
//! could bring, and each has to be found by the model.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use crate::forward::record::EntryRecord;
use crate::forward::upstream::{Attempt, Upstream};
use crate::mailbox::limits::MAX_INLINE_BODY_BYTES;
use crate::store::etcd::model::line::Bend;
use crate::store::sharing::{Changes, Job, Leadership};
use crate::store::{Batch, CommitError, Key, KeyKind, Operation, Store, StoreError};
use crate::tests::histories::heat::Line;
use crate::tests::histories::model::Rule;

/// What the relay does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// It acknowledges what it is about to write.
    AcknowledgesFirst,
    /// It does not write down which ids it has had.
    ForgetsIds,
    /// It writes although somebody else was first.
    OverwritesOthers,
    /// When it removes a signal, the one behind it goes as well.
    RemovesUnread,
    /// It acknowledges a signal for Heat and keeps it in memory.
    KeepsForwardsInMemory,
    /// It writes down that Heat has a signal before that is sent.
    RecordsDeliveryFirst,
    /// It does not write down that Heat has a signal.
    RecordsNoDelivery,
    /// It gives up when Heat does not take a signal at once.
    TriesOnce,
    /// It sends signals without an id as they came.
    GivesNoIds,
    /// It does not hear what others write for Heat.
    HearsNothing,
    /// It removes a container that looked empty, whatever came meanwhile.
    RemovesBlindly,
    /// It does not write down what is to be removed with a container or a handle.
    LeavesGarbage,
    /// It takes what it remembers of accounts and containers for what they are.
    BelievesMemory,
    /// It thinks that a signal is old after half its time.
    SweepsEarly,
    /// It keeps of a large body what would stand in a record.
    CutsLargeBodies,
    /// It removes signals without their large bodies.
    LeavesLargeBodies,
    /// What it asks of etcd, or makes of the answers.
    Bends(Bend),
}

impl Planted {
    pub(super) const ALL: [Planted; 22] = [
        Planted::AcknowledgesFirst,
        Planted::ForgetsIds,
        Planted::OverwritesOthers,
        Planted::RemovesUnread,
        Planted::KeepsForwardsInMemory,
        Planted::RecordsDeliveryFirst,
        Planted::RecordsNoDelivery,
        Planted::TriesOnce,
        Planted::GivesNoIds,
        Planted::HearsNothing,
        Planted::RemovesBlindly,
        Planted::LeavesGarbage,
        Planted::BelievesMemory,
        Planted::SweepsEarly,
        Planted::CutsLargeBodies,
        Planted::LeavesLargeBodies,
        Planted::Bends(Bend::ForgetsCompares),
        Planted::Bends(Bend::MixesCommits),
        Planted::Bends(Bend::MixesReads),
        Planted::Bends(Bend::RepeatsCommits),
        Planted::Bends(Bend::ReadsPagesApart),
        Planted::Bends(Bend::EndsScansEarly),
    ];

    pub(super) fn bend(self) -> Option<Bend> {
        match self {
            Planted::Bends(bend) => Some(bend),
            _ => None,
        }
    }

    /// Whether this is a promise that such a relay breaks.
    pub(super) fn breaks(self, rule: Rule) -> bool {
        match self {
            Planted::AcknowledgesFirst => matches!(rule, Rule::Durable | Rule::Answers),
            Planted::ForgetsIds => rule == Rule::Once,
            Planted::OverwritesOthers => matches!(rule, Rule::Durable | Rule::Unread | Rule::Once),
            Planted::RemovesUnread => matches!(rule, Rule::Durable | Rule::Unread),
            Planted::KeepsForwardsInMemory => matches!(rule, Rule::Durable),
            Planted::RecordsDeliveryFirst | Planted::TriesOnce => rule == Rule::Durable,
            Planted::RecordsNoDelivery | Planted::HearsNothing => rule == Rule::Ends,
            // Heat counts it twice, or has it under another id.
            Planted::GivesNoIds => matches!(rule, Rule::Once | Rule::Durable),
            Planted::RemovesBlindly => matches!(rule, Rule::Durable | Rule::Unread),
            Planted::LeavesGarbage | Planted::LeavesLargeBodies => rule == Rule::Clean,
            Planted::BelievesMemory => rule == Rule::Keys,
            Planted::SweepsEarly => matches!(rule, Rule::Unread | Rule::Durable),
            Planted::Bends(_) => rule == Rule::Store,
            Planted::CutsLargeBodies => matches!(rule, Rule::Durable | Rule::Unread),
        }
    }
}

/// A relay's store, with what the relay does wrong.
#[derive(Debug)]
pub(super) struct PlantedStore {
    inner: Arc<dyn Store>,
    planted: Planted,
}

impl PlantedStore {
    pub(super) fn new(inner: Arc<dyn Store>, planted: Planted) -> PlantedStore {
        PlantedStore { inner, planted }
    }

    /// What becomes of one change.
    async fn bend(&self, operation: Operation) -> Result<Vec<Operation>, StoreError> {
        let kind = operation.key().kind();
        match (&operation, self.planted) {
            (Operation::Put(..), Planted::ForgetsIds) if kind == KeyKind::Seen => Ok(Vec::new()),
            (Operation::Put(..), Planted::KeepsForwardsInMemory) if kind == KeyKind::Forward => {
                Ok(Vec::new())
            }
            (Operation::Put(..), Planted::LeavesGarbage) if kind == KeyKind::Garbage => {
                Ok(Vec::new())
            }
            (Operation::Put(key, body), Planted::CutsLargeBodies)
                if kind == KeyKind::SignalBody =>
            {
                Ok(vec![Operation::Put(key.clone(), body.slice(..MAX_INLINE_BODY_BYTES))])
            }
            (Operation::Delete(key), Planted::RemovesUnread) if kind == KeyKind::Signal => {
                // A signal's number is the end of its key.
                let length = key.as_bytes().len() - size_of::<u64>();
                let mailbox = Key::from_bytes(Bytes::copy_from_slice(&key.as_bytes()[..length]));
                let Some(mailbox) = mailbox else { return Ok(vec![operation]) };
                let next = self.inner.scan(&mailbox, Some(key), 1).await?.pop();
                let next = next.map(|(next, _)| Operation::Delete(next));
                Ok([Some(operation), next].into_iter().flatten().collect())
            }
            _ => Ok(vec![operation]),
        }
    }
}

#[async_trait]
impl Store for PlantedStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let is_believed = matches!(key.kind(), KeyKind::Account | KeyKind::Container);
        match self.inner.recall(key) {
            Some(known) if is_believed && self.planted == Planted::BelievesMemory => {
                Ok(Some(known))
            }
            _ => self.inner.get(key).await,
        }
    }

    fn recall(&self, key: &Key) -> Option<Bytes> {
        self.inner.recall(key)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        if self.planted != Planted::BelievesMemory {
            return self.inner.get_many(keys).await;
        }
        try_join_all(keys.iter().map(|key| self.get(key))).await
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
        let is_outcome = |operation: &Operation| operation.key().kind() == KeyKind::ForwardOutcome;
        if self.planted == Planted::RecordsNoDelivery && batch.operations().iter().any(is_outcome) {
            return Ok(());
        }
        let (mut expectations, mut operations) = batch.into_parts();
        let removes = |kind: KeyKind, operations: &[Operation]| {
            let is_removal =
                |change: &Operation| matches!(change, Operation::Delete(key) if key.kind() == kind);
            operations.iter().any(is_removal)
        };
        match self.planted {
            Planted::OverwritesOthers => expectations.clear(),
            Planted::RemovesBlindly if removes(KeyKind::Container, &operations) => {
                expectations.retain(|expected| expected.key().kind() != KeyKind::Container);
            }
            // Those that are garbage go later, with all that is.
            Planted::LeavesLargeBodies if removes(KeyKind::Signal, &operations) => {
                operations.retain(|change| change.key().kind() != KeyKind::SignalBody);
            }
            _ => {}
        }
        let mut bent = Batch::new();
        expectations.into_iter().for_each(|expectation| bent.expect(expectation));
        for operation in operations {
            for operation in self.bend(operation).await? {
                match operation {
                    Operation::Put(key, value) => bent.put(key, value),
                    Operation::Delete(key) => bent.delete(key),
                }
            }
        }
        if self.planted == Planted::AcknowledgesFirst {
            let inner = self.inner.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(1)).await;
                let _nobody_looks = inner.commit(bent).await;
            });
            return Ok(());
        }
        self.inner.commit(bent).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }

    fn changes(&self, kind: KeyKind) -> Changes {
        match self.planted == Planted::HearsNothing {
            true => Changes::none(),
            false => self.inner.changes(kind),
        }
    }

    fn lead(&self, job: Job) -> Leadership {
        self.inner.lead(job)
    }
}

/// A relay's way to Heat, with what the relay does wrong.
#[derive(Debug)]
pub(super) struct PlantedLine {
    pub(super) inner: Line,
    pub(super) planted: Option<Planted>,
}

#[async_trait]
impl Upstream for PlantedLine {
    fn has_api(&self) -> bool {
        self.inner.has_api()
    }

    fn takes_path(&self, path_and_query: &str) -> bool {
        self.inner.takes_path(path_and_query)
    }

    async fn send(&self, entry: &EntryRecord, body: &Bytes) -> Attempt {
        let delivered = || Attempt::Delivered("perhaps".to_owned());
        // It dies, or is not heard, in one of four cases.
        let is_skipped = body.len().is_multiple_of(4);
        if self.planted == Some(Planted::RecordsDeliveryFirst) && is_skipped {
            return delivered();
        }
        match self.inner.send(entry, body).await {
            Attempt::TryAgain(..) if self.planted == Some(Planted::TriesOnce) => delivered(),
            attempt => attempt,
        }
    }
}
