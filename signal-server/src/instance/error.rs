//! Why the records of instances could not be read or changed.

use thiserror::Error;

use crate::store::{CommitError, StoreError};

/// Why a call on [`Instances`](crate::instance::Instances) did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InstanceError {
    #[error("failed to read the record of an instance")]
    Read(#[source] StoreError),
    #[error("failed to write the record of an instance")]
    Write(#[source] CommitError),
    #[error("the record of an instance cannot be read: written by a later version, or damaged")]
    BadRecord,
    #[error("the record of an instance was changed by somebody else again and again")]
    Contended,
    #[error("the instance has sent more than {} messages", super::MAX_MESSAGES)]
    TooManyMessages,
    #[error("the instance has given another key before")]
    KeyTaken,
}

impl InstanceError {
    /// The stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            InstanceError::Read(_) | InstanceError::Write(_) => "store_unavailable",
            InstanceError::BadRecord => "bad_record",
            InstanceError::Contended => "contended",
            InstanceError::TooManyMessages => "too_many_messages",
            InstanceError::KeyTaken => "key_taken",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        matches!(self, InstanceError::Read(_) | InstanceError::Write(_) | InstanceError::Contended)
    }
}
