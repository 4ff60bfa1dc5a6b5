//! `docs/metadata.md` is true: its commands are run as they stand, in their order, on a path of their
//! own, whose agents ask Nova at first. Neutron's rate limit is switched on there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::certificates::Authority;
use e2e::heat::run;
use e2e::neutron::{Kind, Lab, Pace, free_port, instance_id};
use e2e::{programs, wait};

/// Some twenty commands, and six starts of agents that take some seconds each.
const GUIDE_LIMIT: Duration = Duration::from_secs(300);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Nova keeps what it knows of an instance for 15 s.
const SLOT_LIMIT: Duration = Duration::from_secs(60);

/// The instance that the page speaks of.
const INSTANCE: u8 = 9;

/// Neutron's default limit, in requests of one address in ten seconds.
const NEUTRONS_LIMIT: usize = 10;

/// The page's commands, each block after its line's number.
fn commands(page: &str) -> String {
    let mut script = String::new();
    let mut is_command = false;
    for (index, line) in page.lines().enumerate() {
        match line {
            "```sh" => {
                is_command = true;
                script.push_str(&format!("echo \"docs/metadata.md:{}\" >&2\n", index + 2));
            }
            "```" => is_command = false,
            _ if is_command => {
                script.push_str(line);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

pub(crate) fn play() -> Result<()> {
    programs::heliograph_agent()?;
    let lab = Lab::stand_up_without_relay()?;
    let scene = Scene::prepare(&lab)?;
    let page = fs::read_to_string(programs::source_tree().join("docs/metadata.md"))?;
    let (way_in, way_back) = page.split_once("\n## Rolling back\n").unwrap_or((&page, ""));
    // What the page sets once holds until its end.
    let settings: String = commands(way_in)
        .lines()
        .filter(|line| line.starts_with("export ") && !line.contains("$("))
        .map(|line| format!("{line}\n"))
        .collect();

    let played = (|| {
        let printed = scene.run("way-in", &commands(way_in))?;
        ensure!(printed.matches("\"code\":\"hello\"").count() == 2, "{printed}");
        ensure!(printed.contains("complete: it works"), "{printed}");
        within_the_limit(&lab, &scene)?;
        let printed = scene.run("way-back", &format!("{settings}{}", commands(way_back)))?;
        ensure!(printed.contains("\"uuid\""), "{printed}");
        without_a_relay(&lab, &scene)
    })();
    // However far the page came, its relay must not stay.
    scene.run("stop", "systemctl stop heliograph-server")?;
    played
}

/// Neutron refuses who asks more often than it allows; the agent, which knows that, sends what needs
/// more requests than that in time, also when somebody else has used them up.
fn within_the_limit(lab: &Lab, scene: &Scene) -> Result<()> {
    let namespace = lab.own_namespace(Kind::Ovs, 10)?;
    let request = "GET /heliograph/v1/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut statuses = Vec::new();
    for _ in 0..=2 * NEUTRONS_LIMIT {
        statuses.push(lab.ask_in(&namespace, 10, request, Pace::Whole)?.0);
    }
    ensure!(statuses[0] == 200 && statuses.contains(&429), "{statuses:?}");
    let id = instance_id(10);
    let data = serde_json::to_string(&"x".repeat(15_000))?;
    let printed = scene.run(
        "limited",
        &format!(
            "ip netns exec {namespace} {} signal --instance-id {id} --id big --data '{data}' --timeout 120 \\\n\
             --user-data \"$STATE/user-data\" --state-dir \"$STATE/limited\" --console /dev/null\n",
            programs::heliograph_agent()?.display()
        ),
    );
    printed.map(drop)
}

/// Nova alone takes no signal, but it has a slot that an agent which was told so leaves its result in.
fn without_a_relay(lab: &Lab, scene: &Scene) -> Result<()> {
    // The document is no good, so the run fails at once.
    fs::write(scene.directory.join("broken"), "#docker\nimag: busybox\n")?;
    let ran = scene.run(
        "slot",
        "ip netns exec \"$NAMESPACE\" \"$AGENT_PROGRAM\" run --password-slot --instance-id \"$INSTANCE\" \\
             --user-data \"$STATE/broken\" --state-dir \"$STATE/slot\" --console /dev/null \\
             --engine unix:///nonexistent/engine.sock || echo \"ended with $?\"\n",
    )?;
    ensure!(ran.contains("ended with"), "{ran}");
    let request = "GET /openstack/latest/password HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let namespace = lab.own_namespace(Kind::Debian, INSTANCE)?;
    // Nova shows what it knew for some seconds.
    wait::until("the result in Nova's slot", SLOT_LIMIT, || {
        let (status, slot) = lab.ask_in(&namespace, INSTANCE, request, Pace::Whole)?;
        ensure!(status == 200, "{status} {slot}");
        Ok(slot.starts_with("@@heliograph1 1 ").then_some(()))
    })
}

/// Where the page is played.
struct Scene {
    directory: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Scene {
    fn prepare(lab: &Lab) -> Result<Scene> {
        // Inside of the lab, which its agents see under the same name.
        let directory = lab.path().join("guide");
        let programs = directory.join("bin");
        fs::create_dir_all(&programs)?;
        fs::write(directory.join("user-data"), "#docker\nimage: busybox\n")?;
        let authority = Authority::make(&directory.join("tls"))?;
        for name in ["relay", "agent"] {
            authority.sign(name)?;
        }
        let port = free_port()?;
        let public = free_port()?;
        let namespace = lab.own_namespace(Kind::Debian, INSTANCE)?;
        let text = |path: &Path| path.display().to_string();
        let environment = vec![
            ("STATE", text(&directory)),
            ("PROGRAMS", text(&programs)),
            ("SERVER", text(&programs::heliograph_server()?)),
            ("AGENT_PROGRAM", text(&programs::heliograph_agent()?)),
            ("NAMESPACE", namespace),
            ("INSTANCE", instance_id(INSTANCE)),
            ("LAB", text(lab.path())),
            ("LAB_STATE", lab.fact("state")?.to_owned()),
            ("RESTART_AGENT", text(&programs::source_tree().join("tests/neutron/restart-agent"))),
            ("GATEWAY_LISTEN", format!("127.0.0.1:{port}")),
            ("RELAY_LISTEN", format!("127.0.0.1:{public}")),
            ("NOVA_URL", format!("http://{}", lab.fact("nova")?)),
            ("RELAY_CONFIG", text(&directory.join("relay.toml"))),
            ("RELAY_DATA", text(&directory.join("data"))),
            ("HELIOGRAPH_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("AGENT_CONF", format!("{}/debian/agent.conf", lab.fact("state")?)),
            ("TLS_DIR", text(&directory.join("tls"))),
        ];
        for (name, program) in PROGRAMS {
            let path = programs.join(name);
            fs::write(&path, program)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Scene { directory, environment })
    }

    fn run(&self, name: &str, script: &str) -> Result<String> {
        let path = self.directory.join(format!("{name}.sh"));
        fs::write(&path, format!("set -euo pipefail\nPATH=$PROGRAMS:$PATH\n{script}"))?;
        let mut command = Command::new("bash");
        command.arg(&path).envs(self.environment.iter().map(|(key, value)| (key, value)));
        let limit = if name == "stop" { STOP_LIMIT } else { GUIDE_LIMIT };
        run(name, &mut command, &self.directory, limit)
    }
}

/// What stands in for a host and its service manager, and for what runs in the instance.
const PROGRAMS: [(&str, &str); 5] = [
    ("heliograph-server", "#!/bin/sh\nexec \"$SERVER\" \"$@\"\n"),
    (
        "heliograph-agent",
        "#!/bin/sh\nexec ip netns exec \"$NAMESPACE\" \"$AGENT_PROGRAM\" \"$@\" --instance-id \"$INSTANCE\" --id here \\\n    \
         --user-data \"$STATE/user-data\" --state-dir \"$STATE/agent\" --console /dev/null\n",
    ),
    (
        "curl",
        "#!/bin/bash\nPATH=${PATH#\"$PROGRAMS:\"}\ncase \"$*\" in\n    *//169.254.169.254/*) exec ip netns exec \"$NAMESPACE\" curl \"$@\" ;;\n    *) exec curl \"$@\" ;;\nesac\n",
    ),
    ("openstack", "#!/bin/sh\n[ \"$1 $2\" = 'server show' ] && echo \"$INSTANCE\"\n"),
    (
        "systemctl",
        r#"#!/bin/bash
set -eu
case "$*" in
    "restart neutron-metadata-agent")
        # The other release's agent is another host's, with the same lines.
        for key in host port protocol; do
            value=$(crudini --get "$AGENT_CONF" DEFAULT "nova_metadata_$key" 2>/dev/null || echo http)
            crudini --set "$LAB_STATE/ovs/agent.conf" DEFAULT "nova_metadata_$key" "$value"
        done
        for key in auth_ca_cert nova_client_cert nova_client_priv_key; do
            value=$(crudini --get "$AGENT_CONF" DEFAULT "$key" 2>/dev/null || true)
            [ -z "$value" ] || crudini --set "$LAB_STATE/ovs/agent.conf" DEFAULT "$key" "$value"
        done
        for kind in debian ovs; do "$RESTART_AGENT" "$LAB" "$kind"; done
        ;;
    "restart heliograph-server")
        "$0" stop heliograph-server
        heliograph-server serve --config "$RELAY_CONFIG" >"$STATE/relay.out" 2>"$STATE/relay.err" </dev/null &
        echo $! >"$STATE/relay.pid"
        for _ in $(seq 300); do
            if grep -q "listening metadata" "$STATE/relay.out"; then exit 0; fi
            sleep 0.1
        done
        cat "$STATE/relay.err" >&2
        exit 1
        ;;
    "kill --signal HUP heliograph-server") kill -HUP "$(cat "$STATE/relay.pid")" ;;
    "stop heliograph-server")
        [ -e "$STATE/relay.pid" ] || exit 0
        pid=$(cat "$STATE/relay.pid")
        rm "$STATE/relay.pid"
        kill "$pid" || exit 0
        while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
        ;;
    *) exit 1 ;;
esac
"#,
    ),
];
