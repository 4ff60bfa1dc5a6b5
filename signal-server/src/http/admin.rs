//! The admin surface: whether the relay lives, whether it is ready, what it counts, what it logs. It has
//! no permits, so it has a listener of its own, on loopback unless told otherwise.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::app::AdminState;
use crate::error::{ApiError, chain};
use crate::http::body::RequestBody;
use crate::http::native::json;
use crate::telemetry::LogFilter;

/// The content type of the OpenMetrics text format, which Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /healthz`: the process answers. Says nothing about the store, whose trouble a restart does not cure.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// Why not; empty when ready.
    reasons: Vec<String>,
}

/// `GET /readyz`: requests are welcome. A load balancer asks this.
pub(crate) async fn readyz(State(state): State<AdminState>) -> Response {
    let mut reasons = Vec::new();
    if state.shutdown.has_begun() {
        reasons.push("the relay is stopping".to_owned());
    }
    if let Err(error) = state.mailboxes.ready().await {
        reasons.push(chain(&error).to_string());
    }
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &Readiness { ready, reasons })
}

/// `GET /metrics`
pub(crate) async fn metrics(State(state): State<AdminState>) -> Result<Response, ApiError> {
    let page = state.metrics.encode().map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "no metrics")
            .caused_by(&error)
    })?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], page).into_response())
}

#[derive(Serialize)]
struct LogLevel {
    level: String,
}

/// `GET /log-level`
pub(crate) async fn log_level(State(state): State<AdminState>) -> Response {
    json(StatusCode::OK, &LogLevel { level: state.log.current().to_string() })
}

/// `PUT /log-level` with the level as the whole body: `curl -X PUT -d debug …/log-level`.
pub(crate) async fn set_log_level(
    State(state): State<AdminState>,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let text = std::str::from_utf8(&body).unwrap_or_default().trim();
    let filter: LogFilter = text.parse().map_err(|error: crate::telemetry::LogFilterError| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_log_level", error.to_string())
    })?;
    state.log.set(filter.clone());
    tracing::info!(level = %filter, "log level changed");
    Ok(json(StatusCode::OK, &LogLevel { level: filter.to_string() }))
}
