use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::HOST;
use axum::http::{Method, Request};
use futures_util::stream;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::clock::SystemClock;
use crate::forward::fake::FakeHeat;
use crate::forward::upstream::HeatSettings;
use crate::http::edge::{Edge, EdgeLimits};
use crate::http::permit::{FixedTokens, KeystoneTokens};
use crate::http::{public_router, public_surface};
use crate::keystone::PATIENCE;
use crate::keystone::fake::{FakeKeystone, Mood};
use crate::store::memory::MemoryStore;

const RESOURCE: &str = "/v1/q/stacks/s/i/resources/r/signal";
const WAIT: &str = "/v1/waitcondition/arn%3Aopenstack%3Aheat%3A%3Ap%3Astacks/s/i/resources/r";
const SIGNAL: &str = "/v1/signal/arn%3Aopenstack%3Aheat%3A%3Ap%3Astacks/s/i/resources/r";
const QUERY: &str = "SignatureMethod=HmacSHA256&SignatureVersion=2&AWSAccessKeyId=key\
                     &Timestamp=2026-11-21T09%3A00%3A00Z&Signature=go%2Bod%3D";

/// A relay between fakes. Nothing is delivered unless `deliver` is called.
struct Stage {
    router: Router,
    keystone: FakeKeystone,
    heat: FakeHeat,
    forwarder: Forwarder,
    state: AppState,
}

/// An answer: status, interesting headers, body.
struct Answer {
    status: u16,
    forward: Option<String>,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Answer {
    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        format!("{} {}", self.status, body["error"]["code"].as_str().unwrap_or(&self.body))
    }
}

impl Stage {
    async fn set() -> Stage {
        let heat = FakeHeat::start().await;
        let settings = heat.settings();
        Stage::set_with(heat, &settings).await
    }

    async fn set_with(heat: FakeHeat, settings: &HeatSettings) -> Stage {
        let fake = FakeKeystone::start().await;
        let keystone = fake.client();
        let mut state = AppState::for_tests();
        let forwarder = Forwarder::new(
            settings,
            keystone.clone(),
            Arc::new(MemoryStore::new()),
            Arc::new(SystemClock),
            AccountName::parse("AUTH_operator").unwrap(),
            state.metrics.forwards.clone(),
        )
        .unwrap();
        state.tokens = Arc::new(KeystoneTokens::new(FixedTokens::new([]), keystone.clone()));
        state.heat = Some(Heat { keystone, forwarder: forwarder.clone() });
        Stage { router: public_router(state.clone()), keystone: fake, heat, forwarder, state }
    }

    async fn ask(&self, method: Method, uri: &str, token: Option<&str>, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(uri).header(HOST, "relay:8090");
        let request =
            token.into_iter().fold(request, |request, token| request.header("x-auth-token", token));
        self.answer(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let forward = parts.headers.get("x-heliograph-forward");
        Answer {
            status: parts.status.as_u16(),
            forward: forward.map(|id| id.to_str().unwrap().to_owned()),
            headers: parts.headers.clone(),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn signal(&self, token: &str, body: &str) -> Answer {
        self.ask(Method::POST, RESOURCE, Some(token), body).await
    }
}

#[tokio::test]
async fn a_signal_with_a_token_is_acknowledged_in_heats_words() {
    let stage = Stage::set().await;
    stage.keystone.issue("t", Some("q"), 3600);
    let answer = stage.signal("t", r#"{"status":"SUCCESS","id":"1"}"#).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "null"));
    assert_eq!(answer.headers["content-type"], "application/json");

    // It is readable before it is delivered, and afterwards.
    let id = answer.forward.expect("an id");
    let path = format!("/api/v1/forwards/{id}");
    let view: Value =
        serde_json::from_str(&stage.ask(Method::GET, &path, Some("t"), "").await.body).unwrap();
    assert_eq!((&view["state"], &view["resource"]), (&"pending".into(), &"r".into()));
    let running = tokio::spawn(stage.forwarder.clone().run(std::future::pending()));
    stage.heat.wait_for(1).await;
    loop {
        let view = stage.ask(Method::GET, &path, Some("t"), "").await.body;
        if view.contains(r#""state":"delivered""#) {
            break;
        }
        tokio::task::yield_now().await;
    }
    running.abort();
    let list = stage.ask(Method::GET, "/api/v1/forwards?limit=1", Some("t"), "").await;
    let list: Value = serde_json::from_str(&list.body).unwrap();
    assert_eq!(list["forwards"][0]["id"], id.as_str());
    assert_eq!(list["next_marker"], id.as_str());
}

#[tokio::test]
async fn nobody_is_acknowledged_without_a_permit() {
    let stage = Stage::set().await;
    stage.keystone.issue("t", Some("q"), 3600);
    stage.keystone.issue("other", Some("x"), 3600);
    stage.keystone.issue("unscoped", None, 3600);
    stage.keystone.accept_signature("go+od=", "exchanged", "q");
    let signed = |path: &str| format!("{path}?{QUERY}");
    for (method, uri, token, expect) in [
        (Method::POST, RESOURCE.to_owned(), None, "401 no_permit"),
        (Method::POST, RESOURCE.to_owned(), Some("made-up"), "401 token_unknown"),
        (Method::POST, RESOURCE.to_owned(), Some("other"), "403 wrong_account"),
        (Method::POST, RESOURCE.to_owned(), Some("unscoped"), "403 token_without_project"),
        (Method::PUT, WAIT.to_owned(), None, "401 no_permit"),
        (Method::PUT, WAIT.to_owned(), Some("t"), "401 no_permit"),
        (Method::PUT, signed(WAIT).replace("go%2Bod", "bad"), None, "403 bad_signature"),
        (Method::PUT, signed(WAIT).replace("Version=2", "Version=1"), None, "401 no_permit"),
        (Method::PUT, signed("/v1/waitcondition/arn:a"), None, "404 resource_not_found"),
        (Method::PUT, signed(&WAIT.replace("/r", "/..")), None, "404 resource_not_found"),
        (Method::POST, signed(WAIT), None, "405 method_not_allowed"),
        (Method::PUT, signed(SIGNAL), None, "405 method_not_allowed"),
    ] {
        let answer = stage.ask(method.clone(), &uri, token, "{}").await;
        assert_eq!(answer.code(), expect, "{method} {uri}");
        assert_eq!(answer.forward, None);
    }
}

/// Keystone takes the host apart when a signature does not fit, and fails over what is none.
#[tokio::test]
async fn keystone_is_not_asked_about_a_host_that_is_none() {
    let stage = Stage::set().await;
    stage.keystone.accept_signature("go+od=", "exchanged", "q");
    for hosts in [&[][..], &["[:a"], &["relay:x"], &["relay", "relay"]] {
        let request = Request::builder().method(Method::PUT).uri(format!("{WAIT}?{QUERY}"));
        let request = hosts.iter().fold(request, |request, host| request.header(HOST, *host));
        let answer = stage.answer(request.body(Body::from("{}")).unwrap()).await;
        assert_eq!(answer.code(), "400 bad_host", "{hosts:?}");
    }
    assert_eq!(stage.keystone.n_calls("exchange"), 0);
}

#[tokio::test]
async fn a_token_that_ended_while_the_stack_waited_still_signals() {
    let stage = Stage::set().await;
    stage.keystone.issue("t", Some("q"), -600);
    assert_eq!(stage.signal("t", "{}").await.status, 200);
}

#[tokio::test]
async fn keystone_being_away_is_no_fault_of_the_senders() {
    let stage = Stage::set().await;
    stage.keystone.issue("t", Some("q"), 3600);
    stage.keystone.set_mood(Mood::Answers(StatusCode::BAD_GATEWAY));
    let answer = stage.signal("t", "{}").await;
    assert_eq!(answer.code(), "503 token_check_unavailable");
    assert_eq!(answer.headers["retry-after"], "1");
    let answer = stage.ask(Method::PUT, &format!("{WAIT}?{QUERY}"), None, "{}").await;
    assert_eq!(answer.code(), "503 token_check_unavailable");
}

#[tokio::test]
async fn a_signed_signal_is_acknowledged_in_heats_words() {
    let stage = Stage::set().await;
    stage.keystone.accept_signature("go+od=", "exchanged", "q");
    let wait = stage.ask(Method::PUT, &format!("{WAIT}?{QUERY}"), None, r#"{"id":"1"}"#).await;
    assert_eq!((wait.status, wait.body.as_str()), (200, "<resource>r</resource>"));
    assert_eq!(wait.headers["content-type"], "application/xml");
    let signal =
        stage.ask(Method::POST, &format!("{SIGNAL}?{QUERY}"), None, r#"{"current":"ok"}"#).await;
    assert_eq!((signal.status, signal.body.as_str()), (200, ""));
    assert!(wait.forward.is_some() && signal.forward.is_some());

    // Keystone is told what was signed: the decoded path, and every parameter but the signature.
    let sent = &stage.keystone.exchanges()[0];
    assert_eq!(sent["path"], "/v1/waitcondition/arn:openstack:heat::p:stacks/s/i/resources/r");
    assert_eq!(sent["host"], "relay:8090");
    assert_eq!(sent["verb"], "PUT");
    assert_eq!(sent["access"], "key");
    assert_eq!(sent["params"]["Timestamp"], "2026-11-21T09:00:00Z");
    assert_eq!(sent["params"].as_object().unwrap().len(), 4);
}

/// Anybody may send such a request: the signature covers the body, so that is read before Keystone is asked.
#[tokio::test]
async fn a_body_on_its_way_keeps_no_poll_out() {
    let stage = Stage::set().await;
    stage.keystone.issue("t", Some("q"), 3600);
    let limits = EdgeLimits { max_in_flight: 1, max_long_polls: 1 };
    let edge = Edge::new(public_surface, limits, stage.state.metrics.clone());
    let slow: Vec<_> = (0..3)
        .map(|_| {
            let body = Body::from_stream(stream::pending::<std::io::Result<Bytes>>());
            let request = Request::put(format!("{WAIT}?{QUERY}")).header(HOST, "relay:8090");
            let (edge, router) = (edge.clone(), stage.router.clone());
            let request = request.body(body).unwrap();
            tokio::spawn(async move { edge.call(router, request).await })
        })
        .collect();
    while !stage.state.metrics.encode().unwrap().contains("heliograph_http_arriving 3\n") {
        tokio::task::yield_now().await;
    }
    let poll = Request::get("/v1/AUTH_q/c?format=json").header("x-auth-token", "t");
    let answer = edge.call(stage.router.clone(), poll.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), 404, "and not 503");
    assert!(stage.keystone.exchanges().is_empty());
    slow.into_iter().for_each(|slow| slow.abort());
}

#[tokio::test]
async fn what_heat_would_drop_is_refused_while_the_sender_listens() {
    let stage = Stage::set().await;
    stage.keystone.issue("t", Some("q"), 3600);
    stage.keystone.accept_signature("go+od=", "exchanged", "q");
    for (body, expect) in [
        ("not json", "400 signal_not_json"),
        ("[]", "400 signal_not_object"),
        (r#"{"status":"DONE"}"#, "400 signal_bad_status"),
        (r#"{"status":"SUCCESS","reson":"x"}"#, "400 signal_unknown_key"),
    ] {
        assert_eq!(stage.signal("t", body).await.code(), expect);
        let signed = stage.ask(Method::PUT, &format!("{WAIT}?{QUERY}"), None, body).await;
        assert_eq!(signed.code(), expect);
    }
    assert_eq!(stage.signal("t", r#"{"unset_hook":"a"}"#).await.code(), "400 signal_is_hook");
    assert_eq!(stage.signal("t", r#"{"deploy_status_code":0}"#).await.status, 200);
}

#[tokio::test]
async fn without_heats_addresses_there_is_no_such_surface() {
    let router = public_router(AppState::for_tests());
    for (method, uri) in
        [(Method::POST, RESOURCE), (Method::PUT, WAIT), (Method::GET, "/api/v1/forwards")]
    {
        let request = Request::builder().method(&method).uri(uri).body(Body::empty()).unwrap();
        let status = router.clone().oneshot(request).await.unwrap().status();
        assert!(matches!(status.as_u16(), 401 | 404), "{method} {uri}: {status}");
    }
    let heat = FakeHeat::start().await;
    let settings = HeatSettings { api_url: None, ..heat.settings() };
    let stage = Stage::set_with(heat, &settings).await;
    stage.keystone.issue("t", Some("q"), 3600);
    assert_eq!(stage.signal("t", "{}").await.code(), "404 heat_not_configured");
}

#[tokio::test]
async fn an_object_in_a_container_named_stacks_stays_one() {
    let stage = Stage::set().await;
    stage.keystone.issue("t", Some("q"), 3600);
    let account = RESOURCE.replace("/q/", "/AUTH_q/");
    for (method, uri, status) in [
        (Method::PUT, "/v1/AUTH_q/stacks", 201),
        (Method::PUT, account.as_str(), 201),
        (Method::GET, account.as_str(), 200),
        (Method::DELETE, account.as_str(), 204),
        (Method::GET, "/v1/AUTH_q/stacks/s", 404),
    ] {
        let answer = stage.ask(method.clone(), uri, Some("t"), "body").await;
        assert_eq!(answer.status, status, "{method} {uri} {}", answer.body);
    }
}

/// Polls as Heat does, with a token from Keystone.
#[tokio::test]
async fn heat_polls_with_the_token_of_whoever_made_the_stack() {
    let stage = Stage::set().await;
    let account = "/v1/AUTH_q";
    let container = "/v1/AUTH_q/c";
    stage.keystone.issue("t", Some("q"), 3600);
    stage.keystone.issue("over", Some("q"), -600);
    stage.keystone.issue("other", Some("x"), 3600);
    for (method, uri, token, status) in [
        (Method::PUT, container, "t", 201),
        (Method::HEAD, account, "t", 204),
        // What carries on may be done with a token that is over.
        (Method::GET, container, "over", 204),
        (Method::HEAD, container, "over", 204),
        (Method::GET, "/v1/AUTH_q/c/o", "over", 404),
        (Method::DELETE, "/v1/AUTH_q/c/o", "over", 404),
        // What begins may not, and neither may what hands out keys.
        (Method::PUT, "/v1/AUTH_q/d", "over", 401),
        (Method::PUT, "/v1/AUTH_q/c/o", "over", 401),
        (Method::HEAD, account, "over", 401),
        (Method::GET, container, "other", 403),
        (Method::GET, container, "made-up", 401),
    ] {
        let answer = stage.ask(method.clone(), uri, Some(token), "").await;
        assert_eq!(answer.status, status, "{method} {uri} {token}: {}", answer.body);
    }

    // Keystone goes: 503 for a moment to those whom nobody knows, then empty listings.
    stage.keystone.set_mood(Mood::Answers(StatusCode::SERVICE_UNAVAILABLE));
    stage.keystone.issue("new", Some("q"), 3600);
    let listing = "/v1/AUTH_q/c?format=json";
    assert_eq!(stage.ask(Method::GET, listing, Some("new"), "").await.status, 503);
    assert_eq!(stage.ask(Method::GET, listing, Some("t"), "").await.status, 200, "known");
    tokio::time::pause();
    tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
    tokio::time::resume();
    let answer = stage.ask(Method::GET, listing, Some("new"), "").await;
    // One caller tries Keystone, and is told so once more at most.
    assert_eq!((answer.status, answer.body.as_str()), (200, "[]"));
    assert_eq!(stage.ask(Method::DELETE, "/v1/AUTH_q/c", Some("new"), "").await.status, 503);
    assert_eq!(stage.ask(Method::GET, listing, Some(""), "").await.status, 200, "nobody can tell");
}

#[tokio::test]
async fn a_keystone_token_opens_the_native_surface() {
    let stage = Stage::set().await;
    stage.keystone.issue("t", Some("q"), 3600);
    stage.keystone.issue("over", Some("q"), -600);
    let created = stage.ask(Method::POST, "/api/v1/handles", Some("t"), "{}").await;
    assert_eq!(created.status, 201);
    let id =
        serde_json::from_str::<Value>(&created.body).unwrap()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/handles/{id}");
    assert_eq!(stage.ask(Method::GET, &path, Some("over"), "").await.status, 200);
    assert_eq!(stage.ask(Method::POST, "/api/v1/handles", Some("over"), "{}").await.status, 401);
    assert!(stage.state.metrics.encode().is_ok());
}
