//! A block device as a volume: formatted when it is empty, kept when it is not, unmounted in the end.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::{Engine, Kind};
use e2e::programs;
use tempfile::TempDir;

use crate::stage::{IDLE, Scene, Stage};

const SIZE: u64 = 32 << 20;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("devices::docker::a_block_device_is_a_volume", |stage| {
        a_block_device_is_a_volume(stage, Kind::Docker)
    })]
}

fn a_block_device_is_a_volume(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let directory = TempDir::new()?;
    let agent = agent_beside(turn.engine, directory.path())?;
    let device = LoopDevice::new(&directory.path().join("empty"))?;
    let instance = Instance::new("volume", &turn.engine.url(), &document(&device, "once"))?;
    let instance = instance.with_program(&agent);
    let first = instance.run()?;
    ensure!(first.status.success(), "{}{}", first.console, first.last_words);

    // Another document finds what the first has written, although everything was stopped between.
    let stopped = instance.ask(&["stop"])?;
    ensure!(stopped.exit_code == Some(0), "{stopped:?}");
    let mounts = || -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/mounts", turn.engine.process_id()?))?)
    };
    ensure!(!mounts()?.contains(&device.path), "the device was to be unmounted: {}", mounts()?);
    instance.rewrite(&document(&device, "twice"))?;
    let second = instance.run()?;
    ensure!(second.status.success(), "{}{}", second.console, second.last_words);
    ensure!(second.console.contains("\nonce\ntwice\n"), "{}", second.console);

    // After a reset the engine may have been quicker than the mount: then the container starts anew.
    let idle = document(&device, "").replace("when: exit", "when: running, stable_for: 1s");
    let idle = idle.replace("cat /store/words", IDLE.trim_matches('"'));
    instance.rewrite(&idle)?;
    let third = instance.run()?;
    ensure!(third.status.success(), "{}{}", third.console, third.last_words);
    let started_at = || -> Result<String> {
        let containers = turn.engine.containers()?;
        let id = containers[0]["Id"].as_str().context("no Id")?;
        Ok(turn.engine.inspect(id)?["State"]["StartedAt"].to_string())
    };
    let stopped = instance.ask(&["stop"])?;
    ensure!(stopped.exit_code == Some(0), "{stopped:?}");
    let id = turn.engine.containers()?[0]["Id"].as_str().context("no Id")?.to_owned();
    turn.engine.start_again(&id)?;
    let before = started_at()?;
    let fourth = instance.run()?;
    ensure!(fourth.status.success(), "{}{}", fourth.console, fourth.last_words);
    ensure!(started_at()? != before, "the container still has what is below the mount");
    let fifth = instance.run()?;
    ensure!(fifth.status.success(), "{}{}", fifth.console, fifth.last_words);

    // The same volume on another device.
    let other = LoopDevice::new(&directory.path().join("other"))?;
    instance.rewrite(&document(&other, "elsewhere"))?;
    let moved = instance.run()?;
    ensure!(moved.status.success(), "{}{}", moved.console, moved.last_words);
    let mounts = mounts()?;
    ensure!(mounts.contains(&other.path) && !mounts.contains(&device.path), "{mounts}");
    let terminated = instance.ask(&["terminate"])?;
    ensure!(terminated.exit_code == Some(0), "{terminated:?}");

    // What is not empty and no file system stays as it is.
    let path = directory.path().join("precious");
    let precious = LoopDevice::new(&path)?;
    let mut file = File::options().write(true).open(&path)?;
    file.seek(SeekFrom::Start(SIZE - 4096))?;
    file.write_all(b"precious")?;
    drop(file);
    instance.rewrite(&document(&precious, "never"))?;
    let refused = instance.run()?;
    ensure!(refused.status.code() == Some(1), "{}{}", refused.console, refused.last_words);
    ensure!(refused.console.contains("is not empty"), "{}", refused.console);
    let mut content = Vec::new();
    File::open(&path)?.read_to_end(&mut content)?;
    let n_changed = content.iter().filter(|byte| **byte != 0).count();
    ensure!(n_changed == b"precious".len(), "{n_changed} bytes are not zero");

    // What has lost its root directory and is marked as clean, only the kernel finds out.
    let damaged = LoopDevice::new(&directory.path().join("damaged"))?;
    for arguments in [&["mkfs.ext4", "-q"][..], &["debugfs", "-w", "-R", "clri <2>"]] {
        let made = Command::new(arguments[0]).args(&arguments[1..]).arg(&damaged.path).output()?;
        ensure!(made.status.success(), "{arguments:?}: {made:?}");
    }
    instance.rewrite(&document(&damaged, "never"))?;
    let refused = instance.run()?;
    ensure!(refused.status.code() == Some(1), "{}{}", refused.console, refused.last_words);
    let reason = format!("volume store: {} cannot be mounted: EUCLEAN", damaged.path);
    ensure!(refused.console.contains(&reason), "{}", refused.console);
    Ok(())
}

fn document(device: &LoopDevice, word: &str) -> String {
    format!(
        "#docker\nservices:\n  main:\n    image: busybox\n    volumes: [\"store:/store\"]\n\
         \x20   cmd: echo {word} >> /store/words; cat /store/words\n\
         volumes:\n  store: {{device: \"{}\"}}\nsignal: {{when: exit, timeout: 60s}}\n",
        device.path
    )
}

/// The agent where the engine is: what it mounts has to be seen by the engine, and the tests' engine
/// has mounts of its own.
pub(crate) fn agent_beside(engine: &Engine, directory: &Path) -> Result<PathBuf> {
    let path = directory.join("agent");
    let script = format!(
        "#!/bin/sh\nexec nsenter --mount --target {} -- {} \"$@\"\n",
        engine.process_id()?,
        programs::heliograph_agent()?.display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// A file as a block device, until it is dropped.
struct LoopDevice {
    path: String,
}

impl LoopDevice {
    fn new(file: &Path) -> Result<LoopDevice> {
        File::create(file)?.set_len(SIZE)?;
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "losetup: {words}");
        let path = String::from_utf8(output.stdout).context("a path that is not text")?;
        Ok(LoopDevice { path: path.trim().to_owned() })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _best_effort = Command::new("losetup").args(["--detach", &self.path]).status();
    }
}
