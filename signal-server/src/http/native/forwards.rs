//! Signals that were forwarded to Heat: what became of them.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use crate::app::AppState;
use crate::error::ApiError;
use crate::forward::record::ForwardId;
use crate::forward::{ForwardError, ForwardView};
use crate::http::heat::configured;
use crate::http::native::json;
use crate::http::native::permit::AccountPermit;
use crate::http::native::query::{self, PageQuery};

/// One page of the forwarded signals of an account.
#[derive(Debug, Serialize)]
struct ForwardPage {
    forwards: Vec<ForwardView>,
    /// What to pass as `marker` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<ForwardId>,
}

/// `GET /api/v1/forwards`: those of the bearer's project; for the operator all, oldest first.
pub(crate) async fn list(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let page = PageQuery::parse_with(&uri, ForwardId::parse)?;
    let forwarder = &configured(&state)?.forwarder;
    let forwards = forwarder.list(&permit.account, page.marker, page.limit).await?;
    let is_full = forwards.len() == page.limit;
    let next_marker = forwards.last().map(|view| view.id).filter(|_| is_full);
    Ok(json(StatusCode::OK, &ForwardPage { forwards, next_marker }))
}

/// `GET /api/v1/forwards/{id}`
pub(crate) async fn show(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Response, ApiError> {
    query::none(&uri)?;
    let id = uri.path().split('/').nth(4).unwrap_or_default();
    let id = ForwardId::parse(id).map_err(|_| ForwardError::NotFound)?;
    let view = configured(&state)?.forwarder.view(&permit.account, id).await?;
    Ok(json(StatusCode::OK, &view))
}
