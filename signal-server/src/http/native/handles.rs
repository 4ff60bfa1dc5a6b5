//! Handles: make one, signal it, read it, wait for it, remove it.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use signal_protocol::handle::{HandleState, HandleView};
use signal_protocol::signal::Signal;
use signal_protocol::tempurl::{Digest, sign};
use tokio::time::Instant;

use crate::api::{
    CreateHandle, CreatedHandle, HandleEntry, HandlePage, SignalAnswer, SignalOutcome,
};
use crate::app::AppState;
use crate::error::ApiError;
use crate::http::body::RequestBody;
use crate::http::native::permit::{AccountPermit, ReadPermit, SignalPermit};
use crate::http::native::query::{self, PageQuery, WaitQuery};
use crate::http::native::{JsonBody, json};
use crate::mailbox::limits::MAX_HANDLE_COUNT;
use crate::mailbox::{Handle, HandleSummary, NewHandle, Receipt};

/// How many distinct ids complete a handle unless its maker says otherwise.
const DEFAULT_COUNT: u32 = 1;

/// How long a handle waits unless its maker says otherwise: as long as Heat's examples do.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long a signal URL outlives its handle's time, in seconds. A late signal is still stored, so that
/// somebody can see that the instance came up after all.
const LATE_SIGNAL_SECONDS: i64 = 24 * 3600;

/// The shortest time: a second, the unit in which times are kept.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time: 12 h, as Heat's wait conditions have it.
const MAX_TIMEOUT: Duration = Duration::from_secs(43_200);

/// The longest label, in bytes: as long as Heat lets a name be.
const MAX_LABEL_BYTES: usize = 255;

pub(crate) fn handle_path(id: &str) -> String {
    format!("/api/v1/handles/{id}")
}

pub(crate) fn signals_path(id: &str) -> String {
    format!("/api/v1/handles/{id}/signals")
}

/// `POST /api/v1/handles`
pub(crate) async fn create(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
    JsonBody(asked): JsonBody<CreateHandle>,
) -> Result<Response, ApiError> {
    query::none(&uri)?;
    let (count, timeout) = (
        asked.count.unwrap_or(DEFAULT_COUNT),
        asked.timeout.map_or(DEFAULT_TIMEOUT, |text| text.0),
    );
    if !(1..=MAX_HANDLE_COUNT).contains(&count) {
        return Err(out_of_range("count", &format!("1 to {MAX_HANDLE_COUNT}")));
    }
    if timeout.subsec_millis() != 0 || !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(&timeout) {
        return Err(out_of_range("timeout", "whole seconds, 1 s to 12 h"));
    }
    if asked.label.as_ref().is_some_and(|label| label.len() > MAX_LABEL_BYTES) {
        return Err(out_of_range("label", &format!("up to {MAX_LABEL_BYTES} bytes")));
    }
    let new = NewHandle {
        account: permit.account,
        count,
        timeout,
        label: asked.label,
        metadata: asked.metadata,
    };
    let handle = state.mailboxes.create_handle(new).await?;
    let location = handle_path(handle.id.as_str());
    let mut response = json(StatusCode::CREATED, &created(&state, handle));
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

fn out_of_range(field: &str, range: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_field", format!("{field} must be {range}"))
}

fn created(state: &AppState, handle: Handle) -> CreatedHandle {
    let signed_url = |method: &str, path: String| {
        let expires = handle.expires_at.as_second().saturating_add(LATE_SIGNAL_SECONDS);
        let expires = u64::try_from(expires).unwrap_or_default();
        let signature = sign(Digest::Sha256, handle.signing_key.as_ref(), method, expires, &path);
        let origin = state.public_url.as_str();
        format!("{origin}{path}?temp_url_sig={signature}&temp_url_expires={expires}")
    };
    CreatedHandle {
        signal_url: signed_url("PUT", signals_path(handle.id.as_str())),
        poll_url: signed_url("GET", handle_path(handle.id.as_str())),
        id: handle.id,
        count: handle.count,
        timeout_seconds: handle.timeout_seconds,
        label: handle.label,
        created_at: handle.created_at,
        expires_at: handle.expires_at,
    }
}

/// `GET /api/v1/handles`
pub(crate) async fn list(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let page = PageQuery::parse(&uri)?;
    let summaries =
        state.mailboxes.list_handles(&permit.account, page.marker.as_ref(), page.limit).await?;
    let is_full = summaries.len() == page.limit;
    let last = summaries.last().map(|summary| summary.handle.id.clone());
    let handles = summaries.into_iter().map(entry).collect();
    Ok(json(StatusCode::OK, &HandlePage { handles, next_marker: last.filter(|_| is_full) }))
}

fn entry(summary: HandleSummary) -> HandleEntry {
    HandleEntry {
        id: summary.handle.id,
        state: summary.state,
        reason: summary.reason,
        count: summary.handle.count,
        n_signals: summary.n_signals,
        label: summary.handle.label,
        created_at: summary.handle.created_at,
        expires_at: summary.handle.expires_at,
        version: summary.version,
    }
}

/// `PUT` and `POST /api/v1/handles/{id}/signals`. Any content type will do: curl calls everything a form.
pub(crate) async fn signal(
    permit: SignalPermit,
    State(state): State<AppState>,
    uri: Uri,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    query::none(&uri)?;
    let signal = Signal::parse(&body)?;
    // The store has synced the signal when this returns: acknowledged means durable.
    let receipt = state.mailboxes.signal_handle(&permit.handle.id, &signal).await?;
    let (status, outcome) = match receipt {
        Receipt::Stored => {
            state.metrics.signals.accepted.inc();
            (StatusCode::CREATED, SignalOutcome::Stored)
        }
        Receipt::Repeated => {
            state.metrics.signals.duplicate.inc();
            (StatusCode::OK, SignalOutcome::Repeated)
        }
    };
    Ok(json(status, &SignalAnswer { outcome }))
}

/// `GET /api/v1/handles/{id}`: at once, or as soon as there is something new.
pub(crate) async fn show(
    permit: ReadPermit,
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = WaitQuery::parse(&uri)?;
    let view = wait(&state, &permit, query).await?;
    Ok(json(StatusCode::OK, &view))
}

/// The handle, when it has something new for somebody who knows `query.version`, or when the time is
/// over, or when the relay stops.
async fn wait(
    state: &AppState,
    permit: &ReadPermit,
    query: WaitQuery,
) -> Result<HandleView, ApiError> {
    let id = &permit.handle.id;
    let deadline = Instant::now() + query.wait;
    loop {
        // In a box, which is gone while this waits: whoever waits is to hold no room for what is done before.
        let view = Box::pin(state.mailboxes.handle_view(id)).await?;
        let is_news = match query.version {
            Some(seen) => view.version > seen,
            None => view.state != HandleState::Pending,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if is_news || left.is_zero() || state.shutdown.has_begun() {
            return Ok(view);
        }
        tokio::select! {
            changed = state.mailboxes.changed(id, view.version, left) => { changed?; }
            () = state.shutdown.begun() => {}
        }
    }
}

/// `DELETE /api/v1/handles/{id}`
pub(crate) async fn delete(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Response, ApiError> {
    query::none(&uri)?;
    let handle = permit.own_handle(&state, &uri).await?;
    state.mailboxes.delete_handle(&handle.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
