//! `docs/heat.md` is true: its commands are run as they stand, in their order, in a lab of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::heat::{HeatRelay, Lab, run};
use e2e::programs;
use tempfile::TempDir;

use crate::stage::{Scene, Stage};

/// Each of some sixty commands takes a second or two, and several on a busy machine.
const GUIDE_LIMIT: Duration = Duration::from_secs(900);
const STOP_LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("guide::every_command_of_the_page_works", every_command),
        Scene::new("guide::lines_of_heat_conf_are_what_the_commands_set", lines_are_set),
    ]
}

/// The page's blocks of one language, each with the number of its first line.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let opening = format!("```{language}");
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in page.lines().enumerate() {
        match &mut open {
            None if line == opening => open = Some((index + 2, String::new())),
            None => {}
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    blocks
}

fn page() -> Result<String> {
    Ok(fs::read_to_string(programs::source_tree().join("docs/heat.md"))?)
}

fn lines_are_set(_: &Stage) -> Result<()> {
    let page = page()?;
    let commands: String = blocks(&page, "sh").into_iter().map(|(_, text)| text).collect();
    let mut n_lines = 0;
    for (_, block) in blocks(&page, "ini") {
        let mut section = "";
        for line in block.lines().filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
                continue;
            }
            let (key, value) =
                line.split_once(" = ").with_context(|| format!("no setting: {line}"))?;
            let sets =
                [format!("{section} {key} {value}\n"), format!("{section} {key} \"{value}\"\n")];
            ensure!(
                sets.iter().any(|set| commands.contains(set)),
                "no command sets {section} {key}"
            );
            n_lines += 1;
        }
    }
    ensure!(n_lines == 3, "the page shows {n_lines} lines of heat.conf");
    Ok(())
}

fn every_command(_: &Stage) -> Result<()> {
    let page = page()?;
    let lab = Lab::stand_up(None, false)?;
    // Only its address is used: the page itself configures and starts the relay.
    let relay = HeatRelay::plan()?;
    let directory = TempDir::new()?;
    let systemctl = service_manager(directory.path())?;

    let mut script = String::from(AS_AN_OPERATOR);
    for (line, block) in blocks(&page, "sh") {
        script.push_str(&format!("echo \"docs/heat.md:{line}\" >&2\n"));
        // The second way is for a cloud that has Swift. One that nobody can reach proves that Heat does
        // not go there.
        if block.starts_with("SWIFT_ADMIN=") {
            script.push_str(SOME_SWIFT);
        }
        script.push_str(&block);
    }
    script.push_str(AS_BEFORE);
    fs::write(directory.path().join("guide.sh"), script)?;

    let programs = programs::heliograph_server()?;
    let programs = programs.parent().context("the relay has no directory")?;
    let mut command = Command::new("bash");
    command
        .arg(directory.path().join("guide.sh"))
        .current_dir(programs::source_tree())
        .env("SYSTEMCTL", &systemctl)
        .env("PROGRAMS", programs)
        .env("LAB", lab.path())
        .env("KNOB", programs::source_tree().join("tests/heat/knob"))
        .env("STATE", directory.path())
        .env("RELAY_URL", relay.public())
        .env("RELAY_LISTEN", relay.public().trim_start_matches("http://"))
        .env("RELAY_CONFIG", directory.path().join("etc/relay.toml"))
        .env("RELAY_DATA", directory.path().join("data"))
        .env("HELIOGRAPH_ADMIN_LISTEN", "127.0.0.1:0")
        .env("HEAT_CONF", lab.path().join("heat/heat.conf"))
        .env("HEAT_API_URL", lab.fact("heat_url")?)
        .env("HEAT_CFN_URL", lab.fact("cfn_url")?);
    let ran = run("guide", &mut command, directory.path(), GUIDE_LIMIT);
    // However far the page came, its relay must not stay.
    let mut stop = Command::new(systemctl.join("systemctl"));
    stop.args(["stop", "heliograph-server"]).env("STATE", directory.path());
    run("stop", &mut stop, directory.path(), STOP_LIMIT)?;
    let printed = ran?;
    let n_complete = printed.matches("CREATE_COMPLETE with data {\"check\": \"it works\"}").count();
    ensure!(n_complete == 4, "{n_complete} of 4 checks completed: {printed}");
    let n_at_relay = printed.matches(&format!("signal to {}", relay.public())).count();
    ensure!(n_at_relay == 4, "{n_at_relay} of 4 signals went to the relay: {printed}");
    Ok(())
}

/// The lab has made the relay's user for the other scenes; the page makes it, too.
const AS_AN_OPERATOR: &str = r#"
set -euo pipefail
PATH=$SYSTEMCTL:$PROGRAMS:$PATH
. "$LAB/openrc.admin"
openstack user delete heliograph
"#;

const SOME_SWIFT: &str = r#"
openstack service create --name swift object-store >/dev/null
for interface in public internal admin; do
    openstack endpoint create --region "$REGION" object-store "$interface" "http://127.0.0.1:9/v1/AUTH_%(project_id)s" >/dev/null
done
"#;

/// After the page's ways back nothing is left of the ways in.
const AS_BEFORE: &str = r#"
[ -z "$(openstack endpoint list -f value -c URL | grep -F "$RELAY_URL")" ]
! grep -F "$RELAY_URL" "$HEAT_CONF"
! grep endpoint_type "$HEAT_CONF"
"#;

/// A service manager for the two services that the page restarts.
fn service_manager(directory: &Path) -> Result<std::path::PathBuf> {
    let path = directory.join("bin");
    fs::create_dir(&path)?;
    let program = path.join("systemctl");
    fs::write(
        &program,
        r#"#!/bin/bash
set -eu
case "$*" in
    "restart heat-engine") exec "$KNOB" "$LAB" restart heat-engine ;;
    "restart heliograph-server")
        "$0" stop heliograph-server
        heliograph-server serve --config "$RELAY_CONFIG" >"$STATE/relay.out" 2>"$STATE/relay.err" </dev/null &
        echo $! >"$STATE/relay.pid"
        for _ in $(seq 300); do
            if grep -q "listening admin" "$STATE/relay.out"; then exit 0; fi
            sleep 0.1
        done
        cat "$STATE/relay.err" >&2
        exit 1
        ;;
    "stop heliograph-server")
        [ -e "$STATE/relay.pid" ] || exit 0
        kill "$(cat "$STATE/relay.pid")" || true
        rm "$STATE/relay.pid"
        ;;
    *) exit 1 ;;
esac
"#,
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
