//! The labels by which the agent finds its own containers, networks and volumes again.
//!
//! What does not carry [`AGENT_LABEL`] belongs to somebody else and is never stopped or removed.
//! Anybody who may ask the engine can read labels, so they name things and hold no secret.

use std::collections::BTreeMap;

use crate::state::Subject;

/// What everything of the agent carries.
pub(crate) const AGENT_LABEL: &str = "io.heliograph.agent";
pub(crate) const INSTANCE_LABEL: &str = "io.heliograph.instance";
pub(crate) const DOCUMENT_LABEL: &str = "io.heliograph.document";
pub(crate) const SERVICE_LABEL: &str = "io.heliograph.service";
/// The place in the order of starts, counted from 0.
pub(crate) const ORDER_LABEL: &str = "io.heliograph.order";

/// The filter for everything of the agent.
pub(crate) fn ours() -> String {
    format!("{AGENT_LABEL}=1")
}

pub(crate) fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    says(labels, AGENT_LABEL, "1")
}

/// True for what was made for this document on this instance.
pub(crate) fn are_of(labels: &BTreeMap<String, String>, subject: &Subject) -> bool {
    is_ours(labels)
        && says(labels, INSTANCE_LABEL, &subject.instance_id)
        && says(labels, DOCUMENT_LABEL, &subject.document_hash)
}

fn says(labels: &BTreeMap<String, String>, label: &str, value: &str) -> bool {
    labels.get(label).is_some_and(|labelled| labelled == value)
}
