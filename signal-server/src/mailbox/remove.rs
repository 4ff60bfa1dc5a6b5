//! Takes signals out of a mailbox.

use bytes::Bytes;

use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::MAX_COMMIT_ATTEMPTS;
use crate::mailbox::record::{BodyPlace, HeadRecord, decode, decode_object, encode};
use crate::mailbox::{Shared, key};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind};

impl Shared {
    /// Removes one signal. That it has been removed before is no error: Heat reads and then removes, and
    /// fails the stack if what it has just read is not there. Runs in the turn of the mailbox.
    pub(crate) async fn remove_signal(
        &self,
        head_key: &Key,
        signal: u64,
    ) -> Result<(), MailboxError> {
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let (before, head) = self.head(head_key).await?;
            let signal_key = key::of_signal(KeyKind::Signal, head.number, signal);
            let Some(bytes) = self.get(&signal_key).await? else {
                let has_existed = (1..head.next_signal).contains(&signal);
                return has_existed.then_some(()).ok_or(MailboxError::ObjectNotFound);
            };
            let removed = self.remove(head_key, before, head, vec![(signal, bytes)]).await?;
            if removed {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Removes the signal that has waited longest. Runs in the turn of the mailbox.
    pub(crate) async fn remove_oldest_signal(&self, head_key: &Key) -> Result<(), MailboxError> {
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let (before, head) = self.head(head_key).await?;
            let oldest = self.oldest_signals(&head, 1).await?;
            if oldest.is_empty() {
                return Err(MailboxError::ObjectNotFound);
            }
            if self.remove(head_key, before, head, oldest).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    pub(crate) async fn head(&self, head_key: &Key) -> Result<(Bytes, HeadRecord), MailboxError> {
        let Some(bytes) = self.get(head_key).await? else {
            return Err(MailboxError::ObjectNotFound);
        };
        let head = decode(head_key.kind(), &bytes)?;
        Ok((bytes, head))
    }

    pub(crate) async fn oldest_signals(
        &self,
        head: &HeadRecord,
        limit: usize,
    ) -> Result<Vec<(u64, Bytes)>, MailboxError> {
        let prefix = key::under(KeyKind::Signal, head.number);
        let records = self.scan(&prefix, None, limit).await?;
        records
            .into_iter()
            .map(|(key, bytes)| Some((key::signal_number(&key, &prefix)?, bytes)))
            .collect::<Option<Vec<_>>>()
            .ok_or(MailboxError::BadRecord { kind: KeyKind::Signal })
    }

    /// Removes signals with one commit; false if somebody else changed the mailbox first.
    pub(crate) async fn remove(
        &self,
        head_key: &Key,
        before: Bytes,
        mut head: HeadRecord,
        signals: Vec<(u64, Bytes)>,
    ) -> Result<bool, MailboxError> {
        let mut batch = Batch::new();
        batch.expect(Expect::Value(head_key.clone(), before));
        for (signal, bytes) in signals {
            let (record, _) = decode_object(KeyKind::Signal, &bytes)?;
            batch.delete(key::of_signal(KeyKind::Signal, head.number, signal));
            if let BodyPlace::Apart(_) = record.body {
                batch.delete(key::of_signal(KeyKind::SignalBody, head.number, signal));
            }
            head.n_pending = head.n_pending.saturating_sub(1);
            head.n_bytes = head.n_bytes.saturating_sub(record.info.n_bytes);
        }
        head.version += 1;
        head.used_at = self.clock.now();
        batch.put(head_key.clone(), encode(&head));
        match self.store.commit(batch).await {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(error) => Err(MailboxError::Write(error)),
        }
    }
}

fn contended() -> MailboxError {
    MailboxError::Contended { kind: KeyKind::Mailbox, attempts: MAX_COMMIT_ATTEMPTS }
}
