//! An archive on an attached volume: the device is found, mounted read-only, and unmounted after.
//!
//! Unlike a config drive a volume with images is large and has whatever file system its maker chose,
//! so the kernel reads it. It is mounted without devices, set-user-id programs or execution, below
//! the agent's own directory, for as long as the archive is read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::plan::DeviceSelector;

/// What cloud volumes are formatted with, the most usual first; each try costs a read.
const FILE_SYSTEMS: [&str; 5] = ["ext4", "xfs", "iso9660", "vfat", "btrfs"];

/// Why a volume cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("no block device has {0}")]
    NoDevice(String),
    #[error("{} cannot be mounted", device.display())]
    Mount { device: PathBuf, source: Errno },
    #[error("{} has none of the file systems ext4, xfs, iso9660, vfat and btrfs", device.display())]
    FileSystem { device: PathBuf },
    #[error("directory to mount it on cannot be made")]
    Directory(#[source] std::io::Error),
    #[error("path leads out of the volume")]
    Outside,
    #[error("{} is not on the volume", path.display())]
    NoFile { path: PathBuf, source: std::io::Error },
}

/// A volume that is mounted as long as this value lives.
#[derive(Debug)]
pub(crate) struct Mounted {
    mount_point: PathBuf,
}

impl Mounted {
    pub(crate) fn mount(
        selector: &DeviceSelector,
        mount_point: &Path,
    ) -> Result<Mounted, VolumeError> {
        let device = find(selector)?;
        // An agent that was killed in the middle has left it mounted.
        let _not_mounted = umount2(mount_point, MntFlags::MNT_DETACH);
        std::fs::create_dir_all(mount_point).map_err(VolumeError::Directory)?;
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        for file_system in FILE_SYSTEMS {
            match mount(Some(&device), mount_point, Some(file_system), flags, None::<&str>) {
                Ok(()) => return Ok(Mounted { mount_point: mount_point.to_owned() }),
                // It has another file system, or the kernel does not know this one.
                Err(Errno::EINVAL | Errno::ENODEV) => {}
                Err(source) => return Err(VolumeError::Mount { device, source }),
            }
        }
        Err(VolumeError::FileSystem { device })
    }

    /// A file on the volume. A link on it must not lead to a file of the instance.
    pub(crate) fn file(&self, path: &Path) -> Result<PathBuf, VolumeError> {
        let not_there = |source| VolumeError::NoFile { path: path.to_owned(), source };
        let inside = path.strip_prefix("/").unwrap_or(path);
        let root = self.mount_point.canonicalize().map_err(not_there)?;
        let file = root.join(inside).canonicalize().map_err(not_there)?;
        if !file.starts_with(&root) {
            return Err(VolumeError::Outside);
        }
        Ok(file)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.mount_point, MntFlags::MNT_DETACH) {
            tracing::warn!(%error, "volume with an archive was not unmounted");
        }
    }
}

/// The first block device that the selector fits.
pub(crate) fn find(selector: &DeviceSelector) -> Result<PathBuf, VolumeError> {
    let (found, words) = match selector {
        DeviceSelector::Path(path) => {
            (path.exists().then(|| path.clone()), format!("the path {}", path.display()))
        }
        DeviceSelector::Label(label) => (
            block_devices().into_iter().map(|(_, device)| device).find(|device| {
                label_of(device).is_some_and(|found| found.eq_ignore_ascii_case(label))
            }),
            format!("the label {label}"),
        ),
        DeviceSelector::Serial(serial) => {
            let fits = |name: &str| serial_of(name).is_some_and(|found| is_serial(&found, serial));
            let device = block_devices().into_iter().find(|(name, _)| fits(name));
            (device.map(|(_, device)| device), format!("the serial {serial}"))
        }
    };
    found.ok_or(VolumeError::NoDevice(words))
}

/// Names and device files, in the order of names.
fn block_devices() -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir("/sys/class/block") else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with("ram") && !name.starts_with("zram"));
    names.sort();
    names.into_iter().map(|name| (name.clone(), Path::new("/dev").join(name))).collect()
}

/// virtio says it in the device, SCSI in the device below.
fn serial_of(name: &str) -> Option<String> {
    let device = Path::new("/sys/class/block").join(name);
    let places = ["serial", "device/serial", "device/vpd_pg80"];
    let read = |place: &&str| std::fs::read(device.join(place)).ok();
    let bytes = places.iter().find_map(read)?;
    // Page 0x80 begins with four bytes of header.
    let text: String =
        bytes.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| char::from(*byte)).collect();
    (!text.is_empty()).then_some(text)
}

/// virtio cuts a serial to 20 characters, which are the first of a Cinder volume's id.
fn is_serial(found: &str, wanted: &str) -> bool {
    found == wanted || (found.len() == 20 && wanted.starts_with(found))
}

/// The label of the file system, read from its superblock: udev's links may come later, or never.
fn label_of(device: &Path) -> Option<String> {
    let mut file = File::open(device).ok()?;
    let mut at = |offset: u64, n_bytes: usize| {
        let mut bytes = vec![0; n_bytes];
        file.seek(SeekFrom::Start(offset)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches(['\0', ' ']).to_owned();
    if at(1024 + 56, 2)? == [0x53, 0xef] {
        return Some(text(&at(1024 + 120, 16)?));
    }
    if at(0, 4)? == *b"XFSB" {
        return Some(text(&at(108, 12)?));
    }
    let volume = crate::datasource::volume::Volume::open(File::open(device).ok()?)?;
    Some(volume.label().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_may_be_cut() {
        let id = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
        assert!(is_serial(&id[..20], id));
        assert!(is_serial(id, id));
        assert!(!is_serial(&id[..19], id));
        assert!(!is_serial("", id));
        assert!(!is_serial("other", id));
    }

    #[test]
    fn labels_are_read_from_the_superblock() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let check = |content: &[(usize, &[u8])], expect: Option<&str>| {
            let mut bytes = vec![0; 64 * 1024];
            for (offset, piece) in content {
                bytes[*offset..*offset + piece.len()].copy_from_slice(piece);
            }
            std::fs::write(&image, bytes).unwrap();
            assert_eq!(label_of(&image).as_deref(), expect);
        };
        check(&[(1080, &[0x53, 0xef]), (1144, b"images")], Some("images"));
        check(&[(1080, &[0x53, 0xef]), (1144, b"sixteen-letters!")], Some("sixteen-letters!"));
        check(&[(0, b"XFSB"), (108, b"images")], Some("images"));
        check(&[], None);
    }

    #[test]
    fn a_path_stays_on_the_volume() {
        let root = tempfile::tempdir().unwrap();
        let mounted = Mounted { mount_point: root.path().to_owned() };
        std::fs::write(root.path().join("web.tar"), "").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("link")).unwrap();
        assert!(mounted.file(Path::new("/web.tar")).is_ok());
        assert!(mounted.file(Path::new("web.tar")).is_ok());
        assert!(matches!(mounted.file(Path::new("link")), Err(VolumeError::Outside)));
        assert!(matches!(mounted.file(Path::new("../../etc")), Err(VolumeError::Outside)));
        assert!(matches!(mounted.file(Path::new("none")), Err(VolumeError::NoFile { .. })));
    }
}
