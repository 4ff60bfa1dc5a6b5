//! Fetching an image from a registry without the engine.
//!
//! The engine pulls wherever it can: it has a cache of layers and knows every registry's habits. But
//! it cannot be told for one pull which certificate authority to trust, that a registry speaks plain
//! HTTP, or (Podman) a bearer token: that is configuration of the host, in `/etc/docker/certs.d` or
//! `daemon.json`, trusted from then on for everything that anybody pulls there, and out of reach
//! for an agent in a sandbox. So for a registry with `ca`, `insecure` or `token` the agent fetches
//! manifest, configuration and layers itself and loads them into the engine; nothing on the host
//! changes. It speaks the OCI distribution specification's pull, version 1.1: `GET manifests`,
//! `GET blobs`, and Basic or Bearer authentication as the registry challenges for.

mod challenge;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::engine::pull::{PullProblem, PullProgress};
use crate::error::chain;
use crate::fetch::digest::Digest;
use crate::fetch::{self, Download, FetchError, Trust, host_of, read_bounded, redirect};
use crate::image::archive::{MAX_ARCHIVE_BYTES, MAX_CONFIG_BYTES};
use crate::image::bundle::{Bundle, Extent};
use crate::image::manifest::{
    self, Descriptor, MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES, Manifest, ManifestError, Platform,
};
use crate::image::mirror::Candidate;
use crate::image::registry::challenge::Challenge;
use crate::plan::{ImageReference, RegistryAccess};

/// Where images without a registry in their name come from, and where that is asked.
pub(crate) const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_REGISTRY_HOST: &str = "registry-1.docker.io";

/// Tokens with many claims have 4 KiB.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// Why an image was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("registry's address cannot be used")]
    Address,
    #[error("registry cannot be asked")]
    Fetch(#[source] FetchError),
    #[error("registry refused access (status {status})")]
    Unauthorized { status: u16 },
    #[error("registry asks for an authentication that is not supported")]
    Challenge,
    #[error("registry has no such image")]
    NotFound,
    #[error("registry answered with the digest {found} instead of {expected}")]
    Digest { expected: String, found: String },
    #[error("manifest cannot be used")]
    Manifest(#[source] ManifestError),
}

impl RegistryError {
    pub fn problem(&self) -> PullProblem {
        match self {
            RegistryError::Unauthorized { .. } | RegistryError::Challenge => {
                PullProblem::Unauthorized
            }
            RegistryError::NotFound => PullProblem::NotFound,
            RegistryError::Digest { .. } => PullProblem::DigestMismatch,
            RegistryError::Manifest(ManifestError::Platform { .. }) => PullProblem::WrongPlatform,
            RegistryError::Fetch(FetchError::Digest { .. }) => PullProblem::DigestMismatch,
            RegistryError::Fetch(FetchError::Refused { status: 429, .. }) => {
                PullProblem::RateLimited
            }
            RegistryError::Fetch(FetchError::Authority { .. }) => PullProblem::Tls,
            RegistryError::Fetch(error) => match PullProblem::of(&chain(error)) {
                PullProblem::Other if matches!(error, FetchError::Broken { .. }) => {
                    PullProblem::BrokenStream
                }
                problem => problem,
            },
            RegistryError::Address | RegistryError::Manifest(_) => PullProblem::Other,
        }
    }

    /// A server that answers, and not as a registry does, will not change.
    pub fn is_retriable(&self) -> bool {
        match self {
            RegistryError::Fetch(error) => error.is_retriable() && self.problem().is_retriable(),
            _ => false,
        }
    }
}

/// One repository of one registry.
#[derive(Debug)]
pub(crate) struct Repository<'a> {
    client: Client,
    /// `https://host/v2/repository/`.
    base: Url,
    access: &'a RegistryAccess,
    trust: &'a Trust,
    /// What the registry was satisfied with last.
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Repository<'_> {
    /// Fetches the image that the candidate names. A registry that the document calls insecure is
    /// asked over TLS without looking at its certificate, and if it speaks none, over plain HTTP.
    pub(crate) async fn fetch_from(
        candidate: &Candidate,
        trust: &Trust,
        platform: &Platform,
        directory: &Path,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Bundle, RegistryError> {
        let Candidate { reference, access } = candidate;
        let secure = Repository::new(reference, access, trust, "https")?;
        let fetched = secure.fetch(reference, platform, directory, progress).await;
        match fetched {
            Err(error) if access.insecure && error.problem() == PullProblem::Tls => {
                let plain = Repository::new(reference, access, trust, "http")?;
                plain.fetch(reference, platform, directory, progress).await
            }
            fetched => fetched,
        }
    }

    fn new<'a>(
        image: &ImageReference,
        access: &'a RegistryAccess,
        trust: &'a Trust,
        scheme: &str,
    ) -> Result<Repository<'a>, RegistryError> {
        let (host, repository) = match image.registry.as_deref() {
            None | Some(DEFAULT_REGISTRY) if !image.repository.contains('/') => {
                (DEFAULT_REGISTRY_HOST, format!("library/{}", image.repository))
            }
            None | Some(DEFAULT_REGISTRY) => (DEFAULT_REGISTRY_HOST, image.repository.clone()),
            Some(host) => (host, image.repository.clone()),
        };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{repository}/"));
        let base = base.map_err(|_| RegistryError::Address)?;
        let client = fetch::client(&base, trust).map_err(RegistryError::Fetch)?;
        let given = access.token.as_ref().map(|token| authorization("Bearer", token));
        let authorization = Mutex::new(given.transpose()?);
        Ok(Repository { client, base, access, trust, authorization })
    }

    /// Fetches the image that the reference names, checked from its manifest on. Layers stay in
    /// `directory`, so that a second attempt finds those that the first had.
    async fn fetch(
        &self,
        image: &ImageReference,
        platform: &Platform,
        directory: &Path,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Bundle, RegistryError> {
        let pinned = image.digest.as_deref().and_then(Digest::parse);
        let mut bytes = self.manifest(image.tag_or_digest(), pinned.as_ref()).await?;
        for _ in 0..MAX_INDEX_DEPTH {
            match Manifest::parse(&bytes).map_err(RegistryError::Manifest)? {
                Manifest::Index(variants) => {
                    let variant = manifest::choose(&variants, platform);
                    let digest = variant.and_then(Descriptor::digest);
                    let digest = digest.map_err(RegistryError::Manifest)?;
                    bytes = self.manifest(&digest.to_string(), Some(&digest)).await?;
                }
                Manifest::Image { config, layers } => {
                    let config = self.config(&config).await?;
                    let layers = self.layers(&layers, directory, progress).await?;
                    return Ok(Bundle { config, layers });
                }
            }
        }
        let why = ManifestError::Kind("an index leads to an index, and so on");
        Err(RegistryError::Manifest(why))
    }

    async fn manifest(
        &self,
        reference: &str,
        expected: Option<&Digest>,
    ) -> Result<Vec<u8>, RegistryError> {
        let response = self.get(self.url("manifests", reference)?).await?;
        let body = read_bounded(response, &host_of(&self.base), MAX_MANIFEST_BYTES).await;
        let body = body.map_err(RegistryError::Fetch)?;
        checked(body, expected)
    }

    async fn config(&self, config: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let digest = config.digest().map_err(RegistryError::Manifest)?;
        let response = self.get(self.url("blobs", &digest.to_string())?).await?;
        let body = read_bounded(response, &host_of(&self.base), MAX_CONFIG_BYTES).await;
        checked(body.map_err(RegistryError::Fetch)?, Some(&digest))
    }

    async fn layers(
        &self,
        layers: &[Descriptor],
        directory: &Path,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Vec<(Digest, Extent)>, RegistryError> {
        let bytes_total: u64 = layers.iter().map(|layer| layer.size).sum();
        let mut fetched = Vec::new();
        let mut bytes_before = 0;
        for layer in layers {
            let digest = layer.digest().map_err(RegistryError::Manifest)?;
            let path = directory.join(digest.hex());
            let n_layers_done = fetched.len();
            let report = |bytes: u64, _: Option<u64>| {
                let bytes_done = bytes_before + bytes;
                let n_layers = layers.len();
                progress(PullProgress { n_layers, n_layers_done, bytes_done, bytes_total });
            };
            if !is_there(&path, &digest).await {
                self.layer(layer, &digest, &path, &report).await?;
            }
            bytes_before += layer.size;
            fetched.push((digest, Extent { path, offset: 0, n_bytes: layer.size }));
        }
        Ok(fetched)
    }

    /// A token lives for minutes, and a layer may come after it.
    async fn layer(
        &self,
        layer: &Descriptor,
        digest: &Digest,
        path: &Path,
        report: &(dyn Fn(u64, Option<u64>) + Send + Sync),
    ) -> Result<(), RegistryError> {
        let url = self.url("blobs", &digest.to_string())?;
        let mut is_second = false;
        loop {
            let what = Download {
                url: &url,
                headers: self.authorization_header(),
                max_bytes: layer.size.min(MAX_ARCHIVE_BYTES),
                digest: Some(digest),
            };
            match fetch::download(&self.client, &what, path, report).await {
                Ok(_) => return Ok(()),
                Err(FetchError::Refused { status: 401, .. }) if !is_second => {
                    // Asking in the usual way gets a new token.
                    drop(self.get(url.clone()).await?);
                    is_second = true;
                }
                Err(error) => return Err(RegistryError::Fetch(error)),
            }
        }
    }

    /// GETs, and does once what the registry challenges for.
    async fn get(&self, url: Url) -> Result<Response, RegistryError> {
        let response = self.send(url.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return accepted(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges = challenges.filter_map(|value| Challenge::parse(value.to_str().ok()?));
        let challenge = challenges.max().ok_or(RegistryError::Challenge)?;
        let authorization = self.answer(&challenge).await?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        accepted(self.send(url).await?)
    }

    async fn send(&self, url: Url) -> Result<Response, RegistryError> {
        let accept = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))]);
        let sent = redirect::get(&self.client, &url, &self.authorization_header(), &accept).await;
        sent.map_err(RegistryError::Fetch)
    }

    /// What to send so that the registry is satisfied.
    async fn answer(&self, challenge: &Challenge) -> Result<HeaderValue, RegistryError> {
        let refused = RegistryError::Unauthorized { status: 401 };
        let basic = match (&self.access.username, &self.access.password) {
            (Some(username), Some(password)) => {
                let both = STANDARD.encode(format!("{username}:{password}"));
                Some(authorization("Basic", &both)?)
            }
            _ => None,
        };
        let realm = match challenge {
            // Refused although a token was given: it is the wrong one.
            _ if self.access.token.is_some() => return Err(refused),
            Challenge::Basic => return basic.ok_or(refused),
            Challenge::Bearer { realm, .. } => realm,
        };
        let url = challenge.token_url(realm).ok_or(RegistryError::Challenge)?;
        if url.scheme() != "https" && !self.access.insecure && basic.is_some() {
            // A password does not leave in plain text because a registry says so.
            return Err(RegistryError::Challenge);
        }
        let client = fetch::client(&url, self.trust).map_err(RegistryError::Fetch)?;
        let host = host_of(&url);
        let own = HeaderMap::from_iter(basic.map(|basic| (AUTHORIZATION, basic)));
        let response = redirect::get(&client, &url, &own, &HeaderMap::new()).await;
        let response = response.map_err(RegistryError::Fetch)?;
        let body = read_bounded(accepted(response)?, &host, MAX_TOKEN_BYTES).await;
        let body = body.map_err(RegistryError::Fetch)?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| RegistryError::Challenge)?;
        let token = answer.token.or(answer.access_token).ok_or(RegistryError::Challenge)?;
        authorization("Bearer", &token)
    }

    fn authorization_header(&self) -> HeaderMap {
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let header = authorization.clone().map(|value| (AUTHORIZATION, value));
        HeaderMap::from_iter(header)
    }

    fn url(&self, kind: &str, reference: &str) -> Result<Url, RegistryError> {
        self.base.join(&format!("{kind}/{reference}")).map_err(|_| RegistryError::Address)
    }
}

fn authorization(scheme: &str, credential: &str) -> Result<HeaderValue, RegistryError> {
    let value = HeaderValue::from_str(&format!("{scheme} {credential}"));
    let mut value = value.map_err(|_| RegistryError::Unauthorized { status: 401 })?;
    value.set_sensitive(true);
    Ok(value)
}

fn accepted(response: Response) -> Result<Response, RegistryError> {
    match response.status().as_u16() {
        200 => Ok(response),
        status @ (401 | 403) => Err(RegistryError::Unauthorized { status }),
        404 => Err(RegistryError::NotFound),
        status => {
            let host = host_of(response.url());
            Err(RegistryError::Fetch(FetchError::Refused { host, status }))
        }
    }
}

fn checked(bytes: Vec<u8>, expected: Option<&Digest>) -> Result<Vec<u8>, RegistryError> {
    let Some(expected) = expected else { return Ok(bytes) };
    let found = expected.of(&bytes);
    if found != *expected {
        let (expected, found) = (expected.to_string(), found.to_string());
        return Err(RegistryError::Digest { expected, found });
    }
    Ok(bytes)
}

/// Whether an earlier attempt has fetched the layer.
async fn is_there(path: &Path, digest: &Digest) -> bool {
    let (path, digest) = (path.to_owned(), digest.clone());
    let looked = tokio::task::spawn_blocking(move || {
        path.exists() && fetch::digest_of(&path, &digest).is_ok_and(|found| found == digest)
    });
    looked.await.unwrap_or(false)
}

#[cfg(test)]
mod tests;
