//! What every store has to do, as tests. A backend names itself in one line at the end.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::{EtcdStore, tests as etcd_tests};
use crate::store::memory::MemoryStore;
use crate::store::{
    Batch, CommitError, Expect, Key, KeyKind, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_KEY_BYTES,
    Store,
};

/// Opens the same store again and again. The one before is closed first, if there is such a thing.
pub(crate) type Open = Box<dyn Fn() -> Arc<dyn Store> + Send + Sync>;

pub(crate) fn memory() -> Open {
    let store = Arc::new(MemoryStore::new());
    Box::new(move || store.clone())
}

pub(crate) fn embedded() -> Open {
    let folder = tempfile::tempdir().expect("a temporary directory");
    Box::new(move || Arc::new(EmbeddedStore::open(folder.path()).expect("the store opens")))
}

pub(crate) fn etcd() -> Open {
    let settings = etcd_tests::fresh();
    Box::new(move || Arc::new(EtcdStore::new(&settings).expect("valid settings")))
}

pub(crate) fn key(text: impl AsRef<[u8]>) -> Key {
    Key::new(KeyKind::Object, &[text.as_ref()])
}

pub(crate) fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(store: &Arc<dyn Store>, name: impl AsRef<[u8]>, text: &str) {
    let mut batch = Batch::new();
    batch.put(key(name), value(text));
    store.commit(batch).await.expect("a plain put");
}

async fn read(store: &Arc<dyn Store>, name: &str) -> Option<String> {
    let bytes = store.get(&key(name)).await.expect("a read");
    bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
}

/// The names that a scan finds.
async fn names(
    store: &Arc<dyn Store>,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Vec<String> {
    let after = after.map(key);
    let found = store.scan(&key(prefix), after.as_ref(), limit).await.expect("a scan");
    let none = key("");
    found
        .iter()
        .map(|(key, _)| String::from_utf8_lossy(key.after(&none).unwrap_or_default()).into_owned())
        .collect()
}

/// Where a store has snapshots at all.
pub(crate) async fn a_snapshot_stays_as_it_was(open: Open) {
    let store = open();
    put(&store, "a", "1").await;
    put(&store, "b", "1").await;
    let Some(snapshot) = store.snapshot().expect("a store that reads") else { return };
    put(&store, "a", "2").await;
    put(&store, "c", "2").await;
    let mut batch = Batch::new();
    batch.delete(key("b"));
    store.commit(batch).await.expect("a commit");
    drop(store);
    for limit in [1, 1_000] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = snapshot.scan(&key(""), after.as_ref(), limit).await.expect("a scan");
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            seen.extend(page);
        }
        let expect = [(key("a"), value("1")), (key("b"), value("1"))];
        assert_eq!(seen, expect, "in pages of {limit}");
    }
}

pub(crate) async fn records_are_written_replaced_and_removed(open: Open) {
    let store = open();
    assert_eq!(read(&store, "a").await, None);
    put(&store, "a", "1").await;
    assert_eq!(read(&store, "a").await.as_deref(), Some("1"));
    put(&store, "a", "2").await;
    put(&store, "b", "").await;
    assert_eq!(read(&store, "a").await.as_deref(), Some("2"));
    assert_eq!(read(&store, "b").await.as_deref(), Some(""));
    let mut batch = Batch::new();
    batch.delete(key("a"));
    batch.delete(key("never there"));
    store.commit(batch).await.expect("a removal");
    assert_eq!(read(&store, "a").await, None);
    assert_eq!(names(&store, "", None, 10).await, ["b"]);
}

pub(crate) async fn a_scan_is_ordered_and_stays_in_its_range(open: Open) {
    let store = open();
    for name in ["b", "a/2", "a", "a/1", "a/10", "a-", "c", "b/1"] {
        put(&store, name, name).await;
    }
    let mut other_kinds = Batch::new();
    for kind in KeyKind::ALL.iter().filter(|kind| **kind != KeyKind::Object) {
        other_kinds.put(Key::new(*kind, &[b"a/1"]), Bytes::new());
    }
    store.commit(other_kinds).await.expect("records of other kinds");

    assert_eq!(
        names(&store, "", None, 99).await,
        ["a", "a-", "a/1", "a/10", "a/2", "b", "b/1", "c"]
    );
    assert_eq!(names(&store, "a/", None, 99).await, ["a/1", "a/10", "a/2"]);
    assert_eq!(names(&store, "a/", None, 2).await, ["a/1", "a/10"]);
    assert_eq!(names(&store, "a/", Some("a/1"), 99).await, ["a/10", "a/2"]);
    assert_eq!(names(&store, "a/", Some("a/11"), 99).await, ["a/2"]);
    assert_eq!(names(&store, "a/", Some("a"), 99).await, ["a/1", "a/10", "a/2"]);
    assert_eq!(names(&store, "a/", Some("a/2"), 99).await, [""; 0]);
    assert_eq!(names(&store, "a/", Some("b"), 99).await, [""; 0]);
    assert_eq!(names(&store, "a/", None, 0).await, [""; 0]);
    assert_eq!(names(&store, "d", None, 99).await, [""; 0]);
}

pub(crate) async fn keys_and_values_are_bytes(open: Open) {
    let store = open();
    let all: Vec<[u8; 2]> = [0, 1, 0x7f, 0x80, 0xfe, 0xff]
        .into_iter()
        .flat_map(|first| [0, 0xff].map(|second| [first, second]))
        .collect();
    let mut batch = Batch::new();
    for name in all.iter().rev() {
        batch.put(key(name), Bytes::copy_from_slice(name));
    }
    store.commit(batch).await.expect("a commit");
    let found = store.scan(&key(""), None, 99).await.expect("a scan");
    let found: Vec<Vec<u8>> = found.iter().map(|(_, value)| value.to_vec()).collect();
    assert_eq!(found, all);
    let last = store.scan(&key([0xff]), None, 99).await.expect("a scan");
    assert_eq!(last.len(), 2);
}

pub(crate) async fn many_are_read_in_the_order_asked_for(open: Open) {
    let store = open();
    // More than one request of any store, with one that is not there, one twice, and a body.
    let body = Key::new(KeyKind::SignalBody, &[b"body"]);
    let keys: Vec<Key> = (0..150).map(|number| key(format!("{number}"))).collect();
    for keys in keys.chunks(MAX_BATCH_OPERATIONS) {
        let mut batch = Batch::new();
        keys.iter().for_each(|key| batch.put(key.clone(), Bytes::copy_from_slice(key.as_bytes())));
        store.commit(batch).await.expect("a commit");
    }
    let asked = [&keys[..], &[key("none"), keys[7].clone()]].concat();
    let with_body = [&asked[..], &[body]].concat();
    for asked in [&with_body[..], &asked[..], &asked[..1], &[]] {
        let expect: Vec<Option<Bytes>> = asked
            .iter()
            .map(|key| keys.contains(key).then(|| Bytes::copy_from_slice(key.as_bytes())))
            .collect();
        assert_eq!(store.get_many(asked).await, Ok(expect));
    }
}

/// What meets on its way to the store does not change what becomes of it: of many commits at once those are
/// made that would be made alone.
pub(crate) async fn commits_at_once_are_judged_one_by_one(open: Open) {
    let store = open();
    put(&store, "shared", "1").await;
    let commit = |number: usize| {
        let mut batch = Batch::new();
        batch.expect(Expect::Value(key("shared"), value("1")));
        match number % 4 {
            0 => batch.expect(Expect::Present(Key::new(KeyKind::Account, &[b"nobody"]))),
            1 => batch.expect(Expect::Absent(key(format!("{}", number - 1)))),
            _ => {}
        }
        batch.put(key(format!("{number}")), value("x"));
        let store = store.clone();
        async move { store.commit(batch).await }
    };
    let outcomes = futures_util::future::join_all((0..200).map(commit)).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let expect = match number % 4 {
            0 => Err(CommitError::Conflict { kind: KeyKind::Account }),
            _ => Ok(()),
        };
        assert_eq!(outcome, expect, "{number}");
        let is_there = read(&store, &number.to_string()).await.is_some();
        assert_eq!(is_there, number % 4 != 0, "{number}");
    }
}

/// Of many commits that want to write one record, and expect it not to be there, one is made.
pub(crate) async fn of_rivals_at_once_one_wins(open: Open) {
    let store = open();
    let commit = |number: usize| {
        let mut batch = Batch::new();
        batch.expect(Expect::Absent(key(format!("prize {}", number % 8))));
        batch.put(key(format!("prize {}", number % 8)), value(&number.to_string()));
        batch.put(key(format!("{number}")), value("x"));
        let store = store.clone();
        async move { store.commit(batch).await.is_ok() }
    };
    let made = futures_util::future::join_all((0..160).map(commit)).await;
    for prize in 0..8 {
        let winner = read(&store, &format!("prize {prize}")).await.expect("a winner");
        let winners: Vec<String> = (prize..160)
            .step_by(8)
            .filter(|number| made[*number])
            .map(|number| number.to_string())
            .collect();
        assert_eq!(winners, [winner]);
    }
    for (number, is_made) in made.into_iter().enumerate() {
        assert_eq!(read(&store, &number.to_string()).await.is_some(), is_made, "{number}");
    }
}

pub(crate) async fn expectations_are_checked(open: Open) {
    let store = open();
    put(&store, "there", "yes").await;
    let cases = [
        (Expect::Absent(key("no")), true),
        (Expect::Absent(key("there")), false),
        (Expect::Present(key("there")), true),
        (Expect::Present(key("no")), false),
        (Expect::Value(key("there"), value("yes")), true),
        (Expect::Value(key("there"), value("ye")), false),
        (Expect::Value(key("there"), value("yes!")), false),
        (Expect::Value(key("there"), value("")), false),
        (Expect::Value(key("no"), value("")), false),
    ];
    for (number, (expectation, holds)) in cases.into_iter().enumerate() {
        let mut batch = Batch::new();
        let name = format!("case {number}");
        batch.put(key(&name), value("x"));
        batch.expect(expectation.clone());
        let expect = match holds {
            true => Ok(()),
            false => Err(CommitError::Conflict { kind: KeyKind::Object }),
        };
        assert_eq!(store.commit(batch).await, expect, "{number}: {expectation:?}");
        assert_eq!(read(&store, &name).await.is_some(), holds, "{number}: {expectation:?}");
    }
}

pub(crate) async fn one_broken_expectation_stops_everything(open: Open) {
    let store = open();
    put(&store, "a", "1").await;
    let mut batch = Batch::new();
    batch.expect(Expect::Value(key("a"), value("1")));
    batch.put(key("a"), value("2"));
    batch.put(key("b"), value("2"));
    batch.expect(Expect::Present(Key::new(KeyKind::Account, &[b"nobody"])));
    let conflict = CommitError::Conflict { kind: KeyKind::Account };
    assert_eq!(store.commit(batch).await, Err(conflict));
    assert_eq!(read(&store, "a").await.as_deref(), Some("1"));
    assert_eq!(read(&store, "b").await, None);
}

pub(crate) async fn the_last_operation_on_a_key_counts(open: Open) {
    let store = open();
    let mut batch = Batch::new();
    batch.expect(Expect::Absent(key("a")));
    batch.put(key("a"), value("1"));
    batch.delete(key("a"));
    batch.put(key("a"), value("2"));
    batch.put(key("b"), value("1"));
    batch.delete(key("b"));
    store.commit(batch).await.expect("a commit");
    assert_eq!(read(&store, "a").await.as_deref(), Some("2"));
    assert_eq!(read(&store, "b").await, None);
}

pub(crate) async fn a_batch_may_change_nothing(open: Open) {
    let store = open();
    store.commit(Batch::new()).await.expect("an empty batch");
    let mut batch = Batch::new();
    batch.expect(Expect::Present(key("a")));
    let conflict = CommitError::Conflict { kind: KeyKind::Object };
    assert_eq!(store.commit(batch.clone()).await, Err(conflict));
    put(&store, "a", "").await;
    assert_eq!(store.commit(batch).await, Ok(()));
}

pub(crate) async fn limits_are_exact_and_refuse_the_whole_batch(open: Open) {
    let store = open();
    let with_operations = |n_operations: usize| {
        let mut batch = Batch::new();
        (0..n_operations).for_each(|number| batch.put(key(format!("{number}")), Bytes::new()));
        batch
    };
    let with_expectations = |n_expectations: usize| {
        let mut batch = Batch::new();
        batch.put(key("expecting"), Bytes::new());
        (0..n_expectations).for_each(|_| batch.expect(Expect::Absent(key("never"))));
        batch
    };
    let with_bytes = |n_bytes: usize| {
        let mut batch = Batch::new();
        batch.put(key("large"), Bytes::from(vec![b'x'; n_bytes - key("large").as_bytes().len()]));
        batch
    };
    let with_key = |n_bytes: usize| {
        let mut batch = Batch::new();
        batch.put(key(vec![b'k'; n_bytes - 1]), Bytes::new());
        batch
    };
    for (batch, is_taken) in [
        (with_operations(MAX_BATCH_OPERATIONS + 1), false),
        (with_operations(MAX_BATCH_OPERATIONS), true),
        (with_expectations(MAX_BATCH_OPERATIONS + 1), false),
        (with_expectations(MAX_BATCH_OPERATIONS), true),
        (with_bytes(MAX_BATCH_BYTES + 1), false),
        (with_bytes(MAX_BATCH_BYTES), true),
        (with_key(MAX_KEY_BYTES + 1), false),
        (with_key(MAX_KEY_BYTES), true),
    ] {
        let name = batch.operations()[0].key().clone();
        let size = (batch.n_operations(), batch.n_bytes());
        match store.commit(batch).await {
            Ok(()) => assert!(is_taken, "{size:?}"),
            Err(CommitError::TooLarge { n_operations, n_bytes }) => {
                assert!(!is_taken, "{size:?}");
                assert_eq!((n_operations, n_bytes), size);
            }
            Err(error) => panic!("{size:?}: {error}"),
        }
        assert_eq!(store.get(&name).await.expect("a read").is_some(), is_taken, "{size:?}");
    }
    let large = store.get(&key("large")).await.expect("a read").expect("the large record");
    assert!(large.iter().all(|byte| *byte == b'x'));
}

/// Many tasks add one to the same number, each on condition that it is what they have read.
pub(crate) async fn racing_commits_exclude_each_other(open: Open) {
    const N_TASKS: usize = 16;
    const N_ADDITIONS: usize = 8;
    let store = open();
    put(&store, "counter", "0").await;
    let tasks: Vec<_> = (0..N_TASKS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..N_ADDITIONS {
                    while !add_one(&store).await {}
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the task ends");
    }
    assert_eq!(read(&store, "counter").await, Some((N_TASKS * N_ADDITIONS).to_string()));
}

async fn add_one(store: &Arc<dyn Store>) -> bool {
    let before = read(store, "counter").await.expect("the counter");
    let after = before.parse::<usize>().expect("a number") + 1;
    let mut batch = Batch::new();
    batch.expect(Expect::Value(key("counter"), value(&before)));
    batch.put(key("counter"), value(&after.to_string()));
    match store.commit(batch).await {
        Ok(()) => true,
        Err(CommitError::Conflict { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Pairs are changed together; no scan ever sees them differ.
pub(crate) async fn a_scan_is_one_picture(open: Open) {
    let store = open();
    put(&store, "pair 1", "0").await;
    put(&store, "pair 2", "0").await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..200 {
                let mut batch = Batch::new();
                batch.put(key("pair 1"), value(&number.to_string()));
                batch.put(key("pair 2"), value(&number.to_string()));
                store.commit(batch).await.expect("a commit");
            }
        }
    });
    while !writer.is_finished() {
        for limit in [2, 1_000] {
            let pair = store.scan(&key("pair "), None, limit).await.expect("a scan");
            assert_eq!(pair[0].1, pair[1].1);
        }
        tokio::task::yield_now().await;
    }
    writer.await.expect("the writer ends");
}

pub(crate) async fn a_commit_that_nobody_waits_for_harms_nobody(open: Open) {
    let store = open();
    for number in 0..50 {
        let mut batch = Batch::new();
        batch.put(key("abandoned"), value(&number.to_string()));
        // Polled once, so that it is on its way, and then dropped.
        let _ = store.commit(batch).now_or_never();
    }
    put(&store, "a", "1").await;
    assert_eq!(read(&store, "a").await.as_deref(), Some("1"));
    assert_eq!(store.ready().await, Ok(()));
}

pub(crate) async fn what_was_acknowledged_is_there_after_opening_again(open: Open) {
    for round in 0..3 {
        let store = open();
        for earlier in 0..round {
            assert_eq!(read(&store, &format!("{earlier}")).await.as_deref(), Some("kept"));
            assert_eq!(read(&store, &format!("{earlier} removed")).await, None);
        }
        put(&store, &format!("{round} removed"), "x").await;
        put(&store, &format!("{round}"), "kept").await;
        let mut batch = Batch::new();
        batch.delete(key(format!("{round} removed")));
        store.commit(batch).await.expect("a removal");
    }
}

/// Makes every property a test of one backend.
macro_rules! conforms {
    ($module:ident, $open:path, [$($property:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $property() {
                    super::$property($open()).await;
                }
            )*
        }
    };
}

macro_rules! all_conform {
    ($($module:ident: $open:path),* $(,)?) => {
        $(conforms!($module, $open, [
            records_are_written_replaced_and_removed,
            a_scan_is_ordered_and_stays_in_its_range,
            keys_and_values_are_bytes,
            many_are_read_in_the_order_asked_for,
            commits_at_once_are_judged_one_by_one,
            of_rivals_at_once_one_wins,
            expectations_are_checked,
            one_broken_expectation_stops_everything,
            the_last_operation_on_a_key_counts,
            a_batch_may_change_nothing,
            limits_are_exact_and_refuse_the_whole_batch,
            racing_commits_exclude_each_other,
            a_scan_is_one_picture,
            a_snapshot_stays_as_it_was,
            a_commit_that_nobody_waits_for_harms_nobody,
            what_was_acknowledged_is_there_after_opening_again,
        ]);)*
    };
}

all_conform! {
    memory: crate::store::conformance::memory,
    embedded: crate::store::conformance::embedded,
    etcd: crate::store::conformance::etcd,
}

/// Any sequence of commits, reads and restarts gives what the model gives.
mod model {
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof};
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Commit(Batch),
        Get(Key),
        Scan(Key, Option<Key>, usize),
        Restart,
    }

    fn some_key() -> impl Strategy<Value = Key> {
        let kind = prop_oneof![Just(KeyKind::Object), Just(KeyKind::Signal)];
        (kind, "[ab]{0,3}").prop_map(|(kind, name)| Key::new(kind, &[name.as_bytes()]))
    }

    fn some_value() -> impl Strategy<Value = Bytes> {
        "[xy]{0,2}".prop_map(Bytes::from)
    }

    fn some_batch() -> impl Strategy<Value = Batch> {
        let expectation = prop_oneof![
            some_key().prop_map(Expect::Absent),
            some_key().prop_map(Expect::Present),
            (some_key(), some_value()).prop_map(|(key, value)| Expect::Value(key, value)),
        ];
        let operation = (some_key(), proptest::option::of(some_value()));
        (vec(expectation, 0..2), vec(operation, 0..5)).prop_map(|(expectations, operations)| {
            let mut batch = Batch::new();
            expectations.into_iter().for_each(|expectation| batch.expect(expectation));
            for (key, value) in operations {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
            }
            batch
        })
    }

    fn some_step() -> impl Strategy<Value = Step> {
        let scan = (some_key(), proptest::option::of(some_key()), 0..6usize);
        prop_oneof![
            8 => some_batch().prop_map(Step::Commit),
            2 => some_key().prop_map(Step::Get),
            3 => scan.prop_map(|(prefix, after, limit)| Step::Scan(prefix, after, limit)),
            1 => any::<bool>().prop_map(|_| Step::Restart),
        ]
    }

    async fn check(open: &Open, steps: Vec<Step>) {
        let model = MemoryStore::new();
        let mut store = open();
        for step in steps {
            match step.clone() {
                Step::Commit(batch) => {
                    assert_eq!(
                        store.commit(batch.clone()).await,
                        model.commit(batch).await,
                        "{step:?}"
                    );
                }
                Step::Get(key) => {
                    assert_eq!(store.get(&key).await, model.get(&key).await, "{step:?}");
                }
                Step::Scan(prefix, after, limit) => assert_eq!(
                    store.scan(&prefix, after.as_ref(), limit).await,
                    model.scan(&prefix, after.as_ref(), limit).await,
                    "{step:?}"
                ),
                Step::Restart => {
                    drop(store);
                    store = open();
                }
            }
        }
    }

    fn does_as_the_model_does(backend: fn() -> Open) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut runner = TestRunner::new(Config { cases: 32, ..Config::default() });
        let outcome = runner.run(&vec(some_step(), 1..40), |steps| {
            runtime.block_on(check(&backend(), steps));
            Ok(())
        });
        outcome.expect("the same as the model");
    }

    #[test]
    fn the_embedded_store_does_as_the_model_does() {
        does_as_the_model_does(embedded);
    }

    #[test]
    fn the_etcd_store_does_as_the_model_does() {
        does_as_the_model_does(etcd);
    }
}
