//! Many at once, over stores that break.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::*;
use crate::clock::SystemClock;
use crate::store::faulty::{FaultRates, FaultyStore};

/// Every commit takes a moment, as on a disk.
const SLOW: FaultRates =
    FaultRates { fail_before: 0, delay: 1_000, max_delay: Duration::from_millis(1), lose_reply: 0 };

fn slow_bench() -> (Bench, Arc<FaultyStore>) {
    let store = Arc::new(FaultyStore::seeded(Arc::new(MemoryStore::new()), 1, SLOW));
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let mailboxes = Mailboxes::new(store.clone(), clock.clone(), Limits::default());
    (Bench { mailboxes, clock, store: Arc::default() }, store)
}

#[tokio::test(start_paused = true)]
async fn signals_for_one_handle_share_commits() {
    let (bench, store) = slow_bench();
    let handle = bench.handle().await;
    let before = store.n_commits();
    let signals = (0..800).map(|number| {
        // Every signal twice, so that repetitions meet in one round.
        let body = format!(r#"{{"id":{}}}"#, number / 2);
        let (bench, handle) = (&bench, &handle);
        async move { bench.signal(handle, &body).await.expect("a signal") }
    });
    let receipts = futures_util::future::join_all(signals).await;
    assert_eq!(receipts.iter().filter(|receipt| **receipt == Receipt::Stored).count(), 400);
    assert_eq!(bench.listing().await.split(' ').count(), 400);
    let n_commits = store.n_commits() - before;
    assert!(n_commits <= 25, "{n_commits} commits");
}

/// Whoever comes first works for those behind it, too.
#[tokio::test(start_paused = true)]
async fn a_change_goes_on_when_its_caller_goes_away() {
    let (bench, _) = slow_bench();
    let handle = bench.handle().await;
    let mut first = Box::pin(bench.signal(&handle, r#"{"id":"first"}"#));
    let mut second = Box::pin(bench.signal(&handle, r#"{"id":"second"}"#));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    drop(first);
    assert_eq!(second.await.expect("a signal"), Receipt::Stored);
    assert_eq!(bench.listing().await.split(' ').count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_with_too_many_waiting_refuses_at_once() {
    let store = Arc::new(FaultyStore::seeded(Arc::new(MemoryStore::new()), 1, SLOW));
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let mailboxes = Mailboxes::new(store, clock.clone(), Limits::default());
    let bench = Bench { mailboxes, clock, store: Arc::default() };
    let handle = bench.handle().await;
    let signals = (0..2 * limits::MAX_QUEUED_CHANGES).map(|_| bench.signal(&handle, "{}"));
    let results = futures_util::future::join_all(signals).await;
    let n_stored = results.iter().filter(|result| result.is_ok()).count();
    assert!((limits::MAX_QUEUED_CHANGES..2 * limits::MAX_QUEUED_CHANGES).contains(&n_stored));
    for result in results.into_iter().filter(|result| result.is_err()) {
        assert_eq!(code(result), "mailbox_busy");
    }
    assert_eq!(bench.listing().await.split(' ').count(), n_stored);
}

/// Two relays on one store that loses requests and replies. Senders repeat until they are heard, a reader
/// does as Heat does, and somebody tries to remove the container all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_signal_is_lost_and_none_is_there_twice() {
    const N_SENDERS: usize = 8;
    const N_SIGNALS: usize = 40;
    for seed in 0..4 {
        let rates = FaultRates {
            fail_before: 100,
            delay: 300,
            max_delay: Duration::from_micros(300),
            lose_reply: 100,
        };
        let store: Arc<dyn Store> =
            Arc::new(FaultyStore::seeded(Arc::new(MemoryStore::new()), seed, rates));
        let relays =
            [0, 1].map(|_| Mailboxes::new(store.clone(), Arc::new(SystemClock), Limits::default()));
        let handle = object("c/h");
        let update = ContainerUpdate::default();
        persistently(|| relays[0].put_container(&handle.container, &update)).await;
        persistently(|| relays[0].put_as_owner(&handle, new(PLACEHOLDER))).await;

        // A signal that is always there: nobody may remove the container.
        persistently(|| relays[0].put_as_bearer(&handle, new(br#"{"id":"guard"}"#))).await;
        let mut senders = JoinSet::new();
        for sender in 0..N_SENDERS {
            let (relay, handle) = (relays[sender % 2].clone(), handle.clone());
            senders.spawn(async move {
                for number in 0..N_SIGNALS {
                    let body = format!(r#"{{"id":"{sender} {number}"}}"#);
                    persistently(|| relay.put_as_bearer(&handle, new(body.as_bytes()))).await;
                }
            });
        }
        let remover = tokio::spawn({
            let (relay, container) = (relays[1].clone(), handle.container.clone());
            async move {
                loop {
                    assert!(relay.delete_container(&container).await.is_err());
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut seen = Seen::default();
        while !senders.is_empty() {
            seen.poll(&relays[0], &handle, &[1]).await;
            while let Some(ended) = senders.try_join_next() {
                ended.expect("the sender ends");
            }
        }
        seen.poll(&relays[1], &handle, &[1]).await;
        assert!(!remover.is_finished());
        remover.abort();
        seen.poll(&relays[0], &handle, &[]).await;
        assert_eq!(seen.name_of_id.len(), N_SENDERS * N_SIGNALS + 1, "seed {seed}");
        // Or the removal before it took effect, and its reply was lost.
        while relays[0].container(&handle.container).await.is_ok() {
            let _ = relays[0].delete_container(&handle.container).await;
        }
    }
}

/// A signal and the removal of its empty container meet: one of them is refused.
#[tokio::test(start_paused = true)]
async fn a_container_is_never_removed_over_an_acknowledged_signal() {
    let rates = FaultRates {
        fail_before: 0,
        delay: 1_000,
        max_delay: Duration::from_millis(2),
        lose_reply: 0,
    };
    let store = FaultyStore::seeded(Arc::new(MemoryStore::new()), 1, rates);
    let store: Arc<dyn Store> = Arc::new(store);
    let relays =
        [0, 1].map(|_| Mailboxes::new(store.clone(), Arc::new(SystemClock), Limits::default()));
    let (mut n_removed, mut n_signalled) = (0, 0);
    for round in 0..200 {
        let handle = object(&format!("{round}/h"));
        let update = ContainerUpdate::default();
        relays[0].put_container(&handle.container, &update).await.expect("a container");
        relays[0].put_as_owner(&handle, new(PLACEHOLDER)).await.expect("a handle");
        let lead = Duration::from_micros(round % 50 * 100);
        let signal = async {
            tokio::time::sleep(lead).await;
            relays[0].put_as_bearer(&handle, new(b"{}")).await
        };
        let removal = relays[1].delete_container(&handle.container);
        match tokio::join!(signal, removal) {
            (Ok(_), Err(MailboxError::ContainerNotEmpty)) => n_signalled += 1,
            (Err(MailboxError::ContainerNotFound), Ok(())) => n_removed += 1,
            both => panic!("round {round}: {both:?}"),
        }
    }
    assert!(n_removed > 20 && n_signalled > 20, "{n_removed} removed, {n_signalled} signalled");
}

/// What a reader has found: each id under one name only.
#[derive(Default)]
struct Seen {
    name_of_id: BTreeMap<String, String>,
}

impl Seen {
    /// Lists, reads and removes what is there, but for some numbers.
    async fn poll(&mut self, relay: &Mailboxes, handle: &ObjectAddress, kept: &[u32]) {
        let query = ListingQuery::default();
        let entries = persistently(|| relay.list_objects(&handle.container, &query)).await;
        let kept: BTreeSet<String> = kept.iter().map(|number| format!("h/{number:08}")).collect();
        for name in entries.iter().map(name) {
            let signal = object(&format!("c/{name}"));
            let body = persistently(|| relay.object(&signal)).await.body;
            let id = Signal::parse(&body).expect("a signal").id.expect("an id");
            if let Some(before) = self.name_of_id.insert(id.clone(), name.to_owned()) {
                assert_eq!(before, name, "{id} is there twice");
            }
            if !kept.contains(name) {
                persistently(|| relay.delete_object(&signal)).await;
            }
        }
    }
}

/// Asks again as long as the store is to blame.
async fn persistently<T, F>(mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, MailboxError>>,
{
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(error) => assert_eq!(error.class(), error::ErrorClass::Busy, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}
