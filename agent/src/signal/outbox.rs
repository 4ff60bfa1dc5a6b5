//! Signals that nobody has acknowledged yet.
//!
//! One file per signal, named by the hash of its id, written durably before the signal is first
//! sent and removed after it was acknowledged. So a crash at any point leads to the signal being
//! sent again, with the same id, and never to its being lost. A file holds the handle, which is a
//! credential: only its owner may read it. A file that cannot be read is left where it is and
//! reported; removing it might lose a signal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use signal_protocol::signal::{MAX_SIGNAL_BYTES, Signal, Status};

use crate::durable;
use crate::signal::Handle;
use crate::signal::ways::Way;

/// A signal's body and its handle, escaped as JSON strings.
const MAX_ENTRY_BYTES: u64 = 3 * MAX_SIGNAL_BYTES as u64;

/// One signal that has to be delivered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Whose signal it is: a disk that became another instance's must not speak for the first.
    pub instance_id: String,
    pub document_hash: String,
    pub handle: Handle,
    /// An outbox of an earlier version has none.
    #[serde(default)]
    pub way: Way,
    pub id: String,
    pub status: Status,
    pub reason: Option<String>,
    pub data: Option<Box<RawValue>>,
}

impl Entry {
    /// The signal as it is sent.
    pub fn signal(&self) -> Signal {
        Signal {
            status: self.status,
            reason: self.reason.clone(),
            id: Some(self.id.clone()),
            data: self.data.clone(),
        }
    }
}

/// Why the outbox failed.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error("create the outbox at {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("list the outbox at {}", path.display())]
    List { path: PathBuf, source: io::Error },
    #[error("write a signal to {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("encode a signal")]
    Encode { source: serde_json::Error },
    #[error("remove a signal from {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// The directory of signals.
#[derive(Debug)]
pub struct Outbox {
    directory: PathBuf,
}

impl Outbox {
    pub fn open(directory: &Path) -> Result<Outbox, OutboxError> {
        durable::create_directory(directory)
            .map_err(|source| OutboxError::Create { path: directory.to_owned(), source })?;
        Ok(Outbox { directory: directory.to_owned() })
    }

    /// Durable when it returns. An entry of the same id is replaced.
    pub fn put(&self, entry: &Entry) -> Result<(), OutboxError> {
        let path = self.path_of(&entry.id);
        let content = serde_json::to_vec(entry).map_err(|source| OutboxError::Encode { source })?;
        durable::write(&path, &content).map_err(|source| OutboxError::Write { path, source })
    }

    /// Called after the acknowledgement, never before.
    pub fn remove(&self, id: &str) -> Result<(), OutboxError> {
        let path = self.path_of(id);
        durable::remove(&path).map_err(|source| OutboxError::Remove { path, source })
    }

    /// What is left, in the order of the file names. Unreadable files are reported and passed over.
    pub fn entries(&self) -> Result<Vec<Entry>, OutboxError> {
        let failed = |source| OutboxError::List { path: self.directory.clone(), source };
        let mut paths = Vec::new();
        for file in fs::read_dir(&self.directory).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths.iter().filter_map(|path| read_entry(path)).collect())
    }

    fn path_of(&self, id: &str) -> PathBuf {
        let hash = hex::encode(&Sha256::digest(id)[..16]);
        self.directory.join(format!("{hash}.json"))
    }
}

fn read_entry(path: &Path) -> Option<Entry> {
    let content = match durable::read(path, MAX_ENTRY_BYTES) {
        Ok(content) => content?,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "signal in the outbox cannot be read");
            return None;
        }
    };
    match serde_json::from_slice(&content) {
        Ok(entry) => Some(entry),
        Err(error) => {
            let line = error.line();
            tracing::error!(path = %path.display(), line, "signal in the outbox is damaged");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> Entry {
        Entry {
            instance_id: "i-1".to_owned(),
            document_hash: "0123".to_owned(),
            handle: Handle::from_url("http://r.example/x?temp_url_sig=1").unwrap(),
            way: Way::Any,
            id: id.to_owned(),
            status: Status::Success,
            reason: Some("running".to_owned()),
            data: Some(RawValue::from_string("{\"a\":1}".to_owned()).unwrap()),
        }
    }

    #[test]
    fn what_was_put_is_there_after_a_restart_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("outbox");
        Outbox::open(&path).unwrap().put(&entry("i-1/main/0123")).unwrap();

        let outbox = Outbox::open(&path).unwrap();
        outbox.put(&entry("i-1/main/0123")).unwrap();
        outbox.put(&entry("../../escape")).unwrap();
        let ids: Vec<String> = outbox.entries().unwrap().into_iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), 2, "the same id is one entry: {ids:?}");
        assert_eq!(outbox.entries().unwrap()[0].signal().to_json(), {
            let id = &ids[0];
            format!(
                "{{\"status\":\"SUCCESS\",\"reason\":\"running\",\"id\":\"{id}\",\"data\":{{\"a\":1}}}}"
            )
        });

        outbox.remove("i-1/main/0123").unwrap();
        outbox.remove("i-1/main/0123").unwrap();
        assert_eq!(outbox.entries().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_entry_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(directory.path()).unwrap();
        outbox.put(&entry("a")).unwrap();
        fs::write(directory.path().join("0000.json"), "{\"id\":").unwrap();
        fs::write(directory.path().join("0001.tmp"), "half").unwrap();

        assert_eq!(outbox.entries().unwrap().len(), 1);
        assert!(directory.path().join("0000.json").exists(), "it is kept for a person to look at");
    }
}
