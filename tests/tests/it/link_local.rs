//! A cloud's metadata service, as an instance sees it: at its own address, asked without any proxy.
//!
//! A scene has two network namespaces of its own. One is the instance, with an engine in it; behind a link
//! of it, as behind a router, is the other, with a server at the metadata address.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::engine::{Engine, Kind};
use e2e::process::Process;
use e2e::{image, programs, wait};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::stage::Scene;

const METADATA: &str = "169.254.169.254:80";

/// The same server at an address that is not link-local.
const ROUTED: &str = "10.214.0.2";

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("link_local::docker::no_proxy_is_asked", |_| {
        in_a_network_of_its_own(no_proxy_is_asked)
    })]
}

/// What a thread unshares is its own, and that of the programs that it starts.
pub(crate) fn in_a_network_of_its_own(
    play: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let scene = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        play()
    });
    scene.join().map_err(|_| anyhow!("the scene panicked"))?
}

/// User data and an archive come from the metadata address itself, although the environment names a proxy;
/// an archive from elsewhere is asked of the proxy.
fn no_proxy_is_asked() -> Result<()> {
    let service = MetadataService::start()?;
    let proxy = TcpListener::bind("127.0.0.1:0")?;
    proxy.set_nonblocking(true)?;
    let engine = Engine::start(Kind::Docker, &[])?;
    engine.import("made:1", image::root_file_system(0)?)?;
    service.put("image.tar", engine.save("made:1")?)?;
    service.put("openstack/latest/meta_data.json", r#"{"uuid": "without-a-proxy"}"#)?;

    let document = |host: &str, timeout: &str| {
        format!(
            "#docker\nimage: loaded:{timeout}\nimage_archive: http://{host}/image.tar\n\
             cmd: echo it is here\nsignal: {{when: exit, stable_for: 1s, timeout: {timeout}}}\n"
        )
    };
    service.put("openstack/latest/user_data", document("169.254.169.254", "30s"))?;
    let console = boot(&engine, &proxy)?;
    // Docker gives a loaded archive the name that it had, and the agent the document's.
    ensure!(console.contains("\nit is here\n"), "{console}");
    let asked = proxy.accept().err().map(|error| error.kind());
    ensure!(asked == Some(ErrorKind::WouldBlock), "the proxy was asked: {console}");

    service.put("openstack/latest/user_data", document(ROUTED, "3s"))?;
    let console = boot(&engine, &proxy)?;
    ensure!(!console.contains("it is here"), "{console}");
    ensure!(proxy.accept().is_ok(), "the proxy was not asked: {console}");
    engine.stop()
}

/// Runs an agent on what the metadata service says, and gives its console.
fn boot(engine: &Engine, proxy: &TcpListener) -> Result<String> {
    let directory = TempDir::new()?;
    let proxy = format!("http://{}", proxy.local_addr()?);
    let console = directory.path().join("console");
    let mut command = Command::new(programs::heliograph_agent()?);
    for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        command.env(variable, &proxy);
    }
    command.args(["run", "--engine", &engine.url(), "--metadata-address", "off"]);
    command.arg("--state-dir").arg(directory.path().join("state"));
    command.arg("--console").arg(&console);
    let mut process = Process::spawn("agent", &mut command, directory.path())?;
    process.ended(LIMIT)?;
    let console = fs::read_to_string(console).with_context(|| process.last_words())?;
    Ok(format!("\n{console}{}", process.last_words()))
}

/// A server at the metadata address, in a network namespace behind a link of this thread's.
pub(crate) struct MetadataService {
    process: Child,
    directory: TempDir,
}

impl MetadataService {
    pub(crate) fn start() -> Result<MetadataService> {
        let directory = TempDir::new()?;
        fs::write(directory.path().join("index.html"), "the metadata\n")?;
        let process = Command::new("unshare")
            .args(["--net", "sh", "-c", "read go; exec busybox httpd -f -p 80 -h ."])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .spawn()?;
        let mut service = MetadataService { process, directory };
        let id = service.process.id().to_string();
        // It is elsewhere when unshare has done its work.
        let own = fs::read_link("/proc/thread-self/ns/net")?;
        wait::until("another network namespace", LIMIT, || {
            let theirs = fs::read_link(format!("/proc/{id}/ns/net"))?;
            let comm = fs::read_to_string(format!("/proc/{id}/comm"))?;
            Ok((theirs != own && comm.trim() == "sh").then_some(()))
        })?;
        let here = "ip link set lo up
            ip link add uplink type veth peer name downlink netns $1
            ip address add 10.214.0.1/30 dev uplink
            ip link set uplink up
            ip route add 169.254.169.254 via 10.214.0.2
            echo 1 > /proc/sys/net/ipv4/ip_forward";
        let there = "ip link set lo up
            ip address add 169.254.169.254/32 dev lo
            ip address add 10.214.0.2/30 dev downlink
            ip link set downlink up
            ip route add default via 10.214.0.1";
        succeed(Command::new("sh").args(["-ec", here, "sh", &id]))?;
        succeed(Command::new("nsenter").args(["--net", "--target", &id, "sh", "-ec", there]))?;
        service.process.stdin.take().context("no stdin")?.write_all(b"go\n")?;
        wait::until("the metadata service", LIMIT, || Ok(get().ok().map(drop)))?;
        Ok(service)
    }

    /// From now on it serves this, too.
    fn put(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        Ok(fs::write(path, content)?)
    }
}

impl Drop for MetadataService {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// What the instance itself gets when it asks for the metadata.
pub(crate) fn get() -> Result<String> {
    let mut stream = TcpStream::connect(METADATA)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}: {words}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
