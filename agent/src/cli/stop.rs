//! `heliograph-agent stop` and `terminate`: for people, and for the unit when the instance goes down.

use crate::boot::{engines, standing};
use crate::cli::print;
use crate::config::Config;
use crate::error::{AgentError, Exit};

/// Stops the containers; the next run starts them again.
pub(super) async fn stop(config: &Config) -> Result<Exit, AgentError> {
    let _held = standing::hold(&config.state_dir).await.map_err(AgentError::State)?;
    let engine = engines::connect(&config.engine_sockets).await?;
    standing::stop(&engine, &config.state_dir, &print).await?;
    Ok(Exit::Success)
}

/// Removes what the agent made.
pub(super) async fn terminate(config: &Config, with_volumes: bool) -> Result<Exit, AgentError> {
    let _held = standing::hold(&config.state_dir).await.map_err(AgentError::State)?;
    let engine = engines::connect(&config.engine_sockets).await?;
    standing::terminate(&engine, &config.state_dir, with_volumes, &print).await?;
    Ok(Exit::Success)
}
