//! What it costs the relay to hold many handles, on the embedded store.
//!
//! For a thousand, a hundred thousand and a million handles, ten to a stack: how long a start takes, from
//! the start of the process until it listens; how much memory the relay has then; and how long a signed PUT
//! and a poll as Heat makes it take, one at a time, each at another handle. The handles are put in by the
//! domain itself, in this process, before the relay is started on the directory. Every one of them is used
//! once or not at all, so the records come from the disk's tables and not from what was used before.
//!
//! The stacks that are used belong to the operator's account, the others to accounts of their own: to make a
//! container is one commit after the other in one account.
//!
//! To be compared, sizes are measured in turn, several rounds of each, with all relays running at once.
//!
//! ```text
//! cargo bench -p heliograph-server --bench growth
//! ```
//! Needs no network, 2 GiB of disk and some minutes, nearly all of them to put the million in.
//! `GROWTH_BENCH_MAX=100000` leaves the largest out.

#[path = "support/relay.rs"]
#[expect(dead_code, reason = "each benchmark needs its part of it")]
mod relay;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heliograph_server::clock::SystemClock;
use heliograph_server::mailbox::limits::{Limits, PLACEHOLDER};
use heliograph_server::mailbox::{
    ContainerAddress, ContainerUpdate, Mailboxes, NewObject, ObjectAddress,
};
use heliograph_server::store::embedded::EmbeddedStore;
use signal_protocol::path::{AccountName, ContainerName, ObjectName};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::relay::{
    ACCOUNT, Connection, Failure, Server, operator_request, operator_token, print, quantile,
    signed_head, signing_key, write_request,
};

/// How many handles there are.
const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];

/// Handles of one stack.
const HANDLES_PER_STACK: usize = 10;

/// How many stacks are made at once, so that they share the store's syncs.
const N_MAKERS: usize = 512;

/// How many accounts the stacks belong to that are only there.
const N_OTHER_ACCOUNTS: usize = 256;

/// Rounds for each size. All together use each handle of the smallest size about once.
const N_ROUNDS: usize = 10;

/// Signals, and as many polls, in one round.
const ROUND_REQUESTS: usize = 100;

/// How many handles of each size are used.
const N_USED: usize = N_ROUNDS * ROUND_REQUESTS;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure())
}

/// One relay with its handles.
struct Size {
    n_handles: usize,
    server: Server,
    token: String,
    key: String,
    start: Duration,
    anonymous_bytes: u64,
    put_us: Vec<u32>,
    poll_us: Vec<u32>,
    _data_dir: tempfile::TempDir,
}

async fn measure() -> Result<(), Failure> {
    let max = largest_size()?;
    let mut sizes = Vec::new();
    for n_handles in SIZES.into_iter().filter(|size| *size <= max) {
        sizes.push(Size::prepare(n_handles).await?);
    }
    for round in 0..N_ROUNDS {
        for size in &mut sizes {
            size.run(round).await?;
        }
    }
    print(
        "  handles   start ms   memory MiB   after MiB   put p50 us   p99   poll p50 us   p99   put ratio   poll ratio",
    )?;
    let mut base = None;
    for size in &mut sizes {
        size.put_us.sort_unstable();
        size.poll_us.sort_unstable();
        let (put, poll) = (quantile(&size.put_us, 0.5), quantile(&size.poll_us, 0.5));
        let (base_put, base_poll) = *base.get_or_insert((put, poll));
        print(&format!(
            "{:>9}  {:>9}  {:>11}  {:>10}  {put:>11}  {:>4}  {poll:>12}  {:>4}  {:>10.2}  {:>11.2}",
            size.n_handles,
            size.start.as_millis(),
            size.anonymous_bytes >> 20,
            size.server.anonymous_bytes()? >> 20,
            quantile(&size.put_us, 0.99),
            quantile(&size.poll_us, 0.99),
            f64::from(put) / f64::from(base_put),
            f64::from(poll) / f64::from(base_poll),
        ))?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a program of its own")]
fn largest_size() -> Result<usize, Failure> {
    match std::env::var("GROWTH_BENCH_MAX") {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(usize::MAX),
    }
}

impl Size {
    async fn prepare(n_handles: usize) -> Result<Size, Failure> {
        let data_dir = tempfile::tempdir()?;
        let filling = Instant::now();
        fill(data_dir.path(), n_handles).await?;
        print(&format!("{n_handles} handles put in within {} s", filling.elapsed().as_secs()))?;
        // The first start makes the operator's token, so the second one is measured, on files that this
        // machine has in its cache, as after an update of the relay.
        drop(Server::relay(data_dir.path())?);
        let starting = Instant::now();
        let server = Server::relay(data_dir.path())?;
        let start = starting.elapsed();
        let anonymous_bytes = server.anonymous_bytes()?;
        let token = operator_token(data_dir.path())?;
        let mut connection = Connection::open(server.address).await?;
        let key = signing_key(&mut connection, &token).await?;
        Ok(Size {
            n_handles,
            server,
            token,
            key,
            start,
            anonymous_bytes,
            put_us: Vec::new(),
            poll_us: Vec::new(),
            _data_dir: data_dir,
        })
    }

    /// Signals some handles that are spread over all, and polls the stack of each.
    async fn run(&mut self, round: usize) -> Result<(), Failure> {
        // One of each round's own: the relay closes one that is silent while another size is put in.
        let mut connection = Connection::open(self.server.address).await?;
        let mut request = Vec::with_capacity(1024);
        for n in 0..ROUND_REQUESTS {
            let id = n * N_ROUNDS + round;
            let handle = id * self.n_handles / N_USED;
            let (stack, handle) = (handle / HANDLES_PER_STACK, handle % HANDLES_PER_STACK);
            let container = format!("{ACCOUNT}/{}", stack_name(stack));
            let head = signed_head(&self.key, &format!("{container}/{}", handle_name(handle)));
            write_request(&mut request, &head, id)?;
            let sent = Instant::now();
            connection.ask(&request).await?;
            self.put_us.push(micros(sent));

            let path = format!("{container}?format=json&prefix={}", handle_name(handle));
            let poll = operator_request(&self.token, "GET", &path, "");
            let sent = Instant::now();
            connection.ask(poll.as_bytes()).await?;
            self.poll_us.push(micros(sent));
        }
        Ok(())
    }
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn stack_name(stack: usize) -> String {
    format!("{stack:08x}-9d3c-4f1e-8a5b-6f0d2c7e1b34")
}

fn handle_name(handle: usize) -> String {
    format!("web-{handle}-handle-qv3x7zkd2m5a")
}

/// What came of making a stack, in a task of its own.
type Made = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Puts the handles into a data directory, as Heat would: a container for each stack, a placeholder for each
/// handle.
async fn fill(data_dir: &Path, n_handles: usize) -> Result<(), Failure> {
    let store = Arc::new(EmbeddedStore::open(data_dir)?);
    let mailboxes = Mailboxes::new(store, Arc::new(SystemClock), Limits::default());
    let n_stacks = n_handles / HANDLES_PER_STACK;
    let used_step = (n_stacks / N_USED).max(1);
    let mut makers: JoinSet<Made> = JoinSet::new();
    for stack in 0..n_stacks {
        if makers.len() >= N_MAKERS
            && let Some(made) = makers.join_next().await
        {
            made?.map_err(|error| error.to_string())?;
        }
        let account = match stack % used_step {
            0 => AccountName::parse("AUTH_operator")?,
            _ => AccountName::parse(&format!("AUTH_{:032x}", stack % N_OTHER_ACCOUNTS))?,
        };
        let container = ContainerName::parse(&stack_name(stack))?;
        let container = ContainerAddress { account, container };
        makers.spawn(make_stack(mailboxes.clone(), container));
    }
    while let Some(made) = makers.join_next().await {
        made?.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn make_stack(mailboxes: Mailboxes, container: ContainerAddress) -> Made {
    mailboxes.put_container(&container, &ContainerUpdate::default()).await?;
    for handle in 0..HANDLES_PER_STACK {
        let object = ObjectName::parse(&handle_name(handle))?;
        let address = ObjectAddress { container: container.clone(), object };
        let new = NewObject { content_type: None, body: Bytes::from_static(PLACEHOLDER) };
        mailboxes.put_as_owner(&address, new).await?;
    }
    Ok(())
}
