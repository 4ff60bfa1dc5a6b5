//! A network of this test's own: a bridge, and hosts behind it that can be cut off.
//!
//! The thread that makes it lives in it from then on, with every thread and process that it starts. Nothing
//! of it is seen from the host's own network.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// The network, until it is dropped.
#[derive(Debug)]
pub struct Lan {
    hosts: Vec<String>,
}

impl Lan {
    /// Moves this thread into a new network with `n_hosts` hosts.
    pub fn enter(n_hosts: usize) -> Result<Lan> {
        unshare(CloneFlags::CLONE_NEWNET).context("failed to make a network namespace")?;
        ip("link set lo up")?;
        ip("link add lan type bridge forward_delay 0")?;
        ip("address add 10.99.0.1/24 dev lan")?;
        ip("link set lan up")?;
        let mut lan = Lan { hosts: Vec::new() };
        for index in 0..n_hosts {
            let name = format!("hgl-{}-{index}", std::process::id());
            ip(&format!("netns add {name}"))?;
            lan.hosts.push(name.clone());
            ip(&format!("link add host{index} type veth peer name lan netns {name}"))?;
            ip(&format!("link set host{index} master lan up"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} address add {}/24 dev lan", lan.address(index)))?;
            ip(&format!("-n {name} link set lan up"))?;
        }
        Ok(lan)
    }

    /// The name of a host's namespace.
    pub fn name(&self, index: usize) -> &str {
        &self.hosts[index]
    }

    pub fn address(&self, index: usize) -> String {
        format!("10.99.0.{}", 10 + index)
    }

    /// From now on nothing gets to the host or away from it, and nobody is told.
    pub fn cut_off(&self, index: usize) -> Result<()> {
        ip(&format!("link set host{index} nomaster"))
    }

    /// The host is cut off from the other hosts, but not from this thread's side.
    pub fn cut_off_from_hosts(&self, index: usize) -> Result<()> {
        for (chain, side) in [("INPUT", "--source"), ("OUTPUT", "--destination")] {
            let rule = ["-A", chain, "!", side, "10.99.0.1", "-i", "lan", "-j", "DROP"];
            let rule = rule.map(|word| if word == "-i" && chain == "OUTPUT" { "-o" } else { word });
            self.iptables(index, &rule)?;
        }
        Ok(())
    }

    /// Undoes both.
    pub fn heal(&self, index: usize) -> Result<()> {
        ip(&format!("link set host{index} master lan"))?;
        self.iptables(index, &["-F"])
    }

    fn iptables(&self, index: usize, rule: &[&str]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(index), "iptables", "-w"]).args(rule);
        run(&mut command)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            if let Err(error) = ip(&format!("netns delete {host}")) {
                eprintln!("a network namespace was left behind: {error:#}");
            }
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").args(arguments.split(' ')))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("failed to run a command")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {errors}", output.status);
    Ok(())
}
