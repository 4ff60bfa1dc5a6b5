//! An image into Glance: a record first, then its data, which makes it active.
//!
//! API page: Image v2, "Create image" and "Upload binary image data".

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Client, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::engine::ImageArchive;
use crate::fetch::{self, FetchError, Trust, host_of, read_bounded};
use crate::image::glance::{GlanceError, MAX_ANSWER_BYTES, at, authenticate};
use crate::plan::GlanceAccess;

/// The largest archive that the agent would fetch again takes so long at 2 MB a second. Glance says
/// nothing meanwhile, so silence tells nothing.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(10 * 60 * 60);

#[derive(Deserialize)]
struct Created {
    id: String,
}

/// Makes an image of that name out of an archive, and gives its id. What fails leaves no image.
pub(crate) async fn upload(
    access: &GlanceAccess,
    name: &str,
    archive: ImageArchive,
    trust: &Trust,
) -> Result<String, GlanceError> {
    let (token, endpoint) = authenticate(access, trust).await?;
    let client = fetch::upload_client(&endpoint, trust).map_err(GlanceError::Glance)?;
    let with_token = |request: RequestBuilder| request.header("x-auth-token", &token);

    let fields = json!({"name": name, "container_format": "docker", "disk_format": "raw"});
    let create = client.post(at(&endpoint, &["v2", "images"])?).json(&fields);
    let id = create_image(with_token(create), &endpoint).await?;
    let image = at(&endpoint, &["v2", "images", &id])?;
    let sent =
        send_data(&client, at(&endpoint, &["v2", "images", &id, "file"])?, archive, with_token);
    if let Err(error) = sent.await {
        // The first failure is the one to tell of.
        drop(with_token(client.delete(image)).timeout(fetch::SILENCE_TIMEOUT).send().await);
        return Err(error);
    }
    Ok(id)
}

async fn create_image(request: RequestBuilder, endpoint: &Url) -> Result<String, GlanceError> {
    let response = accepted(request.timeout(fetch::SILENCE_TIMEOUT), endpoint).await?;
    let body = read_bounded(response, &host_of(endpoint), MAX_ANSWER_BYTES).await;
    let body = body.map_err(GlanceError::Glance)?;
    let created: Created = serde_json::from_slice(&body).map_err(|_| GlanceError::GlanceAnswer)?;
    Ok(created.id)
}

async fn send_data(
    client: &Client,
    url: Url,
    archive: ImageArchive,
    with_token: impl Fn(RequestBuilder) -> RequestBuilder,
) -> Result<(), GlanceError> {
    let request = client.put(url.clone()).header(CONTENT_TYPE, "application/octet-stream");
    let request = request.timeout(UPLOAD_TIMEOUT).body(Body::wrap_stream(archive));
    accepted(with_token(request), &url).await.map(drop)
}

async fn accepted(request: RequestBuilder, url: &Url) -> Result<Response, GlanceError> {
    let host = host_of(url);
    let sent = request.send().await.map_err(|source| FetchError::Unanswered {
        host: host.clone(),
        source: source.without_url().into(),
    });
    let response = sent.map_err(GlanceError::Upload)?;
    if !response.status().is_success() {
        return Err(match response.status().as_u16() {
            status @ (401 | 403) => GlanceError::Denied { status },
            status => GlanceError::Upload(FetchError::Refused { host, status }),
        });
    }
    Ok(response)
}

#[cfg(test)]
mod tests;
