use axum::http::StatusCode;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;
use crate::clock::SystemClock;
use crate::keystone::fake::{FakeKeystone, Mood};

/// Lets time pass without waiting for it.
async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

async fn check(
    keystone: &Keystone,
    token: &str,
    token_use: TokenUse,
    expect: Result<&str, BearerError>,
) {
    let project = keystone.project_of(token, token_use).await;
    let project = project.as_ref().map(ProjectId::as_str).map_err(|error| *error);
    assert_eq!(project, expect, "{token} {token_use:?}");
}

#[tokio::test]
async fn a_token_opens_its_project() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.issue("alive", Some("p1"), 3600);
    fake.issue("over", Some("p1"), -10);
    fake.issue("unscoped", None, 3600);
    for (token, token_use, expect) in [
        ("alive", TokenUse::Begin, Ok("p1")),
        ("alive", TokenUse::Finish, Ok("p1")),
        ("over", TokenUse::Begin, Err(BearerError::Invalid)),
        ("over", TokenUse::Finish, Ok("p1")),
        ("unscoped", TokenUse::Begin, Err(BearerError::NoProject)),
        ("unscoped", TokenUse::Finish, Err(BearerError::NoProject)),
        ("made-up", TokenUse::Begin, Err(BearerError::Invalid)),
        ("made-up", TokenUse::Finish, Err(BearerError::Invalid)),
    ] {
        check(&keystone, token, token_use, expect).await;
    }
    assert_eq!(fake.n_calls("authenticate"), 1);
    assert_eq!(fake.n_calls("validate"), 4, "one question for each token");
    assert_eq!(fake.n_calls("validate_alive"), 1, "for the one that is over");
}

#[tokio::test]
async fn many_polls_are_one_question() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.issue("t", Some("p1"), 3600);
    let polls = (0..100).map(|_| keystone.project_of("t", TokenUse::Finish));
    assert!(join_all(polls).await.iter().all(Result::is_ok));
    assert_eq!(fake.n_calls("validate"), 1);
    pass(FRESH).await;
    check(&keystone, "t", TokenUse::Finish, Ok("p1")).await;
    assert_eq!(fake.n_calls("validate"), 2);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_the_question_along() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.issue("t", Some("p1"), 3600);
    let begun = timeout(Duration::ZERO, keystone.project_of("t", TokenUse::Finish)).await;
    assert!(begun.is_err(), "dropped while it waits");
    check(&keystone, "t", TokenUse::Finish, Ok("p1")).await;
    assert_eq!(fake.n_calls("validate"), 1);
}

#[tokio::test]
async fn a_revoked_token_is_refused_when_its_verdict_is_old() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.issue("t", Some("p1"), 3600);
    check(&keystone, "t", TokenUse::Finish, Ok("p1")).await;
    fake.revoke("t");
    check(&keystone, "t", TokenUse::Finish, Ok("p1")).await;
    pass(FRESH).await;
    check(&keystone, "t", TokenUse::Finish, Err(BearerError::Invalid)).await;
}

#[tokio::test]
async fn a_token_issued_after_it_was_refused_is_good_soon() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    check(&keystone, "t", TokenUse::Begin, Err(BearerError::Invalid)).await;
    fake.issue("t", Some("p1"), 3600);
    pass(REFUSED).await;
    check(&keystone, "t", TokenUse::Begin, Ok("p1")).await;
}

#[tokio::test]
async fn the_relays_own_token_is_renewed_when_it_is_refused() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.issue("a", Some("p1"), 3600);
    fake.issue("b", Some("p2"), 3600);
    check(&keystone, "a", TokenUse::Begin, Ok("p1")).await;
    fake.set_mood(Mood::Forgot);
    check(&keystone, "b", TokenUse::Begin, Ok("p2")).await;
    assert_eq!(fake.n_calls("authenticate"), 2);
}

#[tokio::test]
async fn the_relays_own_token_is_renewed_before_it_ends() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    let first = keystone.service_token().await.unwrap();
    pass(Duration::from_secs(2700)).await;
    assert_eq!(keystone.service_token().await.unwrap().expose(), first.expose());
    pass(Duration::from_secs(300)).await;
    let second = keystone.service_token().await.unwrap();
    assert_ne!(second.expose(), first.expose());
    keystone.forget_service_token(&first);
    assert_eq!(keystone.service_token().await.unwrap().expose(), second.expose());
    keystone.forget_service_token(&second);
    assert_ne!(keystone.service_token().await.unwrap().expose(), second.expose());
}

/// Returns when the relay knows whether Keystone is there or away.
async fn settled(keystone: &Keystone) {
    while keystone.memory().outage.is_doubted() {
        tokio::task::yield_now().await;
    }
}

/// What callers are told while Keystone is in this mood, and afterwards.
async fn check_outage(mood: Mood) {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.issue("known", Some("p1"), 3600);
    fake.issue("unknown", Some("p2"), 3600);
    check(&keystone, "known", TokenUse::Finish, Ok("p1")).await;

    fake.set_mood(mood);
    check(&keystone, "unknown", TokenUse::Finish, Err(BearerError::Unavailable)).await;
    // An answer to the relay's own question comes in this time or never.
    pass(CALL_TIMEOUT).await;
    settled(&keystone).await;
    let n_validations = fake.n_calls("validate");
    // Nobody tries again at once.
    check(&keystone, "unknown", TokenUse::Begin, Err(BearerError::Unavailable)).await;
    check(&keystone, "another", TokenUse::Begin, Err(BearerError::Unavailable)).await;
    pass(PATIENCE).await;
    check(&keystone, "unknown", TokenUse::Finish, Err(BearerError::AwayForLong)).await;
    assert_eq!(fake.n_calls("validate"), n_validations, "the relay tries with its own token");
    pass(FRESH).await;
    check(&keystone, "known", TokenUse::Begin, Ok("p1")).await;
    pass(STALE).await;
    check(&keystone, "known", TokenUse::Finish, Err(BearerError::AwayForLong)).await;

    fake.set_mood(Mood::Good);
    pass(PROBE_INTERVAL).await;
    check(&keystone, "unknown", TokenUse::Finish, Ok("p2")).await;
    check(&keystone, "known", TokenUse::Finish, Ok("p1")).await;
}

#[tokio::test]
async fn while_keystone_fails_what_is_known_stays_good() {
    check_outage(Mood::Answers(StatusCode::INTERNAL_SERVER_ERROR)).await;
}

#[tokio::test]
async fn while_a_proxy_answers_for_keystone_what_is_known_stays_good() {
    check_outage(Mood::Answers(StatusCode::SERVICE_UNAVAILABLE)).await;
}

#[tokio::test]
async fn while_keystone_refuses_the_relay_no_caller_is_refused() {
    check_outage(Mood::Answers(StatusCode::FORBIDDEN)).await;
    check_outage(Mood::Answers(StatusCode::UNAUTHORIZED)).await;
}

#[tokio::test]
async fn a_keystone_that_hangs_is_one_that_is_away() {
    check_outage(Mood::Hangs).await;
}

#[tokio::test]
async fn nobody_who_is_known_waits_for_a_keystone_that_hangs() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.issue("known", Some("p1"), 3600);
    check(&keystone, "known", TokenUse::Finish, Ok("p1")).await;
    fake.set_mood(Mood::Hangs);
    check(&keystone, "unknown", TokenUse::Finish, Err(BearerError::Unavailable)).await;
    pass(FRESH).await;
    let started = Instant::now();
    check(&keystone, "known", TokenUse::Finish, Ok("p1")).await;
    check(&keystone, "known", TokenUse::Finish, Ok("p1")).await;
    assert!(started.elapsed() < CALL_TIMEOUT / 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_relay_that_starts_before_keystone_finds_it_later() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fake = FakeKeystone::start().await;
    let mut settings = fake.settings();
    settings.auth_url = "http://127.0.0.1:1".parse().unwrap();
    let keystone = Keystone::new(&settings, Arc::new(SystemClock)).unwrap();
    check(&keystone, "t", TokenUse::Begin, Err(BearerError::Unavailable)).await;
}

#[tokio::test]
async fn a_wrong_password_is_no_fault_of_the_callers() {
    let fake = FakeKeystone::start().await;
    fake.issue("t", Some("p1"), 3600);
    let mut settings = fake.settings();
    settings.password = Secret::new("wrong".to_owned());
    let keystone = Keystone::new(&settings, Arc::new(SystemClock)).unwrap();
    check(&keystone, "t", TokenUse::Begin, Err(BearerError::Unavailable)).await;
}

fn presigned(signature: &str) -> PresignedRequest<'_> {
    PresignedRequest {
        method: "PUT",
        host: "relay:8090",
        path: "/v1/waitcondition/arn:openstack:heat::p:stacks/s/i/resources/r",
        access_key: "a",
        signature,
        parameters: &[],
        body_hash: "e3b0",
    }
}

#[tokio::test]
async fn a_signature_is_exchanged_for_a_token() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.accept_signature("good=", "exchanged", "p1");
    let exchanged = keystone.exchange(&presigned("good=")).await.unwrap();
    assert_eq!((exchanged.token.expose(), exchanged.project.as_str()), ("exchanged", "p1"));
    let bad = keystone.exchange(&presigned("bad=")).await;
    assert_eq!(bad.map(|_| ()), Err(BearerError::Invalid));
    let sent = &fake.exchanges()[0];
    assert_eq!(sent["verb"], "PUT");
    assert_eq!(sent["host"], "relay:8090");

    // A token of ours that is refused is not taken for a signature that is.
    fake.set_mood(Mood::Forgot);
    assert!(keystone.exchange(&presigned("good=")).await.is_ok());
    fake.set_mood(Mood::Answers(StatusCode::FORBIDDEN));
    let refused = keystone.exchange(&presigned("good=")).await;
    assert_eq!(refused.map(|_| ()), Err(BearerError::Unavailable));
}

/// As Keystone does over a `Host` that it cannot take apart: whoever has one credential can ask that as
/// often as he likes.
#[tokio::test]
async fn a_question_that_keystone_stumbles_over_holds_up_nobody_else() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    fake.issue("t", Some("p1"), 3600);
    fake.accept_signature("good=", "exchanged", "p2");
    for odd in ["odd=", "odd"] {
        fake.stumble_over(odd, true);
    }
    for _ in 0..20 {
        let odd = keystone.exchange(&presigned("odd=")).await;
        assert_eq!(odd.map(|_| ()), Err(BearerError::Unavailable));
        assert!(keystone.exchange(&presigned("good=")).await.is_ok());
    }
    check(&keystone, "odd", TokenUse::Begin, Err(BearerError::Unavailable)).await;
    check(&keystone, "t", TokenUse::Begin, Ok("p1")).await;
}

/// As when the directory behind one of Keystone's domains is away: for those who are in it Keystone is.
#[tokio::test]
async fn a_token_that_keystone_stumbles_over_has_an_outage_of_its_own() {
    let fake = FakeKeystone::start().await;
    let keystone = fake.client();
    for token in ["known", "unknown", "other"] {
        fake.issue(token, Some("p1"), 3600);
    }
    check(&keystone, "known", TokenUse::Finish, Ok("p1")).await;
    for token in ["known", "unknown"] {
        fake.stumble_over(token, true);
    }
    check(&keystone, "unknown", TokenUse::Finish, Err(BearerError::Unavailable)).await;
    settled(&keystone).await;
    let n_validations = fake.n_calls("validate");
    check(&keystone, "unknown", TokenUse::Finish, Err(BearerError::Unavailable)).await;
    assert_eq!(fake.n_calls("validate"), n_validations, "nobody tries again at once");
    pass(PATIENCE).await;
    check(&keystone, "unknown", TokenUse::Finish, Err(BearerError::AwayForLong)).await;
    settled(&keystone).await;
    check(&keystone, "other", TokenUse::Finish, Ok("p1")).await;
    pass(FRESH).await;
    check(&keystone, "known", TokenUse::Finish, Ok("p1")).await;
    settled(&keystone).await;
    fake.stumble_over("unknown", false);
    check(&keystone, "unknown", TokenUse::Finish, Ok("p1")).await;
}

#[test]
fn nothing_shows_a_secret() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = KeystoneSettings {
        auth_url: "http://127.0.0.1:1".parse().unwrap(),
        username: "relay".to_owned(),
        password: Secret::new("correct horse".to_owned()),
        project: "service".to_owned(),
        user_domain: "Default".to_owned(),
        project_domain: "Default".to_owned(),
        ca_file: None,
    };
    let keystone = Keystone::new(&settings, Arc::new(SystemClock)).unwrap();
    let shown = format!("{keystone:?} {settings:?}");
    assert!(!shown.contains("correct horse"), "{shown}");
}
