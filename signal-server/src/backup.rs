//! A store in one file: taken while a relay serves, and put into an empty data directory.
//!
//! # The file
//!
//! ```text
//! "heliograph backup 1\n"
//! for each record, in the order of the keys:
//!     length of the key     2 bytes, little end first; never 0
//!     length of the value   4 bytes, little end first
//!     key, value
//! the end:
//!     0                     2 bytes
//!     number of records     8 bytes, little end first
//!     digest                32 bytes: the SHA-256 that `migrate` prints for the same records
//! ```
//!
//! The digest comes last, as it is only known then, and a file without it is cut short. So whoever reads one
//! reads it to its end first, and only then believes it.
//!
//! # One moment
//!
//! What is written is one [`Snapshot`](crate::store::snapshot::Snapshot): every commit that was acknowledged
//! before it was taken, each as a whole, and none that was begun later. The relay goes on meanwhile. The file
//! has all that the store has, the keys that let signals in among it, so it is for its owner alone.

mod read;
mod take;

pub use read::{BackupError, check, restore};
pub(crate) use take::{Backups, TakeError};

/// What every file begins with. The number grows when an older version could not read what a newer one wrote.
const MAGIC: &[u8] = b"heliograph backup 1\n";

#[cfg(test)]
mod tests;
