//! The domain: signals are put in, waited for, read and removed. It knows neither HTTP nor which store
//! keeps the records.
//!
//! A *mailbox* holds the signals of one handle, oldest first. There are two sorts of handle, and they
//! differ in who removes a signal:
//!
//! * A handle below an account and a container, as Heat makes it by way of its Swift client. Whoever
//!   reads a signal removes it. The mailbox appears as objects named `<object>/<8-digit number>`, one
//!   for each pending signal; the handle's own name is never listed, because Heat fails over the
//!   placeholder that it puts there.
//! * A native handle (`h-…`). Its signals stay until the handle goes, and together they mean something:
//!   pending, complete, failed or expired, by the rules of Heat's wait condition.
//!
//! Beside the mailboxes there are *plain objects*: what Heat keeps for software deployments and for the
//! metadata of servers. They are ordinary objects, and the last one put wins.
//!
//! Rules that hold for every method below:
//!
//! * `Ok` means durable: the store's commit has returned.
//! * A signal with the `id` and the content of the signal that was last received under this id is
//!   acknowledged and changes nothing, also when the first one has been read and removed meanwhile. So
//!   a sender whose acknowledgement was lost may simply send again.
//! * When an error says nothing else, the change may or may not have happened, and may be asked for again.
//! * Dropping a future does not undo a change that is under way.
//!
//! Every limit stands in [`limits`] with its reason, every refusal in [`error`] with its stable code.

pub mod error;
pub mod limits;

mod methods;

mod account;
mod container;
mod deleted;
mod handle;
mod listing;
mod object;
mod plain;
mod stack;

mod append;
mod queue;
mod remove;
mod sweep;
mod wake;

mod decoded;
mod key;
mod record;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use signal_protocol::handle::{HandleId, HandleState};
use signal_protocol::path::{AccountName, ContainerName, ObjectName};

pub use crate::mailbox::sweep::SweepReport;

use crate::clock::Clock;
use crate::mailbox::decoded::DecodedRecords;
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::Limits;
use crate::mailbox::queue::Queues;
use crate::mailbox::record::{AccountRecord, ContainerRecord};
use crate::mailbox::sweep::SweepCursor;
use crate::mailbox::wake::Wakers;
use crate::store::Store;

/// The mailboxes of one store. Cloning it is cheap and gives a second handle on the same mailboxes.
#[derive(Debug, Clone)]
pub struct Mailboxes {
    shared: Arc<Shared>,
}

/// What the parts of the domain have in common.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    accounts: DecodedRecords<AccountRecord>,
    containers: DecodedRecords<ContainerRecord>,
    queues: Queues,
    wakers: Wakers,
    sweep_cursor: SweepCursor,
}

/// A container, with the account that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerAddress {
    pub account: AccountName,
    pub container: ContainerName,
}

/// An object, with the container that it lies in. It may be a signal handle, one pending signal, or a
/// plain object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectAddress {
    pub container: ContainerAddress,
    pub object: ObjectName,
}

/// A secret that signs URLs. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SigningKey(String);

/// The secrets that an account or a container accepts in signed URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKeys {
    /// Swift's `Temp-URL-Key`: the one that is shown to whoever wants to sign.
    pub primary: Option<SigningKey>,
    /// Swift's `Temp-URL-Key-2`.
    pub secondary: Option<SigningKey>,
    /// Keys that others took the place of, latest first. URLs signed with them are still good: two
    /// stacks that start at once on a new account may each set a key, and the URLs of both are out.
    pub former: Vec<SigningKey>,
}

/// What to do with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// Make this the key; the one before becomes a former key.
    Set(SigningKey),
    /// Take the key away, and all former keys with it: URLs signed with them are dead.
    Remove,
}

/// What to do with the keys of an account or a container; `None` leaves a key as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyUpdate {
    pub primary: Option<KeyChange>,
    pub secondary: Option<KeyChange>,
}

/// An account as Swift shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub keys: SigningKeys,
    pub n_containers: u64,
    /// Pending signals and plain objects in the account's containers; see
    /// [`limits::MAX_COUNTED_CONTAINERS`] for when it is too low.
    pub n_objects: u64,
    pub n_bytes: u64,
    pub created_at: Timestamp,
}

/// What the maker of a container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUpdate {
    /// Swift's `X-Versions-Location`. Kept and shown, without effect.
    pub versions_location: Option<String>,
    pub keys: KeyUpdate,
    /// Who is expected to signal: ids, or what they begin with before a slash.
    pub expected: Option<Vec<String>>,
}

/// A container as Swift shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub versions_location: Option<String>,
    pub keys: SigningKeys,
    /// Who is expected to signal.
    pub expected: Vec<String>,
    /// Pending signals and plain objects.
    pub n_objects: u64,
    pub n_bytes: u64,
    pub created_at: Timestamp,
}

/// What is known of the signals of one stack: of all handles in the container that Heat named after it.
/// It stays when the signals themselves have been read and removed, until the container goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackRecord {
    pub created_at: Timestamp,
    pub handles: Vec<StackHandle>,
    /// Who is expected to signal, in the order in which it was said.
    pub expected: Vec<String>,
}

/// One handle of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackHandle {
    /// The name of its object.
    pub name: String,
    pub created_at: Timestamp,
    /// Signals that were stored, repeated ones not counted.
    pub n_received: u64,
    /// Those that nobody has read and removed.
    pub n_pending: u64,
    /// Those with an id, in the order in which they came; of one id, the last.
    pub senders: Vec<Sender>,
}

/// An id that has signalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The id, or its beginning if it is long.
    pub id: String,
    pub received_at: Timestamp,
}

/// One line of the listing of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerEntry {
    pub name: ContainerName,
    pub n_objects: u64,
    pub n_bytes: u64,
    pub created_at: Timestamp,
}

/// Whether a PUT made something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    Created,
    Existed,
}

/// An object without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectInfo {
    /// The MD5 of the body as it is stored, in lowercase hexadecimal digits.
    pub etag: String,
    pub n_bytes: u64,
    pub content_type: String,
    pub modified_at: Timestamp,
}

/// An object: a pending signal or a plain one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub info: ObjectInfo,
    pub body: Bytes,
}

/// A body that arrived with a PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    /// What the client called it; nothing is concluded from it.
    pub content_type: Option<String>,
    pub body: Bytes,
}

/// Which part of a listing is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListingQuery {
    /// Only names that begin with this.
    pub prefix: String,
    /// Only names after this one, in the order of their bytes.
    pub marker: String,
    /// Only names before this one; empty for no end.
    pub end_marker: String,
    /// Names that go on after this, counted behind the prefix, are folded into one entry.
    pub delimiter: Option<String>,
    /// At most so many entries; never more than [`limits::MAX_LISTING_ENTRIES`].
    pub limit: Option<usize>,
}

/// One line of the listing of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListingEntry {
    Object {
        name: String,
        info: ObjectInfo,
    },
    /// What several names begin with, up to and including the delimiter.
    Prefix {
        name: String,
    },
}

/// A native handle that is to be made.
#[derive(Debug, Clone)]
pub struct NewHandle {
    pub account: AccountName,
    /// How many distinct ids complete it: 1 to [`limits::MAX_HANDLE_COUNT`].
    pub count: u32,
    /// From 1 second to [`limits::MAX_HANDLE_TIMEOUT`]; whole seconds.
    pub timeout: Duration,
    pub label: Option<String>,
    /// A JSON value that is kept and shown, up to [`limits::MAX_HANDLE_METADATA_BYTES`].
    pub metadata: Option<Box<RawValue>>,
}

/// A native handle as its maker described it; what its signals mean is in
/// [`HandleView`](signal_protocol::handle::HandleView).
#[derive(Debug, Clone)]
pub struct Handle {
    pub id: HandleId,
    pub account: AccountName,
    pub count: u32,
    pub timeout_seconds: u32,
    pub label: Option<String>,
    pub metadata: Option<Box<RawValue>>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// Signs the URL that an instance signals with. Of this handle only, so that a change of the
    /// account's keys does not silence instances.
    pub signing_key: SigningKey,
}

/// One line of the list of an account's native handles.
#[derive(Debug, Clone)]
pub struct HandleSummary {
    pub handle: Handle,
    pub state: HandleState,
    pub reason: Option<String>,
    /// How many distinct ids have signalled.
    pub n_signals: usize,
    pub version: u64,
}

/// What became of a PUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutReceipt {
    pub info: ObjectInfo,
    pub outcome: PutOutcome,
}

/// What a PUT turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The announcement of a signal handle.
    SignalHandle,
    /// A signal.
    Signal(Receipt),
    /// The content of a plain object.
    Plain,
}

/// What became of a signal that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It is stored now.
    Stored,
    /// The same signal had been received before; nothing was changed.
    Repeated,
}

impl SigningKey {
    /// A key that a client chose. Refuses what [`limits::MAX_SIGNING_KEY_BYTES`] does not hold.
    pub fn parse(text: &str) -> Result<Self, MailboxError> {
        if text.is_empty() || text.len() > limits::MAX_SIGNING_KEY_BYTES {
            return Err(MailboxError::BadSigningKey);
        }
        Ok(SigningKey(text.to_owned()))
    }

    /// A key that nobody can guess.
    pub(crate) fn random() -> Self {
        SigningKey(hex::encode(rand::random::<[u8; 16]>()))
    }

    /// The secret itself. Never for a log or an error.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl AsRef<[u8]> for SigningKey {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

#[cfg(test)]
mod tests;
