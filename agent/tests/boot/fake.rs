//! An engine and a handle that fail on demand.
//!
//! Both are real servers: the engine on a unix socket, the handle on port 0. What a real engine
//! does by itself is tested with a real engine; this one is for what it will not do when asked.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

/// What the engine has, and what it will do.
#[derive(Default)]
pub(crate) struct EngineState {
    pub(crate) images: Vec<String>,
    pub(crate) containers: BTreeMap<String, Container>,
    /// One per pull: the pieces of the stream; an empty last piece cuts the connection.
    pub(crate) pulls: VecDeque<Vec<&'static str>>,
    /// The states that a new container goes through, one per inspection; the last one stays.
    pub(crate) states: Vec<Value>,
    /// What a container has written.
    pub(crate) log: &'static str,
    /// Statuses for the next answers to anything; 0 is a normal answer.
    pub(crate) broken: VecDeque<u16>,
    pub(crate) calls: Vec<String>,
    pub(crate) n_created: usize,
}

#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) labels: Value,
    pub(crate) states: VecDeque<Value>,
    pub(crate) is_started: bool,
}

type Shared = Arc<Mutex<EngineState>>;

pub(crate) struct Engine {
    state: Shared,
    task: JoinHandle<()>,
}

impl Engine {
    pub(crate) async fn start(directory: &Path, state: EngineState) -> Engine {
        let socket = directory.join("engine.sock");
        let state = Arc::new(Mutex::new(state));
        let listener = UnixListener::bind(&socket).unwrap();
        let router = Router::new()
            .route("/_ping", get(|| async { ([("api-version", "1.44")], "OK") }))
            .route("/version", get(version))
            .route("/v1.41/images/{name}/json", get(image))
            .route("/v1.41/images/create", post(pull))
            .route("/v1.41/containers/create", post(create))
            .route("/v1.41/containers/json", get(list))
            .route("/v1.41/containers/{id}", axum::routing::delete(remove))
            .route("/v1.41/containers/{id}/json", get(inspect))
            .route("/v1.41/containers/{id}/start", post(start))
            .route("/v1.41/containers/{id}/stop", post(|| async { StatusCode::NO_CONTENT }))
            .route("/v1.41/containers/{id}/logs", get(logs))
            .route("/v1.41/networks", get(|| async { Json(json!([])) }))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), misbehave))
            .with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Engine { state, task }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, EngineState> {
        self.state.lock().unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn running() -> Value {
    json!({"Status": "running", "Running": true, "StartedAt": "2026-11-21T09:00:00.0Z"})
}

pub(crate) fn exited(exit_code: i64, oom_killed: bool) -> Value {
    json!({"Status": "exited", "ExitCode": exit_code, "OOMKilled": oom_killed,
        "StartedAt": "2026-11-21T09:00:00.0Z"})
}

async fn misbehave(
    State(state): State<Shared>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    let call = format!("{} {}", request.method(), request.uri().path());
    let broken = {
        let mut state = state.lock().unwrap();
        state.calls.push(call);
        state.broken.pop_front().unwrap_or(0)
    };
    match broken {
        0 => next.run(request).await,
        // The connection ends in the middle of an answer.
        1 => Response::builder()
            .header("content-length", "100")
            .body(Body::from_stream(cut(vec!["{"])))
            .unwrap(),
        status => error(status, "the engine is not well"),
    }
}

async fn version() -> Json<Value> {
    Json(json!({"ApiVersion": "1.44", "MinAPIVersion": "1.24"}))
}

async fn image(State(state): State<Shared>, UrlPath(name): UrlPath<String>) -> Response {
    let is_there = state.lock().unwrap().images.contains(&name);
    if !is_there {
        return error(404, "no such image");
    }
    Json(json!({"Id": "sha256:1", "RepoDigests": ["x@sha256:2"]})).into_response()
}

async fn pull(
    State(state): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let mut state = state.lock().unwrap();
    let Some(mut pieces) = state.pulls.pop_front() else {
        return error(404, "manifest unknown");
    };
    if pieces.last() == Some(&"") {
        pieces.pop();
        return Response::new(Body::from_stream(cut(pieces)));
    }
    if !pieces.concat().contains("error") {
        state.images.push(format!("{}:{}", query["fromImage"], query["tag"]));
    }
    Response::new(Body::from(pieces.concat()))
}

fn cut(
    pieces: Vec<&'static str>,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    let broken = Err(std::io::ErrorKind::ConnectionReset.into());
    let pieces = pieces.into_iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
    futures_util::stream::iter(pieces.chain([broken]))
}

async fn create(
    State(state): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
    Json(body): Json<Value>,
) -> Response {
    let mut state = state.lock().unwrap();
    let name = query["name"].clone();
    if state.containers.values().any(|container| container.name == name) {
        return error(409, "Conflict. The container name is already in use by container \"x\"");
    }
    state.n_created += 1;
    let id = format!("id-{}", state.n_created);
    let states = state.states.clone().into();
    let labels = body["Labels"].clone();
    state.containers.insert(id.clone(), Container { name, labels, states, is_started: false });
    (StatusCode::CREATED, Json(json!({ "Id": id }))).into_response()
}

async fn list(State(state): State<Shared>) -> Json<Value> {
    let state = state.lock().unwrap();
    let rows = state.containers.iter().map(|(id, container)| {
        json!({"Id": id, "Names": [format!("/{}", container.name)], "Labels": container.labels})
    });
    Json(rows.collect())
}

async fn start(State(state): State<Shared>, UrlPath(id): UrlPath<String>) -> Response {
    match state.lock().unwrap().containers.get_mut(&id) {
        None => error(404, "no such container"),
        Some(container) => {
            container.is_started = true;
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

async fn inspect(State(state): State<Shared>, UrlPath(id): UrlPath<String>) -> Response {
    let mut state = state.lock().unwrap();
    let mut containers = state.containers.iter_mut();
    let Some((id, container)) = containers.find(|(key, one)| **key == id || one.name == id) else {
        return error(404, "no such container");
    };
    let current = match container.states.len() {
        _ if !container.is_started => json!({"Status": "created"}),
        0 => running(),
        1 => container.states[0].clone(),
        _ => container.states.pop_front().unwrap(),
    };
    Json(json!({
        "Id": id, "Name": format!("/{}", container.name), "State": current, "RestartCount": 0,
        "Config": {"Labels": container.labels, "Env": ["PASSWORD=hunter2"]},
        "HostConfig": {"Memory": 0},
        "NetworkSettings": {"IPAddress": "10.9.0.2", "Ports": {}},
    }))
    .into_response()
}

async fn logs(State(state): State<Shared>) -> Vec<u8> {
    let log = state.lock().unwrap().log;
    let mut stream = Vec::new();
    for line in log.lines() {
        let line = format!("{line}\n");
        stream.extend([1, 0, 0, 0]);
        stream.extend(u32::try_from(line.len()).unwrap().to_be_bytes());
        stream.extend(line.as_bytes());
    }
    stream
}

async fn remove(State(state): State<Shared>, UrlPath(id): UrlPath<String>) -> StatusCode {
    state.lock().unwrap().containers.remove(&id);
    StatusCode::NO_CONTENT
}

fn error(status: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, Json(json!({ "message": message }))).into_response()
}

/// A server that takes signals, or does not.
pub(crate) struct Handle {
    pub(crate) url: String,
    state: Arc<Mutex<HandleState>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct HandleState {
    requests: Vec<Request>,
    statuses: VecDeque<u16>,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) status: u16,
}

impl Handle {
    /// Answers with these statuses, then with 201.
    pub(crate) async fn start(statuses: &[u16]) -> Handle {
        let statuses = statuses.iter().copied().collect();
        let state = Arc::new(Mutex::new(HandleState { requests: Vec::new(), statuses }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(take).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let url = format!("http://{address}/v1/AUTH_p/stack/handle?temp_url_sig=s3cret");
        Handle { url, state, task }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The bodies that were acknowledged.
    pub(crate) fn signals(&self) -> Vec<Value> {
        let requests = self.requests().into_iter();
        requests.filter(|request| request.status < 300).map(|request| request.body).collect()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(
    State(state): State<Arc<Mutex<HandleState>>>,
    method: axum::http::Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut state = state.lock().unwrap();
    let status = state.statuses.pop_front().unwrap_or(201);
    state.requests.push(Request {
        line: format!("{method} {uri}"),
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        status,
    });
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("x-subject-token", "a-token")], "{}").into_response()
}
