//! A native handle: whoever waits for it hears of every signal, or at least of the last one.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use signal_protocol::handle::HandleId;
use signal_protocol::path::AccountName;
use signal_protocol::signal::Signal;
use tokio::time::sleep;

use crate::mailbox::NewHandle;
use crate::mailbox::error::ErrorClass;
use crate::tests::histories::model::{Rule, Violation};
use crate::tests::histories::play::{N_SIGNALS, persistently, seeds};
use crate::tests::histories::world::{N_RELAYS, World};

/// Makes a native handle, signals it and waits for it.
pub(super) async fn signal_and_watch(
    world: &World,
    account: &AccountName,
    dice: &mut StdRng,
) -> Result<(), Violation> {
    let handle = persistently(world, dice, |relay| {
        let account = account.clone();
        let (count, timeout) = (1_000, Duration::from_secs(12 * 3_600));
        let new = NewHandle { account, count, timeout, label: None, metadata: None };
        async move { relay.create_handle(new).await }
    });
    let handle = handle.await?.id;
    let mut dice = seeds(dice, 2).into_iter();
    let mut draw = || dice.next().expect("as many as were asked for");
    let (sender, watcher) = (draw(), draw());
    tokio::try_join!(signal(world, &handle, sender), watch(world, &handle, watcher))?;
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
            Err(error) => return Err(Violation::answer(error)),
        }
    }
    match version == last_version {
        true => Ok(()),
        false => Err(Violation::of(Rule::Once, format!("version {version}"))),
    }
}
