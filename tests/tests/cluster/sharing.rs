//! What relays on one etcd have in common.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::etcd::{Etcd, Place};
use e2e::load::{Connection, Target};
use e2e::relay::{Handle, Relay};
use e2e::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::faults::Fleet;

/// How many long-polls are woken for the figure.
const N_WAKES: usize = 100;

/// How long relays on busy cores may take to see that etcd is back, or a lease to end and a job to be taken.
const LIMIT: Duration = Duration::from_secs(60);

fn etcd() -> Result<Etcd> {
    Etcd::start(&[Place::Loopback])
}

pub(crate) fn long_poll() -> Result<()> {
    let etcd = etcd()?;
    let fleet = Fleet::start(&etcd, 2)?;
    let (waiting, signalled) = (fleet.relay(0)?, fleet.relay(1)?);
    let handle = waiting.create_handle(1000, Duration::from_secs(600))?;
    let path = Target::new(0, &handle)?.path_and_query;
    let poll_path = poll_path(&handle)?;
    let mut sender = Connection::open(signalled.address())?;
    let mut waiter = Connection::open(waiting.address())?;
    let (woken, wakes) = mpsc::channel();
    let watcher = thread::spawn(move || -> Result<()> {
        // A handle begins with version 1.
        for version in 1..=N_WAKES {
            // Far longer than the scene: it ends because it is woken.
            let answer = waiter.get(&format!("{poll_path}&wait=50s&version={version}"))?;
            let view: Value = serde_json::from_str(&answer.body)?;
            woken.send((Instant::now(), view["version"].as_u64()))?;
        }
        Ok(())
    });
    let mut lags = Vec::new();
    for number in 0..N_WAKES {
        let body = format!(r#"{{"status":"SUCCESS","id":"{number}"}}"#);
        let answer = sender.put(&path, &body)?;
        let acknowledged_at = Instant::now();
        ensure!(answer.is_success(), "a signal was refused: {answer:?}");
        let (woken_at, version) = wakes.recv_timeout(Duration::from_secs(30))?;
        ensure!(version == Some(number as u64 + 2), "woken to see version {version:?}");
        lags.push(woken_at.saturating_duration_since(acknowledged_at));
    }
    watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
    lags.sort_unstable();
    eprintln!(
        "    from acknowledgement to the end of a long-poll at another relay: p50 {:?}, p99 {:?}",
        lags[N_WAKES / 2],
        lags[N_WAKES * 99 / 100]
    );
    Ok(())
}

pub(crate) fn urls() -> Result<()> {
    let etcd = etcd()?;
    let fleet = Fleet::start(&etcd, 2)?;
    let handle = fleet.relay(0)?.create_handle(1, Duration::from_secs(60))?;
    let target = Target::new(0, &handle)?;
    let body = r#"{"status":"SUCCESS","id":"a","data":"hello"}"#;
    // The same signal at both: the second one repeats it.
    for address in &fleet.addresses {
        let answer = Connection::open(address)?.put(&target.path_and_query, body)?;
        ensure!(answer.is_success(), "{answer:?}");
    }
    let waited = fleet.relay(1)?.wait(&handle, Duration::from_secs(10))?;
    ensure!(waited.exit_code == Some(0), "{waited:?}");
    ensure!(waited.view["version"] == 2, "a repeated signal was stored: {waited:?}");
    Ok(())
}

/// Where a handle is long-polled, at whichever relay.
fn poll_path(handle: &Handle) -> Result<String> {
    let (_, path) = handle.poll_url.split_once("://").context("no scheme")?;
    let (_, path) = path.split_once('/').context("no path")?;
    Ok(format!("/{path}"))
}

/// Waits until a relay holds its only long-poll.
fn until_held(relay: &Relay) -> Result<()> {
    wait::until("the long-poll to be held", LIMIT, || {
        let metrics = reqwest::blocking::get(format!("{}/metrics", relay.admin))?.text()?;
        Ok(metrics.lines().any(|line| line == "heliograph_http_long_polls 1").then_some(()))
    })
}

/// A relay is away while a signal comes by another one and etcd forgets that it ever changed: the relay cannot
/// take its watch up where it was, and whoever waits there has to be woken all the same.
pub(crate) fn compaction() -> Result<()> {
    let mut etcd = etcd()?;
    let fleet = Fleet::start(&etcd, 2)?;
    let (waiting, signalled) = (fleet.relay(0)?, fleet.relay(1)?);
    let handle = waiting.create_handle(1000, Duration::from_secs(600))?;
    let path = Target::new(0, &handle)?.path_and_query;
    let poll_path = format!("{}&wait=50s&version=1", poll_path(&handle)?);
    let mut waiter = Connection::open_with_limit(waiting.address(), LIMIT)?;
    let watcher = thread::spawn(move || -> Result<(Instant, Value)> {
        let answer = waiter.get(&poll_path)?;
        Ok((Instant::now(), serde_json::from_str(&answer.body)?))
    });
    until_held(waiting)?;
    let revision = revision(&etcd)?;
    // Without a connection to etcd when it stops, so that nothing can have arrived in its sockets.
    etcd.kill(0)?;
    waiting.signal(Signal::SIGSTOP)?;
    etcd.start_member(0)?;
    wait::until("a signal to be taken", LIMIT, || {
        let put = Connection::open(signalled.address())?.put(&path, r#"{"id":"a"}"#)?;
        Ok(put.is_success().then_some(()))
    })?;
    etcd.control(&["compact", &self::revision(&etcd)?.to_string()])?;
    let forgotten = etcd.control(&["get", "nothing", "--rev", &revision.to_string()]);
    ensure!(forgotten.is_err(), "revision {revision} is not compacted: {forgotten:?}");
    ensure!(!watcher.is_finished(), "the long-poll ended too soon");
    waiting.signal(Signal::SIGCONT)?;
    let continued_at = Instant::now();
    let (woken_at, view) = watcher.join().map_err(|_| anyhow!("the watcher panicked"))??;
    ensure!(view["version"] == 2, "woken to see {view}");
    eprintln!(
        "    behind a compacted revision, a long-poll ended {:.2} s after its relay went on",
        woken_at.saturating_duration_since(continued_at).as_secs_f32()
    );
    Ok(())
}

/// etcd is given what a snapshot of it held, under relays that go on running and remember a later revision: they
/// have to hear of one another again before it is there.
pub(crate) fn restored() -> Result<()> {
    let mut etcd = etcd()?;
    let fleet = Fleet::start(&etcd, 2)?;
    let (waiting, signalled) = (fleet.relay(0)?, fleet.relay(1)?);
    let handle = waiting.create_handle(1000, Duration::from_secs(600))?;
    let path = Target::new(0, &handle)?.path_and_query;
    let poll_path = format!("{}&wait=50s&version=1", poll_path(&handle)?);
    let snapshot = etcd.back_up()?;
    let before = revision(&etcd)?;
    for number in 0..60 {
        let body = format!(r#"{{"id":"lost {number}"}}"#);
        let put = Connection::open(signalled.address())?.put(&path, &body)?;
        ensure!(put.is_success(), "{put:?}");
    }
    let after = revision(&etcd)?;
    etcd.kill(0)?;
    etcd.restore(&snapshot)?;
    etcd.start_member(0)?;
    wait::until("the relays to find etcd again", LIMIT, || {
        let mut waiter = Connection::open(waiting.address())?;
        let answer = waiter.get(&poll_path.replace("wait=50s", "wait=0s"))?;
        Ok(answer.is_success().then_some(()))
    })?;
    let mut waiter = Connection::open_with_limit(waiting.address(), LIMIT)?;
    let (woken, wake) = mpsc::channel();
    let watcher = thread::spawn(move || -> Result<()> {
        let answer = waiter.get(&poll_path)?;
        woken.send(serde_json::from_str::<Value>(&answer.body)?)?;
        Ok(())
    });
    until_held(waiting)?;
    let put = Connection::open(signalled.address())?.put(&path, r#"{"id":"a"}"#)?;
    ensure!(put.is_success(), "{put:?}");
    let now = revision(&etcd)?;
    ensure!((before..after).contains(&now), "at {now}, restored to {before}, had been at {after}");
    // Well before it would end by itself.
    let view = wake.recv_timeout(Duration::from_secs(30)).context("nobody was woken")?;
    ensure!(view["version"] == 2, "woken to see {view}");
    watcher.join().map_err(|_| anyhow!("the watcher panicked"))?
}

/// What etcd is at.
fn revision(etcd: &Etcd) -> Result<i64> {
    let answer: Value = serde_json::from_str(&etcd.control(&["get", "nothing", "-w", "json"])?)?;
    answer["header"]["revision"].as_i64().context("no revision")
}

/// Whoever removes what is old is killed, and another relay does it.
pub(crate) fn sweeps() -> Result<()> {
    let etcd = etcd()?;
    let count = |prefix: &str| -> Result<u64> {
        let prefix = format!("heliograph/{prefix}");
        let counted = etcd.control(&["get", &prefix, "--prefix", "--keys-only", "-w", "json"])?;
        let counted: Value = serde_json::from_str(&counted)?;
        Ok(counted["count"].as_u64().unwrap_or_default())
    };
    let mut fleet = Fleet::start(&etcd, 1)?;
    wait::until("the first relay to have the job", LIMIT, || {
        Ok((count("lead/sweep")? == 1).then_some(()))
    })?;
    fleet.add(2)?;
    // Removing a handle leaves a note, and what lies below it to the next sweep, a minute after the last one.
    let relay = fleet.relay(1)?;
    let handle = relay.create_handle_quickly()?;
    relay.delete_handle(&handle)?;
    ensure!(count("G")? == 1, "no note was left");
    fleet.kill(0)?;
    let killed_at = Instant::now();
    wait::until("another relay to sweep", LIMIT, || Ok((count("G")? == 0).then_some(())))?;
    eprintln!(
        "    {:.1} s after the relay that sweeps was killed, another one has swept",
        killed_at.elapsed().as_secs_f32()
    );
    Ok(())
}
