//! The flow against an engine and a handle that fail on demand.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[path = "boot/fake.rs"]
mod fake;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{Container, Engine, EngineState, Handle, exited, running};

const INSTANCE: &str = "i-1";

/// A directory with a state directory, a console and a document in it.
struct Instance {
    directory: TempDir,
}

/// What one `heliograph-agent run` did.
struct Ran {
    exit_code: Option<i32>,
    console: String,
    log: String,
}

impl Instance {
    fn new(document: &str) -> Instance {
        let instance = Instance { directory: tempfile::tempdir().unwrap() };
        instance.write(document);
        instance
    }

    fn write(&self, document: &str) {
        std::fs::write(self.path("user-data"), document).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    async fn run(&self) -> Ran {
        self.run_with(INSTANCE, &[]).await
    }

    /// Runs the real binary to its end.
    async fn run_with(&self, instance_id: &str, options: &[&str]) -> Ran {
        let (console, log) = (self.path("console"), self.path("log"));
        drop(std::fs::remove_file(&console));
        let mut command = Command::new(env!("CARGO_BIN_EXE_heliograph-agent"));
        command.arg("run").arg("--user-data").arg(self.path("user-data"));
        command.arg("--state-dir").arg(self.path("state"));
        command.arg("--console").arg(&console);
        command.arg("--engine").arg(format!("unix://{}", self.path("engine.sock").display()));
        command.args(["--instance-id", instance_id, "--log", "debug"]).args(options);
        // No signal goes astray to whatever is at the metadata address here.
        command.args(["--metadata-address", "off"]);
        command.stderr(std::fs::File::create(&log).unwrap());
        let status = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
        Ran {
            exit_code: status.code(),
            console: std::fs::read_to_string(console).unwrap_or_default(),
            log: std::fs::read_to_string(log).unwrap(),
        }
    }

    fn outbox_len(&self) -> usize {
        std::fs::read_dir(self.path("state/outbox")).unwrap().count()
    }
}

fn document(handle: &Handle, rest: &str) -> String {
    format!(
        "#docker\nimage: web:1\n{rest}\nsignal:\n  url: \"{}\"\n  stable_for: 0s\n  timeout: 20s\n",
        handle.url
    )
}

fn state_with_image() -> EngineState {
    EngineState { images: vec!["web:1".to_owned()], ..EngineState::default() }
}

async fn start(instance: &Instance, state: EngineState) -> Engine {
    Engine::start(instance.directory.path(), state).await
}

fn reason(signal: &Value) -> &str {
    signal["reason"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_runs_is_a_success_with_outputs() {
    let handle = Handle::start(&[]).await;
    let instance = Instance::new(&document(&handle, "environment: {PASSWORD: hunter2}"));
    let engine = start(&instance, EngineState { log: "hello", ..state_with_image() }).await;

    let ran = instance.run().await;

    assert_eq!(ran.exit_code, Some(0), "{}", ran.log);
    let signals = handle.signals();
    assert_eq!(signals.len(), 1);
    let signal = &signals[0];
    assert_eq!(signal["status"], "SUCCESS");
    assert!(signal["id"].as_str().unwrap().starts_with("i-1/main/"), "{signal}");
    assert_eq!(signal["data"]["network_ip"], "10.9.0.2");
    assert_eq!(signal["data"]["container_id"], "id-1");
    assert_eq!(signal["data"]["image_digest"], "sha256:2");
    assert!(signal["data"]["timings"]["total"].is_u64(), "{signal}");
    let request = &handle.requests()[0];
    assert!(request.line.starts_with("PUT /v1/AUTH_p/stack/handle?"), "{}", request.line);
    assert!(request.headers.contains_key("content-length"));
    assert!(ran.console.contains("heliograph: SUCCESS "), "{}", ran.console);
    assert!(ran.console.contains("\n@@heliograph1 1 "), "{}", ran.console);
    assert!(ran.console.contains("hello\n"), "{}", ran.console);
    assert_eq!(instance.outbox_len(), 0);
    let labels = engine.state().containers["id-1"].labels.clone();
    assert_eq!(labels["io.heliograph.instance"], "i-1");
    for secret in ["hunter2", "s3cret"] {
        assert!(!ran.log.contains(secret) && !ran.console.contains(secret), "{}", ran.log);
        assert!(!signal.to_string().contains(secret), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_keeps_the_container_and_signals_nothing() {
    let handle = Handle::start(&[]).await;
    let instance = Instance::new(&document(&handle, ""));
    let engine = start(&instance, state_with_image()).await;

    instance.run().await;
    let again = instance.run().await;

    assert_eq!(again.exit_code, Some(0), "{}", again.log);
    assert!(again.console.contains("SUCCESS was signalled before"), "{}", again.console);
    assert_eq!((handle.requests().len(), engine.state().n_created), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_or_another_document_replaces_the_container() {
    let handle = Handle::start(&[]).await;
    let instance = Instance::new(&document(&handle, ""));
    let engine = start(&instance, state_with_image()).await;
    let foreign = Container {
        name: "foreign".to_owned(),
        labels: json!({"io.heliograph.instance": "i-1"}),
        states: [running()].into(),
        is_started: true,
    };
    engine.state().containers.insert("foreign".to_owned(), foreign);

    instance.run().await;
    instance.write(&document(&handle, "cmd: date"));
    instance.run().await;
    instance.run_with("i-2", &[]).await;

    let ids: Vec<String> = engine.state().containers.keys().cloned().collect();
    assert_eq!(ids, ["foreign", "id-3"]);
    let signals = handle.signals();
    let ids: std::collections::BTreeSet<&str> =
        signals.iter().map(|signal| signal["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_container_of_the_same_name_stays() {
    let handle = Handle::start(&[]).await;
    let instance = Instance::new(&document(&handle, "container_name: shop"));
    let engine = start(&instance, state_with_image()).await;
    let foreign = Container {
        name: "shop".to_owned(),
        labels: json!({}),
        states: [running()].into(),
        is_started: true,
    };
    engine.state().containers.insert("foreign".to_owned(), foreign);

    let ran = instance.run().await;

    assert_eq!(ran.exit_code, Some(1));
    let signals = handle.signals();
    assert_eq!(signals[0]["data"]["code"], "container_name_taken");
    assert!(reason(&signals[0]).contains("shop"), "{}", signals[0]);
    assert!(engine.state().containers.contains_key("foreign"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_breaks_is_tried_again_and_one_that_cannot_work_is_not() {
    let check = async |pulls: &[&[&'static str]], n_pulls: usize, expect: &str| {
        let handle = Handle::start(&[]).await;
        let instance = Instance::new(&document(&handle, ""));
        let pulls = pulls.iter().map(|pieces| pieces.to_vec()).collect();
        let engine = start(&instance, EngineState { pulls, ..EngineState::default() }).await;
        let ran = instance.run().await;
        let signal = handle.signals().remove(0);
        let code = signal["data"]["code"].as_str().unwrap_or("success").to_owned();
        assert_eq!(code, expect, "{signal} {}", ran.log);
        let calls = engine.state().calls.clone();
        assert_eq!(calls.iter().filter(|call| call.ends_with("/images/create")).count(), n_pulls);
    };
    let good = ["{\"status\":\"Pulling from web\"}\n"];
    let broken = ["{\"status\":\"Downloading\",\"id\":\"a\"}\n", ""];
    let eof = [
        "{\"status\":\"x\"}\n{\"errorDetail\":{\"message\":\"unexpected EOF\"},\"error\":\"unexpected EOF\"}\n",
    ];
    let denied = ["{\"error\":\"unauthorized: authentication required\"}\n"];
    check(&[&good], 1, "success").await;
    check(&[&broken, &eof, &good], 3, "success").await;
    check(&[&denied], 1, "registry_unauthorized").await;
    check(&[], 1, "image_not_found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_fails_is_told_with_its_last_lines() {
    let check = async |states: Vec<Value>, rest: &str, code: &str, words: &[&str]| {
        let handle = Handle::start(&[]).await;
        let instance = Instance::new(&document(&handle, rest));
        let log = "starting\n\u{1b}[31mno database\u{1b}[0m";
        let state = EngineState { states, log, ..state_with_image() };
        let _engine = start(&instance, state).await;
        let ran = instance.run().await;
        assert_eq!(ran.exit_code, Some(1), "{}", ran.log);
        let signal = handle.signals().remove(0);
        assert_eq!(signal["status"], "FAILURE");
        assert_eq!(signal["data"]["code"], code, "{signal}");
        for word in words {
            assert!(reason(&signal).contains(word), "{word} in {signal}");
        }
        assert!(reason(&signal).ends_with("last output:\nstarting\nno database"), "{signal}");
        assert!(ran.console.contains("heliograph: FAILURE watch: "), "{}", ran.console);
    };
    check(vec![exited(3, false)], "", "container_exited", &["watch: ", "exit code 3"]).await;
    check(vec![exited(137, true)], "", "container_out_of_memory", &["OOM"]).await;
    check(vec![exited(127, false)], "", "command_not_found", &["command not found"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_well_is_waited_for() {
    let handle = Handle::start(&[]).await;
    let instance = Instance::new(&document(&handle, ""));
    // Not up yet, then up, then gone in the middle of the list of containers.
    let broken = [503, 1, 0, 1, 0, 0].into();
    let engine = start(&instance, EngineState { broken, ..state_with_image() }).await;
    let ran = instance.run().await;
    assert_eq!(ran.exit_code, Some(0), "{}", ran.log);
    assert_eq!(engine.state().n_created, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_never_comes_is_told_before_the_timeout() {
    let handle = Handle::start(&[]).await;
    let instance = Instance::new(&document(&handle, "").replace("20s", "3s"));
    let ran = instance.run().await;
    assert_eq!(ran.exit_code, Some(3), "{}", ran.log);
    let signal = handle.signals().remove(0);
    assert_eq!(signal["data"]["code"], "engine_unreachable");
    assert!(reason(&signal).contains("did not answer at unix:///"), "{signal}");
    assert!(signal["data"]["timings"]["total"].as_u64().unwrap() < 3000, "{signal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_an_error_is_signalled_to_the_handle_in_it() {
    let handle = Handle::start(&[]).await;
    let instance = Instance::new(&document(&handle, "imge: hunter2"));
    let ran = instance.run().await;
    assert_eq!(ran.exit_code, Some(1), "{}", ran.log);
    let signal = handle.signals().remove(0);
    assert!(reason(&signal).contains("line 3"), "{signal}");
    assert!(!signal.to_string().contains("hunter2"), "{signal}");

    let again = instance.run().await;
    assert_eq!(again.exit_code, Some(1));
    assert_eq!(handle.requests().len(), 1, "it is signalled once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let check = async |statuses: &[u16], n_requests: usize, exit_code: i32| {
        let handle = Handle::start(statuses).await;
        let instance = Instance::new(&document(&handle, ""));
        let _engine = start(&instance, state_with_image()).await;
        let ran = instance.run().await;
        assert_eq!(ran.exit_code, Some(exit_code), "{}", ran.log);
        assert_eq!(handle.requests().len(), n_requests, "{statuses:?}");
        assert_eq!(instance.outbox_len(), usize::from(exit_code != 0));
        assert!(ran.console.contains("heliograph: SUCCESS"), "the console always tells");
    };
    check(&[503, 500, 429], 4, 0).await;
    check(&[403], 1, 4).await;
    check(&[404], 1, 4).await;
    check(&[302], 1, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_is_delivered_by_a_later_run() {
    let handle = Handle::start(&[403]).await;
    let instance = Instance::new(&document(&handle, ""));
    let _engine = start(&instance, state_with_image()).await;

    assert_eq!(instance.run().await.exit_code, Some(4));
    assert_eq!(instance.outbox_len(), 1);
    assert_eq!(instance.run().await.exit_code, Some(0));

    let bodies: Vec<Value> = handle.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 2, "nothing is sent a third time");
    assert_eq!(bodies[0]["id"], bodies[1]["id"]);
    assert_eq!(instance.outbox_len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn heats_password_handle_gets_a_token_first() {
    let handle = Handle::start(&[]).await;
    let url = url::Url::parse(&handle.url).unwrap();
    let base = url.origin().ascii_serialization();
    let json = json!({"alarm_url": format!("{base}/v1/p/stacks/s/resources/h/signal"),
        "auth_url": format!("{base}/v3/"), "user_id": "u", "password": "hunter2",
        "project_id": "p"});
    let text = format!("#docker\nimage: web:1\nsignal: '{json}'\n");
    let instance = Instance::new(&text);
    let _engine = start(&instance, state_with_image()).await;
    let ran = instance.run().await;

    assert_eq!(ran.exit_code, Some(0), "{}", ran.log);
    let requests = handle.requests();
    let lines: Vec<&str> = requests.iter().map(|request| request.line.as_str()).collect();
    assert_eq!(lines, ["POST /v3/auth/tokens", "POST /v1/p/stacks/s/resources/h/signal"]);
    assert_eq!(requests[1].headers["x-auth-token"], "a-token");
    assert_eq!(requests[1].body["status"], "SUCCESS");
    assert!(!ran.log.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_cannot_be_used_does_not_keep_the_container_from_running() {
    let text = "#docker\nimage: web:1\nsignal: {json: {queue_id: q}, stable_for: 0s}\n";
    let instance = Instance::new(text);
    let engine = start(&instance, state_with_image()).await;
    let ran = instance.run().await;
    assert_eq!(ran.exit_code, Some(4), "{}", ran.log);
    assert!(engine.state().containers["id-1"].is_started);
    assert!(ran.console.contains("ZAQAR_SIGNAL"), "{}", ran.console);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_anywhere_ends_with_one_container_and_one_signal_id() {
    for point in fault_points() {
        let handle = Handle::start(&[]).await;
        let instance = Instance::new(&document(&handle, ""));
        let pulls = [vec!["{\"status\":\"Pulling from web\"}\n"]].into();
        let engine = start(&instance, EngineState { pulls, ..EngineState::default() }).await;

        let died = instance.run_with(INSTANCE, &["--fault-point", &point]).await;
        assert_eq!(died.exit_code, None, "{point} was not reached: {}", died.log);
        let ran = instance.run().await;

        assert_eq!(ran.exit_code, Some(0), "{point}: {}", ran.log);
        let engine = engine.state();
        assert_eq!((engine.containers.len(), engine.n_created), (1, 1), "{point}");
        assert!(engine.containers.values().all(|container| container.is_started), "{point}");
        let ids: Vec<Value> = handle.signals().iter().map(|signal| signal["id"].clone()).collect();
        assert!(!ids.is_empty() && ids.iter().all(|id| *id == ids[0]), "{point}: {ids:?}");
        assert_eq!(instance.outbox_len(), 0, "{point}");
    }
}

fn fault_points() -> Vec<String> {
    let agent = Path::new(env!("CARGO_BIN_EXE_heliograph-agent"));
    let output = Command::new(agent).arg("fault-points").output().unwrap();
    let points: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(points.len() > 10, "{points:?}");
    points
}
