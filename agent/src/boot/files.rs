//! The files that a document gives its containers: secrets, configs and `files`.
//!
//! They lie below the state directory, which nobody but its owner may enter; a container sees each
//! of them through a bind mount, with the mode and owner that the document says. A file whose
//! content has not changed is not written again, because a running container would go on seeing the
//! former one. What no document names any more is removed.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::durable;
use crate::plan::FilePlan;

/// User data has 64 KiB, so no file in it has more; what was encoded or compressed may grow.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Why a file could not be provided.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("write the file {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("remove outdated files below {}", directory.display())]
    Clean { directory: PathBuf, source: io::Error },
}

/// Writes what has changed, and removes what is not in the plan.
pub(crate) fn provide(directory: &Path, files: &[FilePlan]) -> Result<(), FileError> {
    for file in files {
        write(file).map_err(|source| FileError::Write { path: file.path.clone(), source })?;
    }
    let wanted: BTreeSet<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    remove_others(directory, &wanted)
        .map_err(|source| FileError::Clean { directory: directory.to_owned(), source })
}

/// Removes all of them.
pub(crate) fn remove_all(directory: &Path) -> Result<(), FileError> {
    provide(directory, &[])
}

fn write(file: &FilePlan) -> io::Result<()> {
    if let Some(parent) = file.path.parent() {
        durable::create_directory(parent)?;
    }
    let content = file.content.bytes();
    let is_unchanged =
        durable::read(&file.path, MAX_FILE_BYTES).ok().flatten().is_some_and(|old| old == content);
    if !is_unchanged {
        durable::write(&file.path, content)?;
    }
    let metadata = fs::metadata(&file.path)?;
    if (metadata.uid(), metadata.gid()) != (file.uid, file.gid) {
        chown(&file.path, Some(file.uid), Some(file.gid))?;
    }
    // After the owner: a change of owner may take bits of the mode away.
    fs::set_permissions(&file.path, Permissions::from_mode(file.mode))
}

fn remove_others(directory: &Path, wanted: &BTreeSet<&Path>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, wanted)?;
            // A directory with a wanted file in it refuses, which is right.
            drop(fs::remove_dir(&path));
        } else if !wanted.contains(path.as_path()) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::FileContent;

    fn file(directory: &Path, name: &str, content: &str, mode: u32) -> FilePlan {
        let owner = fs::metadata(directory).unwrap();
        FilePlan {
            path: directory.join(name),
            content: FileContent::new(content),
            mode,
            uid: owner.uid(),
            gid: owner.gid(),
        }
    }

    #[test]
    fn files_are_as_the_plan_says_and_others_go() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("files");
        provide(&directory, &[]).unwrap();
        durable::create_directory(&directory).unwrap();
        let first = [
            file(&directory, "secrets/password", "hunter2", 0o400),
            file(&directory, "configs/web", "port: 80", 0o444),
        ];
        provide(&directory, &first).unwrap();
        for (wanted, mode) in first.iter().zip([0o400, 0o444]) {
            assert_eq!(fs::read(&wanted.path).unwrap(), wanted.content.bytes());
            assert_eq!(fs::metadata(&wanted.path).unwrap().mode() & 0o777, mode);
        }

        // A running container goes on seeing the file that was there at its start.
        let inode = fs::metadata(&first[1].path).unwrap().ino();
        provide(&directory, &first[1..]).unwrap();
        assert_eq!(fs::metadata(&first[1].path).unwrap().ino(), inode);
        assert!(!directory.join("secrets").exists());
        let changed = [file(&directory, "configs/web", "port: 81", 0o444)];
        provide(&directory, &changed).unwrap();
        assert_eq!(fs::read(&changed[0].path).unwrap(), b"port: 81");
        remove_all(&directory).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
}
