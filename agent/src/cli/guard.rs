//! `heliograph-agent guard`: for the unit that comes before an engine, which starts containers by itself.

use std::io;

use crate::boot::guarding;
use crate::config::Config;
use crate::error::{AgentError, Exit};
use crate::guard::GuardError;

/// Raises the guard again where an earlier run has raised it and nobody has taken it down since.
pub(super) async fn guard(config: &Config) -> Result<Exit, AgentError> {
    if !config.metadata_guard {
        return Ok(Exit::Success);
    }
    match guarding::raise_again(&config.state_dir).await {
        // Then there was no guard before either, as the run says that follows.
        Err(GuardError::Run { source }) if source.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(
                "nft is not installed: nothing keeps containers from the metadata service"
            );
        }
        raised => raised.map_err(AgentError::Guard)?,
    }
    Ok(Exit::Success)
}
