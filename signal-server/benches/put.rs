//! How many signals a second the relay takes, beside the fastest server that could be.
//!
//! Two server processes on loopback: a bare axum handler that reads the body and answers 201, and the
//! real relay with its embedded store, where each 201 means that the signal has been synced to disk. A
//! third process, this one, sends the same signed PUTs of some 400 bytes to both over kept connections,
//! in alternating rounds, so that a machine that gets slower or faster does so for both. `cpu us` is what a
//! request costs the server's processors, `disk B` what it has given to the disk for each, with the journal,
//! the tables and their compaction.
//!
//! ```text
//! cargo bench -p heliograph-server --bench put
//! ```
//! Needs no network and takes less than a minute. `PUT_BENCH_ONLY=relay` or `bare` runs one side, and
//! `PUT_BENCH_CONNECTIONS=64` one width, for a profiler.

#[path = "support/relay.rs"]
#[expect(dead_code, reason = "each benchmark needs its part of it")]
mod relay;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::put;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::relay::{
    ACCOUNT, Connection, Failure, Server, operator_request, operator_token, print, quantile,
    signed_head, signing_key, write_request,
};

/// How many clients send at once.
const WIDTHS: [usize; 3] = [1, 64, 256];

/// Rounds for each server and width.
const N_ROUNDS: usize = 4;

/// How long a round lasts. Widths, servers, rounds and warm-ups together stay under a minute.
const ROUND: Duration = Duration::from_millis(1500);

/// How long a server is sent requests before the rounds of a width.
const WARM_UP: Duration = Duration::from_millis(300);

/// How many handles the signals go to, in turn.
const N_HANDLES: usize = 1024;

fn main() -> Result<(), Failure> {
    if std::env::args().any(|argument| argument == "--bare-server") {
        return serve_bare();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(compare()))
}

/// The fastest server that could be: the body is read, nothing is done with it.
fn serve_bare() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let handler = async |body: Bytes| {
            std::hint::black_box(body.len());
            StatusCode::CREATED
        };
        let router = Router::new().route("/v1/{account}/{container}/{*object}", put(handler));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(io::stdout(), "listening public http://{}", listener.local_addr()?)?;
        axum::serve(listener, router).await?;
        Ok(())
    })
}

async fn compare() -> Result<(), Failure> {
    let data_dir = tempfile::tempdir()?;
    let bare =
        Server::start("bare handler", Command::new(std::env::current_exe()?).arg("--bare-server"))?;
    let relay = Server::relay(data_dir.path())?;
    let heads = Rc::new(prepare(&relay, data_dir.path()).await?);
    let only = variable("PUT_BENCH_ONLY");
    let servers: Vec<&Server> = [&bare, &relay]
        .into_iter()
        .filter(|server| only.as_ref().is_none_or(|only| server.name.starts_with(only.as_str())))
        .collect();
    let width = variable("PUT_BENCH_CONNECTIONS").map(|text| text.parse()).transpose()?;
    let widths = width.map_or(WIDTHS.to_vec(), |width| vec![width]);

    let mut next_id = 0;
    print(
        "connections  server        requests/s     p50 us     p99 us     cpu us     disk B   ratio",
    )?;
    for width in widths {
        let mut results: Vec<Round> = servers.iter().map(|_| Round::default()).collect();
        for server in &servers {
            load(server.address, &heads, width, WARM_UP, &mut next_id).await?;
        }
        for _ in 0..N_ROUNDS {
            for (server, result) in servers.iter().zip(&mut results) {
                let (cpu, written) = (server.cpu_ticks()?, server.written_bytes()?);
                let round = load(server.address, &heads, width, ROUND, &mut next_id).await?;
                result.cpu_ticks += server.cpu_ticks()? - cpu;
                result.written_bytes += server.written_bytes()? - written;
                result.seconds += round.seconds;
                result.latencies_us.extend(round.latencies_us);
            }
        }
        let base = results[0].rate();
        for (server, result) in servers.iter().zip(&mut results) {
            result.latencies_us.sort_unstable();
            let latencies = &result.latencies_us;
            let (rate, p50, p99) =
                (result.rate(), quantile(latencies, 0.5), quantile(latencies, 0.99));
            let (name, cpu_us, ratio) = (server.name, result.cpu_us(), rate / base);
            let disk = result.written_bytes / latencies.len().max(1) as u64;
            print(&format!(
                "{width:>11}  {name:<12}  {rate:>10.0} {p50:>10} {p99:>10} {cpu_us:>10.1} {disk:>10} {ratio:>7.2}"
            ))?;
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a program of its own")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Makes the handles, as Heat would, and returns the head of a signed PUT to each.
async fn prepare(relay: &Server, data_dir: &Path) -> Result<Vec<String>, Failure> {
    let token = operator_token(data_dir)?;
    let mut connection = Connection::open(relay.address).await?;
    let key = signing_key(&mut connection, &token).await?;
    let container = format!("{ACCOUNT}/stack");
    connection.ask(operator_request(&token, "PUT", &container, "").as_bytes()).await?;
    let mut heads = Vec::with_capacity(N_HANDLES);
    for n in 0..N_HANDLES {
        let path = format!("{container}/stack-handle-{n:06}");
        connection.ask(operator_request(&token, "PUT", &path, "in progress").as_bytes()).await?;
        heads.push(signed_head(&key, &path));
    }
    Ok(heads)
}

#[derive(Default)]
struct Round {
    seconds: f64,
    latencies_us: Vec<u32>,
    cpu_ticks: u64,
    written_bytes: u64,
}

impl Round {
    #[expect(clippy::cast_precision_loss, reason = "a rate is printed without decimals")]
    fn rate(&self) -> f64 {
        self.latencies_us.len() as f64 / self.seconds
    }

    /// What one request costs the server, in microseconds of a processor.
    #[expect(clippy::cast_precision_loss, reason = "a cost is printed with one decimal")]
    fn cpu_us(&self) -> f64 {
        self.cpu_ticks as f64 * 10_000.0 / self.latencies_us.len() as f64
    }
}

/// Sends signals over `width` connections until the time is over. No two have the same id.
async fn load(
    address: SocketAddr,
    heads: &Rc<Vec<String>>,
    width: usize,
    duration: Duration,
    next_id: &mut usize,
) -> Result<Round, Failure> {
    let mut connections = Vec::with_capacity(width);
    for _ in 0..width {
        connections.push(Connection::open(address).await?);
    }
    let started = Instant::now();
    let deadline = started + duration;
    let mut senders = Vec::with_capacity(width);
    for (n, mut connection) in connections.into_iter().enumerate() {
        let (heads, first_id) = (heads.clone(), *next_id + n);
        senders.push(tokio::task::spawn_local(async move {
            let mut latencies_us = Vec::with_capacity(1 << 16);
            let mut id = first_id;
            let mut request = Vec::with_capacity(1024);
            while Instant::now() < deadline {
                write_request(&mut request, &heads[id % heads.len()], id)?;
                let sent = Instant::now();
                connection.ask(&request).await?;
                let latency = sent.elapsed().as_micros();
                latencies_us.push(u32::try_from(latency).unwrap_or(u32::MAX));
                id += width;
            }
            Ok::<_, io::Error>((latencies_us, id))
        }));
    }
    let mut round = Round::default();
    for sender in senders {
        let (latencies_us, id) = sender.await??;
        round.latencies_us.extend(latencies_us);
        *next_id = (*next_id).max(id + width);
    }
    round.seconds = started.elapsed().as_secs_f64();
    Ok(round)
}
