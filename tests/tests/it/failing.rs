//! What goes wrong, kind by kind: each is signalled as a FAILURE, by the real agent to a real relay,
//! with a reason that a person can act on and nothing in it that is nobody's business.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::{Instance, Ran};
use e2e::engine::{self, Engine, Kind};
use e2e::wait;
use tempfile::TempDir;

use crate::stage::{Registries, Scene, Stage, Waiting};

/// How long `wait` waits; the agents give up before.
const SIGNAL_LIMIT: Duration = Duration::from_secs(90);

/// An environment value of each document: wherever it turns up, somebody else may read it.
const SECRET: &str = "kept-to-the-container";

/// One way to fail.
#[derive(Clone)]
struct Case {
    name: &'static str,
    kinds: &'static [Kind],
    /// Added to the signal's keys.
    signal_keys: &'static str,
    /// The rest of the document.
    keys: fn(&Registries) -> String,
    /// Each must be in the reason; of several with a bar between, one.
    expect: &'static [&'static str],
}

const BOTH: &[Kind] = &[Kind::Docker, Kind::Podman];
const DOCKER: &[Kind] = &[Kind::Docker];

const CASES: &[Case] = &[
    Case {
        name: "unknown_key",
        kinds: DOCKER,
        signal_keys: "",
        keys: |_| "image: centos\nenvironmnt: {A: b}".to_owned(),
        // Its line counts from `#docker`; the environment of every case comes first.
        expect: &["line 5", "column 1", "environmnt", "did you mean", "`environment`"],
    },
    Case {
        name: "yaml_error",
        kinds: DOCKER,
        signal_keys: "",
        keys: |_| "image: [centos".to_owned(),
        expect: &["line", "column"],
    },
    Case {
        name: "image_that_does_not_exist",
        kinds: BOTH,
        signal_keys: "",
        keys: |registries| format!("image: {}", registries.absent_image()),
        expect: &["pull", "hello:no-such-tag", "not found|does not exist|no such|unknown"],
    },
    Case {
        name: "registry_that_refuses",
        kinds: BOTH,
        signal_keys: "",
        keys: |registries| format!("image: {}", registries.protected_image()),
        expect: &["pull", "hello:1", "unauthorized|authentication|credentials|log in|login"],
    },
    Case {
        name: "pull_broken_in_mid_stream",
        kinds: BOTH,
        signal_keys: "",
        keys: |registries| format!("image: {}", registries.flaky_image()),
        expect: &["pull", "large:1", "broke|cut|eof|interrupted|closed|reset"],
    },
    Case {
        name: "command_not_found",
        kinds: BOTH,
        signal_keys: "",
        keys: |_| "image: centos\ncommand: /bin/no-such-program --flag".to_owned(),
        expect: &["not found|no such file", "no-such-program|command"],
    },
    Case {
        name: "exit_3",
        kinds: BOTH,
        signal_keys: "",
        keys: |_| "image: centos\nrestart: \"no\"\ncmd: echo the last words; exit 3".to_owned(),
        expect: &["exit", "3", "the last words"],
    },
    Case {
        name: "exit_3_when_the_end_is_awaited",
        kinds: BOTH,
        signal_keys: ", when: exit",
        keys: |_| "image: centos\ncmd: echo the last words; exit 3".to_owned(),
        expect: &["exit", "3", "the last words"],
    },
    Case {
        name: "crash_loop",
        kinds: DOCKER,
        signal_keys: "",
        keys: |_| "image: centos\nrestart: always\ncmd: echo the last words; exit 7".to_owned(),
        expect: &["restart|exit", "7", "the last words"],
    },
    Case {
        name: "out_of_memory",
        kinds: BOTH,
        signal_keys: ", when: exit",
        keys: |_| "image: centos\nmem_limit: 16m\ncmd: [tail, /dev/zero]".to_owned(),
        expect: &["memory", "mem_limit|limit"],
    },
    Case {
        name: "health_check_never_healthy",
        kinds: DOCKER,
        signal_keys: "",
        keys: |_| {
            "image: centos\ncmd: sleep 1000\n\
             healthcheck: {test: [CMD, \"false\"], interval: 1s, timeout: 1s, retries: 2}"
                .to_owned()
        },
        expect: &["health"],
    },
];

pub(crate) fn scenes() -> Vec<Scene> {
    let mut scenes = vec![
        Scene::new("failing::engine_never_up", engine_never_up),
        Scene::new("failing::docker::engine_down_then_up", |_| engine_down_then_up(Kind::Docker)),
        Scene::new("failing::podman::engine_down_then_up", |_| engine_down_then_up(Kind::Podman)),
        Scene::new("failing::docker::nobody_listens_then_somebody_does", |stage| {
            nobody_listens_then_somebody_does(stage, Kind::Docker)
        }),
    ];
    for case in CASES {
        for kind in case.kinds {
            let name = format!("failing::{}::{}", kind.name(), case.name);
            scenes.push(Scene::new(name, |stage| fails_as_expected(stage, *kind, case)));
        }
    }
    scenes
}

fn fails_as_expected(stage: &Stage, kind: Kind, case: &Case) -> Result<()> {
    let registries = stage.filled_registries()?;
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let keys = format!("environment: {{SECRET: {SECRET}}}\n{}", (case.keys)(&registries));
    let document = waiting.document(case.signal_keys, &keys);
    let ran = Instance::new(case.name, &turn.engine.url(), &document)?.run()?;
    is_failure(&waiting, &ran, case.expect)
}

/// An agent whose engine is never there gives up in time.
fn engine_never_up(_stage: &Stage) -> Result<()> {
    let nowhere = TempDir::new()?;
    let socket = engine::socket_in(nowhere.path());
    let waiting = Waiting::for_one()?;
    let document = waiting
        .document("", &format!("image: centos\nenvironment: {{SECRET: {SECRET}}}"))
        .replace("timeout: 45s", "timeout: 8s");
    let ran = Instance::new("alone", &engine::url_of(&socket), &document)?.run()?;
    let socket = socket.display().to_string();
    is_failure(&waiting, &ran, &["engine", &socket])
}

/// An instance's services start in any order, and an engine takes its time.
fn engine_down_then_up(kind: Kind) -> Result<()> {
    let directory = TempDir::new()?;
    let engine_directory = directory.path().join("engine");
    let engine_url = engine::url_of(&engine::socket_in(&engine_directory));
    let waiting = Waiting::for_one()?;
    // An image from nowhere: that the engine is asked for it shows that it was reached.
    let document = waiting.document("", "image: centos\npull_policy: never\ncmd: sleep 1000");
    let instance = Instance::new("patient", &engine_url, &document)?;
    let mut agent = instance.start()?;
    wait::until("the agent's first words", SIGNAL_LIMIT, || {
        Ok((!agent.log()?.is_empty()).then_some(()))
    })?;

    let engine = Engine::start_in(kind, &engine_directory, &[])?;
    let status = agent.ended()?;
    ensure!(!status.success(), "there is no such image");
    let waited = waiting.relay.wait(&waiting.handle, SIGNAL_LIMIT)?;
    ensure!(waited.exit_code == Some(1), "{waited:?}");
    let reason = waited.view["reason"].as_str().context("no reason")?.to_owned();
    ensure!(reason.contains("centos"), "the engine was asked for the image: {reason}");

    engine.import("centos:latest", e2e::image::root_file_system(0)?)?;
    let again = Waiting::for_one()?;
    let document = again.document("", "image: centos\npull_policy: never\ncmd: sleep 1000");
    let ran = Instance::new("patient-2", &engine_url, &document)?.run()?;
    ensure!(ran.status.success(), "{}{}", ran.status, ran.last_words);
    engine.stop()
}

/// A relay that is away for a moment gets the signal when it is back; the agent waits for that.
fn nobody_listens_then_somebody_does(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    let turn = engine.turn()?;
    let directory = TempDir::new()?;
    let data = crate::stage::data_directory(directory.path());
    let relay = e2e::relay::Relay::start(&data)?;
    let handle = relay.create_handle(1, crate::stage::HANDLE_TIMEOUT)?;
    let address = relay.address().to_owned();
    relay.kill()?;

    let document = format!(
        "#docker\nimage: centos\ncmd: sleep 1000\nsignal: {{url: \"{}\", stable_for: 1s, timeout: 60s}}\n",
        handle.signal_url
    );
    let instance = Instance::new("unheard", &turn.engine.url(), &document)?;
    let mut agent = instance.start()?;
    wait::until("the container", SIGNAL_LIMIT, || {
        Ok(turn
            .engine
            .containers()?
            .iter()
            .any(|container| container["State"] == "running")
            .then_some(()))
    })
    .with_context(|| agent.last_words())?;
    // The container is up and nobody has listened for longer than it must be up for a success.
    wait::pause(Duration::from_secs(3));
    let relay = e2e::relay::Relay::start_at(&data, &address)?;
    let waited = relay.wait(&handle, SIGNAL_LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}{}", agent.last_words());
    let status = agent.ended()?;
    ensure!(status.success(), "the agent ended with {status}{}", agent.last_words());
    Ok(())
}

/// The handle has failed, once, for the expected reason; agent and console say so too.
fn is_failure(waiting: &Waiting, ran: &Ran, expect: &[&str]) -> Result<()> {
    let waited = waiting.relay.wait(&waiting.handle, SIGNAL_LIMIT)?;
    ensure!(waited.exit_code == Some(1), "{waited:?}{}", ran.last_words);
    ensure!(waited.view["state"] == "failed", "{waited:?}");
    let signals = waited.view["signals"].as_array().context("no signals")?;
    ensure!(signals.len() == 1 && signals[0]["status"] == "FAILURE", "{waited:?}");
    let reason = waited.view["reason"].as_str().context("no reason")?;
    eprintln!("  {}: {reason}", ran.instance);
    let lower_reason = reason.to_lowercase();
    for alternatives in expect {
        let found = alternatives
            .split('|')
            .any(|alternative| lower_reason.contains(&alternative.to_lowercase()));
        ensure!(found, "the reason lacks {alternatives:?}: {reason}");
    }
    ensure!(ran.status.code().is_some_and(|code| code != 0), "the agent ended with {}", ran.status);
    ensure!(ran.console.contains("FAILURE"), "the console lacks the result: {}", ran.console);
    for (place, text) in [("reason", reason), ("console", &ran.console), ("log", &ran.last_words)] {
        ensure!(!text.contains(SECRET), "an environment value is in the {place}: {text}");
    }
    Ok(())
}
