//! A child process whose output is kept in files and which never outlives the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::wait;

/// As much of a log as a failing scene shows.
const SHOWN_BYTES: usize = 4000;

/// A running or ended child process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts a command with its output in `directory`, as `<name>.out` and `<name>.err`.
    pub fn spawn(name: &str, command: &mut Command, directory: &Path) -> Result<Process> {
        let stdout = directory.join(format!("{name}.out"));
        let stderr = directory.join(format!("{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        Ok(Process { child, stdout, stderr })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout so far.
    pub fn output(&self) -> Result<String> {
        read_lossy(&self.stdout)
    }

    /// What it wrote to stderr so far.
    pub fn errors(&self) -> Result<String> {
        read_lossy(&self.stderr)
    }

    /// The end of its output, for the message of a failing scene.
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for path in [&self.stdout, &self.stderr] {
            let text = read_lossy(path).unwrap_or_default();
            words.push_str(&format!("\n--- {} ---\n", path.display()));
            words.push_str(tail(&text));
        }
        words
    }

    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end, which must come within the limit.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of process {}", self.id());
        let Process { child, .. } = self;
        wait::until(&what, limit, || Ok(child.try_wait()?)).with_context(|| self.last_words())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id())?;
        nix::sys::signal::kill(Pid::from_raw(id), signal)
            .with_context(|| format!("failed to send {signal} to process {id}"))
    }

    /// Ends it with SIGKILL and reaps it. A process that is gone already is no error.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        let _already_gone = self.child.kill();
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.kill();
    }
}

fn read_lossy(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(SHOWN_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
