//! The one place that turns a failure into an answer.
//!
//! Every failure has two texts. The caller reads `ApiError::message`: a sentence that says what to
//! change, and nothing about the inside of the relay. The log keeps `ApiError::log`: the whole chain
//! of causes. Neither ever holds a token, a signature or the content of a signal.
//!
//! The shape on the wire is `{"error":{"code":"…","message":"…"}}`. The code is stable: scripts match on
//! it; the message may be improved at any time.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use signal_protocol::path::PathError;
use signal_protocol::signal::SignalError;
use signal_protocol::tempurl::TempUrlError;

use crate::mailbox::error::{ErrorClass, MailboxError};

/// Prints an error and all its causes on one line: `failed to X: because Y: because Z`.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(formatter, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// A failure as the caller will see it, with what the log shall keep.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
    log: Option<String>,
}

impl ApiError {
    /// An answer with `status`, the stable `code`, and a sentence for a person.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            status,
            code,
            message: message.into(),
            retry_after: None,
            headers: Vec::new(),
            log: None,
        }
    }

    /// Tells the caller when to come again.
    pub(crate) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Adds a header that the dialect of the caller wants to see, such as `Www-Authenticate`.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Keeps a text for the log; the caller never sees it.
    pub(crate) fn log(mut self, text: impl Into<String>) -> Self {
        self.log = Some(text.into());
        self
    }

    /// Keeps the chain of causes for the log; the caller never sees it.
    pub(crate) fn caused_by(mut self, cause: &(dyn Error + 'static)) -> Self {
        self.log = Some(chain(cause).to_string());
        self
    }
}

impl From<MailboxError> for ApiError {
    fn from(error: MailboxError) -> ApiError {
        let (status, message) = match error.class() {
            ErrorClass::NotFound => (StatusCode::NOT_FOUND, error.to_string()),
            ErrorClass::Conflict => (StatusCode::CONFLICT, error.to_string()),
            ErrorClass::Invalid => (StatusCode::BAD_REQUEST, innermost(&error)),
            ErrorClass::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, innermost(&error)),
            ErrorClass::LimitReached if matches!(error, MailboxError::MailboxFull) => {
                (StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            ErrorClass::LimitReached => (StatusCode::FORBIDDEN, error.to_string()),
            ErrorClass::Busy => (StatusCode::SERVICE_UNAVAILABLE, BUSY.to_owned()),
            ErrorClass::Full => (StatusCode::INSUFFICIENT_STORAGE, FULL.to_owned()),
            ErrorClass::Broken => (StatusCode::INTERNAL_SERVER_ERROR, BROKEN.to_owned()),
        };
        let answer = ApiError::new(status, error.code(), message);
        match error.class() {
            ErrorClass::Busy => answer.retry_after(BUSY_RETRY_AFTER).caused_by(&error),
            ErrorClass::Full => answer.retry_after(FULL_RETRY_AFTER).caused_by(&error),
            ErrorClass::Broken => answer.caused_by(&error),
            _ => answer,
        }
    }
}

impl From<SignalError> for ApiError {
    fn from(error: SignalError) -> ApiError {
        ApiError::from(MailboxError::BadSignal(error))
    }
}

impl From<TempUrlError> for ApiError {
    fn from(error: TempUrlError) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string())
    }
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, error.code(), error.to_string())
    }
}

/// When to come again after the store was busy or away: a commit takes milliseconds.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When to come again after the disk was full: somebody has to make room first.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(30);

const BUSY: &str = "the relay cannot do this at present; the same request may succeed in a moment";
const FULL: &str = "the relay has no space left for this";
const BROKEN: &str = "the relay failed to answer; its log says more";

/// What is at the bottom of an error: for a wrong request, the part that says what is wrong.
fn innermost(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// For tests and debugging; the wire has its own form.
impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

/// What the log shall say about a failed request; travels in the extensions of the response, so that
/// the failure is logged once, at the edge, with the fields of the request beside it.
#[derive(Debug, Clone)]
pub(crate) struct LogText(pub(crate) String);

/// The stable code of a failed request; travels in the extensions of the response for the access line
/// and the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let envelope = Envelope { error: Body { code: self.code, message: &self.message } };
        let body = serde_json::to_string(&envelope).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(delay) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
        }
        headers.extend(self.headers.into_iter().map(|(name, value)| (Some(name), value)));
        let mut response = (self.status, headers, body).into_response();
        response.extensions_mut().insert(ErrorCode(self.code));
        if let Some(log) = self.log {
            response.extensions_mut().insert(LogText(log));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::store::{CommitError, StoreError};

    /// Answers with an error; the result is `status retry-after body | log`.
    async fn check(error: impl Into<ApiError>, expect: &str) {
        let response = error.into().into_response();
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER);
        let retry_after = header.map_or("-", |value| value.to_str().unwrap()).to_owned();
        let log = response.extensions().get::<LogText>().map(|text| text.0.clone());
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        let body = std::str::from_utf8(&body).unwrap();
        let log = log.unwrap_or_default();
        assert_eq!(format!("{status} {retry_after} {body} | {log}"), expect);
    }

    #[tokio::test]
    async fn what_the_caller_did_is_told_to_the_caller_and_not_logged() {
        check(
            MailboxError::HandleNotFound,
            r#"404 - {"error":{"code":"handle_not_found","message":"there is no such handle"}} | "#,
        )
        .await;
        check(
            MailboxError::BadSignal(SignalError::BadStatus),
            r#"400 - {"error":{"code":"signal_bad_status","message":"status is neither \"SUCCESS\" nor \"FAILURE\", in capitals"}} | "#,
        )
        .await;
        check(
            TempUrlError::Expired,
            r#"401 - {"error":{"code":"temp_url_expired","message":"the signature's time is over"}} | "#,
        )
        .await;
        check(
            MailboxError::MailboxFull,
            r#"507 - {"error":{"code":"mailbox_full","message":"the mailbox is full: nobody reads its signals"}} | "#,
        )
        .await;
    }

    #[tokio::test]
    async fn what_the_relay_did_is_logged_and_not_told() {
        let detail = "os error 5".to_owned();
        check(
            MailboxError::Write(CommitError::Unavailable { detail }),
            r#"503 1 {"error":{"code":"store_unavailable","message":"the relay cannot do this at present; the same request may succeed in a moment"}} | failed to write to the store: the store is unavailable: os error 5"#,
        )
        .await;
        let detail = "os error 28".to_owned();
        check(
            MailboxError::Write(CommitError::Full { detail }),
            r#"507 30 {"error":{"code":"store_full","message":"the relay has no space left for this"}} | failed to write to the store: there is no space left for the store: os error 28"#,
        )
        .await;
        let detail = "checksum".to_owned();
        check(
            MailboxError::Read(StoreError::Corrupt { detail }),
            r#"500 - {"error":{"code":"store_corrupt","message":"the relay failed to answer; its log says more"}} | failed to read from the store: the store is damaged: checksum"#,
        )
        .await;
    }
}
