//! `heliograph-agent status`: how far the run is, for people and scripts on the instance.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use signal_protocol::signal::Status;

use crate::cli::print;
use crate::error::{AgentError, Exit};
use crate::state::{self, RunStatus, SignalState};

/// How often `--wait` looks.
const POLL: Duration = Duration::from_millis(200);

pub(super) async fn status(state_dir: &Path, wait: bool, json: bool) -> Result<Exit, AgentError> {
    loop {
        let status = state::read_status(state_dir).map_err(AgentError::State)?;
        let is_over = status.as_ref().is_some_and(|status| status.is_over);
        if is_over || !wait {
            let status = status.unwrap_or_default();
            print(&if json { in_json(&status) } else { in_words(&status) });
            return Ok(exit(&status));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn exit(status: &RunStatus) -> Exit {
    if !status.is_over {
        return Exit::Pending;
    }
    if status.signal == SignalState::Pending {
        return Exit::Undelivered;
    }
    if status.status == Some(Status::Failure) { Exit::Failure } else { Exit::Success }
}

fn in_json(status: &RunStatus) -> String {
    json!({
        "step": status.step,
        "is_over": status.is_over,
        "status": status.status,
        "reason": status.reason,
        "signal": status.signal,
        "instance_id": status.instance_id,
        "document_hash": status.document_hash,
        "container": status.container,
        "services": status.services,
    })
    .to_string()
}

fn in_words(status: &RunStatus) -> String {
    if status.step.is_empty() && !status.is_over {
        return "no run yet".to_owned();
    }
    let outcome = match status.status {
        Some(Status::Success) => "SUCCESS",
        Some(Status::Failure) => "FAILURE",
        None if status.is_over => "nothing to do",
        None => return format!("running: step {}", status.step),
    };
    let signal = match status.signal {
        SignalState::None => "no handle to signal",
        SignalState::Pending => "signal not acknowledged yet",
        SignalState::Acknowledged => "signal acknowledged",
    };
    let reason = status.reason.as_deref().unwrap_or("told in an earlier run");
    format!("{outcome}: {reason} ({signal})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_the_outcome() {
        let check = |is_over, status, signal, expect: Exit| {
            let status = RunStatus { is_over, status, signal, ..RunStatus::default() };
            assert_eq!(exit(&status), expect, "{status:?}");
        };
        check(false, None, SignalState::None, Exit::Pending);
        check(false, Some(Status::Success), SignalState::Pending, Exit::Pending);
        check(true, Some(Status::Success), SignalState::Acknowledged, Exit::Success);
        check(true, Some(Status::Success), SignalState::None, Exit::Success);
        check(true, Some(Status::Success), SignalState::Pending, Exit::Undelivered);
        check(true, Some(Status::Failure), SignalState::Acknowledged, Exit::Failure);
        check(true, None, SignalState::None, Exit::Success);
    }
}
