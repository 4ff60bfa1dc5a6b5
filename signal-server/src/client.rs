//! A client of the native surface, for the commands `handle`, `wait`, `watch` and `signal`.
//!
//! One method asks once; what to do about a failure is the caller's to decide, who learns whether the
//! same question may be answered later ([`ClientError::is_retriable`]).

pub(crate) mod backoff;
pub(crate) mod backup;
pub(crate) mod events;

use std::time::Duration;

use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use signal_protocol::handle::{HandleId, HandleView};
use signal_protocol::signal::Signal;
use url::Url;

use crate::api::{CreateHandle, CreatedHandle, ErrorAnswer, HandlePage, SignalAnswer};
use crate::client::events::EventReader;
use crate::config::Secret;
use crate::instance::InstanceId;
use crate::instance::view::InstanceView;
use crate::stack::view::StackView;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take beyond the time that the relay was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long one long-poll is asked to take. Proxies commonly cut a silent request after 60 s.
pub(crate) const POLL_WAIT: Duration = Duration::from_secs(30);

/// How much of an answer that is no error of the relay's is shown, in characters: enough to recognise a
/// proxy's page.
const MAX_SHOWN_CHARS: usize = 120;

/// Where the native surface begins below the relay's URL.
const HANDLES: [&str; 3] = ["api", "v1", "handles"];

/// A relay and the token to show it.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    token: Option<Secret>,
}

/// How a person names a handle: by its id, or by a URL that opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HandleRef {
    Id(HandleId),
    Url(Url),
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    #[error("failed to prepare the HTTP client")]
    Build { source: reqwest::Error },
    #[error("the URL of the relay cannot have a path below it")]
    BadServer,
    #[error("failed to reach the relay at {host}")]
    Send { host: String, source: reqwest::Error },
    #[error("the relay at {host} has stopped in the middle of its answer")]
    Silent { host: String },
    #[error("the relay answered {status}: {message}")]
    Refused { status: StatusCode, code: String, message: String, retry_after: Option<Duration> },
    #[error("the relay at {host} gave an answer that is not the relay's: {shown}")]
    BadAnswer { host: String, shown: String },
}

impl ClientError {
    /// The stable name of the failure, for programs.
    pub(crate) fn code(&self) -> &str {
        match self {
            ClientError::Build { .. } => "no_client",
            ClientError::BadServer => "bad_server",
            ClientError::Send { .. } | ClientError::Silent { .. } => "unreachable",
            ClientError::Refused { code, .. } => code,
            ClientError::BadAnswer { .. } => "bad_answer",
        }
    }

    /// Whether the same question may be answered later.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            ClientError::Send { source, .. } => !source.is_builder(),
            ClientError::Silent { .. } => true,
            ClientError::Refused { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            // A proxy in front of a relay that is being restarted answers with a page of its own.
            ClientError::BadAnswer { .. } => true,
            ClientError::Build { .. } | ClientError::BadServer => false,
        }
    }

    /// When the relay said to come again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            ClientError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl HandleRef {
    pub(crate) fn parse(text: &str) -> Result<HandleRef, String> {
        if let Ok(id) = HandleId::parse(text) {
            return Ok(HandleRef::Id(id));
        }
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        url.map(HandleRef::Url).ok_or_else(|| {
            "a handle is named by its id (h- and 32 lowercase hexadecimal digits) or by its URL"
                .into()
        })
    }
}

impl Client {
    pub(crate) fn new(server: Url, token: Option<Secret>) -> Result<Client, ClientError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // The token would go along: the library takes no header of OpenStack's for a credential.
            .redirect(Policy::none());
        if server.scheme() == "http" {
            // Without this, a system that has no certificates could not even speak plain HTTP.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|source| ClientError::Build { source })?;
        Ok(Client { http, server, token })
    }

    pub(crate) async fn create(&self, asked: &CreateHandle) -> Result<CreatedHandle, ClientError> {
        let url = self.handles_url(&[])?;
        self.ask(self.request(Method::POST, url).json(asked), ANSWER_TIMEOUT).await
    }

    pub(crate) async fn list(
        &self,
        limit: Option<usize>,
        marker: Option<&HandleId>,
    ) -> Result<HandlePage, ClientError> {
        let mut url = self.handles_url(&[])?;
        if let Some(limit) = limit {
            url.query_pairs_mut().append_pair("limit", &limit.to_string());
        }
        if let Some(marker) = marker {
            url.query_pairs_mut().append_pair("marker", marker.as_str());
        }
        self.ask(self.request(Method::GET, url), ANSWER_TIMEOUT).await
    }

    /// The handle: at once, or when there is something newer than `version`, or after `wait`.
    pub(crate) async fn show(
        &self,
        handle: &HandleRef,
        wait: Duration,
        version: Option<u64>,
    ) -> Result<HandleView, ClientError> {
        let mut url = self.handle_url(handle, None)?;
        if !wait.is_zero() {
            url.query_pairs_mut().append_pair("wait", &format!("{}ms", wait.as_millis()));
        }
        if let Some(version) = version {
            url.query_pairs_mut().append_pair("version", &version.to_string());
        }
        self.ask(self.request(Method::GET, url), wait + ANSWER_TIMEOUT).await
    }

    /// What is known of an instance: at once, or when there is something newer than `version`, or after
    /// `wait`.
    pub(crate) async fn instance(
        &self,
        id: InstanceId,
        wait: Duration,
        version: Option<u64>,
    ) -> Result<InstanceView, ClientError> {
        let mut url = self.url_below(&["api", "v1", "instances", &id.to_string()])?;
        if !wait.is_zero() {
            url.query_pairs_mut().append_pair("wait", &format!("{}ms", wait.as_millis()));
        }
        if let Some(version) = version {
            url.query_pairs_mut().append_pair("version", &version.to_string());
        }
        self.ask(self.request(Method::GET, url), wait + ANSWER_TIMEOUT).await
    }

    /// Who has signalled a stack of Heat's.
    pub(crate) async fn stack(&self, id: &str) -> Result<StackView, ClientError> {
        let url = self.url_below(&["api", "v1", "stacks", id])?;
        self.ask(self.request(Method::GET, url), ANSWER_TIMEOUT).await
    }

    /// Whether the admin surface, which then is the server, says that the relay is ready.
    pub(crate) async fn ready(&self) -> Result<(), ClientError> {
        let mut url = self.server.clone();
        url.set_path("readyz");
        self.send(self.request(Method::GET, url).timeout(ANSWER_TIMEOUT)).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, id: &HandleId) -> Result<(), ClientError> {
        let url = self.handles_url(&[id.as_str()])?;
        let request = self.request(Method::DELETE, url).timeout(ANSWER_TIMEOUT);
        self.send(request).await?;
        Ok(())
    }

    /// Signals a handle, or whatever a URL names: Heat's URLs are signalled by PUT as well.
    pub(crate) async fn signal(
        &self,
        handle: &HandleRef,
        signal: &Signal,
    ) -> Result<Option<SignalAnswer>, ClientError> {
        let url = match handle {
            HandleRef::Id(id) => self.handles_url(&[id.as_str(), "signals"])?,
            HandleRef::Url(url) => url.clone(),
        };
        let request = self.request(Method::PUT, url).body(signal.to_json());
        let response = self.send(request.timeout(ANSWER_TIMEOUT)).await?;
        Ok(response.json().await.ok())
    }

    /// The events of a handle that come after the one with the id `last`. Nothing when there are none
    /// to come.
    pub(crate) async fn events(
        &self,
        handle: &HandleRef,
        last: Option<&str>,
    ) -> Result<Option<EventReader>, ClientError> {
        let url = self.handle_url(handle, Some("events"))?;
        let mut request = self.request(Method::GET, url);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = self.send(request).await?;
        let has_stream = response.status() != StatusCode::NO_CONTENT;
        Ok(has_stream.then(|| EventReader::new(response)))
    }

    fn handles_url(&self, below: &[&str]) -> Result<Url, ClientError> {
        let parts: Vec<&str> = HANDLES.iter().chain(below).copied().collect();
        self.url_below(&parts)
    }

    /// A path below the relay's URL.
    fn url_below(&self, parts: &[&str]) -> Result<Url, ClientError> {
        let mut url = self.server.clone();
        {
            let mut path = url.path_segments_mut().map_err(|()| ClientError::BadServer)?;
            path.pop_if_empty().extend(parts);
        }
        Ok(url)
    }

    fn handle_url(&self, handle: &HandleRef, below: Option<&str>) -> Result<Url, ClientError> {
        match handle {
            HandleRef::Id(id) => {
                let parts: Vec<&str> = [Some(id.as_str()), below].into_iter().flatten().collect();
                self.handles_url(&parts)
            }
            HandleRef::Url(url) => {
                let mut url = url.clone();
                if let Ok(mut path) = url.path_segments_mut() {
                    path.pop_if_empty().extend(below);
                }
                Ok(url)
            }
        }
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let is_signed = url.query().is_some_and(|query| query.contains("temp_url_sig="));
        let request = self.http.request(method, url);
        match &self.token {
            // A URL that carries its own permit may lead to somebody else's relay.
            Some(token) if !is_signed => request.header("X-Auth-Token", token.expose()),
            _ => request,
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let response = self.send(request.timeout(timeout)).await?;
        let host = host_of(response.url());
        let body = response.bytes().await.map_err(|source| ClientError::Send {
            host: host.clone(),
            source: source.without_url(),
        })?;
        serde_json::from_slice(&body)
            .map_err(|_| ClientError::BadAnswer { host, shown: shown(&body) })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        // Signed URLs are secrets, and an error of the HTTP library would print the whole URL.
        let response = request.send().await.map_err(|source| ClientError::Send {
            host: source.url().map_or_else(|| host_of(&self.server), host_of),
            source: source.without_url(),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let leads_to = leads_to(&response);
        let body = response.bytes().await.unwrap_or_default();
        let (code, message) = match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(answer) => (answer.error.code, answer.error.message),
            Err(_) if status.is_redirection() => {
                let message = match leads_to {
                    Some(url) => format!("redirects are not followed, and this one leads to {url}"),
                    None => "redirects are not followed".to_owned(),
                };
                (format!("http_{}", status.as_u16()), message)
            }
            Err(_) => (format!("http_{}", status.as_u16()), shown(&body)),
        };
        Err(ClientError::Refused { status, code, message, retry_after })
    }
}

/// Host and port of a URL: what an error may say of it.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Where a redirect leads, without what may let somebody in there.
fn leads_to(response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut url = response.url().join(location).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    let is_bare = url.username().is_empty() && url.password().is_none();
    is_bare.then_some(url)
}

fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;

    use super::*;

    #[test]
    fn a_handle_is_named_by_id_or_url() {
        let id = "h-0123456789abcdef0123456789abcdef";
        assert!(matches!(HandleRef::parse(id), Ok(HandleRef::Id(_))));
        assert!(matches!(HandleRef::parse("http://relay/api"), Ok(HandleRef::Url(_))));
        for text in ["", "h-1", "ftp://relay", "relay"] {
            assert!(HandleRef::parse(text).is_err(), "{text}");
        }
    }

    fn check(server: &str, handle: &str, below: Option<&str>, expect: &str) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::new(server.parse().unwrap(), None).expect("a client");
        let handle = HandleRef::parse(handle).expect("a handle");
        let url = client.handle_url(&handle, below).expect("a URL");
        assert_eq!(url.as_str(), expect);
    }

    #[test]
    fn urls_keep_the_prefix_and_the_signature() {
        let id = "h-0123456789abcdef0123456789abcdef";
        check("http://a:1", id, None, &format!("http://a:1/api/v1/handles/{id}"));
        check("http://a/p/", id, Some("events"), &format!("http://a/p/api/v1/handles/{id}/events"));
        check(
            "http://a",
            "http://b/h?temp_url_sig=s&temp_url_expires=1",
            Some("events"),
            "http://b/h/events?temp_url_sig=s&temp_url_expires=1",
        );
    }

    /// Two names of the loopback are two servers.
    #[tokio::test]
    async fn the_token_is_for_the_relay_alone() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let app = Router::new().fallback(async move |request: Request| {
            let is_told = request.headers().contains_key("x-auth-token");
            sender.send((request.uri().path().to_owned(), is_told)).unwrap();
            let to = format!("http://localhost:{}/elsewhere?temp_url_sig=s", address.port());
            (StatusCode::TEMPORARY_REDIRECT, [("location", to)])
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        let server = format!("http://{address}").parse().unwrap();
        let client = Client::new(server, Some(Secret::new("token".to_owned()))).expect("a client");
        let error = client.list(None, None).await.unwrap_err();
        let expect = format!(
            "the relay answered 307 Temporary Redirect: redirects are not followed, and this one leads \
             to http://localhost:{}/elsewhere",
            address.port()
        );
        assert_eq!(error.to_string(), expect);
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [("/api/v1/handles".to_owned(), true)]);
    }
}
