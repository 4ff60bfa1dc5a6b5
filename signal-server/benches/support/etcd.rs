//! One member of etcd on loopback, with room for many handles.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heliograph_server::store::Store;
use heliograph_server::store::etcd::{EtcdSettings, EtcdStore};
use tokio::time::Instant;

use crate::relay::{Failure, anonymous_bytes_of};

/// What a million handles and the revisions of filling them in fit into; the default is 2 GiB.
const QUOTA_BYTES: u64 = 8 << 30;

/// What the keys of a relay begin with unless it is told otherwise.
const PREFIX: &str = "heliograph/";

/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A member; killed at the end.
pub(crate) struct Member {
    child: Child,
    pub(crate) endpoint: String,
}

impl Member {
    pub(crate) async fn start(directory: &Path) -> Result<Member, Failure> {
        let address = || -> Result<String, Failure> {
            Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
        };
        let (endpoint, peer) = (address()?, format!("http://{}", address()?));
        let client = format!("http://{endpoint}");
        let child = Command::new("etcd")
            .args(["--name", "only", "--log-level", "error", "--data-dir"])
            .arg(directory)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("only={peer}")])
            .args(["--quota-backend-bytes", &QUOTA_BYTES.to_string()])
            .args(["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1m"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let member = Member { child, endpoint };
        let store = member.store()?;
        let end = Instant::now() + START_LIMIT;
        while let Err(error) = store.ready().await {
            if Instant::now() > end {
                return Err(error.into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(member)
    }

    pub(crate) fn store(&self) -> Result<EtcdStore, Failure> {
        let (endpoints, prefix) = (vec![self.endpoint.clone()], PREFIX.to_owned());
        Ok(EtcdStore::new(&EtcdSettings { endpoints, prefix, ..EtcdSettings::default() })?)
    }

    pub(crate) fn anonymous_bytes(&self) -> Result<u64, Failure> {
        anonymous_bytes_of(self.child.id())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
