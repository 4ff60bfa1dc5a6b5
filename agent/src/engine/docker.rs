//! The Docker Engine API over a unix socket, as Docker Engine and Podman speak it.
//!
//! HTTP/1.1; the version is part of the path. The agent speaks 1.41, or the engine's own version
//! if that is older, or the oldest one that the engine still takes if that is newer. Connections
//! are not kept: a new one to a unix socket costs microseconds, and one that outlived a restart of
//! the engine fails the next call for nothing. Waiting for a container is done by inspecting it,
//! not by `/wait`: an inspection survives a restart of the engine and sees restarts of the
//! container, which `/wait` reports as ends.

mod export;
mod objects;
mod output;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method};
use serde_json::Value;

use crate::engine::http::{API_VERSION, ApiVersion, Http, MAX_MESSAGE_BYTES};
use crate::engine::http::{broken, none_if_not_found, parse_version};
use crate::engine::logs::{LogLine, LogRange, LogStart};
use crate::engine::pull::{self, PullProblem, PullProgress, PullStream};
use crate::engine::{Engine, EngineError, EngineVersion, Image, Inspection, ListedContainer};
use crate::engine::{ImageArchive, Operation, PullRequest, wire};
use crate::plan::ImageReference;
use crate::text;

/// Older engines lack labels on every object that we rely on.
const OLDEST_API_VERSION: ApiVersion = (1, 24);

/// For calls that only look something up. Socket activation may hold the first one back until
/// the engine is up.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// For calls that change something: a slow disk takes a minute to copy an image's files.
pub(crate) const CHANGE_TIMEOUT: Duration = Duration::from_secs(180);

/// A container may ask for a long time to stop, and the engine answers when it has.
const STOP_TIMEOUT: Duration = Duration::from_secs(600);

/// Ten gigabytes on a slow disk.
const LOAD_TIMEOUT: Duration = Duration::from_secs(1800);

/// A pull that reports nothing for so long has lost its registry.
const PULL_SILENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// An engine at a unix socket.
#[derive(Debug)]
pub struct DockerEngine {
    http: Http,
}

impl DockerEngine {
    /// Nothing is connected before the first call.
    pub fn new(socket: &Path) -> Result<DockerEngine, EngineError> {
        Ok(DockerEngine { http: Http::new(socket)? })
    }

    /// Only newer engines can be too new for us, and Podman takes a third of a second to answer this.
    async fn oldest_api_version(&self) -> Result<ApiVersion, EngineError> {
        let request = self.http.unversioned("/version").timeout(LOOKUP_TIMEOUT);
        let version: wire::Version = self.http.send_for(Operation::Ping, request).await?;
        Ok(parse_version(&version.min_api_version).unwrap_or(OLDEST_API_VERSION))
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn ping(&self) -> Result<EngineVersion, EngineError> {
        let request = self.http.unversioned("/_ping").timeout(LOOKUP_TIMEOUT);
        let response = self.http.send(Operation::Ping, request).await?;
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (newest_text, server) = (header("api-version"), header("server"));
        let newest = parse_version(&newest_text).unwrap_or(API_VERSION);
        if newest < OLDEST_API_VERSION {
            return Err(EngineError::TooOld { newest: newest_text, required: "1.24" });
        }
        let mut api = API_VERSION.min(newest);
        if newest > API_VERSION {
            api = api.max(self.oldest_api_version().await?);
        }
        let (major, minor) = *self.http.api_version.get_or_init(|| api);
        Ok(EngineVersion { server, api: format!("{major}.{minor}") })
    }

    async fn image(&self, reference: &ImageReference) -> Result<Option<Image>, EngineError> {
        let name = reference.to_string();
        let request = self.http.request(Method::GET, &["images", &name, "json"], &[]);
        let answer: Option<wire::ImageAnswer> = none_if_not_found(
            self.http.send_for(Operation::InspectImage, request.timeout(LOOKUP_TIMEOUT)).await,
        )?;
        Ok(answer.map(wire::ImageAnswer::into_image))
    }

    async fn pull(
        &self,
        request: &PullRequest<'_>,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<(), EngineError> {
        let PullRequest { reference, platform, credentials } = *request;
        let failed = |problem, message: &str| EngineError::Pull {
            image: reference.to_string(),
            problem,
            message: text::clean(message, MAX_MESSAGE_BYTES),
        };
        let (name, tag) = (reference.from_image(), reference.tag_or_digest());
        let mut query = vec![("fromImage", name.as_str()), ("tag", tag)];
        query.extend(platform.map(|platform| ("platform", platform)));
        let mut request = self.http.request(Method::POST, &["images", "create"], &query);
        if let Some(credentials) = credentials {
            request = request.header("x-registry-auth", pull::registry_auth(credentials));
        }
        let sent =
            tokio::time::timeout(PULL_SILENCE_TIMEOUT, self.http.send(Operation::Pull, request));
        let mut response = match sent.await {
            Ok(Ok(response)) => response,
            Ok(Err(EngineError::Refused { message, .. })) => {
                return Err(failed(PullProblem::of(&message), &message));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(failed(PullProblem::TimedOut, "engine reported nothing")),
        };

        let mut stream = PullStream::default();
        loop {
            match tokio::time::timeout(PULL_SILENCE_TIMEOUT, response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    stream.feed(&bytes);
                    progress(stream.progress());
                }
                Ok(Ok(None)) => break,
                Ok(Err(_)) => {
                    return Err(failed(PullProblem::BrokenStream, "engine's report broke off"));
                }
                Err(_) => return Err(failed(PullProblem::TimedOut, "engine reported nothing")),
            }
        }
        stream.finish().map_err(|message| failed(PullProblem::of(&message), &message))
    }

    async fn load(&self, archive: ImageArchive) -> Result<(), EngineError> {
        let request = self
            .http
            .request(Method::POST, &["images", "load"], &[("quiet", "true")])
            .header(CONTENT_TYPE, "application/x-tar")
            .body(Body::wrap_stream(archive));
        // As with a pull, the answer is a 200 that may end with the failure.
        let sent = tokio::time::timeout(LOAD_TIMEOUT, async {
            let mut response = self.http.send(Operation::Load, request).await?;
            let mut stream = PullStream::default();
            while let Some(bytes) =
                response.chunk().await.map_err(|error| broken(Operation::Load, error))?
            {
                stream.feed(&bytes);
            }
            Ok(stream.finish())
        });
        let refused = |status: u16, message: &str| EngineError::Refused {
            operation: Operation::Load,
            status,
            message: text::clean(message, MAX_MESSAGE_BYTES),
        };
        match sent.await {
            Ok(finished) => finished?.map_err(|message| refused(200, &message)),
            Err(_) => Err(refused(200, "engine did not end loading the image")),
        }
    }

    async fn tag(&self, image: &str, name: &ImageReference) -> Result<(), EngineError> {
        let repository = name.from_image();
        let tag = name.tag.as_deref().unwrap_or("latest");
        let query = [("repo", repository.as_str()), ("tag", tag)];
        let request = self.http.request(Method::POST, &["images", image, "tag"], &query);
        self.http.send(Operation::Tag, request.timeout(CHANGE_TIMEOUT)).await.map(drop)
    }

    async fn create(&self, name: &str, body: &Value) -> Result<String, EngineError> {
        let request = self
            .http
            .request(Method::POST, &["containers", "create"], &[("name", name)])
            .json(body)
            .timeout(CHANGE_TIMEOUT);
        match self.http.send_for::<wire::Created>(Operation::Create, request).await {
            Ok(created) => Ok(created.id),
            // Docker answers 409, Podman 500.
            Err(EngineError::Refused { message, .. }) if message.contains("already in use by") => {
                Err(EngineError::NameTaken { name: name.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    async fn start(&self, container: &str) -> Result<(), EngineError> {
        let request = self.http.request(Method::POST, &["containers", container, "start"], &[]);
        self.http.send(Operation::Start, request.timeout(CHANGE_TIMEOUT)).await.map(drop)
    }

    async fn inspect(&self, container: &str) -> Result<Option<Inspection>, EngineError> {
        let request = self.http.request(Method::GET, &["containers", container, "json"], &[]);
        let answer =
            self.http.send_for::<Value>(Operation::Inspect, request.timeout(LOOKUP_TIMEOUT)).await;
        let Some(raw) = none_if_not_found(answer)? else {
            return Ok(None);
        };
        let inspection = wire::inspection(raw).map_err(|source| EngineError::Unreadable {
            operation: Operation::Inspect,
            source: source.into(),
        })?;
        Ok(Some(inspection))
    }

    async fn list(&self, label: &str) -> Result<Vec<ListedContainer>, EngineError> {
        let filters = serde_json::json!({ "label": [label] }).to_string();
        let query = [("all", "true"), ("filters", filters.as_str())];
        let request = self.http.request(Method::GET, &["containers", "json"], &query);
        let rows: Vec<wire::ListRow> =
            self.http.send_for(Operation::List, request.timeout(LOOKUP_TIMEOUT)).await?;
        Ok(rows.into_iter().map(wire::ListRow::into_listed).collect())
    }

    async fn stop(&self, container: &str) -> Result<(), EngineError> {
        let request = self.http.request(Method::POST, &["containers", container, "stop"], &[]);
        let sent = self.http.send(Operation::Stop, request.timeout(STOP_TIMEOUT)).await;
        none_if_not_found(sent).map(drop)
    }

    async fn remove(&self, container: &str) -> Result<(), EngineError> {
        let query = [("force", "true"), ("v", "true")];
        let request = self.http.request(Method::DELETE, &["containers", container], &query);
        let sent = self.http.send(Operation::Remove, request.timeout(CHANGE_TIMEOUT)).await;
        none_if_not_found(sent).map(drop)
    }

    async fn logs(&self, container: &str, range: LogRange) -> Result<String, EngineError> {
        self.read_excerpt(container, range).await
    }

    async fn follow(
        &self,
        container: &str,
        start: LogStart,
        on_line: &mut (dyn for<'l> FnMut(LogLine<'l>) + Send),
    ) -> Result<(), EngineError> {
        self.stream_lines(container, start, true, on_line).await
    }

    async fn read_lines(
        &self,
        container: &str,
        start: LogStart,
        on_line: &mut (dyn for<'l> FnMut(LogLine<'l>) + Send),
    ) -> Result<(), EngineError> {
        self.stream_lines(container, start, false, on_line).await
    }
}
