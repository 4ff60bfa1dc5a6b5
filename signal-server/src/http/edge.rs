//! What every request passes on its way in and out.
//!
//! The usual way is a stack of middleware, each a service around the next with a boxed future of its
//! own. Here the layers are one function, [`Edge::call`], read from top to bottom. That is shorter, its
//! order is plain, and it costs a signal next to nothing.

pub(crate) mod places;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, timeout};
use tower::Service;
use tracing::{Instrument, debug_span};

use crate::error::{ApiError, ErrorCode, LogText};
use crate::http::edge::places::{Arrivals, BUSY_RETRY_AFTER, Place, Places, ReceivingPlace};
use crate::metrics::{CodeLabels, Metrics, RequestLabels, Surface};

/// The longest path, in bytes: an account, a container and an object of the longest names, percent-encoded,
/// are just below 5 KiB.
const MAX_PATH_BYTES: usize = 5 * 1024;

/// The longest query, in bytes. The longest one with a meaning, a TempURL with SHA-512 and a prefix of
/// 1,024 bytes, percent-encoded, is just above 3 KiB.
const MAX_QUERY_BYTES: usize = 4 * 1024;

/// The largest header section, in bytes of names and values: a Keystone token of the longest kind is
/// 8 KiB, and proxies add some.
pub(crate) const MAX_HEADER_BYTES: usize = 16 * 1024;

/// How long a request may take that does not wait for a signal. Heat's client gives up after nothing
/// shorter, and a store that needs longer for one commit is down.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest request id that is taken over from the caller, in bytes: it goes into every log line.
const MAX_REQUEST_ID_BYTES: usize = 128;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_TRANS_ID: HeaderName = HeaderName::from_static("x-trans-id");

/// How many requests may be answered at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeLimits {
    pub(crate) max_in_flight: usize,
    pub(crate) max_long_polls: usize,
}

/// The layers of one listener.
#[derive(Debug)]
pub(crate) struct Edge {
    surface_of: fn(&str) -> Surface,
    metrics: Arc<Metrics>,
    in_flight: Arc<Places>,
    long_polls: Arc<Places>,
    arrivals: Arc<Arrivals>,
    request_ids: RequestIds,
}

/// What a handler, and the log, may call this request.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(HeaderValue);

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.to_str().unwrap_or_default())
    }
}

impl Edge {
    pub(crate) fn new(
        surface_of: fn(&str) -> Surface,
        limits: EdgeLimits,
        metrics: Arc<Metrics>,
    ) -> Arc<Edge> {
        let http = &metrics.http;
        let places = |limit, gauge: &Gauge| Places::new(limit, gauge.clone(), http.shed.clone());
        Arc::new(Edge {
            surface_of,
            in_flight: places(limits.max_in_flight, &http.in_flight),
            long_polls: places(limits.max_long_polls, &http.long_polls),
            arrivals: Arrivals::new(http.arriving.clone(), http.shed.clone()),
            metrics,
            request_ids: RequestIds::new(),
        })
    }

    /// Every layer, in order.
    pub(crate) async fn call(&self, router: Router, request: Request<Body>) -> Response {
        let started = Instant::now();
        // 1. A name for the request.
        let request_id = self.request_ids.name(request.headers());
        let line = RequestLine {
            method: request.method().clone(),
            uri: request.uri().clone(),
            surface: (self.surface_of)(request.uri().path()),
        };
        let response = match self.admit(&line, &request) {
            // 4. A span with the path and never the query, which may hold a signature.
            Ok(admission) => {
                let span = debug_span!("request", %request_id, method = %line.method, path = line.uri.path());
                guard(router, request, admission).instrument(span).await
            }
            Err(refusal) => refusal.into_response(),
        };
        // 7. Metrics, the access line, and the name for the caller.
        self.account_for(&line, &request_id, &response, started);
        with_request_id(response, request_id)
    }

    fn admit(&self, line: &RequestLine, request: &Request<Body>) -> Result<Admission, ApiError> {
        // 2. Sizes.
        check_sizes(&line.uri, request.headers())?;
        // 3. Load: what is over the limit is refused at once instead of late.
        if line.waits_for_a_signal() {
            let slot = LongPollSlot { _place: self.long_polls.take()? };
            return Ok(Admission::Waits(Arc::new(slot)));
        }
        let place = self.in_flight.take()?;
        if request.body().is_end_stream() {
            return Ok(Admission::Brief { _place: place });
        }
        Ok(Admission::Receives(ReceivingPlace::new(place, self.arrivals.clone())))
    }

    fn account_for(
        &self,
        line: &RequestLine,
        request_id: &RequestId,
        response: &Response,
        started: Instant,
    ) {
        let status = response.status();
        let labels = RequestLabels { surface: line.surface, status: status.as_u16() };
        self.metrics.http.requests.get_or_create(&labels).inc();

        let code = response.extensions().get::<ErrorCode>().map(|code| code.0);
        if let Some(code) = code
            && line.may_carry_a_signal()
        {
            self.metrics.signals.refused.get_or_create(&CodeLabels { code }).inc();
        }
        let (method, path, status) = (&line.method, line.uri.path(), status.as_u16());
        if let Some(LogText(cause)) = response.extensions().get::<LogText>() {
            tracing::warn!(%request_id, %method, path, status, code, cause, "request failed");
        }
        tracing::debug!(
            target: "heliograph_server::access",
            %request_id,
            %method,
            path,
            status,
            duration_ms = started.elapsed().as_secs_f64() * 1e3,
            "request answered"
        );
    }
}

/// What the log and the metrics need of a request after it has been used up.
struct RequestLine {
    method: Method,
    uri: Uri,
    surface: Surface,
}

impl RequestLine {
    fn waits_for_a_signal(&self) -> bool {
        is_below_what_is_waited_for(&self.method, &self.uri)
    }

    fn may_carry_a_signal(&self) -> bool {
        (self.method == Method::PUT || self.method == Method::POST)
            && (matches!(self.surface, Surface::Swift | Surface::Heat)
                || self.uri.path().ends_with("/signals"))
    }
}

/// A request that may go on.
enum Admission {
    /// Has to be answered in time.
    Brief { _place: Place },
    /// Likewise, and holds no place while its body arrives.
    Receives(Arc<ReceivingPlace>),
    /// May wait as long as its handler likes.
    Waits(Arc<LongPollSlot>),
}

/// Counts a request among those that wait. An answer that goes on after its handler has returned, such
/// as a stream, keeps a clone.
#[derive(Debug)]
pub(crate) struct LongPollSlot {
    _place: Place,
}

/// Time and panics, around the router.
async fn guard(mut router: Router, mut request: Request<Body>, admission: Admission) -> Response {
    match &admission {
        Admission::Brief { .. } => {}
        Admission::Receives(place) => drop(request.extensions_mut().insert(place.clone())),
        Admission::Waits(slot) => drop(request.extensions_mut().insert(slot.clone())),
    }
    // 5. A panic is the answer 500, not a broken connection.
    let answering = AssertUnwindSafe(router.call(request)).catch_unwind();
    // 6. Time.
    let answered = match &admission {
        Admission::Brief { .. } | Admission::Receives(_) => {
            timeout(REQUEST_TIMEOUT, answering).await
        }
        Admission::Waits(_) => Ok(answering.await),
    };
    match answered {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(_panic)) => panicked().into_response(),
        Err(_elapsed) => timed_out().into_response(),
    }
}

/// Whether a request is a long-poll that may take its time: it says how long.
pub(crate) fn may_wait_long(method: &Method, uri: &Uri) -> bool {
    is_below_what_is_waited_for(method, uri)
        && uri.query().is_some_and(|query| query.contains("wait="))
}

/// Long-polls and event streams: both are a GET of something below the handles or the instances.
fn is_below_what_is_waited_for(method: &Method, uri: &Uri) -> bool {
    let path = uri.path();
    method == Method::GET
        && (path.starts_with("/api/v1/handles/") || path.starts_with("/api/v1/instances/"))
}

fn check_sizes(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let too_long = |code, what, limit| {
        let message = format!("the {what} has more than {limit} bytes");
        Err(ApiError::new(StatusCode::URI_TOO_LONG, code, message))
    };
    if uri.path().len() > MAX_PATH_BYTES {
        return too_long("path_too_long", "path", MAX_PATH_BYTES);
    }
    if uri.query().is_some_and(|query| query.len() > MAX_QUERY_BYTES) {
        return too_long("query_too_long", "query", MAX_QUERY_BYTES);
    }
    let n_header_bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if n_header_bytes > MAX_HEADER_BYTES {
        return Err(ApiError::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            format!("the headers have more than {MAX_HEADER_BYTES} bytes"),
        ));
    }
    Ok(())
}

fn timed_out() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "timeout",
        format!("the relay had no answer within {} s", REQUEST_TIMEOUT.as_secs()),
    )
    .retry_after(BUSY_RETRY_AFTER)
}

/// The message of the panic is on stderr already, from the hook of the runtime, with its place.
fn panicked() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal_error",
        "the relay failed to answer; its log says more",
    )
    .log("a handler panicked")
}

fn with_request_id(mut response: Response, RequestId(value): RequestId) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_TRANS_ID, value.clone());
    headers.insert(X_REQUEST_ID, value);
    response
}

/// Names requests: the caller's own name where there is one, else a number that no other process has.
#[derive(Debug)]
struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> RequestIds {
        RequestIds { prefix: format!("tx{:016x}-", rand::random::<u64>()), next: AtomicU64::new(1) }
    }

    fn name(&self, headers: &HeaderMap) -> RequestId {
        let given = headers.get(X_REQUEST_ID).filter(|value| {
            let bytes = value.as_bytes();
            (1..=MAX_REQUEST_ID_BYTES).contains(&bytes.len())
                && bytes.iter().all(u8::is_ascii_graphic)
        });
        // A copy of its own, for it outlives the buffer that the headers were read into.
        if let Some(Ok(given)) = given.map(|given| HeaderValue::from_bytes(given.as_bytes())) {
            return RequestId(given);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = HeaderValue::try_from(format!("{}{number:x}", self.prefix));
        RequestId(name.unwrap_or(HeaderValue::from_static("tx")))
    }
}

#[cfg(test)]
mod tests;
