//! Where the relay keeps its records: a small contract that several backends meet.
//!
//! The domain above ([`crate::mailbox`]) needs four things only: read one record, read a range of
//! records in order, change several records at once on condition that nobody else changed them, and
//! know whether that works at present. It never asks which backend it talks to.
//!
//! A new backend is accepted when it passes `store/conformance.rs`, whose model is [`mod@memory`]; it is one
//! line there.

#[cfg(test)]
pub(crate) mod conformance;
pub mod embedded;
pub mod etcd;
pub mod faulty;
pub mod memory;
pub mod remembering;
pub mod sharing;
pub mod snapshot;

use std::fmt::{self, Debug};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::store::sharing::{Changes, Job, Leadership};
use crate::store::snapshot::Snapshot;

/// Most expectations, and most operations, that one [`Batch`] may hold.
///
/// etcd refuses a transaction with more than 128 of either (`--max-txn-ops`), and a batch that fits
/// one backend must fit all.
pub const MAX_BATCH_OPERATIONS: usize = 128;

/// Most bytes of keys and values in one [`Batch`], expectations included.
///
/// etcd refuses a request over 1.5 MiB (`--max-request-bytes`, 1,572,864); the difference is left for
/// the framing of the request. It holds one signal of the largest size with everything beside it.
pub const MAX_BATCH_BYTES: usize = 1_500_000;

/// Longest key.
///
/// The longest one the domain makes holds an account name and a container name of 256 bytes each, or
/// an object name of 1,024 bytes; the rest is air. Backends may rely on it.
pub const MAX_KEY_BYTES: usize = 2_048;

macro_rules! key_kinds {
    ($($(#[$doc:meta])* $kind:ident = $byte:literal $name:literal,)*) => {
        /// The kinds of record. The first byte of every key says which kind it is.
        ///
        /// The bytes are part of the format on disk: never change or reuse one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum KeyKind {
            $($(#[$doc])* $kind = $byte,)*
        }

        impl KeyKind {
            /// Every kind, for code that has to walk all of them.
            pub const ALL: &[KeyKind] = &[$(KeyKind::$kind),*];

            fn name(self) -> &'static str {
                match self {
                    $(KeyKind::$kind => $name,)*
                }
            }

            fn of_byte(byte: u8) -> Option<KeyKind> {
                match byte {
                    $($byte => Some(KeyKind::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

key_kinds! {
    /// An account: its keys and how many containers it has.
    Account = b'A' "account",
    /// A container.
    Container = b'C' "container",
    /// The head of a signal handle's mailbox below a container.
    Mailbox = b'M' "mailbox",
    /// The description of a plain object.
    Object = b'O' "object",
    /// The body of a plain object.
    ObjectBody = b'P' "object body",
    /// A native handle: what its maker asked for.
    Handle = b'H' "handle",
    /// The head of a native handle's mailbox.
    HandleMailbox = b'N' "handle mailbox",
    /// The handles of one account.
    HandleIndex = b'L' "handle index",
    /// One pending signal.
    Signal = b'S' "signal",
    /// The body of a signal that is too large to stand in its record.
    SignalBody = b'B' "signal body",
    /// That a signal with a certain id has been received.
    Seen = b'I' "seen id",
    /// Something deleted whose parts are still to be removed.
    Garbage = b'G' "garbage",
    /// What is known of an instance.
    Instance = b'V' "instance",
    /// That a message of an instance has been taken in.
    InstanceMessage = b'W' "instance message",
    /// A signal that waits to be forwarded. Holds a secret of its sender until then.
    Forward = b'F' "forward",
    /// The body of a signal that waits to be forwarded.
    ForwardBody = b'D' "forward body",
    /// What became of a signal that was forwarded.
    ForwardOutcome = b'R' "forward outcome",
    /// The forwarded signals of one account.
    ForwardIndex = b'X' "forward index",
}

impl KeyKind {
    /// Small records that are read far more often than there are different ones: every signal needs some.
    pub(crate) fn is_hot(self) -> bool {
        matches!(
            self,
            KeyKind::Account
                | KeyKind::Container
                | KeyKind::Mailbox
                | KeyKind::Handle
                | KeyKind::HandleMailbox
        )
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a record. Keys are ordered by their bytes.
///
/// Its `Debug` form shows the kind and the length only: names of accounts and containers are user data.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Bytes);

impl Key {
    /// A key of `kind`; `parts` follow one another without a separator.
    pub fn new(kind: KeyKind, parts: &[&[u8]]) -> Self {
        let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(length);
        bytes.push(kind as u8);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Key(bytes.into())
    }

    /// A key read back from a backend; nothing when the bytes are not a key of the relay.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        KeyKind::of_byte(*bytes.first()?)?;
        Some(Key(bytes))
    }

    /// What the record is.
    pub fn kind(&self) -> KeyKind {
        // Every constructor has seen to it that there is a first byte and that it names a kind.
        let first = self.0.first().copied();
        first.and_then(KeyKind::of_byte).unwrap_or(KeyKind::Garbage)
    }

    /// The whole key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The whole key, for a backend that keeps it.
    pub(crate) fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// What follows `prefix` in this key.
    pub fn after(&self, prefix: &Key) -> Option<&[u8]> {
        self.0.strip_prefix(prefix.as_bytes())
    }

    /// Whether this key lies in the range that `prefix` names.
    pub fn starts_with(&self, prefix: &Key) -> bool {
        self.0.starts_with(&prefix.0)
    }
}

impl Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {} bytes)", self.kind(), self.0.len())
    }
}

/// What must hold at the moment of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// There is no such record.
    Absent(Key),
    /// There is such a record, whatever it says.
    Present(Key),
    /// There is such a record and these are its bytes.
    Value(Key, Bytes),
}

impl Expect {
    /// The record that this is about.
    pub fn key(&self) -> &Key {
        match self {
            Expect::Absent(key) | Expect::Present(key) | Expect::Value(key, _) => key,
        }
    }

    /// Whether `present` is as expected.
    pub fn holds(&self, present: Option<&[u8]>) -> bool {
        match (self, present) {
            (Expect::Absent(_), present) => present.is_none(),
            (Expect::Present(_), present) => present.is_some(),
            (Expect::Value(_, value), present) => present == Some(value.as_ref()),
        }
    }
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Write the record, whether it exists or not.
    Put(Key, Bytes),
    /// Remove the record, whether it exists or not.
    Delete(Key),
}

impl Operation {
    /// The record that this is about.
    pub fn key(&self) -> &Key {
        match self {
            Operation::Put(key, _) | Operation::Delete(key) => key,
        }
    }
}

/// Changes that happen together or not at all, on condition that every expectation holds.
///
/// When several operations name the same key, the last one counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    expectations: Vec<Expect>,
    operations: Vec<Operation>,
    n_bytes: usize,
}

impl Batch {
    /// A batch that expects nothing and changes nothing.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Adds a condition.
    pub fn expect(&mut self, expectation: Expect) {
        self.n_bytes += match &expectation {
            Expect::Absent(key) | Expect::Present(key) => key.as_bytes().len(),
            Expect::Value(key, value) => key.as_bytes().len() + value.len(),
        };
        self.expectations.push(expectation);
    }

    /// Adds a record to write.
    pub fn put(&mut self, key: Key, value: Bytes) {
        self.n_bytes += key.as_bytes().len() + value.len();
        self.operations.push(Operation::Put(key, value));
    }

    /// Adds a record to remove.
    pub fn delete(&mut self, key: Key) {
        self.n_bytes += key.as_bytes().len();
        self.operations.push(Operation::Delete(key));
    }

    /// The conditions, in the order in which they were added.
    pub fn expectations(&self) -> &[Expect] {
        &self.expectations
    }

    /// The changes, in the order in which they were added.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Takes the batch apart.
    pub fn into_parts(self) -> (Vec<Expect>, Vec<Operation>) {
        (self.expectations, self.operations)
    }

    /// How many of the [`MAX_BATCH_OPERATIONS`] are used.
    pub fn n_operations(&self) -> usize {
        self.expectations.len().max(self.operations.len())
    }

    /// How many of the [`MAX_BATCH_BYTES`] are used.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Refuses a batch that some backend could not take.
    pub fn check_size(&self) -> Result<(), CommitError> {
        let key_too_long = self
            .operations
            .iter()
            .map(Operation::key)
            .chain(self.expectations.iter().map(Expect::key))
            .any(|key| key.as_bytes().len() > MAX_KEY_BYTES);
        if key_too_long
            || self.n_operations() > MAX_BATCH_OPERATIONS
            || self.n_bytes > MAX_BATCH_BYTES
        {
            return Err(CommitError::TooLarge {
                n_operations: self.n_operations(),
                n_bytes: self.n_bytes,
            });
        }
        Ok(())
    }
}

/// Why a read, or the question whether the store is ready, was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The backend does not answer at present. The same call may work later.
    #[error("the store is unavailable: {detail}")]
    Unavailable {
        /// What the backend said; never holds keys or values.
        detail: String,
    },
    /// The backend answers, but what it holds cannot be read. Somebody must look.
    #[error("the store is damaged: {detail}")]
    Corrupt {
        /// What the backend said; never holds keys or values.
        detail: String,
    },
}

/// Why a commit was not acknowledged.
///
/// After [`Conflict`](CommitError::Conflict), [`TooLarge`](CommitError::TooLarge) and
/// [`Overloaded`](CommitError::Overloaded) nothing has been written. After any other error the batch
/// may or may not have been written as a whole: see [`Store::commit`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// An expectation did not hold. Read again and decide again.
    #[error("somebody else changed the {kind} record first")]
    Conflict {
        /// What sort of record it was; its name is user data and stays out of errors.
        kind: KeyKind,
    },
    /// The batch is over [`MAX_BATCH_OPERATIONS`], [`MAX_BATCH_BYTES`] or [`MAX_KEY_BYTES`].
    #[error("the batch is too large: {n_operations} operations, {n_bytes} bytes")]
    TooLarge {
        /// How many operations or expectations it had.
        n_operations: usize,
        /// How many bytes its keys and values had.
        n_bytes: usize,
    },
    /// More commits are waiting than the store will queue. Come again in a moment.
    #[error("too many commits are waiting")]
    Overloaded,
    /// There is no space left. The store recovers by itself when there is space again.
    #[error("there is no space left for the store: {detail}")]
    Full {
        /// What the backend said; never holds keys or values.
        detail: String,
    },
    /// The backend does not answer at present. The same call may work later.
    #[error("the store is unavailable: {detail}")]
    Unavailable {
        /// What the backend said; never holds keys or values.
        detail: String,
    },
    /// The backend answers, but what it holds cannot be read. Somebody must look.
    #[error("the store is damaged: {detail}")]
    Corrupt {
        /// What the backend said; never holds keys or values.
        detail: String,
    },
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { detail } => CommitError::Unavailable { detail },
            StoreError::Corrupt { detail } => CommitError::Corrupt { detail },
        }
    }
}

/// An ordered, durable, transactional map from [`Key`] to bytes.
///
/// *Atomic*: of one batch, either everything is visible or nothing is, also after a crash.
///
/// *Durable*: `Ok` from [`commit`](Store::commit) means that the changes survive the loss of power.
///
/// *Linearizable*: a read that begins after a commit was acknowledged sees it, and a read never shows
/// what could still be lost: whatever [`get`](Store::get) or [`scan`](Store::scan) return is durable.
/// One scan is a consistent picture; two scans, or the pages of one listing, are not.
///
/// *Retrying*: reads may be repeated at will. A commit may be repeated after
/// [`Conflict`](CommitError::Conflict) (having read again) and after
/// [`Overloaded`](CommitError::Overloaded). After any other failure the reply may have been lost after
/// the commit took effect, so it may be repeated only if its expectations tell the two cases apart.
///
/// *Cancelling*: dropping the future of a commit does not undo it; it may still take effect.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// Reads one record.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError>;

    /// Reads several records, in the order of `keys`. Each is as it was at some moment of the call; together
    /// they are no picture. A store that is far away is asked once.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.get(key).await?);
        }
        Ok(found)
    }

    /// What a record was when the store was last told of it, without asking; nothing if that is not known, or
    /// if to ask costs no more. It may have been changed or removed since by another process, so nothing
    /// follows from it but what a commit that expects exactly this value confirms.
    fn recall(&self, _key: &Key) -> Option<Bytes> {
        None
    }

    /// Reads at most `limit` records whose key starts with `prefix` and is greater than `after`, in the
    /// order of the keys. Fewer than `limit` means that there are no more.
    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError>;

    /// Applies the batch if every expectation holds, and returns when it is durable.
    async fn commit(&self, batch: Batch) -> Result<(), CommitError>;

    /// Whether a commit would be taken at present. Does not write.
    async fn ready(&self) -> Result<(), StoreError>;

    /// Tells of changes of records of `kind` from now on, those of other processes included. To be called
    /// inside a runtime. A store that has one process for itself tells nothing.
    fn changes(&self, _kind: KeyKind) -> Changes {
        Changes::none()
    }

    /// Takes part in the choice of who does `job`, until the answer is dropped. To be called inside a
    /// runtime. A store that has one process for itself always chooses that.
    fn lead(&self, _job: Job) -> Leadership {
        Leadership::always()
    }

    /// A picture of all records as they are now. Nothing where the backend has backups of its own.
    fn snapshot(&self) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
        Ok(None)
    }
}
