//! The data directory: who uses it, what format it has, how much room is left.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::statvfs::statvfs;

use crate::store::embedded::OpenError;

/// What `DIR/format` says. The number grows when an older version could not read what a newer one wrote.
const FORMAT: &str = "heliograph store 1";

/// Longest text that is read from `lock` and `format`: both are one short line of our own.
const MAX_LINE_BYTES: u64 = 100;

/// Free space below which commits are refused: twice what a flush of the memory table needs, and the
/// tables that a compaction writes before it removes the old ones.
const MAX_RESERVE_BYTES: u64 = 64 << 20;

/// The reserve is never more than this part of the file system, so that a small one is of use.
const RESERVE_PART: u64 = 16;

/// How much a directory has to take and sync before the database is opened again after a failure.
const PROBE_BYTES: usize = 1 << 20;

/// A data directory that this process has for itself.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Closing it frees the directory.
    _lock: File,
}

/// How much room there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    free: u64,
    reserve: u64,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::File { action, path, source }
        };
        fs::create_dir_all(path).map_err(failed("create", path))?;
        let lock_path = path.join("lock");
        let lock = take_lock(path, &lock_path)?;
        let format_path = path.join("format");
        match read_line(&format_path) {
            Ok(found) if found == FORMAT => {}
            Ok(found) => {
                return Err(OpenError::Format { path: path.to_owned(), found, expected: FORMAT });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_durably(&format_path, &format!("{FORMAT}\n"))
                    .map_err(failed("write", &format_path))?;
            }
            Err(error) => return Err(failed("read", &format_path)(error)),
        }
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn database_path(&self) -> PathBuf {
        self.path.join("db")
    }

    pub(crate) fn space(&self) -> io::Result<Space> {
        let status = statvfs(&self.path)?;
        let unit = status.fragment_size();
        let total = status.blocks() * unit;
        Ok(Space {
            free: status.blocks_available() * unit,
            reserve: MAX_RESERVE_BYTES.min(total / RESERVE_PART),
        })
    }

    /// Where a backup is restored before it takes its place.
    pub(crate) fn restoring_path(&self) -> PathBuf {
        self.path.join("restoring")
    }

    /// Makes what was renamed in the directory last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Writes and syncs something of the size that a database needs to get going.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let path = self.path.join("probe");
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&vec![0; PROBE_BYTES])?;
            file.sync_all()
        });
        let removed = fs::remove_file(&path);
        written.and(removed)
    }

    /// Has the kernel forget what it remembers of the database's files, so that they are read from the
    /// disk. Best effort: a page that is still to be written stays.
    pub(crate) fn forget_cached_pages(&self) {
        let mut folders = vec![self.database_path()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => {
                        if let Ok(file) = File::open(entry.path()) {
                            let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
                            let _ = posix_fadvise(&file, 0, 0, advice);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Space {
    /// Whether nothing may be added.
    pub(crate) fn is_short(self) -> bool {
        self.free < self.reserve
    }

    /// Whether nothing may even be removed, which takes a little room, too.
    pub(crate) fn is_gone(self) -> bool {
        self.free < self.reserve / 4
    }
}

fn take_lock(path: &Path, lock_path: &Path) -> Result<File, OpenError> {
    let failed = |action| {
        let path = lock_path.to_owned();
        move |source| OpenError::File { action, path, source }
    };
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(lock_path)
        .map_err(failed("open"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let owner = read_line(lock_path).ok().and_then(|line| line.parse().ok());
            return Err(OpenError::InUse { path: path.to_owned(), owner });
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
    }
    // The number is for people only, so it need not be synced, nor written at all on a full disk.
    let _ = lock
        .set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

fn read_line(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_LINE_BYTES).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Writes a file that is there as a whole or not at all, also after a crash.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
