//! Which signal is sent next: a plain structure, to which time is an argument.
//!
//! The signals for one resource are a *lane*: they are sent one after the other, in the order in which
//! they arrived, because a later signal with the same id replaces an earlier one. Lanes know nothing of one
//! another, so a handle that Heat chokes on holds up no other.
//!
//! A lane that failed is tried again after 1, 2, 4, 8, 16, 30, 30, … seconds, each cut by up to a half at
//! random. A signal that Heat seems to choke on goes to the end of its lane after `MAX_HEAD_FAILURES`
//! attempts: the next one may be what the stack waits for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::forward::record::{End, ForwardId};
use crate::forward::target::Target;

/// The first pause after a failure. Doubled with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a Heat that is back is noticed within half a minute.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How often a signal that Heat itself fails over is tried before the next one of its lane has its turn.
const MAX_HEAD_FAILURES: u32 = 3;

/// Most signals that wait, of all lanes: at 16 at a time and 50 ms each, half a minute's work.
pub(crate) const MAX_WAITING: usize = 10_000;

/// Most signals that wait in one lane. Heat counts to a few; more are a loop gone wild.
pub(crate) const MAX_WAITING_IN_LANE: usize = 1_000;

/// Most bytes of bodies that wait on the disk.
pub(crate) const MAX_WAITING_BYTES: u64 = 256 << 20;

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

#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// In an order of their own, so that the same events lead to the same sequence of attempts.
    lanes: BTreeMap<Target, Lane>,
    places: HashMap<ForwardId, Target>,
    n_bytes: u64,
    n_reserved: usize,
    n_reserved_bytes: u64,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Waiting>,
    n_failures: u32,
    /// Nothing while its first signal is being sent.
    due_at: Option<Instant>,
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
    pub(crate) fn reserve(&mut self, target: &Target, n_bytes: u64) -> Result<(), QueueFull> {
        let n_in_lane = self.lanes.get(target).map_or(0, |lane| lane.waiting.len());
        let is_full = self.places.len() + self.n_reserved >= MAX_WAITING
            || n_in_lane >= MAX_WAITING_IN_LANE
            || self.n_bytes + self.n_reserved_bytes + n_bytes > MAX_WAITING_BYTES;
        if is_full {
            return Err(QueueFull);
        }
        self.n_reserved += 1;
        self.n_reserved_bytes += n_bytes;
        Ok(())
    }

    pub(crate) fn give_up_reservation(&mut self, n_bytes: u64) {
        self.n_reserved = self.n_reserved.saturating_sub(1);
        self.n_reserved_bytes = self.n_reserved_bytes.saturating_sub(n_bytes);
    }

    /// Adds a signal, which is on disk. One that is there already stays where it is.
    pub(crate) fn add(
        &mut self,
        target: &Target,
        id: ForwardId,
        n_bytes: u64,
        expires_at: Timestamp,
        now: Instant,
    ) {
        if self.places.contains_key(&id) {
            return;
        }
        self.places.insert(id, target.clone());
        self.n_bytes += n_bytes;
        let new_lane = || Lane { waiting: VecDeque::new(), n_failures: 0, due_at: Some(now) };
        let lane = self.lanes.entry(target.clone()).or_insert_with(new_lane);
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
    }

    /// A signal whose turn it is. Its lane rests until it is told what became of it.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Target, Waiting)> {
        let is_due = |lane: &&mut Lane| lane.due_at.is_some_and(|due_at| due_at <= now);
        let (target, lane) = self
            .lanes
            .iter_mut()
            .filter(|(_, lane)| is_due(lane))
            .min_by_key(|(_, lane)| lane.due_at)?;
        let waiting = lane.waiting.front()?.clone();
        lane.due_at = None;
        Some((target.clone(), waiting))
    }

    /// When the next signal is due, if none is being waited for.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.lanes.values().filter_map(|lane| lane.due_at).min()
    }

    /// The first signal of the lane is done with, and its record is written.
    pub(crate) fn finish(&mut self, target: &Target, now: Instant) {
        let Some(lane) = self.lanes.get_mut(target) else {
            return;
        };
        if let Some(done) = lane.waiting.pop_front() {
            self.places.remove(&done.id);
            self.n_bytes = self.n_bytes.saturating_sub(done.n_bytes);
        }
        lane.n_failures = 0;
        lane.due_at = Some(now);
        if lane.waiting.is_empty() {
            self.lanes.remove(target);
        }
    }

    /// The first signal of the lane was not taken; it is tried again. `cut` in 0..1 is the random part of
    /// the pause.
    pub(crate) fn fail(
        &mut self,
        target: &Target,
        failure: String,
        suspect: Suspect,
        cut: f64,
        now: Instant,
    ) {
        let Some(lane) = self.waiting_lane(target, now) else {
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
        target: &Target,
        end: End,
        reason: String,
        cut: f64,
        now: Instant,
    ) {
        let Some(lane) = self.waiting_lane(target, now) else {
            return;
        };
        lane.back_off(cut, now);
        if let Some(head) = lane.waiting.front_mut() {
            head.end = Some((end, reason));
        }
    }

    /// The lane of a signal whose attempt has failed, unless somebody else was done with it meanwhile.
    fn waiting_lane(&mut self, target: &Target, now: Instant) -> Option<&mut Lane> {
        let head = self.lanes.get(target)?.waiting.front();
        if head.is_some_and(|head| head.is_gone) {
            self.finish(target, now);
            return None;
        }
        self.lanes.get_mut(target)
    }

    /// Somebody else is done with a signal. One that is being sent stays until that has come to an end.
    pub(crate) fn forget(&mut self, id: ForwardId) {
        let Some(target) = self.places.get(&id).cloned() else {
            return;
        };
        let Some(lane) = self.lanes.get_mut(&target) else {
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
            self.n_bytes = self.n_bytes.saturating_sub(done.n_bytes);
        }
        self.places.remove(&id);
        if lane.waiting.is_empty() {
            self.lanes.remove(&target);
        }
    }

    /// All that wait.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ForwardId> {
        self.places.keys().copied()
    }

    pub(crate) fn get(&self, id: ForwardId) -> Option<&Waiting> {
        let lane = self.lanes.get(self.places.get(&id)?)?;
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

    fn target(resource: &str) -> Target {
        Target {
            stack_name: "s".to_owned(),
            stack_id: "i".to_owned(),
            resource: resource.to_owned(),
        }
    }

    fn id(number: u64) -> ForwardId {
        ForwardId::new(number, [0; 8])
    }

    fn add(queue: &mut Queue, resource: &str, number: u64, now: Instant) {
        queue.add(&target(resource), id(number), 10, Timestamp::MAX, now);
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
        queue.finish(&target("a"), now);
        assert_eq!(take(&mut queue, now), Some(2));
        queue.finish(&target("a"), now);
        queue.finish(&target("b"), now);
        assert_eq!((queue.len(), queue.n_bytes, queue.lanes.len()), (0, 0, 0));
    }

    #[test]
    fn a_lane_that_fails_is_tried_again_later_and_later() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        add(&mut queue, "a", 1, now);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(take(&mut queue, now), Some(1));
            queue.fail(&target("a"), "away".to_owned(), Suspect::Upstream, 0.0, now);
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
            queue.fail(&target("a"), "500".to_owned(), Suspect::Signal, 0.0, now);
            now = queue.next_due().expect("due");
        }
        assert_eq!(take(&mut queue, now), Some(2));
        queue.finish(&target("a"), now);
        assert_eq!(take(&mut queue, now), Some(1));
    }

    #[test]
    fn an_upstream_that_is_away_does_not_change_the_order() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        add(&mut queue, "a", 1, now);
        add(&mut queue, "a", 2, now);
        for _ in 0..10 {
            assert_eq!(take(&mut queue, now), Some(1));
            queue.fail(&target("a"), "away".to_owned(), Suspect::Upstream, 0.0, now);
            now = queue.next_due().expect("due");
        }
    }

    #[test]
    fn an_end_that_could_not_be_written_is_remembered() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        add(&mut queue, "a", 1, now);
        take(&mut queue, now);
        queue.fail_to_finish(&target("a"), End::Delivered, "200".to_owned(), 0.0, now);
        let (_, waiting) = queue.take_due(now + MAX_PAUSE).expect("due");
        assert_eq!(waiting.end, Some((End::Delivered, "200".to_owned())));
    }

    #[test]
    fn each_limit_is_kept() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for number in 0..MAX_WAITING_IN_LANE as u64 {
            assert_eq!(queue.reserve(&target("a"), 0), Ok(()));
            queue.give_up_reservation(0);
            add(&mut queue, "a", number, now);
        }
        assert_eq!(queue.reserve(&target("a"), 0), Err(QueueFull));
        assert_eq!(queue.reserve(&target("b"), MAX_WAITING_BYTES), Err(QueueFull));

        let mut queue = Queue::default();
        assert_eq!(queue.reserve(&target("a"), MAX_WAITING_BYTES), Ok(()));
        assert_eq!(queue.reserve(&target("b"), 1), Err(QueueFull));
        queue.give_up_reservation(MAX_WAITING_BYTES);
        for number in 0..MAX_WAITING {
            assert_eq!(queue.reserve(&target(&number.to_string()), 0), Ok(()));
        }
        assert_eq!(queue.reserve(&target("b"), 0), Err(QueueFull));
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
        queue.fail(&target("r"), "away".to_owned(), Suspect::Upstream, 0.0, now);
        assert_eq!(queue.ids().collect::<Vec<_>>(), [id(3)]);
        queue.forget(id(3));
        assert_eq!((queue.len(), take(&mut queue, now)), (0, None));
        add(&mut queue, "r", 4, now);
        assert_eq!(take(&mut queue, now), Some(4));
    }
}
