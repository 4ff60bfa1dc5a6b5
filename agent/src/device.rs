//! Block devices that a document uses as volumes: Cinder volumes, mostly.
//!
//! A device is found, formatted if there is nothing at all on it, checked, mounted before the first
//! container that may use it, and unmounted after the last has stopped. Formatting is the one thing
//! here that destroys, so it is done only when the first and the last mebibyte of the device hold
//! nothing but zeros: file systems, partition tables, encrypted volumes and disks of a RAID all have
//! their marks in one of the two. `mkfs` looks for the marks that it knows once more, and is not
//! told to go on in spite of one.
//!
//! Mounting is a call of the kernel; making and checking file systems is done by the programs that
//! come with them (`mkfs.ext4`, `e2fsck`), which have known these formats for decades.

mod blank;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use tokio::process::Command;

use crate::durable;
use crate::image::volume;
use crate::plan::DevicePlan;
use crate::text;

/// What an empty device is formatted with if the document does not say.
const DEFAULT_FILE_SYSTEM: &str = "ext4";

/// What a device may be formatted with: what kernels of cloud images have built in.
const FILE_SYSTEMS: [&str; 3] = ["ext4", "ext3", "xfs"];

/// A volume is attached while the instance boots, and its device may come late.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(60);

const DEVICE_POLL: Duration = Duration::from_millis(250);

/// A check of a large file system that was not unmounted takes minutes.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(1800);

/// How much of a program's own words goes into an error.
const MAX_MESSAGE_BYTES: usize = 300;

/// Why a device cannot be used. Each says of which volume.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("volume {volume}: its device did not appear within {} s: {source}", DEVICE_TIMEOUT.as_secs())]
    Missing { volume: String, source: volume::VolumeError },
    #[error("volume {volume}: {} cannot be read", device.display())]
    Read { volume: String, device: PathBuf, source: io::Error },
    #[error("volume {volume}: {} has none of the file systems ext4, ext3 and xfs, and is not empty: it is left as it is", device.display())]
    NotEmpty { volume: String, device: PathBuf },
    #[error("volume {volume}: {} is empty and read_only, so there is nothing to mount", device.display())]
    EmptyAndReadOnly { volume: String, device: PathBuf },
    #[error(
        "volume {volume}: a device cannot be formatted with {file_system}, only with ext4, ext3 or xfs"
    )]
    FileSystem { volume: String, file_system: String },
    #[error("volume {volume}: {program} cannot be run")]
    Run { volume: String, program: String, source: io::Error },
    #[error("volume {volume}: {program} failed with {status}: {message}")]
    Program { volume: String, program: String, status: String, message: String },
    #[error("volume {volume}: directory {} cannot be made", path.display())]
    Directory { volume: String, path: PathBuf, source: io::Error },
    #[error("volume {volume}: {} cannot be mounted", device.display())]
    Mount { volume: String, device: PathBuf, source: Errno },
    #[error("{} cannot be unmounted", path.display())]
    Unmount { path: PathBuf, source: Errno },
}

impl DeviceError {
    /// Stable: scripts and tests compare it.
    pub fn code(&self) -> &'static str {
        match self {
            DeviceError::Missing { .. } => "device_missing",
            DeviceError::NotEmpty { .. } => "device_not_empty",
            DeviceError::Program { .. } | DeviceError::Run { .. } => "device_program_failed",
            _ => "device_unusable",
        }
    }
}

/// Unmounts what is mounted where the device is to be, unless it is that very device in that very mode:
/// the document may have changed. To be called when no container uses it any more.
pub async fn make_way(plan: &DevicePlan) -> Result<(), DeviceError> {
    if !is_mount_point(&plan.mount_point) {
        return Ok(());
    }
    let device = wait_for(plan).await?;
    if is_in_place(plan, &device) { Ok(()) } else { unmount(&plan.mount_point) }
}

/// Mounts the device where the containers will look for it, and makes it ready for that. What
/// [`make_way`] has left there is the device, and false is answered.
pub async fn mount_device(plan: &DevicePlan) -> Result<bool, DeviceError> {
    if is_mount_point(&plan.mount_point) {
        return Ok(false);
    }
    let device = wait_for(plan).await?;
    let file_system = match blank::look(&device) {
        Ok(blank::Content::FileSystem(name)) => name,
        Ok(blank::Content::Nothing) => format(plan, &device).await?,
        Ok(blank::Content::Other) => {
            return Err(DeviceError::NotEmpty { volume: plan.volume.clone(), device });
        }
        Err(source) => {
            return Err(DeviceError::Read { volume: plan.volume.clone(), device, source });
        }
    };
    if file_system.starts_with("ext") && !plan.read_only {
        check(plan, &device).await?;
    }
    durable::create_directory(&plan.mount_point).map_err(|source| DeviceError::Directory {
        volume: plan.volume.clone(),
        path: plan.mount_point.clone(),
        source,
    })?;
    let mut flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    flags.set(MsFlags::MS_RDONLY, plan.read_only);
    mount(Some(&device), &plan.mount_point, Some(file_system), flags, None::<&str>)
        .map_err(|source| DeviceError::Mount { volume: plan.volume.clone(), device, source })?;
    Ok(true)
}

/// Unmounts what is mounted in the directories of `directory`, each of which is a volume's, but for
/// those that are wanted. To be called when no container uses the others any more.
pub fn unmount_others(directory: &Path, wanted: &BTreeSet<&Path>) -> Result<(), DeviceError> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Ok(());
    };
    let paths = entries.flatten().map(|entry| entry.path());
    for path in paths.filter(|path| !wanted.contains(path.as_path()) && is_mount_point(path)) {
        unmount(&path)?;
    }
    Ok(())
}

fn unmount(path: &Path) -> Result<(), DeviceError> {
    umount2(path, MntFlags::empty())
        .map_err(|source| DeviceError::Unmount { path: path.to_owned(), source })
}

fn is_in_place(plan: &DevicePlan, device: &Path) -> bool {
    let (Ok(mounted), Ok(device)) = (plan.mount_point.metadata(), device.metadata()) else {
        return false;
    };
    let is_read_only = statvfs(&plan.mount_point)
        .map(|file_system| file_system.flags().contains(FsFlags::ST_RDONLY));
    mounted.dev() == device.rdev() && is_read_only == Ok(plan.read_only)
}

/// Another device than the directory it is in.
fn is_mount_point(path: &Path) -> bool {
    let device_of = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let parent = path.parent().and_then(device_of);
    device_of(path).is_some_and(|device| parent.is_some_and(|parent| parent != device))
}

async fn wait_for(plan: &DevicePlan) -> Result<PathBuf, DeviceError> {
    let search = async {
        loop {
            match volume::find(&plan.selector) {
                Ok(device) => return device,
                Err(_) => tokio::time::sleep(DEVICE_POLL).await,
            }
        }
    };
    match tokio::time::timeout(DEVICE_TIMEOUT, search).await {
        Ok(device) => Ok(device),
        // Once more, for the words of its failure.
        Err(_) => volume::find(&plan.selector)
            .map_err(|source| DeviceError::Missing { volume: plan.volume.clone(), source }),
    }
}

/// Makes a file system on an empty device; answers which.
async fn format(plan: &DevicePlan, device: &Path) -> Result<&'static str, DeviceError> {
    let volume = || plan.volume.clone();
    if plan.read_only {
        let device = device.to_owned();
        return Err(DeviceError::EmptyAndReadOnly { volume: volume(), device });
    }
    let wanted = plan.filesystem.as_deref().unwrap_or(DEFAULT_FILE_SYSTEM);
    let Some(file_system) = FILE_SYSTEMS.into_iter().find(|known| *known == wanted) else {
        let file_system = text::clean(wanted, MAX_MESSAGE_BYTES);
        return Err(DeviceError::FileSystem { volume: volume(), file_system });
    };
    tracing::info!(volume = plan.volume, file_system, "formatting an empty device");
    run(plan, &format!("mkfs.{file_system}"), &["-q"], device, &[0]).await?;
    Ok(file_system)
}

/// 1 means that errors were repaired, 2 that the machine is to be restarted if it was the root.
async fn check(plan: &DevicePlan, device: &Path) -> Result<(), DeviceError> {
    run(plan, "e2fsck", &["-p"], device, &[0, 1, 2]).await
}

async fn run(
    plan: &DevicePlan,
    program: &str,
    options: &[&str],
    device: &Path,
    good: &[i32],
) -> Result<(), DeviceError> {
    let failed = |source| DeviceError::Run {
        volume: plan.volume.clone(),
        program: program.to_owned(),
        source,
    };
    let output = Command::new(program)
        .args(options)
        .arg(device)
        // A question is answered by silence, which is no.
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PROGRAM_TIMEOUT, output)
        .await
        .map_err(|elapsed| failed(elapsed.into()))?
        .map_err(failed)?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    // e2fsck says on the one what is damaged, and on the other that somebody has to see to it.
    let words = [output.stdout, output.stderr].concat();
    Err(DeviceError::Program {
        volume: plan.volume.clone(),
        program: program.to_owned(),
        status: output.status.to_string(),
        message: text::clean(&String::from_utf8_lossy(&words), MAX_MESSAGE_BYTES),
    })
}
