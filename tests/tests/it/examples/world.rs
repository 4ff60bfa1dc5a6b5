//! What the examples speak of: hosts with their names, files, devices, and what somebody else made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::agent::{Instance, Ran};
use e2e::certificates::Authority;
use e2e::engine::Engine;
use e2e::process::Process;
use e2e::registry::{PASSWORD, USER};
use e2e::relay::{Handle, Relay};
use e2e::wait;
use serde_json::json;
use tempfile::TempDir;

use crate::devices::agent_beside;
use crate::stage::{Stage, data_directory, free_address};

const START_LIMIT: Duration = Duration::from_secs(30);
/// The examples of a signal come after many others.
const HANDLE_LIMIT: Duration = Duration::from_secs(3600);
const SIGNAL_LIMIT: Duration = Duration::from_secs(10);

/// Where a host of the examples listens: on an address of the loopback of its own, so that its port
/// can be the one that the example has.
const HOSTS: [(&str, u16); 5] = [
    ("relay.example", 443),
    ("heat.example", 8000),
    ("files.example", 443),
    ("registry.example", 5000),
    ("mirror.example", 5000),
];

/// The one that is asked in plain text.
const PROXY: (&str, u16) = ("proxy.example", 3128);

/// An example's certificate, which is none.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----";

/// Labels of file systems that the examples name. A device of the machine that has one already would
/// be taken for it, and written to.
const LABELS: [&str; 2] = ["images", "shop"];

/// Everything that the examples name.
pub(crate) struct World<'a> {
    engine: &'a Engine,
    relay: Relay,
    handles: [Handle; 2],
    authority: Authority,
    devices: Vec<Device>,
    sha256: String,
    agent: PathBuf,
    proxy: Process,
    _front: Process,
    _files: Process,
    _directory: TempDir,
}

/// A file as a block device, until it is dropped.
struct Device {
    path: String,
}

impl Drop for Device {
    fn drop(&mut self) {
        let _best_effort = run(&format!("losetup --detach {}", self.path));
    }
}

impl World<'_> {
    pub(crate) fn make<'a>(stage: &Stage, engine: &'a Engine) -> Result<World<'a>> {
        let registries = stage.filled_registries()?;
        let directory = TempDir::new()?;
        let path = directory.path();
        let relay = Relay::start(&data_directory(path))?;
        let handle = || relay.create_handle(1, HANDLE_LIMIT);
        let handles = [handle()?, handle()?];

        let authority = Authority::make(&path.join("certificates"))?;
        let names: Vec<String> = HOSTS.iter().map(|(name, _)| format!("DNS:{name}")).collect();
        authority.sign_for("hosts", &names.join(","))?;

        fs::create_dir(path.join("served"))?;
        fs::write(path.join("served/busybox.tar"), engine.save("busybox:latest")?)?;
        let sha256 = run(&format!("sha256sum {}/served/busybox.tar", path.display()))?;
        let sha256 = sha256.split(' ').next().unwrap_or_default().to_owned();
        let files = free_address()?;
        let mut command = Command::new("busybox");
        command.args(["httpd", "-f", "-p", &files, "-h"]).arg(path.join("served"));
        let files_server = Process::spawn("httpd", &mut command, path)?;

        let protected = registries.protected_address().to_owned();
        let open = registries.hello_image().replace("/hello:1", "");
        let behind = [relay.address(), relay.address(), &files, &protected, &open];
        let (front, addresses) = front(&authority, path, behind)?;

        let process_id = engine.process_id()?;
        hosts(path, process_id, &addresses)?;
        let proxy = proxy(path, process_id, &addresses[HOSTS.len()])?;
        let devices = devices(path)?;
        let agent = agent_beside(engine, path)?;
        engine.post("/networks/create", &json!({"Name": "bridge-of-somebody"}))?;
        engine.post("/volumes/create", &json!({"Name": "data"}))?;
        Ok(World {
            engine,
            relay,
            handles,
            authority,
            devices,
            sha256,
            agent,
            proxy,
            _front: front,
            _files: files_server,
            _directory: directory,
        })
    }

    /// The example with that in it which it only stands for.
    pub(crate) fn with_what_it_stands_for(&self, example: &str) -> String {
        let certificate = fs::read_to_string(self.authority.path("ca.pem")).unwrap_or_default();
        let mut text = example.to_owned();
        for line in example.lines().filter(|line| line.trim() == "-----BEGIN CERTIFICATE-----") {
            let indent = &line[..line.len() - line.trim_start().len()];
            let with_indent = |pem: &str| {
                pem.trim()
                    .lines()
                    .map(|line| format!("{indent}{line}"))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            text = text.replace(&with_indent(CERTIFICATE), &with_indent(&certificate));
        }
        let path = |handle: &Handle| handle.signal_url.replacen(&self.relay.public, "", 1);
        let stands_for = [
            (
                "/v1/AUTH_demo/handles/web?temp_url_sig=0000&temp_url_expires=1900000000",
                path(&self.handles[0]),
            ),
            ("/v1/signal/arn", path(&self.handles[1])),
            (&"0".repeat(64), self.sha256.clone()),
            ("username: web\n", format!("username: {USER}\n")),
            ("password: not really\n", format!("password: {PASSWORD}\n")),
            (
                "username: USER, password: PASSWORD",
                format!("username: {USER}, password: {PASSWORD}"),
            ),
            ("/dev/vda", self.devices[0].path.clone()),
        ];
        for (written, meant) in stands_for {
            text = text.replace(written, &meant);
        }
        text
    }

    /// Runs a document on the engine, and judges what came of it.
    pub(crate) fn run(
        &self,
        document: &str,
        judge: impl FnOnce(&Engine, &Ran) -> Result<()>,
    ) -> Result<()> {
        let turn = self.engine.turn()?;
        if document.contains("external_links") {
            turn.engine.run_foreign("other", "busybox")?;
        }
        let document = format!("#docker\n{document}\n");
        let instance = Instance::new("example", &turn.engine.url(), &document)?;
        let instance = instance.with_program(&self.agent);
        let authority = self.authority.path("ca.pem").display().to_string();
        // Whoever says it in the document needs nothing else.
        let ran = match document.contains("-----BEGIN CERTIFICATE-----") {
            true => instance.run()?,
            false => instance.run_with(&["--ca-file", &authority])?,
        };
        judge(turn.engine, &ran).with_context(|| document.clone())?;
        // What was mounted goes before what it is on.
        if document.contains("device: \"") {
            let asked = instance.ask(&["terminate"])?;
            ensure!(asked.exit_code == Some(0), "{asked:?}");
        }
        Ok(())
    }

    /// The examples that have a handle have signalled it, under the id that one of them has.
    pub(crate) fn has_been_told(&self) -> Result<()> {
        for (handle, id) in self.handles.iter().zip(["web-1", "example/main/"]) {
            let waited = self.relay.wait(handle, SIGNAL_LIMIT)?;
            ensure!(waited.exit_code == Some(0), "{waited:?}");
            let told = waited.view["signals"][0]["id"].as_str().context("no id")?;
            ensure!(told.starts_with(id), "{waited:?}");
        }
        Ok(())
    }

    /// An example with a proxy went by it.
    pub(crate) fn has_been_passed(&self) -> Result<()> {
        let log = self.proxy.output()?;
        ensure!(log.contains("CONNECT registry.example:5000"), "the proxy was not asked: {log}");
        Ok(())
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if let Ok(id) = self.engine.process_id() {
            let unmount = format!("nsenter --mount --target {id} umount --lazy /etc/hosts /srv");
            let _best_effort = run(&unmount);
        }
        let _best_effort = self.engine.delete("/networks/bridge-of-somebody");
    }
}

/// One haproxy in front of all of them, and their addresses, with one more for the proxy. What is
/// behind stands in the order of [`HOSTS`].
fn front(authority: &Authority, path: &Path, behind: [&str; 5]) -> Result<(Process, Vec<String>)> {
    let both = path.join("hosts.pem");
    let read = |name: &str| fs::read_to_string(authority.path(name));
    fs::write(&both, read("hosts.pem")? + &read("hosts.key")?)?;
    let mut configuration =
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
            .to_owned();
    // Another run of the tests at this time has another number.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = |index: usize| format!("127.{}.{low}.{}", high | 1, index + 1);
    let addresses: Vec<String> = (0..=HOSTS.len()).map(address).collect();
    for (((name, port), server), address) in HOSTS.iter().zip(behind).zip(&addresses) {
        configuration.push_str(&format!(
            "listen {name}\n bind {address}:{port} ssl crt {}\n server s {server}\n",
            both.display()
        ));
    }
    let file = path.join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let mut process = Process::spawn("haproxy", &mut command, path)?;
    let first = format!("{}:{}", addresses[0], HOSTS[0].1);
    wait::until("haproxy", START_LIMIT, || {
        ensure!(process.has_ended()?.is_none(), "haproxy ended:{}", process.last_words());
        Ok(std::net::TcpStream::connect(&first).ok())
    })?;
    Ok((process, addresses))
}

/// Names for the addresses, and the directory of data and images, where the engine and the agent
/// beside it see them and nobody else does.
fn hosts(path: &Path, process_id: u32, addresses: &[String]) -> Result<()> {
    let mut hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    for ((name, _), address) in HOSTS.iter().chain([&PROXY]).zip(addresses) {
        hosts.push_str(&format!("\n{address} {name}\n"));
    }
    let file = path.join("hosts");
    fs::write(&file, hosts)?;
    let enter = format!("nsenter --mount --target {process_id}");
    run(&format!("{enter} mount --bind {} /etc/hosts", file.display()))?;
    run(&format!("{enter} mount -t tmpfs srv /srv"))?;
    run(&format!(
        "{enter} sh -ec 'mkdir /srv/data /srv/images; cp {}/served/busybox.tar /srv/images'",
        path.display()
    ))?;
    Ok(())
}

/// A proxy that knows the names.
fn proxy(path: &Path, process_id: u32, address: &str) -> Result<Process> {
    let file = path.join("tinyproxy.conf");
    let port = PROXY.1;
    fs::write(&file, format!("Listen {address}\nPort {port}\nLogLevel Connect\nTimeout 60\n"))?;
    let mut command = Command::new("nsenter");
    let target = process_id.to_string();
    command.args(["--mount", "--target", &target, "tinyproxy", "-d", "-c"]).arg(&file);
    let mut process = Process::spawn("tinyproxy", &mut command, path)
        .context("is tinyproxy installed? run `make test-deps`")?;
    wait::until("tinyproxy", START_LIMIT, || {
        ensure!(process.has_ended()?.is_none(), "tinyproxy ended:{}", process.last_words());
        Ok(std::net::TcpStream::connect(format!("{address}:{port}")).ok())
    })?;
    Ok(process)
}

/// A block device for each label, the first with the archive on it.
fn devices(path: &Path) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for label in LABELS {
        let taken = run(&format!("blkid --cache-file /dev/null --label {label} || true"))?;
        ensure!(taken.is_empty(), "{taken} has the label {label} already");
        let file = path.join(label);
        let content = if label == "images" { path.join("served") } else { path.join("empty") };
        fs::create_dir_all(&content)?;
        let (file, content) = (file.display(), content.display());
        run(&format!("truncate --size 16M {file} && mkfs.ext4 -q -L {label} -d {content} {file}"))?;
        devices.push(Device { path: run(&format!("losetup --find --show {file}"))? });
    }
    Ok(devices)
}

fn run(command: &str) -> Result<String> {
    let output = Command::new("sh").args(["-c", command]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command}: {errors}; is it installed? run `make test-deps`");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
