//! `heliograph-agent logs`: what the containers have written.

use std::io::Write;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::boot::step::Step;
use crate::boot::{engines, standing};
use crate::config::Config;
use crate::engine::logs::{LogLine, LogStart};
use crate::engine::{Engine, EngineError, ListedContainer};
use crate::error::{AgentError, Exit};

/// Which part of which log.
#[derive(Debug, clap::Args)]
pub(super) struct LogsArguments {
    /// Only this service's
    service: Option<String>,
    /// Stay, and print what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// Only so many of the last lines of each container
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
}

/// Lines of several containers begin with the name of their service, as on the console.
pub(super) async fn logs(config: &Config, arguments: &LogsArguments) -> Result<Exit, AgentError> {
    let engine = engines::connect(&config.engine_sockets).await?;
    let mut containers = standing::containers(&engine).await?;
    if let Some(service) = &arguments.service {
        containers.retain(|one| standing::service_of(one) == service);
        if containers.is_empty() {
            return Err(AgentError::NoSuchService { service: service.clone() });
        }
    }
    let has_labels = containers.len() > 1;
    let start = arguments.tail.map_or(LogStart::Beginning, LogStart::LastLines);
    let reads = containers.iter().map(|container| {
        let label = has_labels.then(|| standing::service_of(container));
        read(&engine, container, start.clone(), arguments.follow, label)
    });
    let outcomes = if arguments.follow {
        join_all(reads).await
    } else {
        // One log after the other reads better than all of them mixed.
        let mut outcomes = Vec::new();
        for read in reads {
            outcomes.push(read.await);
        }
        outcomes
    };
    let failed = |source| AgentError::Engine { step: Step::Engine, source };
    outcomes.into_iter().collect::<Result<(), EngineError>>().map_err(failed)?;
    Ok(Exit::Success)
}

async fn read(
    engine: &Arc<dyn Engine>,
    container: &ListedContainer,
    start: LogStart,
    is_followed: bool,
    label: Option<&str>,
) -> Result<(), EngineError> {
    let mut on_line = |line: LogLine<'_>| {
        let mut bytes = label.map_or(Vec::new(), |label| format!("{label} | ").into_bytes());
        bytes.extend_from_slice(line.text);
        bytes.push(b'\n');
        // A reader that has gone away has had enough.
        drop(std::io::stdout().write_all(&bytes));
    };
    if is_followed {
        engine.follow(&container.id, start, &mut on_line).await
    } else {
        engine.read_lines(&container.id, start, &mut on_line).await
    }
}
