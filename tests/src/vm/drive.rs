//! The drives by which a cloud hands user data to a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use crate::vm::run;

/// A config drive as Nova makes it, in `directory`.
pub fn config(directory: &Path, instance: &str, user_data: &str) -> Result<PathBuf> {
    let tree = files(directory, instance, user_data)?;
    let drive = tree.with_extension("iso");
    let mut command = Command::new("genisoimage");
    command.args(["-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r"]);
    run(command.args(["-V", "config-2", "-o"]).arg(&drive).arg(&tree))?;
    Ok(drive)
}

/// The same where Nova is told that `config_drive_format` is vfat: 64 MB, as it makes them.
pub fn config_of_vfat(directory: &Path, instance: &str, user_data: &str) -> Result<PathBuf> {
    let tree = files(directory, instance, user_data)?;
    let drive = tree.with_extension("vfat");
    fs::File::create(&drive)?.set_len(64 << 20)?;
    run(Command::new("mkfs.vfat").args(["-n", "config-2"]).arg(&drive))?;
    let files = tree.join("openstack");
    run(Command::new("mcopy").arg("-si").arg(&drive).arg(files).arg("::/"))?;
    Ok(drive)
}

fn files(directory: &Path, instance: &str, user_data: &str) -> Result<PathBuf> {
    let tree = directory.join(format!("drive-{instance}"));
    let latest = tree.join("openstack/latest");
    fs::create_dir_all(&latest)?;
    let meta_data = json!({"uuid": instance, "name": "scene", "hostname": "scene"});
    fs::write(latest.join("meta_data.json"), meta_data.to_string())?;
    fs::write(latest.join("user_data"), user_data)?;
    Ok(tree)
}
