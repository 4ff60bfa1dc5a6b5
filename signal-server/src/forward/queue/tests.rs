use super::*;
use crate::forward::queue::room::{A_FEW, FIRST_HALF, MAX_WAITING};

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
        .take_while(|number| queue.reserve(&lane(&format!("{project}/{number}")), n_bytes).is_ok())
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
