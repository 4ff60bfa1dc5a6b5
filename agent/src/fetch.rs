//! Fetching a file over HTTP: resumed, bounded, streamed to disk, checked before anybody reads it.
//!
//! An image is hundreds of megabytes over a network that is still settling, so a connection that
//! breaks is taken up again where it broke (`Range`, guarded by `If-Range` where the server gives
//! a validator). A download ends in a file whose digest was compared, or in an error; a part is
//! never handed on.
//!
//! Trust is the system's certificates and those that the document brings. The document's proxies
//! are used, or else those of the environment, but never for link-local addresses: what is there
//! is the cloud's own, and a proxy cannot reach it.

pub(crate) mod digest;
pub(crate) mod redirect;

use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy, Response, StatusCode};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;
use url::{Host, Url};

use crate::error::BoxError;
use crate::fetch::digest::{Digest, Hasher};
use crate::plan::ProxyAccess;
use crate::retry::Schedule;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A server that sends nothing for so long has gone away.
pub(crate) const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Attempts that bring nothing; one that brings something starts the count anew.
const MAX_ATTEMPTS: u32 = 5;

/// Link-local addresses, which no proxy is asked for, also after a redirect.
const LINK_LOCAL: &str = "169.254.0.0/16,fe80::/10";

/// Whom to trust, and by whom to ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// PEM, beside the system's certificates.
    pub(crate) authorities: Vec<String>,
    /// The document says that this server's certificate is not to be checked.
    pub(crate) insecure: bool,
    /// The document's proxies. None: those of the environment.
    pub(crate) proxy: Option<ProxyAccess>,
}

/// What to fetch.
#[derive(Debug)]
pub(crate) struct Download<'a> {
    pub(crate) url: &'a Url,
    /// For the URL's own server, and nobody whom it sends on to.
    pub(crate) headers: HeaderMap,
    pub(crate) max_bytes: u64,
    /// None: nothing is known to compare it with.
    pub(crate) digest: Option<&'a Digest>,
}

/// Why a file could not be fetched. Errors name the host and never the URL, whose query may be a
/// signature.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("certificate authority given in the document cannot be read")]
    Authority { source: BoxError },
    #[error("proxy given in the document cannot be used")]
    Proxy { source: BoxError },
    #[error("client cannot be made")]
    Client { source: BoxError },
    #[error("{host} did not answer")]
    Unanswered { host: String, source: BoxError },
    #[error("{host} answered {status}")]
    Refused { host: String, status: u16 },
    #[error("redirect of {host} is not followed: {why}")]
    Redirected { host: String, why: &'static str },
    #[error("connection to {host} broke")]
    Broken { host: String, source: BoxError },
    #[error("it is larger than {max_bytes} bytes")]
    TooLarge { max_bytes: u64 },
    #[error("it has the digest {found} instead of {expected}")]
    Digest { expected: String, found: String },
    #[error("it cannot be written to {path}")]
    Write { path: String, source: io::Error },
}

impl FetchError {
    /// Whether the same request can succeed later without anybody's help.
    pub fn is_retriable(&self) -> bool {
        match self {
            FetchError::Unanswered { .. } | FetchError::Broken { .. } => true,
            FetchError::Refused { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            FetchError::Authority { .. }
            | FetchError::Proxy { .. }
            | FetchError::Client { .. }
            | FetchError::Redirected { .. }
            | FetchError::TooLarge { .. }
            | FetchError::Digest { .. }
            | FetchError::Write { .. } => false,
        }
    }
}

/// A client for one URL's server. Made anew for each, because trust differs from one to the next
/// and a boot asks a handful. It follows no redirect by itself: see [`redirect`].
pub(crate) fn client(url: &Url, trust: &Trust) -> Result<Client, FetchError> {
    built(builder(url, trust)?.read_timeout(SILENCE_TIMEOUT))
}

/// A client for a server that is silent while it takes a long body: each request has its own limit.
pub(crate) fn upload_client(url: &Url, trust: &Trust) -> Result<Client, FetchError> {
    built(builder(url, trust)?)
}

fn built(builder: ClientBuilder) -> Result<Client, FetchError> {
    builder.build().map_err(|source| FetchError::Client { source: source.into() })
}

fn builder(url: &Url, trust: &Trust) -> Result<ClientBuilder, FetchError> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        .referer(false)
        .http1_only();
    if is_link_local(url) {
        builder = builder.no_proxy();
    } else if let Some(proxy) = &trust.proxy {
        builder = through(builder, proxy)?;
    }
    if url.scheme() == "http" {
        // The system's certificates cost a megabyte, and a minimal image has none.
        builder = builder.tls_certs_only([]);
    } else {
        builder = builder
            .tls_certs_merge(certificates(&trust.authorities)?)
            .tls_danger_accept_invalid_certs(trust.insecure);
    }
    Ok(builder)
}

/// By the document's proxies, and by no other.
fn through(mut builder: ClientBuilder, access: &ProxyAccess) -> Result<ClientBuilder, FetchError> {
    builder = builder.no_proxy();
    let unusable =
        |source: reqwest::Error| FetchError::Proxy { source: source.without_url().into() };
    let direct = [&access.no_proxy.join(","), LINK_LOCAL].join(",");
    type Make = fn(&str) -> reqwest::Result<Proxy>;
    let proxies: [(_, Make); 2] =
        [(&access.http, |url| Proxy::http(url)), (&access.https, |url| Proxy::https(url))];
    for (url, make) in proxies {
        if let Some(url) = url {
            let proxy = make(url).map_err(unusable)?;
            builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&direct)));
        }
    }
    Ok(builder)
}

/// What stands in PEM.
pub(crate) fn certificates(authorities: &[String]) -> Result<Vec<Certificate>, FetchError> {
    let mut certificates = Vec::new();
    for authority in authorities {
        let parsed = Certificate::from_pem_bundle(authority.as_bytes());
        certificates
            .extend(parsed.map_err(|source| FetchError::Authority { source: source.into() })?);
    }
    Ok(certificates)
}

fn is_link_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_link_local(),
        Some(Host::Ipv6(address)) => address.is_unicast_link_local(),
        Some(Host::Domain(name)) => name
            .parse::<IpAddr>()
            .is_ok_and(|address| matches!(address, IpAddr::V4(v4) if v4.is_link_local())),
        None => false,
    }
}

/// The host and port, as errors and the console name a URL.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Fetches into `path`. What an interrupted call left there is overwritten; what an interrupted
/// connection left is taken up. `progress` is told the bytes so far and those to come, if known.
pub(crate) async fn download(
    client: &Client,
    what: &Download<'_>,
    path: &Path,
    progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
) -> Result<Digest, FetchError> {
    let mut partial = Partial::create(path, what.digest).await?;
    let mut n_failures = 0;
    loop {
        let n_before = partial.n_bytes;
        let Err(error) = attempt(client, what, &mut partial, progress).await else { break };
        if !error.is_retriable() {
            return Err(error);
        }
        n_failures = if partial.n_bytes > n_before { 1 } else { n_failures + 1 };
        if n_failures >= MAX_ATTEMPTS {
            return Err(error);
        }
        tracing::warn!(
            host = host_of(what.url),
            error = crate::error::chain(&error),
            download.n_bytes = partial.n_bytes,
            "download broke off, will go on"
        );
        tokio::time::sleep(Schedule::PULL.delay(n_failures)).await;
    }
    partial.finish(what.digest).await
}

/// Goes on from where `partial` is, until the end or an error.
async fn attempt(
    client: &Client,
    what: &Download<'_>,
    partial: &mut Partial<'_>,
    progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
) -> Result<(), FetchError> {
    let host = host_of(what.url);
    let mut resumption = HeaderMap::new();
    // Without a validator the file could be another by now; a digest would find out.
    let can_resume = partial.validator.is_some() || what.digest.is_some();
    if partial.n_bytes > 0 && can_resume {
        let range = format!("bytes={}-", partial.n_bytes);
        // Digits are a header's value.
        resumption.extend(HeaderValue::try_from(range).ok().map(|range| (RANGE, range)));
        resumption.extend(partial.validator.clone().map(|validator| (IF_RANGE, validator)));
    }
    let mut response = redirect::get(client, what.url, &what.headers, &resumption).await?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT if starts_at(&response, partial.n_bytes) => {}
        StatusCode::OK => partial.restart(&response).await?,
        status => return Err(FetchError::Refused { host, status: status.as_u16() }),
    }
    let expected = response.content_length().map(|rest| partial.n_bytes + rest);
    if expected.is_some_and(|expected| expected > what.max_bytes) {
        return Err(FetchError::TooLarge { max_bytes: what.max_bytes });
    }
    loop {
        let chunk = response.chunk().await.map_err(|source| FetchError::Broken {
            host: host.clone(),
            source: source.without_url().into(),
        })?;
        let Some(chunk) = chunk else { return Ok(()) };
        if partial.n_bytes + chunk.len() as u64 > what.max_bytes {
            return Err(FetchError::TooLarge { max_bytes: what.max_bytes });
        }
        partial.append(&chunk).await?;
        progress(partial.n_bytes, expected);
    }
}

/// Whether a partial answer is the part that was asked for.
fn starts_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

/// A file that is being filled, and the digest of what is in it.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    n_bytes: u64,
    hasher: Hasher,
    /// What says that the file on the server is still the same.
    validator: Option<HeaderValue>,
}

impl Partial<'_> {
    async fn create<'a>(
        path: &'a Path,
        digest: Option<&Digest>,
    ) -> Result<Partial<'a>, FetchError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(path).await.map_err(|source| failed_to_write(path, source))?;
        Ok(Partial { path, file, n_bytes: 0, hasher: Hasher::like(digest), validator: None })
    }

    async fn restart(&mut self, response: &Response) -> Result<(), FetchError> {
        self.validator = validator(response.headers());
        if self.n_bytes == 0 {
            return Ok(());
        }
        let emptied = async {
            self.file.set_len(0).await?;
            tokio::io::AsyncSeekExt::rewind(&mut self.file).await
        };
        emptied.await.map_err(|source| failed_to_write(self.path, source))?;
        (self.n_bytes, self.hasher) = (0, self.hasher.anew());
        Ok(())
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let written = self.file.write_all(bytes).await;
        written.map_err(|source| failed_to_write(self.path, source))?;
        self.hasher.update(bytes);
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    async fn finish(mut self, expected: Option<&Digest>) -> Result<Digest, FetchError> {
        self.file.flush().await.map_err(|source| failed_to_write(self.path, source))?;
        let found = self.hasher.finish();
        match expected {
            Some(expected) if *expected != found => {
                Err(FetchError::Digest { expected: expected.to_string(), found: found.to_string() })
            }
            _ => Ok(found),
        }
    }
}

/// A weak entity tag does not promise the same bytes.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let etag = headers.get(ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/"));
    etag.or_else(|| headers.get(LAST_MODIFIED)).cloned()
}

fn failed_to_write(path: &Path, source: io::Error) -> FetchError {
    FetchError::Write { path: path.display().to_string(), source }
}

/// A small answer, whole: JSON and manifests.
pub(crate) async fn read_bounded(
    mut response: Response,
    host: &str,
    max_bytes: u64,
) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    let broken = |source: reqwest::Error| FetchError::Broken {
        host: host.to_owned(),
        source: source.without_url().into(),
    };
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if (body.len() + chunk.len()) as u64 > max_bytes {
            return Err(FetchError::TooLarge { max_bytes });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The digest of a file that is there already.
pub(crate) fn digest_of(path: &Path, like: &Digest) -> io::Result<Digest> {
    digest_of_reader(std::fs::File::open(path)?, like)
}

/// The digest of all that can be read.
pub(crate) fn digest_of_reader(mut reader: impl Read, like: &Digest) -> io::Result<Digest> {
    let mut hasher = Hasher::like(Some(like));
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests;
