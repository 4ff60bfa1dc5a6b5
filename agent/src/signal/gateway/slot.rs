//! Nova's password slot: where a result can be left when no relay is there.
//!
//! Nova keeps one value of an instance that the instance itself writes, meant for a password that is
//! encrypted for the owner's key. It is written once, by a `POST` of at most 1,020 bytes to a path of the
//! metadata service, and anybody of the project reads it with `nova get-password`. A cloud without a
//! relay has no other place that an instance without a way out can write to but its console. The place
//! is somebody else's, so it is used only where it was asked for, and what is there already stays.

use std::sync::Arc;

use async_trait::async_trait;
use signal_protocol::signal::Signal;

use crate::signal::gateway::http::request;
use crate::signal::gateway::{Gateway, HOST, busy, refused};
use crate::signal::{Handle, SendError, Transport, console};

const TARGET: &str = "/openstack/latest/password";

/// Nova's own limit: four values of 255 bytes.
const MAX_SLOT_BYTES: usize = 1_020;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Written,
    /// There was something before.
    Taken,
}

impl Gateway {
    /// Leaves a line in the slot.
    pub(crate) async fn leave(&self, line: &str) -> Result<Left, SendError> {
        if line.len() > MAX_SLOT_BYTES {
            return Err(refused(0, "too long for the slot"));
        }
        match self.ask(&request("POST", HOST, TARGET, line)).await?.status {
            200 => Ok(Left::Written),
            409 => Ok(Left::Taken),
            status @ (429 | 500..=599) => Err(busy(status, None)),
            status => Err(refused(status, "the slot cannot be written")),
        }
    }

    /// Whether the slot has this very line: a run that was cut off may have left it there.
    async fn holds(&self, line: &str) -> Result<bool, SendError> {
        let answer = self.ask(&request("GET", HOST, TARGET, "")).await?;
        Ok(answer.status == 200 && answer.body.trim_ascii() == line.as_bytes())
    }
}

/// The slot as the only place that a result goes to, for documents that say so. No handle counts.
#[derive(Debug)]
pub(crate) struct PasswordSlot(pub(crate) Arc<Gateway>);

#[async_trait]
impl Transport for PasswordSlot {
    async fn send(&self, _: &Handle, body: &str) -> Result<(), SendError> {
        let signal = Signal::parse(body.as_bytes());
        let signal = signal.map_err(|_| refused(0, "the signal is not one"))?;
        let line = console::machine_line(1, &signal);
        if self.0.leave(&line).await? == Left::Written || self.0.holds(&line).await? {
            return Ok(());
        }
        Err(refused(409, "the password slot holds something already"))
    }
}

#[cfg(test)]
mod tests {
    use signal_protocol::signal::Status;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Sends to a slot that answers so, one request after the other.
    async fn sent(answers: Vec<(u16, String)>) -> Result<(), &'static str> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let _n_bytes = stream.read(&mut request).await.unwrap();
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let slot = PasswordSlot(Arc::new(Gateway::new(address, None)));
        let body = Signal::new(Status::Success).to_json();
        slot.send(&Handle::Instance, &body).await.map_err(|error| error.code())
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_is_left_once_and_what_somebody_else_left_stays() {
        let ours = console::machine_line(1, &Signal::new(Status::Success));
        let empty = String::new;
        assert_eq!(sent(vec![(200, empty())]).await, Ok(()));
        assert_eq!(sent(vec![(409, empty()), (200, ours)]).await, Ok(()), "it was there already");
        let other = "a password".to_owned();
        assert_eq!(sent(vec![(409, empty()), (200, other)]).await, Err("signal_refused"));
        assert_eq!(sent(vec![(404, empty())]).await, Err("signal_refused"));
        assert_eq!(sent(vec![(503, empty())]).await, Err("signal_server_busy"));
    }
}
