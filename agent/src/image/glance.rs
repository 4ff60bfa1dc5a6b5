//! Images out of OpenStack's image service, and into it (`upload`).
//!
//! The Nova driver for Docker kept container images in Glance, as images of the container format
//! `docker` whose data is an archive of `docker save`; so does this. Three requests: Keystone gives
//! a token (or was asked before, and the document has it) and the catalog, the catalog says where
//! Glance is, Glance says what the image's digest is. Then its data is a download like any other.
//! API pages: Identity v3 "Authentication and token management", Image v2 "Images" and "Image data".

pub(crate) mod upload;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::fetch::digest::Digest;
use crate::fetch::{self, FetchError, Trust, host_of, read_bounded};
use crate::plan::GlanceAccess;

/// A catalog of a large cloud has a few hundred endpoints.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// Where an image's data is, and how to get it.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Glance hashes what is uploaded; None for an image whose hash it does not know.
    pub(crate) digest: Option<Digest>,
}

/// Why Glance did not give, or take, an image.
#[derive(Debug, thiserror::Error)]
pub enum GlanceError {
    #[error("document has no `glance` section with auth_url and a token or application credential")]
    NoAccess,
    #[error("Keystone cannot be asked")]
    Keystone(#[source] FetchError),
    #[error("Keystone refused the credential (status {status})")]
    Credential { status: u16 },
    #[error("Keystone's answer cannot be read")]
    Answer,
    #[error("catalog has no image service{}", region.as_ref().map_or(String::new(), |region| format!(" in region {region}")))]
    NoEndpoint { region: Option<String> },
    #[error("Glance cannot be asked")]
    Glance(#[source] FetchError),
    #[error("Glance refuses the credential (status {status})")]
    Denied { status: u16 },
    /// A project's readers see its images and may not have their data.
    #[error("Glance does not give the image's data to this credential (status {status})")]
    Withheld { status: u16 },
    #[error("Glance does not take the image")]
    Upload(#[source] FetchError),
    #[error("Glance's answer cannot be read")]
    GlanceAnswer,
    #[error("Glance has no image with the id or name {image} that this credential may see")]
    NoSuchImage { image: String },
    #[error("Glance has {n} images of the name {image}: give the id")]
    Ambiguous { image: String, n: usize },
    #[error("image's container format is {format}, and `docker` is needed")]
    Format { format: String },
    #[error("image is {status} in Glance, not active")]
    NotActive { status: String },
}

impl GlanceError {
    pub fn is_retriable(&self) -> bool {
        match self {
            GlanceError::Keystone(error) | GlanceError::Glance(error) => error.is_retriable(),
            GlanceError::NotActive { status } => {
                matches!(status.as_str(), "queued" | "saving" | "importing")
            }
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    catalog: Vec<Service>,
}

#[derive(Deserialize)]
struct CatalogAnswer {
    catalog: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    #[serde(default)]
    region: Option<String>,
    url: String,
}

#[derive(Deserialize)]
struct ImageList {
    images: Vec<ImageFields>,
}

#[derive(Deserialize)]
struct ImageFields {
    id: String,
    status: String,
    container_format: Option<String>,
    os_hash_algo: Option<String>,
    os_hash_value: Option<String>,
}

/// Finds the image by its id, else by its name.
pub(crate) async fn locate(
    access: &GlanceAccess,
    image: &str,
    trust: &Trust,
) -> Result<Located, GlanceError> {
    let (token, endpoint) = authenticate(access, trust).await?;
    let client = fetch::client(&endpoint, trust).map_err(GlanceError::Glance)?;
    let images = at(&endpoint, &["v2", "images"])?;
    let mut headers = HeaderMap::new();
    headers.insert("x-auth-token", token);

    let by_id = client.get(at(&endpoint, &["v2", "images", image])?).headers(headers.clone());
    let found = match ask::<ImageFields>(by_id, &endpoint).await? {
        Some(found) => found,
        None => {
            let mut by_name = images;
            by_name.query_pairs_mut().append_pair("name", image);
            let listed: Option<ImageList> =
                ask(client.get(by_name).headers(headers.clone()), &endpoint).await?;
            let mut listed = listed.map(|list| list.images).unwrap_or_default();
            match (listed.pop(), listed.len()) {
                (Some(only), 0) => only,
                (None, _) => return Err(GlanceError::NoSuchImage { image: image.to_owned() }),
                (Some(_), n) => {
                    return Err(GlanceError::Ambiguous { image: image.to_owned(), n: n + 1 });
                }
            }
        }
    };
    if found.status != "active" {
        return Err(GlanceError::NotActive { status: found.status });
    }
    match found.container_format.as_deref() {
        Some("docker") => {}
        other => return Err(GlanceError::Format { format: other.unwrap_or("none").to_owned() }),
    }
    let digest = match (&found.os_hash_algo, &found.os_hash_value) {
        (Some(algorithm), Some(value)) => Digest::parse(&format!("{algorithm}:{value}")),
        _ => None,
    };
    let url = at(&endpoint, &["v2", "images", &found.id, "file"])?;
    Ok(Located { url, headers, digest })
}

/// A token, and Glance's address: from the document if it has both, else from Keystone.
async fn authenticate(
    access: &GlanceAccess,
    trust: &Trust,
) -> Result<(HeaderValue, Url), GlanceError> {
    let given = access.endpoint.as_deref().map(http_url).transpose()?;
    if let (Some(endpoint), Some(token)) = (&given, &access.token) {
        return Ok((sensitive(token)?, endpoint.clone()));
    }
    let url = access.auth_url.as_deref().ok_or(GlanceError::NoAccess)?;
    let (token, catalog) = ask_for_token(access, &http_url(url)?, trust).await?;
    match given {
        Some(endpoint) => Ok((token, endpoint)),
        None => Ok((token, endpoint(&catalog, access.region.as_deref())?)),
    }
}

fn http_url(text: &str) -> Result<Url, GlanceError> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or(GlanceError::NoAccess)
}

/// A token, and the catalog as it sees it.
async fn ask_for_token(
    access: &GlanceAccess,
    url: &Url,
    trust: &Trust,
) -> Result<(HeaderValue, Vec<Service>), GlanceError> {
    let client = fetch::client(url, trust).map_err(GlanceError::Keystone)?;
    if let Some(token) = &access.token {
        let token = sensitive(token)?;
        let request = client.get(keystone(url, "auth/catalog")?).header("x-auth-token", &token);
        let (_, body) = ask_keystone(&client, request, url).await?;
        let answer: CatalogAnswer =
            serde_json::from_slice(&body).map_err(|_| GlanceError::Answer)?;
        return Ok((token, answer.catalog));
    }
    let (Some(id), Some(secret)) =
        (&access.application_credential_id, &access.application_credential_secret)
    else {
        return Err(GlanceError::NoAccess);
    };
    let request = json!({"auth": {"identity": {
        "methods": ["application_credential"],
        "application_credential": {"id": id, "secret": secret},
    }}});
    let request = client.post(keystone(url, "auth/tokens")?).json(&request);
    let (headers, body) = ask_keystone(&client, request, url).await?;
    let token = headers.get("x-subject-token").and_then(|token| token.to_str().ok());
    let token = sensitive(token.ok_or(GlanceError::Answer)?)?;
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| GlanceError::Answer)?;
    Ok((token, answer.token.catalog))
}

fn sensitive(token: &str) -> Result<HeaderValue, GlanceError> {
    let mut token = HeaderValue::from_str(token).map_err(|_| GlanceError::NoAccess)?;
    token.set_sensitive(true);
    Ok(token)
}

async fn ask_keystone(
    client: &Client,
    request: RequestBuilder,
    url: &Url,
) -> Result<(HeaderMap, Vec<u8>), GlanceError> {
    let host = host_of(url);
    let request = request.build().map_err(|_| GlanceError::NoAccess)?;
    let sent = client.execute(request).await.map_err(|source| FetchError::Unanswered {
        host: host.clone(),
        source: source.without_url().into(),
    });
    let response = sent.map_err(GlanceError::Keystone)?;
    match response.status().as_u16() {
        200 | 201 => {}
        status @ (401 | 403) => return Err(GlanceError::Credential { status }),
        status => return Err(GlanceError::Keystone(FetchError::Refused { host, status })),
    }
    let headers = response.headers().clone();
    let body = read_bounded(response, &host, MAX_ANSWER_BYTES).await;
    Ok((headers, body.map_err(GlanceError::Keystone)?))
}

/// A 404 is an answer.
async fn ask<T: for<'de> Deserialize<'de>>(
    request: RequestBuilder,
    url: &Url,
) -> Result<Option<T>, GlanceError> {
    let host = host_of(url);
    let sent = request.send().await.map_err(|source| FetchError::Unanswered {
        host: host.clone(),
        source: source.without_url().into(),
    });
    let response = sent.map_err(GlanceError::Glance)?;
    match response.status().as_u16() {
        200 => {}
        404 => return Ok(None),
        status @ (401 | 403) => return Err(GlanceError::Denied { status }),
        status => return Err(GlanceError::Glance(FetchError::Refused { host, status })),
    }
    let body = read_bounded(response, &host, MAX_ANSWER_BYTES).await;
    let body = body.map_err(GlanceError::Glance)?;
    serde_json::from_slice(&body).map(Some).map_err(|_| GlanceError::GlanceAnswer)
}

/// The public endpoint of the image service; the first if no region is asked for.
fn endpoint(catalog: &[Service], region: Option<&str>) -> Result<Url, GlanceError> {
    let endpoints = catalog.iter().filter(|service| service.kind == "image");
    let endpoint = endpoints.flat_map(|service| &service.endpoints).find(|endpoint| {
        let is_there = region.is_none() || endpoint.region.as_deref() == region;
        endpoint.interface == "public" && is_there
    });
    let missing = || GlanceError::NoEndpoint { region: region.map(str::to_owned) };
    let url = endpoint.and_then(|endpoint| Url::parse(&endpoint.url).ok()).ok_or_else(missing)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(missing());
    }
    Ok(url)
}

/// `auth_url` is written with and without `/v3`.
fn keystone(auth_url: &Url, path: &str) -> Result<Url, GlanceError> {
    let base = auth_url.path().trim_end_matches('/').trim_end_matches("/v3");
    let mut url = auth_url.clone();
    url.set_path(&format!("{base}/v3/{path}"));
    Ok(url)
}

/// A path below an endpoint, which is written with and without `/v2`.
fn at(endpoint: &Url, segments: &[&str]) -> Result<Url, GlanceError> {
    let base = endpoint.path().trim_end_matches('/').trim_end_matches("/v2").to_owned();
    let mut url = endpoint.clone();
    url.set_path(&base);
    url.path_segments_mut()
        .map_err(|()| GlanceError::GlanceAnswer)?
        .pop_if_empty()
        .extend(segments);
    Ok(url)
}

#[cfg(test)]
mod tests;
