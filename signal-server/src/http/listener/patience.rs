//! How long a peer may take to read an answer.
//!
//! An answer that nobody reads holds its connection and itself, a listing some megabytes, and no place among the
//! requests that are being answered: that ends when the answer is there. hyper has no limit for it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// How long a peer may take for what was buffered for it when it had stopped reading: 4 MiB, nearly every listing
/// and more, over half a megabit per second. A stream, such as the events or a backup, has as long again for each
/// of its parts.
const WRITE_TIMEOUT: Duration = Duration::from_secs(67);

/// How much longer it may take for each byte that it does read, for answers of many megabytes: at half a megabit
/// per second.
const MICROSECONDS_PER_BYTE: u64 = 16;

/// Begins when the peer does not take what is written, and ends when all is written.
#[derive(Debug, Default)]
pub(crate) struct WritePatience {
    /// Nothing for nearly all connections, whose answers fit into the kernel's buffers.
    until: Option<Pin<Box<Sleep>>>,
}

impl WritePatience {
    /// What a write has come to; an error if it has to wait and the time is over.
    pub(crate) fn bound(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            if let (Ok(n_bytes), Some(until)) = (&written, &mut self.until) {
                let more = Duration::from_micros(*n_bytes as u64 * MICROSECONDS_PER_BYTE);
                let deadline = until.deadline() + more;
                until.as_mut().reset(deadline);
            }
            return Poll::Ready(written);
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        ready!(until.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// All is written.
    pub(crate) fn end(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::Instant;

    use super::*;

    async fn write(patience: &mut WritePatience, written: Option<usize>) -> io::Result<usize> {
        let write = || written.map_or(Poll::Pending, |n_bytes| Poll::Ready(Ok(n_bytes)));
        poll_fn(|context| patience.bound(write(), context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_in_time_is_given_up() {
        let (mut patience, started) = (WritePatience::default(), Instant::now());
        assert_eq!(write(&mut patience, Some(7)).await.ok(), Some(7));
        let error = write(&mut patience, None).await.expect_err("a timeout");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= WRITE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_at_half_a_megabit_gets_all_of_a_large_answer() {
        let mut patience = WritePatience::default();
        for _ in 0..2_000 {
            let waiting = tokio::time::timeout(Duration::from_secs(1), write(&mut patience, None));
            assert!(waiting.await.is_err(), "the peer is given up");
            assert!(write(&mut patience, Some(62_500)).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_does_not_buy_time_and_the_end_does() {
        let mut patience = WritePatience::default();
        let almost = WRITE_TIMEOUT - Duration::from_secs(1);
        let waiting = tokio::time::timeout(almost, write(&mut patience, None));
        assert!(waiting.await.is_err());
        assert_eq!(write(&mut patience, Some(1)).await.ok(), Some(1));
        let waiting = tokio::time::timeout(almost, write(&mut patience, None));
        assert!(matches!(waiting.await, Ok(Err(_))));

        patience.end();
        let waiting = tokio::time::timeout(almost, write(&mut patience, None));
        assert!(waiting.await.is_err());
    }
}
