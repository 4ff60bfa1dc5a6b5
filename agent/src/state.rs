//! What the agent remembers over a crash and a reboot, in one directory.
//!
//! ```text
//! instance-id     the id of an instance whose datasource gives none; random, written once
//! done.json       the result that was acknowledged last: nothing is signalled twice
//! outbox/         signals that are not acknowledged yet
//! files/          secrets, configs and other files that containers mount
//! volumes/        where block devices are mounted
//! guarded         empty; there since containers were first kept from the metadata service
//! status.json     how far the current run is, for `heliograph-agent status`; may lag after a crash
//! lock            held by the running agent
//! ```
//!
//! Everything but `status.json` is durable when its function returns. All of it belongs to one
//! instance and one document; when either has changed, `done.json` means nothing.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::Rng;
use serde::{Deserialize, Serialize};
use signal_protocol::message::InstanceKey;
use signal_protocol::signal::Status;

use crate::durable;

/// None of the files has more than a reason and some identifiers in it.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The state directory, held by this process alone.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// Released when the process ends, however it ends.
    _lock: File,
}

/// What a result belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub instance_id: String,
    pub document_hash: String,
}

/// A result that was acknowledged, or that had no handle to go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub subject: Subject,
    pub id: String,
    pub status: Status,
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    pub instance_id: Option<String>,
    pub document_hash: Option<String>,
    /// The step that runs, or ran last.
    pub step: String,
    /// The document's only container, or its first.
    pub container: Option<String>,
    /// The ids of all its containers that were started, by service.
    #[serde(default)]
    pub services: BTreeMap<String, String>,
    /// None while the outcome is open.
    pub status: Option<Status>,
    pub reason: Option<String>,
    pub signal: SignalState,
    /// True when the run has ended, with or without an outcome.
    pub is_over: bool,
    /// The steps so far, in their order, and the milliseconds of each.
    #[serde(default)]
    pub timings: Vec<(String, u64)>,
    /// How long the machine had run when the agent began.
    #[serde(default)]
    pub began_after_boot_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalState {
    /// Nothing to send yet, or nobody to send it to.
    #[default]
    None,
    Pending,
    Acknowledged,
}

impl RunStatus {
    pub fn started(&mut self, service: &str, container: &str) {
        self.container.get_or_insert_with(|| container.to_owned());
        self.services.insert(service.to_owned(), container.to_owned());
    }
}

/// Why the state directory failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("create the state directory {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("lock the state directory {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("state directory {} is in use by another heliograph-agent", path.display())]
    InUse { path: PathBuf },
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("understand {}", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Where a document's files are; see `boot/files.rs`.
pub fn files_path(state_directory: &Path) -> PathBuf {
    state_directory.join("files")
}

/// Where block devices are mounted; see `device.rs`.
pub fn volumes_path(state_directory: &Path) -> PathBuf {
    state_directory.join("volumes")
}

/// The key that the agent shares with a relay at the metadata address: made once, then kept, so that it
/// speaks with the same voice after a reboot. Only the agent may read it.
pub fn instance_key(directory: &Path) -> Result<InstanceKey, StateError> {
    durable::create_directory(directory)
        .map_err(|source| StateError::Create { path: directory.to_owned(), source })?;
    let path = directory.join("instance-key");
    let content = durable::read(&path, MAX_FILE_BYTES)
        .map_err(|source| StateError::Read { path: path.clone(), source })?;
    let known = content.and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(key) = known.and_then(|text| InstanceKey::parse(text.trim())) {
        return Ok(key);
    }
    let key = InstanceKey::from_random(rand::rng().random());
    durable::write(&path, key.reveal().as_bytes())
        .map_err(|source| StateError::Write { path, source })?;
    Ok(key)
}

/// Whether containers have been kept from the metadata service here. A reboot takes the rules away, and
/// engines start containers before anybody can ask for anything. Needs no lock.
pub fn is_guarded(directory: &Path) -> bool {
    guarded_path(directory).exists()
}

/// To be called before the rules are made.
pub fn mark_guarded(directory: &Path) -> Result<(), StateError> {
    if is_guarded(directory) {
        return Ok(());
    }
    let path = guarded_path(directory);
    durable::write(&path, b"").map_err(|source| StateError::Write { path, source })
}

/// To be called before the rules are removed for good.
pub fn forget_guarded(directory: &Path) -> Result<(), StateError> {
    let path = guarded_path(directory);
    durable::remove(&path).map_err(|source| StateError::Write { path, source })
}

fn guarded_path(directory: &Path) -> PathBuf {
    directory.join("guarded")
}

impl StateDirectory {
    /// Creates what is missing, and takes the lock. The lock is advisory and dies with the process.
    pub fn open(path: &Path) -> Result<StateDirectory, StateError> {
        let owned = || path.to_owned();
        durable::create_directory(path)
            .map_err(|source| StateError::Create { path: owned(), source })?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|source| StateError::Lock { path: owned(), source })?;
        match lock.try_lock() {
            Ok(()) => Ok(StateDirectory { path: owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: owned() }),
            Err(TryLockError::Error(source)) => Err(StateError::Lock { path: owned(), source }),
        }
    }

    pub fn outbox_path(&self) -> PathBuf {
        self.path.join("outbox")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of this instance when nothing else gives one: made once, then kept.
    pub fn instance_id(&self) -> Result<String, StateError> {
        let path = self.path.join("instance-id");
        let content = durable::read(&path, MAX_FILE_BYTES)
            .map_err(|source| StateError::Read { path: path.clone(), source })?;
        let known = content.and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(id) = known.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()) {
            return Ok(id);
        }
        let id = format!("local-{}", hex::encode(rand::rng().random::<[u8; 16]>()));
        durable::write(&path, id.as_bytes())
            .map_err(|source| StateError::Write { path, source })?;
        Ok(id)
    }

    /// The result that was acknowledged for this subject, if there was one. A damaged marker counts
    /// as none: the signal is then sent again, with the same id.
    pub fn done(&self, subject: &Subject) -> Result<Option<Done>, StateError> {
        match read_json::<Done>(&self.path.join("done.json")) {
            Ok(done) => Ok(done.filter(|done| done.subject == *subject)),
            Err(StateError::Damaged { path, .. }) => {
                tracing::error!(path = %path.display(), "mark of a delivered signal is damaged");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// To be called after the acknowledgement, and before the outbox forgets the signal.
    pub fn mark_done(&self, done: &Done) -> Result<(), StateError> {
        let path = self.path.join("done.json");
        let content = serde_json::to_vec(done)
            .map_err(|source| StateError::Damaged { path: path.clone(), source })?;
        durable::write(&path, &content).map_err(|source| StateError::Write { path, source })
    }

    /// For people; not durable, and never an error of the run.
    pub fn report(&self, status: &RunStatus) {
        let written = serde_json::to_vec(status)
            .map_err(io::Error::other)
            .and_then(|content| durable::write_unsynced(&self.path.join("status.json"), &content));
        if let Err(error) = written {
            tracing::warn!(%error, "status file cannot be written");
        }
    }
}

/// What the last or current run has reported; None before the first. Needs no lock.
pub fn read_status(state_directory: &Path) -> Result<Option<RunStatus>, StateError> {
    read_json(&state_directory.join("status.json"))
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StateError> {
    let content = durable::read(path, MAX_FILE_BYTES)
        .map_err(|source| StateError::Read { path: path.to_owned(), source })?;
    let Some(content) = content else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&content)
        .map_err(|source| StateError::Damaged { path: path.to_owned(), source })?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(document_hash: &str) -> Done {
        let document_hash = document_hash.to_owned();
        Done {
            subject: Subject { instance_id: "i-1".to_owned(), document_hash },
            id: "i-1/main/0123".to_owned(),
            status: Status::Failure,
        }
    }

    #[test]
    fn one_agent_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateDirectory::open(directory.path()).unwrap();
        let error = StateDirectory::open(directory.path()).unwrap_err();
        assert!(matches!(error, StateError::InUse { .. }), "{error}");
        drop(first);
        assert!(StateDirectory::open(directory.path()).is_ok());
    }

    #[test]
    fn a_result_is_for_one_instance_and_one_document() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        assert_eq!(state.done(&done("a").subject).unwrap(), None);
        state.mark_done(&done("a")).unwrap();
        assert_eq!(state.done(&done("a").subject).unwrap(), Some(done("a")));
        assert_eq!(state.done(&done("b").subject).unwrap(), None);
        let other = Subject { instance_id: "i-2".to_owned(), ..done("a").subject };
        assert_eq!(state.done(&other).unwrap(), None);
    }

    #[test]
    fn a_damaged_mark_is_no_mark() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        std::fs::write(directory.path().join("done.json"), "{").unwrap();
        assert_eq!(state.done(&done("a").subject).unwrap(), None);
    }

    #[test]
    fn a_made_up_instance_id_stays() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateDirectory::open(directory.path()).unwrap().instance_id().unwrap();
        let second = StateDirectory::open(directory.path()).unwrap().instance_id().unwrap();
        assert_eq!(first, second);
        assert!(first.starts_with("local-") && first.len() == 38, "{first}");
    }

    #[test]
    fn what_was_guarded_is_known_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_guarded(directory.path()));
        for _ in 0..2 {
            mark_guarded(directory.path()).unwrap();
            assert!(is_guarded(directory.path()));
        }
        for _ in 0..2 {
            forget_guarded(directory.path()).unwrap();
            assert!(!is_guarded(directory.path()));
        }
    }

    #[test]
    fn a_status_can_be_read_while_the_agent_runs() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_status(directory.path()).unwrap(), None);
        let state = StateDirectory::open(directory.path()).unwrap();
        let status = RunStatus { step: "pull".to_owned(), ..RunStatus::default() };
        state.report(&status);
        assert_eq!(read_status(directory.path()).unwrap(), Some(status));
    }
}
