//! A Keystone for tests: a real server on a socket, whose tokens and moods a test sets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::clock::SystemClock;
use crate::config::Secret;
use crate::keystone::{Keystone, KeystoneSettings};

/// How Keystone behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    /// Every call is answered with this status.
    Answers(StatusCode),
    /// Calls are taken and never answered.
    Hangs,
    /// The relay's own tokens are forgotten, as after a change of keys.
    Forgot,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeKeystone {
    state: Arc<Mutex<FakeState>>,
    port: u16,
}

#[derive(Debug)]
struct FakeState {
    mood: Mood,
    tokens: HashMap<String, (Option<String>, Timestamp)>,
    own_tokens: Vec<String>,
    /// Signatures that are good, with the token and project that they are exchanged for.
    signatures: HashMap<String, (String, String)>,
    /// Tokens and signatures that a question about is answered 500.
    stumbles_over: HashSet<String>,
    calls: BTreeMap<&'static str, usize>,
    exchanges: Vec<Value>,
}

type Shared = Arc<Mutex<FakeState>>;

impl FakeKeystone {
    pub(crate) async fn start() -> FakeKeystone {
        // Whoever was first has installed the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let state = Arc::new(Mutex::new(FakeState {
            mood: Mood::Good,
            tokens: HashMap::new(),
            own_tokens: Vec::new(),
            signatures: HashMap::new(),
            stumbles_over: HashSet::new(),
            calls: BTreeMap::new(),
            exchanges: Vec::new(),
        }));
        let router = Router::new()
            .route("/v3/auth/tokens", post(authenticate).get(validate))
            .route("/v3/ec2tokens", post(exchange))
            .with_state(state.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        FakeKeystone { state, port }
    }

    pub(crate) fn settings(&self) -> KeystoneSettings {
        KeystoneSettings {
            auth_url: format!("http://127.0.0.1:{}", self.port).parse().unwrap(),
            username: "relay".to_owned(),
            password: Secret::new("correct horse".to_owned()),
            project: "service".to_owned(),
            user_domain: "Default".to_owned(),
            project_domain: "Default".to_owned(),
            ca_file: None,
        }
    }

    pub(crate) fn client(&self) -> Keystone {
        Keystone::new(&self.settings(), Arc::new(SystemClock)).unwrap()
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        let mut state = self.state();
        state.mood = mood;
        if mood == Mood::Forgot {
            state.own_tokens.clear();
            state.mood = Mood::Good;
        }
    }

    /// Issues a token that ends in so many seconds, which may be negative.
    pub(crate) fn issue(&self, token: &str, project: Option<&str>, seconds: i64) {
        let expires_at = Timestamp::now() + SignedDuration::from_secs(seconds);
        self.state().tokens.insert(token.to_owned(), (project.map(str::to_owned), expires_at));
    }

    pub(crate) fn revoke(&self, token: &str) {
        self.state().tokens.remove(token);
    }

    /// Makes a signature good.
    pub(crate) fn accept_signature(&self, signature: &str, token: &str, project: &str) {
        self.issue(token, Some(project), 3600);
        let exchanged = (token.to_owned(), project.to_owned());
        self.state().signatures.insert(signature.to_owned(), exchanged);
    }

    /// Fails from now on, or no longer, over whoever asks about this token or signature.
    pub(crate) fn stumble_over(&self, asked: &str, stumbles: bool) {
        let mut state = self.state();
        if stumbles {
            state.stumbles_over.insert(asked.to_owned());
        } else {
            state.stumbles_over.remove(asked);
        }
    }

    /// How often a call was made: `authenticate`, `validate`, `validate_alive` or `exchange`.
    pub(crate) fn n_calls(&self, call: &str) -> usize {
        self.state().calls.get(call).copied().unwrap_or_default()
    }

    /// The bodies of the exchanges.
    pub(crate) fn exchanges(&self) -> Vec<Value> {
        self.state().exchanges.clone()
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }
}

/// Counts the call, and answers in its place if that is the mood.
async fn begin(state: &Shared, call: &'static str) -> Option<Response> {
    let mood = {
        let mut state = state.lock().unwrap();
        *state.calls.entry(call).or_default() += 1;
        state.mood
    };
    match mood {
        Mood::Good | Mood::Forgot => None,
        Mood::Answers(status) => Some(status.into_response()),
        Mood::Hangs => std::future::pending().await,
    }
}

async fn authenticate(State(state): State<Shared>, Json(body): Json<Value>) -> Response {
    if let Some(response) = begin(&state, "authenticate").await {
        return response;
    }
    let user = &body["auth"]["identity"]["password"]["user"];
    let is_ours = user["name"] == "relay"
        && user["password"] == "correct horse"
        && user["domain"]["name"] == "Default"
        && body["auth"]["scope"]["project"]["name"] == "service";
    if !is_ours {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut state = state.lock().unwrap();
    let token = format!("own-{}", state.calls["authenticate"]);
    state.own_tokens.push(token.clone());
    let (now, later) = (Timestamp::now(), Timestamp::now() + SignedDuration::from_hours(1));
    let body =
        json!({"token": {"issued_at": now, "expires_at": later, "project": {"id": "service"}}});
    (StatusCode::CREATED, [("x-subject-token", token)], Json(body)).into_response()
}

fn is_own_token(state: &FakeState, headers: &HeaderMap) -> bool {
    let token = headers.get("x-auth-token").and_then(|token| token.to_str().ok());
    token.is_some_and(|token| state.own_tokens.iter().any(|own| own == token))
}

async fn validate(State(state): State<Shared>, headers: HeaderMap, uri: Uri) -> Response {
    let is_lenient = uri.query().unwrap_or_default().contains("allow_expired=1");
    let call = if is_lenient { "validate" } else { "validate_alive" };
    if let Some(response) = begin(&state, call).await {
        return response;
    }
    let state = state.lock().unwrap();
    if !is_own_token(&state, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let subject = headers["x-subject-token"].to_str().unwrap();
    if state.stumbles_over.contains(subject) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if state.own_tokens.iter().any(|own| own == subject) {
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        return Json(json!({"token": {"expires_at": later}})).into_response();
    }
    match state.tokens.get(subject) {
        Some((project, expires_at)) if is_lenient || *expires_at > Timestamp::now() => {
            let project = project.as_ref().map(|id| json!({"id": id, "name": "n"}));
            let mut token = json!({"expires_at": expires_at, "methods": ["password"], "roles": []});
            if let Some(project) = project {
                token["project"] = project;
            }
            Json(json!({"token": token})).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn exchange(
    State(state): State<Shared>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if let Some(response) = begin(&state, "exchange").await {
        return response;
    }
    let mut state = state.lock().unwrap();
    if !is_own_token(&state, &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let credentials = body["ec2Credentials"].clone();
    state.exchanges.push(credentials.clone());
    let signature = credentials["signature"].as_str().unwrap_or_default();
    if state.stumbles_over.contains(signature) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let Some((token, project)) = state.signatures.get(signature) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    let body = json!({"token": {"expires_at": later, "project": {"id": project, "name": "n"}}});
    ([("x-subject-token", token.clone())], Json(body)).into_response()
}
