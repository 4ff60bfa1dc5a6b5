//! `heliograph-agent snapshot`: a container's file system as an image.
//!
//! The engine makes an image of the container and gives it to a registry or as an archive. Volumes
//! are not in it; what the document put into the container's environment is, so whoever may read the
//! image reads that, too.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use crate::boot::step::Step;
use crate::boot::{engines, sources, standing};
use crate::cli::print;
use crate::config::Config;
use crate::datasource;
use crate::durable;
use crate::engine::{Credentials, Engine, EngineError, ImageArchive, ListedContainer};
use crate::error::{AgentError, Exit};
use crate::fetch::Trust;
use crate::image::glance::GlanceError;
use crate::image::glance::upload::upload;
use crate::image::registry::DEFAULT_REGISTRY;
use crate::plan::{GlanceAccess, ImageReference};
use crate::userdata;

/// A password, a secret or a token has a line; a larger file is some other file.
const MAX_PASSWORD_FILE_BYTES: u64 = 4096;

/// The instance runs already, so its datasource is there.
const DATASOURCE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which container, and where to.
#[derive(Debug, clap::Args)]
pub struct SnapshotArguments {
    /// The service
    name: String,
    /// `registry IMAGE`, `file PATH` or `glance NAME`
    #[arg(long, num_args = 2, required = true, value_names = ["KIND", "TARGET"])]
    to: Vec<String>,
    /// Who pushes to the registry [default: as the instance's document says]
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// A file that holds that user's password
    #[arg(long, requires = "username", value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    glance: GlanceArguments,
}

/// Who puts the image into Glance.
#[derive(Debug, clap::Args)]
struct GlanceArguments {
    /// Keystone's address, for `glance`
    #[arg(long, value_name = "URL")]
    auth_url: Option<String>,
    /// A file that holds a token
    #[arg(long, value_name = "FILE", conflicts_with = "application_credential_id")]
    token_file: Option<PathBuf>,
    /// An application credential, in the place of a token
    #[arg(long, value_name = "ID", requires = "secret_file")]
    application_credential_id: Option<String>,
    /// A file that holds the application credential's secret
    #[arg(long, value_name = "FILE", requires = "application_credential_id")]
    secret_file: Option<PathBuf>,
    /// The region of Glance
    #[arg(long)]
    region: Option<String>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshots go `--to registry IMAGE`, `--to file PATH` or `--to glance NAME`")]
    Kind,
    #[error(
        "snapshots go to Glance with --auth-url (http or https) and either --token-file or \
         --application-credential-id with --secret-file"
    )]
    GlanceAccess,
    #[error("image was not put into Glance")]
    Glance(#[source] GlanceError),
    #[error("name of the image cannot be used")]
    Name(#[source] crate::userdata::image::ImageReferenceError),
    #[error("file {} with a password, secret or token cannot be read", path.display())]
    Password { path: PathBuf, source: io::Error },
    #[error("archive {} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
}

pub(super) async fn snapshot(
    config: &Config,
    arguments: &SnapshotArguments,
) -> Result<Exit, AgentError> {
    let [kind, target] = arguments.to.as_slice() else {
        return Err(AgentError::Snapshot(SnapshotError::Kind));
    };
    if !matches!(kind.as_str(), "registry" | "file" | "glance") {
        return Err(AgentError::Snapshot(SnapshotError::Kind));
    }
    let engine = engines::connect(&config.engine_sockets).await?;
    let containers = standing::containers(&engine).await?;
    let container = containers.into_iter().find(|one| standing::service_of(one) == arguments.name);
    let Some(container) = container else {
        return Err(AgentError::NoSuchService { service: arguments.name.clone() });
    };
    match kind.as_str() {
        "registry" => to_registry(config, &engine, &container, target, arguments).await?,
        "glance" => {
            let access = access(&arguments.glance).map_err(AgentError::Snapshot)?;
            let trust = Trust { authorities: config.authorities.clone(), ..Trust::default() };
            to_glance(&engine, &container, target, &access, &trust).await?;
        }
        _ => to_file(&engine, &container, Path::new(target)).await?,
    }
    Ok(Exit::Success)
}

async fn to_registry(
    config: &Config,
    engine: &Arc<dyn Engine>,
    container: &ListedContainer,
    target: &str,
    arguments: &SnapshotArguments,
) -> Result<(), AgentError> {
    let name = ImageReference::parse(target)
        .map_err(|source| AgentError::Snapshot(SnapshotError::Name(source)))?;
    let credentials = credentials(arguments).map_err(AgentError::Snapshot)?;
    engine.commit(&container.id, &name).await.map_err(failed)?;
    let mut pushed = engine.push(&name, credentials.as_ref()).await;
    // Somebody who may pull is known to the document; they are asked for when nobody is let in.
    if let (Err(EngineError::Refused { .. }), None) = (&pushed, &credentials)
        && let Some(known) = credentials_of_document(config, &name).await
    {
        pushed = engine.push(&name, Some(&known)).await;
    }
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
    let name = name_in_archive(container);
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

async fn to_glance(
    engine: &Arc<dyn Engine>,
    container: &ListedContainer,
    target: &str,
    access: &GlanceAccess,
    trust: &Trust,
) -> Result<(), AgentError> {
    let name = name_in_archive(container);
    engine.commit(&container.id, &name).await.map_err(failed)?;
    let archive = engine.save(&name).await;
    let uploaded = match archive {
        Ok(archive) => upload(access, target, archive, trust).await.map_err(|error| {
            AgentError::Snapshot(match error {
                GlanceError::NoAccess => SnapshotError::GlanceAccess,
                other => SnapshotError::Glance(other),
            })
        }),
        Err(error) => Err(failed(error)),
    };
    drop(engine.remove_image(&name).await);
    print(&format!("Glance has {target} as {}", uploaded?));
    Ok(())
}

/// What an archive says that the image in it is called.
fn name_in_archive(container: &ListedContainer) -> ImageReference {
    ImageReference {
        registry: None,
        repository: format!("heliograph-snapshot/{}", standing::service_of(container)),
        tag: Some("latest".to_owned()),
        digest: None,
    }
}

/// As a whole or not at all, for nobody but its owner to read: an image may hold secrets. Answers how many
/// bytes.
async fn write(mut archive: ImageArchive, path: &Path) -> io::Result<u64> {
    let temporary = path.with_extension("part");
    let mut file = durable::create(&temporary)?;
    let mut n_bytes = 0;
    while let Some(piece) = archive.next().await {
        let piece = piece.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
        file.write_all(&piece).inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
        n_bytes += piece.len() as u64;
    }
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    durable::sync_parent(path)?;
    Ok(n_bytes)
}

fn credentials(arguments: &SnapshotArguments) -> Result<Option<Credentials>, SnapshotError> {
    let (Some(username), Some(path)) = (&arguments.username, &arguments.password_file) else {
        return Ok(None);
    };
    Ok(Some(Credentials { username: username.clone(), password: line_of(path)? }))
}

/// Who the instance's own document says may use the registry. None: there is no such document now, or
/// it does not say.
async fn credentials_of_document(config: &Config, name: &ImageReference) -> Option<Credentials> {
    let found = datasource::race(sources::sources(config), DATASOURCE_TIMEOUT).await.found?;
    let document = userdata::load(&found.user_data?).ok()?;
    let access = document.registries.get(name.registry.as_deref().unwrap_or(DEFAULT_REGISTRY))?;
    let (username, password) = (access.username.clone()?, access.password.clone()?);
    Some(Credentials { username, password })
}

fn access(arguments: &GlanceArguments) -> Result<GlanceAccess, SnapshotError> {
    let secret = |path: &Option<PathBuf>| path.as_deref().map(line_of).transpose();
    let access = GlanceAccess {
        auth_url: arguments.auth_url.clone(),
        endpoint: None,
        token: secret(&arguments.token_file)?,
        application_credential_id: arguments.application_credential_id.clone(),
        application_credential_secret: secret(&arguments.secret_file)?,
        region: arguments.region.clone(),
    };
    let is_somebody = access.token.is_some() || access.application_credential_secret.is_some();
    if access.auth_url.is_none() || !is_somebody {
        return Err(SnapshotError::GlanceAccess);
    }
    Ok(access)
}

fn line_of(path: &Path) -> Result<String, SnapshotError> {
    let failed = |source| SnapshotError::Password { path: path.to_owned(), source };
    let content = durable::read(path, MAX_PASSWORD_FILE_BYTES).map_err(failed)?;
    let content = content.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    Ok(String::from_utf8_lossy(&content).trim_end_matches(['\r', '\n']).to_owned())
}

fn failed(source: EngineError) -> AgentError {
    AgentError::Engine { step: Step::Engine, source }
}
