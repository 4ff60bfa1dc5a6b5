//! The contract of the domain: what can be asked of it, and what is promised. How it is done stands in the
//! modules beside this one; the rules that hold for everything stand in [`crate::mailbox`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use signal_protocol::handle::{HandleId, HandleView};
use signal_protocol::path::AccountName;
use signal_protocol::signal::Signal;

use crate::clock::Clock;
use crate::mailbox::decoded::DecodedRecords;
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::Limits;
use crate::mailbox::queue::Queues;
use crate::mailbox::sweep::SweepCursor;
use crate::mailbox::wake::Wakers;
use crate::mailbox::{
    Account, Container, ContainerAddress, ContainerEntry, ContainerUpdate, Creation, Handle,
    HandleSummary, KeyUpdate, ListingEntry, ListingQuery, Mailboxes, NewHandle, NewObject, Object,
    ObjectAddress, ObjectInfo, PutReceipt, Receipt, Shared, SigningKey, StackRecord, SweepReport,
};
use crate::store::{Store, StoreError};

impl Mailboxes {
    /// The mailboxes that `store` holds.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Mailboxes {
            shared: Arc::new(Shared {
                store,
                clock,
                limits,
                accounts: DecodedRecords::default(),
                containers: DecodedRecords::default(),
                queues: Queues::default(),
                wakers: Wakers::default(),
                sweep_cursor: SweepCursor::default(),
            }),
        }
    }

    /// Whether a change would be accepted at present.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.shared.store.ready().await
    }

    /// Wakes whoever waits for a change that another relay on the same store makes. Never returns.
    pub async fn follow_others(&self) {
        self.shared.follow_others().await;
    }

    /// An account. One that was never used before is made, with a key: Heat sets a key of its own when
    /// it finds none, and two stacks that do so at once would disable each other's URLs.
    pub async fn account(&self, account: &AccountName) -> Result<Account, MailboxError> {
        self.shared.account(account).await
    }

    /// An account, if it was ever used and something is left in it. Makes nothing.
    pub async fn existing_account(
        &self,
        account: &AccountName,
    ) -> Result<Option<Account>, MailboxError> {
        self.shared.existing_account(account).await
    }

    /// Changes the keys of an account.
    pub async fn set_account_keys(
        &self,
        account: &AccountName,
        update: &KeyUpdate,
    ) -> Result<(), MailboxError> {
        self.shared.set_account_keys(account, update).await
    }

    /// The containers of an account in the order of their names; `delimiter` is not looked at.
    pub async fn list_containers(
        &self,
        account: &AccountName,
        query: &ListingQuery,
    ) -> Result<Vec<ContainerEntry>, MailboxError> {
        self.shared.list_containers(account, query).await
    }

    /// Makes a container, or changes one that exists.
    pub async fn put_container(
        &self,
        container: &ContainerAddress,
        update: &ContainerUpdate,
    ) -> Result<Creation, MailboxError> {
        self.shared.put_container(container, update).await
    }

    /// Changes a container that exists.
    pub async fn update_container(
        &self,
        container: &ContainerAddress,
        update: &ContainerUpdate,
    ) -> Result<(), MailboxError> {
        self.shared.update_container(container, update).await
    }

    /// A container, without what lies in it.
    pub async fn container(&self, container: &ContainerAddress) -> Result<Container, MailboxError> {
        self.shared.container(container).await
    }

    /// Pending signals and plain objects in the order of their names.
    pub async fn list_objects(
        &self,
        container: &ContainerAddress,
        query: &ListingQuery,
    ) -> Result<Vec<ListingEntry>, MailboxError> {
        self.shared.list_objects(container, query).await
    }

    /// Removes a container in which there is neither a pending signal nor a plain object. A signal that
    /// arrives meanwhile wins: then the container is not empty.
    pub async fn delete_container(&self, container: &ContainerAddress) -> Result<(), MailboxError> {
        self.shared.delete_container(container).await
    }

    /// Who has signalled the handles in a stack's container, and who was expected to: by this container and
    /// by those whose names begin with its name.
    pub async fn stack(&self, container: &ContainerAddress) -> Result<StackRecord, MailboxError> {
        self.shared.stack(container).await
    }

    /// Every key that may have signed a URL for something in this container: the container's and the
    /// account's. Makes nothing.
    pub async fn signing_keys(
        &self,
        container: &ContainerAddress,
    ) -> Result<Vec<SigningKey>, MailboxError> {
        self.shared.signing_keys(container).await
    }

    /// The same for this object, by whoever is going to signal it if one of the keys fits: a store that is
    /// far away is asked for what that needs as well.
    pub async fn signing_keys_for(
        &self,
        object: &ObjectAddress,
    ) -> Result<Vec<SigningKey>, MailboxError> {
        self.shared.signing_keys_for(object).await
    }

    /// Takes a PUT by the owner of the account, which is how Heat prepares things. The body
    /// [`PLACEHOLDER`](crate::mailbox::limits::PLACEHOLDER) makes the object a signal handle. A body for an object that is one is a
    /// signal; for any other object it is the new content.
    pub async fn put_as_owner(
        &self,
        object: &ObjectAddress,
        new: NewObject,
    ) -> Result<PutReceipt, MailboxError> {
        self.shared.put_as_owner(object, new).await
    }

    /// Takes a PUT by the bearer of a signed URL: a signal if the object is a signal handle, the new
    /// content of a plain object otherwise.
    pub async fn put_as_bearer(
        &self,
        object: &ObjectAddress,
        new: NewObject,
    ) -> Result<PutReceipt, MailboxError> {
        self.shared.put_as_bearer(object, new).await
    }

    /// A pending signal or a plain object. A signal handle itself is not found here.
    pub async fn object(&self, object: &ObjectAddress) -> Result<Object, MailboxError> {
        self.shared.object(object).await
    }

    /// Like [`object`](Mailboxes::object), without the body.
    pub async fn object_info(&self, object: &ObjectAddress) -> Result<ObjectInfo, MailboxError> {
        self.shared.object_info(object).await
    }

    /// Whether the object is a signal handle, which only the bearer of its URL may learn.
    pub async fn is_signal_handle(&self, object: &ObjectAddress) -> Result<bool, MailboxError> {
        self.shared.is_signal_handle(object).await
    }

    /// Removes an object, by the rule that serves all of Heat's resource types: the name of a signal is
    /// removed, and that it has been removed before is no error; the name of a handle removes the
    /// oldest pending signal, and is not found when there is none; a plain object is removed.
    pub async fn delete_object(&self, object: &ObjectAddress) -> Result<(), MailboxError> {
        self.shared.delete_object(object).await
    }

    /// Makes a native handle.
    pub async fn create_handle(&self, new: NewHandle) -> Result<Handle, MailboxError> {
        self.shared.create_handle(new).await
    }

    /// A native handle, without its signals: cheap, for whoever has to check a permit.
    pub async fn handle(&self, id: &HandleId) -> Result<Handle, MailboxError> {
        self.shared.handle(id).await
    }

    /// A native handle, its signals and what they mean.
    pub async fn handle_view(&self, id: &HandleId) -> Result<HandleView, MailboxError> {
        self.shared.handle_view(id).await
    }

    /// The same for whoever follows a handle: with the number of each of its signals, in the order in which
    /// the store took them. A signal that takes another one's place has a number of its own; no clock has a
    /// part in it, so relays with different ones agree.
    pub async fn handle_view_in_order(
        &self,
        id: &HandleId,
    ) -> Result<(HandleView, Vec<u64>), MailboxError> {
        self.shared.handle_view_in_order(id).await
    }

    /// The native handles of an account in the order of their ids, beginning after `after`; at most
    /// `limit`, and never more than [`MAX_HANDLE_PAGE`](crate::mailbox::limits::MAX_HANDLE_PAGE). Fewer means that there are no more.
    pub async fn list_handles(
        &self,
        account: &AccountName,
        after: Option<&HandleId>,
        limit: usize,
    ) -> Result<Vec<HandleSummary>, MailboxError> {
        self.shared.list_handles(account, after, limit).await
    }

    /// Removes a native handle and its signals. Whoever waits for it learns that it is not found.
    pub async fn delete_handle(&self, id: &HandleId) -> Result<(), MailboxError> {
        self.shared.delete_handle(id).await
    }

    /// Takes a signal for a native handle. One that comes too late is stored as well, and changes
    /// nothing about what the handle means.
    pub async fn signal_handle(
        &self,
        id: &HandleId,
        signal: &Signal,
    ) -> Result<Receipt, MailboxError> {
        self.shared.signal_handle(id, signal).await
    }

    /// Returns the handle's version as soon as it is greater than `version`, and the present version
    /// when `wait` is over. Waiting costs a little memory and nothing else. The end of the handle's own
    /// time is a change, too.
    pub async fn changed(
        &self,
        id: &HandleId,
        version: u64,
        wait: Duration,
    ) -> Result<u64, MailboxError> {
        self.shared.changed(id, version, wait).await
    }

    /// Removes what nobody came for, looking at [`MAX_SWEPT_RECORDS`](crate::mailbox::limits::MAX_SWEPT_RECORDS) records at most; the next
    /// call goes on where this one stopped. Safe at any time, also from several relays at once.
    pub async fn sweep(&self, now: Timestamp) -> Result<SweepReport, MailboxError> {
        self.shared.sweep(now).await
    }
}
