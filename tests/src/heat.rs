//! A real Keystone and a real Heat, stood up by `tests/heat/stand-up`, and a relay in their catalog.
//!
//! A lab costs a quarter of a minute, so scenes share one. Requests are plain HTTP: the command line
//! client takes more than a second for each.

mod glance;
mod relay;
mod stack;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use crate::heat::glance::{ApplicationCredential, Glance};
pub use crate::heat::relay::HeatRelay;
pub use crate::heat::stack::{Stack, Status};
use crate::process::Process;
use crate::programs;

/// A first stand-up on a busy machine with two cores, packages present.
const STAND_UP_LIMIT: Duration = Duration::from_secs(300);
/// Turning a knob starts one process at most.
const KNOB_LIMIT: Duration = Duration::from_secs(120);
/// Heat answers a read of all outputs in tenths of a second, and in seconds when it is busy.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// A lab that stands, until it is dropped.
#[derive(Debug)]
pub struct Lab {
    directory: TempDir,
    facts: Value,
    client: Client,
    keeper: Child,
}

/// How a command of the command line client ended.
#[derive(Clone, Debug)]
pub struct Ran {
    pub is_success: bool,
    pub output: String,
    pub errors: String,
}

/// Somebody who is logged in to a project.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub token: String,
    pub project_id: String,
    client: Client,
    heat_url: String,
}

impl Lab {
    /// Stands one up whose catalog names this relay's base URL as its object store. With
    /// `is_forwarding`, the handles of all other transports lead through that relay, too.
    pub fn stand_up(relay_url: Option<&str>, is_forwarding: bool) -> Result<Lab> {
        let directory = TempDir::with_prefix("heliograph-heat-")?;
        let keeper = keeper(&directory.path().join("lab"))?;
        let mut command = script("stand-up");
        command.arg(directory.path().join("lab"));
        if let Some(relay_url) = relay_url {
            command.args(["--object-store", relay_url]);
            if is_forwarding {
                command.args(["--forward", relay_url]);
            }
        }
        run("stand-up", &mut command, directory.path(), STAND_UP_LIMIT)?;
        let facts = fs::read_to_string(directory.path().join("lab/lab.json"))?;
        let client = Client::builder().timeout(REQUEST_LIMIT).build()?;
        Ok(Lab { directory, facts: serde_json::from_str(&facts)?, client, keeper })
    }

    /// Where the lab's files are: `openrc`, `heat/heat.conf`, `log/`.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("lab")
    }

    /// A URL or another fact of `lab.json`.
    pub fn fact(&self, name: &str) -> Result<&str> {
        self.facts[name].as_str().with_context(|| format!("lab.json has no {name}"))
    }

    /// Turns one of `tests/heat/knob`'s knobs.
    pub fn knob(&self, words: &[&str]) -> Result<()> {
        let mut command = script("knob");
        command.arg(self.path()).args(words);
        let logs = TempDir::new_in(self.directory.path())?;
        run("knob", &mut command, logs.path(), KNOB_LIMIT)?;
        Ok(())
    }

    /// Logs a user of the lab in: `demo`, `other` or `admin`, each in the project of that name.
    pub fn user(&self, name: &str) -> Result<User> {
        self.user_at(self.fact("keystone_url")?, name)
    }

    /// Logs a user in at the Keystone whose tokens live for 45 seconds.
    pub fn user_with_brief_token(&self, name: &str) -> Result<User> {
        self.knob(&["start", "keystone-brief"])?;
        self.user_at(self.fact("keystone_brief_url")?, name)
    }

    fn user_at(&self, keystone_url: &str, name: &str) -> Result<User> {
        let password = &self.facts["passwords"][name];
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": name, "domain": {"id": "default"}, "password": password}}},
            "scope": {"project": {"name": name, "domain": {"id": "default"}}},
        }});
        let url = format!("{keystone_url}/v3/auth/tokens");
        let response = self.client.post(url).json(&body).send()?;
        ensure!(response.status() == 201, "Keystone refused {name}: {}", response.status());
        let token =
            response.headers().get("x-subject-token").context("no token")?.to_str()?.to_owned();
        let answer: Value = response.json()?;
        let id_of = |what: &str| -> Result<String> {
            let id = answer["token"][what]["id"].as_str();
            Ok(id.with_context(|| format!("a token without {what}"))?.to_owned())
        };
        let (id, project_id) = (id_of("user")?, id_of("project")?);
        let heat_url = format!("{}/v1/{project_id}", self.fact("heat_url")?);
        Ok(User { id, token, project_id, client: self.client.clone(), heat_url })
    }

    /// Whether Keystone still takes a token.
    pub fn knows_token(&self, token: &str) -> Result<bool> {
        let url = format!("{}/v3/auth/tokens", self.fact("keystone_url")?);
        let asker = self.user("admin")?;
        let request = self.client.get(url).header("x-auth-token", &asker.token);
        match request.header("x-subject-token", token).send()?.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            other => bail!("Keystone answered {other} about a token"),
        }
    }

    /// Runs the cloud's command line client as the user demo.
    pub fn openstack(&self, words: &[&str], directory: &Path) -> Result<Ran> {
        let logs = TempDir::new_in(self.directory.path())?;
        let mut command = Command::new("bash");
        command.current_dir(directory).arg("-c").arg(". \"$0\"; exec openstack \"$@\"");
        command.arg(self.path().join("openrc")).args(words);
        let mut process = Process::spawn("openstack", &mut command, logs.path())?;
        let is_success = process.ended(KNOB_LIMIT)?.success();
        Ok(Ran { is_success, output: process.output()?, errors: process.errors()? })
    }

    /// The end of each process's log, for the message of a failing scene.
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for name in ["heat-engine", "heat-api", "heat-api-cfn", "keystone", "glance-api"] {
            let log = fs::read(self.path().join(format!("log/{name}.log"))).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().rev().take(12).collect();
            words.push_str(&format!("\n--- {name} ---\n"));
            for line in lines.into_iter().rev() {
                words.push_str(line);
                words.push('\n');
            }
        }
        words
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        match self.keeper.wait() {
            Ok(status) if status.success() => {}
            other => eprintln!("a lab was not torn down: {other:?}"),
        }
    }
}

/// Tears the lab down when its stdin ends: when the lab is dropped, and when the test is killed.
fn keeper(lab: &Path) -> Result<Child> {
    let mut command = Command::new("bash");
    command
        .arg("-c")
        // An interrupt from the keyboard reaches everybody; whoever tears down must outlive it.
        .arg("trap '' INT HUP TERM; cat >/dev/null; exec \"$0\" \"$1\"")
        .arg(programs::source_tree().join("tests/heat/tear-down"))
        .arg(lab)
        .stdin(Stdio::piped());
    command.spawn().context("failed to start a lab's keeper")
}

impl User {
    /// The account that this user's project has at the relay.
    pub fn account(&self) -> String {
        format!("AUTH_{}", self.project_id)
    }

    /// Asks Heat; `path` begins after the project.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response> {
        let url = format!("{}{path}", self.heat_url);
        let mut request = self.client.request(method, url).header("x-auth-token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        Ok(request.send()?)
    }

    /// Asks the relay, as Heat does.
    pub fn ask_relay(
        &self,
        relay: &HeatRelay,
        method: Method,
        path: &str,
    ) -> Result<(u16, String)> {
        let url = format!("{}/v1/{}{path}", relay.public(), self.account());
        let request = self.client.request(method, url).header("x-auth-token", &self.token);
        let response = request.send()?;
        Ok((response.status().as_u16(), response.text()?))
    }
}

/// Sends a signal as `curl -X PUT --data-binary` does, and gives the status and the answer.
pub fn put(url: &str, body: impl Into<Vec<u8>>) -> Result<(u16, String)> {
    let client = Client::builder().timeout(REQUEST_LIMIT).build()?;
    let request = client.put(url).header("content-type", "application/x-www-form-urlencoded");
    let response = request.body(body.into()).send()?;
    Ok((response.status().as_u16(), response.text()?))
}

/// A port of the loopback address outside of the range that the kernel gives to outgoing connections, so
/// that a relay finds it free after a restart. Each call gives another one.
pub fn quiet_port() -> Result<u16> {
    static N_GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = 15_000 + u16::try_from(std::process::id() % 4000)?;
    loop {
        let port = first + N_GIVEN.fetch_add(1, Ordering::Relaxed);
        ensure!(port < 20_000, "there is no free port between {first} and 20000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}

/// A command of `tests/heat`.
pub fn script(name: &str) -> Command {
    Command::new(programs::source_tree().join("tests/heat").join(name))
}

/// Runs a command to its end, and gives what it printed.
pub fn run(name: &str, command: &mut Command, logs: &Path, limit: Duration) -> Result<String> {
    let mut process = Process::spawn(name, command, logs)?;
    let status = process.ended(limit)?;
    ensure!(status.success(), "{name} ended with {status}:{}", process.last_words());
    process.output()
}

/// Makes an empty file that only its owner may read.
pub(crate) fn private_file(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    Ok(fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?)
}
