//! What it costs the relay that many wait for a signal.
//!
//! A hundred thousand long-polls, each on a connection and a handle of its own: the relay's memory before and
//! with them, and that a thousand of them, spread over all, end when they are signalled, while the others go
//! on. They come from several addresses of the loopback interface, as one has 28,000 ports by default.
//!
//! ```text
//! cargo bench -p heliograph-server --bench polls
//! ```
//! Needs no network. Each long-poll is a file in two processes, so `ulimit -Hn` must be above 101,024: with
//! less there are as many long-polls as it allows, and that is said. `POLLS_BENCH_COUNT` wants fewer.

#[path = "support/relay.rs"]
#[expect(dead_code, reason = "each benchmark needs its part of it")]
mod relay;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::relay::{
    Connection, Failure, Server, operator_request, operator_token, print, quantile, relay_command,
};

/// How many long-polls are wanted.
const N_POLLS: usize = 100_000;

/// Files beside the long-polls: what the relay keeps for itself, and some more.
const N_OTHER_FILES: u64 = 1_024;

/// How many of them are signalled.
const N_SIGNALS: usize = 1_000;

/// Long-polls from one address.
const POLLS_PER_ADDRESS: usize = 20_000;

/// How many connections make handles, and how many long-polls are begun at once.
const N_MAKERS: usize = 64;

/// Memory is looked at when nothing has happened for a while.
const SETTLE: Duration = Duration::from_secs(2);

/// A signal is answered, and a long-poll ends, within this time.
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure())
}

/// A handle: the paths, with their signatures, of a signal and of a long-poll.
struct Handle {
    signal: String,
    poll: String,
}

async fn measure() -> Result<(), Failure> {
    let n_polls = n_polls()?;
    let data_dir = tempfile::tempdir()?;
    let max = (n_polls + 1_000).to_string();
    let mut relay =
        Server::start("relay", relay_command(data_dir.path()).args(["--max-long-polls", &max]))?;
    let admin = relay.admin_address()?;
    let handles = make_handles(&relay, &operator_token(data_dir.path())?, n_polls).await?;
    sleep(SETTLE).await;
    let before = relay.anonymous_bytes()?;
    print(&format!("{n_polls} handles, nobody waits: {} MiB", before >> 20))?;

    let begin = Instant::now();
    let mut polls = open_polls(relay.address, &handles).await?;
    until_waiting(admin, n_polls).await?;
    let opened = begin.elapsed();
    sleep(SETTLE).await;
    if n_waiting(admin).await? != n_polls {
        return Err("long-polls have ended early".into());
    }
    let with_polls = relay.anonymous_bytes()?;
    print(&format!(
        "{n_polls} long-polls, opened in {:.1} s: {} MiB, {} bytes each",
        opened.as_secs_f32(),
        with_polls >> 20,
        with_polls.saturating_sub(before) / n_polls as u64
    ))?;

    let n_signals = N_SIGNALS.min(n_polls);
    let mut sender = Connection::open(relay.address).await?;
    let mut woken_us = Vec::with_capacity(n_signals);
    for number in 0..n_signals {
        let number = number * (n_polls / n_signals);
        woken_us.push(wake(&mut sender, &handles[number], &mut polls[number]).await?);
    }
    woken_us.sort_unstable();
    print(&format!(
        "{n_signals} of them signalled, one after the other: from the acknowledgement to the whole answer p50 {} us, p99 {} us",
        quantile(&woken_us, 0.5),
        quantile(&woken_us, 0.99)
    ))?;
    until_waiting(admin, n_polls - n_signals).await?;
    print(&format!("the other {} go on", n_polls - n_signals))?;
    Ok(())
}

/// As many as are wanted, or as this process and the relay may have files for.
#[expect(clippy::disallowed_methods, reason = "a benchmark is a program of its own")]
fn n_polls() -> Result<usize, Failure> {
    let wanted = match std::env::var("POLLS_BENCH_COUNT") {
        Ok(text) => text.parse()?,
        Err(_) => N_POLLS,
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = wanted as u64 + N_OTHER_FILES;
    // To raise the hard limit needs a privilege, which the user of a benchmark may have.
    let has_raised = setrlimit(Resource::RLIMIT_NOFILE, needed.max(hard), needed.max(hard)).is_ok()
        || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let limit = if has_raised { getrlimit(Resource::RLIMIT_NOFILE)?.0 } else { soft };
    let possible = usize::try_from(limit.saturating_sub(N_OTHER_FILES))?;
    if possible < wanted {
        print(&format!("{wanted} are wanted; {limit} files may be open, so there are {possible}"))?;
    }
    Ok(wanted.min(possible))
}

/// Makes the handles over the native surface, over several connections at once.
async fn make_handles(
    relay: &Server,
    token: &str,
    n_handles: usize,
) -> Result<Vec<Handle>, Failure> {
    let body = r#"{"timeout":"10m"}"#;
    let request = operator_request(token, "POST", "/api/v1/handles", body);
    let mut makers = JoinSet::new();
    for maker in 0..N_MAKERS {
        let count = n_handles / N_MAKERS + usize::from(maker < n_handles % N_MAKERS);
        let (address, request) = (relay.address, request.clone());
        makers.spawn(async move {
            let mut connection =
                Connection::open(address).await.map_err(|error| error.to_string())?;
            let mut handles = Vec::with_capacity(count);
            for _ in 0..count {
                let made = connection.ask(request.as_bytes()).await;
                made.map_err(|error| error.to_string())?;
                handles.push(handle_in(connection.head()).ok_or("an answer without URLs")?);
            }
            Ok::<_, String>(handles)
        });
    }
    let mut handles = Vec::with_capacity(n_handles);
    while let Some(made) = makers.join_next().await {
        handles.extend(made??);
    }
    Ok(handles)
}

fn handle_in(answer: &str) -> Option<Handle> {
    let path = |key: &str| {
        let url = answer.split(&format!("\"{key}\":\"")).nth(1)?.split('"').next()?;
        let (_, path) = url.split_once("/api/")?;
        Some(format!("/api/{path}"))
    };
    Some(Handle { signal: path("signal_url")?, poll: path("poll_url")? })
}

/// Sends all long-polls and leaves their answers for later.
async fn open_polls(address: SocketAddr, handles: &[Handle]) -> Result<Vec<TcpStream>, Failure> {
    let mut polls = Vec::with_capacity(handles.len());
    for (chunk, some) in handles.chunks(POLLS_PER_ADDRESS).enumerate() {
        let last = u8::try_from(chunk + 2)?;
        for handle in some {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
            let mut poll = socket.connect(address).await?;
            let request =
                format!("GET {}&wait=55s HTTP/1.1\r\nhost: {address}\r\n\r\n", handle.poll);
            poll.write_all(request.as_bytes()).await?;
            polls.push(poll);
        }
    }
    Ok(polls)
}

/// Waits until as many wait as should.
async fn until_waiting(admin: SocketAddr, expect: usize) -> Result<(), Failure> {
    let waiting = async {
        while n_waiting(admin).await? != expect {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    match timeout(LIMIT, waiting).await {
        Ok(done) => done,
        Err(_elapsed) => Err(format!("{} wait, not {expect}", n_waiting(admin).await?).into()),
    }
}

/// As the relay itself counts them.
async fn n_waiting(admin: SocketAddr) -> Result<usize, Failure> {
    let mut connection = Connection::open(admin).await?;
    connection.ask(b"GET /metrics HTTP/1.1\r\nhost: relay\r\n\r\n").await?;
    let metrics = connection.head();
    let line = metrics.lines().find_map(|line| line.strip_prefix("heliograph_http_long_polls "));
    Ok(line.ok_or("no metric of long-polls")?.trim().parse()?)
}

/// Signals a handle, and returns how long after the acknowledgement its long-poll was answered.
async fn wake(
    sender: &mut Connection,
    handle: &Handle,
    poll: &mut TcpStream,
) -> Result<u32, Failure> {
    let body = r#"{"status":"SUCCESS","id":"up"}"#;
    let request = format!(
        "PUT {} HTTP/1.1\r\nhost: relay\r\ncontent-length: {}\r\n\r\n{body}",
        handle.signal,
        body.len()
    );
    sender.ask(request.as_bytes()).await?;
    let acknowledged = Instant::now();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.ends_with(b"}") {
        let n_read = timeout(LIMIT, poll.read(&mut piece)).await??;
        if n_read == 0 {
            return Err("a long-poll was cut".into());
        }
        answer.extend_from_slice(&piece[..n_read]);
    }
    let text = String::from_utf8_lossy(&answer);
    if !text.starts_with("HTTP/1.1 200") || !text.contains(r#""state":"complete""#) {
        return Err(format!("a long-poll was answered with {text}").into());
    }
    Ok(u32::try_from(acknowledged.elapsed().as_micros()).unwrap_or(u32::MAX))
}
