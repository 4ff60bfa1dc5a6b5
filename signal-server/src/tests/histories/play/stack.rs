//! A stack that is made, signalled and removed, again and again, while its senders go on with the keys that they
//! have: of a former stack of the same name, one that another took the place of, one that was removed. What they
//! have signalled is there when the stack is made again, or seen with its next reading, whatever was removed.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use signal_protocol::path::AccountName;
use tokio::time::sleep;

use crate::mailbox::error::{ErrorClass, MailboxError};
use crate::mailbox::limits::PLACEHOLDER;
use crate::mailbox::{ContainerUpdate, KeyChange, KeyUpdate, ObjectAddress, PutOutcome};
use crate::tests::histories::model::{Rule, Violation};
use crate::tests::histories::play::ageing::sweep_late;
use crate::tests::histories::play::keys::{Holder, Keys, Standing};
use crate::tests::histories::play::reading::{Reader, body_of};
use crate::tests::histories::play::{
    Pause, container, is_busy, new, object, persistently, persistently_or_not, seeds,
};
use crate::tests::histories::world::{N_RELAYS, World};

const N_SENDERS: usize = 2;
const N_SIGNALS: usize = 3;

/// How often it is made.
const N_ROUNDS: usize = 3;

/// As many keys of one holder as are good at once, without one being pushed out.
const MAX_SET_KEYS: usize = 4;

/// Whoever makes, reads and removes the stack.
struct Owner<'a> {
    world: &'a World,
    handle: ObjectAddress,
    keys: &'a Keys,
    reader: Reader,
    /// What was read from stacks that are gone.
    read: BTreeSet<String>,
    dice: StdRng,
    pause: Pause,
}

/// Plays until every signal has been acknowledged and read.
pub(super) async fn make_and_remove(world: &World, dice: &mut StdRng) -> Result<(), Violation> {
    let account = AccountName::parse("AUTH_s").expect("an account");
    let handle = object(&container(&account, "s"), "h");
    let keys = Keys::default();
    let mut seeds = seeds(dice, 1 + N_SENDERS);
    let mut owner = Owner {
        world,
        handle: handle.clone(),
        keys: &keys,
        reader: Reader::default(),
        read: BTreeSet::new(),
        dice: seeds.pop().expect("as many as were asked for"),
        pause: Pause::new(),
    };
    let sending = (0..).zip(seeds).map(|(number, dice)| send(world, &handle, &keys, number, dice));
    let acknowledged: Vec<Vec<String>> = tokio::select! {
        biased;
        acknowledged = try_join_all(sending) => acknowledged,
        failed = owner.live() => failed,
    }?;
    for _ in 0..2 {
        owner.reader.read(world, &handle.container, &mut owner.dice).await?;
    }
    owner.read.extend(owner.reader.name_of_id.into_keys());
    match acknowledged.into_iter().flatten().find(|id| !owner.read.contains(id)) {
        Some(id) => Err(Violation::of(Rule::Durable, format!("{id} of a stack was never read"))),
        None => Ok(()),
    }
}

impl Owner<'_> {
    /// Goes on until somebody else ends it.
    async fn live<T>(&mut self) -> Result<T, Violation> {
        for _ in 0..N_ROUNDS {
            self.make().await?;
            for _ in 0..self.dice.random_range(1..4) {
                self.change_keys().await?;
                self.read().await?;
            }
            while !self.remove().await? {
                self.read().await?;
            }
            // What is deleted goes for good with a sweep, unless a signal was first.
            let mut dice = seeds(&mut self.dice, 2);
            try_join_all(dice.iter_mut().map(|dice| sweep_late(self.world, dice))).await?;
            sleep(Duration::from_micros(self.dice.random_range(0..1_000))).await;
        }
        self.make().await?;
        loop {
            self.read().await?;
        }
    }

    async fn make(&mut self) -> Result<(), Violation> {
        self.set_key(Holder::Container).await?;
        let handle = &self.handle;
        persistently(self.world, &mut self.dice, |relay| {
            let handle = handle.clone();
            async move { relay.put_as_owner(&handle, new(PLACEHOLDER)).await }
        })
        .await?;
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Violation> {
        let container = &self.handle.container;
        let has_read = self.reader.read(self.world, container, &mut self.dice).await?;
        self.pause.wait(has_read).await;
        Ok(())
    }

    async fn change_keys(&mut self) -> Result<(), Violation> {
        let holder = match self.dice.random_range(0..6) {
            0 | 1 => Holder::Container,
            2 => Holder::Account,
            _ => return Ok(()),
        };
        if self.keys.n_set(holder) >= MAX_SET_KEYS || self.dice.random_range(0..2) == 0 {
            self.keys.turn(holder, Standing::Set, Standing::Between);
            let update = KeyUpdate { primary: Some(KeyChange::Remove), secondary: None };
            self.update_keys(holder, update).await?;
            // With those that its former stacks had.
            for standing in [Standing::Between, Standing::Left] {
                self.keys.turn(holder, standing, Standing::Removed);
            }
            sleep(Duration::from_micros(self.dice.random_range(0..1_000))).await;
        }
        self.set_key(holder).await
    }

    async fn set_key(&mut self, holder: Holder) -> Result<(), Violation> {
        let update = self.keys.begin(holder);
        self.update_keys(holder, update).await?;
        self.keys.turn(holder, Standing::Between, Standing::Set);
        Ok(())
    }

    async fn update_keys(&mut self, holder: Holder, keys: KeyUpdate) -> Result<(), Violation> {
        let address = &self.handle.container;
        let update = ContainerUpdate { keys, ..ContainerUpdate::default() };
        persistently(self.world, &mut self.dice, |relay| {
            let (address, update) = (address.clone(), update.clone());
            async move {
                match holder {
                    Holder::Account => relay.set_account_keys(&address.account, &update.keys).await,
                    Holder::Container => relay.put_container(&address, &update).await.map(|_| ()),
                }
            }
        })
        .await
    }

    /// Whether the container is gone, as far as its owner can see: it is not while something in it is unread.
    async fn remove(&mut self) -> Result<bool, Violation> {
        self.keys.turn(Holder::Container, Standing::Set, Standing::Between);
        // Sometimes twice at once, as by a proxy that repeats requests.
        let n_copies = if self.dice.random_range(0..3) == 0 { 2 } else { 1 };
        let mut dice_of_copies: Vec<StdRng> =
            (0..n_copies).map(|_| StdRng::seed_from_u64(self.dice.random())).collect();
        let (world, address) = (self.world, &self.handle.container);
        let removing = dice_of_copies.iter_mut().map(|dice| {
            persistently_or_not(world, dice, |relay| {
                let address = address.clone();
                async move { relay.delete_container(&address).await }
            })
        });
        let mut is_gone = false;
        for removed in join_all(removing).await {
            match removed {
                // Perhaps by an earlier try, whose reply was lost.
                Ok(()) | Err(MailboxError::ContainerNotFound) => is_gone = true,
                Err(MailboxError::ContainerNotEmpty) => {}
                Err(error) => return Err(Violation::answer(error)),
            }
        }
        let standing = if is_gone { Standing::Left } else { Standing::Set };
        self.keys.turn(Holder::Container, Standing::Between, standing);
        if is_gone {
            let reader = std::mem::take(&mut self.reader);
            self.read.extend(reader.name_of_id.into_keys());
        }
        Ok(is_gone)
    }
}

/// The ids that were acknowledged.
async fn send(
    world: &World,
    handle: &ObjectAddress,
    keys: &Keys,
    sender: usize,
    mut dice: StdRng,
) -> Result<Vec<String>, Violation> {
    let mut acknowledged = Vec::new();
    for number in 0..N_SIGNALS {
        let id = format!("s{sender} {number}");
        let mut pause = Pause::new();
        while !try_to_send(world, handle, keys, &id, &mut dice).await? {
            pause.wait(false).await;
        }
        acknowledged.push(id);
        sleep(Duration::from_micros(dice.random_range(0..3_000))).await;
    }
    Ok(acknowledged)
}

/// Whether a relay let a sender with some key in, and has acknowledged the signal.
async fn try_to_send(
    world: &World,
    handle: &ObjectAddress,
    keys: &Keys,
    id: &str,
    dice: &mut StdRng,
) -> Result<bool, Violation> {
    let Some(taken) = keys.take(dice) else { return Ok(false) };
    let relay = world.relay(dice.random_range(0..N_RELAYS)).mailboxes;
    // As a permit does it, but for the arithmetic of the signature.
    let opens = match relay.signing_keys_for(handle).await {
        Ok(found) => found.contains(&taken.key),
        Err(error) if is_busy(&error) => return Ok(false),
        Err(error) => return Err(Violation::answer(error)),
    };
    keys.judge(&taken, opens)?;
    if !opens {
        return Ok(false);
    }
    match relay.put_as_bearer(handle, new(body_of(id).as_bytes())).await {
        // Where there is a container and no handle yet, it is a plain object.
        Ok(receipt) => Ok(matches!(receipt.outcome, PutOutcome::Signal(_))),
        Err(error) if is_busy(&error) || error.class() == ErrorClass::NotFound => Ok(false),
        Err(error) => Err(Violation::answer(error)),
    }
}
