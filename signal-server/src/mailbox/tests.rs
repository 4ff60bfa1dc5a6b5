//! The domain over the store in memory, with a clock that the test moves.

mod concurrency;
mod deleted;
mod expiry;
mod handles;
mod leftovers;
mod pages;

use std::sync::Arc;

use signal_protocol::signal::{MAX_SIGNAL_BYTES, Signal};

use super::*;
use crate::clock::ManualClock;
use crate::mailbox::limits::PLACEHOLDER;
use crate::store::memory::MemoryStore;

const DAY: Duration = Duration::from_secs(24 * 3_600);

struct Bench {
    mailboxes: Mailboxes,
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
}

impl Bench {
    fn new() -> Self {
        Bench::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let store = Arc::new(MemoryStore::new());
        let mailboxes = Mailboxes::new(store.clone(), clock.clone(), limits);
        Bench { mailboxes, clock, store }
    }

    /// A container `c` with the signal handle `h`.
    async fn handle(&self) -> ObjectAddress {
        let handle = object("c/h");
        let update = ContainerUpdate::default();
        self.mailboxes.put_container(&handle.container, &update).await.expect("a container");
        self.mailboxes.put_as_owner(&handle, new(b"in progress")).await.expect("a handle");
        handle
    }

    async fn signal(&self, handle: &ObjectAddress, body: &str) -> Result<Receipt, MailboxError> {
        match self.mailboxes.put_as_bearer(handle, new(body.as_bytes())).await?.outcome {
            PutOutcome::Signal(receipt) => Ok(receipt),
            other => panic!("not a signal: {other:?}"),
        }
    }

    /// What is listed in the container `c`, one word each.
    async fn listing(&self) -> String {
        let query = ListingQuery::default();
        let address = object("c/x").container;
        match self.mailboxes.list_objects(&address, &query).await {
            Ok(entries) => entries.iter().map(name).collect::<Vec<_>>().join(" "),
            Err(error) => error.code().to_owned(),
        }
    }

    async fn sweep(&self) -> SweepReport {
        let mut total = SweepReport::default();
        while !total.finished_round {
            let report = self.mailboxes.sweep(self.clock.now()).await.expect("a sweep");
            total.n_signals += report.n_signals;
            total.n_mailboxes += report.n_mailboxes;
            total.n_handles += report.n_handles;
            total.n_containers += report.n_containers;
            total.n_garbage += report.n_garbage;
            total.finished_round = report.finished_round;
        }
        total
    }
}

fn name(entry: &ListingEntry) -> &str {
    match entry {
        ListingEntry::Object { name, .. } | ListingEntry::Prefix { name } => name,
    }
}

fn account(name: &str) -> AccountName {
    AccountName::parse(name).expect("an account")
}

/// `container/object` in the account `AUTH_p`.
fn object(path: &str) -> ObjectAddress {
    let (container, object) = path.split_once('/').expect("a slash");
    ObjectAddress {
        container: ContainerAddress {
            account: account("AUTH_p"),
            container: ContainerName::parse(container).expect("a container"),
        },
        object: ObjectName::parse(object).expect("an object"),
    }
}

fn new(body: &[u8]) -> NewObject {
    NewObject { content_type: None, body: Bytes::copy_from_slice(body) }
}

fn code<T: fmt::Debug>(result: Result<T, MailboxError>) -> &'static str {
    result.expect_err("a refusal").code()
}

#[tokio::test]
async fn the_same_signal_counts_once_and_another_one_under_its_id_does_not() {
    let bench = Bench::new();
    let handle = bench.handle().await;
    for (body, receipt) in [
        (r#"{"id":"a"}"#, Receipt::Stored),
        (r#"{"id":"a"}"#, Receipt::Repeated),
        (r#"{"id":"a","status":"FAILURE"}"#, Receipt::Stored),
        (r#"{"id":"a","status":"FAILURE"}"#, Receipt::Repeated),
        // Back to what was said first: Heat has to hear it, for the later one stands.
        (r#"{"id":"a"}"#, Receipt::Stored),
        (r#"{"id":"b"}"#, Receipt::Stored),
        ("{}", Receipt::Stored),
        ("{}", Receipt::Stored),
    ] {
        assert_eq!(bench.signal(&handle, body).await.expect("a signal"), receipt, "{body}");
    }
    for number in 1..=6 {
        let signal = object(&format!("c/h/{number:08}"));
        bench.mailboxes.delete_object(&signal).await.expect("a removal");
    }
    assert_eq!(bench.listing().await, "");
    // Also after everything was read.
    assert_eq!(bench.signal(&handle, r#"{"id":"b"}"#).await.expect("again"), Receipt::Repeated);
    assert_eq!(bench.signal(&handle, "{}").await.expect("again"), Receipt::Stored);
    assert_eq!(bench.listing().await, "h/00000007");
}

#[tokio::test]
async fn large_bodies_come_back_whole_and_leave_nothing_behind() {
    let bench = Bench::new();
    let handle = bench.handle().await;
    let n_records = bench.store.len();
    for length in [0, 900, 1_100, MAX_SIGNAL_BYTES - 20] {
        let body = format!(r#"{{"data":"{}"}}"#, "x".repeat(length));
        bench.signal(&handle, &body).await.expect("a signal");
        let listed = bench.listing().await;
        let read = bench.mailboxes.object(&object(&format!("c/{listed}"))).await.expect("a signal");
        assert_eq!(read.body, body);
        assert_eq!(read.info.n_bytes, body.len() as u64);
        bench.mailboxes.delete_object(&handle).await.expect("a removal");

        let plain = object("c/plain");
        bench.mailboxes.put_as_owner(&plain, new(body.as_bytes())).await.expect("an object");
        bench.mailboxes.put_as_owner(&plain, new(body.as_bytes())).await.expect("an object");
        assert_eq!(bench.mailboxes.object(&plain).await.expect("an object").body, body);
        bench.mailboxes.delete_object(&plain).await.expect("a removal");
    }
    assert_eq!(bench.store.len(), n_records);
}

#[tokio::test]
async fn what_a_name_stands_for_can_change() {
    let bench = Bench::new();
    let handle = bench.handle().await;
    let other = object("c/other");
    bench.mailboxes.put_as_owner(&other, new(b"anything")).await.expect("a plain object");
    assert_eq!(bench.listing().await, "other");
    // A plain object becomes a signal handle; a handle stays one whatever is put.
    bench.mailboxes.put_as_owner(&other, new(PLACEHOLDER)).await.expect("a handle");
    assert_eq!(bench.listing().await, "");
    assert!(bench.mailboxes.is_signal_handle(&other).await.expect("a look"));
    bench.mailboxes.put_as_owner(&other, new(b"{}")).await.expect("a signal");
    bench.mailboxes.put_as_owner(&other, new(PLACEHOLDER)).await.expect("the handle again");
    assert_eq!(bench.listing().await, "other/00000001");
    assert_eq!(code(bench.mailboxes.put_as_owner(&handle, new(b"text")).await), "signal_not_json");
    // The bearer of a URL cannot announce anything: to a signal handle this is a broken signal.
    assert_eq!(
        code(bench.mailboxes.put_as_bearer(&handle, new(PLACEHOLDER)).await),
        "signal_not_json"
    );
    // Names of signals are not for plain objects, existing or not.
    for name in ["c/h/00000001", "c/other/12345678"] {
        let result = bench.mailboxes.put_as_owner(&object(name), new(b"x")).await;
        assert_eq!(code(result), "name_reserved");
    }
    for name in ["c/h/1", "c/h/000000001", "c/h/0000000x", "c/x/00000001"] {
        bench.mailboxes.put_as_owner(&object(name), new(b"x")).await.expect("a plain object");
    }
    let long = object(&format!("c/{}", "n".repeat(1_020)));
    assert_eq!(code(bench.mailboxes.put_as_owner(&long, new(PLACEHOLDER)).await), "bad_field");
}

#[tokio::test]
async fn limits_are_exact() {
    let limits = Limits {
        signals_per_mailbox: 3,
        bytes_per_mailbox: 100,
        containers_per_account: 2,
        handles_per_account: 2,
        ..Limits::default()
    };
    let bench = Bench::with(limits);
    let handle = bench.handle().await;
    for _ in 0..3 {
        bench.signal(&handle, "{}").await.expect("room");
    }
    assert_eq!(code(bench.signal(&handle, "{}").await), "mailbox_full");
    bench.mailboxes.delete_object(&handle).await.expect("a removal");
    // 4 bytes are there; 96 fit.
    let body_of = |length: usize| format!(r#"{{"data":"{}"}}"#, "x".repeat(length - 11));
    assert_eq!(code(bench.signal(&handle, &body_of(97)).await), "mailbox_full");
    bench.signal(&handle, &body_of(96)).await.expect("room");

    let large = vec![b'x'; limits::MAX_OBJECT_BYTES + 1];
    let plain = object("c/plain");
    bench.mailboxes.put_as_owner(&plain, new(&large[1..])).await.expect("room");
    assert_eq!(code(bench.mailboxes.put_as_owner(&plain, new(&large)).await), "object_too_large");

    let update = ContainerUpdate::default();
    let (second, third) = (object("d/x").container, object("e/x").container);
    bench.mailboxes.put_container(&second, &update).await.expect("room");
    assert_eq!(code(bench.mailboxes.put_container(&third, &update).await), "too_many_containers");
    bench.mailboxes.delete_container(&second).await.expect("a removal");
    bench.mailboxes.put_container(&third, &update).await.expect("room again");
    let location = "l".repeat(limits::MAX_VERSIONS_LOCATION_BYTES + 1);
    let update = ContainerUpdate { versions_location: Some(location), ..update };
    assert_eq!(code(bench.mailboxes.put_container(&third, &update).await), "bad_field");

    assert!(SigningKey::parse(&"k".repeat(limits::MAX_SIGNING_KEY_BYTES)).is_ok());
    assert_eq!(
        code(SigningKey::parse(&"k".repeat(limits::MAX_SIGNING_KEY_BYTES + 1))),
        "bad_signing_key"
    );
    assert_eq!(code(SigningKey::parse("")), "bad_signing_key");
}

#[tokio::test]
async fn former_keys_verify_until_a_key_is_taken_away() {
    let bench = Bench::new();
    let account = account("AUTH_p");
    let container = object("c/x").container;
    let first = bench.mailboxes.account(&account).await.expect("an account").keys;
    assert_eq!(bench.mailboxes.account(&account).await.expect("an account").keys, first);
    let set = |text: &str| KeyUpdate {
        primary: Some(KeyChange::Set(SigningKey::parse(text).expect("a key"))),
        secondary: None,
    };
    for number in 0..limits::MAX_FORMER_KEYS {
        bench.mailboxes.set_account_keys(&account, &set(&number.to_string())).await.expect("set");
    }
    let keys = bench.mailboxes.signing_keys(&container).await.expect("keys");
    assert_eq!(keys.len(), limits::MAX_FORMER_KEYS + 1);
    assert!(keys.contains(&first.primary.expect("a key")), "the very first one is still good");
    // The same key again pushes nobody out.
    bench.mailboxes.set_account_keys(&account, &set("5")).await.expect("set");
    assert_eq!(bench.mailboxes.signing_keys(&container).await.expect("keys"), keys);
    bench.mailboxes.set_account_keys(&account, &set("one more")).await.expect("set");
    let more = bench.mailboxes.signing_keys(&container).await.expect("keys");
    assert_eq!(more.len(), keys.len());

    let remove = KeyUpdate { primary: Some(KeyChange::Remove), secondary: None };
    bench.mailboxes.set_account_keys(&account, &remove).await.expect("set");
    let fresh = bench.mailboxes.signing_keys(&container).await.expect("keys");
    assert_eq!(fresh.len(), 1, "a new one, and none of the old");
    assert!(!more.contains(&fresh[0]));

    let update = ContainerUpdate { keys: set("container"), ..ContainerUpdate::default() };
    bench.mailboxes.put_container(&container, &update).await.expect("a container");
    let keys = bench.mailboxes.signing_keys(&container).await.expect("keys");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[1].reveal(), "container");
    assert_eq!(format!("{keys:?}"), "[SigningKey(…), SigningKey(…)]");
}
