//! Starts relays: inside the test for speed, as processes where the process is what is tested.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use heliograph_server::app::{Parts, run};
use heliograph_server::config::{Config, ServeArgs, StoreKind};
use heliograph_server::telemetry::LogControl;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long a test waits for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A relay inside the test.
pub(crate) struct Relay {
    pub(crate) url: String,
    pub(crate) admin_url: String,
    pub(crate) token: String,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
    _dir: TempDir,
}

impl Relay {
    pub(crate) async fn start(store: StoreKind) -> Relay {
        Relay::start_with(ServeArgs { store: Some(store), ..ServeArgs::default() }).await
    }

    pub(crate) async fn start_with(mut args: ServeArgs) -> Relay {
        let dir = tempfile::tempdir().expect("temporary directory");
        let data_dir = dir.path().join("data");
        args.data_dir = Some(data_dir.clone());
        let config = Config::resolve(&args).expect("valid configuration");
        let parts = Parts::build(&config, LogControl::detached()).expect("a relay");
        let token = std::fs::read_to_string(data_dir.join("operator.token")).expect("a token");
        let (listener, url) = bind().await;
        let (admin_listener, admin_url) = bind().await;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let stop = async move {
                let _ = stopped.await;
            };
            run(listener, admin_listener, parts, stop).await.expect("the relay runs");
        });
        let token = token.trim().to_owned();
        Relay { url, admin_url, token, stop: Some(stop), running, _dir: dir }
    }

    /// A request with the operator's token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        client().request(method, format!("{}{path}", self.url)).header("X-Auth-Token", &self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// Makes a handle and returns the answer.
    pub(crate) async fn create(&self, body: &str) -> Value {
        let request = self.request(Method::POST, "/api/v1/handles").body(body.to_owned());
        let (status, created) = answer(request).await;
        assert_eq!(status, 201, "{created}");
        created
    }

    /// Tells the relay to stop, without waiting until it has.
    pub(crate) fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    pub(crate) async fn stopped(mut self) {
        self.begin_stop();
        in_time(&mut self.running).await.expect("the relay stops");
    }

    /// Asks the metrics until one has a value.
    pub(crate) async fn until_metric(&self, line: &str) {
        until(async || {
            let page = client().get(format!("{}/metrics", self.admin_url)).send().await;
            let page = page.expect("metrics").text().await.expect("text");
            page.lines().any(|present| present == line)
        })
        .await;
    }
}

async fn bind() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_certs_only([]).build().expect("a client")
}

/// The status and the JSON of an answer; `null` where there is none.
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = in_time(request.send()).await.expect("an answer");
    let status = response.status().as_u16();
    (status, json(response).await)
}

pub(crate) async fn json(response: Response) -> Value {
    let body = in_time(response.bytes()).await.expect("a body");
    serde_json::from_slice(&body).unwrap_or_default()
}

/// Signals as an instance does, with nothing but the URL.
pub(crate) async fn signal(created: &Value, body: &str) -> (u16, Value) {
    answer(client().put(text(&created["signal_url"])).body(body.to_owned())).await
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Asks again and again until the answer is yes.
pub(crate) async fn until(mut question: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !question().await {
        assert!(Instant::now() < deadline, "it did not happen in time");
        tokio::task::yield_now().await;
    }
}

/// The real program as a process; killed when the test ends.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    pub(crate) admin_url: String,
    /// Keeps the pipe open, so that the relay can go on printing.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Process {
    pub(crate) fn start(data_dir: &Path, flags: &[&str]) -> Process {
        let mut child = program()
            .args(["serve", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut address = |surface: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            let prefix = format!("listening {surface} ");
            let address = line.trim().strip_prefix(&prefix);
            address.unwrap_or_else(|| panic!("{surface}: {line:?}")).to_owned()
        };
        let (url, admin_url) = (address("public"), address("admin"));
        Process { child, url, admin_url, _stdout: stdout }
    }

    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("the process is there");
    }

    pub(crate) fn exit_code(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// As a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, with nothing of the test's environment that it reads.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heliograph-server"));
    for (name, _) in std::env::vars() {
        if name.starts_with("HELIOGRAPH_") || name.starts_with("OS_") || name.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command in a thread of its own, so that a relay inside the test can answer it.
pub(crate) async fn command(arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = program();
    command.args(arguments);
    if let Some(token) = token {
        command.env("HELIOGRAPH_TOKEN", token);
    }
    let running = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    running.await.expect("it ends")
}

pub(crate) fn stdout_json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stdout));
    })
}
