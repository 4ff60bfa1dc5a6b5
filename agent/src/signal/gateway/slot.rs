//! Nova's password slot: where a result can be left when no relay is there.
//!
//! Nova keeps one value of an instance that the instance itself writes, meant for a password that is
//! encrypted for the owner's key. It is written once, by a `POST` of at most 1,020 bytes to a path of the
//! metadata service, and anybody of the project reads it with `nova get-password`. A cloud without a
//! relay has no other place that an instance without a way out can write to but its console. The place
//! is somebody else's, so it is used only where it was asked for, and what is there already stays.

use crate::signal::SendError;
use crate::signal::gateway::http::request;
use crate::signal::gateway::{Gateway, HOST, busy, refused};

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
}
