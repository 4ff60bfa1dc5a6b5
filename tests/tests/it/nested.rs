//! A container that runs an engine of its own, and a test in a container of that: what dockenstack
//! did with a whole OpenStack, in small.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::Kind;
use e2e::image;

use crate::stage::{Scene, Stage, Waiting, only_data};

const LIMIT: Duration = Duration::from_secs(60);

/// Debian's Podman, with what it starts.
const PROGRAMS: [&str; 3] = ["/usr/bin/podman", "/usr/bin/conmon", "/usr/sbin/runc"];

/// Makes a file system for the inner container, and runs the test in it.
const TEST: &str = r#"busybox mkdir -p /inner/bin /inner/proc /inner/sys /inner/dev /inner/tmp /var/tmp /etc/containers
busybox cp /bin/busybox /inner/bin/busybox
exec podman --root /tmp/storage --runroot /tmp/run --storage-driver vfs --cgroup-manager cgroupfs --events-backend none --runtime /usr/sbin/runc run --rm --network none --rootfs /inner /bin/busybox sh -c 'busybox test "$((6 * 7))" = 42 && echo "the inner test has passed"'"#;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("nested::podman::a_test_in_an_engine_in_a_container", |stage| {
        a_test_in_an_engine_in_a_container(stage, Kind::Podman)
    })]
}

fn a_test_in_an_engine_in_a_container(stage: &Stage, kind: Kind) -> Result<()> {
    let engine = stage.engine(kind)?;
    engine.import("engine:latest", image::root_file_system_with(&PROGRAMS.map(Path::new))?)?;
    let turn = engine.turn()?;
    let waiting = Waiting::for_one()?;
    let script = TEST.replace('\n', "\n  ");
    let keys = format!(
        "image: engine\nprivileged: true\npull_policy: never\nenvironment: {{PATH: /usr/sbin:/usr/bin:/bin}}\n\
         outputs: [exit_code, logs_tail]\ncmd: |\n  {script}"
    );
    let document = waiting.document(", when: exit", &keys);
    let ran = Instance::new("nested", &turn.engine.url(), &document)?.run()?;
    ensure!(ran.status.success(), "{}{}", ran.console, ran.last_words);

    let waited = waiting.relay.wait(&waiting.handle, LIMIT)?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");
    let data = only_data(&waited.view)?;
    let tail = data["logs_tail"].as_str().context("no logs_tail")?;
    ensure!(tail == "the inner test has passed", "{data}");
    ensure!(data["exit_code"] == 0 || data["exit_code"] == "0", "{data}");
    Ok(())
}
