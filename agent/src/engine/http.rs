//! Requests to an engine's unix socket, and what is common to all their answers.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::engine::{EngineError, Operation, wire};
use crate::error::BoxError;
use crate::text;

/// A version of the API: `1.41` as a pair, which compares as versions do.
pub(crate) type ApiVersion = (u32, u32);

/// The version of the API that the plan is written in.
pub(crate) const API_VERSION: ApiVersion = (1, 41);

/// An inspection with a long environment has 100 KiB; more than this is not an answer for us.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// How much of the engine's own words goes into an error.
pub(crate) const MAX_MESSAGE_BYTES: usize = 400;

#[derive(Debug)]
pub(crate) struct Http {
    socket: PathBuf,
    client: Client,
    /// Settled by the first ping.
    pub(crate) api_version: OnceLock<ApiVersion>,
}

impl Http {
    /// Nothing is connected before the first request.
    pub(crate) fn new(socket: &Path) -> Result<Http, EngineError> {
        let client = Client::builder()
            .unix_socket(socket)
            .redirect(reqwest::redirect::Policy::none())
            // There is no TLS on a unix socket: leave the system's certificates on the disk.
            .tls_certs_only([])
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|source| unreachable(socket, source))?;
        Ok(Http { socket: socket.to_owned(), client, api_version: OnceLock::new() })
    }

    /// For the two questions that come before a version is agreed on.
    pub(crate) fn unversioned(&self, path: &str) -> RequestBuilder {
        let mut url = base_url();
        url.set_path(path);
        self.client.get(url)
    }

    pub(crate) fn request(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        let (major, minor) = self.api_version.get().copied().unwrap_or(API_VERSION);
        let mut url = base_url();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().push(&format!("v{major}.{minor}")).extend(segments);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.client.request(method, url)
    }

    /// Sends, and turns every status from 400 on into an error; 304 and 2xx are answers.
    pub(crate) async fn send(
        &self,
        operation: Operation,
        request: RequestBuilder,
    ) -> Result<Response, EngineError> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Err(unreachable(&self.socket, error)),
            Err(error) => return Err(broken(operation, error)),
        };
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = read_bounded(operation, response).await.unwrap_or_default();
        Err(EngineError::Refused { operation, status: status.as_u16(), message: message_of(&body) })
    }

    pub(crate) async fn send_for<T: DeserializeOwned>(
        &self,
        operation: Operation,
        request: RequestBuilder,
    ) -> Result<T, EngineError> {
        let response = self.send(operation, request).await?;
        let body = read_bounded(operation, response).await?;
        serde_json::from_slice(&body)
            .map_err(|source| EngineError::Unreadable { operation, source: source.into() })
    }
}

/// The host is never looked up: every connection goes to the socket.
fn base_url() -> Url {
    #[expect(clippy::unwrap_used, reason = "a constant that the tests parse")]
    Url::parse("http://engine/").unwrap()
}

pub(crate) fn parse_version(version: &str) -> Option<ApiVersion> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The engine's own words, from `{"message": …}` or from plain text.
fn message_of(body: &[u8]) -> String {
    let answer: wire::ErrorAnswer = serde_json::from_slice(body).unwrap_or_default();
    let plain = String::from_utf8_lossy(body);
    let message = if answer.message.is_empty() { plain.as_ref() } else { &answer.message };
    text::clean(message, MAX_MESSAGE_BYTES)
}

async fn read_bounded(
    operation: Operation,
    mut response: Response,
) -> Result<Vec<u8>, EngineError> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|error| broken(operation, error))? {
        if body.len() + bytes.len() > MAX_ANSWER_BYTES {
            return Err(EngineError::Unreadable { operation, source: "answer is too long".into() });
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// 404 is an answer.
pub(crate) fn none_if_not_found<T>(
    result: Result<T, EngineError>,
) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(EngineError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn unreachable(socket: &Path, source: impl Into<BoxError>) -> EngineError {
    EngineError::Unreachable {
        address: format!("unix://{}", socket.display()),
        source: source.into(),
    }
}

pub(crate) fn broken(operation: Operation, source: reqwest::Error) -> EngineError {
    EngineError::Broken { operation, source: source.without_url().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let check = |version: &str, expect: Option<(u32, u32)>| {
            assert_eq!(parse_version(version), expect, "{version}");
        };
        check("1.41", Some((1, 41)));
        check("1.5", Some((1, 5)));
        check("", None);
        check("1", None);
        check("1.x", None);
        assert!(parse_version("1.9") < parse_version("1.41"));
    }

    #[test]
    fn the_engines_words_are_found_and_bounded() {
        let check = |body: &str, expect: &str| {
            assert_eq!(message_of(body.as_bytes()), expect, "{body}");
        };
        check("{\"message\":\"no such image\"}", "no such image");
        check("{\"cause\":\"x\",\"message\":\"two\\nlines\",\"response\":500}", "two lines");
        check("404 page not found\n", "404 page not found");
        check("", "");
        assert!(message_of(&[b'x'; 100_000]).len() <= MAX_MESSAGE_BYTES);
    }

    #[test]
    fn the_base_url_is_a_url() {
        assert_eq!(base_url().as_str(), "http://engine/");
    }
}
