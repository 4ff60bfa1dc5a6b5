//! Native handles.

use futures_util::FutureExt;
use signal_protocol::handle::HandleState;

use super::*;

impl Bench {
    async fn native(&self, count: u32, seconds: u64) -> HandleId {
        let new = NewHandle {
            account: account("AUTH_p"),
            count,
            timeout: Duration::from_secs(seconds),
            label: Some("web".to_owned()),
            metadata: None,
        };
        self.mailboxes.create_handle(new).await.expect("a handle").id
    }

    async fn tell(&self, id: &HandleId, body: &str) -> Receipt {
        let signal = Signal::parse(body.as_bytes()).expect("a signal");
        self.mailboxes.signal_handle(id, &signal).await.expect("it is taken")
    }

    /// `state version reason`
    async fn view(&self, id: &HandleId) -> String {
        let view = self.mailboxes.handle_view(id).await.expect("a view");
        format!("{} {} {}", view.state, view.version, view.reason.unwrap_or_default())
    }
}

#[tokio::test]
async fn a_handle_is_signalled_until_it_is_complete() {
    let bench = Bench::new();
    let id = bench.native(2, 60).await;
    assert_eq!(bench.view(&id).await, "pending 1 ");
    assert_eq!(bench.tell(&id, r#"{"id":"a","data":[1]}"#).await, Receipt::Stored);
    assert_eq!(bench.tell(&id, r#"{"data":[1],"id":"a"}"#).await, Receipt::Repeated);
    assert_eq!(bench.view(&id).await, "pending 2 ");
    bench.clock.advance(Duration::from_secs(3));
    let large = format!(r#"{{"reason":"up","data":"{}"}}"#, "x".repeat(5_000));
    bench.tell(&id, &large).await;
    assert_eq!(bench.view(&id).await, "complete 3 Signal 1 received;up");
    let view = bench.mailboxes.handle_view(&id).await.expect("a view");
    assert_eq!(view.label.as_deref(), Some("web"));
    assert_eq!(view.signals[1].id, "2");
    assert_eq!(view.signals[1].received_at.as_second(), 3);
    assert_eq!(view.data["a"].as_ref().map(|data| data.get()), Some("[1]"));
    assert_eq!(view.data["2"].as_ref().map(|data| data.get().len()), Some(5_002));
}

#[tokio::test]
async fn the_largest_signal_that_is_taken_can_be_read() {
    let bench = Bench::new();
    let id = bench.native(1, 60).await;
    let around = r#"{"data":""}"#.len();
    let body = format!(r#"{{"data":"{}"}}"#, "x".repeat(MAX_SIGNAL_BYTES - around));
    assert_eq!(bench.tell(&id, &body).await, Receipt::Stored);
    assert_eq!(bench.view(&id).await, "complete 2 Signal 1 received");
}

#[tokio::test]
async fn a_handle_whose_time_is_over_says_so_and_grows_by_one_version() {
    let bench = Bench::new();
    let id = bench.native(2, 60).await;
    bench.tell(&id, r#"{"reason":"only one"}"#).await;
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.view(&id).await, "pending 2 ");
    bench.clock.advance(Duration::from_micros(1));
    assert_eq!(bench.view(&id).await, "expired 3 1 of 2 received - only one");
    bench.tell(&id, "{}").await;
    assert_eq!(bench.view(&id).await, "expired 4 1 of 2 received - only one");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_of_signals_expiry_and_removal() {
    let bench = Bench::new();
    let id = bench.native(2, 60).await;
    let long = Duration::from_secs(1_000);
    let waiting = |version| {
        let (mailboxes, id) = (bench.mailboxes.clone(), id.clone());
        tokio::spawn(async move { mailboxes.changed(&id, version, long).await })
    };
    // What has changed already is told at once, and the present version when the time is over.
    assert_eq!(
        bench.mailboxes.changed(&id, 0, long).now_or_never().expect("at once").expect("there"),
        1
    );
    let short = Duration::from_secs(5);
    assert_eq!(bench.mailboxes.changed(&id, 1, short).await.expect("there"), 1);

    let waiters: Vec<_> = (0..100).map(|_| waiting(1)).collect();
    tokio::task::yield_now().await;
    bench.tell(&id, "{}").await;
    for waiter in waiters {
        assert_eq!(waiter.await.expect("it ends").expect("there"), 2);
    }
    let waiter = waiting(2);
    tokio::task::yield_now().await;
    bench.clock.advance(Duration::from_secs(61));
    assert_eq!(waiter.await.expect("it ends").expect("there"), 3);
    let waiter = waiting(3);
    tokio::task::yield_now().await;
    bench.mailboxes.delete_handle(&id).await.expect("a removal");
    assert_eq!(code(waiter.await.expect("it ends")), "handle_not_found");
}

#[tokio::test]
async fn handles_are_listed_by_account_in_pages() {
    let bench = Bench::new();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(bench.native(1, 60).await);
    }
    ids.sort();
    bench.tell(&ids[2], r#"{"status":"FAILURE","reason":"disk"}"#).await;
    let mut listed = Vec::new();
    loop {
        let after = listed.last().map(|summary: &HandleSummary| summary.handle.id.clone());
        let page = bench.mailboxes.list_handles(&account("AUTH_p"), after.as_ref(), 2).await;
        let page = page.expect("a page");
        let is_last = page.len() < 2;
        listed.extend(page);
        if is_last {
            break;
        }
    }
    assert_eq!(listed.iter().map(|summary| summary.handle.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(listed[2].state, HandleState::Failed);
    assert_eq!(listed[2].reason.as_deref(), Some("disk"));
    for stranger in
        ["AUTH_", "AUTH_q", "AUTH_pp"].iter().filter_map(|name| AccountName::parse(name).ok())
    {
        assert!(bench.mailboxes.list_handles(&stranger, None, 9).await.expect("a page").is_empty());
    }
    bench.mailboxes.delete_handle(&ids[0]).await.expect("a removal");
    assert_eq!(code(bench.mailboxes.delete_handle(&ids[0]).await), "handle_not_found");
    assert_eq!(code(bench.mailboxes.handle_view(&ids[0]).await), "handle_not_found");
    let signal = Signal::parse(b"{}").expect("a signal");
    assert_eq!(code(bench.mailboxes.signal_handle(&ids[0], &signal).await), "handle_not_found");
}

#[tokio::test]
async fn a_handle_out_of_range_is_refused() {
    let bench = Bench::with(Limits { handles_per_account: 1, ..Limits::default() });
    let handle = || NewHandle {
        account: account("AUTH_p"),
        count: limits::MAX_HANDLE_COUNT,
        timeout: limits::MAX_HANDLE_TIMEOUT,
        label: Some("l".repeat(limits::MAX_HANDLE_LABEL_BYTES)),
        metadata: RawValue::from_string(format!(
            "\"{}\"",
            "m".repeat(limits::MAX_HANDLE_METADATA_BYTES - 2)
        ))
        .ok(),
    };
    let metadata = format!("\"{}\"", "m".repeat(limits::MAX_HANDLE_METADATA_BYTES - 1));
    let timeout = limits::MAX_HANDLE_TIMEOUT + Duration::from_secs(1);
    for refused in [
        NewHandle { count: 0, ..handle() },
        NewHandle { count: limits::MAX_HANDLE_COUNT + 1, ..handle() },
        NewHandle { timeout: Duration::ZERO, ..handle() },
        NewHandle { timeout: Duration::from_millis(1_500), ..handle() },
        NewHandle { timeout, ..handle() },
        NewHandle { label: Some("l".repeat(limits::MAX_HANDLE_LABEL_BYTES + 1)), ..handle() },
        NewHandle { metadata: RawValue::from_string(metadata).ok(), ..handle() },
    ] {
        let text = format!("{refused:?}");
        assert_eq!(code(bench.mailboxes.create_handle(refused).await), "bad_field", "{text:.200}");
    }
    bench.mailboxes.create_handle(handle()).await.expect("exactly the limits");
    assert_eq!(code(bench.mailboxes.create_handle(handle()).await), "too_many_handles");
}
