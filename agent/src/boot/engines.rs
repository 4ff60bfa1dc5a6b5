//! Finding the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::boot::containers::failed_in;
use crate::boot::step::Step;
use crate::engine::docker::DockerEngine;
use crate::engine::{Engine, EngineError};
use crate::error::AgentError;

pub(crate) async fn ping(socket: &Path) -> Result<Arc<dyn Engine>, EngineError> {
    let engine = DockerEngine::new(socket)?;
    let version = engine.ping().await?;
    tracing::info!(engine.server = version.server, engine.api = version.api, "engine answers");
    Ok(Arc::new(engine))
}

/// The first engine that answers now. For commands of people, who do not want to wait for one.
pub(crate) async fn connect(sockets: &[PathBuf]) -> Result<Arc<dyn Engine>, AgentError> {
    let mut first_error = None;
    for socket in sockets {
        match ping(socket).await {
            Ok(engine) => return Ok(engine),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    let none = || EngineError::Unreachable {
        address: "no socket".to_owned(),
        source: "no engine is configured".into(),
    };
    Err(failed_in(Step::Engine)(first_error.unwrap_or_else(none)))
}
