//! A relay: the real `heliograph-server serve`, on ports of the kernel's choice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::{programs, wait};

/// A start replays the journal; on a busy machine after a crash this may take a while.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a command may take beyond the time that it was told to wait.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    process: Process,
    /// Logs are not in the data directory: it may be on a full disk.
    logs: TempDir,
    data_directory: PathBuf,
    /// Base URL of the public listener.
    pub public: String,
    /// Base URL of the admin listener.
    pub admin: String,
}

/// A handle as `handle create` printed it.
#[derive(Clone, Debug)]
pub struct Handle {
    pub id: String,
    pub signal_url: String,
    pub poll_url: String,
}

/// What `wait` printed, and its exit code.
#[derive(Clone, Debug)]
pub struct Waited {
    pub exit_code: Option<i32>,
    pub view: Value,
}

impl Relay {
    pub fn start(data_directory: &Path) -> Result<Relay> {
        Relay::start_at(data_directory, "127.0.0.1:0")
    }

    /// Starts on a given address, so that URLs given out before a restart stay good.
    pub fn start_at(data_directory: &Path, listen: &str) -> Result<Relay> {
        Relay::start_with(data_directory, listen, &[])
    }

    /// Likewise, with more flags.
    pub fn start_with(data_directory: &Path, listen: &str, flags: &[&str]) -> Result<Relay> {
        let program = Command::new(programs::heliograph_server()?);
        Relay::start_program(program, data_directory, listen, flags)
    }

    /// Likewise, in a network namespace.
    pub fn start_in(
        namespace: &str,
        data_directory: &Path,
        listen: &str,
        flags: &[&str],
    ) -> Result<Relay> {
        let mut program = Command::new("ip");
        program.args(["netns", "exec", namespace]).arg(programs::heliograph_server()?);
        Relay::start_program(program, data_directory, listen, flags)
    }

    fn start_program(
        program: Command,
        data_directory: &Path,
        listen: &str,
        flags: &[&str],
    ) -> Result<Relay> {
        let logs = TempDir::new()?;
        let mut process = spawn(program, data_directory, listen, flags, logs.path())?;
        let (public, admin) = wait::until("the relay's listening lines", START_LIMIT, || {
            if let Some(status) = process.has_ended()? {
                bail!("the relay ended with {status}:{}", process.last_words());
            }
            let output = process.output()?;
            Ok(listening(&output, "public").zip(listening(&output, "admin")))
        })
        .with_context(|| process.last_words())?;
        Ok(Relay { process, logs, data_directory: data_directory.to_owned(), public, admin })
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// `host:port` of the public listener.
    pub fn address(&self) -> &str {
        self.public.trim_start_matches("http://")
    }

    /// The credential that the first start wrote.
    pub fn token_file(&self) -> PathBuf {
        self.data_directory.join("operator.token")
    }

    pub fn create_handle(&self, count: usize, timeout: Duration) -> Result<Handle> {
        let count = count.to_string();
        let timeout = format!("{}s", timeout.as_secs());
        let arguments = ["handle", "create", "--count", &count, "--timeout", &timeout];
        let created = self.command(&arguments, COMMAND_LIMIT)?;
        ensure!(created.exit_code == Some(0), "handle create: {created:?}");
        handle_of(&created.view)
    }

    /// Creates a handle over HTTP, where a process for each would take too long.
    pub fn create_handle_quickly(&self) -> Result<Handle> {
        self.create_handle_for(1)
    }

    /// Likewise several handles, which stay pending whatever a scene sends them.
    pub fn create_handles(&self, n_handles: usize) -> Result<Vec<Handle>> {
        (0..n_handles).map(|_| self.create_handle_for(1000)).collect()
    }

    fn create_handle_for(&self, count: usize) -> Result<Handle> {
        let token = fs::read_to_string(self.token_file())?;
        let response = reqwest::blocking::Client::new()
            .post(format!("{}/api/v1/handles", self.public))
            .header("x-auth-token", token.trim())
            .body(format!(r#"{{"count": {count}, "timeout": "10m"}}"#))
            .header("content-type", "application/json")
            .send()?;
        let status = response.status();
        let text = response.text()?;
        ensure!(status.is_success(), "a handle was refused with {status}: {text}");
        handle_of(&serde_json::from_str(&text)?)
    }

    /// Removes a handle, over HTTP.
    pub fn delete_handle(&self, handle: &Handle) -> Result<()> {
        let token = fs::read_to_string(self.token_file())?;
        let url = format!("{}/api/v1/handles/{}", self.public, handle.id);
        let request = reqwest::blocking::Client::new().delete(url);
        request.header("x-auth-token", token.trim()).send()?.error_for_status()?;
        Ok(())
    }

    /// The handle as it is now, over HTTP, by whoever has its poll URL.
    pub fn poll(&self, handle: &Handle) -> Result<Value> {
        let text = reqwest::blocking::get(&handle.poll_url)?.error_for_status()?.text()?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The handle as `handle show` shows it.
    pub fn show(&self, handle: &Handle) -> Result<Value> {
        let shown = self.command(&["handle", "show", &handle.id], COMMAND_LIMIT)?;
        ensure!(shown.view["state"].is_string(), "handle show: {shown:?}");
        Ok(shown.view)
    }

    /// Runs the `wait` command.
    pub fn wait(&self, handle: &Handle, timeout: Duration) -> Result<Waited> {
        let seconds = format!("{}s", timeout.as_secs());
        self.command(&["wait", &handle.id, "--timeout", &seconds], timeout + COMMAND_LIMIT)
    }

    /// Sends it `SIGSTOP` or `SIGCONT`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it without a warning, as a power cut would.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        Ok(())
    }

    /// Ends it as an operator does.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.ended(COMMAND_LIMIT)
    }

    /// The end of its log, for the message of a failing scene.
    pub fn last_words(&self) -> String {
        self.process.last_words()
    }

    fn command(&self, arguments: &[&str], limit: Duration) -> Result<Waited> {
        let directory = TempDir::new_in(self.logs.path())?;
        let mut command = Command::new(programs::heliograph_server()?);
        command
            .args(arguments)
            .args(["--server", &self.public, "--json", "--token-file"])
            .arg(self.token_file());
        let mut process = Process::spawn("command", &mut command, directory.path())?;
        let status = process.ended(limit)?;
        let output = process.output()?;
        let view = serde_json::from_str(&output).with_context(|| {
            format!("{arguments:?} ended with {status}, printed no JSON:{}", process.last_words())
        })?;
        Ok(Waited { exit_code: status.code(), view })
    }
}

/// Starts a relay that is expected to refuse, and gives its exit status and what it said.
pub fn refused(data_directory: &Path) -> Result<(ExitStatus, String)> {
    let logs = TempDir::new()?;
    let program = Command::new(programs::heliograph_server()?);
    let mut process = spawn(program, data_directory, "127.0.0.1:0", &[], logs.path())?;
    let status = process.ended(START_LIMIT)?;
    Ok((status, process.errors()?))
}

fn spawn(
    mut command: Command,
    data_directory: &Path,
    listen: &str,
    flags: &[&str],
    logs: &Path,
) -> Result<Process> {
    command.args(["serve", "--listen", listen, "--data-dir"]).arg(data_directory).args(flags);
    if !flags.contains(&"--admin-listen") {
        command.args(["--admin-listen", "127.0.0.1:0"]);
    }
    Process::spawn("relay", &mut command, logs)
}

fn handle_of(created: &Value) -> Result<Handle> {
    let text = |key: &str| -> Result<String> {
        let value = created[key].as_str();
        Ok(value.with_context(|| format!("a handle was created without {key}"))?.to_owned())
    };
    Ok(Handle { id: text("id")?, signal_url: text("signal_url")?, poll_url: text("poll_url")? })
}

/// Finds the base URL in a line such as `listening public http://127.0.0.1:8090`.
fn listening(output: &str, which: &str) -> Option<String> {
    let prefix = format!("listening {which} ");
    let complete_lines = output.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    for line in complete_lines {
        if let Some(url) = line.trim_end().strip_prefix(&prefix) {
            return Some(url.trim_end_matches('/').to_owned());
        }
    }
    None
}
