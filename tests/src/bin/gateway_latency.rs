//! Prints what the metadata gateway adds to the time of a request: 500 requests/s, each on a connection
//! of its own as Neutron's agents make them, to a server that answers at once, with and without the
//! gateway in between, in turns.
//!
//! usage: gateway_latency HELIOGRAPH_SERVER

#![expect(clippy::print_stdout, reason = "a tool whose output is what it prints")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use e2e::process::Process;
use e2e::wait;
use tempfile::TempDir;

/// Requests in a second, as in a region whose hypervisors all boot instances at once.
const RATE: u32 = 500;
const N_SENDERS: u32 = 10;
const ROUND: Duration = Duration::from_secs(4);
const N_ROUNDS: usize = 3;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\n\
    Content-Length: 12\r\n\r\nlatest\n1.0\n\n";

const REQUEST: &[u8] = b"GET /latest/meta-data/ HTTP/1.1\r\nHost: 127.0.0.1:8775\r\n\
    User-Agent: python-requests/2.28.1\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n\
    Connection: close\r\nX-Forwarded-For: 10.77.0.5\r\n\
    X-Instance-ID: 7b1d3c0e-1111-4222-8333-444455556605\r\n\
    X-Tenant-ID: 0123456789abcdef0123456789abcdef\r\nX-Instance-ID-Signature: 0\r\n\r\n";

fn main() -> Result<()> {
    let program = std::env::args().nth(1).context("usage: gateway_latency HELIOGRAPH_SERVER")?;
    let nova = serve()?;
    let directory = TempDir::new()?;
    let gateway = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "secret")?;
    let config = directory.path().join("relay.toml");
    std::fs::write(
        &config,
        format!(
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n[metadata]\n\
             listen = \"{gateway}\"\nnova_urls = [\"http://{nova}\"]\nsecret_files = [{secret:?}]\n",
            directory.path().join("data")
        ),
    )?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(&config);
    let mut relay = Process::spawn("relay", &mut command, directory.path())?;
    wait::until("the relay", Duration::from_secs(30), || {
        if let Some(status) = relay.has_ended()? {
            bail!("the relay ended with {status}:{}", relay.last_words());
        }
        Ok(relay.output()?.contains("listening metadata ").then_some(()))
    })?;

    let (mut direct, mut passed) = (Vec::new(), Vec::new());
    for _ in 0..N_ROUNDS {
        direct.extend(round(nova)?);
        passed.extend(round(gateway)?);
    }
    let (direct, passed) = (Quantiles::of(direct), Quantiles::of(passed));
    println!("              n       p50       p99   ({RATE} requests/s, one connection each)");
    println!("direct   {direct}");
    println!("gateway  {passed}");
    println!(
        "added            {:7.3}   {:7.3} ms",
        passed.p50_ms - direct.p50_ms,
        passed.p99_ms - direct.p99_ms
    );
    Ok(())
}

struct Quantiles {
    n: usize,
    p50_ms: f64,
    p99_ms: f64,
}

impl Quantiles {
    fn of(mut times: Vec<Duration>) -> Quantiles {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).map_or(0.0, Duration::as_secs_f64) * 1e3
        };
        Quantiles { n: times.len(), p50_ms: at(50), p99_ms: at(99) }
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:6}   {:7.3}   {:7.3} ms", self.n, self.p50_ms, self.p99_ms)
    }
}

/// A server that answers at once and keeps its connections.
fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut buffer)?;
        seen.extend_from_slice(&buffer[..n]);
        if n == 0 {
            return Ok(());
        }
        if seen.ends_with(b"\r\n\r\n") {
            let is_last =
                String::from_utf8_lossy(&seen).to_ascii_lowercase().contains("connection: close");
            seen.clear();
            stream.write_all(ANSWER)?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// The times of all requests of one round, from the moment at which each was due: a request that has to
/// wait for a slow one before it counts the wait.
fn round(address: SocketAddr) -> Result<Vec<Duration>> {
    let start = Instant::now();
    let period = Duration::from_secs(1) * N_SENDERS / RATE;
    let n_requests = ROUND.as_secs() as u32 * RATE / N_SENDERS;
    let results: Vec<Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..N_SENDERS)
            .map(|sender| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut times = Vec::new();
                    for number in 0..n_requests {
                        let due = start + period * number + period * sender / N_SENDERS;
                        wait::pause(due.saturating_duration_since(Instant::now()));
                        let mut stream = TcpStream::connect(address)?;
                        stream.set_nodelay(true)?;
                        stream.write_all(REQUEST)?;
                        let mut answer = Vec::new();
                        stream.read_to_end(&mut answer)?;
                        anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 "), "not answered");
                        times.push(due.elapsed());
                    }
                    Ok(times)
                })
            })
            .collect();
        let joined = senders.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|one| one.unwrap_or_else(|_| bail!("a sender panicked"))).collect()
    });
    let times: Result<Vec<Vec<Duration>>> = results.into_iter().collect();
    Ok(times?.into_iter().flatten().collect())
}
