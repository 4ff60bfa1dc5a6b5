//! Neutron's metadata path: the real programs, stood up by the scripts in `tests/neutron`, with network
//! namespaces as instances whose only way out is 169.254.169.254.

mod relay;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use nix::sched::{CloneFlags, setns};
use sha2::Sha256;
use tempfile::TempDir;

pub use crate::neutron::relay::Gateway;
use crate::{programs, wait};

/// The address of Nova's metadata service, in every guest.
pub const METADATA: &str = "169.254.169.254:80";

/// The first and the last of the instances, by the last byte of their address.
pub const INSTANCES: std::ops::RangeInclusive<u8> = 5..=34;

/// Neutron's proxies give up after 32 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);

/// Which of Neutron's metadata agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian 12's.
    Debian,
    /// A later one, which reads a request with one `recv`, in a pool of threads.
    Ovs,
    /// The same for OVN, which answers one request after the other.
    Ovn,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Debian, Kind::Ovs, Kind::Ovn];

    fn name(self) -> &'static str {
        match self {
            Kind::Debian => "debian",
            Kind::Ovs => "ovs",
            Kind::Ovn => "ovn",
        }
    }
}

/// How a request is written to its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// In one write.
    Whole,
    /// Byte after byte.
    Bytes,
    /// Head, pause, body.
    HeadThenBody,
}

/// The stood-up path; torn down when dropped.
#[derive(Debug)]
pub struct Lab {
    directory: TempDir,
    facts: Vec<(String, String)>,
}

impl Lab {
    /// Stands the path up, with agents that ask a relay where [`Lab::gateway`] starts it; the first time,
    /// this builds a Debian tree beside the test programs.
    pub fn stand_up() -> Result<Lab> {
        let port = free_port()?.to_string();
        Lab::stand_up_with(&[&port])
    }

    /// Likewise, with agents that ask Nova itself, and Neutron's rate limit switched on.
    pub fn stand_up_without_relay() -> Result<Lab> {
        Lab::stand_up_with(&["nova", "--rate-limited"])
    }

    fn stand_up_with(arguments: &[&str]) -> Result<Lab> {
        let root = programs::target_directory()?.join("neutron");
        script("build", &[root.as_os_str()])?;
        let directory = TempDir::new()?;
        let mut all = vec![root.as_os_str(), directory.path().as_os_str()];
        all.extend(arguments.iter().map(std::ffi::OsStr::new));
        script("stand-up", &all)?;
        let facts = std::fs::read_to_string(directory.path().join("lab"))?;
        let fact = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Ok(Lab { facts: facts.lines().filter_map(fact).collect(), directory })
    }

    /// Its directory, which has the same name inside of the programs' tree.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// One of the facts that the script wrote down.
    pub fn fact(&self, name: &str) -> Result<&str> {
        let found = self.facts.iter().find(|(known, _)| known == name);
        Ok(&found.with_context(|| format!("the lab does not say {name}"))?.1)
    }

    /// The table of a relay's configuration that puts it where Neutron's agents expect Nova. The
    /// servers are asked in turns.
    pub fn metadata_table(&self, nova: &[&str]) -> Result<String> {
        let servers: Vec<String> = nova.iter().map(|server| format!("http://{server}")).collect();
        self.metadata_table_at(self.fact("gateway")?, &servers)
    }

    /// Likewise, for a relay elsewhere and whole URLs of servers. More keys may follow.
    pub fn metadata_table_at(&self, listen: &str, nova_urls: &[String]) -> Result<String> {
        let secret = self.directory.path().join("secret");
        std::fs::write(&secret, self.fact("secret")?)?;
        Ok(format!(
            "[metadata]\nlisten = \"{listen}\"\nnova_urls = {nova_urls:?}\nsecret_files = [{secret:?}]\n",
        ))
    }

    /// Runs a relay where Neutron's agents expect Nova.
    pub fn gateway(&self, nova: &[&str]) -> Result<Gateway> {
        Gateway::start(&self.metadata_table(nova)?, None)
    }

    /// The name of the guest namespace behind an agent.
    pub fn guest(&self, kind: Kind) -> Result<&str> {
        self.fact(&format!("guest_{}", kind.name()))
    }

    /// Takes an instance out of the guest into a namespace of its own, where a program that binds to no
    /// address has that one. Made once for each.
    pub fn own_namespace(&self, kind: Kind, last_byte: u8) -> Result<String> {
        let id = self.fact("id")?;
        let (name, kind) = (format!("hgi-{id}-{last_byte}"), kind.name());
        if !Path::new("/run/netns").join(&name).exists() {
            script("own-namespace", &[id.as_ref(), kind.as_ref(), last_byte.to_string().as_ref()])?;
        }
        Ok(name)
    }

    /// Asks from inside a guest, as the instance whose address ends in `last_byte`.
    pub fn ask(
        &self,
        kind: Kind,
        last_byte: u8,
        request: &str,
        pace: Pace,
    ) -> Result<(u16, String)> {
        self.ask_in(self.guest(kind)?, last_byte, request, pace)
    }

    /// Asks from inside a namespace that has the instance's address.
    pub fn ask_in(
        &self,
        namespace: &str,
        last_byte: u8,
        request: &str,
        pace: Pace,
    ) -> Result<(u16, String)> {
        std::thread::scope(|scope| {
            // Only the thread that asks enters the namespace.
            let asking = scope.spawn(|| -> Result<(u16, String)> {
                enter(namespace)?;
                let source = SocketAddr::from((Ipv4Addr::new(10, 77, 0, last_byte), 0));
                exchange(source, METADATA.parse()?, request, pace)
            });
            asking.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))?
        })
    }

    /// The headers that Neutron would add for an instance.
    pub fn signed_headers(&self, instance: &str) -> Result<String> {
        let signature = sign(self.fact("secret")?, instance)?;
        let project = self.fact("project")?;
        Ok(format!(
            "X-Instance-ID: {instance}\r\nX-Tenant-ID: {project}\r\n\
             X-Instance-ID-Signature: {signature}\r\nX-Forwarded-For: 10.77.0.5\r\n"
        ))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = script("tear-down", &[self.directory.path().as_os_str()]) {
            eprintln!("the lab was not torn down: {error:#}");
        }
    }
}

/// The UUID of the instance whose address ends in this byte.
pub fn instance_id(last_byte: u8) -> String {
    format!("7b1d3c0e-1111-4222-8333-4444555566{last_byte:02x}")
}

/// Neutron's and Nova's signature of an instance's id.
pub fn sign(secret: &str, instance: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(instance.as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()))
}

/// Sends a request over a connection of its own, and gives status and body.
pub fn exchange(
    source: SocketAddr,
    address: SocketAddr,
    request: &str,
    pace: Pace,
) -> Result<(u16, String)> {
    let answer = exchange_raw(source, address, request, pace)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no head")?;
    let status = head.split(' ').nth(1).context("the answer has no status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// Likewise, and gives the whole answer.
pub fn exchange_raw(
    source: SocketAddr,
    address: SocketAddr,
    request: &str,
    pace: Pace,
) -> Result<String> {
    let mut stream = connect(source, address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    match pace {
        Pace::Whole => stream.write_all(request.as_bytes())?,
        Pace::Bytes => {
            for byte in request.as_bytes() {
                stream.write_all(&[*byte])?;
            }
        }
        Pace::HeadThenBody => {
            let (head, body) = request.split_once("\r\n\r\n").context("the request has no head")?;
            stream.write_all(format!("{head}\r\n\r\n").as_bytes())?;
            wait::pause(Duration::from_millis(200));
            stream.write_all(body.as_bytes())?;
        }
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A connection from this very address, if it is not `0.0.0.0`.
fn connect(source: SocketAddr, address: SocketAddr) -> Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    let SocketAddr::V4(target) = address else { bail!("only IPv4 is used here") };
    let SocketAddr::V4(source) = source else { bail!("only IPv4 is used here") };
    let family = AddressFamily::Inet;
    let descriptor = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
    bind(number, &SockaddrIn::from(source))?;
    connect(number, &SockaddrIn::from(target))
        .with_context(|| format!("failed to connect to {address}"))?;
    Ok(TcpStream::from(descriptor))
}

/// Moves this thread, and no other, into a network namespace.
pub fn enter(namespace: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{namespace}"))
        .with_context(|| format!("there is no network namespace {namespace}"))?;
    setns(file, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

fn script(name: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let path: PathBuf = programs::source_tree().join("tests/neutron").join(name);
    let output = Command::new(&path)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to run {}", path.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} ended with {}: {said}", path.display(), output.status);
    Ok(())
}

/// A port that nobody uses now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
