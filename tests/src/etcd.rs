//! An etcd cluster of Debian's `etcd-server`: members that can be killed, stopped and started again, each
//! where a test wants it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::neutron::free_port;
use crate::process::Process;
use crate::wait;

/// A cluster elects its first leader within some seconds, also on busy cores.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Where a member runs.
#[derive(Clone, Debug)]
pub enum Place {
    /// On this host's loopback address.
    Loopback,
    /// In a network namespace, at an address of its own.
    Namespace { name: String, address: String },
}

/// Certificates for the members' clients; see [`Certificates::make`].
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
}

#[derive(Debug)]
struct Member {
    place: Place,
    client_port: u16,
    peer_port: u16,
    process: Option<Process>,
}

/// A running cluster. Its members end with it.
#[derive(Debug)]
pub struct Etcd {
    directory: TempDir,
    members: Vec<Member>,
    certificates: Option<Certificates>,
}

impl Etcd {
    /// Starts members at these places.
    pub fn start(places: &[Place]) -> Result<Etcd> {
        Etcd::start_with(places, None)
    }

    /// Likewise; with certificates, members speak TLS and want one of their clients.
    pub fn start_with(places: &[Place], certificates: Option<Certificates>) -> Result<Etcd> {
        let mut members = Vec::new();
        for place in places {
            let (client_port, peer_port) = match place {
                Place::Loopback => (free_port()?, free_port()?),
                Place::Namespace { .. } => (2379, 2380),
            };
            members.push(Member { place: place.clone(), client_port, peer_port, process: None });
        }
        let directory = TempDir::with_prefix("heliograph-etcd-")?;
        let mut etcd = Etcd { directory, members, certificates };
        for index in 0..etcd.members.len() {
            etcd.start_member(index)?;
        }
        etcd.wait_until_it_answers()?;
        Ok(etcd)
    }

    /// `host:port` of each member, for clients.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// What `--store` takes.
    pub fn url(&self) -> String {
        format!("etcd://{}", self.endpoints().join(","))
    }

    /// Starts a member, for the first time or again. Does not wait until it answers.
    pub fn start_member(&mut self, index: usize) -> Result<()> {
        let cluster: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| format!("member{index}={}", member.peer_url()))
            .collect();
        let data = self.directory.path().join(format!("member{index}"));
        let member = &self.members[index];
        let mut command = member.command();
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        let client_url = format!("{scheme}://{}", member.endpoint());
        command
            .args(["--name", &format!("member{index}"), "--log-level", "warn", "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &member.peer_url()])
            .args(["--initial-advertise-peer-urls", &member.peer_url()])
            .args(["--initial-cluster", &cluster.join(",")])
            // The default of later ones: a member that comes back does not hold up elections.
            .arg("--pre-vote");
        if let Some(certificates) = &self.certificates {
            command
                .args(["--client-cert-auth", "--trusted-ca-file"])
                .arg(certificates.path("ca.pem"))
                .arg("--cert-file")
                .arg(certificates.path("server.pem"))
                .arg("--key-file")
                .arg(certificates.path("server.key"));
        }
        let name = format!("etcd{index}");
        let process = Process::spawn(&name, &mut command, self.directory.path())?;
        self.members[index].process = Some(process);
        Ok(())
    }

    /// Ends a member without a warning.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        let mut process = self.members[index].process.take().context("the member does not run")?;
        process.kill()?;
        Ok(())
    }

    /// Ends a member as an operator does.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        let mut process = self.members[index].process.take().context("the member does not run")?;
        process.signal(Signal::SIGTERM)?;
        process.ended(START_LIMIT)?;
        Ok(())
    }

    /// Waits until a member that was started has found the others.
    pub fn has_joined(&self, index: usize) -> Result<()> {
        wait::until("a member of etcd to have a leader", START_LIMIT, || {
            let status = self.members[index].status();
            Ok(status.ok().filter(|(_, leader)| leader != "0").map(|_| ()))
        })
    }

    /// Sends a member `SIGSTOP` or `SIGCONT`.
    pub fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        let process = self.members[index].process.as_ref().context("the member does not run")?;
        process.signal(signal)
    }

    /// Which member leads the others.
    pub fn leader(&self) -> Result<usize> {
        wait::until("a leader of etcd", START_LIMIT, || {
            for (index, member) in self.members.iter().enumerate() {
                let Ok((id, leader)) = member.status() else { continue };
                if id == leader {
                    return Ok(Some(index));
                }
            }
            Ok(None)
        })
    }

    /// Takes a snapshot of what the members hold.
    pub fn back_up(&self) -> Result<PathBuf> {
        let snapshot = self.directory.path().join("snapshot");
        self.control(&["snapshot", "save", &snapshot.to_string_lossy()])?;
        Ok(snapshot)
    }

    /// Gives an only member, which does not run, what a snapshot holds.
    pub fn restore(&self, snapshot: &Path) -> Result<()> {
        let [member] = self.members.as_slice() else { bail!("there are several members") };
        let data = self.directory.path().join("member0");
        fs::remove_dir_all(&data)?;
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot);
        command.args(["--name", "member0", "--data-dir"]).arg(data);
        command.args(["--initial-cluster", &format!("member0={}", member.peer_url())]);
        command.args(["--initial-advertise-peer-urls", &member.peer_url()]);
        let output = command.output().context("failed to run etcdctl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the snapshot was not restored: {errors}");
        Ok(())
    }

    /// Runs `etcdctl`, as whoever the arguments say.
    pub fn control(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.args(["--endpoints", &self.endpoints().join(",")]);
        if let Some(certificates) = &self.certificates {
            command.arg("--cacert").arg(certificates.path("ca.pem"));
            command.arg("--cert").arg(certificates.path("client.pem"));
            command.arg("--key").arg(certificates.path("client.key"));
        }
        let output = command.args(arguments).output().context("failed to run etcdctl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "etcdctl {arguments:?} ended badly: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// The end of each member's log, for the message of a failing scene.
    pub fn last_words(&self) -> String {
        let processes = self.members.iter().filter_map(|member| member.process.as_ref());
        processes.map(Process::last_words).collect()
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        wait::until("etcd's first answer", START_LIMIT, || {
            for member in &mut self.members {
                let process = member.process.as_mut().context("the member does not run")?;
                if let Some(status) = process.has_ended()? {
                    bail!("a member of etcd ended with {status}:{}", process.last_words());
                }
            }
            // Needs a leader, and so most members.
            Ok(self.control(&["get", "nothing"]).ok())
        })?;
        Ok(())
    }
}

impl Member {
    fn command(&self) -> Command {
        match &self.place {
            Place::Loopback => Command::new("etcd"),
            Place::Namespace { name, .. } => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name, "etcd"]);
                command
            }
        }
    }

    fn address(&self) -> &str {
        match &self.place {
            Place::Loopback => "127.0.0.1",
            Place::Namespace { address, .. } => address,
        }
    }

    fn endpoint(&self) -> String {
        format!("{}:{}", self.address(), self.client_port)
    }

    fn peer_url(&self) -> String {
        format!("http://{}:{}", self.address(), self.peer_port)
    }

    /// Its own id, and that of the leader.
    fn status(&self) -> Result<(String, String)> {
        let client =
            reqwest::blocking::Client::builder().timeout(Duration::from_secs(1)).build()?;
        let url = format!("http://{}/v3/maintenance/status", self.endpoint());
        let answer: Value = client.post(url).body("{}").send()?.json()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((text(&answer["header"]["member_id"]), text(&answer["leader"])))
    }
}

impl Certificates {
    /// A root, and what it signed: `server.pem` for 127.0.0.1, and `client.pem`.
    pub fn make() -> Result<Certificates> {
        let directory = TempDir::with_prefix("heliograph-certificates-")?;
        let root = directory.path();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let openssl = |arguments: &[&str]| -> Result<()> {
            let mut command = Command::new("openssl");
            let output = command.current_dir(root).args(arguments).output();
            let output = output.context("failed to run openssl")?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "openssl {arguments:?} ended badly: {errors}");
            Ok(())
        };
        let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=root", "-keyout", "ca.key"];
        openssl(&[&ca[..], &["-out", "ca.pem"], &key].concat())?;
        fs::write(root.join("extensions"), "subjectAltName=IP:127.0.0.1\n")?;
        for name in ["server", "client"] {
            let (request, secret) = (format!("{name}.csr"), format!("{name}.key"));
            let subject = format!("/CN={name}");
            let ask = ["req", "-subj", &subject, "-keyout", &secret, "-out", &request];
            openssl(&[&ask[..], &key].concat())?;
            let certificate = format!("{name}.pem");
            let sign = ["x509", "-req", "-days", "2", "-in", &request, "-out", &certificate];
            let root = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
            openssl(&[&sign[..], &root, &["-extfile", "extensions"]].concat())?;
        }
        Ok(Certificates { directory })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(name)
    }
}
