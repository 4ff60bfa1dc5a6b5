//! How many signals a second the relay takes, beside the fastest server that could be.
//!
//! Two server processes on loopback: a bare axum handler that reads the body and answers 201, and the
//! real relay with its embedded store, where each 201 means that the signal has been synced to disk. A
//! third process, this one, sends the same signed PUTs of some 400 bytes to both over kept connections,
//! in alternating rounds, so that a machine that gets slower or faster does so for both. The client is
//! a few lines over a socket, on one thread, so that it leaves most of the machine to the server.
//!
//! ```text
//! cargo bench -p heliograph-server --bench put
//! ```
//! Needs no network and takes less than a minute. `PUT_BENCH_ONLY=relay` or `bare` runs one side, and
//! `PUT_BENCH_CONNECTIONS=64` one width, for a profiler.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::put;
use bytes::Bytes;
use signal_protocol::tempurl::{Digest, sign};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::Instant;

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

/// The length of a signal, in bytes.
const N_BODY_BYTES: usize = 400;

type Failure = Box<dyn std::error::Error>;

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

/// A server process; killed at the end.
struct Server {
    name: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(name: &'static str, command: &mut Command) -> Result<Server, Failure> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening public http://").ok_or("no address")?;
        Ok(Server { name, address: address.parse()?, child })
    }

    /// How much of the processors the server has used, in ticks of 10 ms.
    fn cpu_ticks(&self) -> Result<u64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace();
        let (user, system) = (fields.clone().nth(11), fields.clone().nth(12));
        Ok(user.ok_or("no time")?.parse::<u64>()? + system.ok_or("no time")?.parse::<u64>()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn compare() -> Result<(), Failure> {
    let data_dir = tempfile::tempdir()?;
    let bare =
        Server::start("bare handler", Command::new(std::env::current_exe()?).arg("--bare-server"))?;
    let relay = Server::start(
        "relay",
        Command::new(env!("CARGO_BIN_EXE_heliograph-server"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--log-level", "warn", "--data-dir"])
            .arg(data_dir.path()),
    )?;
    let heads = Rc::new(prepare(&relay, data_dir.path()).await?);
    let only = variable("PUT_BENCH_ONLY");
    let servers: Vec<&Server> = [&bare, &relay]
        .into_iter()
        .filter(|server| only.as_ref().is_none_or(|only| server.name.starts_with(only.as_str())))
        .collect();
    let width = variable("PUT_BENCH_CONNECTIONS").map(|text| text.parse()).transpose()?;
    let widths = width.map_or(WIDTHS.to_vec(), |width| vec![width]);

    let mut next_id = 0;
    print("connections  server        requests/s     p50 us     p99 us     cpu us   ratio")?;
    for width in widths {
        let mut results: Vec<Round> = servers.iter().map(|_| Round::default()).collect();
        for server in &servers {
            load(server.address, &heads, width, WARM_UP, &mut next_id).await?;
        }
        for _ in 0..N_ROUNDS {
            for (server, result) in servers.iter().zip(&mut results) {
                let cpu_before = server.cpu_ticks()?;
                let round = load(server.address, &heads, width, ROUND, &mut next_id).await?;
                result.cpu_ticks += server.cpu_ticks()? - cpu_before;
                result.seconds += round.seconds;
                result.latencies_us.extend(round.latencies_us);
            }
        }
        let base = results[0].rate();
        for (server, result) in servers.iter().zip(&mut results) {
            result.latencies_us.sort_unstable();
            let (rate, p50, p99) = (result.rate(), result.quantile(0.5), result.quantile(0.99));
            let (name, cpu_us, ratio) = (server.name, result.cpu_us(), rate / base);
            print(&format!(
                "{width:>11}  {name:<12}  {rate:>10.0} {p50:>10} {p99:>10} {cpu_us:>10.1} {ratio:>7.2}"
            ))?;
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a program of its own")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn print(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Makes the handles, as Heat would, and returns the head of a signed PUT to each.
async fn prepare(relay: &Server, data_dir: &Path) -> Result<Vec<String>, Failure> {
    let token = std::fs::read_to_string(data_dir.join("operator.token"))?;
    let token = token.trim();
    let mut connection = Connection::open(relay.address).await?;
    let account = "/v1/AUTH_operator";
    let mut ask = async |method: &str, path: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: relay\r\nx-auth-token: {token}\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        connection.ask(request.as_bytes()).await?;
        Ok::<_, Failure>(connection.head().to_owned())
    };
    let head = ask("HEAD", account, "").await?;
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("x-account-meta-temp-url-key: "))
        .ok_or("the account has no key")?;
    let container = format!("{account}/stack");
    ask("PUT", &container, "").await?;
    let mut heads = Vec::with_capacity(N_HANDLES);
    for n in 0..N_HANDLES {
        let path = format!("{container}/stack-handle-{n:06}");
        ask("PUT", &path, "in progress").await?;
        let expires = 2_147_483_586;
        let signature = sign(Digest::Sha256, key.as_bytes(), "PUT", expires, &path);
        heads.push(format!(
            "PUT {path}?temp_url_sig={signature}&temp_url_expires={expires} HTTP/1.1\r\n\
             host: relay\r\nuser-agent: curl/7.88.1\r\naccept: */*\r\n\
             content-type: application/x-www-form-urlencoded\r\n\
             content-length: {N_BODY_BYTES}\r\n\r\n"
        ));
    }
    Ok(heads)
}

#[derive(Default)]
struct Round {
    seconds: f64,
    latencies_us: Vec<u32>,
    cpu_ticks: u64,
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

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into what fits in memory"
    )]
    fn quantile(&self, quantile: f64) -> u32 {
        let index = (self.latencies_us.len() as f64 * quantile) as usize;
        self.latencies_us.get(index).copied().unwrap_or_default()
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

fn write_request(request: &mut Vec<u8>, head: &str, id: usize) -> io::Result<()> {
    const TAIL: &str = r#""}}"#;
    request.clear();
    write!(
        request,
        "{head}{{\"status\":\"SUCCESS\",\"id\":\"8f9d3c1e-{id:012}\",\"reason\":\"web is up\",\
         \"data\":{{\"network_ip\":\"10.0.0.7\",\"logs_tail\":\""
    )?;
    request.resize(head.len() + N_BODY_BYTES - TAIL.len(), b'x');
    request.extend_from_slice(TAIL.as_bytes());
    Ok(())
}

/// As little HTTP as will do: one request at a time, answers with a Content-Length or without a body.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    n_bytes: usize,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; 8192], n_bytes: 0 })
    }

    async fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.n_bytes = 0;
        loop {
            let n_read = self.stream.read(&mut self.buffer[self.n_bytes..]).await?;
            if n_read == 0 {
                return Err(io::Error::other("the server closed the connection"));
            }
            self.n_bytes += n_read;
            if self.is_whole() {
                break;
            }
        }
        match self.buffer.get(9) {
            Some(b'2') => Ok(()),
            _ => Err(io::Error::other(self.head().to_owned())),
        }
    }

    fn head(&self) -> &str {
        std::str::from_utf8(&self.buffer[..self.n_bytes]).unwrap_or_default()
    }

    /// Answers to a PUT have no body here, and those to a HEAD none anyway.
    fn is_whole(&self) -> bool {
        self.buffer[..self.n_bytes].ends_with(b"\r\n\r\n")
    }
}
