//! Ten thousand short histories of two relays on one store, each with its own faults.
//!
//! In each, three senders signal one handle and repeat themselves until they are heard, now and then also
//! when they were; a reader does as Heat does: lists, reads, removes. Between them commits fail, come late,
//! or take effect without an answer, and relays are killed in the middle of whatever they do and begin again.
//! All of it is drawn from one seed, and time is the runtime's own, so that a history can be had again:
//!
//! ```text
//! HELIOGRAPH_HISTORY=4711 cargo test -p heliograph-server --lib histories
//! ```
//!
//! The model is small. What was acknowledged is read by the reader, once: under one name. What the reader
//! did not read is never removed. An id that was sent again with the same content is not there a second time,
//! also after the first one has been read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::SystemClock;
use crate::store::faulty::{FaultRates, FaultyStore};

const N_HISTORIES: u64 = 10_000;

const N_RELAYS: usize = 2;
const N_SENDERS: usize = 3;
const N_SIGNALS: usize = 4;

/// How often a relay is killed in a history, at most.
const MAX_KILLS: usize = 3;

/// A history without faults takes some milliseconds of its own time. One that does not end is a failure.
const LIMIT: Duration = Duration::from_secs(600);

/// A cluster of relays that can be killed one by one.
struct World {
    store: Arc<MemoryStore>,
    rates: FaultRates,
    seed: u64,
    n_started: AtomicUsize,
    relays: Mutex<Vec<(Mailboxes, Arc<FaultyStore>)>>,
}

impl World {
    fn new(seed: u64, rates: FaultRates) -> World {
        let store = Arc::new(MemoryStore::new());
        let n_started = AtomicUsize::new(0);
        let world = World { store, rates, seed, n_started, relays: Mutex::default() };
        let relays = (0..N_RELAYS).map(|_| world.start()).collect();
        *world.relays() = relays;
        world
    }

    fn start(&self) -> (Mailboxes, Arc<FaultyStore>) {
        let number = self.n_started.fetch_add(1, Ordering::Relaxed) as u64;
        let seed = self.seed.wrapping_mul(1_000).wrapping_add(number);
        let store = Arc::new(FaultyStore::seeded(self.store.clone(), seed, self.rates));
        let mailboxes = Mailboxes::new(store.clone(), Arc::new(SystemClock), Limits::default());
        (mailboxes, store)
    }

    fn relay(&self, index: usize) -> Mailboxes {
        self.relays()[index % N_RELAYS].0.clone()
    }

    /// What the relay has under way goes nowhere from now on; another one takes its place.
    fn kill(&self, index: usize) {
        let next = self.start();
        let (_, store) = std::mem::replace(&mut self.relays()[index % N_RELAYS], next);
        store.cut();
    }

    fn relays(&self) -> MutexGuard<'_, Vec<(Mailboxes, Arc<FaultyStore>)>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the relays until one does it.
async fn persistently<T, F>(
    world: &World,
    dice: &mut StdRng,
    mut ask: impl FnMut(Mailboxes) -> F,
) -> Result<T, MailboxError>
where
    F: Future<Output = Result<T, MailboxError>>,
{
    loop {
        match ask(world.relay(dice.random_range(0..N_RELAYS))).await {
            Err(error) if error.class() == error::ErrorClass::Busy => {}
            outcome => return outcome,
        }
        sleep(Duration::from_micros(dice.random_range(0..500))).await;
    }
}

/// The ids that were acknowledged.
async fn send(
    world: &World,
    handle: &ObjectAddress,
    sender: usize,
    mut dice: StdRng,
) -> Vec<String> {
    let mut acknowledged: Vec<String> = Vec::new();
    for number in 0..N_SIGNALS {
        let id = format!("{sender} {number}");
        // Sometimes an older one again, as by a sender that restarts.
        let again = acknowledged.get(dice.random_range(0..N_SIGNALS)).cloned();
        for id in [Some(id), again].into_iter().flatten() {
            let body = format!(r#"{{"id":"{id}"}}"#);
            let sent = persistently(world, &mut dice, |relay| {
                let (handle, body) = (handle.clone(), body.clone());
                async move { relay.put_as_bearer(&handle, new(body.as_bytes())).await }
            });
            sent.await.expect("a signal");
            acknowledged.push(id);
        }
        sleep(Duration::from_micros(dice.random_range(0..2_000))).await;
    }
    acknowledged
}

/// Lists, reads and removes, as Heat does.
async fn read(
    world: &World,
    handle: &ObjectAddress,
    dice: &mut StdRng,
    name_of_id: &mut BTreeMap<String, String>,
) {
    let listed = persistently(world, dice, |relay| {
        let container = handle.container.clone();
        async move { relay.list_objects(&container, &ListingQuery::default()).await }
    });
    for entry in listed.await.expect("a listing") {
        let signal = object(&format!("c/{}", name(&entry)));
        let body = persistently(world, dice, |relay| {
            let signal = signal.clone();
            async move { relay.object(&signal).await }
        });
        let body = match body.await {
            Ok(object) => object.body,
            // Removed by an earlier try, whose reply was lost.
            Err(MailboxError::ObjectNotFound) => continue,
            Err(error) => panic!("{error:?}"),
        };
        let id = Signal::parse(&body).expect("a signal").id.expect("an id");
        if let Some(before) = name_of_id.insert(id.clone(), name(&entry).to_owned()) {
            assert_eq!(before, name(&entry), "{id} was there twice");
        }
        sleep(Duration::from_micros(dice.random_range(0..300))).await;
        let removed = persistently(world, dice, |relay| {
            let signal = signal.clone();
            async move { relay.delete_object(&signal).await }
        });
        match removed.await {
            Ok(()) | Err(MailboxError::ObjectNotFound) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn history(seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let rates = FaultRates {
        fail_before: dice.random_range(0..200),
        delay: dice.random_range(0..600),
        max_delay: Duration::from_micros(dice.random_range(1..3_000)),
        lose_reply: dice.random_range(0..200),
    };
    let world = World::new(seed, rates);
    let handle = object("c/h");
    let made = persistently(&world, &mut dice, |relay| {
        let handle = handle.clone();
        async move {
            relay.put_container(&handle.container, &ContainerUpdate::default()).await?;
            relay.put_as_owner(&handle, new(PLACEHOLDER)).await
        }
    });
    made.await.expect("a handle");

    let mut draw = || StdRng::seed_from_u64(dice.random());
    let senders: Vec<StdRng> = (0..N_SENDERS).map(|_| draw()).collect();
    let (mut reader, mut killer) = (draw(), draw());
    let sending = senders.into_iter().enumerate();
    let sending = sending.map(|(number, dice)| send(&world, &handle, number, dice));
    let sending = futures_util::future::join_all(sending);
    let mut name_of_id = BTreeMap::new();
    let reading = async {
        loop {
            read(&world, &handle, &mut reader, &mut name_of_id).await;
            sleep(Duration::from_micros(500)).await;
        }
    };
    let killing = async {
        for _ in 0..killer.random_range(0..=MAX_KILLS) {
            sleep(Duration::from_micros(killer.random_range(0..6_000))).await;
            world.kill(killer.random_range(0..N_RELAYS));
        }
        std::future::pending::<()>().await;
    };
    let acknowledged = tokio::select! {
        acknowledged = sending => acknowledged,
        () = reading => unreachable!("the reader reads on"),
        () = killing => unreachable!("the killer waits"),
    };
    // The reader may have been between a reading and a removal: twice, and nothing is left.
    for _ in 0..2 {
        read(&world, &handle, &mut dice, &mut name_of_id).await;
    }
    let acknowledged: BTreeSet<String> = acknowledged.into_iter().flatten().collect();
    let seen: BTreeSet<String> = name_of_id.into_keys().collect();
    assert_eq!(seen, acknowledged, "what was acknowledged is what is read");
}

#[expect(clippy::disallowed_methods, reason = "a test may be told which history to play again")]
fn wanted() -> Option<u64> {
    std::env::var("HELIOGRAPH_HISTORY").ok().map(|seed| seed.parse().expect("a seed"))
}

/// Plays one history, and says which it was if it goes wrong.
fn play(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async { timeout(LIMIT, history(seed)).await.expect("an end") });
    }));
    assert!(
        played.is_ok(),
        "play it again: HELIOGRAPH_HISTORY={seed} cargo test -p heliograph-server --lib histories"
    );
}

#[test]
fn ten_thousand_histories_go_as_the_model_says() {
    if let Some(seed) = wanted() {
        return play(seed);
    }
    let n_threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..n_threads)
            .map(|thread| {
                scope
                    .spawn(move || (thread..N_HISTORIES).step_by(n_threads as usize).for_each(play))
            })
            .collect();
        players.into_iter().for_each(|player| player.join().expect("all histories go well"));
    });
}
