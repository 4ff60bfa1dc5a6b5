//! A picture of a whole store at one moment, for whoever wants to copy it while it is written to.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::{Key, StoreError};

/// All records as they were when the picture was taken, whatever is committed later.
///
/// It shows each commit as a whole or not at all, and all that were acknowledged before it was taken. While
/// it is there, the store keeps what has been replaced or removed since, so it is to be dropped soon.
#[async_trait]
pub trait Snapshot: Send + Sync + Debug {
    /// Reads at most `limit` records, as [`Store::scan`](crate::store::Store::scan) does.
    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError>;
}
