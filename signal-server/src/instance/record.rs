//! The record of one instance, and what a message does to it.
//!
//! It is one byte that names its format, and then JSON. It is written anew with every change, so all
//! that grows in it is bounded.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use signal_protocol::frame::BootId;
use signal_protocol::handle::{HandleId, SignalView};
use signal_protocol::message::InstanceKey;
use signal_protocol::signal::Signal;

use crate::instance::error::InstanceError;
use crate::instance::view::{InstanceState, InstanceView, PhaseView};
use crate::instance::{Identity, InstanceId, News};

/// The format that this version writes.
const FORMAT: u8 = 1;

/// How many steps are kept: an agent reports some ten in a boot.
const MAX_PHASES: usize = 64;

/// How many signals are kept, by distinct id: one for each service and document of the instance.
const MAX_SIGNALS: usize = 64;

/// How many bytes of data the kept signals have together. A record is one commit, which holds 1.5 MB.
const MAX_DATA_BYTES: usize = 512 << 10;

/// How many boots are told apart. Older ones count, but their ids are forgotten.
const MAX_BOOTS: usize = 8;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    pub(crate) project: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handle: Option<HandleId>,
    /// A secret that only the instance's agent has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    first_contact_at: Timestamp,
    pub(crate) last_contact_at: Timestamp,
    n_boots: u64,
    boots: Vec<String>,
    phases: Vec<PhaseView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    signals: Vec<SignalView>,
    pub(crate) n_messages: u64,
    pub(crate) version: u64,
}

impl InstanceRecord {
    pub(crate) fn new(identity: &Identity, now: Timestamp) -> InstanceRecord {
        InstanceRecord {
            project: identity.project.clone(),
            name: identity.name.clone(),
            handle: identity.handle.clone(),
            key: None,
            first_contact_at: now,
            last_contact_at: now,
            n_boots: 0,
            boots: Vec::new(),
            phases: Vec::new(),
            log: None,
            signals: Vec::new(),
            n_messages: 0,
            version: 0,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = vec![FORMAT];
        // Structs with string keys and finite numbers always serialise; a failure would leave a
        // record that the decoder refuses.
        let _ = serde_json::to_writer(&mut bytes, self);
        bytes.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<InstanceRecord, InstanceError> {
        let json = bytes.strip_prefix(&[FORMAT]).ok_or(InstanceError::BadRecord)?;
        serde_json::from_slice(json).map_err(|_| InstanceError::BadRecord)
    }

    pub(crate) fn key(&self) -> Option<InstanceKey> {
        self.key.as_deref().and_then(InstanceKey::parse)
    }

    /// Notes that the instance was heard of now.
    pub(crate) fn touch(&mut self, identity: &Identity, now: Timestamp) {
        self.last_contact_at = self.last_contact_at.max(now);
        if identity.name.is_some() {
            self.name.clone_from(&identity.name);
        }
        if identity.handle.is_some() {
            self.handle.clone_from(&identity.handle);
        }
        self.version += 1;
    }

    pub(crate) fn note_boot(&mut self, boot: BootId, now: Timestamp) {
        let boot = boot.to_string();
        if self.boots.contains(&boot) {
            return;
        }
        self.n_boots += 1;
        self.boots.push(boot);
        keep_last(&mut self.boots, MAX_BOOTS);
        self.add_phase("contact", "", now);
    }

    pub(crate) fn apply(&mut self, news: &News, now: Timestamp) -> Result<(), InstanceError> {
        match news {
            News::Signal(signal) => self.add_signal(signal, now),
            News::Progress { phase, text } => self.add_phase(phase, text, now),
            News::Log { text } => self.log = Some(cleaned(text, true)),
            News::Key(key) => {
                let key = key.reveal();
                if self.key.as_ref().is_some_and(|present| *present != key) {
                    return Err(InstanceError::KeyTaken);
                }
                self.key = Some(key);
            }
        }
        Ok(())
    }

    fn add_phase(&mut self, phase: &str, text: &str, at: Timestamp) {
        let (phase, text) = (cleaned(phase, false), cleaned(text, false));
        self.phases.push(PhaseView { phase, text, at });
        keep_last(&mut self.phases, MAX_PHASES);
    }

    /// A later signal with the same id takes the earlier one's place, as in a handle.
    fn add_signal(&mut self, signal: &Signal, received_at: Timestamp) {
        let id = signal.id.clone().unwrap_or_else(|| (self.signals.len() + 1).to_string());
        let status = signal.status;
        let reason = signal.reason.clone().unwrap_or_else(|| format!("Signal {id} received"));
        let view = SignalView { id, status, reason, data: signal.data.clone(), received_at };
        match self.signals.iter_mut().find(|present| present.id == view.id) {
            Some(present) => *present = view,
            None => self.signals.push(view),
        }
        keep_last(&mut self.signals, MAX_SIGNALS);
        self.shed_data();
    }

    /// Forgets the data of the oldest signals when it is too much.
    fn shed_data(&mut self) {
        let length = |data: &Option<Box<RawValue>>| data.as_ref().map_or(0, |raw| raw.get().len());
        let mut n_bytes: usize = self.signals.iter().map(|signal| length(&signal.data)).sum();
        for signal in &mut self.signals {
            if n_bytes <= MAX_DATA_BYTES {
                return;
            }
            n_bytes -= length(&signal.data);
            signal.data = None;
        }
    }

    pub(crate) fn into_view(self, id: InstanceId) -> InstanceView {
        let mut view = InstanceView {
            id: id.to_string(),
            state: InstanceState::Contacted,
            reason: String::new(),
            project: Some(self.project),
            name: self.name,
            handle: self.handle,
            first_contact_at: Some(self.first_contact_at),
            last_contact_at: Some(self.last_contact_at),
            n_boots: self.n_boots,
            phases: self.phases,
            log: self.log,
            signals: self.signals,
            version: self.version,
        };
        view.judge();
        view
    }
}

fn keep_last<T>(list: &mut Vec<T>, n: usize) {
    let n_over = list.len().saturating_sub(n);
    list.drain(..n_over);
}

/// Text for a terminal: no control characters, with which an instance could write on somebody's screen
/// whatever it likes.
fn cleaned(text: &str, keep_lines: bool) -> String {
    let harmless = |character: &char| match character {
        '\n' => keep_lines,
        '\t' => true,
        other => !other.is_control(),
    };
    text.chars().filter(harmless).collect()
}
