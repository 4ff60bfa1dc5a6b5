use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::*;
use crate::store::KeyKind;
use crate::store::conformance::key;

/// Names the data directory to a process that a test has started from its own program.
const CHILD_DIR: &str = "HELIOGRAPH_TEST_STORE_DIR";

/// A commit of one record, whose value can be told from its number.
fn numbered(number: u64, n_bytes: usize) -> Batch {
    let mut batch = Batch::new();
    batch.put(key(format!("{number:08}")), filled(number, n_bytes));
    batch
}

fn filled(number: u64, n_bytes: usize) -> Bytes {
    let byte = u8::try_from(number % 251).expect("below 251");
    Bytes::from(vec![byte; n_bytes])
}

/// How many numbered records there are; fails if one is not whole.
async fn count(store: &EmbeddedStore, n_bytes: usize) -> usize {
    let records = store.scan(&key(""), None, usize::MAX).await.expect("a scan");
    for (key, value) in &records {
        let name = String::from_utf8_lossy(&key.as_bytes()[1..]).into_owned();
        let number = name.parse().expect("a numbered record");
        assert_eq!(*value, filled(number, n_bytes), "{name}");
    }
    records.len()
}

/// Runs one test of this program in a process of its own. Only there does the test do anything.
fn child(test: &str, folder: &Path) -> Command {
    let program = std::env::current_exe().expect("the test program");
    // Ignored across exec: a write beyond the limit of the file size is to fail, not to kill.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(program)
        .args(["--exact", &format!("store::embedded::tests::{test}"), "--nocapture"])
        .env(CHILD_DIR, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// The data directory, in a process that was started by [`child`].
fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

#[tokio::test]
async fn a_directory_has_one_owner_at_a_time() {
    let folder = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(folder.path()).expect("the first one opens");
    let error = EmbeddedStore::open(folder.path()).expect_err("the second one does not");
    assert_eq!(
        error.to_string(),
        format!(
            "the data directory {} is in use by another relay (process {})",
            folder.path().display(),
            std::process::id()
        )
    );
    store.commit(numbered(1, 10)).await.expect("the first one still works");
    drop(store);
    let store = EmbeddedStore::open(folder.path()).expect("free again");
    assert_eq!(count(&store, 10).await, 1);
}

#[test]
fn a_directory_of_another_format_is_left_alone() {
    let folder = tempfile::tempdir().expect("a directory");
    drop(EmbeddedStore::open(folder.path()).expect("a new directory"));
    std::fs::write(folder.path().join("format"), "heliograph store 2\n").expect("a later format");
    let error = EmbeddedStore::open(folder.path()).expect_err("a later format");
    assert_eq!(
        error.to_string(),
        format!(
            "the data directory {} has the format \"heliograph store 2\", and this version reads \
             \"heliograph store 1\" only",
            folder.path().display()
        )
    );
    std::fs::write(folder.path().join("format"), "heliograph store 1").expect("the known format");
    EmbeddedStore::open(folder.path()).expect("the known format");
}

#[tokio::test]
async fn commits_that_wait_together_are_one_group() {
    let folder = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(folder.path()).expect("the store opens");
    let commits = (0..1_000).map(|number| store.commit(numbered(number, 100)));
    for result in futures_util::future::join_all(commits).await {
        result.expect("a commit");
    }
    assert_eq!(count(&store, 100).await, 1_000);
    let records = store.shared.records().expect("open");
    let n_groups = records.database.seqno();
    assert!(n_groups < 100, "{n_groups} groups for 1,000 commits");
}

#[tokio::test]
async fn a_later_commit_of_a_group_sees_the_earlier_ones() {
    let folder = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(folder.path()).expect("the store opens");
    let first_come = || {
        let mut batch = Batch::new();
        batch.expect(crate::store::Expect::Absent(key("place")));
        batch.put(key("place"), Bytes::new());
        batch
    };
    let results = futures_util::future::join_all((0..50).map(|_| store.commit(first_come()))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
}

#[tokio::test]
async fn more_commits_than_may_wait_are_refused_at_once() {
    let folder = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(folder.path()).expect("the store opens");
    let n_commits = 3 * MAX_QUEUED_COMMITS as u64;
    let commits = (0..n_commits).map(|number| store.commit(numbered(number, 2_000)));
    let results = futures_util::future::join_all(commits).await;
    let n_taken = results.iter().filter(|result| result.is_ok()).count();
    let n_refused = results.iter().filter(|r| **r == Err(CommitError::Overloaded)).count();
    assert!(n_refused > 0);
    assert_eq!(n_taken + n_refused, results.len());
    assert_eq!(count(&store, 2_000).await, n_taken);
}

/// Commits without end and says which number was acknowledged.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(folder) = child_folder() else { return };
    let store = Arc::new(EmbeddedStore::open(&folder).expect("the store opens"));
    let first = count(&store, 300).await as u64;
    let mut tasks = tokio::task::JoinSet::new();
    for number in first.. {
        if tasks.len() >= 16 {
            let number: u64 = tasks.join_next().await.expect("a task").expect("it ends");
            println_acknowledged(number);
        }
        let store = store.clone();
        tasks.spawn(async move {
            store.commit(numbered(number, 300)).await.expect("a commit");
            number
        });
    }
}

/// Tells the parent process.
fn println_acknowledged(number: u64) {
    println!("acknowledged {number}");
}

/// The numbers that a child says were acknowledged, up to `limit` of them.
fn acknowledged(child: &mut Child, limit: usize) -> Vec<u64> {
    let output = child.stdout.as_mut().expect("piped");
    BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok())
        .take(limit)
        .collect()
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut all = Vec::new();
    for round in 1..=5 {
        let mut child = child("child_that_is_killed", folder.path()).spawn().expect("a child");
        let numbers = acknowledged(&mut child, 200 * round);
        child.kill().expect("SIGKILL");
        child.wait().expect("the child ends");
        assert!(!numbers.is_empty());
        all.extend(numbers);
        let store = EmbeddedStore::open(folder.path()).expect("the store opens");
        count(&store, 300).await;
        for number in &all {
            let record = store.get(&key(format!("{number:08}"))).await.expect("a read");
            assert!(record.is_some(), "{number} in round {round}");
        }
    }
}

/// Writes until the files may grow no more, goes on when they may.
#[tokio::test]
async fn child_whose_files_may_not_grow() {
    const N_BYTES: usize = 20_000;
    let Some(folder) = child_folder() else { return };
    let store = EmbeddedStore::open(&folder).expect("the store opens");
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("the limit");
    setrlimit(Resource::RLIMIT_FSIZE, 900_000, hard).expect("a lower limit");

    let mut n_acknowledged = 0;
    let mut number = 0;
    let error = loop {
        number += 1;
        match store.commit(numbered(number, N_BYTES)).await {
            Ok(()) => n_acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CommitError::Unavailable { .. }), "{error:?}");
    assert!(n_acknowledged > 10);
    // Nothing more is taken, and what there is can be read.
    assert!(store.commit(numbered(number + 1, N_BYTES)).await.is_err());
    assert!(store.ready().await.is_err());
    assert_eq!(count(&store, N_BYTES).await, n_acknowledged);
    // Somebody has begun a backup, and does not come on with it.
    let snapshot = store.snapshot().expect("a store that reads").expect("a snapshot");
    let all = Key::new(KeyKind::Signal, &[]);

    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).expect("the limit as it was");
    let healing = async {
        while store.ready().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, healing).await.expect("the store heals by itself");
    let taken_back = snapshot.scan(&all, None, 1).await;
    assert!(matches!(taken_back, Err(StoreError::Unavailable { .. })), "{taken_back:?}");
    // The failed one may be there as well, as a whole.
    let n_recovered = count(&store, N_BYTES).await;
    assert!((n_acknowledged..=n_acknowledged + 1).contains(&n_recovered), "{n_recovered}");
    store.commit(numbered(number + 1, N_BYTES)).await.expect("commits are taken again");
    drop(store);
    let store = EmbeddedStore::open(&folder).expect("the store opens");
    assert_eq!(count(&store, N_BYTES).await, n_recovered + 1);
    println_acknowledged(0);
}

#[test]
fn a_failed_write_loses_nothing_and_heals() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut child =
        child("child_whose_files_may_not_grow", folder.path()).spawn().expect("a child");
    let numbers = acknowledged(&mut child, 1);
    assert!(child.wait().expect("the child ends").success());
    assert_eq!(numbers, [0]);
}
