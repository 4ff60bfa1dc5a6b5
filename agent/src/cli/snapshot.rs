//! `heliograph-agent snapshot`: a container's file system as an image.
//!
//! The engine makes an image of the container and gives it to a registry or as an archive. Volumes
//! are not in it; what the document put into the container's environment is, so whoever may read the
//! image reads that, too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;

use crate::boot::step::Step;
use crate::boot::{engines, standing};
use crate::cli::print;
use crate::config::Config;
use crate::durable;
use crate::engine::{Credentials, Engine, EngineError, ImageArchive, ListedContainer};
use crate::error::{AgentError, Exit};
use crate::plan::ImageReference;

/// A password has a line; a larger file is some other file.
const MAX_PASSWORD_FILE_BYTES: u64 = 4096;

/// Nobody but its owner reads an image that may hold secrets.
const FILE_MODE: u32 = 0o600;

/// Which container, and where to.
#[derive(Debug, clap::Args)]
pub struct SnapshotArguments {
    /// The service
    name: String,
    /// `registry IMAGE` or `file PATH`
    #[arg(long, num_args = 2, required = true, value_names = ["KIND", "TARGET"])]
    to: Vec<String>,
    /// Who pushes to the registry
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// A file that holds that user's password
    #[arg(long, requires = "username", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshots go `--to registry IMAGE` or `--to file PATH`; to Glance they cannot go yet")]
    Kind,
    #[error("name of the image cannot be used")]
    Name(#[source] crate::userdata::image::ImageReferenceError),
    #[error("password file {} cannot be read", path.display())]
    Password { path: PathBuf, source: io::Error },
    #[error("archive {} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
}

pub(super) async fn snapshot(
    config: &Config,
    arguments: &SnapshotArguments,
) -> Result<Exit, AgentError> {
    let (kind, target) = match arguments.to.as_slice() {
        [kind, target] if kind == "registry" || kind == "file" => (kind.as_str(), target),
        _ => return Err(AgentError::Snapshot(SnapshotError::Kind)),
    };
    let engine = engines::connect(&config.engine_sockets).await?;
    let containers = standing::containers(&engine).await?;
    let container = containers.into_iter().find(|one| standing::service_of(one) == arguments.name);
    let Some(container) = container else {
        return Err(AgentError::NoSuchService { service: arguments.name.clone() });
    };
    if kind == "registry" {
        to_registry(&engine, &container, target, arguments).await?;
    } else {
        to_file(&engine, &container, Path::new(target)).await?;
    }
    Ok(Exit::Success)
}

async fn to_registry(
    engine: &Arc<dyn Engine>,
    container: &ListedContainer,
    target: &str,
    arguments: &SnapshotArguments,
) -> Result<(), AgentError> {
    let name = ImageReference::parse(target)
        .map_err(|source| AgentError::Snapshot(SnapshotError::Name(source)))?;
    let credentials = credentials(arguments).map_err(AgentError::Snapshot)?;
    engine.commit(&container.id, &name).await.map_err(failed)?;
    let pushed = engine.push(&name, credentials.as_ref()).await;
    // The instance does not need it, and its disk may be small.
    drop(engine.remove_image(&name).await);
    pushed.map_err(failed)?;
    print(&format!("pushed {name}"));
    Ok(())
}

async fn to_file(
    engine: &Arc<dyn Engine>,
    container: &ListedContainer,
    path: &Path,
) -> Result<(), AgentError> {
    let name = ImageReference {
        registry: None,
        repository: format!("heliograph-snapshot/{}", standing::service_of(container)),
        tag: Some("latest".to_owned()),
        digest: None,
    };
    engine.commit(&container.id, &name).await.map_err(failed)?;
    let archive = engine.save(&name).await;
    let written = match archive {
        Ok(archive) => write(archive, path).await.map_err(|source| {
            AgentError::Snapshot(SnapshotError::Write { path: path.to_owned(), source })
        }),
        Err(error) => Err(failed(error)),
    };
    drop(engine.remove_image(&name).await);
    print(&format!("wrote {} ({} MB), which holds {name}", path.display(), written? / 1_000_000));
    Ok(())
}

/// As a whole or not at all; answers how many bytes.
async fn write(mut archive: ImageArchive, path: &Path) -> io::Result<u64> {
    let temporary = path.with_extension("part");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&temporary)?;
    let mut n_bytes = 0;
    while let Some(piece) = archive.next().await {
        let piece = piece.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
        file.write_all(&piece).inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
        n_bytes += piece.len() as u64;
    }
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(n_bytes)
}

fn credentials(arguments: &SnapshotArguments) -> Result<Option<Credentials>, SnapshotError> {
    let (Some(username), Some(path)) = (&arguments.username, &arguments.password_file) else {
        return Ok(None);
    };
    let failed = |source| SnapshotError::Password { path: path.clone(), source };
    let content = durable::read(path, MAX_PASSWORD_FILE_BYTES).map_err(failed)?;
    let content = content.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let password = String::from_utf8_lossy(&content).trim_end_matches(['\r', '\n']).to_owned();
    Ok(Some(Credentials { username: username.clone(), password }))
}

fn failed(source: EngineError) -> AgentError {
    AgentError::Engine { step: Step::Engine, source }
}
