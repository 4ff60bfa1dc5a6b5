//! The heat surface: the paths on which instances signal heat-api and heat-api-cfn.
//!
//! ```text
//! POST /v1/{tenant}/stacks/{stack}/{stack id}/resources/{resource}/signal    TOKEN_SIGNAL, HEAT_SIGNAL
//! PUT  /v1/waitcondition/{arn}                                               CFN_SIGNAL
//! POST /v1/signal/{arn}                                                      deployments, alarms
//! ```
//! Heat hands out URLs with these paths and the relay's address when its configuration says so:
//! `[clients_heat] url` and `heat_waitcondition_server_url`. To the sender the relay is Heat: it answers in
//! Heat's words, but only after the signal is on disk, and with 400 to what Heat would drop without a word.
//!
//! The answer's header `X-Heliograph-Forward` names the signal, so that `GET /api/v1/forwards/{id}` can
//! tell what became of it.

mod permit;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use signal_protocol::path::AccountName;

use crate::app::AppState;
use crate::error::ApiError;
use crate::forward::judge::{Expected, JudgeError, judge};
use crate::forward::record::{ForwardId, Route};
use crate::forward::target::{CfnPath, Target};
use crate::forward::{ForwardError, Forwarder, NewForward};
use crate::http::body::RequestBody;
use crate::http::heat::permit::{SignaturePermit, TokenPermit};
use crate::keystone::Keystone;
use crate::store::CommitError;

const X_HELIOGRAPH_FORWARD: HeaderName = HeaderName::from_static("x-heliograph-forward");

/// What the surface needs; a relay without Heat's addresses has none of it.
#[derive(Clone, Debug)]
pub(crate) struct Heat {
    pub(crate) keystone: Keystone,
    pub(crate) forwarder: Forwarder,
}

/// `POST /v1/{tenant}/stacks/…/signal`
pub(crate) async fn signal_resource(
    permit: TokenPermit,
    State(state): State<AppState>,
    RequestBody(body): RequestBody,
) -> Result<Response, ApiError> {
    let heat = configured(&state)?;
    let (project, target, token) = permit.into_parts();
    let route = Route::Heat { project: project.as_str().to_owned(), token: token.into() };
    let id = forward(heat, project.as_str(), target, route, &body, Expected::Anything).await?;
    Ok(acknowledged(id, "application/json", "null".to_owned()))
}

/// `PUT /v1/waitcondition/{arn}` and `POST /v1/signal/{arn}`
pub(crate) async fn signal_signed(
    State(state): State<AppState>,
    permit: SignaturePermit,
) -> Result<Response, ApiError> {
    let heat = configured(&state)?;
    let SignaturePermit { cfn_path, target, signed, exchanged, body, .. } = permit;
    let expected = match cfn_path {
        CfnPath::WaitCondition => Expected::WaitCondition,
        CfnPath::Signal => Expected::Anything,
    };
    let answer = match cfn_path {
        CfnPath::WaitCondition => format!("<resource>{}</resource>", xml_text(&target.resource)),
        CfnPath::Signal => String::new(),
    };
    let project = exchanged.project.as_str().to_owned();
    let token = exchanged.token.into();
    let route = Route::Cfn { signed, project: project.clone(), token };
    let id = forward(heat, &project, target, route, &body, expected).await?;
    Ok(acknowledged(id, "application/xml", answer))
}

pub(crate) fn configured(state: &AppState) -> Result<&Heat, ApiError> {
    state.heat.as_ref().ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "heat_not_configured",
            "this relay forwards nothing to Heat: it has not been told where Heat is",
        )
    })
}

async fn forward(
    heat: &Heat,
    project: &str,
    target: Target,
    route: Route,
    body: &Bytes,
    expected: Expected,
) -> Result<ForwardId, ApiError> {
    let id = heat.forwarder.new_id();
    let body = judge(body, expected, &id.to_string())?;
    let account = AccountName::of_project(project)?;
    // The store has synced the signal when this returns: acknowledged means durable.
    heat.forwarder.accept(NewForward { id, account, target, route, body }).await?;
    Ok(id)
}

/// Heat's own answer, with the name of the signal.
fn acknowledged(id: ForwardId, content_type: &'static str, body: String) -> Response {
    let mut response = (StatusCode::OK, [(CONTENT_TYPE, content_type)], body).into_response();
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(X_HELIOGRAPH_FORWARD, id);
    }
    response
}

fn xml_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl From<JudgeError> for ApiError {
    fn from(error: JudgeError) -> ApiError {
        match error {
            JudgeError::BadSignal { source } => source.into(),
            JudgeError::Hook => {
                ApiError::new(StatusCode::BAD_REQUEST, "signal_is_hook", error.to_string())
            }
        }
    }
}

impl From<ForwardError> for ApiError {
    fn from(error: ForwardError) -> ApiError {
        const LATER: &str =
            "the relay cannot do this at present; the same request may succeed in a moment";
        let (status, code, message) = match &error {
            ForwardError::NotFound => {
                let message = error.to_string();
                return ApiError::new(StatusCode::NOT_FOUND, "forward_not_found", message);
            }
            ForwardError::Queue { source } => {
                (StatusCode::SERVICE_UNAVAILABLE, "forward_queue_full", source.to_string())
            }
            ForwardError::Write { source: CommitError::Full { .. } } => {
                let message = "the relay has no space left for this";
                (StatusCode::INSUFFICIENT_STORAGE, "store_full", message.to_owned())
            }
            ForwardError::Write { .. } | ForwardError::Read { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", LATER.to_owned())
            }
            ForwardError::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping", LATER.to_owned())
            }
            ForwardError::Parse { .. } => {
                let message = "the relay failed to answer; its log says more";
                (StatusCode::INTERNAL_SERVER_ERROR, "store_corrupt", message.to_owned())
            }
        };
        let answer = ApiError::new(status, code, message).caused_by(&error);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            return answer;
        }
        answer.retry_after(std::time::Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests;
