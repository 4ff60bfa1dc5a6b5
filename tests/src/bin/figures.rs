//! Prints what the programs cost: their sizes, and their resident memory in the states in which
//! they spend their time. `make figures` builds what it wants.
//!
//!     figures heliograph-server heliograph-agent

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::agent::Instance;
use e2e::engine::{Engine, Kind};
use e2e::image;
use e2e::relay::{Handle, Relay};
use e2e::wait;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

/// One connection each; every one of them is in the middle of a long-poll.
const N_LONG_POLLS: usize = 10_000;
/// Each handle is waited for by some.
const N_HANDLES: usize = 1_000;
/// The descriptors of one side, and some more.
const N_DESCRIPTORS: u64 = 20_000;
/// Memory is looked at when nothing has happened for a while.
const SETTLE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(55);

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [server, agent] = &arguments[..] else {
        anyhow::bail!("usage: figures heliograph-server heliograph-agent");
    };
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, N_DESCRIPTORS, hard.max(N_DESCRIPTORS))
        .context("failed to raise the limit of open files")?;

    println!("heliograph-agent, static: {}", mebibytes(fs::metadata(agent)?.len()));
    println!("heliograph-server: {}", mebibytes(fs::metadata(server)?.len()));
    relay_figures()?;
    agent_figures(agent)
}

fn relay_figures() -> Result<()> {
    let directory = TempDir::new()?;
    let relay = Relay::start(&directory.path().join("data"))?;
    wait::pause(SETTLE);
    println!("heliograph-server, idle: {}", resident(relay.process_id())?);

    let handles: Vec<Handle> =
        (0..N_HANDLES).map(|_| relay.create_handle_quickly()).collect::<Result<_>>()?;
    println!("heliograph-server, {N_HANDLES} handles: {}", resident(relay.process_id())?);
    let begin = Instant::now();
    let polls: Vec<TcpStream> = (0..N_LONG_POLLS)
        .map(|number| long_poll(relay.address(), &handles[number % N_HANDLES]))
        .collect::<Result<_>>()?;
    let mut n_open = 0;
    wait::until("all long-polls to be open", LIMIT, || {
        n_open = n_long_polls(&relay)?;
        Ok((n_open == N_LONG_POLLS as u64).then_some(()))
    })
    .with_context(|| format!("{n_open} are open{}", relay.last_words()))?;
    wait::pause(SETTLE);
    ensure!(n_long_polls(&relay)? == N_LONG_POLLS as u64, "long-polls have ended early");
    println!(
        "heliograph-server, {N_LONG_POLLS} idle long-polls on {N_HANDLES} handles: {} (opened in {:.1} s)",
        resident(relay.process_id())?,
        begin.elapsed().as_secs_f32()
    );
    drop(polls);
    Ok(())
}

fn agent_figures(agent: &Path) -> Result<()> {
    let engine = Engine::start(Kind::Docker, &[])?;
    engine.import("centos:latest", image::root_file_system(0)?)?;
    let user_data = "#docker\nimage: centos\nsignal: {when: exit, timeout: 10m}\n\
                     cmd: \"while true; do date ; sleep 1; done\"\n";
    let instance = Instance::new("figures", &engine.url(), user_data)?.with_program(agent);
    let watching = instance.follow()?;
    wait::until("a date on the console", LIMIT, || {
        Ok(watching.console()?.contains("UTC").then_some(()))
    })
    .with_context(|| watching.last_words())?;
    wait::pause(SETTLE);
    println!(
        "heliograph-agent, static, watching a container: {}",
        resident(watching.process_id())?
    );
    drop(watching);
    engine.stop()
}

/// Sends the request and leaves the answer for later.
fn long_poll(address: &str, handle: &Handle) -> Result<TcpStream> {
    let (_, path_and_query) = handle.poll_url.split_once("/api/").context("no path")?;
    let joiner = if path_and_query.contains('?') { '&' } else { '?' };
    let mut stream = TcpStream::connect(address)?;
    let request =
        format!("GET /api/{path_and_query}{joiner}wait=60s HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// As the relay itself counts them.
fn n_long_polls(relay: &Relay) -> Result<u64> {
    let metrics = reqwest::blocking::get(format!("{}/metrics", relay.admin))?.text()?;
    let line = metrics
        .lines()
        .find(|line| !line.starts_with('#') && line.contains("long_polls"))
        .with_context(|| format!("no metric of long-polls: {metrics}"))?;
    let value = line.rsplit(' ').next().context("a metric without a value")?;
    Ok(value.parse::<f64>()? as u64)
}

/// The memory that a process has in use now, and had at most.
fn resident(process: u32) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let kibibytes = |key: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(key)).context("no such line")?;
        Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
    };
    let now = kibibytes("VmRSS:")? * 1024;
    let at_most = kibibytes("VmHWM:")? * 1024;
    Ok(format!("{} resident, {} at most", mebibytes(now), mebibytes(at_most)))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
