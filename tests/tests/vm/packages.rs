//! The packages: installed, upgraded, removed and purged in a clean Debian; likewise the other kind in a
//! tree of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::vm;
use tempfile::TempDir;

use crate::Scene;

/// What is where after an installation, beside documentation.
const FILES: &[&str] = &[
    "/usr/bin/heliograph-agent",
    "/usr/bin/heliograph-server",
    "/etc/heliograph/agent.toml",
    "/etc/heliograph/relay.toml",
    "/lib/systemd/system/heliograph-agent.service",
    "/lib/systemd/system/heliograph-server.service",
    "/etc/systemd/system/multi-user.target.wants/heliograph-agent.service",
    "/etc/systemd/system/multi-user.target.wants/heliograph-server.service",
];

/// The goal for a service that has no need of a privilege, in `systemd-analyze security`'s points.
const MAX_SERVER_EXPOSURE: f32 = 2.0;

/// The agent is root on purpose and mounts what the engine has to see; more than this is a mistake.
const MAX_AGENT_EXPOSURE: f32 = 5.0;

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
    for name in ["agent.deb", "server.deb"] {
        std::fs::copy(packages.join(name), root.join("tmp").join(name))?;
    }
    let install = "dpkg --install /tmp/agent.deb /tmp/server.deb";
    inside(&root, install)?;
    for file in FILES {
        ensure!(root.join(&file[1..]).symlink_metadata().is_ok(), "{file} is not there");
    }
    ensure!(inside(&root, "stat --format '%a %U' /var/lib/heliograph-agent")? == "700 root");
    inside(&root, "getent passwd heliograph")?;
    ensure!(inside(&root, "stat --format '%a %G' /etc/heliograph/secrets")? == "750 heliograph");
    inside(&root, "heliograph-server serve --config /etc/heliograph/relay.toml --check-config")?;

    // What an operator has changed outlives an upgrade.
    inside(
        &root,
        "echo 'log = \"warn\"' >>/etc/heliograph/agent.toml && touch /var/lib/heliograph-agent/done.json",
    )?;
    inside(&root, install)?;
    inside(
        &root,
        "grep --quiet warn /etc/heliograph/agent.toml && test -e /var/lib/heliograph-agent/done.json",
    )?;

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
    for (unit, limit) in [("server", MAX_SERVER_EXPOSURE), ("agent", MAX_AGENT_EXPOSURE)] {
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

/// Runs a command in the tree and gives what it printed.
fn inside(root: &Path, command: &str) -> Result<String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--kill-child"]);
    unshare.arg(format!("--mount-proc={}", root.join("proc").display()));
    let said = vm::run(unshare.arg("chroot").arg(root).args(["sh", "-c", command]))?;
    Ok(said.trim().to_owned())
}
