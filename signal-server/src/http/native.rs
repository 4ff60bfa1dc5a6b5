//! The native surface: `/api/v1`, for the agent, the `wait` command, Terraform, Ansible and scripts.
//!
//! JSON in, JSON out; an unknown key or parameter is refused by name. Times of waiting are bounded by
//! the relay, so a client that wants to wait longer asks again.
//!
//! A request needs one of two permits, and no handler can be called without one: an account's token, or
//! the signature in a URL of the handle itself.

pub(crate) mod backup;
pub(crate) mod events;
pub(crate) mod forwards;
pub(crate) mod handles;
pub(crate) mod instances;
pub(crate) mod openapi;
pub(crate) mod permit;
pub(crate) mod query;
pub(crate) mod stacks;

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::http::body::RequestBody;

/// How much of a complaint about a body is repeated to the sender, in characters. It may quote the
/// body, and a complaint is to be read.
const MAX_COMPLAINT_CHARS: usize = 300;

/// A body in JSON, whatever the content type says. An empty body is the object without keys.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<JsonBody<T>, ApiError> {
        let RequestBody(body) = RequestBody::from_request(request, state).await?;
        let text: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { &body };
        // The reader would take a list for an object whose keys were left out.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(bad_body("the body is not a JSON object"));
        }
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let place = error.path().to_string();
            let complaint = match place.as_str() {
                "." => error.inner().to_string(),
                place => format!("{place}: {}", error.inner()),
            };
            bad_body(&complaint)
        })?;
        reader.end().map_err(|error| bad_body(&error.to_string()))?;
        Ok(JsonBody(value))
    }
}

fn bad_body(complaint: &str) -> ApiError {
    let message: String = complaint.chars().take(MAX_COMPLAINT_CHARS).collect();
    ApiError::new(StatusCode::BAD_REQUEST, "bad_body", message)
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "the relay failed to answer; its log says more",
        )
        .caused_by(&error)
        .into_response(),
    }
}
