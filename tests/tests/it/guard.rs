//! Containers and the metadata service: most may not reach it, some may, the instance always does.
//!
//! The scene has two network namespaces of its own. One is the instance, with an engine in it; behind
//! a link of it, as behind a router, is the other, with a server at the metadata address.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::agent::{Instance, Ran};
use e2e::engine::{Engine, Kind};
use e2e::{image, wait};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::stage::Scene;

const METADATA: &str = "169.254.169.254:80";
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("guard::docker::containers_are_kept_from_the_metadata_service", |_| {
        // What a thread unshares is its own, and that of the programs that it starts.
        let scene = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            containers_are_kept_from_the_metadata_service()
        });
        scene.join().map_err(|_| anyhow!("the scene panicked"))?
    })]
}

fn containers_are_kept_from_the_metadata_service() -> Result<()> {
    let _service = MetadataService::start()?;
    let engine = Engine::start(Kind::Docker, &[])?;
    engine.import("busybox:latest", image::root_file_system(0)?)?;

    let unguarded = ask(&engine, "unguarded", "", "false")?;
    ensure!(unguarded.status.success(), "{}{}", unguarded.console, unguarded.last_words);
    ensure!(unguarded.console.contains("\nthe metadata\n"), "{}", unguarded.console);

    let guarded = ask(&engine, "guarded", "", "true")?;
    ensure!(!guarded.status.success(), "the container has got through: {}", guarded.console);
    ensure!(guarded.console.contains("onnection refused"), "{}", guarded.console);
    ensure!(get()?.contains("the metadata"), "the instance itself was to get through");

    let allowed = Instance::new("allowed", &engine.url(), &document("metadata_access: true\n"))?;
    let ran = allowed.run_with(&GUARDED)?;
    ensure!(ran.status.success(), "{}{}", ran.console, ran.last_words);
    ensure!(ran.console.contains("\nthe metadata\n"), "{}", ran.console);

    let terminated = allowed.ask(&["terminate"])?;
    ensure!(terminated.exit_code == Some(0), "{terminated:?}");
    let rules = succeed(Command::new("nft").args(["list", "tables"]))?;
    ensure!(!rules.contains("heliograph"), "the guard was left: {rules}");
    engine.stop()
}

const GUARDED: [&str; 4] = ["--metadata-guard", "true", "--metadata-address", "off"];

/// What a container gets when it asks for the metadata.
fn ask(engine: &Engine, id: &str, keys: &str, guard: &str) -> Result<Ran> {
    let instance = Instance::new(id, &engine.url(), &document(keys))?;
    instance.run_with(&["--metadata-guard", guard, "--metadata-address", "off"])
}

/// The container's way is opened just after its start, so it may have to ask twice. Busybox's wget
/// looks names up in libraries, which its image has not.
fn document(keys: &str) -> String {
    format!(
        "#docker\nimage: busybox\n{keys}signal: {{when: exit, timeout: 30s}}\n\
         cmd: for i in 1 2 3; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | \
         nc -w 5 169.254.169.254 80 && exit 0; sleep 1; done; exit 1\n"
    )
}

/// Asks from the instance.
fn get() -> Result<String> {
    let mut stream = TcpStream::connect(METADATA)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A server at the metadata address, in a network namespace behind a link of ours.
struct MetadataService {
    process: Child,
    _directory: TempDir,
}

impl MetadataService {
    fn start() -> Result<MetadataService> {
        let directory = TempDir::new()?;
        fs::write(directory.path().join("index.html"), "the metadata\n")?;
        let process = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "read go; exec busybox httpd -f -p 169.254.169.254:80 -h .",
            ])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .spawn()?;
        let mut service = MetadataService { process, _directory: directory };
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
}

impl Drop for MetadataService {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}: {words}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
