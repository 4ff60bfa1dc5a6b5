//! The relays of a history, each of which may die at any moment, and then another one takes its place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use rand::rngs::StdRng;
use signal_protocol::path::AccountName;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::forward::Forwarder;
use crate::mailbox::Mailboxes;
use crate::mailbox::limits::Limits;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::etcd::model::Cluster;
use crate::store::etcd::model::line::{self, Line};
use crate::store::faulty::{FaultRates, FaultyStore};
use crate::store::remembering::RememberingStore;
use crate::tests::histories::etcd::EtcdMember;
use crate::tests::histories::heat::Heat;
use crate::tests::histories::life::Life;
use crate::tests::histories::planted::{Planted, PlantedLine, PlantedStore};
use crate::tests::histories::store::{Hub, Rates};

pub(super) const N_RELAYS: usize = 3;

/// One history of so many has relays on etcd: they cost some four times the others.
const ONE_ON_ETCD_OF: u32 = 6;

/// The time of the runtime.
#[derive(Debug)]
pub(super) struct RuntimeClock {
    begin: Instant,
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.begin.elapsed()
    }
}

/// One relay, and what it does by itself.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) life: Arc<Life>,
    pub(super) mailboxes: Mailboxes,
    pub(super) forwarder: Forwarder,
    metrics: Arc<Metrics>,
    tasks: Arc<[JoinHandle<()>; 2]>,
}

/// How much goes wrong in a history.
#[derive(Clone, Copy, Debug)]
struct Weather {
    commits: FaultRates,
    rest: Rates,
    etcd: line::Rates,
    heat: u32,
    /// Whether most go to the same relay, where they meet.
    is_lopsided: bool,
}

pub(super) struct World {
    pub(super) hub: Arc<Hub>,
    /// Where the relays run on etcd.
    cluster: Option<Arc<Cluster>>,
    pub(super) heat: Arc<Heat>,
    pub(super) planted: Option<Planted>,
    seed: u64,
    weather: Weather,
    n_started: AtomicU64,
    relays: Mutex<Vec<Relay>>,
    deaths: mpsc::UnboundedSender<u64>,
    pub(super) clock: Arc<RuntimeClock>,
}

impl Weather {
    fn draw(dice: &mut StdRng) -> Weather {
        let max_delay = Duration::from_micros(dice.random_range(1..3_000));
        let commits = FaultRates {
            fail_before: dice.random_range(0..200),
            delay: dice.random_range(0..600),
            max_delay,
            lose_reply: dice.random_range(0..200),
        };
        let rest = Rates {
            fail_read: dice.random_range(0..30),
            delay_read: dice.random_range(0..200),
            max_delay,
            crash: dice.random_range(0..20),
            tell_twice: dice.random_range(0..100),
            lose_thread: dice.random_range(0..100),
        };
        let etcd = line::Rates {
            refused: dice.random_range(0..60),
            lost: dice.random_range(0..100),
            silent: dice.random_range(0..20),
            full: dice.random_range(0..10),
            compacted: dice.random_range(0..50),
            delayed: dice.random_range(0..1_000),
            max_delay: max_delay * dice.random_range(1..5),
        };
        let heat = dice.random_range(0..500);
        Weather { commits, rest, etcd, heat, is_lopsided: dice.random_range(0..2) == 0 }
    }
}

impl World {
    /// The world, and the deaths in it, see [`World::replace_the_dead`].
    pub(super) fn new(
        seed: u64,
        dice: &mut StdRng,
        planted: Option<Planted>,
    ) -> (World, mpsc::UnboundedReceiver<u64>) {
        Mailboxes::draw_numbers_from(dice.random());
        let weather = Weather::draw(dice);
        let (deaths, reported) = mpsc::unbounded_channel();
        let is_bent = planted.is_some_and(|planted| planted.bend().is_some());
        let is_on_etcd = dice.random_range(0..ONE_ON_ETCD_OF) == 0 || is_bent;
        let (hub, cluster) = match is_on_etcd {
            true => {
                let (hub, cluster) = Hub::with_cluster(dice.random(), weather.rest);
                (hub, Some(cluster))
            }
            false => (Hub::new(dice.random(), weather.rest), None),
        };
        let world = World {
            hub,
            cluster,
            heat: Arc::new(Heat::new(dice.random(), weather.heat)),
            planted,
            seed,
            weather,
            n_started: AtomicU64::new(0),
            relays: Mutex::default(),
            deaths,
            clock: Arc::new(RuntimeClock { begin: Instant::now() }),
        };
        let relays = (0..N_RELAYS).map(|_| world.start()).collect();
        *world.relays() = relays;
        (world, reported)
    }

    fn start(&self) -> Relay {
        let number = self.n_started.fetch_add(1, Ordering::Relaxed);
        let seed = self.seed.wrapping_mul(1_000).wrapping_add(number);
        let life = Arc::new(Life::new(number, self.deaths.clone()));
        let store = self.store_of(&life, seed);
        let store: Arc<dyn Store> = match self.planted {
            Some(planted) => Arc::new(PlantedStore::new(store, planted)),
            None => store,
        };
        // As relays on etcd do.
        let store: Arc<dyn Store> = Arc::new(RememberingStore::new(store));
        let store: Arc<dyn Store> = match self.planted {
            Some(planted @ Planted::BelievesMemory) => Arc::new(PlantedStore::new(store, planted)),
            _ => store,
        };
        let mut limits = Limits::default();
        if self.planted == Some(Planted::SweepsEarly) {
            limits.signal_retention /= 2;
        }
        let mailboxes = Mailboxes::new(store.clone(), self.clock.clone(), limits);
        let metrics = Arc::new(Metrics::new());
        let line = PlantedLine { inner: self.heat.reached_by(&life), planted: self.planted };
        let operator = AccountName::parse("AUTH_operator").expect("an account");
        let forwards = metrics.forwards.clone();
        let forwarder =
            Forwarder::to(Arc::new(line), store, self.clock.clone(), operator, forwards);
        let following = mailboxes.clone();
        let tasks = [
            tokio::spawn(async move { following.follow_others().await }),
            tokio::spawn(forwarder.clone().run(std::future::pending())),
        ];
        Relay { life, mailboxes, forwarder, metrics, tasks: Arc::new(tasks) }
    }

    /// The store, as far as things go wrong on the way to it and in it.
    fn store_of(&self, life: &Arc<Life>, seed: u64) -> Arc<dyn Store> {
        let member = self.hub.seen_by(life);
        let Some(cluster) = &self.cluster else {
            return Arc::new(FaultyStore::seeded(Arc::new(member), seed, self.weather.commits));
        };
        let bend = self.planted.and_then(Planted::bend);
        let rates = self.weather.etcd;
        let line = Line::new(cluster, life.number, life.watched(), seed, rates, bend);
        Arc::new(EtcdMember::new(line, &self.hub, member))
    }

    pub(super) fn relay(&self, index: usize) -> Relay {
        let is_diverted = self.weather.is_lopsided && index + 1 < N_RELAYS;
        let index = if is_diverted { 0 } else { index % N_RELAYS };
        self.relays()[index].clone()
    }

    /// Sees to it that there are always as many relays. Never returns.
    pub(super) async fn replace_the_dead(&self, mut deaths: mpsc::UnboundedReceiver<u64>) {
        while let Some(number) = deaths.recv().await {
            let next = self.start();
            let place = self
                .relays()
                .iter_mut()
                .find(|relay| relay.life.number == number)
                .map(|relay| std::mem::replace(relay, next));
            if let Some(dead) = place {
                dead.tasks.iter().for_each(JoinHandle::abort);
                self.hub.bury(number);
            }
        }
    }

    /// Whether no relay believes that something waits for Heat.
    pub(super) fn no_relay_waits(&self) -> bool {
        self.relays().iter().all(|relay| relay.metrics.forwards.pending.get() == 0)
    }

    fn relays(&self) -> MutexGuard<'_, Vec<Relay>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
