//! Where user data comes from.
//!
//! How to add a datasource: give it a file in `datasource/`, implement [`Datasource`] there, and
//! put it into [`standard`] at the place where it should win a tie. A probe asks once and says
//! what it found; asking again, waiting and giving up are the race's. Keep apart what is *absent*
//! (this instance has no such thing: a 404, no drive) from what is *broken* (there is one and it
//! cannot be read: a 500, a refused connection, a damaged drive). Put it under the
//! tests in `tests/datasource.rs`, where adding it is one line.
//!
//! All sources are asked at once. Asking one after the other costs its whole timeout for each that
//! is not there, and a fixed order has sent instances with a config drive to a metadata service
//! that did not answer. None is asked only once either: a drive's device may appear seconds after
//! the agent has started, and the network later still.

pub mod config_drive;
pub mod ec2;
pub mod file;
pub mod gce;
pub mod nocloud;
pub mod openstack;
pub mod seed;

pub mod drive;
pub mod volume;

mod http;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until};

use crate::datasource::config_drive::ConfigDrive;
use crate::datasource::drive::Drive;
use crate::datasource::ec2::Ec2;
use crate::datasource::gce::Gce;
use crate::datasource::nocloud::NoCloud;
use crate::datasource::openstack::{LinkLocalV6, OpenStack};
use crate::datasource::seed::Seed;

/// No user data is larger: Nova accepts 64 KiB, and a file may be a little more.
pub const MAX_USER_DATA_BYTES: u64 = 1024 * 1024;

/// `meta_data.json` carries keys, a random seed and people's own map; 100 KiB would be unusual.
pub const MAX_METADATA_BYTES: u64 = 1024 * 1024;

/// How long a less preferred source that was faster waits for one before it: two polls of a drive.
const GRACE: Duration = Duration::from_millis(500);

/// How long "the instance is known and has no user data" waits for a source that has some: a drive
/// may be attached although the metadata service has nothing.
const NO_USER_DATA_GRACE: Duration = Duration::from_secs(10);

/// One place that may hold this instance's user data.
#[async_trait]
pub trait Datasource: Send + Sync {
    /// As reports and logs name it.
    fn name(&self) -> &'static str;

    /// Asks once, within seconds. Called again after a pause unless it found something: a later
    /// answer may differ. Dropping the future must leave nothing behind, and probing has no effect
    /// that another probe could see.
    async fn probe(&self) -> Outcome;

    /// Whether a later probe can end differently. False for what only a person can change.
    fn may_appear(&self) -> bool {
        true
    }
}

/// What a probe found out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Found(Found),
    /// This instance does not have this datasource.
    Absent,
    /// The datasource is there, or may be, and could not be read.
    Broken(BrokenReason),
}

/// What a datasource knows about this instance.
#[derive(Clone, PartialEq)]
pub struct Found {
    pub datasource: &'static str,
    pub instance_id: Option<String>,
    /// None: the instance is known and has no user data.
    pub user_data: Option<Vec<u8>>,
    /// What a document may refer to as `${instance.…}`: `name`, `hostname`, `availability_zone`,
    /// `project_id` and `meta.<key>`, as far as the datasource knows them.
    pub facts: BTreeMap<String, String>,
}

/// User data holds secrets and must not reach a log; nor must facts, because people keep secrets in
/// instance metadata.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found")
            .field("datasource", &self.datasource)
            .field("instance_id", &self.instance_id)
            .field("user_data_bytes", &self.user_data.as_ref().map(Vec::len))
            .field("fact_names", &self.facts.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Why a datasource could not be read; a sentence fragment without user data in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BrokenReason(pub String);

/// How the race ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Race {
    pub found: Option<Found>,
    /// In the order of the sources.
    pub reports: Vec<Report>,
}

/// The last outcome of one datasource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub datasource: &'static str,
    /// For a person: `found`, `absent` or `broken: …`.
    pub summary: String,
}

/// Every datasource of a cloud, the most preferred first: a drive needs no network and answers at
/// once, so it wins a tie. The certificates are trusted, beside the system's, by those that use TLS.
pub fn standard(authorities: &[String]) -> Vec<Box<dyn Datasource>> {
    vec![
        Box::new(ConfigDrive::new(Drive::labelled(config_drive::LABELS))),
        Box::new(NoCloud::new(Drive::labelled(nocloud::LABELS))),
        Box::new(Seed::standard(authorities)),
        // Nova answers EC2's dialect as well. A thousand instances on one network ask it at once, so
        // other dialects are tried only where the first is not spoken.
        Box::new(Otherwise::new(
            OpenStack::link_local(),
            Otherwise::new(Gce::link_local(), Ec2::link_local()),
        )),
        Box::new(LinkLocalV6),
    ]
}

/// Asks a second source where the first is absent.
#[derive(Debug)]
pub struct Otherwise<A, B> {
    first: A,
    second: B,
}

impl<A, B> Otherwise<A, B> {
    pub fn new(first: A, second: B) -> Otherwise<A, B> {
        Otherwise { first, second }
    }
}

#[async_trait]
impl<A: Datasource, B: Datasource> Datasource for Otherwise<A, B> {
    fn name(&self) -> &'static str {
        self.first.name()
    }

    async fn probe(&self) -> Outcome {
        match self.first.probe().await {
            Outcome::Absent => self.second.probe().await,
            outcome => outcome,
        }
    }
}

/// Probes all sources at once until one finds user data or the deadline has passed.
///
/// The first to find some wins, unless one that stands before it in `sources` follows within
/// `GRACE`. An instance that is known and has no user data is the answer if nothing better comes
/// within `NO_USER_DATA_GRACE`.
pub async fn race(sources: Vec<Box<dyn Datasource>>, deadline: Duration) -> Race {
    let deadline = Instant::now() + deadline;
    let mut reports: Vec<Report> = sources
        .iter()
        .map(|source| Report { datasource: source.name(), summary: "not answered yet".to_owned() })
        .collect();
    let mut probes: FuturesUnordered<_> = sources
        .iter()
        .enumerate()
        .map(|(rank, source)| probe_after(rank, source.as_ref(), 0, Duration::ZERO))
        .collect();
    let mut best: Option<Candidate> = None;
    loop {
        let until = best.as_ref().map_or(deadline, |best| best.settled_at.min(deadline));
        let answer = tokio::select! {
            answer = probes.next() => answer,
            () = sleep_until(until) => None,
        };
        // Time is up, or nobody is left to ask.
        let Some(Answer { rank, n_probes, outcome }) = answer else { break };
        reports[rank].summary = summarize(&outcome);
        let source = sources[rank].as_ref();
        match outcome {
            Outcome::Found(found) => best = Some(Candidate::better(best, rank, found)),
            Outcome::Absent | Outcome::Broken(_) if !source.may_appear() => {}
            Outcome::Absent => probes.push(probe_after(rank, source, n_probes, ABSENT_PAUSE)),
            Outcome::Broken(_) => probes.push(probe_after(rank, source, n_probes, pause(n_probes))),
        }
        if best.as_ref().is_some_and(|best| best.rank == 0 && best.found.user_data.is_some()) {
            break;
        }
    }
    drop(probes);
    Race { found: best.map(|best| best.found), reports }
}

/// The best answer so far and when to stop waiting for a better one.
struct Candidate {
    rank: usize,
    found: Found,
    settled_at: Instant,
}

impl Candidate {
    /// User data beats none; then the source that stands first wins.
    fn better(old: Option<Candidate>, rank: usize, found: Found) -> Candidate {
        let has_data = found.user_data.is_some();
        let grace = if has_data { GRACE } else { NO_USER_DATA_GRACE };
        let new = Candidate { rank, found, settled_at: Instant::now() + grace };
        let Some(old) = old else { return new };
        match (old.found.user_data.is_some(), has_data) {
            (true, false) => old,
            (false, true) => new,
            // The wait that has begun is not prolonged.
            _ if rank < old.rank => Candidate { settled_at: old.settled_at, ..new },
            _ => old,
        }
    }
}

struct Answer {
    rank: usize,
    n_probes: u32,
    outcome: Outcome,
}

async fn probe_after(
    rank: usize,
    source: &dyn Datasource,
    n_probes: u32,
    pause: Duration,
) -> Answer {
    if !pause.is_zero() {
        sleep(pause).await;
    }
    Answer { rank, n_probes: n_probes + 1, outcome: source.probe().await }
}

/// A device may appear at any moment, and looking costs microseconds.
const ABSENT_PAUSE: Duration = Duration::from_millis(250);

/// Broken: 0.25, 0.5, 1, 2, 4, 5, 5 … s, each shortened at random to no less than a half, so that
/// instances which booted together do not ask together.
fn pause(n_probes: u32) -> Duration {
    let doublings = n_probes.saturating_sub(1).min(10);
    let nominal = Duration::from_millis(250 << doublings).min(Duration::from_secs(5));
    nominal.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn summarize(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Found(found) if found.user_data.is_none() => "found, without user data".to_owned(),
        Outcome::Found(_) => "found".to_owned(),
        Outcome::Absent => "absent".to_owned(),
        Outcome::Broken(reason) => format!("broken: {reason}"),
    }
}

#[cfg(test)]
mod tests;
