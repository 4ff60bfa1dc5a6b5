//! A relay's store moves to etcd and back, while senders go on trying.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::etcd::{Etcd, Place};
use e2e::load::{Connection, Target};
use e2e::process::Process;
use e2e::relay::{Handle, Relay};
use e2e::{programs, wait};
use tempfile::TempDir;

use crate::faults::nothing_lost_or_doubled;
use crate::load::Load;

/// Enough that a migration can be killed in its middle.
const N_OLD_SIGNALS: usize = 6_000;
const N_OLD_HANDLES: usize = 8;
const N_HANDLES: usize = 4;

/// How long a migration of this size may take on busy cores.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn both_ways() -> Result<()> {
    let etcd = Etcd::start(&[Place::Loopback])?;
    let (old, new) = (TempDir::new()?, TempDir::new()?);
    let relay = Relay::start(old.path())?;
    let address = relay.address().to_owned();
    let (old_handles, handles) =
        (relay.create_handles(N_OLD_HANDLES)?, relay.create_handles(N_HANDLES)?);
    fill(&address, &old_handles)?;
    let load = Load::start(std::slice::from_ref(&address), &handles, &[], N_HANDLES, LIMIT)?;
    load.gets_on()?;

    relay.kill()?;
    let (embedded, store) = (format!("embedded:{}", old.path().display()), etcd.url());
    move_with_interruption(&embedded, &store)?;
    let flags = ["--store", store.as_str()];
    let relay = Relay::start_with(old.path(), &address, &flags)?;
    load.gets_on().context("on etcd")?;

    let refused = migration(&store, &embedded)?;
    ensure!(refused.contains("stop them first"), "a store in use was moved: {refused}");
    relay.stop()?;
    wait::until("the relay's leases to end", LIMIT, || {
        let said = migration(&store, &embedded)?;
        Ok((!said.contains("stop them first")).then_some(()))
    })?;
    // The first store is what it was when it was left: it is not overwritten by chance.
    let said = migration(&store, &embedded)?;
    ensure!(said.contains("or not so"), "another store was overwritten: {said}");
    let embedded = format!("embedded:{}", new.path().display());
    move_with_interruption(&store, &embedded)?;
    let relay = Relay::start_at(new.path(), &address)?;
    load.gets_on().context("back on the embedded store")?;

    let acknowledged = load.end()?;
    let all: Vec<&Handle> = handles.iter().collect();
    nothing_lost_or_doubled(&all, &acknowledged, &[&relay])?;
    for handle in &old_handles {
        let view = relay.poll(handle)?;
        let n_signals = view["signals"].as_array().context("no signals")?.len();
        ensure!(n_signals == N_OLD_SIGNALS / N_OLD_HANDLES, "{n_signals} of the old signals");
    }
    Ok(())
}

/// Signals that are there before anything is moved.
fn fill(address: &str, handles: &[Handle]) -> Result<()> {
    thread::scope(|scope| {
        let senders: Vec<_> = handles
            .iter()
            .map(|handle| {
                scope.spawn(move || -> Result<()> {
                    let path = Target::new(0, handle)?.path_and_query;
                    let mut connection = Connection::open(address)?;
                    for number in 0..N_OLD_SIGNALS / N_OLD_HANDLES {
                        let body = format!(r#"{{"status":"SUCCESS","id":"old-{number}"}}"#);
                        let answer = connection.put(&path, &body)?;
                        ensure!(answer.is_success(), "a signal was refused: {answer:?}");
                    }
                    Ok(())
                })
            })
            .collect();
        for sender in senders {
            sender.join().map_err(|_| anyhow!("a sender panicked"))??;
        }
        Ok(())
    })
}

/// Moves everything, in two runs: the first one is killed in its middle.
fn move_with_interruption(from: &str, to: &str) -> Result<()> {
    let logs = TempDir::new()?;
    let mut process = spawn(from, to, logs.path())?;
    wait::until("the first thousand records", LIMIT, || {
        Ok(process.errors()?.contains("copied 1").then_some(()))
    })
    .with_context(|| process.last_words())?;
    process.kill()?;
    let said = migration(from, to)?;
    eprintln!("    {}", said.trim());
    ensure!(said.contains("in both stores: "), "the migration failed: {said}");
    let n_found = said.split("found ").nth(1).and_then(|rest| rest.split(' ').next());
    let n_found: usize = n_found.context("no count")?.parse()?;
    ensure!(n_found > 0, "the second run did not find what the first one had moved: {said}");
    ensure!(!said.contains("copied 0,"), "the first run was not killed in its middle: {said}");
    Ok(())
}

/// Runs a migration to its end, and gives what it said.
fn migration(from: &str, to: &str) -> Result<String> {
    let logs = TempDir::new()?;
    let mut process = spawn(from, to, logs.path())?;
    process.ended(LIMIT)?;
    Ok(format!("{}{}", process.output()?, process.errors()?))
}

fn spawn(from: &str, to: &str, logs: &Path) -> Result<Process> {
    let mut command = Command::new(programs::heliograph_server()?);
    command.args(["migrate", "--from", from, "--to", to]);
    Process::spawn("migrate", &mut command, logs)
}
