//! How many signals a second the relay takes on etcd, beside what etcd itself takes.
//!
//! One member of etcd on loopback (Debian's `etcd-server`, which has to be installed), and two clients of it
//! in alternating rounds: this process, which writes records of the length of a signal by the relay's own
//! client, one record to a transaction, as etcd's `benchmark put` does; and a relay, to which this process
//! sends signed PUTs. Then a second relay on the same etcd, and how long it takes from the acknowledgement of
//! a signal by one relay until a long-poll at the other one ends.
//!
//! ```text
//! cargo bench -p heliograph-server --bench etcd
//! ```
//! Takes less than a minute.

#[path = "support/relay.rs"]
#[expect(dead_code, reason = "each benchmark needs its part of it")]
mod relay;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heliograph_server::store::etcd::{EtcdSettings, EtcdStore};
use heliograph_server::store::{Batch, Key, KeyKind, Store};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::relay::{
    ACCOUNT, Connection, Failure, Server, operator_request, operator_token, print, quantile,
    signed_head, signing_key, write_request,
};

/// How many clients write at once.
const WIDTHS: [usize; 3] = [1, 64, 256];

/// Rounds for each side and width.
const N_ROUNDS: usize = 3;

/// How long a round lasts.
const ROUND: Duration = Duration::from_millis(1_500);

/// How many handles the signals go to, in turn.
const N_HANDLES: usize = 1_024;

/// How many long-polls are woken. Each answer holds all signals so far, and has to fit the client's buffer.
const N_WAKES: usize = 200;

/// The length of a record of a signal.
const N_RECORD_BYTES: usize = 400;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(compare())
}

/// A member of etcd; killed at the end.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

async fn compare() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let (_member, endpoint) = start_etcd(directory.path()).await?;
    let settings = EtcdSettings {
        endpoints: vec![endpoint.clone()],
        prefix: "beside/".to_owned(),
        ..EtcdSettings::default()
    };
    let store = Arc::new(EtcdStore::new(&settings)?);
    let first = start_relay(&directory.path().join("first"), &endpoint)?;
    let heads = Arc::new(prepare(&first, &directory.path().join("first")).await?);

    print("connections  to          writes/s     p50 us     p99 us   ratio")?;
    let mut next_id = 0;
    for width in WIDTHS {
        let mut results = [Round::default(), Round::default()];
        for _ in 0..N_ROUNDS {
            results[0].add(put_to_etcd(&store, width, &mut next_id).await?);
            results[1].add(put_to_relay(first.address, &heads, width, &mut next_id).await?);
        }
        let base = results[0].rate();
        for (name, result) in ["etcd", "the relay"].into_iter().zip(&mut results) {
            result.latencies_us.sort_unstable();
            let (p50, p99) =
                (quantile(&result.latencies_us, 0.5), quantile(&result.latencies_us, 0.99));
            let (rate, ratio) = (result.rate(), result.rate() / base);
            print(&format!(
                "{width:>11}  {name:<9} {rate:>10.0} {p50:>10} {p99:>10} {ratio:>7.2}"
            ))?;
        }
    }
    let second = start_relay(&directory.path().join("second"), &endpoint)?;
    let mut lags_us = wake(&first, &directory.path().join("first"), second.address).await?;
    lags_us.sort_unstable();
    let (p50, p99) = (quantile(&lags_us, 0.5), quantile(&lags_us, 0.99));
    print(&format!(
        "from the acknowledgement by one relay to the end of a long-poll at another: p50 {p50} us, p99 {p99} us"
    ))?;
    Ok(())
}

async fn start_etcd(directory: &Path) -> Result<(Member, String), Failure> {
    let address = || -> Result<String, Failure> {
        Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
    };
    let (client, peer) = (address()?, address()?);
    let peer = format!("http://{peer}");
    let child = Command::new("etcd")
        .args(["--name", "only", "--log-level", "error", "--data-dir"])
        .arg(directory.join("etcd"))
        .args(["--listen-client-urls", &format!("http://{client}")])
        .args(["--advertise-client-urls", &format!("http://{client}")])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("only={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let member = Member(child);
    let settings = EtcdSettings { endpoints: vec![client.clone()], ..EtcdSettings::default() };
    let store = EtcdStore::new(&settings)?;
    let end = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.ready().await {
        if Instant::now() > end {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok((member, client))
}

fn start_relay(data_dir: &Path, endpoint: &str) -> Result<Server, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heliograph-server"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--log-level", "warn", "--store", &format!("etcd://{endpoint}"), "--data-dir"]);
    Server::start("the relay", command.arg(data_dir))
}

/// Makes the handles, as Heat would, and returns the head of a signed PUT to each.
async fn prepare(relay: &Server, data_dir: &Path) -> Result<Vec<String>, Failure> {
    let token = operator_token(data_dir)?;
    let mut connection = Connection::open(relay.address).await?;
    let key = signing_key(&mut connection, &token).await?;
    let container = format!("{ACCOUNT}/stack");
    connection.ask(operator_request(&token, "PUT", &container, "").as_bytes()).await?;
    let mut heads = Vec::with_capacity(N_HANDLES);
    for number in 0..N_HANDLES {
        let path = format!("{container}/stack-handle-{number:06}");
        connection.ask(operator_request(&token, "PUT", &path, "in progress").as_bytes()).await?;
        heads.push(signed_head(&key, &path));
    }
    Ok(heads)
}

#[derive(Default)]
struct Round {
    seconds: f64,
    latencies_us: Vec<u32>,
}

impl Round {
    #[expect(clippy::cast_precision_loss, reason = "a rate is printed without decimals")]
    fn rate(&self) -> f64 {
        self.latencies_us.len() as f64 / self.seconds
    }

    fn add(&mut self, other: Round) {
        self.seconds += other.seconds;
        self.latencies_us.extend(other.latencies_us);
    }
}

fn micros_since(begin: Instant) -> u32 {
    u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX)
}

async fn put_to_etcd(
    store: &Arc<EtcdStore>,
    width: usize,
    next_id: &mut usize,
) -> Result<Round, Failure> {
    let started = Instant::now();
    let mut writers = JoinSet::new();
    for number in 0..width {
        let (store, mut id) = (Arc::clone(store), *next_id + number);
        writers.spawn(async move {
            let value = Bytes::from(vec![b'x'; N_RECORD_BYTES]);
            let mut latencies_us = Vec::new();
            while started.elapsed() < ROUND {
                let mut batch = Batch::new();
                batch.put(Key::new(KeyKind::Signal, &[&id.to_be_bytes()]), value.clone());
                let begin = Instant::now();
                store.commit(batch).await.map_err(|error| error.to_string())?;
                latencies_us.push(micros_since(begin));
                id += width;
            }
            Ok::<_, String>((latencies_us, id))
        });
    }
    gather(writers, started, next_id).await
}

async fn put_to_relay(
    address: SocketAddr,
    heads: &Arc<Vec<String>>,
    width: usize,
    next_id: &mut usize,
) -> Result<Round, Failure> {
    let mut connections = Vec::with_capacity(width);
    for _ in 0..width {
        connections.push(Connection::open(address).await?);
    }
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let (heads, mut id) = (Arc::clone(heads), *next_id + number);
        senders.spawn(async move {
            let (mut latencies_us, mut request) = (Vec::new(), Vec::new());
            while started.elapsed() < ROUND {
                let written = write_request(&mut request, &heads[id % heads.len()], id);
                written.map_err(|error| error.to_string())?;
                let begin = Instant::now();
                connection.ask(&request).await.map_err(|error| error.to_string())?;
                latencies_us.push(micros_since(begin));
                id += width;
            }
            Ok::<_, String>((latencies_us, id))
        });
    }
    gather(senders, started, next_id).await
}

async fn gather(
    mut tasks: JoinSet<Result<(Vec<u32>, usize), String>>,
    started: Instant,
    next_id: &mut usize,
) -> Result<Round, Failure> {
    let mut round = Round::default();
    while let Some(ended) = tasks.join_next().await {
        let (latencies_us, id) = ended??;
        round.latencies_us.extend(latencies_us);
        *next_id = (*next_id).max(id);
    }
    round.seconds = started.elapsed().as_secs_f64();
    Ok(round)
}

/// Signals a handle at the first relay and waits for it at the second, again and again.
async fn wake(first: &Server, data_dir: &Path, second: SocketAddr) -> Result<Vec<u32>, Failure> {
    let token = operator_token(data_dir)?;
    let mut sender = Connection::open(first.address).await?;
    let asked = operator_request(&token, "POST", "/api/v1/handles", "{\"count\":1000}");
    let asked =
        asked.replacen("content-length", "content-type: application/json\r\ncontent-length", 1);
    sender.ask(asked.as_bytes()).await?;
    let path_of = |answer: &str, key: &str| -> Option<String> {
        let url = answer.split(&format!("\"{key}\":\"")).nth(1)?.split('"').next()?;
        let (_, path) = url.split_once("://")?.1.split_once('/')?;
        Some(format!("/{path}"))
    };
    let signal = path_of(sender.head(), "signal_url").ok_or("no signal URL")?;
    let poll = path_of(sender.head(), "poll_url").ok_or("no poll URL")?;
    let mut waiter = Connection::open(second).await?;
    let (woken, mut wakes) = tokio::sync::mpsc::channel(1);
    let watcher = tokio::spawn(async move {
        for version in 1..=N_WAKES {
            let path = format!("{poll}&wait=50s&version={version}");
            let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n");
            waiter.ask(request.as_bytes()).await?;
            let _nobody_listens = woken.send(Instant::now()).await;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut lags_us = Vec::with_capacity(N_WAKES);
    for number in 0..N_WAKES {
        let body = format!(r#"{{"status":"SUCCESS","id":"{number}"}}"#);
        let length = body.len();
        let request = format!(
            "PUT {signal} HTTP/1.1\r\nhost: relay\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        sender.ask(request.as_bytes()).await?;
        let acknowledged_at = Instant::now();
        let woken_at = wakes.recv().await.ok_or("the watcher ended")?;
        let lag = woken_at.saturating_duration_since(acknowledged_at);
        lags_us.push(u32::try_from(lag.as_micros()).unwrap_or(u32::MAX));
    }
    watcher.await??;
    Ok(lags_us)
}
