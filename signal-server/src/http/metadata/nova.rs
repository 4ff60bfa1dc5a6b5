//! Nova's metadata service behind the gateway: several servers, of which any may be down.
//!
//! A request that is not ours is passed on as it came: method, path and query byte for byte, every
//! header with its case and order, the body; and so is the answer. What is not passed on are the headers
//! that concern one connection only (RFC 9110 §7.6.1), because there are two of them.
//!
//! A server that does not take a connection is left out until it answers again, and the request goes to
//! the next one. A request that was sent is sent again only if it was a question: Nova's one write, the
//! password, must not happen twice.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use serde::Deserialize;
use signal_protocol::handle::HandleId;
use tokio::time::{Instant, interval, timeout};

use crate::error::ApiError;
use crate::http::metadata::identity::InstancePermit;
use crate::instance::{Identity, InstanceId};

/// How long a server may take to take a connection. On a management network that is less than a
/// millisecond; a server that is being restarted refuses at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a server may take to answer. The proxies in front give up after 30 s and 60 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often every server is asked for its list of versions, which costs it nothing.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long an idle connection is kept. Nova's server under uWSGI closes after some 5 s, or at once.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);

/// How many idle connections are kept for each server.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// The largest metadata that is read to learn an instance's project and name, in bytes. Nova's is some
/// kilobytes; SSH keys and a device list may add some more.
const MAX_METADATA_BYTES: usize = 1 << 20;

/// How long it is believed what Nova said of an instance. Nova itself keeps it for 15 s.
const IDENTITY_TTL: Duration = Duration::from_secs(60);

/// Of how many instances it is kept what Nova said: about 300 bytes each.
const MAX_IDENTITIES: usize = 10_000;

/// The key in an instance's metadata that names its handle: `nova boot --meta heliograph_handle=…`.
const HANDLE_KEY: &str = "heliograph_handle";

/// Headers that concern one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The servers.
#[derive(Debug)]
pub(crate) struct Nova {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    servers: Vec<Server>,
    next: AtomicUsize,
    identities: Mutex<HashMap<(InstanceId, String), (Instant, Identity)>>,
}

#[derive(Debug)]
struct Server {
    /// Scheme, host and port.
    url: Uri,
    is_up: AtomicBool,
    gauge: Gauge,
}

/// What Nova says of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Known(Identity),
    /// Nova refuses the instance, or the project that Neutron names for it, with this status.
    Refused(StatusCode),
    /// No server answers.
    Unavailable,
}

/// Why no server has answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NovaError {
    #[error("failed to reach the metadata server")]
    Unreachable { source: ClientError },
    #[error("the metadata server did not answer in time")]
    TimedOut,
}

impl Nova {
    /// At least one server; the gauges tell whether each is up.
    pub(crate) fn new(servers: Vec<(Uri, Gauge)>, tls: ClientConfig) -> Nova {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .http1_preserve_header_case(true)
            .build(connector);
        let server = |(url, gauge): (Uri, Gauge)| {
            gauge.set(1);
            Server { url, is_up: AtomicBool::new(true), gauge }
        };
        Nova {
            client,
            servers: servers.into_iter().map(server).collect(),
            next: AtomicUsize::new(0),
            identities: Mutex::default(),
        }
    }

    /// Asks every server now and then whether it is up. Never returns.
    pub(crate) async fn probe(&self) {
        let mut ticks = interval(PROBE_INTERVAL);
        loop {
            ticks.tick().await;
            for server in &self.servers {
                let request = Request::get("/").body(()).map(Request::into_parts);
                let Ok((parts, _)) = request else { continue };
                let answer =
                    timeout(CONNECT_TIMEOUT, self.ask(server, &parts, &Bytes::new())).await;
                let is_up = matches!(&answer, Ok(Ok(answer)) if !answer.status().is_server_error());
                server.set_up(is_up);
            }
        }
    }

    /// Passes a request on, and the answer back.
    pub(crate) async fn forward(
        &self,
        parts: axum::http::request::Parts,
        body: Bytes,
    ) -> axum::response::Response {
        match self.send(parts, body).await {
            Ok(answer) => {
                let mut answer = answer.map(Body::new);
                strip(answer.headers_mut());
                answer
            }
            Err(error) => {
                let (status, code) = match error {
                    NovaError::Unreachable { .. } => {
                        (StatusCode::SERVICE_UNAVAILABLE, "nova_unreachable")
                    }
                    NovaError::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "nova_timed_out"),
                };
                let message = "Nova's metadata service does not answer";
                ApiError::new(status, code, message).caused_by(&error).into_response()
            }
        }
    }

    async fn send(
        &self,
        mut parts: axum::http::request::Parts,
        body: Bytes,
    ) -> Result<Response<Incoming>, NovaError> {
        strip(&mut parts.headers);
        let is_question = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let mut failure = NovaError::TimedOut;
        for server in self.in_order() {
            let asking = self.ask(server, &parts, &body);
            match timeout(ANSWER_TIMEOUT, asking).await {
                Ok(Ok(answer)) => {
                    server.set_up(true);
                    return Ok(answer);
                }
                Ok(Err(source)) => {
                    server.set_up(false);
                    let was_not_sent = source.is_connect();
                    failure = NovaError::Unreachable { source };
                    if !was_not_sent && !is_question {
                        return Err(failure);
                    }
                }
                Err(_) => return Err(NovaError::TimedOut),
            }
        }
        Err(failure)
    }

    async fn ask(
        &self,
        server: &Server,
        parts: &axum::http::request::Parts,
        body: &Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = server.address(&parts.uri);
        *request.headers_mut() = parts.headers.clone();
        // Holds the case of the headers.
        *request.extensions_mut() = parts.extensions.clone();
        self.client.request(request).await
    }

    /// Every server: those that are up in turns, then the others, for nothing is lost by trying.
    fn in_order(&self) -> Vec<&Server> {
        let n = self.servers.len().max(1);
        let first = self.next.fetch_add(1, Ordering::Relaxed) % n;
        let mut servers: Vec<&Server> =
            self.servers.iter().cycle().skip(first).take(self.servers.len()).collect();
        // A stable sort: the turns stay.
        servers.sort_by_key(|server| !server.is_up.load(Ordering::Relaxed));
        servers
    }

    /// What Nova says of the instance, asked with the headers that came with the request. So Nova
    /// checks signature and project itself.
    pub(crate) async fn identify(&self, permit: &InstancePermit) -> Asked {
        let key = (permit.instance(), permit.project().to_owned());
        if let Some((at, identity)) = self.identities().get(&key)
            && at.elapsed() < IDENTITY_TTL
        {
            return Asked::Known(identity.clone());
        }
        let asked = self.ask_about(permit).await;
        if let Asked::Known(identity) = &asked {
            let mut identities = self.identities();
            if identities.len() >= MAX_IDENTITIES {
                identities.retain(|_, (at, _)| at.elapsed() < IDENTITY_TTL);
            }
            if identities.len() < MAX_IDENTITIES {
                identities.insert(key, (Instant::now(), identity.clone()));
            }
        }
        asked
    }

    async fn ask_about(&self, permit: &InstancePermit) -> Asked {
        let Ok(request) = Request::get("/openstack/latest/meta_data.json").body(()) else {
            return Asked::Unavailable;
        };
        let (mut parts, ()) = request.into_parts();
        parts.headers = permit.headers().clone();
        let Ok(answer) = self.send(parts, Bytes::new()).await else {
            return Asked::Unavailable;
        };
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_client_error() => return Asked::Refused(status),
            _ => return Asked::Unavailable,
        }
        let body = Limited::new(answer.into_body(), MAX_METADATA_BYTES);
        let Ok(Ok(body)) = timeout(ANSWER_TIMEOUT, body.collect()).await else {
            return Asked::Unavailable;
        };
        match serde_json::from_slice::<Metadata>(&body.to_bytes()) {
            Ok(metadata) => Asked::Known(metadata.into_identity(permit.project())),
            Err(_) => Asked::Unavailable,
        }
    }

    fn identities(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<(InstanceId, String), (Instant, Identity)>> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn address(&self, uri: &Uri) -> Uri {
        let mut parts = axum::http::uri::Parts::default();
        parts.scheme = self.url.scheme().cloned();
        parts.authority = self.url.authority().cloned();
        let root = PathAndQuery::from_static("/");
        parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or(root));
        Uri::from_parts(parts).unwrap_or_default()
    }

    fn set_up(&self, is_up: bool) {
        let was_up = self.is_up.swap(is_up, Ordering::Relaxed);
        self.gauge.set(i64::from(is_up));
        match (was_up, is_up) {
            (true, false) => tracing::warn!(server = %self.url, "a metadata server is down"),
            (false, true) => tracing::info!(server = %self.url, "a metadata server is up"),
            _ => {}
        }
    }
}

/// Of Nova's `meta_data.json`, what concerns the relay.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    project_id: Option<String>,
    #[serde(default)]
    meta: HashMap<String, String>,
}

impl Metadata {
    fn into_identity(self, named_project: &str) -> Identity {
        Identity {
            project: self.project_id.unwrap_or_else(|| named_project.to_owned()),
            name: self.name,
            handle: self.meta.get(HANDLE_KEY).and_then(|text| HandleId::parse(text.trim()).ok()),
        }
    }
}

/// Removes what concerns one connection only, also what its `Connection` header names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}
