//! What has to hold at the end of a history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::forward::record::{End, ForwardId, OutcomeRecord, decode};
use crate::mailbox::error::MailboxError;
use crate::store::{Key, KeyKind};
use crate::tests::histories::heat::{GONE, Heat, Place};
use crate::tests::histories::store::Hub;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Whoever asks again and again is answered in the end, and what waits for Heat ends.
    Ends,
    /// No answer is one that cannot be.
    Answers,
    /// What was acknowledged is there.
    Durable,
    /// A signal has one effect, by its id.
    Once,
    /// Nobody but its reader removes a signal.
    Unread,
    /// What became of a signal for Heat is written down, and its secret is not.
    Recorded,
    /// A key that was removed opens nothing, and one that was set does.
    Keys,
    /// What is over goes, with everything that belongs to it.
    Clean,
    /// What the store says is so.
    Store,
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    #[expect(dead_code, reason = "it is read in the message of a failing test")]
    text: String,
}

/// What a history looked like from outside: the same for the same seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) lasted: Duration,
    pub(super) n_requests: usize,
    pub(super) n_read: usize,
    pub(super) last_life: u64,
}

/// What the senders to Heat know.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    pub(super) acknowledged: Vec<(ForwardId, Place)>,
    pub(super) tried: BTreeSet<Place>,
}

impl Violation {
    pub(super) fn of(rule: Rule, text: impl Into<String>) -> Violation {
        Violation { rule, text: text.into() }
    }

    /// An answer that cannot be.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for `map_err`")]
    pub(super) fn answer(error: MailboxError) -> Violation {
        Violation::of(Rule::Answers, format!("{error:?}"))
    }
}

/// What was acknowledged is what was read, and nothing else.
pub(super) fn check_signals(
    acknowledged: &BTreeSet<String>,
    name_of_id: &BTreeMap<String, String>,
) -> Result<(), Violation> {
    let lost = acknowledged.iter().find(|id| !name_of_id.contains_key(*id));
    if let Some(id) = lost {
        return Err(Violation::of(Rule::Durable, format!("{id} was acknowledged and never read")));
    }
    match name_of_id.keys().find(|id| !acknowledged.contains(*id)) {
        Some(id) => Err(Violation::of(Rule::Answers, format!("nobody has sent {id}"))),
        None => Ok(()),
    }
}

/// Heat has what was acknowledged, once, and the store says so and no more.
pub(super) async fn check_forwards(
    hub: &Hub,
    heat: &Heat,
    forwards: &Forwards,
) -> Result<(), Violation> {
    let at_heat = heat.signals();
    for (id, place) in &forwards.acknowledged {
        let outcome = hub.records.get(&id.key(KeyKind::ForwardOutcome)).await;
        let Ok(Some(outcome)) = outcome else {
            return Err(Violation::of(Rule::Durable, format!("no record of {id} for {place:?}")));
        };
        let outcome: OutcomeRecord = decode(KeyKind::ForwardOutcome, &outcome)
            .map_err(|error| Violation::of(Rule::Recorded, error.to_string()))?;
        let expect = if place.0 == GONE { End::Refused } else { End::Delivered };
        if outcome.end != expect {
            return Err(Violation::of(Rule::Recorded, format!("{id} ended as {outcome:?}")));
        }
        if expect == End::Delivered && !at_heat.contains_key(place) {
            return Err(Violation::of(Rule::Durable, format!("Heat has never had {place:?}")));
        }
    }
    for (place, kept) in &at_heat {
        if !forwards.tried.contains(place) {
            return Err(Violation::of(Rule::Once, format!("nobody has sent {place:?}")));
        }
        if kept.n_effects != 1 {
            return Err(Violation::of(Rule::Once, format!("{place:?} had effect twice")));
        }
    }
    for kind in [KeyKind::Forward, KeyKind::ForwardBody] {
        let left = hub.records.scan(&Key::new(kind, &[]), None, 1).await;
        if left.is_ok_and(|left| !left.is_empty()) {
            return Err(Violation::of(Rule::Recorded, format!("a {kind} record is left")));
        }
    }
    Ok(())
}

/// No body is left without its signal.
pub(super) async fn check_bodies(hub: &Hub) -> Result<(), Violation> {
    let bodies = all_of(hub, KeyKind::SignalBody).await;
    for body in &bodies {
        let signal = Key::new(KeyKind::Signal, &[&body.as_bytes()[1..]]);
        if !hub.records.get(&signal).await.is_ok_and(|found| found.is_some()) {
            return Err(Violation::of(Rule::Clean, "a body is left without its signal"));
        }
    }
    Ok(())
}

/// A kind of record of which something is left that nobody needs when everything is over. Accounts may have keys
/// that somebody chose, and what became of signals for Heat is kept for a while.
pub(super) async fn what_is_left(hub: &Hub) -> Option<KeyKind> {
    for kind in KeyKind::ALL {
        let stays =
            matches!(kind, KeyKind::Account | KeyKind::ForwardOutcome | KeyKind::ForwardIndex);
        if !stays && !all_of(hub, *kind).await.is_empty() {
            return Some(*kind);
        }
    }
    None
}

async fn all_of(hub: &Hub, kind: KeyKind) -> Vec<Key> {
    let found = hub.records.scan(&Key::new(kind, &[]), None, usize::MAX).await;
    found.unwrap_or_default().into_iter().map(|(key, _)| key).collect()
}
