//! A drive with a few small files: a directory, or a block device with a certain label.
//!
//! A block device is found by the label in its file system, not by udev's links: the agent may run
//! before udev has made them, or where there is no udev. It is read, never mounted; see `volume`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::datasource::file::read_bounded;
use crate::datasource::volume::{Volume, VolumeError};
use crate::datasource::{BrokenReason, Found, Outcome};
use crate::error;

/// Where the files of a drive are.
#[derive(Clone, Debug)]
pub struct Drive {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Directory(PathBuf),
    /// Any of the machine's block devices that has one of these labels.
    Labelled(&'static [&'static str]),
    /// One of these devices, if it has one of these labels.
    Devices(Vec<PathBuf>, &'static [&'static str]),
}

/// The files that were asked for, in the same order; None for one that is not there.
pub(crate) type Files = Vec<Option<Vec<u8>>>;

/// A file on a drive and how large it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) path: &'static str,
    pub(crate) max_bytes: u64,
}

/// Why a drive that is there cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    #[error("reading {path} from {} failed", device.display())]
    Volume {
        path: &'static str,
        device: PathBuf,
        #[source]
        source: VolumeError,
    },
    #[error("reading {path} failed")]
    Read {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{path} is a link to somewhere outside the drive")]
    Outside { path: &'static str },
    #[error("reading was interrupted")]
    Interrupted,
}

impl Drive {
    /// A directory that already holds the files, for a drive that something else has mounted.
    pub fn directory(path: impl Into<PathBuf>) -> Drive {
        Drive { place: Place::Directory(path.into()) }
    }

    /// Whatever block device has one of the labels.
    pub fn labelled(labels: &'static [&'static str]) -> Drive {
        Drive { place: Place::Labelled(labels) }
    }

    /// The same, out of a list of devices.
    pub fn devices(devices: Vec<PathBuf>, labels: &'static [&'static str]) -> Drive {
        Drive { place: Place::Devices(devices, labels) }
    }

    /// Asks the drive for files, and a function for what they mean.
    pub(crate) async fn probe(
        &self,
        wanted: &'static [Wanted],
        understand: fn(Files) -> Result<Found, BrokenReason>,
    ) -> Outcome {
        match self.read(wanted).await {
            Ok(Some(files)) => match understand(files) {
                Ok(found) => Outcome::Found(found),
                Err(reason) => Outcome::Broken(reason),
            },
            Ok(None) => Outcome::Absent,
            Err(error) => Outcome::Broken(BrokenReason(error::chain(&error))),
        }
    }

    /// Reads files from the drive. None: there is no such drive.
    pub(crate) async fn read(
        &self,
        wanted: &'static [Wanted],
    ) -> Result<Option<Files>, DriveError> {
        let place = self.place.clone();
        let read = tokio::task::spawn_blocking(move || place.read(wanted));
        read.await.unwrap_or(Err(DriveError::Interrupted))
    }
}

impl Place {
    fn read(&self, wanted: &[Wanted]) -> Result<Option<Files>, DriveError> {
        let found = match self {
            Place::Directory(path) if !path.is_dir() => return Ok(None),
            Place::Directory(path) => return read_directory(path, wanted).map(Some),
            Place::Labelled(labels) => find_volume(block_devices(), labels),
            Place::Devices(devices, labels) => find_volume(devices.clone(), labels),
        };
        let Some((device, mut volume)) = found else { return Ok(None) };
        let files = wanted.iter().map(|Wanted { path, max_bytes }| {
            let read = volume.read_file(path, *max_bytes);
            read.map_err(|source| DriveError::Volume { path, device: device.clone(), source })
        });
        files.collect::<Result<Files, DriveError>>().map(Some)
    }
}

fn read_directory(root: &Path, wanted: &[Wanted]) -> Result<Files, DriveError> {
    wanted.iter().map(|wanted| read_file(root, *wanted)).collect()
}

/// A drive is written by whoever runs the cloud, but a link on it must not turn a file of the
/// instance into user data.
fn read_file(root: &Path, wanted: Wanted) -> Result<Option<Vec<u8>>, DriveError> {
    let Wanted { path, max_bytes } = wanted;
    let read_error = |source| DriveError::Read { path, source };
    let root = root.canonicalize().map_err(read_error)?;
    let file = match root.join(path).canonicalize() {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read_error(error)),
    };
    if !file.starts_with(&root) {
        return Err(DriveError::Outside { path });
    }
    read_bounded(&file, max_bytes).map(Some).map_err(read_error)
}

/// The machine's block devices, partitions included. Memory and loop devices are left out: a cloud
/// attaches neither.
fn block_devices() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/sys/class/block") else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !["ram", "zram", "loop", "dm-"].iter().any(|kind| name.starts_with(kind)));
    // The same drive every time, if there are two.
    names.sort();
    names.into_iter().map(|name| Path::new("/dev").join(name)).collect()
}

/// The first device that has a file system with one of the labels.
fn find_volume(devices: Vec<PathBuf>, labels: &[&str]) -> Option<(PathBuf, Volume<File>)> {
    devices.into_iter().find_map(|device| {
        // An empty CD-ROM drive cannot be opened, and has no label.
        let volume = Volume::open(File::open(&device).ok()?)?;
        labels.contains(&volume.label()).then_some((device, volume))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_on_the_drive() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(root.path().join("real"), "x").unwrap();
        std::os::unix::fs::symlink("real", root.path().join("inner")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("outer")).unwrap();
        let read = |path| read_file(root.path(), Wanted { path, max_bytes: 1 });
        assert_eq!(read("inner").unwrap(), Some(b"x".to_vec()));
        assert!(matches!(read("outer"), Err(DriveError::Outside { .. })));
        assert_eq!(read("none").unwrap(), None);
        std::fs::write(root.path().join("real"), "xx").unwrap();
        assert!(matches!(read("real"), Err(DriveError::Read { .. })));
    }
}
