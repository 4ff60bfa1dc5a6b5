//! Asking a metadata service: small GETs over plain HTTP to one address.
//!
//! No proxy, no redirect, no name resolution: the address is link-local, and an answer from
//! anywhere else would be somebody else's. Answers are typed: 200 is data, 404 is the answer "there
//! is none", and everything else means that the service is broken for now. The headers that such
//! services forbid (`X-Forwarded-For`, `Expect`) are never sent.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{HOST, HeaderMap, HeaderValue};
use reqwest::{Client, Method, StatusCode, redirect};

use crate::datasource::BrokenReason;
use crate::error;

/// A service on the same host answers a connection at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Neutron's proxy asks Nova with 60 s at most, and on a full network it is the queue before it
/// that takes the time; a shorter limit would ask again and make the queue longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The name that stands in the URL; connections go to the address whatever it is.
const PLACEHOLDER_HOST: &str = "metadata.invalid";

/// One metadata service at one address.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    client: Client,
    address: SocketAddr,
    host: HeaderValue,
}

/// What a GET came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Data(Vec<u8>),
    NotFound,
}

impl Service {
    /// `host` is the Host header, which some services compare.
    pub(crate) fn new(address: SocketAddr, host: &str) -> Result<Service, BrokenReason> {
        let broken = |_| BrokenReason("its address cannot be a Host header".to_owned());
        let host = HeaderValue::from_str(host).map_err(broken)?;
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .resolve(PLACEHOLDER_HOST, address)
            // There is no TLS to a metadata service, and a minimal image has no certificates.
            .tls_certs_only([])
            .build()
            .map_err(|error| BrokenReason(error::chain(&error)))?;
        Ok(Service { client, address, host })
    }

    /// The body of one path, bounded.
    pub(crate) async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        max_bytes: u64,
    ) -> Result<Answer, BrokenReason> {
        let broken = |why: String| BrokenReason(format!("GET {path}: {why}"));
        let response = self.send(Method::GET, path, headers).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Answer::NotFound),
            status if status.is_redirection() => {
                let why = format!("answered {status}, and redirects are not followed");
                return Err(broken(why));
            }
            status => return Err(broken(format!("answered {status}"))),
        }
        read_body(response, max_bytes).await.map(Answer::Data).map_err(broken)
    }

    /// The body of a PUT without a body, if the service knows such a thing.
    pub(crate) async fn put(
        &self,
        path: &str,
        headers: HeaderMap,
        max_bytes: u64,
    ) -> Option<Vec<u8>> {
        let response = self.send(Method::PUT, path, headers).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        read_body(response, max_bytes).await.ok()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
    ) -> Result<reqwest::Response, String> {
        let url = format!("http://{PLACEHOLDER_HOST}:{}{path}", self.address.port());
        headers.insert(HOST, self.host.clone());
        let request = self.client.request(method, url).headers(headers);
        request.send().await.map_err(describe)
    }
}

/// The URL is ours and would only repeat the path.
fn describe(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    error::chain(&error.without_url())
}

async fn read_body(mut response: reqwest::Response, max_bytes: u64) -> Result<Vec<u8>, String> {
    let too_large = || format!("the answer is larger than {} KiB", max_bytes / 1024);
    if response.content_length().is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(describe)? {
        if (body.len() + chunk.len()) as u64 > max_bytes {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
