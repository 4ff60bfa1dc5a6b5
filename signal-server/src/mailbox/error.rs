//! Why the domain refused something, or failed at it.

use signal_protocol::signal::SignalError;
use thiserror::Error;

use crate::store::{CommitError, KeyKind, StoreError};

/// Why a call on [`Mailboxes`](crate::mailbox::Mailboxes) did not succeed.
///
/// No variant carries a name, a body or a key: those belong to users.
#[derive(Debug, Clone, Error)]
pub enum MailboxError {
    /// The account has no such container.
    #[error("there is no such container")]
    ContainerNotFound,
    /// The container has no such object that may be shown.
    #[error("there is no such object")]
    ObjectNotFound,
    /// There is no such native handle.
    #[error("there is no such handle")]
    HandleNotFound,
    /// The container holds pending signals or plain objects.
    #[error("the container is not empty")]
    ContainerNotEmpty,
    /// The object's name is one that pending signals of a handle have.
    #[error("the name is taken: signals of a handle have names of this form")]
    NameReserved,
    /// The body is not a signal. Heat would fail the whole stack over it, so it is refused here.
    #[error("the body is not a signal")]
    BadSignal(#[source] SignalError),
    /// The body of a plain object is over [`MAX_OBJECT_BYTES`](super::limits::MAX_OBJECT_BYTES).
    #[error("the object has {length} bytes, more than the {limit} that are taken")]
    ObjectTooLarge { length: usize, limit: usize },
    /// A key that is empty or too long.
    #[error("a key for signed URLs has 1 to {} bytes", super::limits::MAX_SIGNING_KEY_BYTES)]
    BadSigningKey,
    /// A field that the caller chose is out of its range.
    #[error("{field} must be {rule}")]
    BadField { field: &'static str, rule: &'static str },
    /// The mailbox holds as much as it may.
    #[error("the mailbox is full: nobody reads its signals")]
    MailboxFull,
    /// The account has as many containers as it may.
    #[error("the account has as many containers as it may have")]
    TooManyContainers,
    /// The account has as many native handles as it may.
    #[error("the account has as many handles as it may have")]
    TooManyHandles,
    /// Too many changes wait for their turn at one mailbox.
    #[error("too many changes wait for this mailbox")]
    MailboxBusy,
    /// Somebody else changed the same record again and again.
    #[error("the {kind} record was changed by somebody else, {attempts} times in a row")]
    Contended { kind: KeyKind, attempts: usize },
    /// A record is there but cannot be read: written by a later version, or damaged.
    #[error("the {kind} record cannot be read")]
    BadRecord { kind: KeyKind },
    /// The task that was to make the change is gone; the relay is stopping.
    #[error("the change was interrupted")]
    Interrupted,
    /// The store did not answer a question.
    #[error("failed to read from the store")]
    Read(#[source] StoreError),
    /// The store did not take a change.
    #[error("failed to write to the store")]
    Write(#[source] CommitError),
}

/// What a caller can do about an error; the surfaces turn it into their statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// There is no such thing: 404.
    NotFound,
    /// It does not go together with what is there: 409.
    Conflict,
    /// The request is wrong and will stay wrong: 400.
    Invalid,
    /// The body is too large: 413.
    TooLarge,
    /// A limit is reached that the caller's own side has filled: 403 or 507, by the surface.
    LimitReached,
    /// The relay cannot at present; asking again in a moment helps: 503.
    Busy,
    /// There is no space left: 507.
    Full,
    /// Somebody has to look: 500.
    Broken,
}

impl MailboxError {
    /// The stable name of the error in an API's answer.
    pub fn code(&self) -> &'static str {
        match self {
            MailboxError::ContainerNotFound => "container_not_found",
            MailboxError::ObjectNotFound => "object_not_found",
            MailboxError::HandleNotFound => "handle_not_found",
            MailboxError::ContainerNotEmpty => "container_not_empty",
            MailboxError::NameReserved => "name_reserved",
            MailboxError::BadSignal(error) => error.code(),
            MailboxError::ObjectTooLarge { .. } => "object_too_large",
            MailboxError::BadSigningKey => "bad_signing_key",
            MailboxError::BadField { .. } => "bad_field",
            MailboxError::MailboxFull => "mailbox_full",
            MailboxError::TooManyContainers => "too_many_containers",
            MailboxError::TooManyHandles => "too_many_handles",
            MailboxError::MailboxBusy => "mailbox_busy",
            MailboxError::Contended { .. } => "contended",
            MailboxError::BadRecord { .. } => "bad_record",
            MailboxError::Interrupted => "interrupted",
            MailboxError::Read(StoreError::Unavailable { .. }) => "store_unavailable",
            MailboxError::Read(StoreError::Corrupt { .. }) => "store_corrupt",
            MailboxError::Write(error) => match error {
                CommitError::Conflict { .. } => "contended",
                CommitError::TooLarge { .. } => "batch_too_large",
                CommitError::Overloaded => "store_overloaded",
                CommitError::Full { .. } => "store_full",
                CommitError::Unavailable { .. } => "store_unavailable",
                CommitError::Corrupt { .. } => "store_corrupt",
            },
        }
    }

    /// Whether the store did not answer a question, which it may the next time.
    pub fn is_store_away(&self) -> bool {
        matches!(self, MailboxError::Read(StoreError::Unavailable { .. }))
    }

    /// What the caller can do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            MailboxError::ContainerNotFound
            | MailboxError::ObjectNotFound
            | MailboxError::HandleNotFound => ErrorClass::NotFound,
            MailboxError::ContainerNotEmpty | MailboxError::NameReserved => ErrorClass::Conflict,
            MailboxError::BadSignal(SignalError::TooLarge { .. })
            | MailboxError::ObjectTooLarge { .. } => ErrorClass::TooLarge,
            MailboxError::BadSignal(_)
            | MailboxError::BadSigningKey
            | MailboxError::BadField { .. } => ErrorClass::Invalid,
            MailboxError::MailboxFull
            | MailboxError::TooManyContainers
            | MailboxError::TooManyHandles => ErrorClass::LimitReached,
            MailboxError::MailboxBusy
            | MailboxError::Contended { .. }
            | MailboxError::Interrupted
            | MailboxError::Read(StoreError::Unavailable { .. }) => ErrorClass::Busy,
            MailboxError::BadRecord { .. } | MailboxError::Read(StoreError::Corrupt { .. }) => {
                ErrorClass::Broken
            }
            MailboxError::Write(error) => match error {
                CommitError::Conflict { .. }
                | CommitError::Overloaded
                | CommitError::Unavailable { .. } => ErrorClass::Busy,
                CommitError::Full { .. } => ErrorClass::Full,
                CommitError::TooLarge { .. } | CommitError::Corrupt { .. } => ErrorClass::Broken,
            },
        }
    }
}
