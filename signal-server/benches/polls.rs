//! What it costs the relay that many wait for a signal.
//!
//! A hundred thousand long-polls, each on a connection and a handle of its own, come from several addresses of
//! the loopback interface, as one has not ports enough. Printed is: the memory of the relay, and of the
//! kernel for both ends of the connections, before and with them; what a signal and a poll as Heat makes it
//! take before and with them; that a thousand of them, spread over all, end when they are signalled, while
//! the others go on; and that a relay that is told to stop answers all the others before it ends.
//!
//! ```text
//! cargo bench -p heliograph-server --bench polls
//! ```
//! Needs no network. Each long-poll is a file in two processes, so `ulimit -Hn` must be above 101,024: with
//! less there are as many long-polls as it allows, and that is said. `POLLS_BENCH_COUNT` wants fewer.
//! `make bench-polls` runs this in a virtual machine where more files cannot be had.

#[path = "support/relay.rs"]
#[expect(dead_code, reason = "each benchmark needs its part of it")]
mod relay;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::relay::{
    ACCOUNT, Connection, Failure, Server, operator_request, operator_token, print, quantile,
    relay_command, signed_head, signing_key, write_request,
};

/// How many long-polls are wanted.
const N_POLLS: usize = 100_000;

/// Files beside the long-polls: what the relay keeps for itself, and some more.
const N_OTHER_FILES: u64 = 1_024;

/// How many of them are signalled.
const N_SIGNALS: usize = 1_000;

/// How many signals and polls are made as Heat's instances and Heat make them.
const N_OTHERS: usize = 1_000;

/// Signals of one stack: as many as a group of ten instances sends.
const SIGNALS_PER_STACK: usize = 10;

/// Long-polls from one address.
const POLLS_PER_ADDRESS: usize = 5_000;

/// Their ports begin here, below those that the kernel gives: so it need not look for a free one each time.
const FIRST_PORT: u16 = 10_000;

/// How many connections make handles.
const N_MAKERS: usize = 64;

/// Memory is looked at when nothing has happened for a while.
const SETTLE: Duration = Duration::from_secs(2);

/// A signal is answered, and a long-poll ends, within this time.
const LIMIT: Duration = Duration::from_secs(20);

/// How long a relay that stops may take over its answers: it is measured how long it does, on whatever
/// processor there is.
const STOP_GRACE: &str = "60s";

/// It ends some time after the last answer.
const STOP_LIMIT: Duration = Duration::from_secs(70);

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
    let mut command = relay_command(data_dir.path());
    command.args(["--max-long-polls", &max, "--shutdown-grace", STOP_GRACE]);
    let mut relay = Server::start("relay", &mut command)?;
    let admin = relay.admin_address()?;
    let begin = Instant::now();
    let handles = make_handles(&relay, &operator_token(data_dir.path())?, n_polls).await?;
    print(&format!("{n_polls} handles made in {:.1} s", begin.elapsed().as_secs_f32()))?;
    let mut heat = Heat::new(relay.address, data_dir.path()).await?;
    heat.signal_and_poll("nobody waits").await?;
    sleep(SETTLE).await;
    let before = Memory::of(&relay)?;
    print(&format!("{n_polls} handles, nobody waits: {} MiB", before.relay >> 20))?;

    let (begin, cpu_before) = (Instant::now(), relay.cpu_ticks()?);
    let mut polls = open_polls(relay.address, &handles).await?;
    until_waiting(admin, n_polls).await?;
    let opened = begin.elapsed();
    let cpu_us = (relay.cpu_ticks()? - cpu_before) * 10_000 / n_polls as u64;
    sleep(SETTLE).await;
    let with_polls = Memory::of(&relay)?;
    heat.signal_and_poll(&format!("{n_polls} wait")).await?;
    if n_waiting(admin).await? != n_polls {
        return Err("long-polls have ended early".into());
    }
    print(&format!(
        "{n_polls} long-polls, opened in {:.1} s, {cpu_us} us of the relay's processor each: {} MiB, {} bytes each",
        opened.as_secs_f32(),
        with_polls.relay >> 20,
        with_polls.relay.saturating_sub(before.relay) / n_polls as u64
    ))?;
    let kernel = with_polls.kernel.saturating_sub(before.kernel);
    print(&format!(
        "the kernel, for both ends of the connections: {} MiB, {} bytes each",
        kernel >> 20,
        kernel / n_polls as u64
    ))?;

    let n_signals = N_SIGNALS.min(n_polls);
    let mut sender = Connection::open(relay.address).await?;
    let mut woken_us = Vec::with_capacity(n_signals);
    // From the last to the first, so that the numbers of those before stay.
    for number in (0..n_signals).rev().map(|number| number * (n_polls / n_signals)) {
        let mut poll = polls.swap_remove(number);
        woken_us.push(wake(&mut sender, &handles[number], &mut poll).await?);
    }
    print(&format!(
        "{n_signals} of them signalled, one after the other, from the acknowledgement to the whole answer: {}",
        quantiles(woken_us)
    ))?;
    until_waiting(admin, polls.len()).await?;
    print(&format!("the other {} go on", polls.len()))?;
    stop(&mut relay, polls).await
}

/// What is held in memory, in bytes.
struct Memory {
    relay: u64,
    /// All of the kernel's small objects: sockets, files, what is polled.
    kernel: u64,
}

impl Memory {
    fn of(relay: &Server) -> Result<Memory, Failure> {
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"));
        let kibibytes: u64 = line.ok_or("no Slab")?.trim().trim_end_matches(" kB").parse()?;
        Ok(Memory { relay: relay.anonymous_bytes()?, kernel: kibibytes * 1024 })
    }
}

/// Heat and its instances, and what they do while others wait.
struct Heat {
    connection: Connection,
    token: String,
    key: String,
    n_stacks: usize,
}

impl Heat {
    async fn new(address: SocketAddr, data_dir: &Path) -> Result<Heat, Failure> {
        let token = operator_token(data_dir)?;
        let mut connection = Connection::open(address).await?;
        let key = signing_key(&mut connection, &token).await?;
        Ok(Heat { connection, token, key, n_stacks: 0 })
    }

    /// Signals, lists the signals, reads and deletes them, one request after the other.
    async fn signal_and_poll(&mut self, when: &str) -> Result<(), Failure> {
        let (mut put_us, mut poll_us) = (Vec::new(), Vec::new());
        let (mut container, mut signed) = Default::default();
        let mut request = Vec::new();
        for number in 0..N_OTHERS {
            if number % SIGNALS_PER_STACK == 0 {
                (container, signed) = self.make_stack().await?;
            }
            write_request(&mut request, &signed, number)?;
            let sent = Instant::now();
            self.connection.ask(&request).await?;
            put_us.push(micros(sent));

            let sent = Instant::now();
            self.ask("GET", &format!("{container}?format=json"), "").await?;
            let listing = self.connection.head();
            let name = listing.split(r#""name":""#).nth(1).and_then(|rest| rest.split('"').next());
            let signal = format!("{container}/{}", name.ok_or("no signal is listed")?);
            self.ask("GET", &signal, "").await?;
            self.ask("DELETE", &signal, "").await?;
            poll_us.push(micros(sent));
        }
        print(&format!(
            "{when}: a signed PUT {}; a poll as Heat makes it, list, read, delete: {}",
            quantiles(put_us),
            quantiles(poll_us)
        ))?;
        Ok(())
    }

    /// A container, and the head of a signal to its one handle.
    async fn make_stack(&mut self) -> Result<(String, String), Failure> {
        let container = format!("{ACCOUNT}/stack-{}", self.n_stacks);
        self.n_stacks += 1;
        let handle = format!("{container}/stack-handle");
        self.ask("PUT", &container, "").await?;
        self.ask("PUT", &handle, "in progress").await?;
        let signed = signed_head(&self.key, &handle);
        Ok((container, signed))
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(), Failure> {
        let request = operator_request(&self.token, method, path, body);
        Ok(self.connection.ask(request.as_bytes()).await?)
    }
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn quantiles(mut times_us: Vec<u32>) -> String {
    times_us.sort_unstable();
    format!("p50 {} us, p99 {} us", quantile(&times_us, 0.5), quantile(&times_us, 0.99))
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
        let from = Ipv4Addr::new(127, 0, 0, u8::try_from(chunk + 2)?);
        let mut ports = FIRST_PORT..;
        for handle in some {
            let socket = TcpSocket::new_v4()?;
            // Another program may listen there at all addresses.
            while let Err(error) = socket.bind((from, ports.next().ok_or("no port")?).into()) {
                if error.kind() != io::ErrorKind::AddrInUse {
                    return Err(error.into());
                }
            }
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
    read_answer(poll, "complete").await?;
    Ok(micros(acknowledged))
}

/// Tells the relay to stop while all of these wait, and sees to it that each is answered.
async fn stop(relay: &mut Server, polls: Vec<TcpStream>) -> Result<(), Failure> {
    let begin = Instant::now();
    relay.tell_to_stop()?;
    while !relay.has_stopped()? {
        if begin.elapsed() > STOP_LIMIT {
            return Err("the relay does not stop".into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let took = begin.elapsed();
    let n_polls = polls.len();
    let mut n_cut = 0;
    for mut poll in polls {
        n_cut += usize::from(read_answer(&mut poll, "pending").await.is_err());
    }
    print(&format!(
        "told to stop, the relay ended {:.1} s later; {} of {n_polls} long-polls had an answer",
        took.as_secs_f32(),
        n_polls - n_cut
    ))?;
    if n_cut > 0 {
        return Err(format!("{n_cut} long-polls were cut").into());
    }
    Ok(())
}

/// Reads the answer of a long-poll, which is to say this of its handle.
async fn read_answer(poll: &mut TcpStream, state: &str) -> Result<(), Failure> {
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
    if !text.starts_with("HTTP/1.1 200") || !text.contains(&format!(r#""state":"{state}""#)) {
        return Err(format!("a long-poll was answered with {text}").into());
    }
    Ok(())
}
