//! The default store: one directory on one disk, nothing to install.
//!
//! # On disk
//!
//! ```text
//! DIR/lock      held by the relay that uses the directory; names its process
//! DIR/format    "heliograph store 1": what a later version needs to know before it touches anything
//! DIR/db/       a fjall database (a log-structured merge tree) with one keyspace, "records"
//! DIR/restoring a backup on its way to become DIR/db; there only while it is restored
//! ```
//!
//! Keys and values are those of [`crate::store`], unchanged; one keyspace keeps one journal and one memory
//! table busy. What the keys mean is the business of the domain.
//!
//! # Commits
//!
//! One thread writes. Commits reach it through a bounded queue, and it takes all that wait as one group:
//! it checks their expectations in order, each against the records as the earlier ones of the group leave
//! them, writes everything that passed as one fjall batch, syncs the journal once, and only then answers
//! all of them. While it syncs, the next group gathers by itself; there is no timer. So the sync costs one
//! client its full time and a hundred clients a hundredth each. Readers never wait for the writer: they
//! see a group after its sync, all of it at once.
//!
//! The few records that every signal reads (accounts, containers, handles, heads of mailboxes) are kept in
//! memory as they are on disk; see `hot`.
//!
//! # Crashes
//!
//! A group is one entry of the journal with a checksum. After a crash the journal is replayed, and an
//! entry that is cut short is dropped as a whole. What was acknowledged had been synced, so it is there;
//! what was not may be there too, as a whole.
//!
//! # Failed writes, full disks
//!
//! When a write or a sync fails, nobody can tell how much of the group has reached the disk, and fjall
//! refuses every further write (it calls the database poisoned). The group is answered with an error. The
//! writer keeps the open database for readers, answers commits at once with what went wrong, and tries
//! every second whether the directory takes and syncs a megabyte again. When it does, the database is
//! closed and opened anew, which replays the journal: what was acknowledged comes back, and the failed
//! group is there entirely or not at all. Before that the kernel is told to forget the pages of the files,
//! because after a failed sync it may show bytes from memory that never reached the disk.
//!
//! A disk that is merely filling up never gets that far: the writer looks at the free space before every
//! group and refuses while less than a reserve is left. Changes that remove something may use part of the
//! reserve, so that reading signals empties a full relay.
//!
//! That holds from a file system of some 512 MiB on. fjall begins a new journal at 64 MiB only and keeps the old
//! one until its records are in tables, and a flush needs room for all of the memory table; the reserve, a part
//! of the file system, is smaller than that on a small one. Seen on 24 MiB: a flush fails, nothing is written
//! any more although some space is free again, and all is well within two seconds of there being enough.
//!
//! # Choices not taken
//!
//! * redb and SQLite: measured slower for many small synced commits (design notes: at groups of 128,
//!   330,000 records a second against 81,000 and 57,000), both sound.
//! * A sync for each commit: one client's latency would be the same, throughput that of the disk.
//! * A delay that lets groups grow: it helps only a disk so slow that groups grow by themselves.
//! * fjall's own transactions: with one writer, expectations need no second mechanism.

mod directory;
mod hot;
mod picture;
pub mod restoring;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::store::embedded::directory::Directory;
use crate::store::embedded::hot::{HotRecords, Lookup};
use crate::store::embedded::picture::LentPictures;
use crate::store::embedded::writer::{Request, Writer};
use crate::store::snapshot::Snapshot;
use crate::store::{Batch, CommitError, Key, Store, StoreError};

/// How many commits may wait for the writer. At the slowest disk that is any use (100 syncs a second) the
/// last one waits for some ten groups; one more is told to come again.
const MAX_QUEUED_COMMITS: usize = 4_096;

/// How much is gathered in memory before it is sorted into a table. A flush needs this much free space,
/// and a restart replays up to this much and the journal behind it.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// How much of the tables is kept in memory. Signals are read once or twice, soon after they were written,
/// and then come from the memory table.
const CACHE_BYTES: u64 = 16 << 20;

/// Threads that flush and compact. Two, so that a long compaction does not hold up a flush.
const N_WORKER_THREADS: usize = 2;

/// Up to this many records are read in the caller's own thread; reading more might hold up other requests
/// there, and is done elsewhere.
const MAX_INLINE_SCAN: usize = 64;

/// See the module's own words.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// Taken away when the store is dropped, which makes the writer finish.
    requests: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// Why a data directory could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another relay uses it. `owner` is its process, if that can be told.
    #[error(
        "the data directory {} is in use by another relay{}",
        path.display(),
        owner.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse { path: PathBuf, owner: Option<u32> },
    /// The directory was written by a version that knows more than this one.
    #[error(
        "the data directory {} has the format \"{found}\", and this version reads \"{expected}\" only",
        path.display()
    )]
    Format { path: PathBuf, found: String, expected: &'static str },
    /// A backup was to be restored into it, and that did not come to its end.
    #[error(
        "the data directory {} has a restore in it that was interrupted: empty it, and restore again",
        path.display()
    )]
    HalfRestored { path: PathBuf },
    /// A backup is restored into an empty directory only.
    #[error("the data directory {} is not empty: there is \"{found}\" in it", path.display())]
    NotEmpty { path: PathBuf, found: String },
    /// A file of the directory itself.
    #[error("failed to {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// The database in it.
    #[error("failed to open the database {}", path.display())]
    Database { path: PathBuf, source: fjall::Error },
    /// The thread that writes.
    #[error("failed to start the writer")]
    Thread { source: io::Error },
}

/// What readers and the writer share.
#[derive(Debug)]
struct Shared {
    directory: Directory,
    state: RwLock<State>,
    hot: HotRecords,
    lent: LentPictures,
}

struct State {
    /// Missing only for the moment in which the database is opened anew.
    records: Option<Records>,
    /// Why commits fail at present.
    trouble: Option<Trouble>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("trouble", &self.trouble).finish_non_exhaustive()
    }
}

/// An open database. Cloning it gives a second handle; the last one that is dropped closes it.
#[derive(Clone)]
struct Records {
    database: Database,
    keyspace: Keyspace,
}

/// Why commits fail until the database has been opened anew.
#[derive(Debug, Clone)]
struct Trouble {
    is_full: bool,
    detail: String,
}

impl EmbeddedStore {
    /// Opens the data directory, making what is missing. It belongs to this process until the store is
    /// dropped, or the process ends in whatever way.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let directory = Directory::open(path)?;
        if directory.restoring_path().exists() {
            return Err(OpenError::HalfRestored { path: path.to_owned() });
        }
        let records = Records::open(&directory.database_path())
            .map_err(|source| OpenError::Database { path: directory.database_path(), source })?;
        let shared = Arc::new(Shared {
            directory,
            state: RwLock::new(State { records: Some(records.clone()), trouble: None }),
            hot: HotRecords::default(),
            lent: LentPictures::default(),
        });
        let (requests, queue) = sync_channel(MAX_QUEUED_COMMITS);
        let writer = Writer::new(Arc::clone(&shared), queue, records);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Thread { source })?;
        Ok(EmbeddedStore { shared, requests: Some(requests), writer: Some(thread) })
    }
}

impl Drop for EmbeddedStore {
    /// Lets the writer answer what is queued, then closes the database and frees the directory.
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so on stderr; there is nothing left to close.
            let _ = writer.join();
        }
        self.shared.change(|state| state.records = None);
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("shared", &self.shared).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let ticket = match self.shared.hot.get(key) {
            Lookup::Known(value) => return Ok(value),
            Lookup::Unknown(ticket) => Some(ticket),
            Lookup::Cold => None,
        };
        let value = self.shared.records()?.picture().get(key)?;
        if let Some(ticket) = ticket {
            self.shared.hot.keep(key, &ticket, value.clone());
        }
        Ok(value)
    }

    async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        self.shared.records()?.picture().scan_aside(prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        batch.check_size()?;
        let (reply, answer) = oneshot::channel();
        let Some(requests) = &self.requests else {
            return Err(unavailable("the store is closed").into());
        };
        requests.try_send(Request { batch, reply }).map_err(|error| match error {
            TrySendError::Full(_) => CommitError::Overloaded,
            TrySendError::Disconnected(_) => unavailable("the writer has stopped").into(),
        })?;
        answer.await.unwrap_or_else(|_| Err(unavailable("the writer has stopped").into()))
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.shared.records()?;
        if let Some(trouble) = self.shared.trouble() {
            return Err(unavailable(&trouble.detail));
        }
        match self.shared.directory.space() {
            Ok(space) if space.is_short() => Err(unavailable("the disk is full")),
            Ok(_) => Ok(()),
            Err(error) => Err(unavailable(&error.to_string())),
        }
    }

    fn snapshot(&self) -> Result<Option<Box<dyn Snapshot>>, StoreError> {
        let picture = self.shared.records()?.picture();
        Ok(Some(Box::new(self.shared.lent.lend(picture))))
    }
}

impl Shared {
    fn records(&self) -> Result<Records, StoreError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.records.clone().ok_or_else(|| unavailable("the database is being opened again"))
    }

    fn trouble(&self) -> Option<Trouble> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.trouble.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // No change can panic, so the state is always a whole one.
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Records {
    fn open(path: &Path) -> Result<Self, fjall::Error> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .worker_threads(N_WORKER_THREADS)
            // Nothing is written but by the writer's batches, which say themselves when to sync.
            .manual_journal_persist(true)
            .open()?;
        let keyspace = database.keyspace("records", || {
            KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
        })?;
        Ok(Records { database, keyspace })
    }
}

fn unavailable(detail: &str) -> StoreError {
    StoreError::Unavailable { detail: detail.to_owned() }
}

fn read_error(error: &fjall::Error) -> StoreError {
    if let Some(io) = io_error(error) {
        return unavailable(&io.to_string());
    }
    // Poisoned: an earlier write or a flush in the background has failed, and opening the database
    // anew is what helps.
    if matches!(error, fjall::Error::Poisoned | fjall::Error::Locked) {
        return unavailable(&error.to_string());
    }
    StoreError::Corrupt { detail: error.to_string() }
}

/// The failure of the operating system behind an error of the database, if there is one.
fn io_error(error: &fjall::Error) -> Option<&io::Error> {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => Some(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
