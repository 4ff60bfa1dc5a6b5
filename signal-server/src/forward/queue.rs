//! Which signal is sent next: a plain structure, to which time is an argument.
//!
//! The signals of one account for one resource are a *lane*: they are sent one after the other, in the order
//! in which they arrived, because a later signal with the same id replaces an earlier one. Lanes know nothing of
//! one another, so a handle that Heat chokes on holds up no other; nor does an account that names the stack of
//! somebody else, for its signals are in a lane of its own.
//!
//! No account shuts the others out. A few of its signals find room as long as there is any; more have to find it
//! in the first half, and may take up no more of that than they leave free: half of it if the account is alone, a
//! quarter beside one that has done so. A fixed share would have to be small to keep room beside several such
//! accounts, of which somebody may have many: Heat gives the instances of every stack one of their own. The
//! accounts are sent for in turns; the one of which the fewest signals are being sent comes first, so signals that
//! Heat is slow to take do not hold up those of others either.
//!
//! A lane that failed is tried again after 1, 2, 4, 8, 16, 30, 30, … seconds, each cut by up to a half at
//! random. A signal that Heat seems to choke on goes to the end of its lane after `MAX_HEAD_FAILURES`
//! attempts: the next one may be what the stack waits for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use signal_protocol::path::AccountName;
use tokio::time::Instant;

use crate::forward::record::{End, EntryRecord, ForwardId};
use crate::forward::target::Target;

/// The first pause after a failure. Doubled with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a Heat that is back is noticed within half a minute.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How often a signal that Heat itself fails over is tried before the next one of its lane has its turn.
const MAX_HEAD_FAILURES: u32 = 3;

/// Most that waits: at 16 signals at a time and 50 ms each, a minute's work; and what bodies may take of the disk.
const MAX_WAITING: Room = Room { n_signals: 20_000, n_bytes: 256 << 20 };

/// What accounts share that have more than [`A_FEW`] signals.
const FIRST_HALF: Room = Room { n_signals: 10_000, n_bytes: 128 << 20 };

/// What an account needs no share for: the wait conditions of a small stack. It takes more than 600 accounts to use
/// up the second half so.
const A_FEW: Room = Room { n_signals: 16, n_bytes: 64 << 10 };

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

/// What signals take up, those that are still being written down among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    n_signals: usize,
    n_bytes: u64,
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

impl Room {
    fn of_signal(n_bytes: u64) -> Room {
        Room { n_signals: 1, n_bytes }
    }

    fn and(self, other: Room) -> Room {
        Room { n_signals: self.n_signals + other.n_signals, n_bytes: self.n_bytes + other.n_bytes }
    }

    fn less(self, other: Room) -> Room {
        Room {
            n_signals: self.n_signals.saturating_sub(other.n_signals),
            n_bytes: self.n_bytes.saturating_sub(other.n_bytes),
        }
    }

    fn fits(self, limit: Room) -> bool {
        self.n_signals <= limit.n_signals && self.n_bytes <= limit.n_bytes
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
        let has_room = match own.fits(A_FEW) {
            true => all.fits(MAX_WAITING),
            // What it holds is no more than what it leaves free.
            false => own.and(all).fits(FIRST_HALF),
        };
        let n_in_lane = self.lane(name).map_or(0, |lane| lane.waiting.len());
        if !has_room || n_in_lane >= MAX_WAITING_IN_LANE {
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
mod tests {
    use super::*;

    /// The lane of `account/resource`, or of the account `q`.
    fn lane(text: &str) -> LaneName {
        let (project, resource) = text.split_once('/').unwrap_or(("q", text));
        LaneName {
            account: AccountName::of_project(project).expect("an account"),
            target: Target {
                stack_name: "s".to_owned(),
                stack_id: "i".to_owned(),
                resource: resource.to_owned(),
            },
        }
    }

    fn id(number: u64) -> ForwardId {
        ForwardId::new(number, [0; 8])
    }

    fn add(queue: &mut Queue, resource: &str, number: u64, now: Instant) {
        queue.add(lane(resource), id(number), 10, Timestamp::MAX, now);
    }

    fn take(queue: &mut Queue, now: Instant) -> Option<u64> {
        queue.take_due(now).map(|(_, waiting)| waiting.id.number())
    }

    #[test]
    fn one_lane_keeps_its_order_and_others_do_not_wait_for_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (resource, number) in [("a", 1), ("a", 2), ("b", 3)] {
            add(&mut queue, resource, number, now);
            add(&mut queue, resource, number, now);
        }
        assert_eq!(queue.len(), 3);
        let mut first = [take(&mut queue, now), take(&mut queue, now)];
        first.sort_unstable();
        assert_eq!(first, [Some(1), Some(3)]);
        assert_eq!(take(&mut queue, now), None, "2 waits for 1");
        assert_eq!(queue.next_due(), None);
        queue.finish(&lane("a"), now);
        assert_eq!(take(&mut queue, now), Some(2));
        queue.finish(&lane("a"), now);
        queue.finish(&lane("b"), now);
        assert_eq!((queue.len(), queue.held, queue.accounts.len()), (0, Room::default(), 0));
    }

    #[test]
    fn a_lane_that_fails_is_tried_again_later_and_later() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        add(&mut queue, "a", 1, now);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(take(&mut queue, now), Some(1));
            queue.fail(&lane("a"), "away".to_owned(), Suspect::Upstream, 0.0, now);
            let due = queue.next_due().expect("due");
            assert_eq!(due - now, Duration::from_secs(seconds));
            assert_eq!(take(&mut queue, due - Duration::from_millis(1)), None);
            now = due;
        }
        assert_eq!(queue.get(id(1)).map(|waiting| waiting.n_attempts), Some(7));
        assert_eq!(pause(0, 1.0), FIRST_PAUSE / 2);
    }

    #[test]
    fn a_signal_that_heat_chokes_on_lets_the_next_one_pass() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        add(&mut queue, "a", 1, now);
        add(&mut queue, "a", 2, now);
        for _ in 0..MAX_HEAD_FAILURES {
            assert_eq!(take(&mut queue, now), Some(1));
            queue.fail(&lane("a"), "500".to_owned(), Suspect::Signal, 0.0, now);
            now = queue.next_due().expect("due");
        }
        assert_eq!(take(&mut queue, now), Some(2));
        queue.finish(&lane("a"), now);
        assert_eq!(take(&mut queue, now), Some(1));
    }

    #[test]
    fn an_upstream_that_is_away_does_not_change_the_order() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        add(&mut queue, "a", 1, now);
        add(&mut queue, "a", 2, now);
        for _ in 0..10 {
            assert_eq!(take(&mut queue, now), Some(1));
            queue.fail(&lane("a"), "away".to_owned(), Suspect::Upstream, 0.0, now);
            now = queue.next_due().expect("due");
        }
    }

    #[test]
    fn an_end_that_could_not_be_written_is_remembered() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        add(&mut queue, "a", 1, now);
        take(&mut queue, now);
        queue.fail_to_finish(&lane("a"), End::Delivered, "200".to_owned(), 0.0, now);
        let (_, waiting) = queue.take_due(now + MAX_PAUSE).expect("due");
        assert_eq!(waiting.end, Some((End::Delivered, "200".to_owned())));
    }

    /// Reserves until the queue refuses; how many it took.
    fn fill(queue: &mut Queue, project: &str, n_bytes: u64) -> usize {
        (0..)
            .take_while(|number| {
                queue.reserve(&lane(&format!("{project}/{number}")), n_bytes).is_ok()
            })
            .count()
    }

    #[test]
    fn each_limit_is_kept() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for number in 0..MAX_WAITING_IN_LANE as u64 {
            assert_eq!(queue.reserve(&lane("a"), 0), Ok(()));
            queue.give_up_reservation(&lane("a").account, 0);
            add(&mut queue, "a", number, now);
        }
        assert_eq!(queue.reserve(&lane("a"), 0), Err(QueueFull));
        assert_eq!(queue.reserve(&lane("b"), 0), Ok(()));
        assert_eq!(queue.reserve(&lane("x/a"), 0), Ok(()), "a lane of another account");

        let mut queue = Queue::default();
        assert_eq!(queue.reserve(&lane("a"), MAX_WAITING.n_bytes), Err(QueueFull));
        assert_eq!(queue.reserve(&lane("a"), FIRST_HALF.n_bytes / 2), Ok(()));
        assert_eq!(queue.reserve(&lane("b"), 1), Err(QueueFull));
        queue.give_up_reservation(&lane("a").account, FIRST_HALF.n_bytes / 2);
        assert_eq!((queue.held, queue.accounts.len()), (Room::default(), 0));
    }

    #[test]
    fn no_account_shuts_the_others_out() {
        for (n_bytes, whole) in [(0, FIRST_HALF.n_signals), (1 << 20, 128)] {
            let mut queue = Queue::default();
            assert_eq!(fill(&mut queue, "greedy", n_bytes), whole / 2);
            assert_eq!(fill(&mut queue, "likewise", n_bytes), whole / 4);
            assert_eq!(queue.reserve(&lane("modest/a"), n_bytes), Ok(()));
            assert_eq!(fill(&mut queue, "greedy", n_bytes), 0);
        }
        // Nor do very many of them, up to a limit.
        let mut queue = Queue::default();
        for number in 0..600 {
            assert!(fill(&mut queue, &number.to_string(), 0) >= A_FEW.n_signals);
        }
        assert_eq!(fill(&mut queue, "modest", A_FEW.n_bytes / 16), A_FEW.n_signals);
        for number in 600..700 {
            fill(&mut queue, &number.to_string(), 0);
        }
        assert_eq!(queue.reserve(&lane("late/a"), 0), Err(QueueFull));
        assert_eq!(queue.held.n_signals, MAX_WAITING.n_signals);
    }

    #[test]
    fn accounts_are_sent_for_in_turns() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for number in 0..20 {
            add(&mut queue, &format!("a/{number:02}"), number, now);
        }
        assert_eq!(take(&mut queue, now), Some(0));
        assert_eq!(take(&mut queue, now), Some(1));
        for (name, number) in [("b/1", 101), ("b/2", 102), ("c/1", 201), ("c/1", 202)] {
            add(&mut queue, name, number, now);
        }
        let four = [(); 4].map(|()| take(&mut queue, now));
        assert_eq!(four, [Some(101), Some(201), Some(102), Some(2)]);
        // One more of those whose signals are done with sooner.
        queue.finish(&lane("c/1"), now);
        assert_eq!(take(&mut queue, now), Some(202));
        // Whoever comes anew is not in front of those that wait with as few.
        for name in ["b/1", "b/2", "c/1"] {
            queue.finish(&lane(name), now);
        }
        add(&mut queue, "b/3", 103, now);
        add(&mut queue, "c/2", 203, now);
        assert_eq!(take(&mut queue, now), Some(103));
        queue.finish(&lane("b/3"), now);
        add(&mut queue, "b/4", 104, now);
        assert_eq!([(); 3].map(|()| take(&mut queue, now)), [Some(203), Some(104), Some(3)]);
    }

    /// Somebody may send signals for a stack of somebody else; Heat refuses them, but it may also fail.
    #[test]
    fn signals_of_another_account_for_the_same_resource_hold_up_nobody() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        add(&mut queue, "other/r", 1, now);
        assert_eq!(take(&mut queue, now), Some(1));
        queue.fail(&lane("other/r"), "500".to_owned(), Suspect::Signal, 0.0, now);
        add(&mut queue, "own/r", 2, now);
        assert_eq!(take(&mut queue, now), Some(2));
        queue.finish(&lane("own/r"), now);
        assert_eq!(queue.ids().collect::<Vec<_>>(), [id(1)]);
    }

    #[test]
    fn what_somebody_else_has_done_is_forgotten_unless_it_is_being_sent() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for number in [1, 2, 3] {
            add(&mut queue, "r", number, now);
        }
        queue.forget(id(2));
        queue.forget(id(9));
        assert_eq!(queue.len(), 2);
        assert_eq!(take(&mut queue, now), Some(1));
        queue.forget(id(1));
        assert_eq!(queue.len(), 2);
        queue.fail(&lane("r"), "away".to_owned(), Suspect::Upstream, 0.0, now);
        assert_eq!(queue.ids().collect::<Vec<_>>(), [id(3)]);
        queue.forget(id(3));
        assert_eq!((queue.len(), take(&mut queue, now)), (0, None));
        add(&mut queue, "r", 4, now);
        assert_eq!(take(&mut queue, now), Some(4));
    }
}
