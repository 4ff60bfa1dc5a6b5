//! `/v1/{account}/{container}/{object}`: signals go in by TempURL and out by token.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::Response;
use md5::{Digest, Md5};

use crate::app::AppState;
use crate::error::ApiError;
use crate::http::body::RequestBody;
use crate::http::permit::{Caller, ObjectPermit};
use crate::http::swift::time::{http_date, x_timestamp};
use crate::http::swift::{empty, insert, insert_number, refuse_unsupported};
use crate::mailbox::error::MailboxError;
use crate::mailbox::{NewObject, ObjectInfo, PutOutcome, Receipt};

/// `PUT`: a signal, the announcement of a signal handle, or a plain object. The content type is kept and
/// nothing is concluded from it: curl calls JSON a form.
pub(crate) async fn put(
    permit: ObjectPermit,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    refuse_unsupported(&headers, &uri)?;
    check_etag(&headers, &body)?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let new = NewObject { content_type: content_type.map(str::to_owned), body };
    let receipt = match permit.caller() {
        Caller::Owner => state.mailboxes.put_as_owner(permit.object(), new).await?,
        Caller::Bearer => state.mailboxes.put_as_bearer(permit.object(), new).await?,
    };
    let signals = &state.metrics.signals;
    match receipt.outcome {
        PutOutcome::Signal(Receipt::Stored) => _ = signals.accepted.inc(),
        PutOutcome::Signal(Receipt::Repeated) => _ = signals.duplicate.inc(),
        PutOutcome::SignalHandle | PutOutcome::Plain => {}
    }
    // The store has synced what was put: a success status means durable.
    let mut headers = HeaderMap::new();
    insert(&mut headers, ETAG, &receipt.info.etag);
    insert(&mut headers, LAST_MODIFIED, &http_date(receipt.info.modified_at));
    Ok(empty(StatusCode::CREATED, headers))
}

/// `GET`: a pending signal or a plain object.
pub(crate) async fn get(
    permit: ObjectPermit,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    refuse_unsupported(&headers, &uri)?;
    let object = state.mailboxes.object(permit.object()).await?;
    let mut response = empty(StatusCode::OK, headers_of(&object.info));
    *response.body_mut() = Body::from(object.body);
    Ok(response)
}

/// `HEAD`: as `GET`, without the body. A signal handle is there for whoever may signal it, who can try a
/// URL in this way, and not for Heat, which would try to read it.
pub(crate) async fn head(
    permit: ObjectPermit,
    State(state): State<AppState>,
) -> Result<Response, ApiError> {
    match state.mailboxes.object_info(permit.object()).await {
        Ok(info) => {
            let mut headers = headers_of(&info);
            insert_number(&mut headers, CONTENT_LENGTH, info.n_bytes);
            Ok(empty(StatusCode::OK, headers))
        }
        Err(MailboxError::ObjectNotFound)
            if permit.caller() == Caller::Bearer
                && state.mailboxes.is_signal_handle(permit.object()).await? =>
        {
            Ok(empty(StatusCode::OK, HeaderMap::new()))
        }
        Err(error) => Err(error.into()),
    }
}

/// `DELETE`, by the rule that all of Heat's resource types can live with; the mailbox knows it.
pub(crate) async fn delete(
    permit: ObjectPermit,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    refuse_unsupported(&headers, &uri)?;
    state.mailboxes.delete_object(permit.object()).await?;
    Ok(empty(StatusCode::NO_CONTENT, HeaderMap::new()))
}

/// A client may say which MD5 its body has; then a body that was damaged on the way is refused.
fn check_etag(headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
    let Some(expected) = headers.get(ETAG).and_then(|value| value.to_str().ok()) else {
        return Ok(());
    };
    if expected.trim_matches('"').eq_ignore_ascii_case(&hex::encode(Md5::digest(body))) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "etag_mismatch",
        "the body does not have the MD5 that the ETag header says",
    ))
}

fn headers_of(info: &ObjectInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert(&mut headers, CONTENT_TYPE, &info.content_type);
    insert(&mut headers, ETAG, &info.etag);
    insert(&mut headers, LAST_MODIFIED, &http_date(info.modified_at));
    let modified_at = x_timestamp(info.modified_at);
    insert(&mut headers, HeaderName::from_static("x-timestamp"), &modified_at);
    headers
}
