//! Straight to the handle over HTTP.
//!
//! A signal has a `Content-Length` and is never sent chunked, because proxies on the way lose
//! chunked bodies. Redirects are not followed: a handle is a credential for one host. Trust is
//! the system's certificates and those of the agent's configuration and the document. No proxy of
//! the environment is used, because most handles are on the instance's own network.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response};
use signal_protocol::signal::Signal;
use url::Url;

use crate::fetch::{self, host_of};
use crate::signal::{Handle, SendError, Spelling, Transport, heat};
use crate::text;

/// A relay answers in milliseconds; Neutron's metadata proxy gives up after 32 s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(40);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of the other side's words goes into an error.
const MAX_MESSAGE_BYTES: usize = 300;

/// PUT to a URL, or POST to Heat.
#[derive(Debug, Default)]
pub struct Direct {
    /// PEM; trusted beside the system's.
    authorities: Vec<String>,
    plain: OnceLock<Client>,
    secure: OnceLock<Client>,
}

impl Direct {
    pub fn new(authorities: Vec<String>) -> Direct {
        Direct { authorities, ..Direct::default() }
    }

    /// The client for the URL's scheme. The one for HTTPS loads the system's certificates, which
    /// costs a megabyte, so it is made only when it is needed.
    fn client(&self, url: &Url) -> Result<&Client, SendError> {
        let is_secure = url.scheme() == "https";
        let slot = if is_secure { &self.secure } else { &self.plain };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ATTEMPT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .no_proxy();
        builder = match is_secure {
            true => builder.tls_certs_merge(self.certificates()?),
            false => builder.tls_certs_only([]),
        };
        let client =
            builder.build().map_err(|source| SendError::NoClient { source: source.into() })?;
        Ok(slot.get_or_init(|| client))
    }

    fn certificates(&self) -> Result<Vec<Certificate>, SendError> {
        let certificates = fetch::certificates(&self.authorities);
        certificates.map_err(|source| SendError::NoClient { source: source.into() })
    }

    fn request(
        &self,
        method: Method,
        url: &Url,
        body: String,
    ) -> Result<RequestBuilder, SendError> {
        let request = self.client(url)?.request(method, url.clone());
        Ok(request.header(CONTENT_TYPE, "application/json").body(body))
    }

    async fn token(
        &self,
        auth_url: &Url,
        user_id: &str,
        password: &str,
        project_id: &str,
    ) -> Result<String, SendError> {
        let url = heat::token_url(auth_url);
        let body = heat::token_request(user_id, password, project_id).to_string();
        let response = acknowledged(&url, self.request(Method::POST, &url, body)?).await?;
        let token = response.headers().get("x-subject-token").and_then(|token| token.to_str().ok());
        token.map(str::to_owned).ok_or(SendError::NoToken)
    }

    async fn put(&self, url: &Url, body: String) -> Result<(), SendError> {
        acknowledged(url, self.request(Method::PUT, url, body)?).await.map(drop)
    }

    async fn put_spelled(
        &self,
        url: &Url,
        spelling: Spelling,
        body: &str,
    ) -> Result<(), SendError> {
        let heat = || body.to_owned();
        let cloud_formation = || Signal::respelled(body.as_bytes()).unwrap_or_else(heat);
        match spelling {
            Spelling::Heat => self.put(url, heat()).await,
            Spelling::CloudFormation => self.put(url, cloud_formation()).await,
            Spelling::Either => match self.put(url, cloud_formation()).await {
                // The first refusal is told if both are refused.
                Err(error @ SendError::Refused { .. }) => {
                    self.put(url, heat()).await.map_err(|_| error)
                }
                sent => sent,
            },
        }
    }

    async fn post(&self, url: &Url, token: &str, body: &str) -> Result<(), SendError> {
        let request = self.request(Method::POST, url, body.to_owned())?;
        acknowledged(url, request.header("x-auth-token", token)).await.map(drop)
    }
}

#[async_trait]
impl Transport for Direct {
    async fn send(&self, handle: &Handle, body: &str) -> Result<(), SendError> {
        match handle {
            Handle::Put { url, spelling } => self.put_spelled(url, *spelling, body).await,
            Handle::HeatToken { url, token } => self.post(url, token, body).await,
            Handle::HeatPassword { url, auth_url, user_id, password, project_id } => {
                let token = self.token(auth_url, user_id, password, project_id).await?;
                self.post(url, &token, body).await
            }
            Handle::Instance => Err(SendError::Refused {
                host: handle.host(),
                status: 0,
                message: "only a relay at the metadata address knows this instance".to_owned(),
            }),
        }
    }
}

async fn acknowledged(url: &Url, request: RequestBuilder) -> Result<Response, SendError> {
    let host = host_of(url);
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            return Err(SendError::NoAnswer { host, source: error.without_url().into() });
        }
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let words = response.chunk().await.ok().flatten().unwrap_or_default();
    let message = text::clean(&String::from_utf8_lossy(&words), MAX_MESSAGE_BYTES);
    let error = SendError::of_status(&host, status.as_u16(), retry_after, message);
    error.map_or(Ok(response), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::StatusCode;

    use super::*;

    /// What a server that takes bodies with this in them got, and what became of the signal.
    async fn told(spelling: Spelling, wanted: &'static str) -> (Vec<String>, Result<(), String>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&bodies);
        let app = Router::new().fallback(async move |body: String| {
            let is_good = body.contains(wanted);
            seen.lock().unwrap().push(body);
            if is_good { StatusCode::OK } else { StatusCode::BAD_REQUEST }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url =
            format!("http://{}/v1/waitcondition/arn?Signature=1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let handle = Handle::from_url(&url).unwrap().spelled(spelling);
        let body = "{\"status\":\"SUCCESS\",\"reason\":\"r\",\"id\":\"1\",\"data\":{\"a\":1}}";
        let sent = Direct::default().send(&handle, body).await;
        let bodies = bodies.lock().unwrap().clone();
        (bodies, sent.map_err(|error| error.code().to_owned()))
    }

    #[tokio::test]
    async fn a_signal_is_spelled_as_the_handle_wants_it() {
        const AWS: &str =
            "{\"Status\":\"SUCCESS\",\"Reason\":\"r\",\"UniqueId\":\"1\",\"Data\":{\"a\":1}}";
        let refused = || Err("signal_refused".to_owned());
        let (bodies, sent) = told(Spelling::CloudFormation, "UniqueId").await;
        assert_eq!((bodies.as_slice(), sent), (&[AWS.to_owned()][..], Ok(())));
        let (bodies, sent) = told(Spelling::CloudFormation, "\"status\"").await;
        assert_eq!((bodies.len(), sent), (1, refused()));
        let (bodies, sent) = told(Spelling::Heat, "\"status\"").await;
        assert_eq!((bodies.len(), sent), (1, Ok(())));
        let (bodies, sent) = told(Spelling::Either, "UniqueId").await;
        assert_eq!((bodies.len(), sent), (1, Ok(())));
        let (bodies, sent) = told(Spelling::Either, "\"status\"").await;
        assert_eq!((bodies.len(), sent), (2, Ok(())));
        let (bodies, sent) = told(Spelling::Either, "neither").await;
        assert_eq!((bodies.len(), sent), (2, refused()));
    }
}
