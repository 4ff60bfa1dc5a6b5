//! What relays on one store have to know of one another: what the others changed, and who does what only
//! one may do.
//!
//! A store that has one process for itself has nothing to tell here: its [`Changes`] never come, and its
//! [`Leadership`] is always held.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::store::Key;

/// A change of the store, by this process or another one.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// The record says this now.
    Put(Key, Bytes),
    /// The record is gone.
    Deleted(Key),
    /// Anything may have changed: whoever wants to know has to look. Comes first, and again whenever the
    /// thread was lost.
    Missed,
}

/// Changes of records of one kind, in the order in which they happened, each told when it is durable. A
/// change may be told twice, around a loss of the connection.
#[derive(Debug)]
pub struct Changes {
    receiver: Option<mpsc::Receiver<Change>>,
}

/// Work that one relay at a time does for all that share a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Removing what nobody came for.
    Sweep,
    /// Sending signals on to Heat.
    Forward,
}

/// Whether a job is this process's at present.
///
/// It is lost at the latest when the others may take it, as far as clocks that run at the same pace can
/// tell. What has been begun until then may still take effect, so a job's commits have to hold against those
/// of its next owner.
#[derive(Debug, Clone)]
pub struct Leadership {
    held: Option<watch::Receiver<bool>>,
}

impl Changes {
    /// Nobody else changes the store.
    pub fn none() -> Changes {
        Changes { receiver: None }
    }

    pub(crate) fn of(receiver: mpsc::Receiver<Change>) -> Changes {
        Changes { receiver: Some(receiver) }
    }

    /// The next change. Never returns where nobody else changes the store.
    pub async fn next(&mut self) -> Change {
        if let Some(receiver) = &mut self.receiver
            && let Some(change) = receiver.recv().await
        {
            return change;
        }
        std::future::pending().await
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Put(key, value) => write!(formatter, "Put({key:?}, {} bytes)", value.len()),
            Change::Deleted(key) => write!(formatter, "Deleted({key:?})"),
            Change::Missed => formatter.write_str("Missed"),
        }
    }
}

impl Job {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Job::Sweep => "sweep",
            Job::Forward => "forward",
        }
    }
}

impl Leadership {
    /// There is nobody else.
    pub fn always() -> Leadership {
        Leadership { held: None }
    }

    pub(crate) fn of(held: watch::Receiver<bool>) -> Leadership {
        Leadership { held: Some(held) }
    }

    /// Whether the job is this process's.
    pub fn is_held(&self) -> bool {
        self.held.as_ref().is_none_or(|held| *held.borrow())
    }

    /// Returns when the job is this process's.
    pub async fn gained(&mut self) {
        self.becomes(true).await;
    }

    /// Returns when the job is this process's, or when it is not, as wanted.
    pub async fn becomes(&mut self, wanted: bool) {
        let Some(held) = &mut self.held else {
            if wanted {
                return;
            }
            return std::future::pending().await;
        };
        if held.wait_for(|held| *held == wanted).await.is_err() {
            // Whoever takes part in the choice is gone with the store: nothing will ever change.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn whoever_is_alone_leads_and_is_told_nothing() {
        let mut leadership = Leadership::always();
        assert!(leadership.is_held());
        assert_eq!(leadership.gained().now_or_never(), Some(()));
        assert_eq!(leadership.becomes(false).now_or_never(), None);
        assert_eq!(Changes::none().next().now_or_never(), None);
    }

    #[test]
    fn a_job_is_gained_and_lost() {
        let (sender, receiver) = watch::channel(false);
        let mut leadership = Leadership::of(receiver);
        assert!(!leadership.is_held());
        assert_eq!(leadership.gained().now_or_never(), None);
        assert_eq!(leadership.becomes(false).now_or_never(), Some(()));
        sender.send_replace(true);
        assert!(leadership.is_held());
        assert_eq!(leadership.gained().now_or_never(), Some(()));
        drop(sender);
        assert_eq!(leadership.becomes(false).now_or_never(), None);
    }
}
