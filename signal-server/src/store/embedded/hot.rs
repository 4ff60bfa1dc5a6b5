//! The records that every signal needs again and again, kept in memory: accounts, containers, handles
//! and the heads of mailboxes. Reading one from the database costs several times what the rest of a
//! signal does: one read is a search of the memory table and of the filters of all tables, some 3 µs, and a
//! signal needs six of them.
//!
//! What is kept here is what is on disk, never more and never less: from before a group is written until
//! after its sync, the records that it changes are marked as changing, and whoever reads one of them
//! meanwhile reads the database. So nobody sees a record as it was after somebody saw it as it is. A
//! reader who fetched a record from the database keeps it only if the writer has not changed anything in
//! the same shard since it looked here.
//!
//! When a write fails everything is forgotten, because nobody can tell what is on disk, and once more when the
//! database has been opened anew, because then it can be told: see the tests of the store.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::store::Key;

/// Spreads records over several locks; a power of two some way above the number of cores.
const N_SHARDS: usize = 64;

/// How many records one shard keeps. With all shards full of records of 300 bytes, some 10 MiB.
const MAX_SHARD_RECORDS: usize = 512;

/// See the module's own words.
pub(crate) struct HotRecords {
    shards: Vec<RwLock<Shard>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    /// Grows with every change by the writer.
    version: u64,
    records: HashMap<Key, Kept>,
}

enum Kept {
    /// As on disk; `None` for a record that is known not to be there.
    Known(Option<Bytes>),
    /// The writer is at it.
    Changing,
}

/// What is known of a record.
pub(crate) enum Lookup {
    Known(Option<Bytes>),
    /// Nothing. Whoever fetches the record may have it kept.
    Unknown(Ticket),
    /// Nothing, and it is not to be kept.
    Cold,
}

/// Says when a record was not known.
pub(crate) struct Ticket {
    version: u64,
}

impl Default for HotRecords {
    fn default() -> Self {
        HotRecords {
            shards: std::iter::repeat_with(RwLock::default).take(N_SHARDS).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl fmt::Debug for HotRecords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HotRecords").finish_non_exhaustive()
    }
}

impl HotRecords {
    pub(crate) fn get(&self, key: &Key) -> Lookup {
        if !key.kind().is_hot() {
            return Lookup::Cold;
        }
        let shard = self.read(key);
        match shard.records.get(key) {
            Some(Kept::Known(value)) => Lookup::Known(value.clone()),
            Some(Kept::Changing) => Lookup::Cold,
            None => Lookup::Unknown(Ticket { version: shard.version }),
        }
    }

    /// Keeps a record that was fetched from the database after `ticket` was given.
    pub(crate) fn keep(&self, key: &Key, ticket: &Ticket, value: Option<Bytes>) {
        let mut shard = self.write(key);
        if shard.version != ticket.version {
            return;
        }
        shard.make_room();
        shard.records.insert(key.clone(), Kept::Known(value));
    }

    /// Marks what the writer is about to change.
    pub(crate) fn begin_change(&self, changes: &HashMap<Key, Option<Bytes>>) {
        for key in changes.keys().filter(|key| key.kind().is_hot()) {
            let mut shard = self.write(key);
            shard.version += 1;
            shard.make_room();
            shard.records.insert(key.clone(), Kept::Changing);
        }
    }

    /// Takes over what the writer has synced.
    pub(crate) fn end_change(&self, changes: &HashMap<Key, Option<Bytes>>) {
        for (key, value) in changes.iter().filter(|(key, _)| key.kind().is_hot()) {
            self.write(key).records.insert(key.clone(), Kept::Known(value.clone()));
        }
    }

    /// Forgets everything: after a failed write, and after the database was opened anew.
    pub(crate) fn forget(&self) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.version += 1;
            shard.records.clear();
        }
    }

    // No change of a shard can panic half-way, so a poisoned one is whole.

    fn read(&self, key: &Key) -> RwLockReadGuard<'_, Shard> {
        self.shards[self.index(key)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &Key) -> RwLockWriteGuard<'_, Shard> {
        self.shards[self.index(key)].write().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    fn index(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize % N_SHARDS
    }
}

impl Shard {
    /// Forgets everything when the shard is full, but for what the writer is at.
    fn make_room(&mut self) {
        if self.records.len() >= MAX_SHARD_RECORDS {
            self.records.retain(|_, kept| matches!(kept, Kept::Changing));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::KeyKind;

    fn key(name: &str) -> Key {
        Key::new(KeyKind::Mailbox, &[name.as_bytes()])
    }

    fn change(key: &Key, value: Option<&'static str>) -> HashMap<Key, Option<Bytes>> {
        HashMap::from([(key.clone(), value.map(Bytes::from))])
    }

    fn ticket(hot: &HotRecords, key: &Key) -> Ticket {
        match hot.get(key) {
            Lookup::Unknown(ticket) => ticket,
            _ => panic!("it is known or cold"),
        }
    }

    /// `-` for what is not known, `cold` for what is not to be kept.
    fn check(hot: &HotRecords, key: &Key, expect: &str) {
        let seen = match hot.get(key) {
            Lookup::Known(Some(value)) => String::from_utf8_lossy(&value).into_owned(),
            Lookup::Known(None) => "none".to_owned(),
            Lookup::Unknown(_) => "-".to_owned(),
            Lookup::Cold => "cold".to_owned(),
        };
        assert_eq!(seen, expect);
    }

    #[test]
    fn a_kept_record_follows_the_writer() {
        let (hot, key) = (HotRecords::default(), key("a"));
        check(&hot, &key, "-");
        hot.keep(&key, &ticket(&hot, &key), None);
        check(&hot, &key, "none");
        hot.begin_change(&change(&key, Some("1")));
        check(&hot, &key, "cold");
        hot.end_change(&change(&key, Some("1")));
        check(&hot, &key, "1");
        hot.begin_change(&change(&key, None));
        hot.end_change(&change(&key, None));
        check(&hot, &key, "none");
        hot.forget();
        check(&hot, &key, "-");
    }

    #[test]
    fn what_was_fetched_before_a_change_is_not_kept_after_it() {
        let (hot, key) = (HotRecords::default(), key("a"));
        let before = ticket(&hot, &key);
        hot.begin_change(&change(&key, Some("2")));
        hot.keep(&key, &before, Some(Bytes::from_static(b"1")));
        check(&hot, &key, "cold");
        hot.end_change(&change(&key, Some("2")));
        hot.keep(&key, &before, Some(Bytes::from_static(b"1")));
        check(&hot, &key, "2");
        hot.forget();
        let before = ticket(&hot, &key);
        hot.forget();
        hot.keep(&key, &before, Some(Bytes::from_static(b"1")));
        check(&hot, &key, "-");
    }

    #[test]
    fn there_is_a_bound_and_signals_are_not_kept() {
        let hot = HotRecords::default();
        let changing = key("changing");
        hot.begin_change(&change(&changing, None));
        for n in 0..2 * N_SHARDS * MAX_SHARD_RECORDS {
            let (read, written) = (key(&format!("read {n}")), key(&format!("written {n}")));
            hot.keep(&read, &ticket(&hot, &read), None);
            hot.begin_change(&change(&written, Some("1")));
            hot.end_change(&change(&written, Some("1")));
        }
        let n_records: usize =
            hot.shards.iter().map(|shard| shard.read().unwrap().records.len()).sum();
        assert!(n_records <= N_SHARDS * (MAX_SHARD_RECORDS + 1), "{n_records}");
        check(&hot, &changing, "cold");
        check(&hot, &Key::new(KeyKind::Signal, &[b"s"]), "cold");
    }
}
