//! What Keystone said, and in which words the rest of the relay hears of it.

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// The id of a project, as Keystone writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectId(pub(super) String);

/// Why a bearer could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BearerError {
    /// Keystone does not know the token, or it is over.
    #[error("the token is not valid")]
    Invalid,
    /// The token is good, but for no project: it opens nothing here.
    #[error("the token is not scoped to a project")]
    NoProject,
    /// Keystone cannot be asked at present.
    #[error("the token cannot be checked at present")]
    Unavailable,
    /// Keystone could not be asked for a while.
    #[error("the token could not be checked for a while")]
    AwayForLong,
}

/// What Keystone said about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Known { project: Option<ProjectId>, expires_at: Timestamp },
    Unknown,
}

/// The name of a token in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

impl Verdict {
    pub(super) fn project(self) -> Result<ProjectId, BearerError> {
        match self {
            Verdict::Known { project: Some(project), .. } => Ok(project),
            Verdict::Known { project: None, .. } => Err(BearerError::NoProject),
            Verdict::Unknown => Err(BearerError::Invalid),
        }
    }
}

impl TokenHash {
    pub(super) fn of(token: &str) -> TokenHash {
        TokenHash(Sha256::digest(token.as_bytes()).into())
    }
}

impl ProjectId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
