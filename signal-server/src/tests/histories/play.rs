//! One history: who does what in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use signal_protocol::handle::HandleId;
use signal_protocol::path::{AccountName, ContainerName, ObjectName};
use signal_protocol::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::config::Secret;
use crate::forward::NewForward;
use crate::forward::judge::{Expected, judge};
use crate::forward::record::{ForwardId, Route};
use crate::forward::target::Target;
use crate::mailbox::error::{ErrorClass, MailboxError};
use crate::mailbox::limits::PLACEHOLDER;
use crate::mailbox::{
    ContainerAddress, ContainerUpdate, ListingEntry, ListingQuery, Mailboxes, NewHandle, NewObject,
    ObjectAddress,
};
use crate::store::sharing::Job;
use crate::store::{Key, KeyKind, Store as _};
use crate::tests::histories::heat::GONE;
use crate::tests::histories::model::{
    Forwards, Rule, Trace, Violation, check_forwards, check_signals,
};
use crate::tests::histories::planted::Planted;
use crate::tests::histories::world::{N_RELAYS, World};

const N_SENDERS: usize = 3;
const N_SIGNALS: usize = 4;
const N_SENDERS_TO_HEAT: usize = 2;

/// How often somebody dies, or a job changes hands, in a history, at most, beside what comes by itself.
const MAX_BLOWS: usize = 6;

pub(super) async fn history(seed: u64, planted: Option<Planted>) -> Result<Trace, Violation> {
    let begin = Instant::now();
    let mut dice = StdRng::seed_from_u64(seed);
    let (world, deaths) = World::new(seed, &mut dice, planted);
    let played = tokio::select! {
        biased;
        played = play(&world, &mut dice) => played,
        () = world.replace_the_dead(deaths) => unreachable!("there is always one to replace"),
    };
    let n_read = played?;
    let last_life = (0..N_RELAYS).map(|index| world.relay(index).life.number).max();
    Ok(Trace {
        lasted: begin.elapsed(),
        n_requests: world.heat.n_requests(),
        n_read,
        last_life: last_life.unwrap_or_default(),
    })
}

/// How many signals were read.
async fn play(world: &World, dice: &mut StdRng) -> Result<usize, Violation> {
    let handle = object("h");
    let made = persistently(world, dice, |relay| {
        let handle = handle.clone();
        async move {
            relay.put_container(&handle.container, &ContainerUpdate::default()).await?;
            relay.put_as_owner(&handle, new(PLACEHOLDER)).await
        }
    });
    made.await?;
    let native = persistently(world, dice, |relay| {
        let account = handle.container.account.clone();
        let (count, timeout) = (1_000, Duration::from_secs(12 * 3_600));
        let new = NewHandle { account, count, timeout, label: None, metadata: None };
        async move { relay.create_handle(new).await }
    });
    let native = native.await?.id;

    let mut draw = || StdRng::seed_from_u64(dice.random());
    let dice_of_senders: Vec<StdRng> = (0..N_SENDERS).map(|_| draw()).collect();
    let dice_of_senders_to_heat: Vec<StdRng> = (0..N_SENDERS_TO_HEAT).map(|_| draw()).collect();
    let (mut reader, mut fate) = (draw(), draw());
    let (native_sender, watcher) = (draw(), draw());
    let mut name_of_id = BTreeMap::new();
    let mut removed = BTreeSet::new();

    let sending = try_join_all(
        (0..).zip(dice_of_senders).map(|(number, dice)| send(world, &handle, number, dice)),
    );
    let reading = async {
        loop {
            read(world, &handle, &mut reader, &mut name_of_id, &mut removed).await?;
            sleep(Duration::from_micros(500)).await;
        }
    };
    let reading_while_sending = async {
        tokio::select! {
            biased;
            acknowledged = sending => acknowledged,
            failed = reading => failed,
        }
    };
    let forwards = Mutex::default();
    let forwarding = try_join_all(
        (0..)
            .zip(dice_of_senders_to_heat)
            .map(|(number, dice)| send_to_heat(world, &forwards, number, dice)),
    );
    let all = async {
        tokio::try_join!(
            reading_while_sending,
            forwarding,
            signal(world, &native, native_sender),
            watch(world, &native, watcher),
        )
    };
    let (all, ()) = tokio::join!(all, strike(world, &mut fate));
    let (acknowledged, ..) = all?;
    // The reader may have been between a reading and a removal: twice, and nothing is left.
    for _ in 0..2 {
        read(world, &handle, dice, &mut name_of_id, &mut removed).await?;
    }
    check_signals(&acknowledged.into_iter().flatten().collect(), &name_of_id)?;

    wait_for_heat(world).await;
    let forwards = forwards.into_inner().unwrap_or_else(PoisonError::into_inner);
    check_forwards(&world.hub, &world.heat, &forwards).await?;
    while !world.no_relay_waits() {
        sleep(Duration::from_secs(1)).await;
    }
    Ok(name_of_id.len())
}

/// Kills relays and takes jobs from them, in the first milliseconds, when all signals come, and in the seconds
/// in which they go on to Heat.
async fn strike(world: &World, fate: &mut StdRng) {
    for _ in 0..fate.random_range(0..=MAX_BLOWS) {
        let milliseconds = if fate.random_range(0..2) == 0 { 6 } else { 4_000 };
        sleep(Duration::from_millis(fate.random_range(0..milliseconds))).await;
        match fate.random_range(0..3) {
            0 => world.hub.depose(Job::Forward).await,
            _ => world.relay(fate.random_range(0..N_RELAYS)).life.end(),
        }
    }
}

/// Asks the relays until one does it.
async fn persistently<T, F>(
    world: &World,
    dice: &mut StdRng,
    mut ask: impl FnMut(Mailboxes) -> F,
) -> Result<T, Violation>
where
    F: Future<Output = Result<T, MailboxError>>,
{
    match persistently_or_not(world, dice, &mut ask).await {
        Ok(answer) => Ok(answer),
        Err(error) => Err(Violation::of(Rule::Answers, format!("{error:?}"))),
    }
}

/// Likewise, where a refusal may be right.
async fn persistently_or_not<T, F>(
    world: &World,
    dice: &mut StdRng,
    mut ask: impl FnMut(Mailboxes) -> F,
) -> Result<T, MailboxError>
where
    F: Future<Output = Result<T, MailboxError>>,
{
    loop {
        match ask(world.relay(dice.random_range(0..N_RELAYS)).mailboxes).await {
            Err(error) if error.class() == ErrorClass::Busy => {}
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
) -> Result<Vec<String>, Violation> {
    let mut acknowledged: Vec<String> = Vec::new();
    for number in 0..N_SIGNALS {
        let id = format!("{sender} {number}");
        // Sometimes an older one again, as by a sender that restarts.
        let again = acknowledged.get(dice.random_range(0..N_SIGNALS)).cloned();
        for id in [Some(id), again].into_iter().flatten() {
            let body = format!(r#"{{"id":"{id}"}}"#);
            // Sometimes to two relays at once, as by a proxy that repeats requests.
            let n_copies = if dice.random_range(0..10) == 0 { 2 } else { 1 };
            let mut dice_of_copies: Vec<StdRng> =
                (0..n_copies).map(|_| StdRng::seed_from_u64(dice.random())).collect();
            let sent = join_all(dice_of_copies.iter_mut().map(|dice| {
                persistently(world, dice, |relay| {
                    let (handle, body) = (handle.clone(), body.clone());
                    async move { relay.put_as_bearer(&handle, new(body.as_bytes())).await }
                })
            }));
            for sent in sent.await {
                sent?;
            }
            acknowledged.push(id);
        }
        sleep(Duration::from_micros(dice.random_range(0..2_000))).await;
    }
    Ok(acknowledged)
}

/// Lists, reads and removes, as Heat does.
async fn read(
    world: &World,
    handle: &ObjectAddress,
    dice: &mut StdRng,
    name_of_id: &mut BTreeMap<String, String>,
    removed: &mut BTreeSet<String>,
) -> Result<(), Violation> {
    let listed = persistently(world, dice, |relay| {
        let container = handle.container.clone();
        async move { relay.list_objects(&container, &ListingQuery::default()).await }
    });
    for entry in listed.await? {
        let (ListingEntry::Object { name, .. } | ListingEntry::Prefix { name }) = entry;
        let signal = object(&name);
        let body = persistently_or_not(world, dice, |relay| {
            let signal = signal.clone();
            async move { relay.object(&signal).await }
        });
        let body = match body.await {
            Ok(object) => object.body,
            // Removed by an earlier try, whose reply was lost.
            Err(MailboxError::ObjectNotFound) if removed.contains(&name) => continue,
            Err(MailboxError::ObjectNotFound) => {
                return Err(Violation::of(Rule::Unread, format!("{name} is gone unread")));
            }
            Err(error) => return Err(Violation::of(Rule::Answers, format!("{error:?}"))),
        };
        let id = Signal::parse(&body).ok().and_then(|signal| signal.id).unwrap_or_default();
        if let Some(before) = name_of_id.insert(id.clone(), name.clone())
            && before != name
        {
            return Err(Violation::of(Rule::Once, format!("{id} was there twice")));
        }
        sleep(Duration::from_micros(dice.random_range(0..300))).await;
        removed.insert(name);
        let done = persistently_or_not(world, dice, |relay| {
            let signal = signal.clone();
            async move { relay.delete_object(&signal).await }
        });
        match done.await {
            Ok(()) | Err(MailboxError::ObjectNotFound) => {}
            Err(error) => return Err(Violation::of(Rule::Answers, format!("{error:?}"))),
        }
    }
    Ok(())
}

/// Signals a native handle, with pauses in which whoever waits for it falls asleep.
async fn signal(world: &World, handle: &HandleId, mut dice: StdRng) -> Result<(), Violation> {
    for number in 0..N_SIGNALS {
        let body = format!(r#"{{"id":"{number}"}}"#);
        let signal = Signal::parse(body.as_bytes())
            .map_err(|error| Violation::of(Rule::Answers, format!("{error:?}")))?;
        let sent = persistently(world, &mut dice, |relay| {
            let (handle, signal) = (handle.clone(), signal.clone());
            async move { relay.signal_handle(&handle, &signal).await }
        });
        sent.await?;
        sleep(Duration::from_micros(dice.random_range(0..20_000))).await;
    }
    Ok(())
}

/// Waits for a native handle until it has had all of its signals.
async fn watch(world: &World, handle: &HandleId, mut dice: StdRng) -> Result<(), Violation> {
    // A handle begins with version 1, and every signal counts one up.
    let (mut version, last_version) = (0, 1 + N_SIGNALS as u64);
    while version < last_version {
        let relay = world.relay(dice.random_range(0..N_RELAYS));
        // Longer than any history: it ends because it is woken, or with its relay.
        let wait = Duration::from_secs(10 * 3_600);
        let changed = tokio::select! {
            biased;
            changed = relay.mailboxes.changed(handle, version, wait) => changed,
            () = relay.life.ended() => continue,
        };
        match changed {
            Ok(present) => version = present,
            Err(error) if error.class() == ErrorClass::Busy => {
                sleep(Duration::from_micros(dice.random_range(0..500))).await;
            }
            Err(error) => return Err(Violation::of(Rule::Answers, format!("{error:?}"))),
        }
    }
    match version == last_version {
        true => Ok(()),
        false => Err(Violation::of(Rule::Once, format!("version {version}"))),
    }
}

/// Sends signals that go on to Heat: with an id or without one, to two resources or to one that is gone.
async fn send_to_heat(
    world: &World,
    forwards: &Mutex<Forwards>,
    sender: usize,
    mut dice: StdRng,
) -> Result<(), Violation> {
    for number in 0..N_SIGNALS {
        let resource = match dice.random_range(0..10) {
            0 => GONE.to_owned(),
            roll => format!("r{}", roll % 2),
        };
        let own_id = (dice.random_range(0..3) > 0).then(|| format!("{sender} {number}"));
        let body = match &own_id {
            Some(id) => format!(r#"{{"id":"{id}"}}"#),
            None => "{}".to_owned(),
        };
        loop {
            let relay = world.relay(dice.random_range(0..N_RELAYS));
            let id = ForwardId::new(relay.forwarder.new_id().number(), dice.random());
            let place = (resource.clone(), own_id.clone().unwrap_or_else(|| id.to_string()));
            let lock = || forwards.lock().unwrap_or_else(PoisonError::into_inner);
            lock().tried.insert(place.clone());
            let mut new = new_forward(id, &resource, Bytes::from(body.clone()));
            if world.planted != Some(Planted::GivesNoIds) {
                new.body = judge(&new.body, Expected::WaitCondition, &id.to_string())
                    .map_err(|error| Violation::of(Rule::Answers, format!("{error:?}")))?;
            }
            if relay.forwarder.accept(new).await.is_ok() {
                lock().acknowledged.push((id, place));
                break;
            }
            sleep(Duration::from_micros(dice.random_range(0..500))).await;
        }
        sleep(Duration::from_micros(dice.random_range(0..5_000))).await;
    }
    Ok(())
}

/// Waits until nothing is left to be sent.
async fn wait_for_heat(world: &World) {
    let prefix = Key::new(KeyKind::Forward, &[]);
    while world.hub.records.scan(&prefix, None, 1).await.is_ok_and(|left| !left.is_empty()) {
        sleep(Duration::from_secs(1)).await;
    }
}

fn new_forward(id: ForwardId, resource: &str, body: Bytes) -> NewForward {
    let target = Target {
        stack_name: "s".to_owned(),
        stack_id: "i".to_owned(),
        resource: resource.to_owned(),
    };
    let token = Secret::new("t".to_owned()).into();
    let route = Route::Heat { project: "p".to_owned(), token };
    NewForward { id, account: account(), target, route, body }
}

fn account() -> AccountName {
    AccountName::parse("AUTH_p").expect("an account")
}

/// An object in the one container.
fn object(name: &str) -> ObjectAddress {
    let container =
        ContainerAddress { account: account(), container: ContainerName::parse("c").expect("one") };
    ObjectAddress { container, object: ObjectName::parse(name).expect("an object") }
}

fn new(body: &[u8]) -> NewObject {
    NewObject { content_type: None, body: Bytes::copy_from_slice(body) }
}
