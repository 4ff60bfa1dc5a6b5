//! What else is in the agent's packages of both kinds: manual pages, completions, cloud-init's part handler.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::vm;

use crate::Scene;

/// The same in both kinds.
const EVERYWHERE: &[&str] = &[
    "/usr/share/bash-completion/completions/heliograph-agent",
    "/usr/share/fish/vendor_completions.d/heliograph-agent.fish",
    "/usr/share/heliograph-agent/heliograph_docker.py",
    "/usr/share/man/man1/heliograph-agent.1.gz",
    "/usr/share/man/man1/heliograph-agent-run.1.gz",
];

pub(crate) fn scenes() -> Vec<Scene> {
    vec![("the_agents_packages_have_pages_completions_and_the_part_handler", contents)]
}

fn contents() -> Result<()> {
    let packages = vm::packages()?;
    let deb = vm::run(Command::new("dpkg-deb").arg("--contents").arg(packages.join("agent.deb")))?;
    let mut query = Command::new("rpm");
    query.args(["--query", "--list", "--package"]);
    let rpm = vm::run(query.arg(packages.join("agent.rpm")))?;
    let zsh = ["vendor-completions", "site-functions"];
    for (list, zsh) in [deb, rpm].iter().zip(zsh) {
        let zsh = format!("/usr/share/zsh/{zsh}/_heliograph-agent");
        for file in EVERYWHERE.iter().copied().chain([zsh.as_str()]) {
            let is_there = list.lines().any(|line| line.ends_with(file));
            ensure!(is_there, "{file} is not there: {list}");
        }
    }
    Ok(())
}
