//! What relays on one etcd have in common.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::etcd::{Etcd, Place};
use e2e::load::{Connection, Target};
use serde_json::Value;

use crate::faults::Fleet;

/// How many long-polls are woken for the figure.
const N_WAKES: usize = 100;

fn etcd() -> Result<Etcd> {
    Etcd::start(&[Place::Loopback])
}

pub(crate) fn long_poll() -> Result<()> {
    let etcd = etcd()?;
    let fleet = Fleet::start(&etcd, 2)?;
    let (waiting, signalled) = (fleet.relay(0)?, fleet.relay(1)?);
    let handle = waiting.create_handle(1000, Duration::from_secs(600))?;
    let path = Target::new(0, &handle)?.path_and_query;
    let (_, poll_path) = handle.poll_url.split_once("://").context("no scheme")?;
    let (_, poll_path) = poll_path.split_once('/').context("no path")?;
    let mut sender = Connection::open(signalled.address())?;
    let mut waiter = Connection::open(waiting.address())?;
    let (woken, wakes) = mpsc::channel();
    let poll_path = format!("/{poll_path}");
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
