//! Writing a backup, a piece at a time, for somebody who may be slow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::backup::MAGIC;
use crate::error::chain;
use crate::migrate::{Tally, ordered_kinds};
use crate::store::snapshot::Snapshot;
use crate::store::{Key, Store, StoreError};

/// How many records are read at a time. Few enough that the largest ones fit into memory, and more than are
/// read in the thread of a request.
const PAGE: usize = 100;

/// A piece is handed on when it has this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// How many pieces wait for a reader: enough to read and send at the same time.
const MAX_WAITING_PIECES: usize = 2;

/// How long a reader may take none. The store keeps what has been replaced since the snapshot for as long
/// as a backup lasts, so one whose reader has gone to sleep is given up.
const MAX_STALL: Duration = Duration::from_secs(60);

/// Takes backups of one store, one at a time.
#[derive(Clone, Debug)]
pub(crate) struct Backups {
    store: Arc<dyn Store>,
    turn: Arc<Semaphore>,
}

/// Why no backup was begun.
#[derive(Debug, Error)]
pub(crate) enum TakeError {
    #[error("another backup is being taken")]
    Busy,
    #[error("the store of this relay has backups of its own")]
    Unsupported,
    #[error("failed to read the store")]
    Read { source: StoreError },
}

/// Ends a backup without the mark of its end.
#[derive(Debug, Error)]
#[error("the backup was not finished")]
pub(crate) struct Unfinished;

type Piece = Result<Bytes, Unfinished>;

impl Backups {
    pub(crate) fn new(store: Arc<dyn Store>) -> Backups {
        Backups { store, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Begins a backup of the store as it is now. The pieces of the file follow.
    pub(crate) fn take(&self) -> Result<Receiver<Piece>, TakeError> {
        let turn = self.turn.clone().try_acquire_owned().map_err(|_| TakeError::Busy)?;
        let snapshot = self.store.snapshot().map_err(|source| TakeError::Read { source })?;
        let snapshot = snapshot.ok_or(TakeError::Unsupported)?;
        Ok(begin(snapshot, turn))
    }
}

fn begin(snapshot: Box<dyn Snapshot>, turn: OwnedSemaphorePermit) -> Receiver<Piece> {
    let (pieces, receiver) = channel(MAX_WAITING_PIECES);
    tokio::spawn(write(snapshot, Pieces { pieces, buffer: Vec::new() }, turn));
    receiver
}

async fn write(snapshot: Box<dyn Snapshot>, mut pieces: Pieces, _turn: OwnedSemaphorePermit) {
    match write_all(snapshot.as_ref(), &mut pieces).await {
        Ok(n_records) => tracing::info!(n_records, "a backup was taken"),
        Err(Stop::ReaderGone) => tracing::warn!("a backup was given up: its reader has gone"),
        Err(Stop::Read(error)) => {
            tracing::error!(error = %chain(&error), "a backup was given up");
            // The connection is cut: without the end, nobody takes this for a backup.
            let _ = timeout(MAX_STALL, pieces.pieces.send(Err(Unfinished))).await;
        }
    }
}

/// Why a backup ends before its end.
enum Stop {
    ReaderGone,
    Read(StoreError),
}

async fn write_all(snapshot: &dyn Snapshot, pieces: &mut Pieces) -> Result<u64, Stop> {
    pieces.buffer.extend_from_slice(MAGIC);
    let mut tally = Tally::default();
    for kind in ordered_kinds() {
        let prefix = Key::new(kind, &[]);
        let mut after = None;
        loop {
            let page = snapshot.scan(&prefix, after.as_ref(), PAGE).await.map_err(Stop::Read)?;
            for (key, value) in &page {
                tally.add(key, value);
                pieces.add_record(key, value)?;
                pieces.send_if_large().await?;
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                _ => break,
            }
        }
    }
    let contents = tally.contents();
    pieces.buffer.extend_from_slice(&0u16.to_le_bytes());
    pieces.buffer.extend_from_slice(&contents.n_records.to_le_bytes());
    pieces.buffer.extend_from_slice(&contents.digest);
    pieces.send().await?;
    Ok(contents.n_records)
}

/// What has been written, on its way to the reader.
struct Pieces {
    pieces: Sender<Piece>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn add_record(&mut self, key: &Key, value: &Bytes) -> Result<(), Stop> {
        let key = key.as_bytes();
        let lengths = (u16::try_from(key.len()), u32::try_from(value.len()));
        let (Ok(key_length), Ok(value_length)) = lengths else {
            let detail = "a record is longer than any that the relay writes".to_owned();
            return Err(Stop::Read(StoreError::Corrupt { detail }));
        };
        self.buffer.extend_from_slice(&key_length.to_le_bytes());
        self.buffer.extend_from_slice(&value_length.to_le_bytes());
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        Ok(())
    }

    async fn send_if_large(&mut self) -> Result<(), Stop> {
        if self.buffer.len() < PIECE_BYTES {
            return Ok(());
        }
        self.send().await
    }

    async fn send(&mut self) -> Result<(), Stop> {
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        match timeout(MAX_STALL, self.pieces.send(Ok(piece))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Stop::ReaderGone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_fails_ends_a_backup_without_its_end() {
        #[derive(Debug)]
        struct Broken;

        #[async_trait::async_trait]
        impl Snapshot for Broken {
            async fn scan(
                &self,
                _prefix: &Key,
                _after: Option<&Key>,
                _limit: usize,
            ) -> Result<Vec<(Key, Bytes)>, StoreError> {
                Err(StoreError::Corrupt { detail: "ordered".to_owned() })
            }
        }

        let mut pieces = begin(
            Box::new(Broken),
            Arc::new(Semaphore::new(1)).acquire_owned().await.expect("a turn"),
        );
        let mut ended_badly = false;
        while let Some(piece) = pieces.recv().await {
            ended_badly = piece.is_err();
        }
        assert!(ended_badly);
    }
}
