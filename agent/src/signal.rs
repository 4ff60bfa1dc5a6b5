//! Telling the handle how it went.
//!
//! A signal goes into the [`outbox`] first, then over a [`Transport`] until it is acknowledged, and
//! its result is always written to the [`console`] as well. Acknowledged means a 2xx status: the
//! relay answers that once the signal is durable. What may be tried again is decided by the
//! transport, which knows; how often is decided by [`deliver`], with one deadline.

pub mod direct;
pub mod gateway;
pub(crate) mod heat;
pub mod ladder;
pub mod outbox;
pub mod ways;

pub mod console;

mod handle;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use crate::signal::handle::{Handle, HandleError, Spelling};

use crate::error::BoxError;
use crate::retry::Schedule;

/// A server that asks for a longer pause is not believed: the deadline is nearer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// One way to a handle.
///
/// Sending is at-least-once: after an error the signal may have arrived all the same, and sending
/// it again is harmless, because a signal carries an id and a repeated id changes nothing.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends the JSON body once. Ok means that the other side has it for good.
    async fn send(&self, handle: &Handle, body: &str) -> Result<(), SendError>;

    /// Whether a signal arrives that names no handle: a relay is there that knows the instance itself.
    async fn knows_this_instance(&self) -> bool {
        false
    }
}

/// Why a signal was not acknowledged. No variant carries the handle's path or query.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The other side understood, and will not take it however often it is asked.
    #[error("{host} refused the signal with status {status}: {message}")]
    Refused { host: String, status: u16, message: String },
    #[error("{host} answered {status}, try again later")]
    Busy { host: String, status: u16, retry_after: Option<Duration> },
    #[error("{host} did not answer")]
    NoAnswer { host: String, source: BoxError },
    #[error("Keystone's answer carries no token")]
    NoToken,
    #[error("client for HTTPS was not set up")]
    NoClient { source: BoxError },
}

impl SendError {
    pub fn is_retriable(&self) -> bool {
        match self {
            SendError::Busy { .. } | SendError::NoAnswer { .. } => true,
            SendError::Refused { .. } | SendError::NoToken | SendError::NoClient { .. } => false,
        }
    }

    /// Stable: scripts and tests compare it.
    pub fn code(&self) -> &'static str {
        match self {
            SendError::Refused { .. } => "signal_refused",
            SendError::Busy { .. } => "signal_server_busy",
            SendError::NoAnswer { .. } => "signal_no_answer",
            SendError::NoToken => "signal_no_token",
            SendError::NoClient { .. } => "signal_no_https",
        }
    }

    /// Reads a status: None for an acknowledgement.
    pub(crate) fn of_status(
        host: &str,
        status: u16,
        retry_after: Option<Duration>,
        message: String,
    ) -> Option<SendError> {
        let host = host.to_owned();
        match status {
            200..=299 => None,
            408 | 425 | 429 | 500..=599 => Some(SendError::Busy { host, status, retry_after }),
            _ => Some(SendError::Refused { host, status, message }),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            SendError::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Sends until it is acknowledged, refused for good, or the deadline has passed. At least one
/// attempt is made, also when the deadline has passed already.
pub async fn deliver(
    transport: &dyn Transport,
    handle: &Handle,
    body: &str,
    deadline: Instant,
) -> Result<(), SendError> {
    let mut n_failures = 0;
    loop {
        let error = match transport.send(handle, body).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        n_failures += 1;
        let asked = error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER);
        let delay = Schedule::SIGNAL.delay(n_failures).max(asked);
        if !error.is_retriable() || Instant::now() + delay > deadline {
            return Err(error);
        }
        tracing::warn!(
            signal.n_failures = n_failures,
            signal.retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            error = crate::error::chain(&error),
            "signal was not acknowledged, will try again"
        );
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers with the statuses given, one after the other, then with 201.
    struct Script(Mutex<Vec<u16>>);

    #[async_trait]
    impl Transport for Script {
        async fn send(&self, _: &Handle, _: &str) -> Result<(), SendError> {
            let mut statuses = self.0.lock().unwrap();
            let status = if statuses.is_empty() { 201 } else { statuses.remove(0) };
            let retry_after = (status == 429).then_some(Duration::from_secs(10));
            SendError::of_status("relay", status, retry_after, String::new()).map_or(Ok(()), Err)
        }
    }

    fn handle() -> Handle {
        Handle::from_url("http://relay.example/h?sig=1").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_retried_is_retried_until_the_deadline() {
        let check = async |statuses: &[u16], seconds: u64, expect: Result<(), &str>| {
            let transport = Script(Mutex::new(statuses.to_vec()));
            let deadline = Instant::now() + Duration::from_secs(seconds);
            let result = deliver(&transport, &handle(), "{}", deadline).await;
            assert_eq!(result.as_ref().map_err(SendError::code).copied(), expect, "{statuses:?}");
            assert!(Instant::now() <= deadline);
        };
        check(&[], 0, Ok(())).await;
        check(&[503, 500, 408, 502], 60, Ok(())).await;
        check(&[429], 60, Ok(())).await;
        check(&[429], 5, Err("signal_server_busy")).await;
        check(&[503; 100], 60, Err("signal_server_busy")).await;
        check(&[400], 60, Err("signal_refused")).await;
        check(&[503, 403], 60, Err("signal_refused")).await;
        check(&[302], 60, Err("signal_refused")).await;
        check(&[404], 60, Err("signal_refused")).await;
        check(&[413], 60, Err("signal_refused")).await;
    }
}
