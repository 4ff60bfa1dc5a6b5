//! The removal of containers, and what is kept of them for handles that somebody may still wait for.
//!
//! All handles of a Heat stack lie in one container, and whenever Heat deletes one of them it looks at the
//! container's count of objects and removes the container if that is 0
//! (`heat/engine/resources/signal_responder.py`, `_delete_swift_signal_url`). With Swift the placeholders of
//! the other handles are objects, too; here they are hidden, so the count does not tell whether somebody waits.
//! An update of a stack deletes one handle while the instance of another one still boots.
//!
//! So a container that has handles is only hidden when it is deleted: to its owner it is gone. Its handles and
//! the keys that signed their URLs stay. A signal for one of them is taken in as ever, and as long as it is
//! pending the container can be seen again: Heat, which takes a container that is not there for one without
//! news, finds the signal with its next poll. Whoever makes the container again finds it with its handles.
//!
//! The sweep removes a hidden container [`LONGEST_WAIT`] after its deletion, when nobody can be waiting any more.
//! A container without handles is removed at once.
//!
//! Choice not taken: to remove one sooner in which every handle was signalled, if nobody asks for it. How many
//! signals Heat waits for is not said to anybody here, and while Keystone is away it asks in vain.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::mailbox::account::put_or_forget_account;
use crate::mailbox::container::{Counts, contended, replace};
use crate::mailbox::error::MailboxError;
use crate::mailbox::handle::later;
use crate::mailbox::limits::MAX_COMMIT_ATTEMPTS;
use crate::mailbox::record::{ContainerRecord, Number, encode};
use crate::mailbox::{ContainerAddress, ObjectAddress, Shared, key};
use crate::store::{Batch, CommitError, Expect};

/// The longest that a wait condition may wait (`timeout` of `OS::Heat::WaitCondition`: 43,200 s).
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(12 * 3_600);

/// What came of an attempt to remove a container.
enum Removal {
    Done,
    /// Something was put in, or somebody else has changed it.
    NotNow,
}

impl Shared {
    /// Removes a container in which nothing is pending, or hides it if it has handles.
    pub(crate) async fn delete_container(
        self: &Arc<Self>,
        address: &ContainerAddress,
    ) -> Result<(), MailboxError> {
        let (shared, address) = (Arc::clone(self), address.clone());
        self.in_turn(key::account(&address.account), async move {
            for _ in 0..MAX_COMMIT_ATTEMPTS {
                let (bytes, record, counts) = shared.counted_container(&address).await?;
                if counts.n_objects > 0 {
                    return Err(MailboxError::ContainerNotEmpty);
                }
                let removal = if counts.n_handles > 0 {
                    shared.hide(&address, bytes, record).await?
                } else {
                    shared.try_remove_container(&address, bytes, record, Counts::is_bare).await?
                };
                if let Removal::Done = removal {
                    return Ok(());
                }
            }
            Err(contended())
        })
        .await
    }

    /// For the sweep: removes a container that was deleted and that nobody can be waiting for, and one that
    /// was made long ago and holds nothing. Returns whether it did.
    pub(crate) async fn remove_unused_container(
        self: &Arc<Self>,
        address: &ContainerAddress,
        now: Timestamp,
    ) -> Result<bool, MailboxError> {
        let (shared, address) = (Arc::clone(self), address.clone());
        self.in_turn(key::account(&address.account), async move {
            let Some((bytes, record)) = shared.container_record(&address).await? else {
                return Ok(false);
            };
            let is_old = now > later(record.created_at, shared.limits.container_retention);
            let is_unused: fn(&Counts) -> bool = match record.deleted_at {
                Some(deleted_at) if now > later(deleted_at, LONGEST_WAIT) => {
                    |counts| counts.n_objects == 0
                }
                None if is_old => Counts::is_bare,
                _ => return Ok(false),
            };
            if !is_unused(&shared.count_container(record.number).await?) {
                return Ok(false);
            }
            let removal = shared.try_remove_container(&address, bytes, record, is_unused).await?;
            Ok(matches!(removal, Removal::Done))
        })
        .await
    }

    async fn hide(
        &self,
        address: &ContainerAddress,
        bytes: Bytes,
        mut record: ContainerRecord,
    ) -> Result<Removal, MailboxError> {
        record.deleted_at = Some(self.clock.now());
        self.commit_removal(replace(address, bytes, &record)).await
    }

    /// Removes a container in three steps: mark it, look whether it may go, remove it if the mark is still
    /// there. Whoever adds something either did so before the mark, and is seen, or has to take the mark
    /// away. A mark that is left behind by a crash does no harm. No two removals set the same mark: one that
    /// was held up must not go on by that of another, which has not looked yet.
    async fn try_remove_container(
        &self,
        address: &ContainerAddress,
        bytes: Bytes,
        mut record: ContainerRecord,
        may_go: impl Fn(&Counts) -> bool,
    ) -> Result<Removal, MailboxError> {
        let container_key = key::container(address);
        record.removing = true;
        record.removal = Some(Number::random());
        let marked = encode(&record);
        let mark = replace(address, bytes, &record);
        if let Removal::NotNow = self.commit_removal(mark).await? {
            return Ok(Removal::NotNow);
        }
        if !may_go(&self.count_container(record.number).await?) {
            return Ok(Removal::NotNow);
        }
        let mut batch = Batch::new();
        let mut account = self.expect_account(&address.account, &mut batch).await?;
        account.n_containers = account.n_containers.saturating_sub(1);
        put_or_forget_account(&address.account, &mut account, &mut batch);
        batch.expect(Expect::Value(container_key.clone(), marked));
        batch.delete(container_key);
        batch.put(key::garbage(record.number), Bytes::new());
        self.commit_removal(batch).await
    }

    async fn commit_removal(&self, batch: Batch) -> Result<Removal, MailboxError> {
        match self.store.commit(batch).await {
            Ok(()) => Ok(Removal::Done),
            Err(CommitError::Conflict { .. }) => Ok(Removal::NotNow),
            Err(error) => Err(MailboxError::Write(error)),
        }
    }

    /// Makes the batch, which puts a handle in, depend on the container, and takes back that it was deleted.
    /// Returns whether it was.
    pub(crate) async fn expect_shown_container(
        &self,
        address: &ObjectAddress,
        number: Number,
        batch: &mut Batch,
    ) -> Result<bool, MailboxError> {
        let (bytes, mut record) = self.kept_container(&address.container).await?;
        if record.number != number {
            return Err(MailboxError::ContainerNotFound);
        }
        let was_deleted = record.deleted_at.take().is_some();
        let was_marked = record.take_mark_away();
        let container_key = key::container(&address.container);
        batch.expect(Expect::Value(container_key.clone(), bytes));
        if was_deleted || was_marked {
            batch.put(container_key, encode(&record));
        }
        Ok(was_deleted)
    }

    /// Whether a container is [hidden](ContainerRecord::is_hidden). Of one that was not deleted nothing is read.
    pub(crate) async fn is_hidden(&self, record: &ContainerRecord) -> Result<bool, MailboxError> {
        Ok(record.deleted_at.is_some()
            && record.is_hidden(&self.count_container(record.number).await?))
    }
}

impl ContainerRecord {
    /// Whether a container that holds this much is there only for those who may still wait for its handles.
    pub(crate) fn is_hidden(&self, counts: &Counts) -> bool {
        self.deleted_at.is_some() && counts.n_objects == 0
    }
}
