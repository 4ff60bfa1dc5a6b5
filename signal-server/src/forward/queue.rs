//! Which signal is sent next: a plain structure, to which time is an argument.
//!
//! The signals of one account for one resource are a *lane*: they are sent one after the other, in the order
//! in which they arrived, because a later signal with the same id replaces an earlier one. Lanes know nothing of
//! one another, so a handle that Heat chokes on holds up no other; nor does an account that names the stack of
//! somebody else, for its signals are in a lane of its own.
//!
//! No account shuts the others out of the queue, see `room`. The accounts are sent for in turns; the one of which
//! the fewest signals are being sent comes first, so signals that Heat is slow to take do not hold up those of
//! others either.
//!
//! A lane that failed is tried again after 1, 2, 4, 8, 16, 30, 30, … seconds, each cut by up to a half at
//! random. A signal that Heat seems to choke on goes to the end of its lane after `MAX_HEAD_FAILURES`
//! attempts: the next one may be what the stack waits for.

mod room;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use signal_protocol::path::AccountName;
use tokio::time::Instant;

use crate::forward::queue::room::Room;
use crate::forward::record::{End, EntryRecord, ForwardId};
use crate::forward::target::Target;

/// The first pause after a failure. Doubled with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a Heat that is back is noticed within half a minute.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How often a signal that Heat itself fails over is tried before the next one of its lane has its turn.
const MAX_HEAD_FAILURES: u32 = 3;

/// Most signals that wait in one lane. Heat counts to a few; more are a loop gone wild.
const MAX_WAITING_IN_LANE: usize = 1_000;

/// There is no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many signals wait to be forwarded")]
pub(crate) struct QueueFull;

/// One signal that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) id: ForwardId,
    pub(crate) n_bytes: u64,
    pub(crate) expires_at: Timestamp,
    pub(crate) n_attempts: u32,
    pub(crate) last_failure: Option<String>,
    n_failures_at_head: u32,
    /// It has ended, and only its record is still to be written.
    pub(crate) end: Option<(End, String)>,
    /// Somebody else is done with it while it is being sent here.
    is_gone: bool,
}

/// Who seems to be at fault for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// Heat, the network, Keystone, the store: any signal would have failed.
    Upstream,
    /// Perhaps the signal.
    Signal,
}

/// Names a lane: whose signals, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaneName {
    pub(crate) account: AccountName,
    pub(crate) target: Target,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// In an order of their own, so that the same events lead to the same sequence of attempts.
    accounts: BTreeMap<AccountName, Account>,
    places: HashMap<ForwardId, LaneName>,
    held: Room,
    n_turns: u64,
}

#[derive(Debug)]
struct Account {
    /// Likewise in order.
    lanes: BTreeMap<Target, Lane>,
    held: Room,
    /// The number of its latest turn, or of the one before it came.
    last_turn: u64,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Waiting>,
    n_failures: u32,
    /// Nothing while its first signal is being sent.
    due_at: Option<Instant>,
}

impl LaneName {
    pub(crate) fn of(entry: &EntryRecord) -> LaneName {
        LaneName { account: entry.account.clone(), target: entry.target.clone() }
    }
}

impl Account {
    fn next_due(&self) -> Option<Instant> {
        self.lanes.values().filter_map(|lane| lane.due_at).min()
    }

    fn n_being_sent(&self) -> usize {
        self.lanes.values().filter(|lane| lane.due_at.is_none()).count()
    }
}

impl Lane {
    /// Puts the next attempt off, for longer with each failure in a row.
    fn back_off(&mut self, cut: f64, now: Instant) {
        self.due_at = Some(now + pause(self.n_failures, cut));
        self.n_failures = self.n_failures.saturating_add(1);
    }
}

impl Queue {
    /// Keeps room for one more signal, which then is either added or given up.
    pub(crate) fn reserve(&mut self, name: &LaneName, n_bytes: u64) -> Result<(), QueueFull> {
        let new = Room::of_signal(n_bytes);
        let all = self.held.and(new);
        let own = self.accounts.get(&name.account).map_or(new, |account| account.held.and(new));
        let n_in_lane = self.lane(name).map_or(0, |lane| lane.waiting.len());
        if !room::is_enough(own, all) || n_in_lane >= MAX_WAITING_IN_LANE {
            return Err(QueueFull);
        }
        self.take_room(&name.account, new);
        Ok(())
    }

    pub(crate) fn give_up_reservation(&mut self, account: &AccountName, n_bytes: u64) {
        self.free_room(account, Room::of_signal(n_bytes));
    }

    /// Adds a signal, which is on disk. One that is there already stays where it is.
    pub(crate) fn add(
        &mut self,
        name: LaneName,
        id: ForwardId,
        n_bytes: u64,
        expires_at: Timestamp,
        now: Instant,
    ) {
        if self.places.contains_key(&id) {
            return;
        }
        let account = self.take_room(&name.account, Room::of_signal(n_bytes));
        let new_lane = || Lane { waiting: VecDeque::new(), n_failures: 0, due_at: Some(now) };
        let lane = account.lanes.entry(name.target.clone()).or_insert_with(new_lane);
        lane.waiting.push_back(Waiting {
            id,
            n_bytes,
            expires_at,
            n_attempts: 0,
            last_failure: None,
            n_failures_at_head: 0,
            end: None,
            is_gone: false,
        });
        self.places.insert(id, name);
    }

    /// A signal whose turn it is. Its lane rests until it is told what became of it.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(LaneName, Waiting)> {
        let (name, account) = self
            .accounts
            .iter_mut()
            .filter(|(_, account)| account.next_due().is_some_and(|due_at| due_at <= now))
            .min_by_key(|(_, account)| (account.n_being_sent(), account.last_turn))?;
        self.n_turns += 1;
        account.last_turn = self.n_turns;
        let (target, lane) = account
            .lanes
            .iter_mut()
            .filter(|(_, lane)| lane.due_at.is_some())
            .min_by_key(|(_, lane)| lane.due_at)?;
        let waiting = lane.waiting.front()?.clone();
        lane.due_at = None;
        Some((LaneName { account: name.clone(), target: target.clone() }, waiting))
    }

    /// When the next signal is due, if none is being waited for.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.accounts.values().filter_map(Account::next_due).min()
    }

    /// The first signal of the lane is done with, and its record is written.
    pub(crate) fn finish(&mut self, name: &LaneName, now: Instant) {
        let Some(lane) = self.lane_mut(name) else {
            return;
        };
        lane.n_failures = 0;
        lane.due_at = Some(now);
        if let Some(done) = lane.waiting.pop_front() {
            self.leave(name, &done);
        }
    }

    /// The first signal of the lane was not taken; it is tried again. `cut` in 0..1 is the random part of
    /// the pause.
    pub(crate) fn fail(
        &mut self,
        name: &LaneName,
        failure: String,
        suspect: Suspect,
        cut: f64,
        now: Instant,
    ) {
        let Some(lane) = self.waiting_lane(name, now) else {
            return;
        };
        lane.back_off(cut, now);
        let Some(mut head) = lane.waiting.pop_front() else {
            return;
        };
        head.n_attempts = head.n_attempts.saturating_add(1);
        head.last_failure = Some(failure);
        if suspect == Suspect::Signal {
            head.n_failures_at_head += 1;
        }
        let has_had_its_turn = head.n_failures_at_head >= MAX_HEAD_FAILURES;
        if has_had_its_turn && !lane.waiting.is_empty() {
            head.n_failures_at_head = 0;
            lane.n_failures = 0;
            lane.due_at = Some(now);
            lane.waiting.push_back(head);
            return;
        }
        lane.waiting.push_front(head);
    }

    /// The first signal of the lane has ended, but that could not be written down: only this is tried
    /// again.
    pub(crate) fn fail_to_finish(
        &mut self,
        name: &LaneName,
        end: End,
        reason: String,
        cut: f64,
        now: Instant,
    ) {
        let Some(lane) = self.waiting_lane(name, now) else {
            return;
        };
        lane.back_off(cut, now);
        if let Some(head) = lane.waiting.front_mut() {
            head.end = Some((end, reason));
        }
    }

    /// The lane of a signal whose attempt has failed, unless somebody else was done with it meanwhile.
    fn waiting_lane(&mut self, name: &LaneName, now: Instant) -> Option<&mut Lane> {
        let head = self.lane(name)?.waiting.front();
        if head.is_some_and(|head| head.is_gone) {
            self.finish(name, now);
            return None;
        }
        self.lane_mut(name)
    }

    /// Somebody else is done with a signal. One that is being sent stays until that has come to an end.
    pub(crate) fn forget(&mut self, id: ForwardId) {
        let Some(name) = self.places.get(&id).cloned() else {
            return;
        };
        let Some(lane) = self.lane_mut(&name) else {
            return;
        };
        let Some(index) = lane.waiting.iter().position(|waiting| waiting.id == id) else {
            return;
        };
        let is_being_sent = index == 0 && lane.due_at.is_none();
        if is_being_sent {
            lane.waiting[index].is_gone = true;
            return;
        }
        if let Some(done) = lane.waiting.remove(index) {
            self.leave(&name, &done);
        }
    }

    /// Frees what a signal took up that has left its lane, and the lane if it was the last.
    fn leave(&mut self, name: &LaneName, done: &Waiting) {
        self.places.remove(&done.id);
        if let Some(account) = self.accounts.get_mut(&name.account)
            && account.lanes.get(&name.target).is_some_and(|lane| lane.waiting.is_empty())
        {
            account.lanes.remove(&name.target);
        }
        self.free_room(&name.account, Room::of_signal(done.n_bytes));
    }

    /// A new account comes behind those that wait for their turn.
    fn take_room(&mut self, name: &AccountName, room: Room) -> &mut Account {
        self.held = self.held.and(room);
        let last_turn = self.n_turns;
        let new = || Account { lanes: BTreeMap::new(), held: Room::default(), last_turn };
        let account = self.accounts.entry(name.clone()).or_insert_with(new);
        account.held = account.held.and(room);
        account
    }

    fn free_room(&mut self, name: &AccountName, room: Room) {
        self.held = self.held.less(room);
        let Some(account) = self.accounts.get_mut(name) else {
            return;
        };
        account.held = account.held.less(room);
        if account.held.n_signals == 0 {
            self.accounts.remove(name);
        }
    }

    fn lane(&self, name: &LaneName) -> Option<&Lane> {
        self.accounts.get(&name.account)?.lanes.get(&name.target)
    }

    fn lane_mut(&mut self, name: &LaneName) -> Option<&mut Lane> {
        self.accounts.get_mut(&name.account)?.lanes.get_mut(&name.target)
    }

    /// All that wait.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ForwardId> {
        self.places.keys().copied()
    }

    pub(crate) fn get(&self, id: ForwardId) -> Option<&Waiting> {
        let lane = self.lane(self.places.get(&id)?)?;
        lane.waiting.iter().find(|waiting| waiting.id == id)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }
}

fn pause(n_failures: u32, cut: f64) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << n_failures.min(16)).min(MAX_PAUSE);
    whole.mul_f64(1.0 - cut / 2.0)
}

#[cfg(test)]
mod tests;
