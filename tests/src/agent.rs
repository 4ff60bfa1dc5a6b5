//! An agent: the real `heliograph-agent run`, as an instance's boot would run it.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::Process;
use crate::programs;

/// The longest that a scene's agent may take: most scenes tell it to give up far earlier.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// One instance: its user data, its state directory and its console stay over reboots.
#[derive(Debug)]
pub struct Instance {
    directory: TempDir,
    engine_url: String,
    id: String,
    program: PathBuf,
}

/// How a run of the agent ended.
#[derive(Debug)]
pub struct Ran {
    /// The id of its instance.
    pub instance: String,
    pub status: ExitStatus,
    pub console: String,
    /// What to show when a scene does not like the rest.
    pub last_words: String,
}

/// What a command printed, and its exit code.
#[derive(Clone, Debug)]
pub struct Asked {
    pub exit_code: Option<i32>,
    pub printed: String,
    pub complained: String,
}

/// An agent that stays to carry the container's output to the console.
#[derive(Debug)]
pub struct Following<'a> {
    instance: &'a Instance,
    process: Process,
}

impl Instance {
    pub fn new(id: &str, engine_url: &str, user_data: &str) -> Result<Instance> {
        let directory = TempDir::new()?;
        fs::write(directory.path().join("user-data"), user_data)?;
        fs::write(directory.path().join("console"), "")?;
        let program = programs::heliograph_agent()?;
        Ok(Instance { directory, engine_url: engine_url.to_owned(), id: id.to_owned(), program })
    }

    /// Another build of the agent than the one beside the test.
    #[must_use]
    pub fn with_program(mut self, program: &Path) -> Instance {
        self.program = program.to_owned();
        self
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs the agent until it has signalled.
    pub fn run(&self) -> Result<Ran> {
        self.ran(&mut self.command())
    }

    /// Runs the agent with more options until it has signalled.
    pub fn run_with(&self, options: &[&str]) -> Result<Ran> {
        self.ran(self.command().args(options))
    }

    /// Runs the agent, which is to abort at a fault point.
    pub fn run_into(&self, fault_point: &str) -> Result<Ran> {
        let ran = self.ran(self.command().env("HELIOGRAPH_FAULT_POINT", fault_point))?;
        ensure!(
            ran.status.signal() == Some(Signal::SIGABRT as i32),
            "the agent ended with {} instead of aborting at {fault_point}:{}",
            ran.status,
            ran.last_words
        );
        Ok(ran)
    }

    /// Starts the agent without waiting for its end.
    pub fn start(&self) -> Result<Following<'_>> {
        self.following(&mut self.command())
    }

    /// Starts the agent as its unit does: it stays after the signal.
    pub fn follow(&self) -> Result<Following<'_>> {
        self.following(self.command().arg("--follow"))
    }

    /// Starts the agent as its unit does, with more options.
    pub fn follow_with(&self, options: &[&str]) -> Result<Following<'_>> {
        self.following(self.command().arg("--follow").args(options))
    }

    /// Gives the instance other user data.
    pub fn rewrite(&self, user_data: &str) -> Result<()> {
        let path = self.directory.path().join("user-data");
        // In one step, for an agent may be reading it.
        fs::write(path.with_extension("new"), user_data)?;
        Ok(fs::rename(path.with_extension("new"), path)?)
    }

    /// Runs another command of the agent on this instance, and gives what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<Asked> {
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--state-dir")
            .arg(self.state_directory())
            .args(["--engine", &self.engine_url])
            .output()
            .with_context(|| format!("failed to run heliograph-agent {arguments:?}"))?;
        Ok(Asked {
            exit_code: output.status.code(),
            printed: String::from_utf8_lossy(&output.stdout).into_owned(),
            complained: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// For commands that read it anew.
    pub fn user_data_file(&self) -> PathBuf {
        self.directory.path().join("user-data")
    }

    pub fn state_directory(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(self.console_file())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn following(&self, command: &mut Command) -> Result<Following<'_>> {
        let process = Process::spawn("agent", command, self.directory.path())?;
        Ok(Following { instance: self, process })
    }

    fn ran(&self, command: &mut Command) -> Result<Ran> {
        let mut process = Process::spawn("agent", command, self.directory.path())?;
        let status = process.ended(RUN_LIMIT)?;
        Ok(Ran {
            instance: self.id.clone(),
            status,
            console: self.console()?,
            last_words: process.last_words(),
        })
    }

    fn command(&self) -> Command {
        let directory = self.directory.path();
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg("--user-data")
            .arg(directory.join("user-data"))
            .arg("--state-dir")
            .arg(self.state_directory())
            .arg("--console")
            .arg(self.console_file())
            .args(["--engine", &self.engine_url, "--instance-id", &self.id]);
        command
    }

    fn console_file(&self) -> PathBuf {
        self.directory.path().join("console")
    }
}

impl Following<'_> {
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub fn console(&self) -> Result<String> {
        self.instance.console()
    }

    /// Its log so far.
    pub fn log(&self) -> Result<String> {
        self.process.errors()
    }

    pub fn last_words(&self) -> String {
        self.process.last_words()
    }

    /// Waits for it to end by itself.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        self.process.ended(RUN_LIMIT)
    }

    /// Ends it as the instance's shutdown does.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.ended(RUN_LIMIT)
    }
}

/// The steps at which the agent can be told to abort.
pub fn fault_points() -> Result<Vec<String>> {
    let output = Command::new(programs::heliograph_agent()?)
        .arg("fault-points")
        .output()
        .context("failed to run heliograph-agent fault-points")?;
    ensure!(output.status.success(), "fault-points: {output:?}");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
