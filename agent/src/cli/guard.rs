//! `heliograph-agent guard`: for the unit that comes before an engine, which starts containers by itself.

use crate::boot::guarding;
use crate::config::Config;
use crate::error::{AgentError, Exit};

/// Raises the guard again where an earlier run has raised it and nobody has taken it down since.
pub(super) async fn guard(config: &Config) -> Result<Exit, AgentError> {
    if config.metadata_guard {
        guarding::raise_again(&config.state_dir).await.map_err(AgentError::Guard)?;
    }
    Ok(Exit::Success)
}
