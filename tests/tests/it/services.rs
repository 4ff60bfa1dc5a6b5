//! Documents of several services: in order, after one another, and what one failure means for all.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::{Engine, Kind};
use serde_json::Value;

use crate::stage::{IDLE, Scene, Stage, Waiting, only_data};

const LIMIT: Duration = Duration::from_secs(60);

/// As many as one small instance may well have.
const N_SERVICES: usize = 20;

/// The one that fails where one does.
const FAILING: usize = 7;

pub(crate) fn scenes() -> Vec<Scene> {
    let mut scenes = vec![
        Scene::new("services::docker::twenty_start_in_order", |stage| {
            twenty_start_in_order(stage, Kind::Docker)
        }),
        Scene::new("services::docker::one_that_fails_stops_the_rest", |stage| {
            one_that_fails_stops_the_rest(stage, Kind::Docker)
        }),
        Scene::new("services::docker::healthy_ones_and_optional_ones", |stage| {
            healthy_ones_and_optional_ones(stage, Kind::Docker)
        }),
    ];
    for kind in [Kind::Docker, Kind::Podman] {
        let name = kind.name();
        scenes.push(Scene::new(format!("services::{name}::parts_of_one_whole"), move |stage| {
            parts_of_one_whole(stage, kind)
        }));
    }
    scenes
}

/// Written the other way round, so that it is not the document's order that does it.
fn chain(n_services: usize, failing: Option<usize>) -> String {
    let mut services = "services:\n".to_owned();
    for number in (1..=n_services).rev() {
        let job = if failing == Some(number) { "exit 3" } else { "exit 0" };
        let _ = writeln!(services, "  s{number:02}:\n    image: busybox\n    cmd: {job}");
        if number > 1 {
            let before = number - 1;
            let _ = writeln!(
                services,
                "    depends_on: {{s{before:02}: {{condition: service_completed_successfully}}}}"
            );
        }
    }
    services
}

fn twenty_start_in_order(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let document = waiting.document(", when: exit", &chain(N_SERVICES, None));
    let ran = Instance::new("twenty", &turn.engine.url(), &document)?.run()?;
    ensure!(ran.status.success(), "{}{}", ran.console, ran.last_words);

    let waited = waiting.relay.wait(&waiting.handle, LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");
    let data = only_data(&waited.view)?;
    ensure!(data.as_object().is_some_and(|data| data.len() == N_SERVICES), "{data}");
    let mut last_end = String::new();
    for number in 1..=N_SERVICES {
        let id =
            data[format!("s{number:02}")]["container_id"].as_str().context("no id")?.to_owned();
        let state = turn.engine.inspect(&id)?["State"].clone();
        let time = |key: &str| state[key].as_str().unwrap_or_default().to_owned();
        ensure!(time("StartedAt") > last_end, "s{number:02} was started before its time: {state}");
        last_end = time("FinishedAt");
    }
    Ok(())
}

fn one_that_fails_stops_the_rest(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let document = waiting.document(", when: exit", &chain(N_SERVICES, Some(FAILING)));
    let ran = Instance::new("failing", &turn.engine.url(), &document)?.run()?;
    ensure!(ran.status.code() == Some(1), "{}{}", ran.console, ran.last_words);
    let n_containers = turn.engine.containers()?.len();
    ensure!(n_containers == FAILING, "{n_containers} containers were made");

    let waited = waiting.relay.wait(&waiting.handle, LIMIT)?;
    ensure!(waited.exit_code == Some(1), "{waited:?}");
    let reason = waited.view["reason"].as_str().context("no reason")?;
    ensure!(reason.starts_with("service s07: ") && reason.contains("exit code 3"), "{reason}");
    ensure!(reason.contains("not started because of it: s08, s09"), "{reason}");
    let data = only_data(&waited.view)?;
    ensure!(data["service"] == "s07", "{data}");
    ensure!(data["exit_code"].to_string().contains('3'), "{data}");
    Ok(())
}

/// A network, a volume, a secret and a health check, and what one service is to another.
fn parts_of_one_whole(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    // Podman runs health checks by systemd, which is not here: there the end of a job is waited for.
    let keys = format!(
        "services:
  web:
    image: busybox
    depends_on: {{seed: {{condition: service_completed_successfully}}, store: {{condition: service_started}}}}
    networks: [inner]
    volumes: [\"parts-data:/data:ro\"]
    cmd: cat /data/seeded; {idle}
  store:
    image: busybox
    networks: [inner]
    cmd: {idle}
  seed:
    image: busybox
    secrets: [password]
    volumes: [\"parts-data:/data\"]
    cmd: cat /run/secrets/password > /data/seeded
networks:
  inner: {{}}
volumes:
  parts-data: {{}}
secrets:
  password: {{content: \"hunter2\\n\"}}
outputs: [network_ip, logs_head, exit_code, container_id]",
        idle = IDLE.trim_matches('"')
    );
    let document = waiting.document("", &keys);
    let instance = Instance::new("parts", &turn.engine.url(), &document)?;
    let ran = instance.run()?;
    ensure!(ran.status.success(), "{}{}", ran.console, ran.last_words);
    ensure!(ran.console.contains("\nweb | hunter2\n"), "{}", ran.console);

    let waited = waiting.relay.wait(&waiting.handle, LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");
    let data = only_data(&waited.view)?;
    ensure!(data["seed"]["exit_code"] == 0 && data["web"]["logs_head"] == "hunter2", "{data}");
    let address = |service: &str| data[service]["network_ip"].as_str().unwrap_or_default();
    ensure!(!address("web").is_empty() && address("web") != address("store"), "{data}");
    let id = data["seed"]["container_id"].as_str().context("no container_id")?;
    let labels = turn.engine.inspect(id)?["Config"]["Labels"].to_string();
    ensure!(!labels.contains("hunter2"), "a secret in a label: {labels}");
    // Its own, and the default one for the service that names none.
    let n_networks = n_ours(turn.engine, "/networks")?;
    ensure!(n_networks == 2, "{n_networks} networks are there instead of two");

    // The last to start is the first to stop.
    let stopped = instance.ask(&["stop"])?;
    let order: Vec<&str> = stopped.printed.lines().collect();
    let place = |service: &str| order.iter().position(|line| line.contains(service));
    ensure!(order.len() == 3 && place("web") < place("store"), "{stopped:?}");
    let again = instance.run()?;
    ensure!(again.status.success(), "{}{}", again.console, again.last_words);
    let terminated = instance.ask(&["terminate", "--volumes"])?;
    ensure!(terminated.exit_code == Some(0), "{terminated:?}");
    ensure!(turn.engine.containers()?.is_empty(), "containers were left");
    ensure!(n_ours(turn.engine, "/networks")? == 0, "a network was left");
    ensure!(
        !instance.state_directory().join("files").join("secrets").exists(),
        "a secret was left"
    );
    Ok(())
}

/// One waits for the health of another. What is only nice to have does not keep it from being started,
/// but whoever waits hears that it failed.
fn healthy_ones_and_optional_ones(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    for (job, failure) in [("exit 0", None), ("exit 5", Some("service cache: "))] {
        let waiting = Waiting::for_one()?;
        let document = waiting.document("", &health_and_wishes(job));
        let instance = Instance::new("healthy", &turn.engine.url(), &document)?;
        let ran = instance.run()?;
        ensure!(ran.status.success() == failure.is_none(), "{}{}", ran.console, ran.last_words);
        // Without the health of the other it would have found nothing.
        ensure!(ran.console.contains("\nweb | it is ready\n"), "{}", ran.console);

        let waited = waiting.relay.wait(&waiting.handle, LIMIT)?;
        if let Some(expect) = failure {
            let reason = waited.view["reason"].as_str().context("no reason")?;
            ensure!(reason.starts_with(expect) && reason.contains("exit code 5"), "{reason}");
        } else {
            ensure!(waited.exit_code == Some(0), "{waited:?}");
        }
        let containers = turn.engine.containers()?;
        let n_running = containers.iter().filter(|one| one["State"] == "running").count();
        ensure!(n_running == 2, "{n_running} are running: {containers:?}");
        let terminated = instance.ask(&["terminate", "--volumes"])?;
        ensure!(terminated.exit_code == Some(0), "{terminated:?}");
    }
    Ok(())
}

fn health_and_wishes(cache: &str) -> String {
    format!(
        "services:
  web:
    image: busybox
    depends_on:
      store: {{condition: service_healthy}}
      cache: {{condition: service_completed_successfully, required: false}}
    volumes: [\"health-data:/data:ro\"]
    cmd: cat /data/ready; {idle}
  store:
    image: busybox
    volumes: [\"health-data:/data\"]
    healthcheck: {{test: [CMD, cat, /data/ready], interval: 500ms, timeout: 5s, retries: 60}}
    cmd: sleep 1; echo it is ready > /data/ready; {idle}
  cache:
    image: busybox
    restart: \"no\"
    cmd: {cache}
volumes:
  health-data: {{}}
outputs: [exit_code]",
        idle = IDLE.trim_matches('"')
    )
}

fn n_ours(engine: &Engine, path: &str) -> Result<usize> {
    let listed = engine.get(path)?;
    let listed = listed.as_array().context("no list")?;
    let is_ours = |one: &&Value| one["Labels"]["io.heliograph.agent"] == "1";
    Ok(listed.iter().filter(is_ours).count())
}
