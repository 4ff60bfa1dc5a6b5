//! Many at once, over stores that break.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use jiff::SignedDuration;
use tokio::task::JoinSet;

use super::*;
use crate::clock::SystemClock;
use crate::store::faulty::{Fault, FaultRates, FaultyStore};
use crate::store::remembering::RememberingStore;

/// Every commit takes a moment, as on a disk.
const SLOW: FaultRates =
    FaultRates { fail_before: 0, delay: 1_000, max_delay: Duration::from_millis(1), lose_reply: 0 };

/// Long enough for others to come in between.
const SLOWER: FaultRates = FaultRates { max_delay: Duration::from_millis(2), ..SLOW };

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
        let relays = relays(&store, seed % 2 == 0);
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
    for remembers in [false, true] {
        signal_and_remove(remembers).await;
    }
}

async fn signal_and_remove(remembers: bool) {
    let store = FaultyStore::seeded(Arc::new(MemoryStore::new()), 1, SLOWER);
    let store: Arc<dyn Store> = Arc::new(store);
    let relays = relays(&store, remembers);
    let (mut n_removed, mut n_signalled) = (0, 0);
    for round in 0..200 {
        let handle = object(&format!("{round}/h"));
        let update = ContainerUpdate::default();
        relays[0].put_container(&handle.container, &update).await.expect("a container");
        relays[0].put_as_owner(&handle, new(PLACEHOLDER)).await.expect("a handle");
        relays[0].delete_container(&handle.container).await.expect("nothing is pending");
        let lead = Duration::from_micros(round % 50 * 100);
        let signal = async {
            tokio::time::sleep(lead).await;
            relays[0].put_as_bearer(&handle, new(b"{}")).await
        };
        let removal = remove_unused(&relays[1], &handle);
        match tokio::join!(signal, removal) {
            (Ok(_), false) => n_signalled += 1,
            (Err(MailboxError::ContainerNotFound), true) => n_removed += 1,
            both => panic!("round {round}: {both:?}"),
        }
    }
    assert!(n_removed > 10 && n_signalled > 10, "{n_removed} removed, {n_signalled} signalled");
}

/// Removes a container, as the sweep does, when nobody can be waiting for its handles any more.
async fn remove_unused(relay: &Mailboxes, handle: &ObjectAddress) -> bool {
    let later = Timestamp::now().saturating_add(SignedDuration::from_hours(24)).expect("a span");
    let removal = relay.shared.remove_unused_container(&handle.container, later);
    removal.await.expect("an attempt")
}

/// A deletion and a signal at the same time: whoever comes first, the signal is there.
#[tokio::test]
async fn a_deletion_loses_no_signal() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::new(FaultyStore::seeded(store, 2, SLOWER));
    let relays = relays(&store, true);
    let (mut n_hidden, mut n_refused) = (0, 0);
    for round in 0..100 {
        let handle = object(&format!("{round}/h"));
        let update = ContainerUpdate::default();
        relays[0].put_container(&handle.container, &update).await.expect("a container");
        relays[0].put_as_owner(&handle, new(PLACEHOLDER)).await.expect("a handle");
        let lead = Duration::from_micros(round % 50 * 200);
        let signal = async {
            tokio::time::sleep(lead).await;
            relays[0].put_as_bearer(&handle, new(b"{}")).await.expect("it is taken in")
        };
        let deletion = async {
            tokio::time::sleep(Duration::from_millis(8)).await;
            relays[1].delete_container(&handle.container).await
        };
        match tokio::join!(signal, deletion) {
            (_, Ok(())) => n_hidden += 1,
            (_, Err(MailboxError::ContainerNotEmpty)) => n_refused += 1,
            (_, Err(error)) => panic!("round {round}: {error:?}"),
        }
        let listed = relays[1].list_objects(&handle.container, &ListingQuery::default()).await;
        assert_eq!(listed.expect("a listing").len(), 1, "round {round}");
    }
    assert!(n_hidden > 0 && n_refused > 0, "{n_hidden} hidden, {n_refused} refused");
}

/// Found by history 3832: a removal was held up until another one had set its mark, and went on by that.
#[tokio::test(start_paused = true)]
async fn a_removal_that_was_held_up_does_not_go_on_by_the_mark_of_another() {
    let shared: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let relay = |script: Vec<Option<Fault>>| {
        let store = Arc::new(FaultyStore::scripted(shared.clone(), script));
        Mailboxes::new(store, Arc::new(SystemClock), Limits::default())
    };
    let handle = object("c/h");
    let late = |seconds| Some(Fault::Delay(Duration::from_secs(seconds)));
    // Each has set its mark with its first commit, and removes the container with the second.
    let (first, second, sender) = (relay(vec![None, late(3)]), relay(vec![late(2)]), relay(vec![]));
    let update = ContainerUpdate::default();
    sender.put_container(&handle.container, &update).await.expect("a container");
    sender.put_as_owner(&handle, new(PLACEHOLDER)).await.expect("a handle");
    sender.delete_container(&handle.container).await.expect("nothing is pending");
    let signal = async || sender.put_as_bearer(&handle, new(b"{}")).await.expect("a signal");
    let signals = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Takes the mark of the first removal away, and is read.
        signal().await;
        sender.delete_object(&handle).await.expect("a removal");
        let removal = remove_unused(&second, &handle);
        // Comes when the second one has looked, and not set its mark.
        tokio::join!(removal, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            signal().await;
        })
    };
    let (removed, (removed_too, ())) = tokio::join!(remove_unused(&first, &handle), signals);
    assert_eq!([removed, removed_too], [false; 2]);
    sender.delete_object(&handle).await.expect("the signal is there");
}

/// Two relays, which may each remember what it last saw of the store.
fn relays(store: &Arc<dyn Store>, remember: bool) -> [Mailboxes; 2] {
    [0, 1].map(|_| {
        let store = match remember {
            true => Arc::new(RememberingStore::new(store.clone())),
            false => store.clone(),
        };
        Mailboxes::new(store, Arc::new(SystemClock), Limits::default())
    })
}

/// A relay that remembers what another one changed meanwhile does what it would do if it looked.
#[tokio::test]
async fn what_is_out_of_date_misleads_nobody() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let [one, other] = relays(&store, true);
    let handle = object("c/h");
    let update = ContainerUpdate::default();
    let announce = async || {
        other.put_container(&handle.container, &update).await.expect("a container");
        other.put_as_owner(&handle, new(PLACEHOLDER)).await.expect("a handle");
    };
    let signal = async |relay: &Mailboxes, body: &str| {
        relay.put_as_bearer(&handle, new(body.as_bytes())).await
    };
    announce().await;
    for (relay, body, receipt) in [
        (&one, r#"{"id":"a"}"#, Receipt::Stored),
        (&one, r#"{"id":"a"}"#, Receipt::Repeated),
        // The head that the first one remembers is no longer the present one.
        (&other, r#"{"id":"a","status":"FAILURE"}"#, Receipt::Stored),
        (&one, r#"{"id":"a"}"#, Receipt::Stored),
        (&other, r#"{"id":"b"}"#, Receipt::Stored),
        (&one, r#"{"id":"b"}"#, Receipt::Repeated),
        (&one, "{}", Receipt::Stored),
    ] {
        let put = signal(relay, body).await.expect("a signal");
        assert_eq!(put.outcome, PutOutcome::Signal(receipt), "{body}");
    }
    // The container is removed, and made again without the handle: then this is a plain object.
    let remove = async || {
        while other.delete_object(&handle).await.is_ok() {}
        other.delete_container(&handle.container).await.expect("nothing is pending");
        assert!(remove_unused(&other, &handle).await);
    };
    remove().await;
    assert_eq!(code(signal(&one, "{}").await), "container_not_found");
    announce().await;
    signal(&one, "{}").await.expect("a signal");
    remove().await;
    other.put_container(&handle.container, &update).await.expect("a container");
    let put = signal(&one, "no signal at all").await.expect("a plain object");
    assert_eq!(put.outcome, PutOutcome::Plain);
}

/// What a signal costs a store that is far away, in reads and commits: one of each as a rule.
#[tokio::test]
async fn a_signal_costs_one_read_and_one_commit() {
    let shared: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let [_, other] = relays(&shared, true);
    let store = Arc::new(FaultyStore::scripted(shared, []));
    let remembering = Arc::new(RememberingStore::new(store.clone()));
    let relay = Mailboxes::new(remembering, Arc::new(SystemClock), Limits::default());
    let update = ContainerUpdate::default();
    for handle in [object("c/h"), object("c/i")] {
        other.put_container(&handle.container, &update).await.expect("a container");
        other.put_as_owner(&handle, new(PLACEHOLDER)).await.expect("a handle");
    }
    for (name, body, expect) in [
        // Nothing is known of the container yet.
        ("c/h", r#"{"id":"a"}"#, [2, 1]),
        ("c/h", r#"{"id":"b"}"#, [1, 1]),
        // A mailbox that this relay has not seen, in a container that it knows.
        ("c/i", r#"{"id":"a"}"#, [1, 1]),
        ("c/i", "{}", [1, 1]),
        // Found out by a commit that fails.
        ("c/h", r#"{"id":"a"}"#, [3, 1]),
    ] {
        let (handle, before) = (object(name), [store.n_reads(), store.n_commits()]);
        relay.signing_keys_for(&handle).await.expect("keys");
        relay.put_as_bearer(&handle, new(body.as_bytes())).await.expect("a signal");
        let after = [store.n_reads(), store.n_commits()];
        assert_eq!([after[0] - before[0], after[1] - before[1]], expect, "{name} {body}");
    }
    let (count, timeout) = (2, Duration::from_secs(60));
    let account = account("AUTH_p");
    let native = NewHandle { account, count, timeout, label: None, metadata: None };
    let id = other.create_handle(native).await.expect("a handle").id;
    let signal = Signal::parse(br#"{"id":"a"}"#).expect("a signal");
    let before = [store.n_reads(), store.n_commits()];
    relay.handle(&id).await.expect("a handle");
    relay.signal_handle(&id, &signal).await.expect("a signal");
    assert_eq!([store.n_reads(), store.n_commits()], [before[0] + 1, before[1] + 1]);
}

/// A signal is refused for want of room only if there is none, not if there was none.
#[tokio::test]
async fn a_mailbox_that_was_full_takes_signals_again() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let limits = Limits { signals_per_mailbox: 1, ..Limits::default() };
    let relay = || {
        let store = Arc::new(RememberingStore::new(store.clone()));
        Mailboxes::new(store, Arc::new(SystemClock), limits)
    };
    let (one, other, handle) = (relay(), relay(), object("c/h"));
    let update = ContainerUpdate::default();
    one.put_container(&handle.container, &update).await.expect("a container");
    one.put_as_owner(&handle, new(PLACEHOLDER)).await.expect("a handle");
    for _ in 0..3 {
        one.put_as_bearer(&handle, new(b"{}")).await.expect("a signal");
        assert_eq!(code(one.put_as_bearer(&handle, new(b"{}")).await), "mailbox_full");
        other.delete_object(&handle).await.expect("a removal");
    }
}

/// Keys that sign are those of the store, whatever a relay remembers.
#[tokio::test]
async fn a_key_that_another_relay_changed_is_the_key_at_once() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let [one, other] = relays(&store, true);
    let handle = object("c/h");
    one.put_container(&handle.container, &ContainerUpdate::default()).await.expect("a container");
    one.put_as_owner(&handle, new(PLACEHOLDER)).await.expect("a handle");
    for secret in ["first", "second"] {
        let key = SigningKey::parse(secret).expect("a key");
        let set = KeyUpdate { primary: Some(KeyChange::Set(key.clone())), secondary: None };
        other.set_account_keys(&handle.container.account, &set).await.expect("a change");
        assert!(one.signing_keys_for(&handle).await.expect("keys").contains(&key));
    }
    let gone = KeyUpdate { primary: Some(KeyChange::Remove), secondary: None };
    other.set_account_keys(&handle.container.account, &gone).await.expect("a change");
    let keys = one.signing_keys_for(&handle).await.expect("keys");
    assert!(keys.iter().all(|key| !["first", "second"].contains(&key.reveal())));
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
