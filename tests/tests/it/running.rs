//! What goes well: containers that run, are reached and are reported.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::Kind;
use e2e::load::Connection;
use e2e::wait;
use serde_json::{Value, json};

use crate::stage::{HANDLE_TIMEOUT, IDLE, Scene, Stage, Waiting, only_data};

/// How long an agent may take from its start to its signal.
const SIGNAL_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn scenes() -> Vec<Scene> {
    let mut scenes = vec![
        Scene::new("running::docker::an_unchanged_document_keeps_its_container", |stage| {
            an_unchanged_document_keeps_its_container(stage, Kind::Docker)
        }),
        Scene::new("running::docker::a_container_of_somebody_else_is_left_alone", |stage| {
            a_container_of_somebody_else_is_left_alone(stage, Kind::Docker)
        }),
    ];
    for kind in [Kind::Docker, Kind::Podman] {
        let name = kind.name();
        scenes.extend([
            Scene::new(format!("running::{name}::the_readme_example"), move |stage| {
                the_readme_example(stage, kind)
            }),
            Scene::new(format!("running::{name}::a_published_port_is_reached"), move |stage| {
                a_published_port_is_reached(stage, kind)
            }),
            Scene::new(
                format!("running::{name}::an_image_is_pulled_and_runs_to_its_end"),
                move |stage| an_image_is_pulled_and_runs_to_its_end(stage, kind),
            ),
        ]);
    }
    scenes
}

/// The document of the README's first lines: dates on the console, once a second.
fn the_readme_example(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let user_data = format!(
        "#docker\nimage: centos\ncmd: \"while true; do date ; sleep 1; done\"\nsignal: {}\n",
        waiting.handle.signal_url
    );
    let instance = Instance::new("readme", &turn.engine.url(), &user_data)?;
    let agent = instance.follow()?;

    let waited = waiting.relay.wait(&waiting.handle, SIGNAL_LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}{}", agent.last_words());
    ensure!(waited.view["state"] == "complete", "{waited:?}");
    let data = only_data(&waited.view)?;
    let id = data["container_id"].as_str().context("no container_id")?;
    let address = address_of(&turn.engine.inspect(id)?)?;
    ensure!(data["network_ip"] == address.as_str(), "the address is {address}: {data}");

    // Dates came before the signal, and they go on after it: one second from each to the next.
    let n_before = seconds_of_dates(&agent.console()?).len();
    ensure!(n_before >= 4, "{n_before} dates before the signal: {}", agent.console()?);
    let dates = wait::until("more dates on the console", Duration::from_secs(20), || {
        let dates = seconds_of_dates(&agent.console()?);
        Ok((dates.len() >= n_before + 3).then_some(dates))
    })?;
    for pair in dates.windows(2) {
        let step = (pair[1] + 86_400 - pair[0]) % 86_400;
        ensure!((1..=2).contains(&step), "dates are not a second apart: {dates:?}");
    }
    let status = agent.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    let running = turn.engine.inspect(id)?["State"]["Running"].as_bool();
    ensure!(running == Some(true), "the agent's end must not stop the container");
    Ok(())
}

fn a_published_port_is_reached(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let port = free_port()?;
    let keys = format!(
        "image: busybox\nports: [\"{port}:80\"]\n\
         cmd: echo published > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    );
    let instance = Instance::new("web", &turn.engine.url(), &waiting.document("", &keys))?;
    let ran = instance.run()?;
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);

    let waited = waiting.relay.wait(&waiting.handle, SIGNAL_LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");
    let data = only_data(&waited.view)?;
    ensure!(data["network_tcp_ports"] == json!(port.to_string()), "the port is {port}: {data}");
    let answer = Connection::open(&format!("127.0.0.1:{port}"))?.get("/index.html")?;
    ensure!(
        answer.is_success()
            && answer.body
                == "published
",
        "{answer:?}"
    );
    Ok(())
}

/// Through a real registry, and to the end: `signal.when: exit`.
fn an_image_is_pulled_and_runs_to_its_end(stage: &Stage, kind: Kind) -> Result<()> {
    let registries = stage.filled_registries()?;
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let keys = format!(
        "image: {}\npull_policy: always\ncmd: echo it is done\noutputs: [exit_code, logs_tail, image_digest]",
        registries.hello_image()
    );
    let document = waiting.document(", when: exit", &keys);
    let ran = Instance::new("pulled", &turn.engine.url(), &document)?.run()?;
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    ensure!(ran.console.contains("it is done"), "console: {}", ran.console);

    let waited = waiting.relay.wait(&waiting.handle, SIGNAL_LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");
    let data = only_data(&waited.view)?;
    let exit_code = &data["exit_code"];
    ensure!(*exit_code == 0 || *exit_code == "0", "{data}");
    ensure!(data["logs_tail"].to_string().contains("it is done"), "{data}");
    ensure!(data["image_digest"].to_string().contains("sha256:"), "{data}");
    Ok(())
}

/// A reboot is a second run: same container, no second signal. Other user data is another container.
fn an_unchanged_document_keeps_its_container(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_many(2)?;
    let document = waiting.document("", &format!("image: centos\ncmd: {IDLE}"));
    let instance = Instance::new("kept", &turn.engine.url(), &document)?;

    let only_container = || -> Result<String> {
        let containers = turn.engine.containers()?;
        ensure!(containers.len() == 1, "one container is expected: {containers:?}");
        Ok(containers[0]["Id"].as_str().context("no Id")?.to_owned())
    };
    let first = instance.run()?;
    ensure!(first.status.success(), "{}{}", first.status, first.last_words);
    let kept = only_container()?;
    let second = instance.run()?;
    ensure!(second.status.success(), "{}{}", second.status, second.last_words);
    ensure!(only_container()? == kept, "the container was replaced");
    let view = waiting.relay.show(&waiting.handle)?;
    ensure!(view["signals"].as_array().is_some_and(|signals| signals.len() == 1), "{view}");

    let snapshot = Instance::new("snapshot", &turn.engine.url(), &document)?;
    let third = snapshot.run()?;
    ensure!(third.status.success(), "{}{}", third.status, third.last_words);
    ensure!(only_container()? != kept, "a new instance must have a new container");
    let waited = waiting.relay.wait(&waiting.handle, HANDLE_TIMEOUT)?;
    ensure!(waited.exit_code == Some(0), "the second instance has an id of its own: {waited:?}");
    Ok(())
}

fn a_container_of_somebody_else_is_left_alone(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let bystander = turn.engine.run_foreign("bystander", "busybox")?;
    let namesake = turn.engine.run_foreign("mine", "busybox")?;
    let keys = "image: centos\ncontainer_name: mine\ncmd: sleep 1000";
    let ran = Instance::new("guest", &turn.engine.url(), &waiting.document("", keys))?.run()?;
    ensure!(!ran.status.success(), "a taken name must be a failure");

    let waited = waiting.relay.wait(&waiting.handle, SIGNAL_LIMIT)?;
    ensure!(waited.exit_code == Some(1), "{waited:?}");
    let reason = waited.view["reason"].as_str().context("no reason")?;
    ensure!(reason.contains("mine"), "the reason names the container: {reason}");
    for id in [bystander, namesake] {
        let running = turn.engine.inspect(&id)?["State"]["Running"].as_bool();
        ensure!(running == Some(true), "a foreign container was touched");
    }
    Ok(())
}

/// A container's address, in whichever network it is.
fn address_of(inspection: &Value) -> Result<String> {
    let settings = &inspection["NetworkSettings"];
    let networks = settings["Networks"].as_object().into_iter().flat_map(|map| map.values());
    networks
        .chain([settings])
        .filter_map(|network| network["IPAddress"].as_str())
        .find(|address| !address.is_empty())
        .map(str::to_owned)
        .context("the container has no address")
}

/// The seconds of the day of each line that is a date, such as `Fri Nov 21 08:57:12 UTC 2025`.
fn seconds_of_dates(console: &str) -> Vec<u32> {
    let mut seconds = Vec::new();
    for line in console.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        for word in line.split_whitespace() {
            let parts: Vec<u32> = word.split(':').filter_map(|part| part.parse().ok()).collect();
            if let [hours, minutes, second] = parts[..]
                && word.len() == 8
                && line.contains("UTC")
            {
                seconds.push(hours * 3600 + minutes * 60 + second);
            }
        }
    }
    seconds
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port())
}
