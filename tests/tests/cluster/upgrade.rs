//! What operators do to a cluster while it works: relays and members of etcd are restarted, one after the
//! other, and whoever asks through a load balancer does not notice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::etcd::{Etcd, Place};
use e2e::relay::{Handle, Relay};
use nix::sys::signal::Signal;

use crate::balancer::{Backend, Balancer};
use crate::faults::{Fleet, nothing_lost_or_doubled};
use crate::load::Load;

const N_RELAYS: usize = 3;
const N_MEMBERS: usize = 3;
const N_HANDLES: usize = 6;
const N_SENDERS: usize = 3;

/// Nobody who asks through a load balancer has reason to be impatient.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    etcd: Etcd,
    fleet: Fleet,
    balancer: Balancer,
}

pub(crate) fn one_by_one() -> Result<()> {
    let etcd = Etcd::start(&[Place::Loopback, Place::Loopback, Place::Loopback])?;
    let fleet = Fleet::start(&etcd, N_RELAYS)?;
    let backends: Vec<Backend> = (0..N_RELAYS)
        .map(|index| {
            let (_, port) = fleet.admin_addresses[index].rsplit_once(':').context("no port")?;
            let address = fleet.addresses[index].clone();
            Ok(Backend { address, admin_port: Some(port.parse()?) })
        })
        .collect::<Result<_>>()?;
    let balancer = Balancer::start(&backends)?;
    let mut world = World { etcd, fleet, balancer };
    let outcome = play(&mut world);
    outcome.with_context(|| world.last_words())
}

fn play(world: &mut World) -> Result<()> {
    world.balancer.sees_all()?;
    let maker = world.fleet.relay(0)?;
    let (handles, watched) = (maker.create_handles(N_HANDLES)?, maker.create_handles(1)?);
    let way = [world.balancer.address.clone()];
    let load = Load::start(&way, &handles, &watched, N_SENDERS, PATIENCE)?;
    load.gets_on()?;

    report(&load, "relays restarted", || world.restart_relays(&load))?;
    let failures = load.take_failures();
    ensure!(failures.is_empty(), "while relays were restarted: {failures:?}");
    report(&load, "members restarted", || world.restart_members(&load))?;
    let failures = load.take_failures();
    ensure!(failures.is_empty(), "while members were restarted: {failures:?}");
    report(&load, "relay stopped", || world.stop_a_relay(&load))?;
    eprintln!("    failures that were seen with it: {:?}", load.take_failures());

    let acknowledged = load.end()?;
    let all: Vec<&Handle> = handles.iter().chain(&watched).collect();
    let relays: Vec<&Relay> = world.fleet.relays.iter().flatten().collect();
    nothing_lost_or_doubled(&all, &acknowledged, &relays)
}

fn report(load: &Load, what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    act()?;
    let blind = load.blind_between(begin, Instant::now(), N_HANDLES);
    eprintln!("    {what}: blind for at most {blind}");
    Ok(())
}

impl World {
    fn restart_relays(&mut self, load: &Load) -> Result<()> {
        for index in 0..N_RELAYS {
            self.fleet.stop(index)?;
            load.gets_on()?;
            self.fleet.restart(index)?;
            self.balancer.sees_all()?;
        }
        Ok(())
    }

    fn restart_members(&mut self, load: &Load) -> Result<()> {
        for index in 0..N_MEMBERS {
            self.etcd.stop(index)?;
            load.gets_on()?;
            self.etcd.start_member(index)?;
            self.etcd.has_joined(index)?;
        }
        Ok(())
    }

    /// The load balancer has to find out, as connections are taken all the same.
    fn stop_a_relay(&mut self, load: &Load) -> Result<()> {
        self.fleet.relay(0)?.signal(Signal::SIGSTOP)?;
        load.gets_on()?;
        self.fleet.relay(0)?.signal(Signal::SIGCONT)?;
        self.balancer.sees_all()?;
        load.gets_on()
    }

    fn last_words(&self) -> String {
        let relays = self.fleet.relays.iter().flatten().map(Relay::last_words);
        relays.chain([self.etcd.last_words(), self.balancer.last_words()]).collect()
    }
}
