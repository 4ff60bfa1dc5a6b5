//! The relay's own requests to the services of the cloud: Keystone, heat-api, heat-api-cfn.
//!
//! Their addresses come from the configuration and from nowhere else. No redirect is followed and no
//! proxy is looked for: a token must not travel to a place that nobody named.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Response};
use serde::{Deserialize, Serialize};
use url::Url;

/// How long a connection may take to be made: services of one cloud are milliseconds apart, and a lost
/// first packet is sent again after one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The most that is read of an answer, in bytes. A token with hundreds of roles has some 50 kB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The address of a service: `http://` or `https://`, a host, perhaps a port and a path, no slash at its
/// end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceUrl(String);

/// The text is not the address of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of a service is http:// or https://, a host, and nothing after the path: no user, query or fragment"
)]
pub struct ServiceUrlError;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    #[error("failed to read the certificates in {path}")]
    ReadCertificates { path: PathBuf, source: io::Error },
    #[error("{path} holds no certificates in PEM")]
    ParseCertificates { path: PathBuf, source: reqwest::Error },
    #[error("failed to set up the HTTP client")]
    Build { source: reqwest::Error },
}

/// Why an answer could not be read whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    #[error("the answer broke off")]
    BrokenOff { source: reqwest::Error },
    #[error("the answer has more than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
}

impl ServiceUrl {
    /// The whole address of `path_and_query`, which begins with a slash. Nothing where the URL library
    /// would change the path: what is sent is what was asked for, or nothing is sent.
    pub(crate) fn join(&self, path_and_query: &str) -> Option<Url> {
        let text = format!("{}{path_and_query}", self.0);
        let url = Url::parse(&text).ok()?;
        (url.as_str() == text).then_some(url)
    }

    /// The address of a version of an API; the operator may or may not have written the version.
    pub(crate) fn with_version(&self, version: &str) -> ServiceUrl {
        let suffix = format!("/{version}");
        if self.0.ends_with(&suffix) {
            return self.clone();
        }
        ServiceUrl(format!("{}{suffix}", self.0))
    }

    fn is_encrypted(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    fn from_str(text: &str) -> Result<ServiceUrl, ServiceUrlError> {
        let url = Url::parse(text).map_err(|_| ServiceUrlError)?;
        let has_more = !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some();
        if has_more || !url.has_host() || !matches!(url.scheme(), "http" | "https") {
            return Err(ServiceUrlError);
        }
        Ok(ServiceUrl(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = ServiceUrlError;

    fn try_from(text: String) -> Result<ServiceUrl, ServiceUrlError> {
        text.parse()
    }
}

impl From<ServiceUrl> for String {
    fn from(url: ServiceUrl) -> String {
        url.0
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A client for `services`, each request of which ends within `timeout`.
///
/// With `ca_file`, the certificates in it are the only ones that are trusted; without, those of the
/// system are. A client that will not encrypt needs neither, and so starts on a system without any.
pub(crate) fn client<'a>(
    services: impl IntoIterator<Item = &'a ServiceUrl>,
    ca_file: Option<&Path>,
    timeout: Duration,
) -> Result<Client, ClientError> {
    let builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .redirect(Policy::none())
        // A connection that the other side is about to close fails whatever is sent next, and some servers
        // in front of Keystone close each one without saying so.
        .pool_max_idle_per_host(0)
        .no_proxy()
        .user_agent(concat!("heliograph-server/", env!("CARGO_PKG_VERSION")));
    let encrypts = services.into_iter().any(ServiceUrl::is_encrypted);
    let builder = match ca_file {
        Some(path) => trust_only(builder, path)?,
        None if encrypts => builder,
        None => builder.tls_certs_only([]),
    };
    builder.build().map_err(|source| ClientError::Build { source })
}

fn trust_only(builder: ClientBuilder, path: &Path) -> Result<ClientBuilder, ClientError> {
    let pem = fs::read(path)
        .map_err(|source| ClientError::ReadCertificates { path: path.to_owned(), source })?;
    let certificates = Certificate::from_pem_bundle(&pem)
        .map_err(|source| ClientError::ParseCertificates { path: path.to_owned(), source })?;
    Ok(builder.tls_certs_only(certificates))
}

/// The body of an answer, up to [`MAX_ANSWER_BYTES`].
pub(crate) async fn read_answer(mut response: Response) -> Result<Bytes, AnswerError> {
    let mut body = BytesMut::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|source| AnswerError::BrokenOff { source })?
    {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(AnswerError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let url = text.parse::<ServiceUrl>().ok().map(|url| url.to_string());
        assert_eq!(url.as_deref(), expect, "{text}");
    }

    #[test]
    fn a_service_is_named_by_scheme_host_and_path() {
        check("http://10.0.0.1:5000", Some("http://10.0.0.1:5000"));
        check("http://keystone/identity/v3/", Some("http://keystone/identity/v3"));
        check("https://[::1]:5000/v3", Some("https://[::1]:5000/v3"));
        for text in
            ["", "keystone:5000", "ftp://keystone", "http://u@k", "http://k/?a", "http://k/#a"]
        {
            check(text, None);
        }
    }

    #[test]
    fn a_version_is_added_once() {
        for text in ["http://k/identity", "http://k/identity/", "http://k/identity/v3"] {
            let url: ServiceUrl = text.parse().expect("a URL");
            assert_eq!(url.with_version("v3").to_string(), "http://k/identity/v3");
        }
    }

    /// A server that promises to keep each connection, and resets it as soon as it has answered. A client
    /// that kept one would now and then write into what is gone.
    #[tokio::test]
    async fn no_call_is_made_on_a_connection_that_was_used_before() {
        const N_CALLS: usize = 50;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move {
            for _ in 0..N_CALLS {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut request = [0; 4096];
                let n_bytes = stream.read(&mut request).await.expect("a request");
                assert!(request[..n_bytes].ends_with(b"\r\n\r\n"));
                let answer =
                    b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.expect("it is read");
                // What is read after this is answered with a reset.
                drop(stream);
            }
        });
        let url: ServiceUrl = format!("http://{address}").parse().expect("a URL");
        let client = client([&url], None, Duration::from_secs(30)).expect("a client");
        for _ in 0..N_CALLS {
            let response =
                client.get(url.join("/").expect("a path")).send().await.expect("an answer");
            assert_eq!(read_answer(response).await.expect("a body"), "ok");
        }
        server.await.expect("as many connections as calls");
    }

    #[test]
    fn a_path_that_would_be_changed_is_not_joined() {
        let url: ServiceUrl = "http://heat:8004/prefix".parse().expect("a URL");
        let join = |path: &str| url.join(path).map(String::from);
        let signed =
            "/v1/signal/arn%3Aopenstack%3Aheat%3A%3Ap%3Astacks/s/i?Signature=a%2Bb%3D&T=a+b";
        assert_eq!(join(signed), Some(format!("http://heat:8004/prefix{signed}")));
        for path in
            ["/v1/../admin", "/v1/%2e%2E/admin", "/v1/./a", "/v1/a b", "/v1/a\\b", "/v1/\u{fc}"]
        {
            assert_eq!(join(path), None, "{path}");
        }
    }
}
