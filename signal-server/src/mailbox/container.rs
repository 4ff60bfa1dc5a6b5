//! Containers: made, counted, listed, removed.

use std::sync::Arc;

use bytes::Bytes;
use signal_protocol::path::AccountName;

use crate::mailbox::account::put_account;
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::{
    MAX_COMMIT_ATTEMPTS, MAX_EXPECTED, MAX_EXPECTED_NAME_BYTES, MAX_LISTING_ENTRIES,
    MAX_VERSIONS_LOCATION_BYTES,
};
use crate::mailbox::record::{ContainerRecord, HeadRecord, Number, decode, decode_object, encode};
use crate::mailbox::{
    Container, ContainerAddress, ContainerEntry, ContainerUpdate, Creation, ListingQuery, Shared,
    SigningKeys, key,
};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind};

/// How many records are read at once when all of something is walked over.
pub(crate) const PAGE: usize = 1_000;

/// What lies in a container.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Pending signals and plain objects.
    pub(crate) n_objects: u64,
    pub(crate) n_bytes: u64,
    pub(crate) n_handles: u64,
}

impl Shared {
    pub(crate) async fn put_container(
        self: &Arc<Self>,
        address: &ContainerAddress,
        update: &ContainerUpdate,
    ) -> Result<Creation, MailboxError> {
        update.check()?;
        // Heat puts the container of a stack again for each handle; that writes nothing.
        if let Some((_, record)) = self.container_record(address).await?
            && record.with(update).is_none()
        {
            return Ok(Creation::Existed);
        }
        let (shared, address, update) = (Arc::clone(self), address.clone(), update.clone());
        self.in_turn(key::account(&address.account), async move {
            for _ in 0..MAX_COMMIT_ATTEMPTS {
                let (batch, creation) = match shared.container_record(&address).await? {
                    Some((bytes, record)) => match record.with(&update) {
                        Some(changed) => {
                            let creation = shared.creation_of(&record).await?;
                            (replace(&address, bytes, &changed), creation)
                        }
                        None => return Ok(Creation::Existed),
                    },
                    None => (shared.new_container(&address, &update).await?, Creation::Created),
                };
                match shared.store.commit(batch).await {
                    Ok(()) => return Ok(creation),
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => return Err(MailboxError::Write(error)),
                }
            }
            Err(contended())
        })
        .await
    }

    async fn creation_of(&self, present: &ContainerRecord) -> Result<Creation, MailboxError> {
        match self.is_hidden(present).await? {
            true => Ok(Creation::Created),
            false => Ok(Creation::Existed),
        }
    }

    pub(crate) async fn update_container(
        self: &Arc<Self>,
        address: &ContainerAddress,
        update: &ContainerUpdate,
    ) -> Result<(), MailboxError> {
        self.existing_container(address).await?;
        self.put_container(address, update).await?;
        Ok(())
    }

    async fn new_container(
        &self,
        address: &ContainerAddress,
        update: &ContainerUpdate,
    ) -> Result<Batch, MailboxError> {
        let mut batch = Batch::new();
        let mut account = self.expect_account(&address.account, &mut batch).await?;
        if account.n_containers >= self.limits.containers_per_account {
            return Err(MailboxError::TooManyContainers);
        }
        account.n_containers += 1;
        put_account(&address.account, &mut account, &mut batch);
        let empty = ContainerRecord {
            number: Number::random(),
            versions_location: None,
            keys: SigningKeys::default(),
            expected: Vec::new(),
            created_at: self.clock.now(),
            removing: false,
            removal: None,
            deleted_at: None,
        };
        let record = empty.with(update).unwrap_or(empty);
        batch.expect(Expect::Absent(key::container(address)));
        batch.put(key::container(address), encode(&record));
        Ok(batch)
    }

    pub(crate) async fn container(
        &self,
        address: &ContainerAddress,
    ) -> Result<Container, MailboxError> {
        let (_, record, counts) = self.counted_container(address).await?;
        Ok(Container {
            versions_location: record.versions_location,
            keys: record.keys,
            expected: record.expected,
            n_objects: counts.n_objects,
            n_bytes: counts.n_bytes,
            created_at: record.created_at,
        })
    }

    /// A container that is not hidden, and what lies in it.
    pub(crate) async fn counted_container(
        &self,
        address: &ContainerAddress,
    ) -> Result<(Bytes, ContainerRecord, Counts), MailboxError> {
        let (bytes, record) = self.kept_container(address).await?;
        let counts = self.count_container(record.number).await?;
        match record.is_hidden(&counts) {
            true => Err(MailboxError::ContainerNotFound),
            false => Ok((bytes, record, counts)),
        }
    }

    pub(crate) async fn existing_container(
        &self,
        address: &ContainerAddress,
    ) -> Result<(Bytes, ContainerRecord), MailboxError> {
        let (bytes, record) = self.kept_container(address).await?;
        match self.is_hidden(&record).await? {
            true => Err(MailboxError::ContainerNotFound),
            false => Ok((bytes, record)),
        }
    }

    /// A container, even one that is [hidden](ContainerRecord::is_hidden).
    pub(crate) async fn kept_container(
        &self,
        address: &ContainerAddress,
    ) -> Result<(Bytes, ContainerRecord), MailboxError> {
        self.container_record(address).await?.ok_or(MailboxError::ContainerNotFound)
    }

    pub(crate) async fn container_record(
        &self,
        address: &ContainerAddress,
    ) -> Result<Option<(Bytes, ContainerRecord)>, MailboxError> {
        let Some(bytes) = self.get(&key::container(address)).await? else {
            return Ok(None);
        };
        let record = decode(KeyKind::Container, &bytes)?;
        Ok(Some((bytes, record)))
    }

    pub(crate) async fn list_containers(
        &self,
        account: &AccountName,
        query: &ListingQuery,
    ) -> Result<Vec<ContainerEntry>, MailboxError> {
        let limit = query.limit.unwrap_or(MAX_LISTING_ENTRIES);
        let limit = limit.min(MAX_LISTING_ENTRIES);
        let prefix = key::containers(account);
        let after =
            Key::new(KeyKind::Container, &[&prefix.as_bytes()[1..], query.marker.as_bytes()]);
        let mut entries = Vec::new();
        let mut after = Some(after);
        while let Some(start) = after.take() {
            let page = self.scan(&prefix, Some(&start), PAGE).await?;
            if page.len() == PAGE {
                after = page.last().map(|(key, _)| key.clone());
            }
            for (key, bytes) in page {
                let Some(address) = key::parse_container(&key) else {
                    return Err(MailboxError::BadRecord { kind: KeyKind::Container });
                };
                let name = address.container;
                let is_over =
                    !query.end_marker.is_empty() && name.as_str() >= query.end_marker.as_str();
                if is_over || entries.len() >= limit {
                    return Ok(entries);
                }
                if !name.as_str().starts_with(&query.prefix) {
                    continue;
                }
                let record: ContainerRecord = decode(KeyKind::Container, &bytes)?;
                let counts = self.count_container(record.number).await?;
                if record.is_hidden(&counts) {
                    continue;
                }
                entries.push(ContainerEntry {
                    name,
                    n_objects: counts.n_objects,
                    n_bytes: counts.n_bytes,
                    created_at: record.created_at,
                });
            }
        }
        Ok(entries)
    }

    pub(crate) async fn count_container(&self, container: Number) -> Result<Counts, MailboxError> {
        let mut counts = Counts::default();
        for kind in [KeyKind::Mailbox, KeyKind::Object] {
            let prefix = key::under(kind, container);
            let mut after = None;
            loop {
                let page = self.scan(&prefix, after.as_ref(), PAGE).await?;
                for (_, bytes) in &page {
                    counts.add(kind, bytes)?;
                }
                match page.last() {
                    Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                    _ => break,
                }
            }
        }
        Ok(counts)
    }
}

impl Counts {
    fn add(&mut self, kind: KeyKind, bytes: &Bytes) -> Result<(), MailboxError> {
        if kind == KeyKind::Object {
            let (record, _) = decode_object(kind, bytes)?;
            self.n_objects += 1;
            self.n_bytes += record.info.n_bytes;
            return Ok(());
        }
        let head: HeadRecord = decode(kind, bytes)?;
        self.n_objects += head.n_pending;
        self.n_bytes += head.n_bytes;
        self.n_handles += 1;
        Ok(())
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.n_objects == 0 && self.n_handles == 0
    }
}

impl ContainerRecord {
    /// The record as the update wants it, not deleted; nothing if it is so already.
    fn with(&self, update: &ContainerUpdate) -> Option<ContainerRecord> {
        let mut changed = ContainerRecord { deleted_at: None, ..self.clone() };
        if let Some(location) = &update.versions_location {
            changed.versions_location = Some(location.clone()).filter(|text| !text.is_empty());
        }
        changed.keys.apply(&update.keys);
        if let Some(expected) = &update.expected {
            changed.expected.clone_from(expected);
        }
        let is_same = self.deleted_at.is_none()
            && changed.versions_location == self.versions_location
            && changed.keys == self.keys
            && changed.expected == self.expected;
        (!is_same).then_some(changed)
    }
}

impl ContainerUpdate {
    fn check(&self) -> Result<(), MailboxError> {
        let location = self.versions_location.as_deref().unwrap_or_default();
        if location.len() > MAX_VERSIONS_LOCATION_BYTES {
            return Err(MailboxError::BadField {
                field: "X-Versions-Location",
                rule: "the name of a container",
            });
        }
        let expected = self.expected.as_deref().unwrap_or_default();
        let is_good = |name: &String| (1..=MAX_EXPECTED_NAME_BYTES).contains(&name.len());
        if expected.len() > MAX_EXPECTED || !expected.iter().all(is_good) {
            return Err(MailboxError::BadField {
                field: "X-Container-Meta-Expect",
                rule: "up to 500 names of 1 to 128 bytes, with commas between them",
            });
        }
        Ok(())
    }
}

pub(crate) fn replace(address: &ContainerAddress, before: Bytes, after: &ContainerRecord) -> Batch {
    let mut batch = Batch::new();
    batch.expect(Expect::Value(key::container(address), before));
    batch.put(key::container(address), encode(after));
    batch
}

pub(crate) fn contended() -> MailboxError {
    MailboxError::Contended { kind: KeyKind::Container, attempts: MAX_COMMIT_ATTEMPTS }
}
