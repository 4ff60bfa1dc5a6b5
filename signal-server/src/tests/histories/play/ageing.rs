//! Signals for which nobody comes, and sweeps: at any time while everybody is busy, and at times when
//! something has become old. Time is the sweep's argument, so that months may pass.

use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use rand::rngs::StdRng;
use signal_protocol::path::AccountName;
use tokio::time::sleep;

use crate::clock::Clock as _;
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::Limits;
use crate::mailbox::{ListingEntry, ListingQuery, ObjectAddress};
use crate::tests::histories::model::{Rule, Violation, check_bodies, what_is_left};
use crate::tests::histories::play::reading::body_of;
use crate::tests::histories::play::{
    announce, container, is_busy, object, persistently, send_persistently,
};
use crate::tests::histories::world::{N_RELAYS, World};

const N_SIGNALS: usize = 2;

/// Longer than anything is kept.
const AGES: Duration = Duration::from_secs(366 * 24 * 3_600);

/// How often sweeps may fail or leave something for the next one.
const MAX_SWEEPS: usize = 200;

/// Until another relay is in the place of one that has died.
const PAUSE: Duration = Duration::from_millis(1);

/// What is a moment older than this is old.
const MOMENT: Duration = Duration::from_secs(1);

/// A handle that nobody reads.
#[derive(Debug)]
pub(super) struct Abandoned {
    handle: ObjectAddress,
    ids: Vec<String>,
    /// Before the handle was last used.
    used_after: Timestamp,
}

/// Signals a handle, and goes away.
pub(super) async fn abandon(
    world: &World,
    account: &AccountName,
    dice: &mut StdRng,
) -> Result<Abandoned, Violation> {
    let handle = object(&container(account, "abandoned"), "a");
    announce(world, dice, &handle).await?;
    let ids: Vec<String> = (0..N_SIGNALS).map(|number| format!("a {number}")).collect();
    let mut used_after = world.clock.now();
    for id in &ids {
        sleep(Duration::from_micros(dice.random_range(0..3_000))).await;
        used_after = world.clock.now();
        send_persistently(world, &handle, id, dice).await?;
    }
    Ok(Abandoned { handle, ids, used_after })
}

/// Sweeps while everybody is busy, as late as it may be without anything having become old.
pub(super) async fn sweep_now_and_then(world: &World, dice: &mut StdRng) -> Result<(), Violation> {
    for _ in 0..dice.random_range(0..5) {
        sleep(Duration::from_micros(dice.random_range(0..5_000))).await;
        sweep_late(world, dice).await?;
    }
    Ok(())
}

/// Sweeps once, as late as it may be without anything having become old but what was deleted.
pub(super) async fn sweep_late(world: &World, dice: &mut StdRng) -> Result<(), Violation> {
    let latest = Timestamp::UNIX_EPOCH + Limits::default().signal_retention;
    let relay = world.relay(dice.random_range(0..N_RELAYS)).mailboxes;
    tolerate(relay.sweep(world.clock.now().max(latest)).await).map(|_| ())
}

impl Abandoned {
    /// All of it is there until its time is over, and then all of it goes.
    pub(super) async fn check(&self, world: &World, dice: &mut StdRng) -> Result<(), Violation> {
        let end = self.used_after + Limits::default().signal_retention;
        sweep_everything(world, end, dice).await?;
        let names = self.names(world, dice).await?;
        if names.len() != self.ids.len() {
            return Err(Violation::of(Rule::Unread, format!("of the abandoned: {names:?}")));
        }
        for (name, id) in names.iter().zip(&self.ids) {
            let signal = object(&self.handle.container, name);
            let found = persistently(world, dice, |relay| {
                let signal = signal.clone();
                async move { relay.object(&signal).await }
            });
            if found.await?.body != body_of(id) {
                return Err(Violation::of(Rule::Unread, format!("{id} has become another one")));
            }
        }
        let end = world.clock.now() + Limits::default().signal_retention + MOMENT;
        sweep_everything(world, end, dice).await?;
        check_bodies(&world.hub).await?;
        let names = self.names(world, dice).await?;
        match names.is_empty() {
            true => Ok(()),
            false => Err(Violation::of(Rule::Clean, format!("nobody comes for {names:?}"))),
        }
    }

    async fn names(&self, world: &World, dice: &mut StdRng) -> Result<Vec<String>, Violation> {
        let listed = persistently(world, dice, |relay| {
            let container = self.handle.container.clone();
            async move { relay.list_objects(&container, &ListingQuery::default()).await }
        });
        let name = |entry: ListingEntry| match entry {
            ListingEntry::Object { name, .. } | ListingEntry::Prefix { name } => name,
        };
        Ok(listed.await?.into_iter().map(name).collect())
    }
}

/// When all is old, nothing of the mailboxes is left, wherever relays died while they removed it.
pub(super) async fn check_clean(world: &World, dice: &mut StdRng) -> Result<(), Violation> {
    check_bodies(&world.hub).await?;
    let now = world.clock.now() + AGES;
    for _ in 0..MAX_SWEEPS {
        if what_is_left(&world.hub).await.is_none() {
            return Ok(());
        }
        let relay = world.relay(dice.random_range(0..N_RELAYS)).mailboxes;
        if !tolerate(relay.sweep(now).await)? {
            sleep(PAUSE).await;
        }
    }
    let left = what_is_left(&world.hub).await.map_or(String::new(), |kind| kind.to_string());
    Err(Violation::of(Rule::Clean, format!("a {left} record is left for good")))
}

/// Two whole rounds in a row, as the first one may have begun in the middle.
async fn sweep_everything(
    world: &World,
    now: Timestamp,
    dice: &mut StdRng,
) -> Result<(), Violation> {
    for _ in 0..MAX_SWEEPS {
        let relay = world.relay(dice.random_range(0..N_RELAYS)).mailboxes;
        let are_done = [tolerate(relay.sweep(now).await)?, tolerate(relay.sweep(now).await)?];
        if are_done == [true, true] {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(Violation::of(Rule::Ends, "no relay can sweep"))
}

/// Whether it went well; it need not.
fn tolerate<T>(outcome: Result<T, MailboxError>) -> Result<bool, Violation> {
    match outcome {
        Err(error) if !is_busy(&error) => Err(Violation::answer(error)),
        outcome => Ok(outcome.is_ok()),
    }
}
