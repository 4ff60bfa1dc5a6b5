mod sharing;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::ManualClock;
use crate::config::Secret;
use crate::forward::fake::FakeHeat;
use crate::forward::record::SignedRequest;
use crate::keystone::fake::{FakeKeystone, Mood};
use crate::metrics::Metrics;
use crate::store::memory::MemoryStore;

const SIGNED: &str =
    "/v1/waitcondition/arn%3Aopenstack%3Aheat%3A%3Ap%3Astacks/s/i/resources/r?Signature=s%2Bg%3D";

/// A forwarder between a fake Keystone and a fake Heat, over a store that outlives it.
struct Stage {
    heat: FakeHeat,
    keystone: FakeKeystone,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    forwarder: Forwarder,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

fn target(resource: &str) -> Target {
    Target { stack_name: "s".to_owned(), stack_id: "i".to_owned(), resource: resource.to_owned() }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

impl Stage {
    async fn set() -> Stage {
        let heat = FakeHeat::start().await;
        let settings = heat.settings();
        Stage::set_with(heat, &settings).await
    }

    async fn set_with(heat: FakeHeat, settings: &HeatSettings) -> Stage {
        let keystone = FakeKeystone::start().await;
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(ManualClock::new(Timestamp::now()));
        let metrics = Arc::new(Metrics::new());
        let forwarder = forwarder(settings, &keystone, &store, &clock, &metrics);
        Stage { heat, keystone, store, clock, metrics, forwarder, running: None }
    }

    fn run(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let running = self.forwarder.clone().run(async move { drop(stopped.await) });
        self.running = Some((stop, tokio::spawn(running)));
    }

    /// Ends this relay, and begins the next one on the same store.
    async fn restart(&mut self) {
        let settings = self.heat.settings();
        if let Some((_stop, running)) = self.running.take() {
            running.abort();
            let _aborted = running.await;
        }
        self.forwarder =
            forwarder(&settings, &self.keystone, &self.store, &self.clock, &self.metrics);
        self.run();
    }

    async fn accept(&self, resource: &str, body: &str) -> ForwardId {
        let route = Route::Heat { project: "q".to_owned(), token: secret("t").into() };
        self.accept_route(resource, body, route).await
    }

    async fn accept_signed(&self) -> ForwardId {
        self.accept_signed_with("{}").await
    }

    async fn accept_signed_with(&self, body: &str) -> ForwardId {
        let signed = SignedRequest {
            method: "PUT".to_owned(),
            host: "relay.example.com:8090".to_owned(),
            path_and_query: secret(SIGNED).into(),
        };
        let token = secret("exchanged").into();
        self.accept_route("r", body, Route::Cfn { signed, project: "q".to_owned(), token }).await
    }

    async fn accept_route(&self, resource: &str, body: &str, route: Route) -> ForwardId {
        self.accept_of("q", resource, body, route).await.unwrap()
    }

    async fn accept_of(
        &self,
        project: &str,
        resource: &str,
        body: &str,
        route: Route,
    ) -> Result<ForwardId, ForwardError> {
        let id = self.forwarder.new_id();
        let new = NewForward {
            id,
            account: AccountName::of_project(project).unwrap(),
            target: target(resource),
            route,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        self.forwarder.accept(new).await.map(|()| id)
    }

    async fn view(&self, id: ForwardId) -> ForwardView {
        self.forwarder.view(&account("AUTH_q"), id).await.unwrap()
    }

    /// Waits until the signal has ended, and says how.
    async fn end(&self, id: ForwardId) -> ForwardView {
        loop {
            let view = self.view(id).await;
            if view.state != ForwardState::Pending {
                return view;
            }
            pass_some_time().await;
        }
    }

    /// Waits until an attempt has failed, and says how.
    async fn failure(&self, id: ForwardId) -> String {
        loop {
            if let Some(reason) = self.view(id).await.reason {
                return reason;
            }
            pass_some_time().await;
        }
    }
}

/// Lets pauses between attempts end at once, and the tasks do something.
async fn pass_some_time() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(50)).await;
    tokio::time::resume();
    tokio::task::yield_now().await;
}

fn forwarder(
    settings: &HeatSettings,
    keystone: &FakeKeystone,
    store: &Arc<MemoryStore>,
    clock: &Arc<ManualClock>,
    metrics: &Metrics,
) -> Forwarder {
    let (store, clock) = (store.clone(), clock.clone());
    let operator = account("AUTH_operator");
    let metrics = metrics.forwards.clone();
    Forwarder::new(settings, keystone.client(), store, clock, operator, metrics).unwrap()
}

#[tokio::test]
async fn a_signal_reaches_heat_and_leaves_no_secret() {
    let mut stage = Stage::set().await;
    let id = stage.accept("r", r#"{"id":"1"}"#).await;
    assert_eq!(stage.view(id).await.state, ForwardState::Pending);
    stage.run();
    let view = stage.end(id).await;
    assert_eq!(view.state, ForwardState::Delivered);
    assert_eq!(view.reason.as_deref(), Some("heat-api answered 200"));
    assert_eq!(view.n_attempts, 1);

    let received = &stage.heat.received()[0];
    assert_eq!(received.method, "POST");
    assert_eq!(received.path_and_query, "/heat-api/v1/q/stacks/s/i/resources/r/signal");
    assert_eq!(received.header("x-auth-token"), Some("t"));
    assert_eq!(received.header("x-service-token"), Some("own-1"));
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert_eq!(received.body, r#"{"id":"1"}"#);
    // The outcome, and one entry in each of two lists.
    assert_eq!(stage.store.len(), 3);
}

#[tokio::test]
async fn heat_being_away_delays_a_signal() {
    let mut stage = Stage::set().await;
    stage.heat.answer(&[503, 502, 500, 429]);
    let id = stage.accept("r", "{}").await;
    stage.run();
    let view = stage.end(id).await;
    assert_eq!((view.state, view.n_attempts), (ForwardState::Delivered, 5));
    assert_eq!(stage.heat.received().len(), 5);
}

#[tokio::test]
async fn a_heat_that_cannot_be_reached_is_tried_again() {
    let heat = FakeHeat::start().await;
    let settings =
        HeatSettings { api_url: Some("http://127.0.0.1:1".parse().unwrap()), ..heat.settings() };
    let mut stage = Stage::set_with(heat, &settings).await;
    let id = stage.accept("r", "{}").await;
    stage.run();
    assert_eq!(stage.failure(id).await, "heat-api cannot be reached");
    stage.restart().await;
    assert_eq!(stage.end(id).await.state, ForwardState::Delivered);
}

#[tokio::test]
async fn heats_refusal_is_the_end() {
    for status in [400, 403, 404] {
        let mut stage = Stage::set().await;
        stage.heat.answer(&[status]);
        let id = stage.accept("r", "{}").await;
        stage.run();
        let view = stage.end(id).await;
        assert_eq!(view.state, ForwardState::Refused);
        let reason = format!("heat-api answered {status} FakeError");
        assert_eq!(view.reason.as_deref(), Some(reason.as_str()), "and not its message");
        assert_eq!(stage.heat.received().len(), 1);
    }
}

#[tokio::test]
async fn a_token_that_heat_refuses_is_tried_once_more_with_a_new_one_of_the_relays() {
    let mut stage = Stage::set().await;
    stage.heat.answer(&[401]);
    let id = stage.accept("r", "{}").await;
    stage.run();
    assert_eq!(stage.end(id).await.state, ForwardState::Delivered);
    let tokens: Vec<_> = stage
        .heat
        .received()
        .iter()
        .map(|seen| seen.header("x-service-token").map(str::to_owned))
        .collect();
    assert_eq!(tokens, [Some("own-1".to_owned()), Some("own-2".to_owned())]);

    stage.heat.answer(&[401, 401]);
    let id = stage.accept("r", "{}").await;
    assert_eq!(stage.end(id).await.state, ForwardState::Refused);
}

#[tokio::test]
async fn keystone_being_away_delays_a_signal() {
    let mut stage = Stage::set().await;
    stage.keystone.set_mood(Mood::Answers(axum::http::StatusCode::SERVICE_UNAVAILABLE));
    let id = stage.accept("r", "{}").await;
    stage.run();
    assert_eq!(stage.failure(id).await, "keystone is away");
    stage.keystone.set_mood(Mood::Good);
    assert_eq!(stage.end(id).await.state, ForwardState::Delivered);
    assert_eq!(stage.heat.received().len(), 1);
}

#[tokio::test]
async fn what_waits_survives_a_restart() {
    let mut stage = Stage::set().await;
    stage.heat.answer(&[503; 3]);
    stage.run();
    let mut ids = Vec::new();
    for number in 1..=3 {
        ids.push(stage.accept("r", &format!(r#"{{"id":"{number}"}}"#)).await);
    }
    stage.failure(ids[0]).await;
    stage.restart().await;
    for id in &ids {
        assert_eq!(stage.end(*id).await.state, ForwardState::Delivered);
    }
    let bodies: Vec<String> = stage
        .heat
        .received()
        .into_iter()
        .map(|seen| seen.body)
        .skip_while(|body| body == r#"{"id":"1"}"#)
        .collect();
    assert_eq!(bodies, [r#"{"id":"2"}"#, r#"{"id":"3"}"#], "in order");
}

#[tokio::test]
async fn a_relay_killed_before_it_noted_the_delivery_sends_the_same_again() {
    let mut stage = Stage::set().await;
    let id = stage.accept("r", r#"{"id":"1"}"#).await;
    // What is on disk at the moment of the kill.
    let entry_key = id.key(KeyKind::Forward);
    let entry = stage.store.get(&entry_key).await.unwrap().unwrap();
    stage.run();
    stage.end(id).await;
    let mut batch = Batch::new();
    batch.put(entry_key, entry);
    batch.put(id.key(KeyKind::ForwardBody), Bytes::from_static(br#"{"id":"1"}"#));
    batch.delete(id.key(KeyKind::ForwardOutcome));
    stage.store.commit(batch).await.unwrap();
    stage.restart().await;
    assert_eq!(stage.end(id).await.state, ForwardState::Delivered);
    let received = stage.heat.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].body, received[1].body, "the same id: heat counts one");
}

/// Two relays may send for a moment; entry and body go together, but are read one after the other.
#[tokio::test]
async fn a_signal_that_another_relay_finished_between_two_reads_is_not_sent() {
    let mut stage = Stage::set().await;
    let finished = stage.accept("r", r#"{"id":"1"}"#).await;
    let mut batch = Batch::new();
    batch.delete(finished.key(KeyKind::ForwardBody));
    stage.store.commit(batch).await.unwrap();
    let next = stage.accept("r", r#"{"id":"2"}"#).await;
    stage.run();
    assert_eq!(stage.end(next).await.state, ForwardState::Delivered);
    let bodies: Vec<String> = stage.heat.received().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [r#"{"id":"2"}"#]);
}

#[tokio::test]
async fn a_signal_that_nobody_can_wait_for_expires() {
    let mut stage = Stage::set().await;
    stage.heat.answer(&[503]);
    let id = stage.accept("r", "{}").await;
    stage.run();
    stage.failure(id).await;
    stage.clock.advance(LIFETIME);
    let view = stage.end(id).await;
    assert_eq!(view.state, ForwardState::Expired);
    assert_eq!(view.reason.as_deref(), Some("heat-api answered 503 FakeError"));
    assert_eq!(stage.heat.received().len(), 1);
}

#[tokio::test]
async fn a_signed_request_is_repeated_as_it_was() {
    let mut stage = Stage::set().await;
    let id = stage.accept_signed().await;
    stage.run();
    let view = stage.end(id).await;
    assert_eq!(view.state, ForwardState::Delivered);
    assert_eq!(view.reason.as_deref(), Some("heat-api-cfn answered 200"));
    let received = &stage.heat.received()[0];
    assert_eq!((received.method.as_str(), received.path_and_query.as_str()), ("PUT", SIGNED));
    assert_eq!(received.header("host"), Some("relay.example.com:8090"));
    assert_eq!(received.header("x-auth-token"), None);
}

#[tokio::test]
async fn a_cfn_that_refuses_a_verified_signature_is_gone_round() {
    let mut stage = Stage::set().await;
    stage.heat.answer(&[403]);
    let id = stage.accept_signed().await;
    stage.run();
    let view = stage.end(id).await;
    assert_eq!(view.state, ForwardState::Delivered);
    assert_eq!(view.reason.as_deref(), Some("heat-api answered 200"));
    let received = stage.heat.received();
    assert_eq!(received[1].path_and_query, "/heat-api/v1/q/stacks/s/i/resources/r/signal");
    assert_eq!(received[1].header("x-auth-token"), Some("exchanged"));
    assert_eq!(received[1].body, "{}");
}

#[tokio::test]
async fn what_goes_round_goes_in_both_spellings() {
    let (heat, cfn) = (
        r#"{"status":"SUCCESS","id":"1"}"#,
        r#"{"Status":"SUCCESS","Reason":"","UniqueId":"1","Data":null}"#,
    );
    let mut stage = Stage::set().await;
    // The second spelling is not taken at first: both are sent again.
    stage.heat.answer(&[403, 200, 503, 403]);
    let id = stage.accept_signed_with(heat).await;
    stage.run();
    assert_eq!(stage.end(id).await.state, ForwardState::Delivered);
    let bodies: Vec<String> =
        stage.heat.received().into_iter().map(|received| received.body).collect();
    assert_eq!(bodies, [heat, heat, cfn, heat, heat, cfn]);
}

#[tokio::test]
async fn without_one_of_the_two_services_the_other_is_used() {
    let heat = FakeHeat::start().await;
    let settings = HeatSettings { cfn_url: None, ..heat.settings() };
    let mut stage = Stage::set_with(heat, &settings).await;
    let id = stage.accept_signed().await;
    stage.run();
    assert_eq!(stage.end(id).await.reason.as_deref(), Some("heat-api answered 200"));

    let heat = FakeHeat::start().await;
    heat.answer(&[403]);
    let settings = HeatSettings { api_url: None, ..heat.settings() };
    let mut stage = Stage::set_with(heat, &settings).await;
    let id = stage.accept_signed().await;
    stage.run();
    let view = stage.end(id).await;
    assert_eq!(view.state, ForwardState::Refused);
    assert_eq!(view.reason.as_deref(), Some("heat-api-cfn answered 403 FakeError"));
}

#[tokio::test]
async fn accounts_see_their_own_and_the_operator_sees_all() {
    let stage = Stage::set().await;
    let first = stage.accept("a", "{}").await;
    let second = stage.accept("b", "{}").await;
    for (name, expect) in [
        ("AUTH_q", vec![first, second]),
        ("AUTH_operator", vec![first, second]),
        ("AUTH_x", vec![]),
    ] {
        let list = stage.forwarder.list(&account(name), None, MAX_PAGE).await.unwrap();
        let ids: Vec<ForwardId> = list.into_iter().map(|view| view.id).collect();
        assert_eq!(ids, expect, "{name}");
    }
    let rest = stage.forwarder.list(&account("AUTH_q"), Some(first), 10).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert!(stage.forwarder.view(&account("AUTH_operator"), first).await.is_ok());
    let other = stage.forwarder.view(&account("AUTH_x"), first).await;
    assert!(matches!(other, Err(ForwardError::NotFound)));
}

#[tokio::test]
async fn a_flood_of_one_project_holds_up_no_other() {
    let mut stage = Stage::set().await;
    let route =
        |project: &str| Route::Heat { project: project.to_owned(), token: secret("t").into() };
    // As large as they may be, so that there is no more room after few.
    let body = format!(r#"{{"data":"{}"}}"#, "x".repeat(1_000_000));
    let mut n_taken = 0;
    let refused = loop {
        match stage.accept_of("q", &format!("r{n_taken:02}"), &body, route("q")).await {
            Ok(_) => n_taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, ForwardError::Queue { .. }));
    assert_eq!(n_taken, 67);
    let id = stage.accept_of("x", "r00", "{}", route("x")).await.unwrap();
    stage.run();
    loop {
        let view = stage.forwarder.view(&account("AUTH_x"), id).await.unwrap();
        if view.state == ForwardState::Delivered {
            break;
        }
        pass_some_time().await;
    }
    let own = "/heat-api/v1/x/stacks/s/i/resources/r00/signal";
    let received = stage.heat.received();
    let place = received.iter().position(|seen| seen.path_and_query == own).unwrap();
    assert!(place < n_taken / 2, "in front of most of the flood, and not the {place}th");
}

#[tokio::test]
async fn outcomes_are_forgotten_after_their_time() {
    let mut stage = Stage::set().await;
    let id = stage.accept("r", "{}").await;
    stage.run();
    stage.end(id).await;
    stage.clock.advance(RETENTION);
    stage.restart().await;
    while !stage.store.is_empty() {
        pass_some_time().await;
    }
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way() {
    let mut stage = Stage::set().await;
    stage.run();
    let id = stage.accept("r", "{}").await;
    stage.heat.wait_for(1).await;
    let (stop, running) = stage.running.take().unwrap();
    stop.send(()).unwrap();
    running.await.unwrap();
    assert_eq!(stage.view(id).await.state, ForwardState::Delivered);
}

/// As one that is removed between the read of the list and its own.
#[tokio::test]
async fn a_page_is_full_although_a_signal_of_it_is_gone() {
    let stage = Stage::set().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(stage.accept("r", "{}").await);
    }
    let mut batch = Batch::new();
    batch.delete(ids[1].key(KeyKind::Forward));
    stage.store.commit(batch).await.unwrap();
    for (marker, expect) in [(None, &[ids[0], ids[2]][..]), (Some(ids[2]), &[ids[3]])] {
        let page = stage.forwarder.list(&account("AUTH_q"), marker, 2).await.unwrap();
        assert_eq!(page.iter().map(|view| view.id).collect::<Vec<_>>(), expect);
    }
}

#[tokio::test]
async fn metrics_tell_how_it_goes() {
    let mut stage = Stage::set().await;
    stage.heat.answer(&[503, 200, 404]);
    stage.run();
    for _ in 0..2 {
        let id = stage.accept("r", "{}").await;
        stage.end(id).await;
    }
    let page = stage.metrics.encode().unwrap();
    for line in [
        "heliograph_forwards_accepted_total 2",
        "heliograph_forwards_ended_total{end=\"delivered\"} 1",
        "heliograph_forwards_ended_total{end=\"refused\"} 1",
        "heliograph_forwards_pending 0",
        "heliograph_forwards_failed_attempts_total 1",
    ] {
        assert!(page.lines().any(|present| present == line), "{line}\n{page}");
    }
}
