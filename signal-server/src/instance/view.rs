//! An instance as the native API shows it, for the relay and for its clients.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use signal_protocol::handle::{HandleId, SignalView};
use signal_protocol::signal::Status;

/// How an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Nothing has been heard of it.
    NeverContacted,
    /// It has spoken, and has not said how it went.
    Contacted,
    /// It has signalled success, and no failure.
    Complete,
    /// It has signalled a failure.
    Failed,
}

/// One step that an instance has reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseView {
    pub phase: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// When the relay heard of it.
    pub at: Timestamp,
}

/// All that is known of one instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceView {
    pub id: String,
    pub state: InstanceState,
    /// What the state means, as a sentence for a person.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The handle that the instance's metadata names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<HandleId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_contact_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact_at: Option<Timestamp>,
    pub n_boots: u64,
    /// Oldest first; of a long list, the last ones.
    pub phases: Vec<PhaseView>,
    /// The last lines of a log that the instance has sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Oldest first; of a long list, the last ones.
    pub signals: Vec<SignalView>,
    /// Grows with every change; 0 for an instance that was never heard of.
    pub version: u64,
}

impl InstanceView {
    /// An instance of which nothing was ever heard.
    pub fn never_contacted(id: String) -> InstanceView {
        InstanceView {
            id,
            state: InstanceState::NeverContacted,
            reason:
                "the instance has never contacted the relay: it is not up yet, runs no agent, or \
                     its metadata does not pass the relay"
                    .to_owned(),
            project: None,
            name: None,
            handle: None,
            first_contact_at: None,
            last_contact_at: None,
            n_boots: 0,
            phases: Vec::new(),
            log: None,
            signals: Vec::new(),
            version: 0,
        }
    }

    /// Sets state and reason from the rest.
    pub(crate) fn judge(&mut self) {
        let reasons = |status: Status| {
            let of_status = self.signals.iter().filter(|signal| signal.status == status);
            of_status.map(|signal| signal.reason.as_str()).collect::<Vec<&str>>().join(";")
        };
        let failed = self.signals.iter().any(|signal| signal.status == Status::Failure);
        let (state, reason) = match (failed, self.signals.is_empty()) {
            (true, _) => (InstanceState::Failed, reasons(Status::Failure)),
            (false, false) => (InstanceState::Complete, reasons(Status::Success)),
            (false, true) => (InstanceState::Contacted, self.silence()),
        };
        self.state = state;
        self.reason = reason;
    }

    /// What is to be said of an instance that has spoken but not signalled.
    fn silence(&self) -> String {
        let mut text = "the instance has contacted the relay and not signalled yet".to_owned();
        if let Some(at) = self.last_contact_at {
            let _infallible = write!(text, "; last heard of at {at:.0}");
        }
        if let Some(last) = self.phases.last() {
            let _infallible = write!(text, ", phase {}", last.phase);
        }
        text
    }
}
