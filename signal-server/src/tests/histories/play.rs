//! One history: who does what in it.
//!
//! There are always handles of Heat's that are signalled and read. Everybody else takes part in some of the
//! histories only: so everybody meets everybody, and ten thousand histories cost no more than they must.

mod ageing;
mod forwards;
mod keys;
mod native;
mod reading;
mod stack;

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use signal_protocol::path::{AccountName, ContainerName, ObjectName};
use tokio::time::{Instant, sleep};

use crate::mailbox::error::{ErrorClass, MailboxError};
use crate::mailbox::limits::PLACEHOLDER;
use crate::mailbox::{ContainerAddress, ContainerUpdate, Mailboxes, NewObject, ObjectAddress};
use crate::store::sharing::Job;
use crate::tests::histories::model::{Trace, Violation};
use crate::tests::histories::planted::Planted;
use crate::tests::histories::play::reading::body_of;
use crate::tests::histories::world::{N_RELAYS, World};

/// How many signals a sender sends.
const N_SIGNALS: usize = 4;

/// Handles of one container, whose signals may travel together.
const N_HANDLES: usize = 3;

/// How often somebody dies, or a job changes hands, in a history, at most, beside what comes by itself.
const MAX_BLOWS: usize = 6;

/// Who takes part in a history.
#[derive(Clone, Copy, Debug)]
struct Cast {
    /// How many handles those have that are always there.
    n_handles: usize,
    native: bool,
    forwards: bool,
    stack: bool,
    abandoned: bool,
    sweeps: bool,
    /// Whether it is played until nothing is left.
    is_to_be_clean: bool,
}

impl Cast {
    fn draw(dice: &mut StdRng) -> Cast {
        let n_handles = if dice.random_range(0..2) == 0 { 1 } else { N_HANDLES };
        let mut one_of = |n: u32| dice.random_range(0..n) == 0;
        Cast {
            n_handles,
            native: one_of(2),
            forwards: one_of(2),
            stack: one_of(3),
            abandoned: one_of(4),
            sweeps: one_of(2),
            is_to_be_clean: one_of(3),
        }
    }
}

pub(super) async fn history(seed: u64, planted: Option<Planted>) -> Result<Trace, Violation> {
    let begin = Instant::now();
    let mut dice = StdRng::seed_from_u64(seed);
    let (world, deaths) = World::new(seed, &mut dice, planted);
    let played = tokio::select! {
        biased;
        played = play(&world, &mut dice) => played,
        () = world.replace_the_dead(deaths) => unreachable!("there is always one to replace"),
    };
    // What the store got wrong is why others did.
    let n_read = world.hub.violation().map_or(played, Err)?;
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
    let mut cast = Cast::draw(dice);
    cast.stack |= world.planted == Some(Planted::RemovesBlindly);
    let account = AccountName::parse("AUTH_p").expect("an account");
    let mut handles = Vec::new();
    for number in 0..cast.n_handles {
        let handle = object(&container(&account, "c"), &format!("h{number}"));
        announce(world, dice, &handle).await?;
        handles.push(handle);
    }

    let [mut reading, mut forwarding, mut watching, mut stack, mut leaving, mut sweeping, mut fate] =
        std::array::from_fn(|_| StdRng::seed_from_u64(dice.random()));
    let all = async {
        tokio::try_join!(
            reading::send_and_read(world, &handles, &mut reading),
            optionally(cast.forwards, forwards::send_all(world, &account, &mut forwarding)),
            optionally(cast.native, native::signal_and_watch(world, &account, &mut watching)),
            optionally(cast.stack, stack::make_and_remove(world, &mut stack)),
            optionally(cast.abandoned, ageing::abandon(world, &account, &mut leaving)),
            optionally(cast.sweeps, ageing::sweep_now_and_then(world, &mut sweeping)),
        )
    };
    let (all, ()) = tokio::join!(all, strike(world, &mut fate));
    let (n_read, forwards, _, _, abandoned, _) = all?;
    if let Some(forwards) = forwards {
        forwards::check_heat(world, &forwards).await?;
    }
    if let Some(abandoned) = abandoned {
        abandoned.check(world, dice).await?;
    }
    if cast.is_to_be_clean {
        ageing::check_clean(world, dice).await?;
    }
    Ok(n_read)
}

/// Plays a part if it is wanted.
async fn optionally<T>(
    is_wanted: bool,
    part: impl Future<Output = Result<T, Violation>>,
) -> Result<Option<T>, Violation> {
    match is_wanted {
        true => part.await.map(Some),
        false => Ok(None),
    }
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
    persistently_or_not(world, dice, &mut ask).await.map_err(Violation::answer)
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
            Err(error) if is_busy(&error) => {}
            outcome => return outcome,
        }
        sleep(Duration::from_micros(dice.random_range(0..500))).await;
    }
}

/// Makes a handle, as Heat does.
async fn announce(
    world: &World,
    dice: &mut StdRng,
    handle: &ObjectAddress,
) -> Result<(), Violation> {
    persistently(world, dice, |relay| {
        let handle = handle.clone();
        async move {
            relay.put_container(&handle.container, &ContainerUpdate::default()).await?;
            relay.put_as_owner(&handle, new(PLACEHOLDER)).await
        }
    })
    .await?;
    Ok(())
}

/// Sends the signal with this id until it is acknowledged.
async fn send_persistently(
    world: &World,
    handle: &ObjectAddress,
    id: &str,
    dice: &mut StdRng,
) -> Result<(), Violation> {
    let body = body_of(id);
    persistently(world, dice, |relay| {
        let (handle, body) = (handle.clone(), body.clone());
        async move { relay.put_as_bearer(&handle, new(body.as_bytes())).await }
    })
    .await?;
    Ok(())
}

/// A pause between two looks: the longer nothing happens, the longer it is.
struct Pause(Duration);

impl Pause {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(500);

    fn new() -> Pause {
        Pause(Pause::SHORTEST)
    }

    async fn wait(&mut self, has_happened: bool) {
        self.0 = if has_happened { Pause::SHORTEST } else { (self.0 * 2).min(Pause::LONGEST) };
        sleep(self.0).await;
    }
}

/// Whether it helps to ask again.
fn is_busy(error: &MailboxError) -> bool {
    matches!(error.class(), ErrorClass::Busy | ErrorClass::Full)
}

/// Dice for several who play at once.
fn seeds(dice: &mut StdRng, n_players: usize) -> Vec<StdRng> {
    (0..n_players).map(|_| StdRng::seed_from_u64(dice.random())).collect()
}

fn container(account: &AccountName, name: &str) -> ContainerAddress {
    let container = ContainerName::parse(name).expect("a container");
    ContainerAddress { account: account.clone(), container }
}

fn object(container: &ContainerAddress, name: &str) -> ObjectAddress {
    let object = ObjectName::parse(name).expect("an object");
    ObjectAddress { container: container.clone(), object }
}

fn new(body: &[u8]) -> NewObject {
    NewObject { content_type: None, body: Bytes::copy_from_slice(body) }
}
