//! The keys of a stack's URLs, and what is known of each: whether it must open, must not, or may.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::Rng;
use rand::rngs::StdRng;

use crate::mailbox::{KeyChange, KeyUpdate, SigningKey};
use crate::tests::histories::model::{Rule, Violation};

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Account,
    Container,
}

/// What is certain about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is about to be set, or to be removed.
    Between,
    /// That it was set is acknowledged: it opens.
    Set,
    /// Its container is deleted: it opens for as long as somebody may still wait for a handle in it.
    Left,
    /// That it was removed is acknowledged: nobody gets in with it.
    Removed,
}

#[derive(Debug)]
struct Known {
    key: SigningKey,
    holder: Holder,
    standing: Standing,
}

/// Every key there ever was.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Vec<Known>>);

/// A key that somebody signs with, and what was certain about it when he began.
#[derive(Debug)]
pub(super) struct Taken {
    index: usize,
    pub(super) key: SigningKey,
    before: Standing,
}

impl Keys {
    /// A new one, which is about to be set.
    pub(super) fn begin(&self, holder: Holder) -> KeyUpdate {
        let mut all = self.all();
        let key = SigningKey::parse(&format!("key {}", all.len())).expect("a key");
        let update = KeyUpdate { primary: Some(KeyChange::Set(key.clone())), secondary: None };
        all.push(Known { key, holder, standing: Standing::Between });
        update
    }

    /// Moves all keys of a holder from one standing to another; how many those are.
    pub(super) fn turn(&self, holder: Holder, from: Standing, to: Standing) -> usize {
        let mut all = self.all();
        let turned =
            all.iter_mut().filter(|known| known.holder == holder && known.standing == from);
        turned.map(|known| known.standing = to).count()
    }

    /// How many of a holder's keys are good.
    pub(super) fn n_set(&self, holder: Holder) -> usize {
        let is_set = |known: &&Known| known.holder == holder && known.standing == Standing::Set;
        self.all().iter().filter(is_set).count()
    }

    /// One to sign with: mostly one of the last two, as a sender has that was told lately.
    pub(super) fn take(&self, dice: &mut StdRng) -> Option<Taken> {
        let all = self.all();
        let n_back = if dice.random_range(0..4) == 0 { all.len() } else { all.len().min(2) };
        let index = all.len() - dice.random_range(1..=n_back.max(1)).min(all.len());
        let known = all.get(index)?;
        Some(Taken { index, key: known.key.clone(), before: known.standing })
    }

    /// Whether a relay may say that the key opens, or that it does not.
    pub(super) fn judge(&self, taken: &Taken, opens: bool) -> Result<(), Violation> {
        let after = self.all()[taken.index].standing;
        let wrong = match (taken.before, after, opens) {
            (Standing::Removed, _, true) => "a key that was removed opens",
            (Standing::Set, Standing::Set, false) => "a key that was set does not open",
            _ => return Ok(()),
        };
        Err(Violation::of(Rule::Keys, format!("{wrong}: {}", taken.key.reveal())))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
