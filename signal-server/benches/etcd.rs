//! How many signals a second the relay takes on etcd, beside what etcd itself takes.
//!
//! Three members of etcd on loopback (Debian's `etcd-server`, which has to be installed), and two clients of
//! the first one in alternating rounds: this process, which writes records of the length of a signal by the
//! relay's own client, one record to a request, as etcd's `benchmark put` does; and a relay, to which this
//! process sends signed PUTs. Beside the rates, how many requests a signal costs etcd, as etcd counts them. Then
//! a second relay at the second member, and how long it takes from the acknowledgement of a signal by one relay
//! until a long-poll at the other one ends.
//!
//! ```text
//! cargo bench -p heliograph-server --bench etcd
//! ```
//! Takes less than a minute.

#[path = "support/etcd.rs"]
#[expect(dead_code, reason = "each benchmark needs its part of it")]
mod etcd;
#[path = "support/relay.rs"]
#[expect(dead_code, reason = "each benchmark needs its part of it")]
mod relay;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heliograph_server::store::etcd::EtcdStore;
use heliograph_server::store::{Batch, Key, KeyKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::etcd::Cluster;
use crate::relay::{
    ACCOUNT, Connection, Failure, Server, operator_request, operator_token, print, quantile,
    signed_head, signing_key, write_request,
};

/// How many members the cluster has.
const N_MEMBERS: usize = 3;

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

async fn compare() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), N_MEMBERS, &[]).await?;
    let endpoint = cluster.endpoints[0].clone();
    let store = Arc::new(cluster.store(0, "beside/")?);
    let first = Server::relay_on(&directory.path().join("first"), &cluster.url(0))?;
    let heads = Arc::new(prepare(&first, &directory.path().join("first")).await?);

    print(
        "connections  to          writes/s     p50 us     p99 us   ratio   reads/write   transactions/write",
    )?;
    let mut next_id = 0;
    for width in WIDTHS {
        let mut results = [Round::default(), Round::default()];
        for _ in 0..N_ROUNDS {
            let before = requests(&endpoint).await?;
            results[0].add(put_to_etcd(&store, width, &mut next_id).await?);
            let between = requests(&endpoint).await?;
            results[1].add(put_to_relay(first.address, &heads, width, &mut next_id).await?);
            let after = requests(&endpoint).await?;
            results[0].add_requests(before, between);
            results[1].add_requests(between, after);
        }
        let base = results[0].rate();
        for (name, result) in ["etcd", "the relay"].into_iter().zip(&mut results) {
            result.latencies_us.sort_unstable();
            let (p50, p99) =
                (quantile(&result.latencies_us, 0.5), quantile(&result.latencies_us, 0.99));
            let (rate, ratio) = (result.rate(), result.rate() / base);
            let [n_reads, n_transactions] = result.requests_per_write();
            print(&format!(
                "{width:>11}  {name:<9} {rate:>10.0} {p50:>10} {p99:>10} {ratio:>7.2} \
                 {n_reads:>13.2} {n_transactions:>20.2}"
            ))?;
        }
    }
    let second = Server::relay_on(&directory.path().join("second"), &cluster.url(1))?;
    let mut lags_us = wake(&first, &directory.path().join("first"), second.address).await?;
    lags_us.sort_unstable();
    let (p50, p99) = (quantile(&lags_us, 0.5), quantile(&lags_us, 0.99));
    print(&format!(
        "from the acknowledgement by one relay to the end of a long-poll at another: p50 {p50} us, p99 {p99} us"
    ))?;
    Ok(())
}

/// How many reads, and how many transactions that change something, a member was asked for so far. A
/// transaction of reads is a read; etcd counts proposals to its log, which is what others are.
async fn requests(endpoint: &str) -> Result<[f64; 2], Failure> {
    let mut stream = TcpStream::connect(endpoint).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    let counted = |name: &str| -> Result<f64, Failure> {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.ok_or_else(|| format!("etcd does not count {name}"))?.parse()?)
    };
    let ok = |method: &str| {
        counted(&format!(
            "grpc_server_handled_total{{grpc_code=\"OK\",grpc_method=\"{method}\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}}"
        ))
    };
    let n_all = ok("Range")? + ok("Txn")?;
    let n_transactions = counted("etcd_server_proposals_applied_total")?;
    Ok([n_all - n_transactions, n_transactions])
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
    /// Reads and transactions.
    n_requests: [f64; 2],
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

    fn add_requests(&mut self, before: [f64; 2], after: [f64; 2]) {
        for (sum, (before, after)) in self.n_requests.iter_mut().zip(before.into_iter().zip(after))
        {
            *sum += after - before;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "printed with two decimals")]
    fn requests_per_write(&self) -> [f64; 2] {
        self.n_requests.map(|n_requests| n_requests / self.latencies_us.len() as f64)
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
                store.commit_alone(batch).await.map_err(|error| error.to_string())?;
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
