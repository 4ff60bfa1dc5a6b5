//! How much of the queue there is for whom.
//!
//! A few signals of an account find room as long as there is any; more have to find it in the first half, and may
//! take up no more of that than they leave free: half of it if the account is alone, a quarter beside one that has
//! done so. A fixed share would have to be small to keep room beside several such accounts, of which somebody may
//! have many: Heat gives the instances of every stack one of their own.

/// Most that waits: at 16 signals at a time and 50 ms each, a minute's work; and what bodies may take of the disk.
pub(super) const MAX_WAITING: Room = Room { n_signals: 20_000, n_bytes: 256 << 20 };

/// What accounts share that have more than [`A_FEW`] signals.
pub(super) const FIRST_HALF: Room = Room { n_signals: 10_000, n_bytes: 128 << 20 };

/// What an account needs no share for: the wait conditions of a small stack. It takes more than 600 accounts to use
/// up the second half so.
pub(super) const A_FEW: Room = Room { n_signals: 16, n_bytes: 64 << 10 };

/// What signals take up, those that are still being written down among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) n_signals: usize,
    pub(super) n_bytes: u64,
}

/// Whether there is room, where the account would hold `own`, and all accounts together `all`.
pub(super) fn is_enough(own: Room, all: Room) -> bool {
    match own.fits(A_FEW) {
        true => all.fits(MAX_WAITING),
        // What it holds is no more than what it leaves free.
        false => own.and(all).fits(FIRST_HALF),
    }
}

impl Room {
    pub(super) fn of_signal(n_bytes: u64) -> Room {
        Room { n_signals: 1, n_bytes }
    }

    pub(super) fn and(self, other: Room) -> Room {
        Room { n_signals: self.n_signals + other.n_signals, n_bytes: self.n_bytes + other.n_bytes }
    }

    pub(super) fn less(self, other: Room) -> Room {
        Room {
            n_signals: self.n_signals.saturating_sub(other.n_signals),
            n_bytes: self.n_bytes.saturating_sub(other.n_bytes),
        }
    }

    fn fits(self, limit: Room) -> bool {
        self.n_signals <= limit.n_signals && self.n_bytes <= limit.n_bytes
    }
}
