//! Removes what nobody came for, a bounded number of records at a time.
//!
//! The sweep walks over all records of a few kinds, always in the same order, and remembers where it
//! stopped. There is no index by time to keep: a hundred thousand mailboxes are looked at within seconds, and
//! nothing here is in a hurry. Of several relays on one store one does it at a time; should two meet all the
//! same, each change is conditional, so the second one finds it done.
//!
//! | kind | removed when |
//! |---|---|
//! | garbage | always: its container, mailbox or handle is gone already |
//! | pending signals | their mailbox has not been used for `signal_retention` |
//! | mailbox without signals | not used for `mailbox_retention` |
//! | native handle | its time was over `handle_retention` ago |
//! | container | made `container_retention` ago, and neither a mailbox nor a plain object is in it; or deleted, see `deleted` |
//!
//! Plain objects are never removed: Heat reads the metadata of a server for as long as the server lives.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use signal_protocol::handle::HandleId;

use crate::mailbox::error::MailboxError;
use crate::mailbox::handle::later;
use crate::mailbox::limits::MAX_SWEPT_RECORDS;
use crate::mailbox::record::{ContainerRecord, HandleRecord, HeadRecord, Number, decode};
use crate::mailbox::{Shared, key};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind};

/// The kinds that the sweep walks over, in this order. Containers come last, so that one whose last
/// mailbox has just gone goes in the same round.
const PHASES: [KeyKind; 4] =
    [KeyKind::Garbage, KeyKind::Mailbox, KeyKind::Handle, KeyKind::Container];

/// Signals that are removed by one commit: each needs two operations of the 128 that a batch may have.
const SIGNALS_PER_COMMIT: usize = 60;

/// Records that are removed by one commit.
const RECORDS_PER_COMMIT: usize = 60;

/// What one call of [`Mailboxes::sweep`](crate::mailbox::Mailboxes::sweep) did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Records looked at.
    pub n_examined: usize,
    /// Pending signals that nobody came for.
    pub n_signals: u64,
    /// Mailboxes below a container that nobody used any more.
    pub n_mailboxes: usize,
    /// Native handles whose time and retention were over.
    pub n_handles: usize,
    /// Empty containers.
    pub n_containers: usize,
    /// What was deleted before, and whose parts are gone now.
    pub n_garbage: usize,
    /// Whether this call reached the end, so that the next one begins anew.
    pub finished_round: bool,
}

impl SweepReport {
    /// Whether anything was removed.
    pub fn has_removed(&self) -> bool {
        let n_records = self.n_mailboxes + self.n_handles + self.n_containers + self.n_garbage;
        n_records > 0 || self.n_signals > 0
    }
}

/// Where the last sweep stopped.
#[derive(Debug, Default)]
pub(crate) struct SweepCursor {
    position: Mutex<Position>,
}

#[derive(Debug, Clone, Default)]
struct Position {
    phase: usize,
    after: Option<Key>,
}

impl Shared {
    pub(crate) async fn sweep(
        self: &Arc<Self>,
        now: Timestamp,
    ) -> Result<SweepReport, MailboxError> {
        let mut report = SweepReport::default();
        let mut position = self.sweep_cursor.get();
        while report.n_examined < MAX_SWEPT_RECORDS {
            let Some(kind) = PHASES.get(position.phase) else {
                report.finished_round = true;
                position = Position::default();
                break;
            };
            let wanted = MAX_SWEPT_RECORDS - report.n_examined;
            let prefix = Key::new(*kind, &[]);
            let page = self.scan(&prefix, position.after.as_ref(), wanted).await?;
            let is_last = page.len() < wanted;
            for (record_key, bytes) in page {
                report.n_examined += 1;
                // Before anything is done: a record that fails must not hold up all that follow, and comes
                // again in the next round.
                position.after = Some(record_key.clone());
                self.sweep_cursor.set(position.clone());
                self.sweep_record(&record_key, &bytes, now, &mut report).await?;
            }
            if is_last {
                position = Position { phase: position.phase + 1, after: None };
            }
        }
        self.sweep_cursor.set(position);
        Ok(report)
    }

    async fn sweep_record(
        self: &Arc<Self>,
        record_key: &Key,
        bytes: &Bytes,
        now: Timestamp,
        report: &mut SweepReport,
    ) -> Result<(), MailboxError> {
        match record_key.kind() {
            KeyKind::Garbage => self.sweep_garbage(record_key, report).await,
            KeyKind::Mailbox => self.sweep_mailbox(record_key, bytes, now, report).await,
            KeyKind::Handle => self.sweep_handle(record_key, bytes, now, report).await,
            KeyKind::Container => self.sweep_container(record_key, bytes, now, report).await,
            _ => Ok(()),
        }
    }

    /// Removes everything that lies under a number, then the note.
    async fn sweep_garbage(
        &self,
        note: &Key,
        report: &mut SweepReport,
    ) -> Result<(), MailboxError> {
        let Some(number) = key::number_after(note, &Key::new(KeyKind::Garbage, &[])) else {
            return Err(MailboxError::BadRecord { kind: KeyKind::Garbage });
        };
        for kind in [KeyKind::Mailbox, KeyKind::Signal, KeyKind::SignalBody, KeyKind::Seen] {
            self.remove_under(kind, number).await?;
        }
        let mut batch = Batch::new();
        batch.delete(note.clone());
        self.store.commit(batch).await.map_err(MailboxError::Write)?;
        report.n_garbage += 1;
        Ok(())
    }

    async fn remove_under(&self, kind: KeyKind, number: Number) -> Result<(), MailboxError> {
        let prefix = key::under(kind, number);
        loop {
            let page = self.scan(&prefix, None, RECORDS_PER_COMMIT).await?;
            if page.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (record_key, bytes) in page {
                if kind == KeyKind::Mailbox {
                    let head: HeadRecord = decode(kind, &bytes)?;
                    batch.put(key::garbage(head.number), Bytes::new());
                }
                batch.delete(record_key);
            }
            self.store.commit(batch).await.map_err(MailboxError::Write)?;
        }
    }

    async fn sweep_mailbox(
        self: &Arc<Self>,
        head_key: &Key,
        bytes: &Bytes,
        now: Timestamp,
        report: &mut SweepReport,
    ) -> Result<(), MailboxError> {
        let head: HeadRecord = decode(KeyKind::Mailbox, bytes)?;
        let (signals_end, mailbox_end) = self.ends(&head);
        let is_due = now > if head.n_pending > 0 { signals_end } else { mailbox_end };
        if !is_due {
            return Ok(());
        }
        let (shared, turn) = (Arc::clone(self), head_key.clone());
        let (n_signals, is_removed) = self
            .in_turn(head_key.clone(), async move { shared.expire_mailbox(&turn, now).await })
            .await?;
        report.n_signals += n_signals;
        report.n_mailboxes += usize::from(is_removed);
        Ok(())
    }

    fn ends(&self, head: &HeadRecord) -> (Timestamp, Timestamp) {
        (
            later(head.used_at, self.limits.signal_retention),
            later(head.used_at, self.limits.mailbox_retention),
        )
    }

    /// Looks again in the mailbox's turn, and removes what is due: all signals, or the mailbox. A removal
    /// of signals counts as use, so the mailbox stays for its own retention after it.
    async fn expire_mailbox(
        &self,
        head_key: &Key,
        now: Timestamp,
    ) -> Result<(u64, bool), MailboxError> {
        let mut n_removed = 0;
        let (mut before, mut head) = match self.head(head_key).await {
            Ok(found) => found,
            Err(MailboxError::ObjectNotFound) => return Ok((0, false)),
            Err(error) => return Err(error),
        };
        let (signals_end, mailbox_end) = self.ends(&head);
        while head.n_pending > 0 && now > signals_end {
            let signals = self.oldest_signals(&head, SIGNALS_PER_COMMIT).await?;
            let n_signals = signals.len() as u64;
            if n_signals == 0 || !self.remove(head_key, before, head, signals).await? {
                // Used by somebody else at this very moment: not abandoned after all.
                return Ok((n_removed, false));
            }
            n_removed += n_signals;
            (before, head) = self.head(head_key).await?;
        }
        if n_removed > 0 || head.n_pending > 0 || now <= mailbox_end {
            return Ok((n_removed, false));
        }
        let mut batch = Batch::new();
        batch.expect(Expect::Value(head_key.clone(), before));
        batch.delete(head_key.clone());
        batch.put(key::garbage(head.number), Bytes::new());
        match self.store.commit(batch).await {
            Ok(()) => Ok((0, true)),
            Err(CommitError::Conflict { .. }) => Ok((0, false)),
            Err(error) => Err(MailboxError::Write(error)),
        }
    }

    async fn sweep_handle(
        self: &Arc<Self>,
        handle_key: &Key,
        bytes: &Bytes,
        now: Timestamp,
        report: &mut SweepReport,
    ) -> Result<(), MailboxError> {
        let record: HandleRecord = decode(KeyKind::Handle, bytes)?;
        if now <= later(record.expires_at, self.limits.handle_retention) {
            return Ok(());
        }
        let Some(number) = key::number_after(handle_key, &Key::new(KeyKind::Handle, &[])) else {
            return Err(MailboxError::BadRecord { kind: KeyKind::Handle });
        };
        match self.delete_handle(&HandleId::from_random(number.0)).await {
            Ok(()) => report.n_handles += 1,
            Err(MailboxError::HandleNotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn sweep_container(
        self: &Arc<Self>,
        container_key: &Key,
        bytes: &Bytes,
        now: Timestamp,
        report: &mut SweepReport,
    ) -> Result<(), MailboxError> {
        let record: ContainerRecord = decode(KeyKind::Container, bytes)?;
        let is_old = now > later(record.created_at, self.limits.container_retention);
        if !is_old && record.deleted_at.is_none() {
            return Ok(());
        }
        let Some(address) = key::parse_container(container_key) else {
            return Err(MailboxError::BadRecord { kind: KeyKind::Container });
        };
        let is_removed = self.remove_unused_container(&address, now).await?;
        report.n_containers += usize::from(is_removed);
        Ok(())
    }
}

impl SweepCursor {
    fn get(&self) -> Position {
        self.lock().clone()
    }

    fn set(&self, position: Position) {
        *self.lock() = position;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Position> {
        // A position is replaced as a whole.
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
