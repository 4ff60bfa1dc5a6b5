//! How long a relay lives.

use tokio::sync::{mpsc, watch};

/// One process, until it dies.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) number: u64,
    ended: watch::Sender<bool>,
    /// Who sees to it that another process takes its place.
    deaths: mpsc::UnboundedSender<u64>,
}

impl Life {
    pub(super) fn new(number: u64, deaths: mpsc::UnboundedSender<u64>) -> Life {
        Life { number, ended: watch::Sender::new(false), deaths }
    }

    /// From now on it reads, writes and sends nothing any more.
    pub(super) fn end(&self) {
        if !self.ended.send_replace(true) {
            // Nobody is told after the end of a history.
            let _over = self.deaths.send(self.number);
        }
    }

    /// Tells whether it has ended.
    pub(super) fn watched(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    pub(super) async fn ended(&self) {
        let mut seen = self.ended.subscribe();
        // The sender lives as long as this.
        let _ended = seen.wait_for(|ended| *ended).await;
    }
}
