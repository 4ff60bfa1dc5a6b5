//! What it costs the relay to hold many handles, on either store.
//!
//! For a thousand, a hundred thousand and a million handles, ten to a stack: how long a start takes, from
//! the start of the process until it listens; how much memory the relay has then; and how long a signed PUT
//! and a poll as Heat makes it take, one at a time, each at another handle. The handles are put in by the
//! domain itself, in this process, before the relay is started on the store: the records are those that Heat
//! would have made. Every one of them is used once or not at all, so the records come from the disk's tables
//! and not from what was used before.
//!
//! The stacks that are used belong to the operator's account, the others to accounts of their own: to make a
//! container is one commit after the other in one account. Of every size as many stacks are used, and all of
//! their handles, so that a poll lists as many signals.
//!
//! All relays run at once and are asked in turn, a request each, so that whatever else the machine does is
//! the same for all of them.
//!
//! ```text
//! cargo bench -p heliograph-server --bench growth
//! ```
//! Needs no network, 2 GiB of disk and some minutes, nearly all of them to put the million in.
//! `GROWTH_BENCH_MAX=100000` leaves the largest out. With `GROWTH_BENCH_STORE=etcd` the records are in an etcd
//! (Debian's `etcd-server`) of one member for each size.

#[path = "support/etcd.rs"]
mod etcd;
#[path = "support/relay.rs"]
#[expect(dead_code, reason = "each benchmark needs its part of it")]
mod relay;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heliograph_server::clock::SystemClock;
use heliograph_server::mailbox::limits::{Limits, PLACEHOLDER};
use heliograph_server::mailbox::{
    ContainerAddress, ContainerUpdate, Mailboxes, NewObject, ObjectAddress,
};
use heliograph_server::store::Store;
use heliograph_server::store::embedded::EmbeddedStore;
use signal_protocol::path::{AccountName, ContainerName, ObjectName};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::etcd::Cluster;
use crate::relay::{
    ACCOUNT, Connection, Failure, Server, operator_request, operator_token, print, quantile,
    signed_head, signing_key, write_request,
};

/// How many handles there are.
const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];

/// Room for a million handles and the revisions of putting them in: the default is 2 GiB.
const ETCD_ARGUMENTS: [&str; 6] = [
    "--quota-backend-bytes",
    "8589934592",
    "--auto-compaction-mode",
    "periodic",
    "--auto-compaction-retention",
    "1m",
];

/// What the keys of a relay begin with unless it is told otherwise.
const PREFIX: &str = "heliograph/";

/// Handles of one stack.
const HANDLES_PER_STACK: usize = 10;

/// How many stacks are used, with all of their handles: those of the smallest size.
const N_USED_STACKS: usize = SIZES[0] / HANDLES_PER_STACK;

/// Signals, and as many polls, for each size: each handle that is used once.
const N_REQUESTS: usize = N_USED_STACKS * HANDLES_PER_STACK;

/// How many stacks are made at once, so that they share the store's syncs.
const N_MAKERS: usize = 512;

/// How many accounts the stacks belong to that are only there.
const N_OTHER_ACCOUNTS: usize = 256;

/// Progress is told after so many stacks.
const TOLD_STACKS: usize = 10_000;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure())
}

/// One relay with its handles.
struct Size {
    n_handles: usize,
    server: Server,
    connection: Connection,
    token: String,
    key: String,
    start: Duration,
    anonymous_bytes: u64,
    put_us: Vec<u32>,
    poll_us: Vec<u32>,
    etcd: Option<Cluster>,
    _data_dir: tempfile::TempDir,
}

async fn measure() -> Result<(), Failure> {
    let max = setting("GROWTH_BENCH_MAX").map(|text| text.parse()).transpose()?;
    let is_on_etcd = match setting("GROWTH_BENCH_STORE").as_deref() {
        None | Some("embedded") => false,
        Some("etcd") => true,
        Some(_) => return Err("GROWTH_BENCH_STORE is embedded or etcd".into()),
    };
    let mut sizes = Vec::new();
    for n_handles in SIZES.into_iter().filter(|size| *size <= max.unwrap_or(usize::MAX)) {
        sizes.push(Size::prepare(n_handles, is_on_etcd).await?);
    }
    // Connections that were silent while the next size was put in have been closed.
    for size in &mut sizes {
        size.connection = Connection::open(size.server.address).await?;
    }
    for id in 0..N_REQUESTS {
        for size in &mut sizes {
            size.signal_and_poll(id).await?;
        }
    }
    print(
        "  handles   start ms   memory MiB   after MiB   etcd MiB   put p50 us   p99   poll p50 us   p99   put ratio   poll ratio",
    )?;
    let mut base = None;
    for size in &mut sizes {
        size.put_us.sort_unstable();
        size.poll_us.sort_unstable();
        let (put, poll) = (quantile(&size.put_us, 0.5), quantile(&size.poll_us, 0.5));
        let (base_put, base_poll) = *base.get_or_insert((put, poll));
        let etcd_bytes = size.etcd.as_ref().map(Cluster::anonymous_bytes).transpose()?;
        print(&format!(
            "{:>9}  {:>9}  {:>11}  {:>10}  {:>9}  {put:>11}  {:>4}  {poll:>12}  {:>4}  {:>10.2}  {:>11.2}",
            size.n_handles,
            size.start.as_millis(),
            size.anonymous_bytes >> 20,
            size.server.anonymous_bytes()? >> 20,
            etcd_bytes.map_or_else(|| "-".to_owned(), |bytes| (bytes >> 20).to_string()),
            quantile(&size.put_us, 0.99),
            quantile(&size.poll_us, 0.99),
            f64::from(put) / f64::from(base_put),
            f64::from(poll) / f64::from(base_poll),
        ))?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a program of its own")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Size {
    async fn prepare(n_handles: usize, is_on_etcd: bool) -> Result<Size, Failure> {
        let data_dir = tempfile::tempdir()?;
        let filling = Instant::now();
        let etcd = match is_on_etcd {
            true => Some(Cluster::start(data_dir.path(), 1, &ETCD_ARGUMENTS).await?),
            false => None,
        };
        let store: Arc<dyn Store> = match &etcd {
            Some(etcd) => Arc::new(etcd.store(0, PREFIX)?),
            None => Arc::new(EmbeddedStore::open(data_dir.path())?),
        };
        fill(store, n_handles).await?;
        print(&format!("{n_handles} handles put in within {} s", filling.elapsed().as_secs()))?;
        let url = etcd.as_ref().map(|etcd| etcd.url(0));
        let store = url.as_deref().unwrap_or("embedded");
        // The first start makes the operator's token, so the second one is measured, on files that this
        // machine has in its cache, as after an update of the relay.
        drop(Server::relay_on(data_dir.path(), store)?);
        let starting = Instant::now();
        let server = Server::relay_on(data_dir.path(), store)?;
        let start = starting.elapsed();
        let anonymous_bytes = server.anonymous_bytes()?;
        let token = operator_token(data_dir.path())?;
        let mut connection = Connection::open(server.address).await?;
        let key = signing_key(&mut connection, &token).await?;
        Ok(Size {
            n_handles,
            server,
            connection,
            token,
            key,
            start,
            anonymous_bytes,
            put_us: Vec::with_capacity(N_REQUESTS),
            poll_us: Vec::with_capacity(N_REQUESTS),
            etcd,
            _data_dir: data_dir,
        })
    }

    /// Signals a handle, and asks for its stack's signals as Heat does.
    async fn signal_and_poll(&mut self, id: usize) -> Result<(), Failure> {
        let n_stacks = self.n_handles / HANDLES_PER_STACK;
        let stack = id % N_USED_STACKS * (n_stacks / N_USED_STACKS);
        let container = format!("{ACCOUNT}/{}", stack_name(stack));
        let handle = handle_name(id / N_USED_STACKS);
        let head = signed_head(&self.key, &format!("{container}/{handle}"));
        let mut request = Vec::with_capacity(1024);
        write_request(&mut request, &head, id)?;
        let sent = Instant::now();
        self.connection.ask(&request).await?;
        self.put_us.push(micros(sent));

        let path = format!("{container}?format=json");
        let poll = operator_request(&self.token, "GET", &path, "");
        let sent = Instant::now();
        self.connection.ask(poll.as_bytes()).await?;
        self.poll_us.push(micros(sent));
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

/// Puts the handles into a store, as Heat would: a container for each stack, a placeholder for each handle.
async fn fill(store: Arc<dyn Store>, n_handles: usize) -> Result<(), Failure> {
    let mailboxes = Mailboxes::new(store, Arc::new(SystemClock), Limits::default());
    let n_stacks = n_handles / HANDLES_PER_STACK;
    let used_step = n_stacks / N_USED_STACKS;
    let begin = Instant::now();
    let mut makers: JoinSet<Made> = JoinSet::new();
    for stack in 0..n_stacks {
        if makers.len() >= N_MAKERS
            && let Some(made) = makers.join_next().await
        {
            made?.map_err(|error| error.to_string())?;
        }
        if stack > 0 && stack % TOLD_STACKS == 0 {
            let n_made = stack * HANDLES_PER_STACK;
            print(&format!("  {n_made} handles after {} s", begin.elapsed().as_secs()))?;
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
