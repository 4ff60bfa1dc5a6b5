//! A backup of the relay's whole store, for the operator.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use crate::app::AppState;
use crate::backup::TakeError;
use crate::error::ApiError;
use crate::http::native::permit::OperatorPermit;
use crate::http::native::query;

/// `GET /api/v1/backup`: the file that [`crate::backup`] describes. It has an end of its own, so an answer
/// that is cut short is never taken for a whole one.
pub(crate) async fn take(
    _permit: OperatorPermit,
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Response, ApiError> {
    query::none(&uri)?;
    let pieces = state.backups.take()?;
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        pieces.recv().await.map(|piece| (piece, pieces))
    });
    let content_type = [(CONTENT_TYPE, "application/octet-stream")];
    Ok((StatusCode::OK, content_type, Body::from_stream(pieces)).into_response())
}

impl From<TakeError> for ApiError {
    fn from(error: TakeError) -> ApiError {
        let (status, code) = match error {
            TakeError::Busy => (StatusCode::CONFLICT, "backup_running"),
            TakeError::Unsupported => (StatusCode::NOT_IMPLEMENTED, "no_backup"),
            TakeError::Read { .. } => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
        };
        ApiError::new(status, code, error.to_string()).caused_by(&error)
    }
}
