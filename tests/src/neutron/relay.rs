//! A relay with a metadata surface.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::{programs, wait};

/// How long the relay may take to start and to stop.
const RELAY_LIMIT: Duration = Duration::from_secs(60);

/// The process; it ends when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    _directory: TempDir,
    /// Base URL of the public listener.
    pub public: String,
    /// Address and port of the metadata listener.
    pub metadata: String,
    pub token: String,
}

impl Gateway {
    /// Runs a relay with this at the end of its configuration, and its data in this directory or else in
    /// one of its own.
    pub fn start(table: &str, data: Option<&Path>) -> Result<Gateway> {
        let directory = TempDir::new()?;
        let config = directory.path().join("relay.toml");
        let data = data.map_or_else(|| directory.path().join("data"), Path::to_owned);
        std::fs::write(
            &config,
            format!(
                "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\n\
                 log_level = \"debug\"\n{table}",
            ),
        )?;
        let mut command = Command::new(programs::heliograph_server()?);
        command.arg("serve").arg("--config").arg(&config);
        let mut process = Process::spawn("relay", &mut command, directory.path())?;
        let (public, metadata) = wait::until("the relay's listening lines", RELAY_LIMIT, || {
            if let Some(status) = process.has_ended()? {
                bail!("the relay ended with {status}:{}", process.last_words());
            }
            let output = process.output()?;
            let of = |surface: &str| {
                let start = format!("listening {surface} ");
                output.lines().find_map(|line| line.strip_prefix(start.as_str())).map(str::to_owned)
            };
            Ok(of("public").zip(of("metadata")))
        })?;
        let metadata = metadata.split_once("://").map_or("", |(_, address)| address).to_owned();
        let token = std::fs::read_to_string(data.join("operator.token"))?;
        let token = token.trim().to_owned();
        Ok(Gateway { process, _directory: directory, public, metadata, token })
    }

    /// Has it read its certificates anew.
    pub fn renew(&self) -> Result<()> {
        self.process.signal(Signal::SIGHUP)
    }

    /// What the native surface says of an instance.
    pub fn instance(&self, id: &str) -> Result<Value> {
        self.get(&format!("/api/v1/instances/{id}"))
    }

    /// A GET of the native surface.
    pub fn get(&self, path: &str) -> Result<Value> {
        let response = reqwest::blocking::Client::new()
            .get(format!("{}{path}", self.public))
            .header("x-auth-token", &self.token)
            .send()?;
        Ok(serde_json::from_str(&response.text()?)?)
    }

    /// A handle for so many signals: its id and its signal URL.
    pub fn create_handle(&self, count: usize) -> Result<(String, String)> {
        let response = reqwest::blocking::Client::new()
            .post(format!("{}/api/v1/handles", self.public))
            .header("x-auth-token", &self.token)
            .body(format!("{{\"count\": {count}}}"))
            .send()?;
        let made: Value = serde_json::from_str(&response.text()?)?;
        let text = |key: &str| made[key].as_str().map(str::to_owned).context("no handle was made");
        Ok((text("id")?, text("signal_url")?))
    }

    /// Runs `wait --instance`: its exit code and what it printed.
    pub fn wait_for_instance(&self, id: &str, seconds: u64) -> Result<(Option<i32>, Value)> {
        let output = Command::new(programs::heliograph_server()?)
            .args(["wait", "--instance", id, "--server", &self.public, "--json"])
            .args(["--timeout", &format!("{seconds}s")])
            .env("HELIOGRAPH_TOKEN", &self.token)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let view = serde_json::from_str(&text).with_context(|| format!("wait printed {text:?}"))?;
        Ok((output.status.code(), view))
    }

    /// All that it has logged.
    pub fn log(&self) -> Result<String> {
        self.process.errors()
    }
}
