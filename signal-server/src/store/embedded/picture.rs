//! The records as they were at one moment.

use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Keyspace, Readable};

use crate::store::embedded::{MAX_INLINE_SCAN, Records, read_error, unavailable};
use crate::store::snapshot::Snapshot;
use crate::store::{Key, StoreError};

/// Every read goes through one of these. Without it, fjall shows the changes of a group one after the
/// other while it applies them.
#[derive(Clone)]
pub(crate) struct Picture {
    snapshot: fjall::Snapshot,
    keyspace: Keyspace,
}

impl fmt::Debug for Picture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Picture").finish_non_exhaustive()
    }
}

impl Records {
    pub(crate) fn picture(&self) -> Picture {
        Picture { snapshot: self.database.snapshot(), keyspace: self.keyspace.clone() }
    }
}

impl Picture {
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let value = self.snapshot.get(&self.keyspace, key.as_bytes());
        let value = value.map_err(|error| read_error(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Reads in the caller's own thread, or elsewhere if that might hold up other requests there.
    pub(crate) async fn scan_aside(
        self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        if limit <= MAX_INLINE_SCAN {
            return self.scan_here(prefix, after, limit);
        }
        let (prefix, after) = (prefix.clone(), after.cloned());
        tokio::task::spawn_blocking(move || self.scan_here(&prefix, after.as_ref(), limit))
            .await
            .map_err(|_| unavailable("a read was interrupted"))?
    }

    fn scan_here(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let start = match after {
            Some(after) if after.starts_with(prefix) => Bound::Excluded(after.as_bytes()),
            Some(after) if after > prefix => return Ok(Vec::new()),
            _ => Bound::Included(prefix.as_bytes()),
        };
        // Without an end, a scan that finds little would walk over all the records that were ever removed
        // behind its prefix, to find the next one that is still there.
        let end = end_of(prefix);
        let range = (start, end.as_ref().map(Vec::as_slice));
        let mut found = Vec::new();
        for guard in self.snapshot.range::<&[u8], _>(&self.keyspace, range).take(limit) {
            let (key, value) = guard.into_inner().map_err(|error| read_error(&error))?;
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            let key = Key::from_bytes(Bytes::copy_from_slice(&key)).ok_or(StoreError::Corrupt {
                detail: "a record has a key of no known kind".to_owned(),
            })?;
            found.push((key, Bytes::copy_from_slice(&value)));
        }
        Ok(found)
    }
}

/// A picture for somebody who keeps it for long, until it is taken back.
#[derive(Debug)]
pub(crate) struct LentPicture(Arc<Slot>);

type Slot = Mutex<Option<Picture>>;

/// All pictures that are lent. A database that has failed is opened anew only when nobody holds it any more,
/// so they are taken back then.
#[derive(Debug, Default)]
pub(crate) struct LentPictures(Mutex<Vec<Weak<Slot>>>);

impl LentPictures {
    pub(crate) fn lend(&self, picture: Picture) -> LentPicture {
        let slot = Arc::new(Mutex::new(Some(picture)));
        let mut lent = locked(&self.0);
        lent.retain(|slot| slot.strong_count() > 0);
        lent.push(Arc::downgrade(&slot));
        LentPicture(slot)
    }

    pub(crate) fn take_back(&self) {
        for slot in locked(&self.0).drain(..).filter_map(|slot| slot.upgrade()) {
            *locked(&slot) = None;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Snapshot for LentPicture {
    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let picture = locked(&self.0).clone();
        let picture =
            picture.ok_or_else(|| unavailable("the database was opened again meanwhile"))?;
        picture.scan_aside(prefix, after, limit).await
    }
}

/// Where the keys end that begin with `prefix`.
fn end_of(prefix: &Key) -> Bound<Vec<u8>> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}
