//! The thread that writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use fjall::PersistMode;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::store::embedded::directory::Space;
use crate::store::embedded::hot::Lookup;
use crate::store::embedded::{Records, Shared, Trouble, io_error, read_error, unavailable};
use crate::store::{Batch, CommitError, Expect, Key, Operation, StoreError};

/// Most bytes in one group. A group is one entry of the journal and is in memory twice.
const MAX_GROUP_BYTES: usize = 8 << 20;

/// How often a failed database is tried again.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// How many full memory tables may wait to be flushed before the writer waits for them. fjall itself waits
/// at four, in a loop that would never end if the flush had failed meanwhile; this stays clear of it.
const MAX_SEALED_TABLES: usize = 2;

/// How long the writer sleeps while it waits for a flush.
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// How often it does so before it gives up on the database.
const MAX_FLUSH_PAUSES: usize = 4_000;

/// A commit on its way to the writer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) reply: oneshot::Sender<Result<(), CommitError>>,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Request>,
    /// What is written to; nothing after a failure.
    records: Option<Records>,
    /// When the failed database is tried again; nothing while all is well.
    next_attempt: Option<Instant>,
}

/// The records that a group has changed so far; `None` for a removed one.
type Overlay = HashMap<Key, Option<Bytes>>;

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, queue: Receiver<Request>, records: Records) -> Self {
        Writer { shared, queue, records: Some(records), next_attempt: None }
    }

    /// Writes until nobody can ask for it any more.
    pub(crate) fn run(mut self) {
        while let Some(group) = self.next_group() {
            self.write_group(group);
        }
    }

    /// Waits for commits, and tries to recover while it waits if that is needed. Nothing when nobody can
    /// ask for a commit any more.
    fn next_group(&mut self) -> Option<Vec<Request>> {
        while let Some(next_attempt) = self.next_attempt {
            let now = Instant::now();
            if now >= next_attempt {
                self.try_to_recover();
                // Counted from the end, so that a slow attempt leaves time to answer in between.
                self.next_attempt =
                    self.records.is_none().then(|| Instant::now() + RECOVERY_INTERVAL);
                continue;
            }
            match self.queue.recv_timeout(next_attempt - now) {
                Ok(first) => return Some(self.gather(first)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        let first = self.queue.recv().ok()?;
        Some(self.gather(first))
    }

    /// Takes what is queued.
    fn gather(&self, first: Request) -> Vec<Request> {
        let mut n_bytes = first.batch.n_bytes();
        let mut group = vec![first];
        while n_bytes < MAX_GROUP_BYTES {
            let Ok(next) = self.queue.try_recv() else {
                break;
            };
            n_bytes += next.batch.n_bytes();
            group.push(next);
        }
        group
    }

    fn write_group(&mut self, group: Vec<Request>) {
        let Some(records) = &self.records else {
            let error = self.trouble_error();
            answer_all(group, &error);
            return;
        };
        let space = match self.shared.directory.space() {
            Ok(space) => space,
            Err(error) => {
                let error = unavailable(&error.to_string()).into();
                return answer_all(group, &error);
            }
        };
        let mut overlay = Overlay::new();
        let mut accepted = Vec::with_capacity(group.len());
        for Request { batch, reply } in group {
            match check(&self.shared, records, &overlay, &batch, space) {
                Ok(()) => {
                    apply(&mut overlay, batch);
                    accepted.push(reply);
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        self.shared.hot.begin_change(&overlay);
        let result = records.write(&overlay);
        match &result {
            Ok(()) => self.shared.hot.end_change(&overlay),
            Err(_) => self.shared.hot.forget(),
        }
        for reply in accepted {
            // Acknowledged means durable: `write` has synced.
            let _ = reply.send(result.clone());
        }
        if let Err(error) = result {
            self.give_up(&error);
        }
    }

    /// Stops writing. Readers keep what is open.
    fn give_up(&mut self, error: &CommitError) {
        let trouble = Trouble {
            is_full: matches!(error, CommitError::Full { .. }),
            detail: match error {
                CommitError::Full { detail }
                | CommitError::Unavailable { detail }
                | CommitError::Corrupt { detail } => detail.clone(),
                other => other.to_string(),
            },
        };
        tracing::error!(
            detail = trouble.detail,
            "the store cannot write; it is tried again every second"
        );
        self.records = None;
        self.next_attempt = Some(Instant::now() + RECOVERY_INTERVAL);
        self.shared.change(|state| state.trouble = Some(trouble));
    }

    fn trouble_error(&self) -> CommitError {
        match self.shared.trouble() {
            Some(Trouble { is_full: true, detail }) => CommitError::Full { detail },
            Some(trouble) => unavailable(&trouble.detail).into(),
            None => unavailable("the database is being opened again").into(),
        }
    }

    /// Opens the database anew if the directory takes writes again.
    fn try_to_recover(&mut self) {
        let directory = &self.shared.directory;
        // First, because what they keep may be what fills the disk.
        self.shared.lent.take_back();
        let is_writable =
            directory.space().is_ok_and(|space| !space.is_short()) && directory.probe().is_ok();
        if !is_writable {
            return;
        }
        // The last handle but those of reads that are just running; fjall closes with the last one.
        self.shared.change(|state| state.records = None);
        self.shared.lent.take_back();
        directory.forget_cached_pages();
        match Records::open(&directory.database_path()) {
            Ok(records) => {
                tracing::info!("the store writes again");
                self.shared.hot.forget();
                self.shared.change(|state| {
                    state.records = Some(records.clone());
                    state.trouble = None;
                });
                self.records = Some(records);
            }
            Err(error) => {
                tracing::error!(%error, "failed to open the store's database again");
                let detail = error.to_string();
                self.shared.change(|state| {
                    state.trouble = Some(Trouble { is_full: is_disk_full(&error), detail });
                });
            }
        }
    }
}

impl Records {
    /// Writes and syncs what a group has changed.
    fn write(&self, overlay: &Overlay) -> Result<(), CommitError> {
        if overlay.is_empty() {
            return Ok(());
        }
        self.wait_for_flushes()?;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in overlay {
            match value {
                Some(value) => batch.insert(&self.keyspace, key.to_bytes(), value.clone()),
                None => batch.remove(&self.keyspace, key.to_bytes()),
            }
        }
        batch.commit().map_err(|error| write_error(&error))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this thread has no runtime, and fjall tells nobody when a flush has ended"
    )]
    fn wait_for_flushes(&self) -> Result<(), CommitError> {
        for _ in 0..MAX_FLUSH_PAUSES {
            if self.keyspace.sealed_memtable_count() <= MAX_SEALED_TABLES {
                return Ok(());
            }
            // Fails when a flush has failed.
            self.database.persist(PersistMode::Buffer).map_err(|error| write_error(&error))?;
            std::thread::sleep(FLUSH_PAUSE);
        }
        Err(unavailable("the database has stopped flushing").into())
    }
}

fn write_error(error: &fjall::Error) -> CommitError {
    if is_disk_full(error) {
        return CommitError::Full { detail: error.to_string() };
    }
    read_error(error).into()
}

/// Whether the commit may be done, as the records are and as the group so far leaves them.
fn check(
    shared: &Shared,
    records: &Records,
    overlay: &Overlay,
    batch: &Batch,
    space: Space,
) -> Result<(), CommitError> {
    for expectation in batch.expectations() {
        let holds = match overlay.get(expectation.key()) {
            Some(value) => expectation.holds(value.as_deref()),
            None => match shared.hot.get(expectation.key()) {
                Lookup::Known(value) => expectation.holds(value.as_deref()),
                Lookup::Unknown(_) | Lookup::Cold => holds_on_disk(records, expectation)?,
            },
        };
        if !holds {
            return Err(CommitError::Conflict { kind: expectation.key().kind() });
        }
    }
    let removes = |operation: &Operation| matches!(operation, Operation::Delete(_));
    let has_no_room = if batch.operations().iter().any(removes) {
        space.is_gone()
    } else {
        space.is_short() && !batch.operations().is_empty()
    };
    if has_no_room {
        return Err(CommitError::Full {
            detail: "the free space of the file system is below the reserve".to_owned(),
        });
    }
    Ok(())
}

fn holds_on_disk(records: &Records, expectation: &Expect) -> Result<bool, StoreError> {
    // The one writer sees its own writes; no snapshot is needed.
    let value = records.keyspace.get(expectation.key().as_bytes());
    let value = value.map_err(|error| read_error(&error))?;
    Ok(expectation.holds(value.as_deref()))
}

fn apply(overlay: &mut Overlay, batch: Batch) {
    let (_, operations) = batch.into_parts();
    for operation in operations {
        match operation {
            Operation::Put(key, value) => overlay.insert(key, Some(value)),
            Operation::Delete(key) => overlay.insert(key, None),
        };
    }
}

fn answer_all(group: Vec<Request>, error: &CommitError) {
    for request in group {
        let _ = request.reply.send(Err(error.clone()));
    }
}

fn is_disk_full(error: &fjall::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    io_error(error).is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}
