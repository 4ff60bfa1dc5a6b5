//! A stack as the native API shows it, for the relay and for its clients.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mailbox::StackRecord;

/// How many of those that are missing are named in one line.
const MAX_NAMED: usize = 20;

/// Whether somebody who was expected has signalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExpectedState {
    /// It has signalled a handle of this stack.
    Signalled,
    /// An instance that has spoken by way of its metadata, and not signalled.
    Contacted,
    /// An instance that has signalled, but no handle of this stack.
    SignalledElsewhere,
    /// An instance of which nothing was ever heard.
    NeverContacted,
    /// It has not signalled; it is no instance's UUID, so no more is known.
    #[default]
    Missing,
}

/// Somebody who was expected to signal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ExpectedView {
    pub(crate) name: String,
    pub(crate) state: ExpectedState,
    /// The name of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance_name: Option<String>,
    /// What the record of the instance says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// An id that has signalled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SenderView {
    pub(crate) id: String,
    pub(crate) received_at: Timestamp,
}

/// One handle of a stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StackHandleView {
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
    /// Signals that were stored, repeated ones not counted.
    pub(crate) n_received: u64,
    /// Those that Heat has not read and removed.
    pub(crate) n_pending: u64,
    /// The ids that came, oldest first.
    pub(crate) senders: Vec<SenderView>,
}

/// All that is known of the signals of one stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StackView {
    pub(crate) id: String,
    /// What is missing, as a sentence for a person.
    pub(crate) reason: String,
    pub(crate) n_missing: usize,
    pub(crate) created_at: Timestamp,
    pub(crate) handles: Vec<StackHandleView>,
    pub(crate) expected: Vec<ExpectedView>,
}

impl StackView {
    pub(crate) fn new(id: &str, record: StackRecord, expected: Vec<ExpectedView>) -> StackView {
        let handles = record.handles.into_iter().map(|handle| StackHandleView {
            name: handle.name,
            created_at: handle.created_at,
            n_received: handle.n_received,
            n_pending: handle.n_pending,
            senders: handle
                .senders
                .into_iter()
                .map(|sender| SenderView { id: sender.id, received_at: sender.received_at })
                .collect(),
        });
        let is_missing = |expected: &&ExpectedView| expected.state != ExpectedState::Signalled;
        let mut view = StackView {
            id: id.to_owned(),
            reason: String::new(),
            n_missing: expected.iter().filter(is_missing).count(),
            created_at: record.created_at,
            handles: handles.collect(),
            expected,
        };
        view.reason = view.sentence();
        view
    }

    fn sentence(&self) -> String {
        match (self.expected.len(), self.n_missing) {
            (0, _) => "the stack has not said who is expected to signal".to_owned(),
            (n_expected, 0) => format!("all {n_expected} that are expected have signalled"),
            (n_expected, n_missing) => {
                let n_came = n_expected - n_missing;
                format!("{n_came} of {n_expected} expected have signalled; {}", self.missing())
            }
        }
    }

    /// Who has not signalled, and what is known of it.
    pub(crate) fn missing(&self) -> String {
        let missing: Vec<&ExpectedView> = self
            .expected
            .iter()
            .filter(|expected| expected.state != ExpectedState::Signalled)
            .collect();
        let mut text = String::new();
        for (index, expected) in missing.iter().take(MAX_NAMED).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _infallible = write!(text, "{comma}{}", expected.name);
            if let Some(name) = &expected.instance_name {
                let _infallible = write!(text, " ({name})");
            }
            text.push_str(match expected.state {
                ExpectedState::NeverContacted => " has never called",
                ExpectedState::Contacted => " has called and not signalled",
                ExpectedState::SignalledElsewhere => " has signalled, but not this stack",
                ExpectedState::Missing | ExpectedState::Signalled => " has not signalled",
            });
        }
        if missing.len() > MAX_NAMED {
            let _infallible = write!(text, ", and {} more", missing.len() - MAX_NAMED);
        }
        text
    }
}
