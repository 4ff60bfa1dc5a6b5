//! The JSON of the native surface, as the relay and its clients both see it. Handles and signals
//! themselves are in the protocol crate; here is what goes around them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use signal_protocol::handle::{HandleId, HandleState};

use crate::duration::DurationText;

/// What may be asked for when a handle is made; every key is optional.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CreateHandle {
    /// How many distinct ids complete it; 1 unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u32>,
    /// How long it waits for them; 1 h unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<DurationText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<Box<RawValue>>,
}

/// A handle that was made. Whoever has one of its URLs needs nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CreatedHandle {
    pub(crate) id: HandleId,
    /// Where a signal goes, by PUT or POST.
    pub(crate) signal_url: String,
    /// Where the handle is read.
    pub(crate) poll_url: String,
    pub(crate) count: u32,
    pub(crate) timeout_seconds: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// One page of the handles of an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HandlePage {
    pub(crate) handles: Vec<HandleEntry>,
    /// What to pass as `marker` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_marker: Option<HandleId>,
}

/// A handle without its signals.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HandleEntry {
    pub(crate) id: HandleId,
    pub(crate) state: HandleState,
    pub(crate) reason: Option<String>,
    /// How many distinct ids complete it.
    pub(crate) count: u32,
    /// How many distinct ids have signalled.
    pub(crate) n_signals: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) version: u64,
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignalAnswer {
    pub(crate) outcome: SignalOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SignalOutcome {
    /// It is on disk.
    Stored,
    /// It had been received before; nothing was changed.
    Repeated,
}

/// The data of a `state` event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StateEvent {
    pub(crate) state: HandleState,
    pub(crate) reason: Option<String>,
    pub(crate) version: u64,
}

/// An error as every surface but Swift's answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorAnswer {
    pub(crate) error: ErrorBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    /// Stable; for programs.
    pub(crate) code: String,
    /// For a person; may be improved at any time.
    pub(crate) message: String,
}
