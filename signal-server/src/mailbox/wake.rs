//! Wakes whoever waits for a mailbox to change.
//!
//! There is an entry only while somebody waits, and a waiter is a future in its caller's task: ten
//! thousand idle waiters cost ten thousand small allocations and no thread, task or timer of ours.
//!
//! A change by this relay wakes at once, where it is committed. Changes by other relays on the same store
//! are heard of from the store; for own ones this is a second call, which finds nothing new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::mailbox::record::Number;
use crate::mailbox::{Shared, key};
use crate::store::sharing::Change;
use crate::store::{Key, KeyKind};

/// Spreads waiters over several locks; a power of two some way above the number of cores.
const N_SHARDS: usize = 64;

type Shard = HashMap<Number, Arc<Notify>>;

#[derive(Debug)]
pub(crate) struct Wakers {
    shards: Vec<Mutex<Shard>>,
}

impl Default for Wakers {
    fn default() -> Self {
        Wakers { shards: std::iter::repeat_with(Mutex::default).take(N_SHARDS).collect() }
    }
}

impl Wakers {
    /// Begins to listen. Changes that happen from now on are not missed, provided that
    /// [`Notify::notified`] is enabled before the mailbox is read.
    pub(crate) fn listen(&self, mailbox: Number) -> Listener<'_> {
        let notify = Arc::clone(self.shard(mailbox).entry(mailbox).or_default());
        Listener { wakers: self, mailbox, notify }
    }

    /// Tells everybody who listens that the mailbox has changed.
    pub(crate) fn wake(&self, mailbox: Number) {
        if let Some(notify) = self.shard(mailbox).get(&mailbox) {
            notify.notify_waiters();
        }
    }

    /// Tells everybody who listens to anything to look.
    fn wake_all(&self) {
        for shard in &self.shards {
            for notify in lock(shard).values() {
                notify.notify_waiters();
            }
        }
    }

    fn shard(&self, mailbox: Number) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(mailbox.0[0]) % N_SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A panic cannot leave a map half changed.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Wakes whoever waits for a native handle that another relay changes. Never returns.
    pub(crate) async fn follow_others(&self) {
        let prefix = Key::new(KeyKind::HandleMailbox, &[]);
        let mut changes = self.store.changes(KeyKind::HandleMailbox);
        loop {
            match changes.next().await {
                Change::Missed => self.wakers.wake_all(),
                Change::Put(head, _) | Change::Deleted(head) => {
                    if let Some(mailbox) = key::number_after(&head, &prefix) {
                        self.wakers.wake(mailbox);
                    }
                }
            }
        }
    }
}

/// Keeps the entry of a mailbox alive.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    wakers: &'a Wakers,
    mailbox: Number,
    notify: Arc<Notify>,
}

impl Listener<'_> {
    pub(crate) fn notify(&self) -> &Notify {
        &self.notify
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut shard = self.wakers.shard(self.mailbox);
        // The map's own and this one: nobody else listens, and nobody can begin to under the lock.
        if Arc::strong_count(&self.notify) == 2 {
            shard.remove(&self.mailbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_who_listens_is_woken_and_no_entry_is_left_behind() {
        let wakers = Wakers::default();
        let (mailbox, other) = (Number([1; 16]), Number([2; 16]));
        {
            let listeners = [wakers.listen(mailbox), wakers.listen(mailbox)];
            let mut waits: Vec<_> =
                listeners.iter().map(|listener| Box::pin(listener.notify().notified())).collect();
            for wait in &mut waits {
                assert!(!wait.as_mut().enable());
            }
            wakers.wake(other);
            wakers.wake(mailbox);
            for wait in waits {
                wait.await;
            }
        }
        assert!(wakers.shard(mailbox).is_empty());
    }
}
