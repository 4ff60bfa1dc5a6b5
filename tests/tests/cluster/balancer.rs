//! haproxy in front of relays, as `docs/scale.md` has it.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::neutron::free_port;
use e2e::process::Process;
use e2e::wait;
use tempfile::TempDir;

/// How long it may take to see that a relay is there again.
const LIMIT: Duration = Duration::from_secs(30);

/// Requests go to one relay after the other; one that a relay did not take, to the one after it. Long-polls
/// last up to a minute.
const DEFAULTS: &str = "defaults
    mode http
    timeout connect 1s
    timeout client 90s
    timeout server 90s
    retries 3
    option redispatch 1
    retry-on all-retryable-errors
";

/// A relay, as a load balancer sees it.
pub(crate) struct Backend {
    /// `host:port` where it serves.
    pub(crate) address: String,
    /// The port where it says that it lives; without one it is asked for a connection only.
    pub(crate) admin_port: Option<u16>,
}

/// A running haproxy.
pub(crate) struct Balancer {
    process: Process,
    /// `host:port`
    pub(crate) address: String,
    statistics: String,
    _directory: TempDir,
}

impl Balancer {
    pub(crate) fn start(relays: &[Backend]) -> Result<Balancer> {
        let directory = TempDir::new()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let statistics = format!("127.0.0.1:{}", free_port()?);
        let path = directory.path().join("haproxy.cfg");
        fs::write(&path, configuration(&address, &statistics, relays)?)?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&path);
        let process = Process::spawn("haproxy", &mut command, directory.path())?;
        Ok(Balancer { process, address, statistics, _directory: directory })
    }

    /// Waits until it has seen that all relays live.
    pub(crate) fn sees_all(&self) -> Result<()> {
        wait::until("the load balancer to see all relays", LIMIT, || {
            let url = format!("http://{}/;csv", self.statistics);
            let Ok(answer) = reqwest::blocking::get(url) else { return Ok(None) };
            let page = answer.text()?;
            let mut servers = page.lines().filter(|line| line.starts_with("relays,relay"));
            ensure!(servers.clone().next().is_some(), "no relay in the statistics: {page}");
            Ok(servers.all(|line| line.contains(",UP,")).then_some(()))
        })
    }

    pub(crate) fn last_words(&self) -> String {
        self.process.last_words()
    }
}

fn configuration(address: &str, statistics: &str, relays: &[Backend]) -> Result<String> {
    let mut text = format!(
        "{DEFAULTS}listen statistics\n    bind {statistics}\n    stats enable\n    stats uri /\n\
         listen relays\n    bind {address}\n    balance roundrobin\n"
    );
    if relays.iter().all(|relay| relay.admin_port.is_some()) {
        writeln!(text, "    option httpchk GET /healthz")?;
    }
    for (index, relay) in relays.iter().enumerate() {
        write!(text, "    server relay{index} {} check inter 500ms rise 1", relay.address)?;
        match relay.admin_port {
            Some(port) => writeln!(text, " port {port} fall 2 on-marked-down shutdown-sessions")?,
            None => writeln!(text, " fall 1")?,
        }
    }
    Ok(text)
}
