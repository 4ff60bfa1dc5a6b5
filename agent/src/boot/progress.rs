//! How far the run is, for its own timings and for `heliograph-agent status`.

use tokio::time::Instant;

use crate::boot::step::{Journal, Step};
use crate::signal::gateway::Reporter;
use crate::state::{RunStatus, StateDirectory};

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) journal: Journal,
    pub(crate) status: RunStatus,
    pub(crate) state: StateDirectory,
    pub(crate) reporter: Option<Reporter>,
}

impl Progress {
    pub(crate) fn new(state: StateDirectory, reporter: Option<Reporter>, now: Instant) -> Progress {
        let journal = Journal::new(now);
        let status = RunStatus { began_after_boot_ms: uptime_ms(), ..RunStatus::default() };
        let progress = Progress { journal, status, state, reporter };
        progress.report();
        progress
    }

    pub(crate) fn enter(&mut self, step: Step) {
        self.journal.enter(step, Instant::now());
        step.as_str().clone_into(&mut self.status.step);
        self.report();
        if let Some(reporter) = &self.reporter {
            reporter.phase(step.as_str());
        }
        tracing::debug!(step = step.as_str(), "step begins");
    }

    pub(crate) fn report(&self) {
        let timings = self.journal.steps(Instant::now());
        self.state.report(&RunStatus { timings, ..self.status.clone() });
    }
}

/// The kernel's own count, in seconds with two decimal places. None where there is no `/proc`.
fn uptime_ms() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10)
}
