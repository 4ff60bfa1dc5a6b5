//! What the conformance suite does not see: how much travels together.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::Instant;
use tonic::Code;

use super::*;
use crate::store::etcd::batch::uncommitted;
use crate::store::etcd::gather::commits::{
    MAX_COMMIT_BYTES, MAX_COMMITS, MAX_GROUP_BYTES, MAX_OPERATIONS,
};
use crate::store::etcd::tests::{fresh, start};
use crate::store::etcd::wire::RangeRequest;
use crate::store::etcd::{EtcdSettings, EtcdStore, end_of};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind, Store};

fn key(name: &str) -> Key {
    Key::new(KeyKind::Object, &[name.as_bytes()])
}

fn store() -> EtcdStore {
    EtcdStore::new(&fresh()).expect("valid settings")
}

/// A store whose members nobody ever gets to ask in these tests.
fn nobody() -> EtcdStore {
    let endpoints = vec!["127.0.0.1:9".to_owned()];
    EtcdStore::new(&EtcdSettings { endpoints, ..EtcdSettings::default() }).expect("valid settings")
}

/// `+a` writes `a`, `-a` removes it, `=a` expects it not to be there.
fn commit(store: &EtcdStore, words: &str) -> Commit {
    let mut batch = Batch::new();
    for word in words.split(' ') {
        match word.split_at(1) {
            ("+", name) => batch.put(key(name), Bytes::from_static(b"x")),
            ("-", name) => batch.delete(key(name)),
            (_, name) => batch.expect(Expect::Absent(key(name))),
        }
    }
    store.translate(batch)
}

fn waiting<Q, A>(question: Q) -> (Waiting<Q, A>, oneshot::Receiver<Result<A, Status>>) {
    let (caller, answer) = oneshot::channel();
    (Waiting { question, caller }, answer)
}

/// In how many transactions the records were written that are there now.
async fn n_revisions(store: &EtcdStore) -> usize {
    let first = store.name(&key(""));
    let all = RangeRequest { range_end: end_of(&first), key: first, ..RangeRequest::default() };
    let found = store.range(all).await.expect("a read").kvs;
    found.iter().map(|record| record.mod_revision).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn only_commits_that_cannot_see_one_another_travel_together() {
    let store = nobody();
    for (first, next, expect) in [
        ("=a +b", "=c +d", true),
        ("=a +b", "=a +d", true),
        ("=a +b", "=b +d", false),
        ("=a +b", "=c +b", false),
        ("=a +b", "=c +d -b", false),
        ("=a +b", "=c +a", false),
        ("+a -b", "=b +c", false),
    ] {
        let mut group = Commits::new(Bytes::from_static(b"counted"));
        group.push(waiting(commit(&store, first)).0);
        assert_eq!(group.has_room_for(&commit(&store, next)), expect, "{first} and {next}");
    }
}

#[tokio::test]
async fn a_group_has_limits_and_so_has_who_may_be_in_one() {
    let store = nobody();
    let mut group = Commits::new(Bytes::from_static(b"counted"));
    for number in 0..MAX_COMMITS {
        let next = commit(&store, &format!("+{number}"));
        assert!(group.has_room_for(&next));
        group.push(waiting(next).0);
    }
    assert!(!group.has_room_for(&commit(&store, "+one_more")));

    let of_size = |n_bytes: usize| Commit { n_bytes, ..commit(&store, "+a") };
    let mut group = Commits::new(Bytes::from_static(b"counted"));
    group.n_bytes = MAX_GROUP_BYTES - 100;
    assert!(group.has_room_for(&of_size(100)) && !group.has_room_for(&of_size(101)));
    group.push(waiting(of_size(100)).0);
    assert_eq!(group.n_bytes, MAX_GROUP_BYTES);

    let many = |n: usize| (0..n).map(|number| format!("+{number}")).collect::<Vec<_>>().join(" ");
    for (commit, expect) in [
        (commit(&store, "+a"), true),
        (commit(&store, "-a"), false),
        (commit(&store, "=a"), false),
        (of_size(MAX_COMMIT_BYTES), true),
        (of_size(MAX_COMMIT_BYTES + 1), false),
        (commit(&store, &many(MAX_OPERATIONS)), true),
        (commit(&store, &many(MAX_OPERATIONS + 1)), false),
    ] {
        assert_eq!(commit.may_travel(), expect, "{:?}", commit.written.len());
    }
}

#[tokio::test]
async fn what_waits_goes_out_as_one_transaction_as_large_as_etcd_takes_it() {
    let store = store();
    let lane = &store.gatherer.commits;
    let places = lane.places.acquire_many(2).await.expect("two places");
    // As many commits as may be, each with as many operations.
    let commits = (0..MAX_COMMITS).map(|number| {
        let words: Vec<String> =
            (0..MAX_OPERATIONS).map(|part| format!("={number}/{part} +{number}/{part}")).collect();
        store.gatherer.commit(commit(&store, &words.join(" ")))
    });
    let mut commits = Box::pin(join_all(commits));
    assert!(commits.as_mut().now_or_never().is_none());
    drop(places);
    for answer in commits.await {
        assert!(answer.expect("an answer").succeeded);
    }
    assert_eq!(n_revisions(&store).await, 1);
}

#[tokio::test]
async fn what_etcd_will_not_have_together_is_sent_one_by_one() {
    let store = store();
    let (one, first) = waiting(commit(&store, "+a"));
    let (other, second) = waiting(commit(&store, "+a +b"));
    let mut group = Commits::new(Bytes::from_static(b"counted"));
    group.push(one);
    group.push(other);
    group.send(Arc::clone(&store.client)).await;
    for answer in [first, second] {
        assert!(answer.await.expect("an answer").expect("a commit").succeeded);
    }
}

#[tokio::test]
async fn reads_that_travel_together_get_their_own_answers() {
    let store = store();
    store.gatherer.commit(commit(&store, "+a +b")).await.expect("a commit");
    let places = store.gatherer.reads.places.acquire_many(2).await.expect("two places");
    let name = |name: &str| store.name(&key(name));
    let questions =
        [vec![name("a")], vec![name("no"), name("b"), name("a")], vec![], vec![name("no")]];
    let mut reads = Box::pin(join_all(questions.map(|question| store.gatherer.read(question))));
    assert!(reads.as_mut().now_or_never().is_none());
    drop(places);
    let found: Vec<Vec<bool>> = reads
        .await
        .into_iter()
        .map(|found| found.expect("an answer").iter().map(Option::is_some).collect())
        .collect();
    assert_eq!(found, [vec![true], vec![false, true, true], vec![], vec![false]]);
}

/// etcd 3.4.23, for one, refuses also transactions of reads once it is full; later ones would take groups
/// beyond the quota if those wrote nothing that it counts.
#[tokio::test]
async fn a_full_member_refuses_groups_and_answers_reads() {
    let member = start(&["--quota-backend-bytes", "4000000"]);
    let endpoints = vec![member.endpoint.clone()];
    let store = EtcdStore::new(&EtcdSettings { endpoints, ..EtcdSettings::default() });
    let store = store.expect("valid settings");
    let large = |name: usize| {
        let mut batch = Batch::new();
        batch.put(key(&name.to_string()), vec![b'x'; MAX_COMMIT_BYTES / 2].into());
        store.translate(batch)
    };
    let mut refused = None;
    for round in 0..100 {
        // In groups only, from the beginning.
        let places = store.gatherer.commits.places.acquire_many(2).await.expect("two places");
        let commits = (0..20).map(|number| store.gatherer.commit(large(round * 20 + number)));
        let mut commits = Box::pin(join_all(commits));
        assert!(commits.as_mut().now_or_never().is_none());
        drop(places);
        refused = commits.await.into_iter().find_map(Result::err);
        if refused.is_some() {
            break;
        }
    }
    let refused = uncommitted(&refused.expect("a refusal"), 1, 1);
    assert!(matches!(refused, CommitError::Full { .. }), "{refused}");
    let keys: Vec<Key> = (0..3).map(|number| key(&number.to_string())).collect();
    let found = store.get_many(&keys).await.expect("an answer");
    assert!(found.iter().all(Option::is_some));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_a_call_may_take() {
    let store = nobody();
    let _places = store.gatherer.reads.places.acquire_many(2).await.expect("two places");
    let begin = Instant::now();
    let status = store.gatherer.read(vec![Bytes::from_static(b"a")]).await.expect_err("no answer");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(begin.elapsed().as_secs(), CALL_TIMEOUT.as_secs());
}

#[tokio::test]
async fn too_many_are_refused_at_once() {
    let store = nobody();
    let _places = store.gatherer.commits.places.acquire_many(2).await.expect("two places");
    for _ in 0..MAX_WAITING {
        let outcome = store.gatherer.commit(commit(&store, "+a")).now_or_never();
        assert!(outcome.is_none());
    }
    let outcome = store.gatherer.commit(commit(&store, "+a")).now_or_never();
    let status = outcome.expect("at once").expect_err("a refusal");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let refused = uncommitted(&status, 1, 1);
    assert_eq!(refused, CommitError::Overloaded);
}
