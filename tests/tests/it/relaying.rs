//! A relay that is killed, doubled, or out of space: what it acknowledged is there, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::disk::Disk;
use e2e::load::{self, Answer, Connection, Target};
use e2e::relay::{self, Handle, Relay};
use e2e::wait;
use tempfile::TempDir;

use crate::stage::{Scene, Stage, data_directory};

/// Kills, and signals acknowledged before each: twenty thousand and more over all rounds.
const N_ROUNDS: usize = 20;
const SIGNALS_PER_ROUND: usize = 1_000;
/// With a tenth as many clients as signals wait in a group, groups form and are cut in the middle.
const N_CONNECTIONS: usize = 32;
/// Enough that none of them gets as many signals as it waits for.
const N_HANDLES: usize = 40;

/// A disk with room for a relay's journals and for some load.
const DISK_MEBIBYTES: u32 = 256;
const HALF_A_DAY: Duration = Duration::from_secs(12 * 3600);

/// `(handle, id)` of signals.
type Ids = BTreeSet<(usize, String)>;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![
        Scene::new("relaying::killed_under_load", killed_under_load),
        Scene::new("relaying::two_on_one_directory", two_on_one_directory),
        Scene::new("relaying::disk_full", disk_full),
        Scene::new("relaying::stopped_and_started", stopped_and_started),
    ]
}

/// `kill -9`, twenty times, while signals arrive as fast as they are taken.
fn killed_under_load(_stage: &Stage) -> Result<()> {
    let directory = TempDir::new()?;
    let data = data_directory(directory.path());
    let mut relay = Relay::start(&data)?;
    let address = relay.address().to_owned();
    let (handles, targets) = handles(&relay)?;
    let mut acknowledged = Ids::new();
    for round in 0..N_ROUNDS {
        let account = load::until_broken(
            &address,
            &targets,
            &format!("round-{round}"),
            N_CONNECTIONS,
            SIGNALS_PER_ROUND,
            || relay.kill(),
        )?;
        ensure!(account.refused.is_empty(), "refused in round {round}: {:?}", account.refused);
        acknowledged.extend(account.acknowledged);
        relay = Relay::start_at(&data, &address)?;
        // Each restart is looked at: a loss in round 3 must not hide behind what comes later.
        nothing_is_lost(&relay, &handles, &acknowledged)
            .with_context(|| format!("after round {round}:{}", relay.last_words()))?;
    }
    eprintln!("{} signals acknowledged in {N_ROUNDS} rounds, all there", acknowledged.len());
    ensure!(acknowledged.len() >= N_ROUNDS * SIGNALS_PER_ROUND, "too little load");
    Ok(())
}

/// An operator's restart loses nothing, not even a URL.
fn stopped_and_started(_stage: &Stage) -> Result<()> {
    let directory = TempDir::new()?;
    let data = data_directory(directory.path());
    let relay = Relay::start(&data)?;
    let address = relay.address().to_owned();
    let (handles, targets) = handles(&relay)?;
    let mut acknowledged = signal_each(&address, &targets, "before")?;
    let status = relay.stop()?;
    ensure!(status.success(), "the relay ended with {status}");
    let relay = Relay::start_at(&data, &address)?;
    acknowledged.extend(signal_each(&address, &targets, "after")?);
    nothing_is_lost(&relay, &handles, &acknowledged)
}

fn two_on_one_directory(_stage: &Stage) -> Result<()> {
    let directory = TempDir::new()?;
    let data = data_directory(directory.path());
    let relay = Relay::start(&data)?;
    let (status, words) = relay::refused(&data)?;
    ensure!(!status.success(), "the second relay must refuse");
    eprintln!("the second relay says: {words}");
    let names_the_directory = words.contains(&data.display().to_string());
    ensure!(names_the_directory, "the sentence must name the directory: {words}");
    ensure!(words.contains("another") || words.contains("use"), "it must say why: {words}");
    ensure!(!words.contains("panicked"), "{words}");
    // The first is not disturbed.
    relay.create_handle(1, HALF_A_DAY)?;
    Ok(())
}

fn disk_full(_stage: &Stage) -> Result<()> {
    let disk = Disk::mount(DISK_MEBIBYTES)?;
    let data = data_directory(disk.path());
    let relay = Relay::start(&data)?;
    let address = relay.address().to_owned();
    let (handles, targets) = handles(&relay)?;
    let mut acknowledged = signal_each(&address, &targets, "before")?;

    disk.fill()?;
    let refusal = until_refused(&address, &targets, &mut acknowledged)?;
    eprintln!("disk full, after {} signals: {refusal:?}", acknowledged.len());
    ensure!([503, 507].contains(&refusal.status), "a full disk was answered with {refusal:?}");
    ensure!(refusal.body.contains("\"code\""), "no stable code: {refusal:?}");
    // What can be read without space can be read.
    nothing_is_lost(&relay, &handles, &acknowledged)?;
    disk.release()?;
    wait::until("a signal to be taken again", Duration::from_secs(60), || {
        let id = "recovered";
        let answer = put(&mut Connection::open(&address)?, &targets[0], id)?;
        if answer.is_success() {
            acknowledged.insert((targets[0].handle, id.to_owned()));
        }
        Ok(answer.is_success().then_some(()))
    })
    .with_context(|| relay.last_words())?;
    nothing_is_lost(&relay, &handles, &acknowledged)?;
    relay.kill()?;
    let relay = Relay::start_at(&data, &address)?;
    nothing_is_lost(&relay, &handles, &acknowledged)
}

/// Large signals until one is refused; small ones may fit in what a journal has reserved. They are
/// spread over the handles, for one mailbox has a limit of its own.
fn until_refused(address: &str, targets: &[Target], acknowledged: &mut Ids) -> Result<Answer> {
    let ballast = "x".repeat(200 << 10);
    let mut connection = Connection::open(address)?;
    for (number, target) in targets.iter().cycle().take(2_000).enumerate() {
        let id = format!("full-{number}");
        let body = format!(r#"{{"status":"SUCCESS","id":"{id}","data":"{ballast}"}}"#);
        let answer = connection.put(&target.path_and_query, &body)?;
        if !answer.is_success() {
            return Ok(answer);
        }
        acknowledged.insert((target.handle, id));
    }
    anyhow::bail!("400 MiB were acknowledged on a full disk of {DISK_MEBIBYTES} MiB")
}

fn handles(relay: &Relay) -> Result<(Vec<Handle>, Vec<Target>)> {
    let mut handles = Vec::new();
    let mut targets = Vec::new();
    for number in 0..N_HANDLES {
        let handle = relay.create_handle(1_000, HALF_A_DAY)?;
        targets.push(Target::new(number, &handle)?);
        handles.push(handle);
    }
    Ok((handles, targets))
}

fn signal_each(address: &str, targets: &[Target], id: &str) -> Result<Ids> {
    let mut connection = Connection::open(address)?;
    let mut acknowledged = Ids::new();
    for target in targets {
        let answer = put(&mut connection, target, id)?;
        ensure!(answer.is_success(), "a signal was refused: {answer:?}");
        acknowledged.insert((target.handle, id.to_owned()));
    }
    Ok(acknowledged)
}

fn put(connection: &mut Connection, target: &Target, id: &str) -> Result<Answer> {
    let body = format!(r#"{{"status":"SUCCESS","id":"{id}"}}"#);
    Ok(connection.put(&target.path_and_query, &body)?)
}

/// Every acknowledged signal is there, and none twice. There may be more: a signal whose
/// acknowledgement was lost is nevertheless a signal.
fn nothing_is_lost(relay: &Relay, handles: &[Handle], acknowledged: &Ids) -> Result<()> {
    let mut times_seen = BTreeMap::new();
    for (number, handle) in handles.iter().enumerate() {
        let view = relay.poll(handle)?;
        for signal in view["signals"].as_array().context("no signals")? {
            let id = signal["id"].as_str().context("a signal without id")?.to_owned();
            *times_seen.entry((number, id)).or_insert(0) += 1;
        }
    }
    let lost: Vec<_> = acknowledged.iter().filter(|id| !times_seen.contains_key(id)).collect();
    ensure!(
        lost.is_empty(),
        "{} of {} acknowledged signals are lost: {:?} …",
        lost.len(),
        acknowledged.len(),
        lost.first()
    );
    let twice: Vec<_> = times_seen.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "signals seen more than once: {twice:?}");
    Ok(())
}
