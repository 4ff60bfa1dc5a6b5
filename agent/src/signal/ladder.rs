//! Every way at once, and the first acknowledgement wins.
//!
//! A handle's own URL is the usual way; where no route leads to it, the metadata address may. Which it
//! is cannot be known beforehand: a firewall that drops packets looks like a relay that is slow. So the
//! second way begins a moment after the first, both go on, and whoever is acknowledged first ends the
//! other. A signal that arrives by both carries one id, and so is one signal.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::signal::{Handle, SendError, Transport};

/// How much earlier the handle's own URL is tried: a relay that can be reached has answered by then.
const HEAD_START: Duration = Duration::from_millis(500);

/// Two ways, the first preferred.
pub struct Ladder {
    direct: Arc<dyn Transport>,
    gateway: Arc<dyn Transport>,
}

impl std::fmt::Debug for Ladder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ladder").finish_non_exhaustive()
    }
}

impl Ladder {
    pub fn new(direct: Arc<dyn Transport>, gateway: Arc<dyn Transport>) -> Ladder {
        Ladder { direct, gateway }
    }
}

#[async_trait]
impl Transport for Ladder {
    async fn send(&self, handle: &Handle, body: &str) -> Result<(), SendError> {
        if matches!(handle, Handle::Instance) {
            return self.gateway.send(handle, body).await;
        }
        let mut direct = self.direct.send(handle, body);
        tokio::select! {
            biased;
            sent = &mut direct => match sent {
                Ok(()) => return Ok(()),
                Err(error) => return self.other_way(handle, body, error).await,
            },
            () = sleep(HEAD_START) => {}
        }
        let mut gateway = self.gateway.send(handle, body);
        // What is dropped here is cancelled.
        tokio::select! {
            sent = &mut direct => match sent {
                Ok(()) => Ok(()),
                Err(error) => gateway.await.map_err(|other| worth_more(error, other)),
            },
            sent = &mut gateway => match sent {
                Ok(()) => Ok(()),
                Err(other) => direct.await.map_err(|error| worth_more(error, other)),
            },
        }
    }

    async fn knows_this_instance(&self) -> bool {
        self.gateway.knows_this_instance().await
    }
}

impl Ladder {
    async fn other_way(
        &self,
        handle: &Handle,
        body: &str,
        error: SendError,
    ) -> Result<(), SendError> {
        // Whoever was reached and understood would say the same by any way.
        if matches!(error, SendError::Refused { .. }) {
            return Err(error);
        }
        self.gateway.send(handle, body).await.map_err(|other| worth_more(error, other))
    }
}

/// Of two failures, the one that says more: a refusal, then an answer, then the handle's own.
fn worth_more(direct: SendError, gateway: SendError) -> SendError {
    let worth = |error: &SendError| match error {
        SendError::Refused { .. } => 2,
        SendError::Busy { .. } => 1,
        _ => 0,
    };
    if worth(&gateway) > worth(&direct) { gateway } else { direct }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers after a time, or never.
    struct Fake {
        after: Option<Duration>,
        result: fn() -> Result<(), SendError>,
        n_ended: AtomicUsize,
    }

    fn fake(after_ms: Option<u64>, result: fn() -> Result<(), SendError>) -> Arc<Fake> {
        let after = after_ms.map(Duration::from_millis);
        Arc::new(Fake { after, result, n_ended: AtomicUsize::new(0) })
    }

    #[async_trait]
    impl Transport for Fake {
        async fn send(&self, _: &Handle, _: &str) -> Result<(), SendError> {
            match self.after {
                Some(after) => sleep(after).await,
                None => std::future::pending().await,
            }
            self.n_ended.fetch_add(1, Ordering::Relaxed);
            (self.result)()
        }
    }

    fn refused() -> Result<(), SendError> {
        let (host, message) = ("h".to_owned(), String::new());
        Err(SendError::Refused { host, status: 403, message })
    }

    fn away() -> Result<(), SendError> {
        Err(SendError::NoAnswer { host: "h".to_owned(), source: "away".into() })
    }

    fn acknowledged() -> Result<(), SendError> {
        Ok(())
    }

    /// Sends; the result is the error's code, and how many times each way came to an end.
    async fn check(direct: Arc<Fake>, gateway: Arc<Fake>, expect: (&str, usize, usize)) {
        let ladder = Ladder::new(direct.clone(), gateway.clone());
        let handle = Handle::from_url("http://relay.example/h").unwrap();
        let sent = ladder.send(&handle, "{}").await;
        let code = sent.as_ref().err().map_or("ok", SendError::code);
        let n = |fake: &Fake| fake.n_ended.load(Ordering::Relaxed);
        assert_eq!((code, n(&direct), n(&gateway)), expect);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_acknowledgement_wins_and_ends_the_other() {
        // A relay that can be reached is not reached twice.
        check(fake(Some(100), acknowledged), fake(Some(0), acknowledged), ("ok", 1, 0)).await;
        // Packets that are dropped: the connection would take minutes to fail.
        check(fake(None, away), fake(Some(10), acknowledged), ("ok", 0, 1)).await;
        check(fake(Some(800), acknowledged), fake(Some(1_000), acknowledged), ("ok", 1, 0)).await;
        check(fake(Some(0), away), fake(Some(10), acknowledged), ("ok", 1, 1)).await;
        check(fake(Some(1_000), acknowledged), fake(Some(10), away), ("ok", 1, 1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_says_what_is_known() {
        check(fake(Some(0), refused), fake(Some(0), acknowledged), ("signal_refused", 1, 0)).await;
        check(fake(Some(0), away), fake(Some(0), refused), ("signal_refused", 1, 1)).await;
        check(fake(Some(0), away), fake(Some(0), away), ("signal_no_answer", 1, 1)).await;
        check(fake(Some(900), away), fake(Some(0), refused), ("signal_refused", 1, 1)).await;
    }
}
