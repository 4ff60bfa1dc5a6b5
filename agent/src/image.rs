//! The image of a container: there already, pulled by the engine, fetched from a registry that the
//! engine cannot be told about, or loaded from an archive.
//!
//! How to add a place for archives: give `ArchiveLocation` in the plan a variant, and say in
//! `image/source.rs` how its bytes become a file; everything after that (what is in the archive,
//! whether it is whole, how the engine gets it, under which name) is the same for all.
//!
//! An image ends up under the name that the document has for it, so that the next boot finds it
//! without asking anybody. An engine cannot name an image that it did not pull `web@sha256:…`;
//! such an image gets the tag `sha256-…` instead, and [`Provided::name`] says so.

pub mod archive;
pub mod glance;
pub mod manifest;
pub mod registry;
pub mod source;
pub mod volume;

mod bundle;
mod mirror;
mod origin;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::durable;
use crate::engine::pull::{PullProblem, PullProgress};
use crate::engine::{Credentials, Engine, EngineError, Image, PullRequest};
use crate::fetch::Trust;
use crate::image::manifest::Platform;
use crate::image::mirror::Candidate;
use crate::image::origin::Origins;
use crate::image::registry::{RegistryError, Repository};
use crate::image::source::SourceError;
use crate::plan::{
    ContainerPlan, GlanceAccess, ImageReference, ImageSource, Plan, ProxyAccess, PullPolicy,
    RegistryAccess,
};
use crate::retry::Schedule;

/// Attempts of one pull; with the schedule's pauses a registry has a quarter of a minute to appear.
const MAX_ATTEMPTS: u32 = 5;

/// Gets images for the containers of a plan.
#[derive(Debug)]
pub struct Images {
    engine: Arc<dyn Engine>,
    registries: BTreeMap<String, RegistryAccess>,
    authorities: Vec<String>,
    proxy: Option<ProxyAccess>,
    glance: Option<GlanceAccess>,
    /// For what is fetched before the engine has it. Nothing in it is needed after a boot.
    directory: PathBuf,
    /// Beside that directory, and kept.
    origins: Origins,
}

/// An image that the engine has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provided {
    pub image: Image,
    /// What `/containers/create` has to call it.
    pub name: String,
}

/// How far it is, for a person.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Something was begun: `pulling web:1`, `fetching the archive from example.org`.
    Begun(String),
    Moving(PullProgress),
    /// It failed in a way that passes.
    TryingAgain(&'a ImageError),
    Done,
}

/// Where progress goes to.
pub type Report<'a> = dyn Fn(Progress<'_>) + Send + Sync + 'a;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The engine's own failure, which has its own words.
    #[error("engine did not provide the image")]
    Engine(#[source] EngineError),
    #[error("image {image} was not fetched: {problem}")]
    Registry { image: String, problem: PullProblem, source: RegistryError },
    #[error("image {image} was not loaded from {location}")]
    Archive { image: String, location: String, source: SourceError },
    #[error("neither mirror {mirror} nor the registry has the image")]
    Mirrored { mirror: String, mirror_error: Box<ImageError>, source: Box<ImageError> },
    #[error("directory for images cannot be used")]
    Directory(#[source] std::io::Error),
}

impl ImageError {
    /// Stable: scripts and tests compare it.
    pub fn code(&self) -> &'static str {
        match self {
            ImageError::Engine(error) => error.code(),
            ImageError::Registry { problem, .. } => problem.code(),
            ImageError::Archive { source, .. } => source.code(),
            ImageError::Mirrored { source, .. } => source.code(),
            ImageError::Directory(_) => "image_directory_unusable",
        }
    }

    pub fn is_retriable(&self) -> bool {
        match self {
            ImageError::Engine(error) => error.is_retriable(),
            ImageError::Registry { source, .. } => source.is_retriable(),
            ImageError::Archive { source, .. } => source.is_retriable(),
            ImageError::Mirrored { mirror_error, source, .. } => {
                mirror_error.is_retriable() || source.is_retriable()
            }
            ImageError::Directory(_) => false,
        }
    }

    /// What is wrong, for the console.
    pub fn brief(&self) -> String {
        let ImageError::Engine(error) = self else { return self.to_string() };
        error.to_string()
    }

    /// What is wrong and what to do, on one line.
    pub fn reason(&self) -> String {
        match self {
            ImageError::Engine(EngineError::Pull { image, problem, message }) => {
                format!("{problem}: {image}; {} (engine: {message})", problem.advice())
            }
            ImageError::Registry { image, problem, source } => {
                let cause = crate::error::chain(source);
                format!("{problem}: {image}; {} ({cause})", problem.advice())
            }
            ImageError::Mirrored { mirror, mirror_error, source } => {
                format!(
                    "{}; before that, mirror {mirror}: {}",
                    source.reason(),
                    mirror_error.reason()
                )
            }
            ImageError::Engine(_) | ImageError::Archive { .. } | ImageError::Directory(_) => {
                crate::error::chain(self)
            }
        }
    }
}

impl Images {
    /// `authorities` are those of the agent's configuration; the document's come on top. The
    /// directory is this value's own; it is made when it is needed, and removed.
    pub fn new(
        engine: Arc<dyn Engine>,
        plan: &Plan,
        authorities: &[String],
        directory: PathBuf,
    ) -> Images {
        Images {
            engine,
            registries: plan.registries.clone(),
            authorities: [authorities, &plan.certificate_authorities].concat(),
            proxy: plan.proxy.clone(),
            glance: plan.glance.clone(),
            origins: Origins::new(directory.with_file_name("archives")),
            directory,
        }
    }

    /// Makes the engine have the container's image. May be called again after a failure, and goes
    /// on where it was.
    pub async fn provide(
        &self,
        container: &ContainerPlan,
        report: &Report<'_>,
    ) -> Result<Provided, ImageError> {
        let is_wanted = match container.pull {
            PullPolicy::Always => false,
            PullPolicy::Never => true,
            PullPolicy::Missing => {
                let is_other = self.origins.is_other(&container.image, &container.source);
                !is_other.map_err(ImageError::Directory)?
            }
        };
        if is_wanted && let Some(provided) = self.local(&container.image).await? {
            return Ok(provided);
        }
        if container.pull == PullPolicy::Never {
            return Err(ImageError::Engine(EngineError::Pull {
                image: container.image.to_string(),
                problem: PullProblem::NotLocal,
                message: "pull_policy is never".to_owned(),
            }));
        }
        let mut n_failures = 0;
        loop {
            let error = match self.provide_once(container, report).await {
                Ok(provided) => {
                    self.clear();
                    report(Progress::Done);
                    return Ok(provided);
                }
                Err(error) => error,
            };
            n_failures += 1;
            if !error.is_retriable() || n_failures == MAX_ATTEMPTS {
                return Err(error);
            }
            tracing::warn!(
                image = %container.image,
                pull.n_failures = n_failures,
                error = crate::error::chain(&error),
                "image was not provided, will try again"
            );
            report(Progress::TryingAgain(&error));
            tokio::time::sleep(Schedule::PULL.delay(n_failures)).await;
        }
    }

    /// What the engine calls an image that was provided.
    pub async fn name_of(&self, image: &ImageReference) -> Result<String, ImageError> {
        if image.digest.is_none() {
            return Ok(image.to_string());
        }
        let local = self.local(image).await?;
        Ok(local.map_or_else(|| image.to_string(), |provided| provided.name))
    }

    async fn provide_once(
        &self,
        container: &ContainerPlan,
        report: &Report<'_>,
    ) -> Result<Provided, ImageError> {
        let (image, source) = (&container.image, &container.source);
        self.origins.begin(image, source).map_err(ImageError::Directory)?;
        match source {
            ImageSource::Registry => self.pull_from_anywhere(container, report).await?,
            ImageSource::Archive { location, sha256 } => {
                self.load_archive(container, location, sha256.as_deref(), report).await?;
            }
        }
        self.origins.end(image, source).map_err(ImageError::Directory)?;
        // An engine that says nothing of a failure may have failed.
        self.local(&container.image).await?.ok_or_else(|| {
            ImageError::Engine(EngineError::Pull {
                image: container.image.to_string(),
                problem: PullProblem::BrokenStream,
                message: "engine reported no error, and the image is not there".to_owned(),
            })
        })
    }

    /// The image, if the engine has it under its own name or under the one that we gave it.
    pub(crate) async fn local(
        &self,
        reference: &ImageReference,
    ) -> Result<Option<Provided>, ImageError> {
        let names = [reference.clone(), name_in_engine(reference)];
        let n_names = if reference.digest.is_some() { 2 } else { 1 };
        for name in names.iter().take(n_names) {
            if let Some(image) = self.engine.image(name).await.map_err(ImageError::Engine)? {
                return Ok(Some(Provided { image, name: name.to_string() }));
            }
        }
        Ok(None)
    }

    /// The mirror first, if there is one, then the registry itself.
    async fn pull_from_anywhere(
        &self,
        container: &ContainerPlan,
        report: &Report<'_>,
    ) -> Result<(), ImageError> {
        let Some(mirror) = mirror::mirror_of(&container.image, &self.registries) else {
            let origin = mirror::origin_of(&container.image, &self.registries);
            return self.pull(&origin, container, report).await;
        };
        let mirror_error = match self.pull(&mirror, container, report).await {
            Ok(()) => return Ok(()),
            // A mirror that gives something else is to be looked at, not to be passed over.
            Err(error) if error.code() == PullProblem::DigestMismatch.code() => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(
            image = %container.image,
            error = crate::error::chain(&mirror_error),
            "mirror did not give the image, asking the registry"
        );
        let origin = mirror::origin_of(&container.image, &self.registries);
        self.pull(&origin, container, report).await.map_err(|source| ImageError::Mirrored {
            mirror: mirror.reference.registry.clone().unwrap_or_default(),
            mirror_error: Box::new(mirror_error),
            source: Box::new(source),
        })
    }

    async fn pull(
        &self,
        candidate: &Candidate,
        container: &ContainerPlan,
        report: &Report<'_>,
    ) -> Result<(), ImageError> {
        // An engine cannot be told of a proxy for one pull.
        if candidate.needs_own_client() || self.proxy.is_some() {
            return self.fetch(candidate, container, report).await;
        }
        report(Progress::Begun(format!("pulling {}", candidate.reference)));
        let access = &candidate.access;
        let credentials = match (&access.username, &access.password) {
            (Some(username), Some(password)) => {
                Some(Credentials { username: username.clone(), password: password.clone() })
            }
            _ => None,
        };
        let request = PullRequest {
            reference: &candidate.reference,
            platform: container.platform.as_deref(),
            credentials: credentials.as_ref(),
        };
        let pulled = self.engine.pull(&request, &|moved| report(Progress::Moving(moved))).await;
        match pulled {
            Ok(()) => {}
            // The engine does not know the document's authorities, and this program does.
            Err(EngineError::Pull { problem: PullProblem::Tls, .. })
                if !self.authorities.is_empty() =>
            {
                return self.fetch(candidate, container, report).await;
            }
            Err(error) => return Err(ImageError::Engine(candidate.more_precisely(error))),
        }
        if candidate.reference == container.image {
            return Ok(());
        }
        let name = name_in_engine(&container.image);
        let tagged = self.engine.tag(&candidate.reference.to_string(), &name).await;
        tagged.map_err(ImageError::Engine)
    }

    /// Fetches without the engine, and loads.
    async fn fetch(
        &self,
        candidate: &Candidate,
        container: &ContainerPlan,
        report: &Report<'_>,
    ) -> Result<(), ImageError> {
        report(Progress::Begun(format!("fetching {}", candidate.reference)));
        durable::create_directory(&self.directory).map_err(ImageError::Directory)?;
        let platform = Platform::of(container.platform.as_deref());
        let mut trust = self.trust();
        trust.authorities.extend(candidate.access.ca.clone());
        trust.insecure = candidate.access.insecure;
        let moving = |moved| report(Progress::Moving(moved));
        let directory = &self.directory;
        let fetched = Repository::fetch_from(candidate, &trust, &platform, directory, &moving);
        let bundle = fetched.await.map_err(|source| ImageError::Registry {
            image: candidate.reference.to_string(),
            problem: match source.problem() {
                PullProblem::NotFound if candidate.reference.digest.is_some() => {
                    PullProblem::NoSuchDigest
                }
                problem => problem,
            },
            source,
        })?;
        let name = name_in_engine(&container.image);
        let archive = bundle.into_archive(&name.to_string());
        self.engine.load(archive).await.map_err(ImageError::Engine)
    }

    /// What holds for every server.
    fn trust(&self) -> Trust {
        let (authorities, proxy) = (self.authorities.clone(), self.proxy.clone());
        Trust { authorities, insecure: false, proxy }
    }

    /// The engine has it now, so nothing that was fetched is needed any more.
    fn clear(&self) {
        if !self.directory.exists() {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!(error = %error, "directory for images was not removed");
        }
    }
}

/// The name that an image gets which the engine did not pull by its digest.
fn name_in_engine(reference: &ImageReference) -> ImageReference {
    let Some(digest) = &reference.digest else { return reference.clone() };
    let tag = digest.replace(':', "-");
    // A tag has 128 characters at most, and sha512 needs more.
    let tag = tag.get(..128).map_or(tag.clone(), str::to_owned);
    ImageReference { tag: Some(tag), digest: None, ..reference.clone() }
}
