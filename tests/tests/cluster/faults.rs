//! Three relays, three members of etcd, and what can go wrong with each while signals come in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::etcd::{Etcd, Place};
use e2e::lan::Lan;
use e2e::relay::{Handle, Relay};
use e2e::wait;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::load::Load;

/// How many relays can reach whatever their senders can, beside one that has a host of its own.
const N_NEAR_RELAYS: usize = 2;
const N_MEMBERS: usize = 3;
/// The host of the relay that can be cut off from the members.
const FAR_RELAY_HOST: usize = N_MEMBERS;
const N_HANDLES: usize = 18;
const N_SENDERS: usize = 6;

/// How long a sender waits for an answer before it asks another relay: longer than a relay waits for a member
/// of etcd that may have stored a signal, so that a relay that answers late is not left.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// How long a relay that was cut off may take to find the members again.
const RETURN_LIMIT: Duration = Duration::from_secs(60);

/// Relays on one etcd, and where they keep their own files.
pub(crate) struct Fleet {
    pub(crate) relays: Vec<Option<Relay>>,
    pub(crate) addresses: Vec<String>,
    pub(crate) admin_addresses: Vec<String>,
    places: Vec<Place>,
    directories: Vec<TempDir>,
    store: String,
}

impl Fleet {
    pub(crate) fn start(etcd: &Etcd, n_relays: usize) -> Result<Fleet> {
        let mut fleet = Fleet {
            relays: Vec::new(),
            addresses: Vec::new(),
            admin_addresses: Vec::new(),
            places: Vec::new(),
            directories: Vec::new(),
            store: etcd.url(),
        };
        fleet.add(n_relays)?;
        Ok(fleet)
    }

    /// Starts more of them.
    pub(crate) fn add(&mut self, n_relays: usize) -> Result<()> {
        (0..n_relays).try_for_each(|_| self.add_at(Place::Loopback))
    }

    fn add_at(&mut self, place: Place) -> Result<()> {
        let directory = TempDir::new()?;
        let relay = match &place {
            Place::Loopback => self.start_one(&place, directory.path(), "127.0.0.1:0", &[]),
            Place::Namespace { address, .. } => {
                self.start_one(&place, directory.path(), &format!("{address}:0"), &[])
            }
        }?;
        self.addresses.push(relay.address().to_owned());
        self.admin_addresses.push(relay.admin.trim_start_matches("http://").to_owned());
        self.relays.push(Some(relay));
        self.places.push(place);
        self.directories.push(directory);
        Ok(())
    }

    fn start_one(
        &self,
        place: &Place,
        directory: &Path,
        listen: &str,
        flags: &[&str],
    ) -> Result<Relay> {
        let flags = [&["--store", &self.store], flags].concat();
        match place {
            Place::Loopback => Relay::start_with(directory, listen, &flags),
            Place::Namespace { name, .. } => Relay::start_in(name, directory, listen, &flags),
        }
    }

    pub(crate) fn relay(&self, index: usize) -> Result<&Relay> {
        self.relays[index].as_ref().context("the relay does not run")
    }

    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        self.relays[index].take().context("the relay does not run")?.kill()
    }

    /// Ends one in an orderly way.
    pub(crate) fn stop(&mut self, index: usize) -> Result<()> {
        let status = self.relays[index].take().context("the relay does not run")?.stop()?;
        ensure!(status.success(), "the relay ended with {status}");
        Ok(())
    }

    /// Starts one again, at the same addresses.
    pub(crate) fn restart(&mut self, index: usize) -> Result<()> {
        let flags = ["--admin-listen", &self.admin_addresses[index]];
        let (place, directory) = (&self.places[index], self.directories[index].path());
        let relay = self.start_one(place, directory, &self.addresses[index], &flags)?;
        self.relays[index] = Some(relay);
        Ok(())
    }
}

/// What breaks, and how it is mended.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillRelay,
    StopRelay,
    KillFollower,
    KillLeader,
    StopFollower,
    StopLeader,
    CutOffFollower,
    CutOffLeader,
    CutOffLeaderFromMembersOnly,
    CutOffRelay,
}

const FAULTS: [Fault; 10] = [
    Fault::KillRelay,
    Fault::StopRelay,
    Fault::KillFollower,
    Fault::KillLeader,
    Fault::StopFollower,
    Fault::StopLeader,
    Fault::CutOffFollower,
    Fault::CutOffLeader,
    Fault::CutOffLeaderFromMembersOnly,
    Fault::CutOffRelay,
];

pub(crate) fn whatever_dies() -> Result<()> {
    // A thread of its own, as it moves into a network of its own for good.
    let scene = thread::spawn(in_a_network_of_its_own);
    scene.join().map_err(|_| anyhow!("the scene panicked"))?
}

struct World {
    lan: Lan,
    etcd: Etcd,
    fleet: Fleet,
}

fn in_a_network_of_its_own() -> Result<()> {
    let lan = Lan::enter(N_MEMBERS + 1)?;
    let place =
        |index| Place::Namespace { name: lan.name(index).to_owned(), address: lan.address(index) };
    let etcd = Etcd::start(&(0..N_MEMBERS).map(place).collect::<Vec<_>>())?;
    let mut fleet = Fleet::start(&etcd, N_NEAR_RELAYS)?;
    fleet.add_at(place(FAR_RELAY_HOST))?;
    let mut world = World { lan, etcd, fleet };
    let outcome = play(&mut world);
    outcome.with_context(|| world.last_words())
}

fn play(world: &mut World) -> Result<()> {
    let maker = world.fleet.relay(0)?;
    let (handles, watched) =
        (maker.create_handles(N_HANDLES)?, maker.create_handles(world.fleet.relays.len())?);
    let load = Load::start(&world.fleet.addresses, &handles, &watched, N_SENDERS, PATIENCE)?;
    for fault in FAULTS {
        load.spread().with_context(|| format!("before {fault:?}"))?;
        let begin = Instant::now();
        let mend = world.break_with(fault).with_context(|| format!("at {fault:?}"))?;
        load.gets_on().with_context(|| format!("after {fault:?}"))?;
        let mended_at = Instant::now();
        mend(world)?;
        load.gets_on().with_context(|| format!("after the end of {fault:?}"))?;
        let broken = load.blind_between(begin, mended_at, N_HANDLES);
        let mended = load.blind_between(mended_at, Instant::now(), N_HANDLES);
        eprintln!("    {fault:?}: blind for at most {broken}; when it was mended, {mended}");
    }
    let acknowledged = load.end()?;
    let all: Vec<&Handle> = handles.iter().chain(&watched).collect();
    let relays: Vec<&Relay> = world.fleet.relays.iter().flatten().collect();
    nothing_lost_or_doubled(&all, &acknowledged, &relays)
}

/// Looks at each handle, at one relay after the other.
pub(crate) fn nothing_lost_or_doubled(
    handles: &[&Handle],
    acknowledged: &BTreeMap<usize, BTreeSet<String>>,
    relays: &[&Relay],
) -> Result<()> {
    let (mut n_acknowledged, mut n_stored) = (0, 0);
    for (index, handle) in handles.iter().enumerate() {
        let relay = relays[index % relays.len()];
        let view = relay.poll(&at(handle, relay))?;
        let signals = view["signals"].as_array().context("no signals")?;
        let id = |signal: &Value| signal["id"].as_str().unwrap_or_default().to_owned();
        let stored: BTreeSet<String> = signals.iter().map(id).collect();
        let expected = acknowledged.get(&index).cloned().unwrap_or_default();
        let lost: Vec<_> = expected.difference(&stored).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        // A handle begins with version 1. Every signal that is stored counts one up; one that only repeats
        // another does not.
        let version = view["version"].as_u64().context("no version")?;
        ensure!(version == stored.len() as u64 + 1, "version {version}, {} signals", stored.len());
        n_acknowledged += expected.len();
        n_stored += stored.len();
    }
    eprintln!("    {n_acknowledged} signals were acknowledged, {n_stored} are stored, none twice");
    Ok(())
}

/// The same handle, asked for at this relay.
fn at(handle: &Handle, relay: &Relay) -> Handle {
    let move_to = |url: &str| {
        let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        format!("{}/{}", relay.public, path.map_or("", |(_, path)| path))
    };
    Handle {
        id: handle.id.clone(),
        signal_url: move_to(&handle.signal_url),
        poll_url: move_to(&handle.poll_url),
    }
}

type Mend = Box<dyn FnOnce(&mut World) -> Result<()>>;

impl World {
    fn break_with(&mut self, fault: Fault) -> Result<Mend> {
        let leader = self.etcd.leader()?;
        let follower = (leader + 1) % N_MEMBERS;
        Ok(match fault {
            Fault::KillRelay => {
                self.fleet.kill(0)?;
                Box::new(|world| world.fleet.restart(0))
            }
            Fault::StopRelay => {
                self.fleet.relay(1)?.signal(Signal::SIGSTOP)?;
                Box::new(|world| world.fleet.relay(1)?.signal(Signal::SIGCONT))
            }
            Fault::KillFollower => self.kill_member(follower)?,
            Fault::KillLeader => self.kill_member(leader)?,
            Fault::StopFollower => self.stop_member(follower)?,
            Fault::StopLeader => self.stop_member(leader)?,
            Fault::CutOffFollower => self.cut_off(follower)?,
            Fault::CutOffLeader => self.cut_off(leader)?,
            Fault::CutOffLeaderFromMembersOnly => {
                self.lan.cut_off_from_hosts(leader)?;
                Box::new(move |world| world.lan.heal(leader))
            }
            Fault::CutOffRelay => {
                self.lan.cut_off_from_hosts(FAR_RELAY_HOST)?;
                Box::new(World::heal_relay)
            }
        })
    }

    fn kill_member(&mut self, index: usize) -> Result<Mend> {
        self.etcd.kill(index)?;
        Ok(Box::new(move |world| world.etcd.start_member(index)))
    }

    fn stop_member(&mut self, index: usize) -> Result<Mend> {
        self.etcd.signal(index, Signal::SIGSTOP)?;
        Ok(Box::new(move |world| world.etcd.signal(index, Signal::SIGCONT)))
    }

    fn cut_off(&mut self, index: usize) -> Result<Mend> {
        self.lan.cut_off(index)?;
        Ok(Box::new(move |world| world.lan.heal(index)))
    }

    /// Connections begin anew later than the network does.
    fn heal_relay(&mut self) -> Result<()> {
        self.lan.heal(FAR_RELAY_HOST)?;
        let healed_at = Instant::now();
        let relay = self.fleet.relay(N_NEAR_RELAYS)?;
        wait::until("the relay that was cut off to find the members", RETURN_LIMIT, || {
            Ok(relay.create_handle_quickly().ok())
        })?;
        let returned = healed_at.elapsed().as_secs_f32();
        eprintln!("    a relay that was cut off takes something after another {returned:.2} s");
        Ok(())
    }

    fn last_words(&self) -> String {
        let relays = self.fleet.relays.iter().flatten().map(Relay::last_words);
        relays.chain([self.etcd.last_words()]).collect()
    }
}
