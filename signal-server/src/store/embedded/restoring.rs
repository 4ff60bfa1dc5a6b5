//! A backup on its way into a data directory.
//!
//! The records are put into a database of their own, `DIR/restoring`, which takes its place as `DIR/db` by
//! one rename when all of them are there. A relay does not start on a directory in which `restoring` is, so
//! it never serves a part of a backup.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::store::embedded::directory::Directory;
use crate::store::embedded::{EmbeddedStore, OpenError};

/// A data directory that was empty, and the store whose records are to be its own.
#[derive(Debug)]
pub struct Restoring {
    /// Keeps relays away until the end.
    directory: Directory,
    store: EmbeddedStore,
}

impl Restoring {
    /// Begins, if the directory is empty or not there. What is in `may_be_there` does not count.
    pub fn begin(path: &Path, may_be_there: &[&str]) -> Result<Restoring, OpenError> {
        if let Some(found) = first_entry(path, may_be_there)? {
            return Err(OpenError::NotEmpty { path: path.to_owned(), found });
        }
        // It holds what lets signals in: nobody else is to look into it.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| {
            OpenError::File { action: "create", path: path.to_owned(), source }
        })?;
        let directory = Directory::open(path)?;
        let store = EmbeddedStore::open(&directory.restoring_path())?;
        Ok(Restoring { directory, store })
    }

    /// Where the records go.
    pub fn store(&self) -> &EmbeddedStore {
        &self.store
    }

    /// Puts the store in its place.
    pub fn finish(self) -> Result<(), OpenError> {
        let Restoring { directory, store } = self;
        drop(store);
        let (from, to) = (directory.restoring_path(), directory.database_path());
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::File { action, path, source }
        };
        fs::rename(from.join("db"), &to).map_err(failed("make", &to))?;
        // In this order, so that whoever finds no `restoring` finds the database.
        directory.sync().map_err(failed("sync", &to))?;
        fs::remove_dir_all(&from).map_err(failed("remove", &from))?;
        directory.sync().map_err(failed("sync", &to))
    }
}

/// A name in the directory that is none of these; nothing where there is no directory.
fn first_entry(path: &Path, passed: &[&str]) -> Result<Option<String>, OpenError> {
    let failed = |source| OpenError::File { action: "read", path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if !passed.contains(&name.as_str()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
