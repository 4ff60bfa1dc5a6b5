//! Commit, push and save over the Engine API.

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use reqwest::Method;
use serde_json::json;

use crate::engine::docker::{CHANGE_TIMEOUT, DockerEngine};
use crate::engine::export::Export;
use crate::engine::http::{MAX_MESSAGE_BYTES, broken, none_if_not_found};
use crate::engine::pull::{PullStream, registry_auth};
use crate::engine::{Credentials, EngineError, ImageArchive, Operation, wire};
use crate::plan::ImageReference;
use crate::text;

/// The labels of a container become its image's. A container that somebody makes of that image
/// must not look like one of the agent's.
const DISOWN: &str = "LABEL io.heliograph.agent=0";

#[async_trait]
impl Export for DockerEngine {
    async fn commit(&self, container: &str, name: &ImageReference) -> Result<String, EngineError> {
        let repository = name.from_image();
        let query = [
            ("container", container),
            ("repo", repository.as_str()),
            ("tag", tag_of(name)),
            ("pause", "true"),
            ("changes", DISOWN),
        ];
        // Docker takes no body for no changes, and Podman refuses it.
        let request = self.http.request(Method::POST, &["commit"], &query).json(&json!({}));
        let request = request.timeout(CHANGE_TIMEOUT);
        let committed: wire::Created = self.http.send_for(Operation::Commit, request).await?;
        Ok(committed.id)
    }

    async fn push(
        &self,
        name: &ImageReference,
        credentials: Option<&Credentials>,
    ) -> Result<(), EngineError> {
        let (repository, query) = (name.from_image(), [("tag", tag_of(name))]);
        let request = self.http.request(Method::POST, &["images", &repository, "push"], &query);
        // Docker refuses a push without this header, also where nobody is to be authenticated.
        let nobody = Credentials { username: String::new(), password: String::new() };
        let auth = registry_auth(credentials.unwrap_or(&nobody));
        let mut response =
            self.http.send(Operation::Push, request.header("x-registry-auth", auth)).await?;
        // As with a pull, the answer is a 200 that may end with the failure.
        let mut stream = PullStream::default();
        while let Some(bytes) =
            response.chunk().await.map_err(|error| broken(Operation::Push, error))?
        {
            stream.feed(&bytes);
        }
        stream.finish().map_err(|message| EngineError::Refused {
            operation: Operation::Push,
            status: 200,
            message: text::clean(&message, MAX_MESSAGE_BYTES),
        })
    }

    async fn save(&self, name: &ImageReference) -> Result<ImageArchive, EngineError> {
        let request = self.http.request(Method::GET, &["images", &name.to_string(), "get"], &[]);
        let response = self.http.send(Operation::Save, request).await?;
        let pieces = response.bytes_stream();
        let pieces = pieces.map_ok(|bytes| bytes.to_vec());
        Ok(pieces.map_err(|error| std::io::Error::other(error.without_url())).boxed())
    }

    async fn remove_image(&self, name: &ImageReference) -> Result<(), EngineError> {
        let request = self.http.request(Method::DELETE, &["images", &name.to_string()], &[]);
        let sent = self.http.send(Operation::RemoveImage, request.timeout(CHANGE_TIMEOUT)).await;
        none_if_not_found(sent).map(drop)
    }
}

fn tag_of(name: &ImageReference) -> &str {
    name.tag.as_deref().unwrap_or("latest")
}
