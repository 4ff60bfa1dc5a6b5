//! The packages: installed, upgraded from an older version, removed and purged in a clean Debian; likewise
//! the other kind in a tree of its own. What happens to what runs is seen in a machine.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::vm::{self, Machine, Volume};
use tempfile::TempDir;

use crate::Scene;

/// What is where after an installation, beside documentation.
const FILES: &[&str] = &[
    "/usr/bin/heliograph-agent",
    "/usr/bin/heliograph-server",
    "/etc/heliograph/agent.toml",
    "/etc/heliograph/relay.toml",
    "/lib/systemd/system/heliograph-agent.service",
    "/lib/systemd/system/heliograph-containers.service",
    "/lib/systemd/system/heliograph-guard.service",
    "/lib/systemd/system/heliograph-server.service",
    "/etc/systemd/system/multi-user.target.wants/heliograph-agent.service",
    "/etc/systemd/system/multi-user.target.wants/heliograph-containers.service",
    "/etc/systemd/system/multi-user.target.wants/heliograph-guard.service",
    "/etc/systemd/system/multi-user.target.wants/heliograph-server.service",
];

/// The goal for a service that has no need of a privilege, in `systemd-analyze security`'s points.
const MAX_SERVER_EXPOSURE: f32 = 2.0;

/// The agent is root on purpose and mounts what the engine has to see; more than this is a mistake.
const MAX_AGENT_EXPOSURE: f32 = 5.0;

/// Versions that packages of this build are given, to be upgraded from and to.
const OLD: &str = "0.0.1-1";
const NEW: &str = "99.0.0-1";

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        ("packages_are_installed_upgraded_and_removed", life),
        ("the_other_kind_of_packages_has_the_same_in_it", rpm),
        ("lintian_finds_no_error", lintian),
        ("the_units_are_sandboxed", sandbox),
    ]
}

fn life() -> Result<()> {
    let packages = vm::packages()?;
    let directory = TempDir::new()?;
    let root = vm::clean_root(directory.path())?;
    let old_text = "# A comment that the next version has not.\n";
    for name in ["agent", "server"] {
        let old = repacked(name, OLD, &root.join("tmp"), |tree| {
            if name == "agent" {
                append(&tree.join("etc/heliograph/agent.toml"), old_text)
            } else {
                Ok(())
            }
        })?;
        std::fs::rename(old, root.join(format!("tmp/{name}-old.deb")))?;
        std::fs::copy(packages.join(format!("{name}.deb")), root.join(format!("tmp/{name}.deb")))?;
    }
    inside(&root, "dpkg --install /tmp/agent-old.deb /tmp/server-old.deb")?;
    for file in FILES {
        ensure!(root.join(&file[1..]).symlink_metadata().is_ok(), "{file} is not there");
    }
    ensure!(inside(&root, "stat --format '%a %U' /var/lib/heliograph-agent")? == "700 root");
    inside(&root, "getent passwd heliograph")?;
    ensure!(inside(&root, "stat --format '%a %G' /etc/heliograph/secrets")? == "750 heliograph");
    inside(&root, "heliograph-server serve --config /etc/heliograph/relay.toml --check-config")?;

    // What an operator has changed outlives an upgrade, and so does the agent's state; what nobody has
    // changed becomes that of the new version.
    inside(
        &root,
        "echo 'log_level = \"warn\"' >>/etc/heliograph/relay.toml && touch /var/lib/heliograph-agent/done.json",
    )?;
    inside(&root, "systemctl disable heliograph-server")?;
    inside(&root, "dpkg --install /tmp/agent.deb /tmp/server.deb")?;
    let versions = inside(
        &root,
        "dpkg-query --show --showformat '${Version} ' heliograph-agent heliograph-server",
    )?;
    ensure!(!versions.contains(OLD) && versions.split(' ').count() == 2, "{versions}");
    inside(
        &root,
        "grep --quiet warn /etc/heliograph/relay.toml && test -e /var/lib/heliograph-agent/done.json",
    )?;
    let configuration = std::fs::read_to_string(root.join("etc/heliograph/agent.toml"))?;
    ensure!(!configuration.contains(old_text), "the configuration is that of the old version");
    inside(
        &root,
        "test ! -e /etc/systemd/system/multi-user.target.wants/heliograph-server.service",
    )?;

    openrc(&root)?;

    inside(&root, "dpkg --remove heliograph-agent heliograph-server")?;
    inside(
        &root,
        "test ! -e /usr/bin/heliograph-agent && test -e /etc/heliograph/agent.toml && test -e /var/lib/heliograph-agent",
    )?;
    inside(&root, "dpkg --purge heliograph-agent heliograph-server")?;
    let left = inside(&root, "find / -xdev -path /proc -prune -o -name '*heliograph*' -print")?;
    ensure!(left.is_empty(), "left behind: {left}");
    Ok(())
}

/// The scripts that images without systemd have, in a tree that has the programs: each starts, says so,
/// and stops. Debian's OpenRC goes with dpkg's start-stop-daemon, for which the agent's has a setting.
fn openrc(root: &Path) -> Result<()> {
    const SCENE: &str = r#"
        set -e
        mount -t tmpfs tmpfs /run
        for kind in daemons exclusive failed inactive options scheduled started starting stopping tmp wasinactive; do
            mkdir -p /run/openrc/$kind
        done
        touch /run/openrc/softlevel /run/openrc/deptree
        for name in heliograph-server heliograph-guard heliograph-agent heliograph-containers; do
            rc-service --nodeps $name start
            rc-service --nodeps $name status
        done
        rc-service --nodeps heliograph-server reload
        rc-service --nodeps heliograph-server status
        for name in heliograph-agent heliograph-server; do
            rc-service --nodeps $name stop
            ! rc-service --nodeps $name status
        done
        # It has no engine to ask, and says so.
        ! rc-service --nodeps heliograph-containers stop
    "#;
    let install = e2e::programs::source_tree().join("tests/vm/install");
    vm::run(Command::new(install).arg(root).arg("openrc"))?;
    for name in ["agent", "containers", "guard", "server"] {
        let from = e2e::programs::source_tree()
            .join(format!("images/packages/files/heliograph-{name}.openrc"));
        let to = root.join(format!("etc/init.d/heliograph-{name}"));
        std::fs::copy(from, &to)?;
        std::fs::set_permissions(&to, Permissions::from_mode(0o755))?;
    }
    let document = root.join("tmp/document");
    std::fs::write(document, "#docker\nimage: localhost/busybox\n")?;
    std::fs::create_dir_all(root.join("etc/conf.d"))?;
    let settings = "start_stop_daemon_args=\nexport HELIOGRAPH_AGENT_USER_DATA=/tmp/document HELIOGRAPH_AGENT_CONSOLE=/dev/null\n";
    std::fs::write(root.join("etc/conf.d/heliograph-agent"), settings)?;
    inside(root, SCENE)?;
    inside(root, "rm --recursive /etc/init.d/heliograph-* /etc/conf.d/heliograph-agent /var/log/heliograph-*").map(drop)
}

fn rpm() -> Result<()> {
    let packages = vm::packages()?;
    let directory = TempDir::new()?;
    let root = directory.path();
    let rpm = |arguments: &[&str], names: &[&str]| -> Result<String> {
        let mut command = Command::new("rpm");
        // What the packages need is there on their own distributions.
        command.args(["--force-debian", "--root"]).arg(root).args(arguments);
        vm::run(command.args(names.iter().map(|name| match name.ends_with(".rpm") {
            true => packages.join(name),
            false => name.into(),
        })))
    };
    let both = ["agent.rpm", "server.rpm"];
    rpm(&["--install", "--nodeps", "--noscripts"], &both)?;
    for file in FILES.iter().filter(|file| !file.contains(".wants/")) {
        let file = file.replace("/lib/systemd", "/usr/lib/systemd");
        ensure!(root.join(&file[1..]).exists(), "{file} is not there");
    }
    let configuration = root.join("etc/heliograph/agent.toml");
    std::fs::write(&configuration, "log = \"warn\"\n")?;
    rpm(&["--upgrade", "--nodeps", "--noscripts", "--force"], &both)?;
    ensure!(std::fs::read_to_string(&configuration)? == "log = \"warn\"\n", "the setting is lost");
    rpm(&["--erase", "--nodeps", "--noscripts"], &["heliograph-agent", "heliograph-server"])?;
    ensure!(!root.join("usr/bin/heliograph-agent").exists(), "the program is still there");
    Ok(())
}

fn lintian() -> Result<()> {
    let packages = vm::packages()?;
    let mut command = Command::new("lintian");
    command.args([
        "--fail-on",
        "error",
        "--no-tag-display-limit",
        "--allow-root",
        "--display-level",
        "error",
    ]);
    let said = vm::run(command.arg(packages.join("agent.deb")).arg(packages.join("server.deb")))?;
    ensure!(!said.contains("E: "), "{said}");
    Ok(())
}

fn sandbox() -> Result<()> {
    for (unit, limit) in [
        ("server", MAX_SERVER_EXPOSURE),
        ("agent", MAX_AGENT_EXPOSURE),
        ("containers", MAX_AGENT_EXPOSURE),
        ("guard", MAX_AGENT_EXPOSURE),
    ] {
        let unit = format!("heliograph-{unit}.service");
        let path = e2e::programs::source_tree().join("images/packages/files").join(&unit);
        let mut command = Command::new("systemd-analyze");
        let said = vm::run(command.args(["security", "--offline=true", "--no-pager"]).arg(path))?;
        let line = said.lines().find(|line| line.contains("Overall exposure level"));
        let line = line.with_context(|| format!("no level: {said}"))?;
        let level = line.split_once(": ").and_then(|(_, rest)| rest.split(' ').next());
        let level: f32 = level.context("no number")?.parse()?;
        eprintln!("  {unit}: exposure {level}");
        ensure!(level < limit, "{line}");
    }
    Ok(())
}

/// A volume labelled `packages`, for [`upgrade`].
pub(crate) fn volume(directory: &Path) -> Result<Volume> {
    let tree = directory.join("packages");
    std::fs::create_dir(&tree)?;
    for (name, version) in [("server", OLD), ("server", NEW), ("agent", NEW)] {
        repacked(name, version, &tree, |_| Ok(()))?;
    }
    let file = directory.join("packages.iso");
    let mut command = Command::new("genisoimage");
    command.args(["-quiet", "-J", "-r", "-V", "packages", "-o"]).arg(&file).arg(&tree);
    vm::run(&mut command)?;
    Ok(Volume { file, id: "packages".to_owned() })
}

/// An upgrade restarts the relay, and lets a running agent and its containers go on. The agent's removal
/// ends the agent, and lets the containers go on.
pub(crate) fn upgrade(machine: &mut Machine) -> Result<()> {
    const AGENT: &str = "systemctl show --property MainPID --property ActiveState heliograph-agent";
    const RELAY: &str =
        "systemctl show --property MainPID --property ActiveState heliograph-server";
    const CONTAINERS: &str =
        "docker inspect --format '{{.Id}} {{.State.StartedAt}}' $(docker ps --quiet)";
    machine.until("mount --read-only LABEL=packages /mnt")?;
    dpkg(machine, &format!("--install /mnt/server-{OLD}.deb"))?;
    let (agent, relay) = (machine.run(AGENT)?, machine.run(RELAY)?);
    let containers = machine.run(CONTAINERS)?;
    ensure!(relay.contains("ActiveState=active"), "{relay}");

    dpkg(machine, &format!("--install /mnt/agent-{NEW}.deb /mnt/server-{NEW}.deb"))?;
    let restarted = machine.run(RELAY)?;
    ensure!(restarted.contains("ActiveState=active") && restarted != relay, "{relay} {restarted}");
    let still = machine.run(AGENT)?;
    ensure!(still.contains("ActiveState=active") && still == agent, "{agent} {still}");
    ensure!(machine.run(CONTAINERS)? == containers, "other containers after the upgrade");

    dpkg(machine, "--remove heliograph-agent")?;
    ensure!(machine.run(AGENT)?.contains("MainPID=0"), "the agent runs after its removal");
    ensure!(machine.run(CONTAINERS)? == containers, "other containers after the removal");
    Ok(())
}

/// Runs it in the background, because it may take longer than an answer of the shell.
fn dpkg(machine: &mut Machine, arguments: &str) -> Result<()> {
    machine.run(&format!("rm -f /run/dpkg; (dpkg {arguments} >/run/dpkg.log 2>&1; echo $? >/run/dpkg) </dev/null >/dev/null 2>&1 &"))?;
    let code = machine.until("cat /run/dpkg | grep .")?;
    ensure!(code == "0", "dpkg {arguments}: {}", machine.run("cat /run/dpkg.log")?);
    Ok(())
}

/// A package of this build as one of another version, with other things changed in its tree. It is not
/// compressed, because a machine whose processor is emulated is to read it.
fn repacked(
    name: &str,
    version: &str,
    directory: &Path,
    change: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let tree = TempDir::new()?;
    let package = vm::packages()?.join(format!("{name}.deb"));
    vm::run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(tree.path()))?;
    let control = tree.path().join("DEBIAN/control");
    let text = std::fs::read_to_string(&control)?;
    let lines = text.lines().map(|line| match line.starts_with("Version: ") {
        true => format!("Version: {version}\n"),
        false => format!("{line}\n"),
    });
    std::fs::write(&control, lines.collect::<String>())?;
    change(tree.path())?;
    let out = directory.join(format!("{name}-{version}.deb"));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Znone", "--build"]).arg(tree.path()).arg(&out);
    vm::run(&mut command)?;
    Ok(out)
}

fn append(file: &Path, text: &str) -> Result<()> {
    let before = std::fs::read_to_string(file)?;
    Ok(std::fs::write(file, before + text)?)
}

/// Runs a command in the tree, with a network that leads nowhere, and gives what it printed.
fn inside(root: &Path, command: &str) -> Result<String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
    unshare.arg(format!("--mount-proc={}", root.join("proc").display()));
    let said = vm::run(unshare.arg("chroot").arg(root).args(["sh", "-c", command]))?;
    Ok(said.trim().to_owned())
}
