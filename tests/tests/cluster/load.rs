//! Senders that do not give up, and watchers, with an account of what they saw and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::load::{Connection, Target};
use e2e::relay::Handle;
use e2e::wait;
use serde_json::Value;

/// How long a sender waits for an answer before it asks another relay: longer than a relay needs to find
/// another member of etcd, so that a relay that answers late is not left.
const ANSWER_LIMIT: Duration = Duration::from_millis(3_500);

/// How long one long-poll of a watcher lasts: less than it waits for the answer.
const WATCH: &str = "wait=2s";

/// How long a sender rests after a signal. The scene is about faults; a relay with nothing to do would show
/// them as well.
const REST: Duration = Duration::from_millis(15);

/// How long a sender rests after a refusal, as senders are told to.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How long the load may take to get on after a fault, before that is a failure.
const RESUME_LIMIT: Duration = Duration::from_secs(60);

/// A signal that was acknowledged.
#[derive(Clone, Debug)]
struct Acknowledged {
    handle: usize,
    id: String,
    first_sent_at: Instant,
    acknowledged_at: Instant,
}

/// What a watcher of one handle saw: which version, and when.
#[derive(Clone, Debug)]
struct Seen {
    watcher: usize,
    version: u64,
    at: Instant,
}

/// What is shared by all threads of a load.
#[derive(Debug, Default)]
struct Book {
    acknowledged: Mutex<Vec<Acknowledged>>,
    seen: Mutex<Vec<Seen>>,
    is_over: AtomicBool,
}

/// Senders and watchers at work.
#[derive(Debug)]
pub(crate) struct Load {
    book: Arc<Book>,
    n_senders: usize,
    threads: Vec<JoinHandle<()>>,
}

/// How long nobody got anything done, at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blind {
    /// From the first try of a signal to its acknowledgement.
    pub(crate) senders: Duration,
    /// From the acknowledgement of a signal to the end of a long-poll at another relay.
    pub(crate) watchers: Duration,
}

impl Load {
    /// Senders to `handles`, which begin at different relays, and one watcher for each handle of `watched`,
    /// with a sender of its own at another relay than the watcher's.
    pub(crate) fn start(
        addresses: &[String],
        handles: &[Handle],
        watched: &[Handle],
        n_senders: usize,
    ) -> Result<Load> {
        let book = Arc::new(Book::default());
        let mut threads = Vec::new();
        let targets = handles.iter().enumerate().map(|(index, handle)| Target::new(index, handle));
        let targets: Vec<Target> = targets.collect::<Result<_>>()?;
        for number in 0..n_senders {
            let mine: Vec<Target> =
                targets.iter().skip(number).step_by(n_senders).cloned().collect();
            let sender = Sender { book: book.clone(), addresses: addresses.to_vec(), number };
            threads.push(thread::spawn(move || sender.work(&mine)));
        }
        for (number, handle) in watched.iter().enumerate() {
            let target = Target::new(handles.len() + number, handle)?;
            let sender =
                Sender { book: book.clone(), addresses: addresses.to_vec(), number: number + 1 };
            threads.push(thread::spawn(move || sender.work(&[target])));
            let (_, path) = handle.poll_url.split_once("://").context("no scheme")?;
            let (_, path) = path.split_once('/').context("no path")?;
            let path = format!("/{path}");
            let (book, addresses) = (book.clone(), addresses.to_vec());
            threads.push(thread::spawn(move || watch(&book, &addresses, number, &path)));
        }
        Ok(Load { book, n_senders: n_senders + watched.len(), threads })
    }

    /// Waits until every sender has got on by some signals that it began from now on.
    pub(crate) fn gets_on(&self) -> Result<()> {
        const N_SIGNALS: usize = 5;
        let begin = Instant::now();
        wait::until("the load to get on", RESUME_LIMIT, || {
            ensure!(!self.threads.iter().any(JoinHandle::is_finished), "a sender has ended");
            let acknowledged = lock(&self.book.acknowledged);
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for signal in acknowledged.iter().filter(|signal| signal.first_sent_at >= begin) {
                let sender = signal.id.rsplit_once('-').map_or("", |(sender, _)| sender);
                *counts.entry(sender).or_default() += 1;
            }
            let n_on = counts.values().filter(|count| **count >= N_SIGNALS).count();
            Ok((n_on >= self.n_senders).then_some(()))
        })
    }

    /// How long nobody got anything done since then.
    pub(crate) fn blind_since(&self, since: Instant, first_watched: usize) -> Blind {
        let acknowledged = lock(&self.book.acknowledged);
        let recent = acknowledged.iter().filter(|signal| signal.acknowledged_at >= since);
        let senders = recent.clone().map(|signal| signal.acknowledged_at - signal.first_sent_at);
        // A handle begins with version 1, so the n-th signal to a watched one makes its version n + 1.
        let mut watchers = Duration::ZERO;
        let seen = lock(&self.book.seen);
        let mut versions: BTreeMap<usize, u64> = BTreeMap::new();
        for signal in acknowledged.iter().filter(|signal| signal.handle >= first_watched) {
            let version = versions.entry(signal.handle).or_insert(1);
            *version += 1;
            let watcher = signal.handle - first_watched;
            let first = seen
                .iter()
                .find(|seen| seen.watcher == watcher && seen.version >= *version)
                .map(|seen| seen.at);
            if signal.acknowledged_at >= since
                && let Some(at) = first
            {
                watchers = watchers.max(at.saturating_duration_since(signal.acknowledged_at));
            }
        }
        Blind { senders: senders.max().unwrap_or_default(), watchers }
    }

    /// Ends the load, and gives the ids that were acknowledged for each handle.
    pub(crate) fn end(self) -> Result<BTreeMap<usize, BTreeSet<String>>> {
        self.book.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))?;
        }
        let mut ids: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for signal in lock(&self.book.acknowledged).iter() {
            ids.entry(signal.handle).or_default().insert(signal.id.clone());
        }
        Ok(ids)
    }
}

struct Sender {
    book: Arc<Book>,
    addresses: Vec<String>,
    number: usize,
}

impl Sender {
    fn work(&self, targets: &[Target]) {
        let mut relay = self.number;
        let mut connection = None;
        let first = targets.first().map_or(0, |target| target.handle);
        for (number, target) in targets.iter().cycle().enumerate() {
            let id = format!("{first}-{number}");
            let body = format!(r#"{{"status":"SUCCESS","id":"{id}"}}"#);
            let first_sent_at = Instant::now();
            // The same signal until somebody says that it has it, as an agent does.
            while !self.put(&mut connection, relay, target, &body) {
                if self.book.is_over.load(Ordering::Relaxed) {
                    return;
                }
                relay += 1;
                wait::pause(RETRY_PAUSE);
            }
            let acknowledged_at = Instant::now();
            lock(&self.book.acknowledged).push(Acknowledged {
                handle: target.handle,
                id,
                first_sent_at,
                acknowledged_at,
            });
            if self.book.is_over.load(Ordering::Relaxed) {
                return;
            }
            wait::pause(REST);
        }
    }

    fn put(
        &self,
        connection: &mut Option<Connection>,
        relay: usize,
        target: &Target,
        body: &str,
    ) -> bool {
        let address = &self.addresses[relay % self.addresses.len()];
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open_with_limit(address, ANSWER_LIMIT),
        };
        let Ok(mut open) = open else { return false };
        match open.put(&target.path_and_query, body) {
            Ok(answer) if answer.is_success() => {
                *connection = Some(open);
                true
            }
            _ => false,
        }
    }
}

/// Long-polls a handle, at the next relay when one is away.
fn watch(book: &Book, addresses: &[String], number: usize, path: &str) {
    let (mut relay, mut version) = (number, 0);
    let mut connection = None;
    while !book.is_over.load(Ordering::Relaxed) {
        let address = &addresses[relay % addresses.len()];
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open_with_limit(address, ANSWER_LIMIT),
        };
        let answer = open.and_then(|mut open| {
            let answer = open.get(&format!("{path}&{WATCH}&version={version}"))?;
            connection = Some(open);
            Ok(answer)
        });
        let view = answer.ok().filter(|answer| answer.is_success());
        let view = view.and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
        let Some(present) = view.and_then(|view| view["version"].as_u64()) else {
            connection = None;
            relay += 1;
            wait::pause(RETRY_PAUSE);
            continue;
        };
        if present > version {
            version = present;
            lock(&book.seen).push(Seen { watcher: number, version, at: Instant::now() });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
