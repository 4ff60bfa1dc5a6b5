//! Handles of Heat's: senders that repeat themselves, and a reader that lists, reads and removes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use signal_protocol::signal::Signal;
use tokio::time::sleep;

use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::MAX_INLINE_BODY_BYTES;
use crate::mailbox::{ContainerAddress, ListingEntry, ListingQuery, ObjectAddress};
use crate::tests::histories::model::{Rule, Violation, check_signals};
use crate::tests::histories::play::{
    N_SIGNALS, Pause, object, persistently_or_not, seeds, send_persistently,
};
use crate::tests::histories::world::World;

const N_SENDERS: usize = 3;

/// One signal of so many is larger than what stands in its own record.
const ONE_LARGE_OF: usize = 4;

/// What a reader has read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) name_of_id: BTreeMap<String, String>,
    removed: BTreeSet<String>,
}

/// Signals handles of one container, and reads them until every signal has been heard and read; how many there
/// were.
pub(super) async fn send_and_read(
    world: &World,
    handles: &[ObjectAddress],
    dice: &mut StdRng,
) -> Result<usize, Violation> {
    let dice_of_senders = seeds(dice, N_SENDERS);
    let mut reader = Reader::default();
    let handles_of_senders = handles.iter().cycle().zip(dice_of_senders);
    let sending = try_join_all(
        (0..)
            .zip(handles_of_senders)
            .map(|(number, (handle, dice))| send(world, handle, number, dice)),
    );
    let container = &handles[0].container;
    let reading = async {
        let mut pause = Pause::new();
        loop {
            let has_read = reader.read(world, container, dice).await?;
            pause.wait(has_read).await;
        }
    };
    let acknowledged: Vec<Vec<String>> = tokio::select! {
        biased;
        acknowledged = sending => acknowledged,
        failed = reading => failed,
    }?;
    // It may have been between a reading and a removal: twice, and nothing is left.
    for _ in 0..2 {
        reader.read(world, container, dice).await?;
    }
    check_signals(&acknowledged.into_iter().flatten().collect(), &reader.name_of_id)?;
    Ok(reader.name_of_id.len())
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
            // Sometimes to two relays at once, as by a proxy that repeats requests.
            let n_copies = if dice.random_range(0..10) == 0 { 2 } else { 1 };
            let mut dice_of_copies: Vec<StdRng> =
                (0..n_copies).map(|_| StdRng::seed_from_u64(dice.random())).collect();
            let copies = dice_of_copies.iter_mut();
            let sent = join_all(copies.map(|dice| send_persistently(world, handle, &id, dice)));
            for sent in sent.await {
                sent?;
            }
            acknowledged.push(id);
        }
        sleep(Duration::from_micros(dice.random_range(0..2_000))).await;
    }
    Ok(acknowledged)
}

/// The signal with this id: always the same one, and sometimes a large one.
pub(super) fn body_of(id: &str) -> String {
    let sum: usize = id.bytes().map(usize::from).sum();
    if !sum.is_multiple_of(ONE_LARGE_OF) {
        return format!(r#"{{"id":"{id}"}}"#);
    }
    format!(r#"{{"id":"{id}","data":"{}"}}"#, "x".repeat(MAX_INLINE_BODY_BYTES))
}

impl Reader {
    /// Lists, reads and removes, as Heat does. Whether there was anything.
    pub(super) async fn read(
        &mut self,
        world: &World,
        container: &ContainerAddress,
        dice: &mut StdRng,
    ) -> Result<bool, Violation> {
        let listed = persistently_or_not(world, dice, |relay| {
            let container = container.clone();
            async move { relay.list_objects(&container, &ListingQuery::default()).await }
        });
        let listed = match listed.await {
            // Then nothing is to be read, and whoever expects something will say so.
            Err(MailboxError::ContainerNotFound) => return Ok(false),
            listed => listed.map_err(Violation::answer)?,
        };
        let is_empty = listed.is_empty();
        for entry in listed {
            let (ListingEntry::Object { name, .. } | ListingEntry::Prefix { name }) = entry;
            // What came when the handle was not there yet is no signal.
            if name.contains('/') {
                self.read_and_remove(world, &object(container, &name), name, dice).await?;
            }
        }
        Ok(!is_empty)
    }

    async fn read_and_remove(
        &mut self,
        world: &World,
        signal: &ObjectAddress,
        name: String,
        dice: &mut StdRng,
    ) -> Result<(), Violation> {
        let body = persistently_or_not(world, dice, |relay| {
            let signal = signal.clone();
            async move { relay.object(&signal).await }
        });
        let body = match body.await {
            Ok(object) => object.body,
            // Removed by an earlier try, whose reply was lost.
            Err(MailboxError::ObjectNotFound) if self.removed.contains(&name) => return Ok(()),
            Err(MailboxError::ObjectNotFound) => {
                return Err(Violation::of(Rule::Unread, format!("{name} is gone unread")));
            }
            Err(error) => return Err(Violation::answer(error)),
        };
        let id = Signal::parse(&body).ok().and_then(|signal| signal.id).unwrap_or_default();
        if body != body_of(&id) {
            return Err(Violation::of(Rule::Durable, format!("{id} is not what was sent")));
        }
        if let Some(before) = self.name_of_id.insert(id.clone(), name.clone())
            && before != name
        {
            return Err(Violation::of(Rule::Once, format!("{id} was there twice")));
        }
        sleep(Duration::from_micros(dice.random_range(0..300))).await;
        self.removed.insert(name);
        let done = persistently_or_not(world, dice, |relay| {
            let signal = signal.clone();
            async move { relay.delete_object(&signal).await }
        });
        match done.await {
            Ok(()) | Err(MailboxError::ObjectNotFound) => Ok(()),
            Err(error) => Err(Violation::answer(error)),
        }
    }
}
