//! Archives from wherever the document says: a path, a volume, a URL, Glance.
//!
//! Each place ends in a file that was checked and is then looked through by `archive`. A Swift
//! TempURL is a URL like any other: its signature is in the query, which no error repeats.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::header::HeaderMap;
use tokio::task::spawn_blocking;

use crate::durable;
use crate::engine::pull::PullProgress;
use crate::fetch::digest::Digest;
use crate::fetch::{self, Download, FetchError, Trust, host_of};
use crate::image::archive::{self, ArchiveError, MAX_ARCHIVE_BYTES, Opened};
use crate::image::bundle::{self, Archive};
use crate::image::glance::{self, GlanceError};
use crate::image::manifest::Platform;
use crate::image::volume::{Mounted, VolumeError};
use crate::image::{ImageError, Images, Progress, Report, name_in_engine};
use crate::plan::{ArchiveLocation, ContainerPlan};

/// Why an archive did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("sha256 in the document is no SHA-256 in hexadecimal digits")]
    Sha256,
    #[error("archive cannot be fetched")]
    Fetch(#[source] FetchError),
    #[error("Glance did not give it")]
    Glance(#[source] GlanceError),
    #[error("volume cannot be used")]
    Volume(#[source] VolumeError),
    #[error("{path} cannot be read")]
    Read { path: String, source: io::Error },
    #[error("it has the digest {found} instead of {expected}")]
    Digest { expected: String, found: String },
    #[error("archive cannot be used")]
    Archive(#[source] ArchiveError),
    #[error("reading it was interrupted")]
    Interrupted,
}

impl SourceError {
    pub fn code(&self) -> &'static str {
        match self {
            SourceError::Sha256 => "archive_sha256_invalid",
            SourceError::Digest { .. }
            | SourceError::Fetch(FetchError::Digest { .. })
            | SourceError::Archive(ArchiveError::Damaged { .. }) => "archive_digest_mismatch",
            SourceError::Fetch(_) => "archive_not_fetched",
            SourceError::Glance(_) => "archive_not_in_glance",
            SourceError::Volume(_) => "archive_volume_unusable",
            SourceError::Read { .. } => "archive_unreadable",
            SourceError::Archive(ArchiveError::NoSuchImage { .. }) => "archive_has_other_image",
            SourceError::Archive(_) => "archive_unusable",
            SourceError::Interrupted => "archive_interrupted",
        }
    }

    pub fn is_retriable(&self) -> bool {
        match self {
            // A download has its own attempts; a server that is still coming up gets more.
            SourceError::Fetch(error) => error.is_retriable(),
            SourceError::Glance(error) => error.is_retriable(),
            // A volume may be attached while the instance boots.
            SourceError::Volume(VolumeError::NoDevice(_)) => true,
            _ => false,
        }
    }
}

/// The place as errors and the console name it.
fn in_words(location: &ArchiveLocation) -> String {
    match location {
        ArchiveLocation::Path(path) => path.display().to_string(),
        ArchiveLocation::Volume { path, .. } => format!("{} on the volume", path.display()),
        ArchiveLocation::Url(url) => host_of(url),
        ArchiveLocation::Glance { image } => format!("Glance ({image})"),
    }
}

impl Images {
    /// Loads the container's image out of its archive.
    pub(crate) async fn load_archive(
        &self,
        container: &ContainerPlan,
        location: &ArchiveLocation,
        sha256: Option<&str>,
        report: &Report<'_>,
    ) -> Result<(), ImageError> {
        let words = in_words(location);
        let failed = |source| ImageError::Archive {
            image: container.image.to_string(),
            location: words.clone(),
            source,
        };
        report(Progress::Begun(format!("loading {} from {words}", container.image)));
        durable::create_directory(&self.directory).map_err(ImageError::Directory)?;
        let mounted = self.mount(location).await.map_err(failed)?;
        let opened = self.open(container, location, sha256, mounted.as_ref(), report).await;
        let opened = opened.map_err(failed)?;
        let id = check_pin(&opened, container).map_err(failed)?;
        let name = name_in_engine(&container.image);
        let loaded = self.engine.load(contents(opened, &name.to_string())).await;
        drop(mounted);
        loaded.map_err(ImageError::Engine)?;
        self.engine.tag(&id.to_string(), &name).await.map_err(ImageError::Engine)
    }

    /// The volume, if the archive is on one; mounted until the engine has read it.
    async fn mount(&self, location: &ArchiveLocation) -> Result<Option<Mounted>, SourceError> {
        let ArchiveLocation::Volume { selector, .. } = location else { return Ok(None) };
        let (selector, mount_point) = (selector.clone(), self.directory.join("volume"));
        let mounted = spawn_blocking(move || Mounted::mount(&selector, &mount_point));
        let mounted = mounted.await.map_err(|_| SourceError::Interrupted)?;
        mounted.map(Some).map_err(SourceError::Volume)
    }

    async fn open(
        &self,
        container: &ContainerPlan,
        location: &ArchiveLocation,
        sha256: Option<&str>,
        mounted: Option<&Mounted>,
        report: &Report<'_>,
    ) -> Result<Opened, SourceError> {
        let expected = sha256
            .map(|hex| Digest::parse(&format!("sha256:{hex}")).ok_or(SourceError::Sha256))
            .transpose()?;
        let path = match location {
            ArchiveLocation::Path(path) => path.clone(),
            ArchiveLocation::Url(url) => {
                let trust = self.trust();
                self.download(url, HeaderMap::new(), expected.as_ref(), &trust, report).await?
            }
            ArchiveLocation::Glance { image } => {
                let trust = self.trust();
                let access = self.glance.as_ref();
                let access = access.ok_or(SourceError::Glance(GlanceError::NoAccess))?;
                let located = glance::locate(access, image, &trust).await;
                let located = located.map_err(SourceError::Glance)?;
                let digest = expected.as_ref().or(located.digest.as_ref());
                let (url, headers) = (&located.url, located.headers);
                let downloaded = self.download(url, headers, digest, &trust, report).await;
                downloaded.map_err(|error| match error {
                    SourceError::Fetch(FetchError::Refused {
                        status: status @ (401 | 403),
                        ..
                    }) => SourceError::Glance(GlanceError::Withheld { status }),
                    other => other,
                })?
            }
            ArchiveLocation::Volume { path, .. } => {
                let mounted = mounted.ok_or(SourceError::Interrupted)?;
                mounted.file(path).map_err(SourceError::Volume)?
            }
        };
        // A download was compared while it came.
        let is_local =
            matches!(location, ArchiveLocation::Path(_) | ArchiveLocation::Volume { .. });
        let expected = expected.filter(|_| is_local);
        let (image, platform) =
            (container.image.clone(), Platform::of(container.platform.as_deref()));
        let scratch = self.directory.join("unpacked");
        let opened = spawn_blocking(move || {
            if let Some(expected) = expected {
                compare(&path, &expected)?;
            }
            archive::open(&path, &image, &platform, &scratch).map_err(SourceError::Archive)
        });
        opened.await.unwrap_or(Err(SourceError::Interrupted))
    }

    async fn download(
        &self,
        url: &url::Url,
        headers: HeaderMap,
        digest: Option<&Digest>,
        trust: &Trust,
        report: &Report<'_>,
    ) -> Result<PathBuf, SourceError> {
        let path = self.directory.join("archive");
        let client = fetch::client(url, trust).map_err(SourceError::Fetch)?;
        let what = Download { url, headers, max_bytes: MAX_ARCHIVE_BYTES, digest };
        let moved = |bytes_done: u64, bytes_total: Option<u64>| {
            let bytes_total = bytes_total.unwrap_or(bytes_done);
            let progress = PullProgress { n_layers: 1, n_layers_done: 0, bytes_done, bytes_total };
            report(Progress::Moving(progress));
        };
        fetch::download(&client, &what, &path, &moved).await.map_err(SourceError::Fetch)?;
        Ok(path)
    }
}

fn compare(path: &Path, expected: &Digest) -> Result<(), SourceError> {
    let found = fetch::digest_of(path, expected)
        .map_err(|source| SourceError::Read { path: path.display().to_string(), source })?;
    if found == *expected {
        return Ok(());
    }
    Err(SourceError::Digest { expected: expected.to_string(), found: found.to_string() })
}

/// The image's id. A digest in the image's name holds for an archive as well: it is that of the
/// manifest where the archive has one, else the image's id.
fn check_pin(opened: &Opened, container: &ContainerPlan) -> Result<Digest, SourceError> {
    let (id, digest) = match opened {
        Opened::Docker { id, .. } => (id.clone(), id),
        Opened::Oci { bundle, digest } => (bundle.id(), digest),
    };
    let pinned = container.image.digest.as_deref().and_then(Digest::parse);
    match pinned {
        Some(expected) if expected != *digest => {
            Err(SourceError::Digest { expected: expected.to_string(), found: digest.to_string() })
        }
        _ => Ok(id),
    }
}

fn contents(opened: Opened, name: &str) -> Archive {
    match opened {
        Opened::Docker { file, n_bytes, .. } => bundle::whole_file(file, n_bytes),
        Opened::Oci { bundle, .. } => bundle.into_archive(name),
    }
}
