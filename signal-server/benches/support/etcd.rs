//! An etcd on loopback, of one member or of several.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heliograph_server::store::Store;
use heliograph_server::store::etcd::{EtcdSettings, EtcdStore};
use tokio::time::Instant;

use crate::relay::{Failure, anonymous_bytes_of};

/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The members; killed at the end.
pub(crate) struct Cluster {
    members: Vec<Child>,
    /// Where each takes clients.
    pub(crate) endpoints: Vec<String>,
}

impl Cluster {
    /// Starts the members, with further arguments for each, and waits until all of them answer.
    pub(crate) async fn start(
        directory: &Path,
        n_members: usize,
        arguments: &[&str],
    ) -> Result<Cluster, Failure> {
        let address = |_| -> Result<String, Failure> {
            Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
        };
        let clients: Vec<String> = (0..n_members).map(address).collect::<Result<_, _>>()?;
        let peers: Vec<String> = (0..n_members).map(address).collect::<Result<_, _>>()?;
        let named =
            peers.iter().enumerate().map(|(number, peer)| format!("{number}=http://{peer}"));
        let names = named.collect::<Vec<_>>().join(",");
        let mut cluster = Cluster { members: Vec::new(), endpoints: clients };
        for (number, peer) in peers.iter().enumerate() {
            let (client, peer) = (&cluster.endpoints[number], format!("http://{peer}"));
            let child = Command::new("etcd")
                .args(["--name", &number.to_string(), "--log-level", "error", "--data-dir"])
                .arg(directory.join(format!("etcd-{number}")))
                .args(["--listen-client-urls", &format!("http://{client}")])
                .args(["--advertise-client-urls", &format!("http://{client}")])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &names])
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            cluster.members.push(child);
        }
        for number in 0..n_members {
            let store = cluster.store(number, "")?;
            let end = Instant::now() + START_LIMIT;
            while let Err(error) = store.ready().await {
                if Instant::now() > end {
                    return Err(error.into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(cluster)
    }

    /// A store at one member, below a prefix.
    pub(crate) fn store(&self, member: usize, prefix: &str) -> Result<EtcdStore, Failure> {
        let (endpoints, prefix) = (vec![self.endpoints[member].clone()], prefix.to_owned());
        Ok(EtcdStore::new(&EtcdSettings { endpoints, prefix, ..EtcdSettings::default() })?)
    }

    /// What `--store` of a relay is for the store at one member.
    pub(crate) fn url(&self, member: usize) -> String {
        format!("etcd://{}", self.endpoints[member])
    }

    /// The memory that is the members' own, in bytes.
    pub(crate) fn anonymous_bytes(&self) -> Result<u64, Failure> {
        self.members.iter().map(|member| anonymous_bytes_of(member.id())).sum()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _already_gone = member.kill();
            let _reaped = member.wait();
        }
    }
}
