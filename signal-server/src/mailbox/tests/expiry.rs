//! What the sweep removes, and what it leaves.

use super::*;
use crate::store::{Batch, Key, KeyKind};

#[tokio::test]
async fn signals_that_nobody_came_for_go_first_then_the_mailbox_then_the_container() {
    let bench = Bench::new();
    let handle = bench.handle().await;
    for number in 0..150 {
        bench.signal(&handle, &format!(r#"{{"id":{number}}}"#)).await.expect("a signal");
    }
    bench.clock.advance(7 * DAY);
    assert_eq!(bench.sweep().await, SweepReport { finished_round: true, ..SweepReport::default() });
    bench.clock.advance(Duration::from_micros(1));
    let report = bench.sweep().await;
    assert_eq!((report.n_signals, report.n_mailboxes, report.n_containers), (150, 0, 0));
    assert_eq!(bench.listing().await, "");
    // The URL is still good, and an old signal is still known.
    assert_eq!(bench.signal(&handle, r#"{"id":1}"#).await.expect("again"), Receipt::Repeated);
    assert_eq!(bench.signal(&handle, "{}").await.expect("a new one"), Receipt::Stored);

    bench.clock.advance(8 * DAY);
    assert_eq!(bench.sweep().await.n_signals, 1);
    bench.clock.advance(91 * DAY);
    let report = bench.sweep().await;
    assert_eq!((report.n_signals, report.n_mailboxes, report.n_containers), (0, 1, 1));
    assert_eq!(bench.listing().await, "container_not_found");
    bench.sweep().await;
    assert_eq!(bench.store.len(), 0, "the account had nothing of its own");
}

#[tokio::test]
async fn plain_objects_are_never_removed() {
    let bench = Bench::new();
    bench.handle().await;
    let plain = object("c/plain");
    bench.mailboxes.put_as_owner(&plain, new(b"metadata")).await.expect("an object");
    bench.clock.advance(1_000 * DAY);
    let report = bench.sweep().await;
    assert_eq!((report.n_mailboxes, report.n_containers), (1, 0));
    assert_eq!(bench.listing().await, "plain");
}

#[tokio::test]
async fn native_handles_go_after_their_retention() {
    let bench = Bench::new();
    let new = NewHandle {
        account: account("AUTH_p"),
        count: 1,
        timeout: Duration::from_secs(60),
        label: None,
        metadata: None,
    };
    let id = bench.mailboxes.create_handle(new).await.expect("a handle").id;
    let large = format!(r#"{{"id":"a","data":"{}"}}"#, "x".repeat(5_000));
    let signal = Signal::parse(large.as_bytes()).expect("a signal");
    bench.mailboxes.signal_handle(&id, &signal).await.expect("it is taken");
    bench.clock.advance(7 * DAY + Duration::from_secs(60));
    assert_eq!(bench.sweep().await.n_handles, 0);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.sweep().await.n_handles, 1);
    assert_eq!(code(bench.mailboxes.handle(&id).await), "handle_not_found");
    bench.sweep().await;
    assert_eq!(bench.store.len(), 0, "the account had nothing of its own");
}

#[tokio::test]
async fn a_sweep_is_done_in_bounded_parts() {
    let bench = Bench::with(Limits::default());
    let handle = bench.handle().await;
    for number in 0..limits::MAX_SWEPT_RECORDS + 10 {
        let other = object(&format!("c/h{number}"));
        bench.mailboxes.put_as_owner(&other, new(PLACEHOLDER)).await.expect("a handle");
    }
    bench.signal(&handle, "{}").await.expect("a signal");
    bench.clock.advance(8 * DAY);
    let first = bench.mailboxes.sweep(bench.clock.now()).await.expect("a sweep");
    assert_eq!((first.n_examined, first.finished_round), (limits::MAX_SWEPT_RECORDS, false));
    let second = bench.mailboxes.sweep(bench.clock.now()).await.expect("a sweep");
    assert!(second.n_examined < 20 && second.finished_round, "{second:?}");
    assert_eq!(first.n_signals + second.n_signals, 1);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_does_not_hold_up_the_others() {
    let bench = Bench::new();
    let handle = bench.handle().await;
    bench.signal(&handle, "{}").await.expect("a signal");
    let mut batch = Batch::new();
    batch.put(Key::new(KeyKind::Mailbox, &[b"\0"]), Bytes::from_static(b"of a later version"));
    bench.store.commit(batch).await.expect("a record");
    bench.clock.advance(8 * DAY);
    assert_eq!(code(bench.mailboxes.sweep(bench.clock.now()).await), "bad_record");
    assert_eq!(bench.sweep().await.n_signals, 1);
}

#[tokio::test]
async fn a_deleted_container_leaves_nothing_behind() {
    let bench = Bench::new();
    let handle = bench.handle().await;
    for number in 0..200 {
        bench.signal(&handle, &format!(r#"{{"id":{number}}}"#)).await.expect("a signal");
        bench.mailboxes.delete_object(&handle).await.expect("a removal");
    }
    bench.mailboxes.delete_container(&handle.container).await.expect("a removal");
    bench.nobody_waits_any_more().await;
    assert_eq!(bench.store.len(), 0, "the account had nothing of its own");
}
