//! What `wait --instance` says of an instance. That it was never heard of is told from that it fell
//! silent, for the two are looked into in different places.

use std::fmt::Write as _;

use crate::cli::Exit;
use crate::cli::poll::Polled;
use crate::instance::view::{InstanceState, InstanceView};

impl Polled for InstanceView {
    fn version(&self) -> u64 {
        self.version
    }

    fn has_ended(&self) -> bool {
        exit_of(self.state) != Exit::TimedOut
    }

    fn progress(&self) -> Option<String> {
        self.phases.last().map(|last| format!("{} {}", last.phase, last.text))
    }
}

pub(crate) fn exit_of(state: InstanceState) -> Exit {
    match state {
        InstanceState::Complete => Exit::Success,
        InstanceState::Failed => Exit::Failed,
        InstanceState::NeverContacted | InstanceState::Contacted => Exit::TimedOut,
    }
}

/// What is known of an instance, for a person.
pub(crate) fn describe(view: &InstanceView) -> String {
    let state = match view.state {
        InstanceState::NeverContacted => "never contacted",
        InstanceState::Contacted => "contacted",
        InstanceState::Complete => "complete",
        InstanceState::Failed => "failed",
    };
    let mut text = format!("instance {}: {state}: {}", view.id, view.reason);
    if view.state == InstanceState::Complete {
        return text;
    }
    for phase in &view.phases {
        let _infallible = write!(text, "\n  {:.0} {} {}", phase.at, phase.phase, phase.text);
    }
    if let Some(log) = &view.log {
        let _infallible = write!(text, "\n  last lines of the log:");
        for log_line in log.lines() {
            let _infallible = write!(text, "\n    {log_line}");
        }
    }
    text
}
