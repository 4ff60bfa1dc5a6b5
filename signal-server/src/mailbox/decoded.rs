//! The accounts and containers that signals go to, as they were last decoded.
//!
//! A signal looks at its container and at its account several times, to check the signature and to be put in,
//! and they hardly ever change; to decode them each time would cost as much as storing the signal. What is
//! kept here is never believed by itself: whoever asks has just read the record from the store, and gets the
//! decoded form of those very bytes.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::mailbox::error::MailboxError;
use crate::mailbox::record::{Record, decode};
use crate::store::Key;

/// Spreads records over several locks; a power of two some way above the number of cores.
const N_SHARDS: usize = 16;

/// How many records one shard keeps; a full one is emptied. With all shards full of records of 1 KiB, some
/// 4 MiB.
const MAX_SHARD_RECORDS: usize = 256;

/// See the module's own words.
pub(crate) struct DecodedRecords<T> {
    shards: Vec<Mutex<Shard<T>>>,
    hasher: RandomState,
}

/// The bytes of each record, and what they say.
type Shard<T> = HashMap<Key, (Bytes, Arc<T>)>;

impl<T> Default for DecodedRecords<T> {
    fn default() -> Self {
        DecodedRecords {
            shards: std::iter::repeat_with(Mutex::default).take(N_SHARDS).collect(),
            hasher: RandomState::new(),
        }
    }
}

/// Shows no record: accounts and containers hold keys.
impl<T> fmt::Debug for DecodedRecords<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DecodedRecords").finish_non_exhaustive()
    }
}

impl<T: Record> DecodedRecords<T> {
    /// What `bytes` say, which are the record at `key`.
    pub(crate) fn decode(&self, key: &Key, bytes: &Bytes) -> Result<Arc<T>, MailboxError> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % N_SHARDS as u64).unwrap_or(0);
        // A panic cannot leave a map half changed.
        let mut shard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, record)) = shard.get(key)
            && known == bytes
        {
            return Ok(Arc::clone(record));
        }
        let record = Arc::new(decode(key.kind(), bytes)?);
        if shard.len() >= MAX_SHARD_RECORDS {
            shard.clear();
        }
        // A copy of its own: what was read may be a part of a buffer with much else in it.
        shard.insert(key.clone(), (Bytes::copy_from_slice(bytes), Arc::clone(&record)));
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::mailbox::record::{HeadRecord, Number, encode};
    use crate::store::KeyKind;

    fn head(number: u8) -> (Key, Bytes) {
        let record = HeadRecord::new(Number([number; 16]), Timestamp::UNIX_EPOCH);
        (Key::new(KeyKind::Mailbox, &[&[number]]), encode(&record))
    }

    #[test]
    fn a_record_is_what_its_present_bytes_say() {
        let records = DecodedRecords::<HeadRecord>::default();
        let (key, bytes) = head(1);
        let first = records.decode(&key, &bytes).expect("decodes");
        let again = records.decode(&key, &Bytes::copy_from_slice(&bytes)).expect("decodes");
        assert!(Arc::ptr_eq(&first, &again), "the same bytes are decoded once");
        let (_, others) = head(2);
        let changed = records.decode(&key, &others).expect("decodes");
        assert_eq!(changed.number, Number([2; 16]));
        assert!(records.decode(&key, &bytes.slice(1..)).is_err());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let records = DecodedRecords::<HeadRecord>::default();
        let (_, bytes) = head(1);
        for n in 0..2 * N_SHARDS * MAX_SHARD_RECORDS {
            let key = Key::new(KeyKind::Mailbox, &[&n.to_be_bytes()]);
            records.decode(&key, &bytes).expect("decodes");
        }
        let lengths = records.shards.iter().map(|shard| shard.lock().expect("a shard").len());
        assert!(lengths.max() <= Some(MAX_SHARD_RECORDS));
    }
}
