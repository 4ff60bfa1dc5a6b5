//! Ten thousand short histories of three relays on one store, with Heat behind them, each with its own faults.
//!
//! In each, three senders signal handles of one container and repeat themselves until they are heard, now and then
//! also when they were, or to two relays at once; a reader does as Heat does: lists, reads, removes. In some a
//! watcher long-polls a native handle that a fourth sender signals; two more send signals that one of the relays
//! sends on to Heat; a stack is made and removed again and again while it is signalled, and the keys of its URLs
//! are set, exchanged and removed; a handle is signalled that nobody reads; sweeps run at any time, as late as
//! nothing may have become old. At the end months pass, and what is over has to go.
//!
//! In one of six the relays have the store for etcd, with all that makes of it requests, joins those and
//! remembers, and its client, which an etcd in memory answers, see `store/etcd/model.rs`; in the others the store
//! is one in memory.
//!
//! Between them commits and reads fail, come late, also when their sender has given up, or take effect without an
//! answer; members of etcd cannot be reached, have no leader, have too much to do, no space, or say nothing; old
//! revisions are forgotten between two pages of a scan; changes are told late, twice, or as a loss of the thread;
//! jobs change hands, for a moment to nobody or to two; requests to Heat are lost, refused, taken without an
//! answer, taken when nobody waits any more, or taken twice. Relays die in the middle of whatever they do, just
//! before and just after a commit, just before and just after Heat has taken a signal, and begin again.
//!
//! All of it is drawn from one seed, and time is the runtime's own, so that a history can be had again:
//!
//! ```text
//! HELIOGRAPH_HISTORY=4711 cargo test -p heliograph-server --lib histories
//! ```
//!
//! The model is small.
//!
//! * What was acknowledged is read by the reader, once: under one name, as it was sent, whether it is small or has a
//!   record of its own for its body. What the reader did not read is never removed: not with its container, and not
//!   by a sweep before its time. An id that was sent again with the same content is not there a second time, also
//!   after the first one has been read.
//! * A key whose removal was acknowledged lets nobody in at any relay, and one that was set does.
//! * Of every signal that was acknowledged for Heat it is written down in the end that Heat has taken or
//!   refused it, and what was taken had one effect, by its id. Nothing else has an effect but what was tried
//!   and not acknowledged. No secret is left in the store, and no relay believes that something waits.
//! * Whoever waits for a handle is woken by the last signal.
//! * What is over goes, with all its parts, whoever died while it was removed.
//! * What the store for etcd says is so: a read shows a moment between its question and its answer, a scan one
//!   moment in all its pages, a commit was made as a whole if it was acknowledged, and not at all if it was refused.
//!
//! Whether that would find anything is tried as well: relays that do something wrong are caught, see `planted`.

mod etcd;
mod heat;
mod life;
mod model;
mod planted;
mod play;
mod store;
mod world;

use std::num::NonZero;
use std::ops::Range;
use std::time::Duration;

use tokio::time::timeout;

use crate::tests::histories::model::{Rule, Trace, Violation};
use crate::tests::histories::planted::Planted;
use crate::tests::histories::play::history;

const N_HISTORIES: u64 = 10_000;

/// A history takes some minutes of its own time. One that does not end is a failure.
const LIMIT: Duration = Duration::from_secs(3_600);

/// In how many histories a fault that is planted has to show.
const N_TRIES: u64 = 400;

/// One history, or some of them: `4711` or `0..500`.
#[expect(clippy::disallowed_methods, reason = "a test may be told which history to play again")]
fn wanted() -> Range<u64> {
    let Ok(wanted) = std::env::var("HELIOGRAPH_HISTORY") else { return 0..N_HISTORIES };
    let seed = |text: &str| text.parse().expect("a seed");
    match wanted.split_once("..") {
        Some((first, end)) => seed(first)..seed(end),
        None => seed(&wanted)..seed(&wanted) + 1,
    }
}

fn play(seed: u64, planted: Option<Planted>) -> Result<Trace, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let played = timeout(LIMIT, history(seed, planted)).await;
        played.unwrap_or_else(|_| Err(Violation::of(Rule::Ends, "the history does not end")))
    })
}

/// Plays one history, and says which it was if it goes wrong.
fn check(seed: u64) {
    let played = std::panic::catch_unwind(|| play(seed, None));
    let failure = match played {
        Ok(Ok(_)) => return,
        Ok(Err(violation)) => format!("{violation:?}"),
        Err(_) => "it panicked".to_owned(),
    };
    panic!(
        "{failure}\nplay it again: HELIOGRAPH_HISTORY={seed} cargo test -p heliograph-server --lib histories"
    );
}

#[test]
fn ten_thousand_histories_go_as_the_model_says() {
    let wanted = wanted();
    let n_threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..n_threads)
            .map(|thread| {
                let seeds = wanted.clone().skip(thread).step_by(n_threads);
                scope.spawn(move || seeds.for_each(check))
            })
            .collect();
        players.into_iter().for_each(|player| player.join().expect("all histories go well"));
    });
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..20 {
        let traces = [play(seed, None), play(seed, None)].map(|played| played.expect("a history"));
        assert_eq!(traces[0], traces[1], "{seed}");
    }
}

#[test]
fn what_a_relay_does_wrong_is_found() {
    for planted in Planted::ALL {
        let found = (0..N_TRIES).find_map(|seed| Some((seed, play(seed, Some(planted)).err()?)));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{planted:?} is not found"));
        eprintln!("{planted:?} is found in history {seed}: {:?}", violation.rule);
        assert!(planted.breaks(violation.rule), "{planted:?} in history {seed}: {violation:?}");
    }
}
