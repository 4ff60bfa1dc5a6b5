//! Signals that one of the relays sends on to Heat.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use rand::Rng;
use rand::rngs::StdRng;
use signal_protocol::path::AccountName;
use tokio::time::sleep;

use crate::config::Secret;
use crate::forward::NewForward;
use crate::forward::judge::{Expected, judge};
use crate::forward::record::{ForwardId, Route};
use crate::forward::target::Target;
use crate::store::{Key, KeyKind};
use crate::tests::histories::heat::GONE;
use crate::tests::histories::model::{Forwards, Rule, Violation, check_forwards};
use crate::tests::histories::planted::Planted;
use crate::tests::histories::play::{N_SIGNALS, seeds};
use crate::tests::histories::world::{N_RELAYS, World};

const N_SENDERS: usize = 2;

/// What the senders know.
pub(super) async fn send_all(
    world: &World,
    account: &AccountName,
    dice: &mut StdRng,
) -> Result<Forwards, Violation> {
    let forwards = Mutex::default();
    let dice_of_senders = seeds(dice, N_SENDERS);
    let sending = (0..)
        .zip(dice_of_senders)
        .map(|(number, dice)| send(world, account, &forwards, number, dice));
    try_join_all(sending).await?;
    Ok(forwards.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until nothing is left to be sent, and looks what became of it.
pub(super) async fn check_heat(world: &World, forwards: &Forwards) -> Result<(), Violation> {
    let prefix = Key::new(KeyKind::Forward, &[]);
    while world.hub.records.scan(&prefix, None, 1).await.is_ok_and(|left| !left.is_empty()) {
        sleep(Duration::from_secs(1)).await;
    }
    check_forwards(&world.hub, &world.heat, forwards).await?;
    while !world.no_relay_waits() {
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Sends signals that go on to Heat: with an id or without one, to two resources or to one that is gone.
async fn send(
    world: &World,
    account: &AccountName,
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
            let mut new = new_forward(id, account, &resource, Bytes::from(body.clone()));
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

fn new_forward(id: ForwardId, account: &AccountName, resource: &str, body: Bytes) -> NewForward {
    let target = Target {
        stack_name: "s".to_owned(),
        stack_id: "i".to_owned(),
        resource: resource.to_owned(),
    };
    let token = Secret::new("t".to_owned()).into();
    let route = Route::Heat { project: "p".to_owned(), token };
    NewForward { id, account: account.clone(), target, route, body }
}
