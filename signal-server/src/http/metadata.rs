//! The metadata surface: where user data arrives, signals leave.
//!
//! Neutron gives every instance, also in a network without any route, the address 169.254.169.254, and
//! passes what is asked there on to Nova's metadata service, with the instance's id in a signed header.
//! The relay stands in front of Nova and answers three kinds of request itself:
//!
//! | path | |
//! |---|---|
//! | `/heliograph/v1/hello` | says that a relay is here |
//! | `/heliograph/v1/f/…` | [frames](signal_protocol::frame), which together are [messages](signal_protocol::message) |
//! | `/v1/AUTH_…`, `/v1/waitcondition/…`, `/v1/signal/…`, `/api/v1/handles/…/signals` | signed URLs of the other surfaces, whose host an instance cannot reach |
//!
//! Everything else goes to [`nova`] byte for byte, and needs nothing of the relay but this process: not
//! its store, not its clock. The permit is the [`identity`] that Neutron has signed. It proves which
//! instance speaks, so a signal needs no URL and no key, and the instance's record is found by its id.
//!
//! Nova answers 200 to a `POST` on most of its paths, so an agent must look for the receipt and not at
//! the status; without a relay in between, `/heliograph/…` is a 404.

mod answer;
mod frames;
mod identity;
pub(crate) mod listener;
mod messages;
mod nova;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::HOST;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use rustls::ClientConfig;
use sha2::{Digest as _, Sha256};
use signal_protocol::frame::{
    FRAME_PREFIX, Frame, FrameError, MAX_FRAME_DATA_BYTES, METADATA_PREFIX, Receipt,
};
use signal_protocol::message::Message;
use signal_protocol::signal::Signal;
use tokio::time::timeout;

use crate::app::AppState;
use crate::config::Secret;
use crate::error::{ApiError, chain};
use crate::http::edge::{Edge, EdgeLimits};
use crate::http::metadata::answer::{refusal, retry};
use crate::http::metadata::frames::{Added, Waiting};
use crate::http::metadata::identity::{InstancePermit, Refusal, Secrets};
use crate::http::metadata::messages::Refused;
use crate::http::metadata::nova::{Asked, Nova};
use crate::instance::{Identity, Instances};
use crate::metrics::{CodeLabels, ServerLabels, StatusLabels, Surface};
use crate::tls::Tls;

/// The largest body of a request, in bytes. Nova reads 1,020 of one, for a password, and of no other.
const MAX_BODY_BYTES: usize = 2 << 20;

/// How long a body may take to arrive from Neutron's agent, which sends it at once.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The host of a URL that Heat has made for instances to use as it is
/// (`heat_waitcondition_server_url = http://169.254.169.254/v1/waitcondition`).
const LINK_LOCAL_HOST: &str = "169.254.169.254";

/// What the gateway is built from.
#[derive(Debug)]
pub(crate) struct GatewaySettings {
    /// Nova's metadata servers, at least one.
    pub(crate) servers: Vec<Uri>,
    /// How servers with `https` are spoken to.
    pub(crate) nova_tls: ClientConfig,
    /// What Neutron signs with: at least one, none empty.
    pub(crate) secrets: Vec<Secret>,
    pub(crate) limits: EdgeLimits,
    /// What Neutron's agents find on the listener; plain HTTP without it.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// The gateway in front of Nova.
#[derive(Debug)]
pub(crate) struct Gateway {
    secrets: Secrets,
    nova: Nova,
    waiting: Waiting,
    instances: Instances,
    app: AppState,
    edge: Arc<Edge>,
    tls: Option<Arc<Tls>>,
    /// The surfaces that signed URLs are for.
    public: Router,
}

/// Whose a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Ours: frames and hello.
    Own,
    /// One of the other surfaces', by a signed URL.
    Signed,
    Nova,
}

impl Gateway {
    pub(crate) fn new(settings: GatewaySettings, app: AppState, public: Router) -> Arc<Gateway> {
        let metrics = app.metrics.clone();
        let server = |url: Uri| {
            let name = url.authority().map_or(String::new(), ToString::to_string);
            let labels = ServerLabels { server: name };
            let gauge = metrics.metadata.server_up.get_or_create(&labels).clone();
            (url, gauge)
        };
        let servers = settings.servers.into_iter().map(server).collect();
        Arc::new(Gateway {
            secrets: Secrets::new(settings.secrets),
            nova: Nova::new(servers, settings.nova_tls),
            waiting: Waiting::default(),
            instances: app.instances.clone(),
            edge: Edge::new(|_| Surface::Metadata, settings.limits, app.metrics.clone()),
            tls: settings.tls,
            app,
            public,
        })
    }

    /// Watches Nova's servers. Never returns.
    pub(crate) async fn probe(&self) {
        self.nova.probe().await;
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        let body = match read(body).await {
            Ok(body) => body,
            Err(error) => return error.into_response(),
        };
        let route = route(&parts.method, parts.uri.path());
        if route == Route::Nova {
            let answer = self.nova.forward(parts, body).await;
            let labels = StatusLabels { status: answer.status().as_u16() };
            self.app.metrics.metadata.forwarded.get_or_create(&labels).inc();
            return answer;
        }
        let permit = match self.secrets.check(&parts.headers) {
            Ok(permit) => permit,
            Err(refusal) => return self.refuse(refusal),
        };
        match route {
            Route::Signed => self.signed(&permit, parts, body).await,
            _ => self.own(&permit, &parts, &body).await,
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        let code = match refusal {
            Refusal::Missing(_) => "identity_missing",
            Refusal::BadSignature => "identity_bad_signature",
            Refusal::UnknownInstance => "identity_unknown",
        };
        self.app.metrics.metadata.refused.get_or_create(&CodeLabels { code }).inc();
        tracing::warn!(code, "a request to the metadata surface is nobody's");
        refusal.into_response()
    }

    /// `/heliograph/v1/…`
    async fn own(
        &self,
        permit: &InstancePermit,
        parts: &axum::http::request::Parts,
        body: &Bytes,
    ) -> Response {
        let path = parts.uri.path();
        if path.strip_prefix(METADATA_PREFIX) == Some("hello") {
            return self.hello(permit).await;
        }
        if !path.starts_with(FRAME_PREFIX) {
            return answer::receipt(&refusal("not_found"));
        }
        match self.frame(permit, path, parts.uri.query(), body).await {
            Ok(receipt) => {
                let code = if receipt.ok { "taken" } else { "refused" };
                self.app.metrics.metadata.frames.get_or_create(&CodeLabels { code }).inc();
                answer::receipt(&receipt)
            }
            Err(status) => status_page(status),
        }
    }

    async fn hello(&self, permit: &InstancePermit) -> Response {
        let identity = match self.nova.identify(permit).await {
            Asked::Known(identity) => identity,
            Asked::Refused(status) => return status_page(status),
            Asked::Unavailable => return answer::receipt(&retry()),
        };
        // A hello needs no store, but somebody may wait for a sign of life.
        if let Err(error) = self.instances.contact(permit.instance(), &identity).await {
            tracing::warn!(error = %chain(&error), "failed to note that an instance has said hello");
            return answer::receipt(&retry());
        }
        let has_handle = identity.handle.is_some();
        answer::json(format!(
            "{{\"ok\":true,\"code\":\"hello\",\"relay\":\"heliograph\",\"version\":1,\
             \"frame\":{MAX_FRAME_DATA_BYTES},\"handle\":{has_handle}}}"
        ))
    }

    /// Takes one frame. An error is Nova's refusal of the instance.
    async fn frame(
        &self,
        permit: &InstancePermit,
        path: &str,
        query: Option<&str>,
        body: &Bytes,
    ) -> Result<Receipt, StatusCode> {
        let frame = match Frame::parse(path, query, body) {
            Ok(frame) => frame,
            Err(error) => return Ok(refusal(error.code())),
        };
        let (instance, id, digest) = (permit.instance(), frame.message, frame.sha256);
        let standing = match self.instances.standing(instance, id).await {
            Ok(standing) => standing,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to look for a message");
                return Ok(retry());
            }
        };
        match standing.taken {
            Some(taken) if taken == digest => return Ok(frame.receipt("complete")),
            Some(_) => return Ok(refusal(FrameError::OtherMessage.code())),
            None => {}
        }
        let identity = match self.nova.identify(permit).await {
            Asked::Known(identity) => identity,
            Asked::Refused(status) => return Err(status),
            // What Nova said of it once is enough while Nova is down.
            Asked::Unavailable if standing.known_project.as_deref() == Some(permit.project()) => {
                let project = permit.project().to_owned();
                let record = self.instances.view(instance).await.ok().flatten();
                Identity { project, name: None, handle: record.and_then(|view| view.handle) }
            }
            Asked::Unavailable => return Ok(retry()),
        };
        let stored = frame.receipt("stored");
        let bytes = match self.waiting.add(instance, frame) {
            Ok(Added::Waits) => return Ok(stored),
            Ok(Added::Full) => return Ok(retry()),
            Ok(Added::Whole(bytes)) => bytes,
            Err(error) => return Ok(refusal(error.code())),
        };
        let message = match Message::parse(id, &bytes, standing.key.as_ref()) {
            Ok(message) => message,
            Err(error) => {
                self.waiting.forget(instance, id);
                return Ok(refusal(error.code()));
            }
        };
        match self.take_in(permit, &identity, id, digest, message).await {
            Ok(()) => {
                self.waiting.forget(instance, id);
                self.app.metrics.metadata.messages.inc();
                Ok(Receipt { code: "complete".to_owned(), ..stored })
            }
            Err(Refused::ForNow) => Ok(retry()),
            Err(Refused::ForGood(code)) => {
                self.waiting.forget(instance, id);
                Ok(refusal(&code))
            }
        }
    }

    /// A signed URL of another surface. Its own signature is the permit there; that the instance is
    /// known here is beside it, and puts the signal into the instance's record, too.
    async fn signed(
        &self,
        permit: &InstancePermit,
        parts: axum::http::request::Parts,
        body: Bytes,
    ) -> Response {
        let identity = match self.nova.identify(permit).await {
            Asked::Known(identity) => Some(identity),
            Asked::Refused(status) => return status_page(status),
            Asked::Unavailable => None,
        };
        let is_write = parts.method != Method::GET && parts.method != Method::HEAD;
        if is_write && body.is_empty() {
            // A body that came in a second TCP segment is lost on the way, and none means success.
            let message = "the body is empty: it may have been lost on the way; a success is {}";
            let error = ApiError::new(StatusCode::BAD_REQUEST, "body_lost", message);
            return answer::fit(error.into_response()).await;
        }
        let answer = self.ask_surface(parts, &body).await;
        if let Some(identity) = identity
            && is_write
            && answer.status().is_success()
            && let Ok(signal) = Signal::parse(&body)
        {
            self.note(permit, &identity, signal).await;
        }
        answer::fit(answer).await
    }

    /// Asks the surface that a signed URL is for. Heat's signatures cover the host, and Neutron's agent
    /// has put its own into the header: so those that the URL can have had are tried.
    async fn ask_surface(&self, parts: axum::http::request::Parts, body: &Bytes) -> Response {
        let request = |host: Option<HeaderValue>| {
            let mut parts = parts.clone();
            if let Some(host) = host {
                parts.headers.insert(HOST, host);
            }
            Request::from_parts(parts, Body::from(body.clone()))
        };
        let path = parts.uri.path();
        if !path.starts_with("/v1/waitcondition/") && !path.starts_with("/v1/signal/") {
            return self.edge.call(self.public.clone(), request(None)).await;
        }
        let own = HeaderValue::from_static(LINK_LOCAL_HOST);
        let answer = self.edge.call(self.public.clone(), request(Some(own))).await;
        let relays = self.app.public_url.host().and_then(|host| HeaderValue::try_from(host).ok());
        if answer.status() != StatusCode::FORBIDDEN || relays.is_none() {
            return answer;
        }
        self.edge.call(self.public.clone(), request(relays)).await
    }

    /// The signal is where it was sent already; the record is told as well as possible.
    async fn note(&self, permit: &InstancePermit, identity: &Identity, signal: Signal) {
        // Without an id, one that repeats itself when the signal is repeated.
        let own = || hex::encode(&Sha256::digest(signal.to_json())[..8]);
        let signal = Signal { id: Some(signal.id.clone().unwrap_or_else(own)), ..signal };
        let noted = self.instances.note_signal(permit.instance(), identity, &signal).await;
        if let Err(error) = noted {
            tracing::warn!(error = %chain(&error), "failed to note a signal in an instance's record");
        }
    }
}

fn route(method: &Method, path: &str) -> Route {
    if path.starts_with(METADATA_PREFIX) {
        return Route::Own;
    }
    let is_handle = path.starts_with("/api/v1/handles/") && path.ends_with("/signals");
    let is_signed = path.starts_with("/v1/AUTH_")
        || path.starts_with("/v1/waitcondition/")
        || path.starts_with("/v1/signal/")
        || (is_handle && *method != Method::GET);
    if is_signed { Route::Signed } else { Route::Nova }
}

/// Nova's refusal of an instance, as Nova's own page has it.
fn status_page(status: StatusCode) -> Response {
    match status {
        StatusCode::FORBIDDEN => Refusal::BadSignature.into_response(),
        StatusCode::BAD_REQUEST => Refusal::Missing("X-Instance-ID").into_response(),
        _ => Refusal::UnknownInstance.into_response(),
    }
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let reading = Limited::new(body, MAX_BODY_BYTES).collect();
    match timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let message = format!("the body has more than {MAX_BODY_BYTES} bytes");
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message))
        }
        _ => {
            let message = "the body did not arrive whole";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "body_broken_off", message))
        }
    }
}

#[cfg(test)]
mod tests;
