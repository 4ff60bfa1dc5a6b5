//! Senders that do not give up, and watchers, with an account of what they saw and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

use anyhow::{Context as _, Result, ensure};
use e2e::load::{Answer, Connection, Target};
use e2e::relay::Handle;
use e2e::wait;
use serde_json::Value;

/// How long one long-poll of a watcher lasts: less than anybody's patience.
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
    /// What was asked and not answered with success, by senders and watchers.
    failures: Mutex<Vec<String>>,
    /// How often all were sent back to the relay that they began with.
    n_returns: AtomicUsize,
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

impl fmt::Display for Blind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (senders, watchers) = (self.senders.as_secs_f32(), self.watchers.as_secs_f32());
        write!(formatter, "{senders:.2} s for senders, {watchers:.2} s for watchers")
    }
}

impl Load {
    /// Senders to `handles`, which begin at different relays, and one watcher for each handle of `watched`,
    /// with a sender of its own at another relay than the watcher's. All have the same patience.
    pub(crate) fn start(
        addresses: &[String],
        handles: &[Handle],
        watched: &[Handle],
        n_senders: usize,
        patience: Duration,
    ) -> Result<Load> {
        let book = Arc::new(Book::default());
        let mut threads = Vec::new();
        let targets = handles.iter().enumerate().map(|(index, handle)| Target::new(index, handle));
        let targets: Vec<Target> = targets.collect::<Result<_>>()?;
        let way = |relay| Way {
            book: Arc::clone(&book),
            addresses: addresses.to_vec(),
            patience,
            first_relay: relay,
            relay,
            n_returns: 0,
            connection: None,
        };
        for number in 0..n_senders {
            let mine: Vec<Target> =
                targets.iter().skip(number).step_by(n_senders).cloned().collect();
            let way = way(number);
            threads.push(thread::spawn(move || send(way, &mine)));
        }
        for (number, handle) in watched.iter().enumerate() {
            let target = Target::new(handles.len() + number, handle)?;
            let (sending, watching) = (way(number + 1), way(number));
            threads.push(thread::spawn(move || send(sending, &[target])));
            let (_, path) = handle.poll_url.split_once("://").context("no scheme")?;
            let (_, path) = path.split_once('/').context("no path")?;
            let path = format!("/{path}");
            threads.push(thread::spawn(move || watch(watching, number, &path)));
        }
        Ok(Load { book, n_senders: n_senders + watched.len(), threads })
    }

    /// Sends everybody back to the relay that they began with, so that all relays have something to do.
    pub(crate) fn spread(&self) -> Result<()> {
        self.book.n_returns.fetch_add(1, Ordering::Relaxed);
        self.gets_on()
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

    /// How long nobody got anything done, as far as it began before `end` and was over after `begin`.
    pub(crate) fn blind_between(
        &self,
        begin: Instant,
        end: Instant,
        first_watched: usize,
    ) -> Blind {
        let acknowledged = lock(&self.book.acknowledged);
        let recent = acknowledged.iter();
        let recent =
            recent.filter(|signal| signal.acknowledged_at >= begin && signal.first_sent_at < end);
        let senders = recent.map(|signal| signal.acknowledged_at - signal.first_sent_at);
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
            // One that is not seen yet has been waited for until now.
            let at = first.unwrap_or_else(Instant::now);
            if at >= begin && signal.acknowledged_at < end {
                watchers = watchers.max(at.saturating_duration_since(signal.acknowledged_at));
            }
        }
        Blind { senders: senders.max().unwrap_or_default(), watchers }
    }

    /// What went wrong for whoever asked, since this was last called.
    pub(crate) fn take_failures(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.book.failures))
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

/// To one relay, until it fails; then to the next one.
struct Way {
    book: Arc<Book>,
    addresses: Vec<String>,
    patience: Duration,
    first_relay: usize,
    relay: usize,
    n_returns: usize,
    connection: Option<Connection>,
}

impl Way {
    /// The answer, if it is a success.
    fn ask(
        &mut self,
        question: impl FnOnce(&mut Connection) -> io::Result<Answer>,
    ) -> Option<Answer> {
        let n_returns = self.book.n_returns.load(Ordering::Relaxed);
        if n_returns > self.n_returns {
            (self.n_returns, self.relay, self.connection) = (n_returns, self.first_relay, None);
        }
        let address = &self.addresses[self.relay % self.addresses.len()];
        let open = match self.connection.take() {
            Some(open) => Ok(open),
            None => Connection::open_with_limit(address, self.patience),
        };
        let failure = match open.and_then(|mut open| Ok((question(&mut open)?, open))) {
            Ok((answer, open)) if answer.is_success() => {
                self.connection = Some(open);
                return Some(answer);
            }
            Ok((answer, _)) => format!("{}: {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        lock(&self.book.failures).push(failure);
        self.relay += 1;
        wait::pause(RETRY_PAUSE);
        None
    }
}

fn send(mut way: Way, targets: &[Target]) {
    let first = targets.first().map_or(0, |target| target.handle);
    for (number, target) in targets.iter().cycle().enumerate() {
        let id = format!("{first}-{number}");
        let body = format!(r#"{{"status":"SUCCESS","id":"{id}"}}"#);
        let first_sent_at = Instant::now();
        // The same signal until somebody says that it has it, as an agent does.
        while way.ask(|connection| connection.put(&target.path_and_query, &body)).is_none() {
            if way.book.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
        let acknowledged_at = Instant::now();
        lock(&way.book.acknowledged).push(Acknowledged {
            handle: target.handle,
            id,
            first_sent_at,
            acknowledged_at,
        });
        if way.book.is_over.load(Ordering::Relaxed) {
            return;
        }
        wait::pause(REST);
    }
}

/// Long-polls a handle.
fn watch(mut way: Way, watcher: usize, path: &str) {
    let mut version = 0;
    while !way.book.is_over.load(Ordering::Relaxed) {
        let path = format!("{path}&{WATCH}&version={version}");
        let Some(answer) = way.ask(|connection| connection.get(&path)) else { continue };
        let view = serde_json::from_str::<Value>(&answer.body).ok();
        let present = view.and_then(|view| view["version"].as_u64()).unwrap_or_default();
        if present > version {
            version = present;
            lock(&way.book.seen).push(Seen { watcher, version, at: Instant::now() });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
