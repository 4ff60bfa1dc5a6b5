//! A member of etcd for tests, and what the conformance suite does not look at.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::store::etcd::batch::uncommitted;
use crate::store::etcd::scan::PAGE;
use crate::store::sharing::Change;
use crate::store::{Expect, MAX_BATCH_BYTES};

/// One member, which all tests of a process share.
pub(crate) struct Member {
    pub(crate) endpoint: String,
    /// Dropped with the process, and then the shell that reads from it ends the member.
    _shell: Child,
}

/// Starts the member if need be. It must be installed: a test that cannot run has failed.
fn endpoint() -> &'static str {
    static MEMBER: OnceLock<Member> = OnceLock::new();
    &MEMBER.get_or_init(|| start(&[])).endpoint
}

/// Starts a member, with options of its own.
pub(crate) fn start(options: &[&str]) -> Member {
    let folder = tempfile::tempdir().expect("a temporary directory").keep();
    let (client, peer) = (free_address(), free_address());
    // The member ends, and its directory goes, when this process closes the pipe, however it ends.
    let script = r#"
        folder=$1 client=$2 peer=$3
        shift 3
        etcd --name only --data-dir "$folder" --log-level error \
            --listen-client-urls "http://$client" --advertise-client-urls "http://$client" \
            --listen-peer-urls "http://$peer" --initial-advertise-peer-urls "http://$peer" \
            --initial-cluster "only=http://$peer" "$@" >"$folder.log" 2>&1 </dev/null &
        member=$!
        read -r _ || true
        kill "$member"; wait "$member"; rm -rf "$folder" "$folder.log""#;
    let shell = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&folder)
        .args([&client, &peer])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).status();
    assert!(found.is_ok(), "etcd is not installed: `make test-deps` installs what tests need");
    wait_for(&client);
    Member { endpoint: client, _shell: shell }
}

/// Returns when somebody accepts connections there.
#[expect(clippy::disallowed_methods, reason = "another process cannot be awaited")]
fn wait_for(address: &str) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(std::time::Instant::now() < end, "etcd did not start at {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// A store that nobody else uses.
pub(crate) fn fresh() -> EtcdSettings {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let prefix = format!("test {number}/");
    EtcdSettings { endpoints: vec![endpoint().to_owned()], prefix, ..EtcdSettings::default() }
}

fn open(settings: &EtcdSettings) -> EtcdStore {
    EtcdStore::new(settings).expect("valid settings")
}

fn key(name: &str) -> Key {
    Key::new(KeyKind::Object, &[name.as_bytes()])
}

async fn put(store: &EtcdStore, name: &str, value: &str) {
    let mut batch = Batch::new();
    batch.put(key(name), Bytes::copy_from_slice(value.as_bytes()));
    store.commit(batch).await.expect("a commit");
}

#[test]
fn the_end_of_a_range_is_behind_all_of_it() {
    for (prefix, expect) in [
        (&b"a"[..], &b"b"[..]),
        (b"a\xff", b"b"),
        (b"a\xff\xff", b"b"),
        (b"a\x00", b"a\x01"),
        (b"\xff", b"\0"),
        (b"", b"\0"),
    ] {
        assert_eq!(end_of(prefix).as_ref(), expect, "{prefix:?}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let good = EtcdSettings { endpoints: vec!["a:1".to_owned()], ..EtcdSettings::default() };
    let refused = |settings: EtcdSettings| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _inside = runtime.enter();
        EtcdStore::new(&settings).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(refused(good.clone()), Ok(()));
    for (settings, expect) in [
        (EtcdSettings { endpoints: vec![], ..good.clone() }, "no endpoint of etcd is given"),
        (
            EtcdSettings { prefix: "p".repeat(MAX_PREFIX_BYTES + 1), ..good.clone() },
            "the prefix of keys in etcd is longer than 64 bytes",
        ),
        (
            EtcdSettings { endpoints: vec!["no such thing".to_owned()], ..good.clone() },
            "\"no such thing\" is not HOST:PORT of a member of etcd",
        ),
    ] {
        assert_eq!(refused(settings), Err(expect.to_owned()));
    }
}

#[test]
fn what_etcd_refuses_is_told_apart() {
    let unavailable = |detail: &str| CommitError::Unavailable { detail: detail.to_owned() };
    for (code, message, expect) in [
        (
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
            CommitError::Full {
                detail: "etcd: etcdserver: mvcc: database space exceeded".to_owned(),
            },
        ),
        (Code::ResourceExhausted, "etcdserver: too many requests", CommitError::Overloaded),
        (
            Code::InvalidArgument,
            "etcdserver: request is too large",
            CommitError::TooLarge { n_operations: 1, n_bytes: 2 },
        ),
        (
            Code::InvalidArgument,
            "etcdserver: too many operations in txn request",
            CommitError::TooLarge { n_operations: 1, n_bytes: 2 },
        ),
        (
            Code::PermissionDenied,
            "etcdserver: permission denied",
            unavailable("etcd: etcdserver: permission denied"),
        ),
        (
            Code::DataLoss,
            "etcdserver: corrupt cluster",
            CommitError::Corrupt { detail: "etcd: etcdserver: corrupt cluster".to_owned() },
        ),
    ] {
        assert_eq!(uncommitted(&Status::new(code, message), 1, 2), expect, "{message}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let tls = EtcdTls { ca: b"ca".to_vec(), identity: Some((b"c".to_vec(), b"key".to_vec())) };
    let user = EtcdUser { name: "relay".to_owned(), password: "secret".to_owned() };
    let shown = format!("{tls:?} {user:?}");
    assert_eq!(shown, "EtcdTls(..) EtcdUser { name: \"relay\", .. }");
}

#[tokio::test]
async fn stores_with_different_prefixes_do_not_meet() {
    let (one, other) = (open(&fresh()), open(&fresh()));
    put(&one, "a", "1").await;
    assert_eq!(other.get(&key("a")).await, Ok(None));
    assert_eq!(other.scan(&key(""), None, 10).await, Ok(vec![]));
    assert_eq!(one.scan(&key(""), None, 10).await.map(|found| found.len()), Ok(1));
}

#[tokio::test]
async fn a_scan_is_longer_than_a_page() {
    let store = open(&fresh());
    let n_records = PAGE * 2 + 1;
    for kind in [KeyKind::Object, KeyKind::SignalBody] {
        let key = |text: &str| Key::new(kind, &[text.as_bytes()]);
        for start in (0..n_records).step_by(128) {
            let mut batch = Batch::new();
            for number in start..n_records.min(start + 128) {
                batch.put(key(&format!("{number:05}")), Bytes::new());
            }
            store.commit(batch).await.expect("a commit");
        }
        for (limit, expect) in
            [(n_records + 1, n_records), (n_records, n_records), (PAGE, PAGE), (PAGE + 1, PAGE + 1)]
        {
            let found = store.scan(&key(""), None, limit).await.expect("a scan");
            assert_eq!(found.len(), expect);
            assert!(found.is_sorted());
        }
    }
}

#[tokio::test]
async fn a_batch_of_the_largest_size_is_taken_with_the_longest_prefix() {
    let settings = EtcdSettings { prefix: "p".repeat(MAX_PREFIX_BYTES), ..fresh() };
    let store = open(&settings);
    let mut batch = Batch::new();
    for number in 0..128 {
        batch.expect(Expect::Absent(key(&format!("expected {number}"))));
    }
    for number in 0..127 {
        batch.put(key(&format!("{number}")), Bytes::new());
    }
    let left = MAX_BATCH_BYTES - batch.n_bytes() - key("large").as_bytes().len();
    batch.put(key("large"), vec![b'x'; left].into());
    assert_eq!(batch.n_bytes(), MAX_BATCH_BYTES);
    assert_eq!(store.commit(batch).await, Ok(()));
}

#[tokio::test]
async fn nobody_at_home_is_unavailable_and_said_soon() {
    let nobody = EtcdSettings { endpoints: vec![free_address(), free_address()], ..fresh() };
    let store = open(&nobody);
    let mut batch = Batch::new();
    batch.put(key("a"), Bytes::new());
    assert!(matches!(store.commit(batch).await, Err(CommitError::Unavailable { .. })));
    assert!(matches!(store.get(&key("a")).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.ready().await, Err(StoreError::Unavailable { .. })));
}

#[tokio::test]
async fn a_member_that_is_away_is_passed_over() {
    let good = fresh();
    let endpoints = [vec![free_address()], good.endpoints.clone()].concat();
    // Whichever of the two is asked first.
    for _ in 0..4 {
        let store = open(&EtcdSettings { endpoints: endpoints.clone(), ..good.clone() });
        put(&store, "a", "1").await;
        assert_eq!(store.get(&key("a")).await, Ok(Some(Bytes::from_static(b"1"))));
    }
}

#[tokio::test]
async fn changes_by_others_are_told_in_order() {
    let settings = fresh();
    let (one, other) = (open(&settings), open(&settings));
    let mut changes = one.changes(KeyKind::Object);
    assert_eq!(changes.next().await, Change::Missed);
    put(&other, "a", "1").await;
    let mut batch = Batch::new();
    batch.put(Key::new(KeyKind::Signal, &[b"another kind"]), Bytes::new());
    batch.delete(key("a"));
    batch.put(key("b"), Bytes::from_static(b"2"));
    other.commit(batch).await.expect("a commit");
    assert_eq!(changes.next().await, Change::Put(key("a"), Bytes::from_static(b"1")));
    let rest = [changes.next().await, changes.next().await];
    assert!(rest.contains(&Change::Deleted(key("a"))), "{rest:?}");
    assert!(rest.contains(&Change::Put(key("b"), Bytes::from_static(b"2"))), "{rest:?}");
}

#[tokio::test]
async fn one_of_several_leads_and_another_takes_over() {
    let settings = fresh();
    let (one, other) = (open(&settings), open(&settings));
    let mut first = one.lead(Job::Sweep);
    first.gained().await;
    let mut second = other.lead(Job::Sweep);
    // Another job is another choice.
    other.lead(Job::Forward).gained().await;
    assert!(first.is_held() && !second.is_held());
    drop(first);
    second.gained().await;
}
