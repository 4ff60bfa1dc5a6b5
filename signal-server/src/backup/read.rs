//! Reading a backup: to see that it is whole, and to put it into a data directory.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use thiserror::Error;

use crate::backup::MAGIC;
use crate::migrate::{Contents, MigrateError, Side, Tally, contents};
use crate::store::embedded::OpenError;
use crate::store::embedded::restoring::Restoring;
use crate::store::{
    Batch, CommitError, Key, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_KEY_BYTES, Store,
};

/// How many commits are under way at once, so that they share the store's syncs.
const N_COMMITS: usize = 16;

/// What may lie in a directory into which a backup is restored: the operator's token, which is no record, and
/// what a file system of its own has at its top.
const MAY_BE_THERE: [&str; 2] = ["operator.token", "lost+found"];

/// Why a backup is of no use, or could not be restored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    #[error("failed to read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is not a backup that this version reads", path.display())]
    NotABackup { path: PathBuf },
    #[error("the backup {} is cut short: it ends at byte {at}, in record {record}", path.display())]
    CutShort { path: PathBuf, at: u64, record: u64 },
    #[error("the backup {} is damaged: record {record}, at byte {at}, {what}", path.display())]
    Damaged { path: PathBuf, at: u64, record: u64, what: &'static str },
    #[error(
        "the backup {} is damaged: its end names {named}, and there are {found}",
        path.display()
    )]
    Differs { path: PathBuf, named: Contents, found: Contents },
    #[error("the backup {} is damaged: there are bytes behind its end, at byte {at}", path.display())]
    Longer { path: PathBuf, at: u64 },
    #[error("failed to prepare the data directory")]
    Open { source: OpenError },
    #[error("failed to write into the data directory")]
    Write { source: CommitError },
    #[error("failed to read what was restored")]
    ReadBack { source: MigrateError },
    #[error("not what was in the backup was restored: {restored} instead of {expected}")]
    NotTheSame { expected: Contents, restored: Contents },
    #[error("failed to put the restored store in its place")]
    Finish { source: OpenError },
}

/// Reads a backup to its end, and tells what is in it.
pub fn check(path: &Path) -> Result<Contents, BackupError> {
    let mut records = Records::open(path)?;
    while records.next()?.is_some() {}
    records.contents()
}

/// Puts a backup into a data directory that is empty or not there. The file is read to its end before
/// anything is made, and what was restored is read back before it is in its place.
pub async fn restore(path: &Path, data_dir: &Path) -> Result<Contents, BackupError> {
    let expected = check(path)?;
    let restoring =
        Restoring::begin(data_dir, &MAY_BE_THERE).map_err(|source| BackupError::Open { source })?;
    let store = restoring.store();
    let batches = Batches { records: Records::open(path)?, next: None };
    stream::iter(batches)
        .try_for_each_concurrent(N_COMMITS, |batch| async {
            store.commit(batch).await.map_err(|source| BackupError::Write { source })
        })
        .await?;
    let restored = contents(store, Side::Second).await;
    let restored = restored.map_err(|source| BackupError::ReadBack { source })?;
    if restored != expected {
        return Err(BackupError::NotTheSame { expected, restored });
    }
    restoring.finish().map_err(|source| BackupError::Finish { source })?;
    Ok(restored)
}

/// The records of a file, one after the other.
struct Records {
    path: PathBuf,
    file: BufReader<File>,
    /// How many bytes have been read.
    at: u64,
    n_records: u64,
    /// The last key, which the next one has to follow.
    last: Option<Key>,
    tally: Tally,
    /// What the end of the file says, once it is reached.
    named: Option<Contents>,
}

impl Records {
    fn open(path: &Path) -> Result<Records, BackupError> {
        let failed = |source| BackupError::File { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let mut magic = [0; MAGIC.len()];
        match file.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(failed(error));
            }
            _ => return Err(BackupError::NotABackup { path: path.to_owned() }),
        }
        Ok(Records {
            path: path.to_owned(),
            file,
            at: MAGIC.len() as u64,
            n_records: 0,
            last: None,
            tally: Tally::default(),
            named: None,
        })
    }

    /// The next record; nothing at the end.
    fn next(&mut self) -> Result<Option<(Key, Bytes)>, BackupError> {
        if self.named.is_some() {
            return Ok(None);
        }
        let begin = self.at;
        let key_length = usize::from(u16::from_le_bytes(self.array()?));
        if key_length == 0 {
            let n_records = u64::from_le_bytes(self.array()?);
            self.named = Some(Contents { n_records, digest: self.array()? });
            return Ok(None);
        }
        let damaged = |records: &Records, what| BackupError::Damaged {
            path: records.path.clone(),
            at: begin,
            record: records.n_records + 1,
            what,
        };
        let value_length = u32::from_le_bytes(self.array()?) as usize;
        if key_length > MAX_KEY_BYTES || value_length > MAX_BATCH_BYTES {
            return Err(damaged(self, "is longer than any that a relay writes"));
        }
        let key = Key::from_bytes(self.bytes(key_length)?);
        let key = key.ok_or_else(|| damaged(self, "has a key of no known kind"))?;
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(damaged(self, "does not follow the one before it"));
        }
        let value = self.bytes(value_length)?;
        self.tally.add(&key, &value);
        self.n_records += 1;
        self.last = Some(key.clone());
        Ok(Some((key, value)))
    }

    /// What was in the file, if it is what the file's end says, and nothing follows.
    fn contents(mut self) -> Result<Contents, BackupError> {
        let mut more = [0];
        let n_more = self.file.read(&mut more);
        let n_more = n_more.map_err(|source| BackupError::File { path: self.path.clone(), source });
        if n_more? > 0 {
            return Err(BackupError::Longer { path: self.path, at: self.at });
        }
        let found = self.tally.contents();
        match self.named {
            Some(named) if named == found => Ok(found),
            Some(named) => Err(BackupError::Differs { path: self.path, named, found }),
            None => {
                let (path, at) = (self.path, self.at);
                Err(BackupError::CutShort { path, at, record: self.n_records + 1 })
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn bytes(&mut self, length: usize) -> Result<Bytes, BackupError> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes.into())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        let mut n_read = 0;
        while n_read < buffer.len() {
            match self.file.read(&mut buffer[n_read..]) {
                Ok(0) => {
                    let (path, at) = (self.path.clone(), self.at);
                    return Err(BackupError::CutShort { path, at, record: self.n_records + 1 });
                }
                Ok(n) => {
                    n_read += n;
                    self.at += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(BackupError::File { path: self.path.clone(), source }),
            }
        }
        Ok(())
    }
}

/// The records of a file, as commits.
struct Batches {
    records: Records,
    /// The record that did not fit into the last commit.
    next: Option<(Key, Bytes)>,
}

impl Batches {
    fn batch(&mut self) -> Result<Option<Batch>, BackupError> {
        let mut batch = Batch::new();
        loop {
            let next = match self.next.take() {
                Some(next) => Some(next),
                None => self.records.next()?,
            };
            let Some((key, value)) = next else { break };
            let n_bytes = batch.n_bytes() + key.as_bytes().len() + value.len();
            if batch.n_operations() == MAX_BATCH_OPERATIONS || n_bytes > MAX_BATCH_BYTES {
                self.next = Some((key, value));
                break;
            }
            batch.put(key, value);
        }
        Ok((batch.n_operations() > 0).then_some(batch))
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BackupError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}
