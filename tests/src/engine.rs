//! A container engine of our own, started by `tests/setup/engine` and spoken to through its API.
//!
//! The engine lives until its keeper's stdin is closed: by [`Engine::stop`], or by the kernel when
//! the test is killed. Docker's API is all that is used, which Podman speaks as well.

use std::fs;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use reqwest::blocking::{Body, Client};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{programs, registry, wait};

/// The version of the API that both engines speak.
const API: &str = "http://engine/v1.41";
/// An import writes tens of megabytes; everything else is quick.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// An import of hundreds of megabytes, beside others that write.
const IMPORT_LIMIT: Duration = Duration::from_secs(300);

/// Which program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Docker,
    Podman,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Docker => "docker",
            Kind::Podman => "podman",
        }
    }
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    socket: PathBuf,
    client: Client,
    keeper: Mutex<Option<(Child, BufReader<ChildStdout>)>>,
    turn: Mutex<()>,
    _directory: Option<TempDir>,
}

/// The exclusive use of an engine, for agents name their container alike.
#[derive(Debug)]
pub struct Turn<'a> {
    pub engine: &'a Engine,
    _guard: MutexGuard<'a, ()>,
}

impl Engine {
    /// Starts an engine in a directory of its own. Registries on the loopback address that do not
    /// speak TLS are named as `host:port`.
    pub fn start(kind: Kind, plain_registries: &[&str]) -> Result<Engine> {
        let directory = TempDir::with_prefix("heliograph-")?;
        let engine_directory = directory.path().join(kind.name());
        let mut engine = Engine::start_in(kind, &engine_directory, plain_registries)?;
        engine._directory = Some(directory);
        Ok(engine)
    }

    /// Starts an engine in a given directory, whose socket is [`socket_in`] it.
    pub fn start_in(kind: Kind, directory: &Path, plain_registries: &[&str]) -> Result<Engine> {
        let mut keeper = Command::new(programs::source_tree().join("tests/setup/engine"))
            .arg(kind.name())
            .arg(directory)
            .env("HELIOGRAPH_INSECURE_REGISTRIES", plain_registries.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start tests/setup/engine")?;
        let stdout = keeper.stdout.take().context("the keeper has no stdout")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line.starts_with("ready "), "{} did not start: see its lines above", kind.name());
        let socket = socket_in(directory);
        let client =
            Client::builder().unix_socket(socket.clone()).timeout(REQUEST_LIMIT).build()?;
        Ok(Engine {
            kind,
            socket,
            client,
            keeper: Mutex::new(Some((keeper, stdout))),
            turn: Mutex::new(()),
            _directory: None,
        })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A process that sees what the engine sees mounted.
    pub fn process_id(&self) -> Result<u32> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let mut id = keeper.as_ref().context("the engine has been ended")?.0.id();
        // The keeper, the program that makes the namespaces, and the first process in them.
        for _ in 0..2 {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
            id = children.split_whitespace().next().context("no child")?.parse()?;
        }
        Ok(id)
    }

    /// As `heliograph-agent run --engine` wants it.
    pub fn url(&self) -> String {
        url_of(&self.socket)
    }

    /// Waits until no other scene uses the engine, and removes what the last one left.
    pub fn turn(&self) -> Result<Turn<'_>> {
        let guard = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for container in self.containers()? {
            self.remove_container(&container)?;
        }
        Ok(Turn { engine: self, _guard: guard })
    }

    /// All containers, running or not, as the API lists them.
    pub fn containers(&self) -> Result<Vec<Value>> {
        let list = self.json(Method::GET, "/containers/json?all=true", None)?;
        Ok(list.as_array().context("the list of containers is no list")?.clone())
    }

    /// Anything that the API answers to a GET.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, None)
    }

    /// Makes something, such as a network.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::POST, path, Some(body))
    }

    /// Removes something.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.request(Method::DELETE, path, &[], "").map(drop)
    }

    /// One container, as the API inspects it.
    pub fn inspect(&self, container: &str) -> Result<Value> {
        self.json(Method::GET, &format!("/containers/{container}/json"), None)
    }

    /// Makes and starts a container that is not the agent's, and gives its id.
    pub fn run_foreign(&self, name: &str, image: &str) -> Result<String> {
        let body = json!({"Image": image, "Cmd": ["sleep", "1000"]});
        let created =
            self.json(Method::POST, &format!("/containers/create?name={name}"), Some(&body))?;
        let id = created["Id"].as_str().context("create gave no Id")?.to_owned();
        self.request(Method::POST, &format!("/containers/{id}/start"), &[], "")?;
        Ok(id)
    }

    /// Starts a container that was stopped.
    pub fn start_again(&self, container: &str) -> Result<()> {
        self.request(Method::POST, &format!("/containers/{container}/start"), &[], "")?;
        Ok(())
    }

    /// Makes an image of the contents of a tar.
    pub fn import(&self, name: &str, tar: Vec<u8>) -> Result<()> {
        let (repository, tag) = split_tag(name);
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}");
        let headers = [("content-type", "application/x-tar".to_owned())];
        let answer = self.request(Method::POST, &path, &headers, tar)?;
        no_error_in(&answer).with_context(|| format!("failed to import {name}"))
    }

    /// Takes in an archive of images.
    pub fn load(&self, archive: Vec<u8>) -> Result<()> {
        let headers = [("content-type", "application/x-tar".to_owned())];
        let answer = self.request(Method::POST, "/images/load", &headers, archive)?;
        no_error_in(&answer).context("failed to load an archive")
    }

    /// Makes an image of a large tar, whose containers run a command of no arguments.
    pub fn import_file(&self, name: &str, tar: File, command: &str) -> Result<()> {
        let (repository, tag) = split_tag(name);
        let change = format!("CMD%20%5B%22{command}%22%5D");
        let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}&changes={change}");
        let request = self.client.request(Method::POST, format!("{API}{path}")).body(tar);
        let request = request.header("content-type", "application/x-tar").timeout(IMPORT_LIMIT);
        let response = request.send().with_context(|| format!("{path} was not answered"))?;
        no_error_in(&response.error_for_status()?.text()?)
            .with_context(|| format!("failed to import {name}"))
    }

    pub fn push(&self, name: &str) -> Result<()> {
        let (repository, tag) = split_tag(name);
        let user = json!({"username": registry::USER, "password": registry::PASSWORD});
        let headers = [("x-registry-auth", URL_SAFE.encode(user.to_string()))];
        let path = format!("/images/{repository}/push?tag={tag}");
        let answer = self.request(Method::POST, &path, &headers, "")?;
        no_error_in(&answer).with_context(|| format!("failed to push {name}"))
    }

    /// An image as `docker save` would write it.
    pub fn save(&self, name: &str) -> Result<Vec<u8>> {
        let path = format!("{API}/images/{name}/get");
        let response = self.client.get(&path).send()?.error_for_status()?;
        Ok(response.bytes()?.to_vec())
    }

    /// Whether the engine has an image of that name.
    pub fn has_image(&self, name: &str) -> Result<bool> {
        let response = self.client.get(format!("{API}/images/{name}/json")).send()?;
        Ok(response.status().is_success())
    }

    pub fn remove_image(&self, name: &str) -> Result<()> {
        self.request(Method::DELETE, &format!("/images/{name}?force=true"), &[], "")?;
        Ok(())
    }

    /// Ends Docker's daemon, and with it all containers, and starts it again after `meanwhile`. Containers
    /// that are to be restarted it starts by itself, before it answers anybody.
    pub fn restart_docker(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        let first = self.process_id()?;
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
        let is_daemon = |id: &&str| {
            fs::read_to_string(format!("/proc/{id}/comm"))
                .is_ok_and(|comm| comm.trim() == "dockerd")
        };
        let daemon = children.split_whitespace().find(is_daemon).context("no dockerd")?.to_owned();
        let command_line = fs::read_to_string(format!("/proc/{daemon}/cmdline"))?;
        kill(Pid::from_raw(daemon.parse()?), Signal::SIGTERM)?;
        wait::until("the end of dockerd", REQUEST_LIMIT, || {
            Ok((!Path::new("/proc").join(&daemon).exists()).then_some(()))
        })?;
        meanwhile()?;
        let log =
            fs::OpenOptions::new().append(true).open(self.socket.with_file_name("engine.log"))?;
        let status = Command::new("nsenter")
            .args(["--target", &first.to_string(), "--mount", "--pid", "--root"])
            // It becomes a child of the namespace's first process, and ends with it.
            .args(["sh", "-c", "\"$@\" &", "sh"])
            .args(command_line.split_terminator('\0'))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()?;
        ensure!(status.success(), "dockerd was not started again: {status}");
        wait::until("dockerd", REQUEST_LIMIT, || Ok(self.containers().ok().map(drop)))
    }

    /// Ends the engine and everything in it.
    pub fn stop(&self) -> Result<()> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((mut child, _stdout)) = keeper.take() else {
            return Ok(());
        };
        drop(child.stdin.take());
        let status = child.wait()?;
        ensure!(status.success(), "{} did not end well: {status}", self.kind.name());
        Ok(())
    }

    fn remove_container(&self, container: &Value) -> Result<()> {
        let id = container["Id"].as_str().context("a container without Id")?;
        let path = format!("/containers/{id}?force=true&v=true");
        self.request(Method::DELETE, &path, &[], "")?;
        Ok(())
    }

    fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let headers = [("content-type", "application/json".to_owned())];
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.request(method, path, &headers, body)?;
        serde_json::from_str(&answer).with_context(|| format!("{path} answered no JSON"))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: impl Into<Body>,
    ) -> Result<String> {
        let mut request = self.client.request(method, format!("{API}{path}")).body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().with_context(|| format!("{path} was not answered"))?;
        let status = response.status();
        let text = response.text()?;
        if !status.is_success() && status.as_u16() != 304 {
            bail!("{} answered {status} to {path}: {text}", self.kind.name());
        }
        Ok(text)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _best_effort = self.stop();
    }
}

/// The socket of an engine that was or will be started in a directory.
pub fn socket_in(directory: &Path) -> PathBuf {
    directory.join("engine.sock")
}

/// A socket's path as `heliograph-agent run --engine` wants it.
pub fn url_of(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// `127.0.0.1:5000/centos:latest` has two colons; the tag is after the last, if no slash follows.
fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

/// Progress is answered with 200 and lines of JSON, among which an error may be.
fn no_error_in(progress: &str) -> Result<()> {
    for line in progress.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        if let Some(error) = value["error"].as_str() {
            bail!("{error}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_a_tag() {
        fn check(name: &str, expect: (&str, &str)) {
            assert_eq!(split_tag(name), expect);
        }
        check("centos", ("centos", "latest"));
        check("centos:7", ("centos", "7"));
        check("127.0.0.1:5000/centos", ("127.0.0.1:5000/centos", "latest"));
        check("127.0.0.1:5000/centos:7", ("127.0.0.1:5000/centos", "7"));
    }

    #[test]
    fn an_error_between_lines_of_progress_is_found() {
        let progress = "{\"status\":\"Preparing\"}\n{\"error\":\"denied\"}\n";
        let error = no_error_in(progress).expect_err("the second line is an error");
        assert_eq!(error.to_string(), "denied");
    }
}
