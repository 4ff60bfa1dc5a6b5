//! A disk that is easily full: a small file system in memory, mounted for one scene.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// A mounted file system of a given size.
#[derive(Debug)]
pub struct Disk {
    mount_point: TempDir,
}

impl Disk {
    pub fn mount(mebibytes: u32) -> Result<Disk> {
        let mount_point = TempDir::new()?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=755"), "scene"])
            .arg(mount_point.path())
            .status()
            .context("failed to run mount")?;
        ensure!(status.success(), "a tmpfs cannot be mounted: this scene needs root");
        Ok(Disk { mount_point })
    }

    pub fn path(&self) -> &Path {
        self.mount_point.path()
    }

    /// Takes all the space that is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast())?;
        // Large blocks first, then single bytes: nothing is to remain.
        for block in [vec![0; 1 << 20], vec![0; 4096], vec![0; 1]] {
            loop {
                match file.write(&block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("failed to fill the disk"),
                }
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn release(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
