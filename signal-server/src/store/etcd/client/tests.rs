//! What a call does where a member is silent: a listener whose connections nobody takes up.

use std::net::TcpListener;

use super::*;
use crate::store::etcd::tests::fresh;
use crate::store::etcd::wire::{OneRequest, PutRequest, TXN, TxnRequest, TxnResponse};

/// A client whose turn it is to ask somebody silent, and whose other member is well.
fn client() -> (Client, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address").to_string();
    let mut settings = fresh();
    settings.endpoints.insert(0, address);
    let client = Client::new(&settings).expect("valid settings");
    client.current.send_replace(settings.endpoints.len());
    (client, silent)
}

fn put(client: &Client) -> TxnRequest {
    let put = PutRequest { key: client.readable.clone(), ..PutRequest::default() };
    TxnRequest { success: vec![OneRequest::Put(put).into()], ..TxnRequest::default() }
}

#[tokio::test]
async fn a_question_is_answered_by_whoever_answers_first_and_so_are_the_next() {
    let (client, _silent) = client();
    let turn = client.turn();
    let begin = Instant::now();
    client.probe().await.expect("an answer");
    assert!(begin.elapsed() >= PATIENCE);
    assert_eq!(client.turn(), turn + 1);
    client.left(turn).await;
}

#[tokio::test]
async fn a_change_is_asked_for_only_at_a_member_that_answers() {
    let (client, _silent) = client();
    let turn = client.turn();
    let answer: TxnResponse =
        client.call(TXN, put(&client), Effect::Once).await.expect("an answer");
    assert!(answer.succeeded);
    assert_eq!(client.turn(), turn + 1);
}

#[tokio::test]
async fn a_change_that_may_have_been_made_is_not_made_again_and_the_next_one_is_elsewhere() {
    let (client, _silent) = client();
    let turn = client.turn();
    // As if it had answered, and then fallen silent.
    client.prove(turn);
    let answer: Result<TxnResponse, _> = client.call(TXN, put(&client), Effect::Once).await;
    assert_eq!(answer.expect_err("no answer").message(), silence().message());
    assert_eq!(client.turn(), turn + 1);
    let answer: TxnResponse =
        client.call(TXN, put(&client), Effect::Once).await.expect("an answer");
    assert!(answer.succeeded);
}

#[tokio::test]
async fn a_late_answer_changes_nothing() {
    let (client, _silent) = client();
    let turn = client.turn();
    client.leave(turn);
    client.leave(turn);
    client.prove(turn);
    assert_eq!(client.turn(), turn + 1);
    assert_ne!(client.proven.load(Ordering::Relaxed), turn + 1);
}

#[tokio::test(start_paused = true)]
async fn where_everybody_is_silent_a_question_has_its_end() {
    let silent = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let address = |one: &TcpListener| one.local_addr().expect("an address").to_string();
    let endpoints = silent.iter().map(address).collect();
    let client = Client::new(&EtcdSettings { endpoints, ..EtcdSettings::default() });
    let client = client.expect("valid settings");
    let question = RangeRequest { key: client.readable.clone(), ..RangeRequest::default() };
    let read = || client.call::<_, RangeResponse>(RANGE, question.clone(), Effect::Repeatable);
    let begin = Instant::now();
    read().await.expect_err("no answer");
    assert_eq!(begin.elapsed().as_millis(), CALL_TIMEOUT.as_millis());
    // By now it is known.
    let begin = Instant::now();
    read().await.expect_err("no answer");
    assert_eq!(begin.elapsed().as_millis(), SILENT_TIMEOUT.as_millis());
    // Whoever is slow is found all the same.
    let begin = Instant::now();
    client.probe().await.expect_err("no answer");
    assert_eq!(begin.elapsed().as_millis(), PROBE_TIMEOUT.as_millis());
    client.prove(client.turn());
    assert!(!client.is_silent.load(Ordering::Relaxed));
}

#[tokio::test]
async fn the_next_member_is_one_that_is_not_being_asked() {
    let endpoints = ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec();
    let client = Client::new(&EtcdSettings { endpoints, ..EtcdSettings::default() });
    let client = client.expect("valid settings");
    for (turn, asked, expect) in
        [(3, &[3][..], 4), (4, &[3, 4], 5), (5, &[3, 4], 8), (5, &[4, 5], 6), (3, &[], 4)]
    {
        assert_eq!(client.next(turn, asked), expect, "{turn} {asked:?}");
    }
}

#[test]
fn each_member_is_tried_at_once_and_then_with_pauses() {
    for (n_unreachable, n_members, expect) in [
        (0, 3, PAUSE),
        (1, 3, Duration::ZERO),
        (2, 3, Duration::ZERO),
        (3, 3, PAUSE),
        (4, 3, PAUSE),
        (1, 1, PAUSE),
    ] {
        assert_eq!(pause_after(n_unreachable, n_members), expect, "{n_unreachable} {n_members}");
    }
}
