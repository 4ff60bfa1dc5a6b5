//! A heat-api and a heat-api-cfn for tests, on one socket: what they were sent, and what they answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::forward::upstream::HeatSettings;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path_and_query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct FakeHeat {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Debug)]
struct Shared {
    received: Mutex<Vec<Received>>,
    /// The next answers; 200 when there are none.
    answers: Mutex<VecDeque<(StatusCode, Value)>>,
    n_received: watch::Sender<usize>,
}

impl FakeHeat {
    pub(crate) async fn start() -> FakeHeat {
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            answers: Mutex::default(),
            n_received: watch::Sender::new(0),
        });
        let router = Router::new().fallback(take).with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        FakeHeat { shared, port }
    }

    pub(crate) fn settings(&self) -> HeatSettings {
        let url = format!("http://127.0.0.1:{}", self.port);
        HeatSettings {
            api_url: Some(format!("{url}/heat-api").parse().unwrap()),
            cfn_url: Some(url.parse().unwrap()),
            ca_file: None,
        }
    }

    /// Answers the next requests so, in this order.
    pub(crate) fn answer(&self, statuses: &[u16]) {
        let answers = statuses.iter().map(|status| {
            let body = json!({"error": {"type": "FakeError", "message": "secret of a user"}});
            (StatusCode::from_u16(*status).unwrap(), body)
        });
        lock(&self.shared.answers).extend(answers);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn wait_for(&self, n_requests: usize) {
        let mut n_received = self.shared.n_received.subscribe();
        n_received.wait_for(|n_received| *n_received >= n_requests).await.unwrap();
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    lock(&shared.received).push(Received {
        method: parts.method.to_string(),
        path_and_query: parts.uri.path_and_query().unwrap().to_string(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    shared.n_received.send_modify(|n_received| *n_received += 1);
    match lock(&shared.answers).pop_front() {
        Some((status, body)) => (status, axum::Json(body)).into_response(),
        None => (StatusCode::OK, "null").into_response(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
