//! The steps of the flow: their names in reasons, and how long each took.

use std::fmt;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// A step of the flow, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Datasource,
    Decode,
    Document,
    Plan,
    Engine,
    Pull,
    Create,
    Start,
    Watch,
    Outputs,
    Signal,
    Mark,
}

impl Step {
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Datasource => "datasource",
            Step::Decode => "decode",
            Step::Document => "document",
            Step::Plan => "plan",
            Step::Engine => "engine",
            Step::Pull => "pull",
            Step::Create => "create",
            Step::Start => "start",
            Step::Watch => "watch",
            Step::Outputs => "outputs",
            Step::Signal => "signal",
            Step::Mark => "mark",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which step runs, and how long those before it took.
#[derive(Debug)]
pub struct Journal {
    started_at: Instant,
    step: Step,
    step_started_at: Instant,
    done: Vec<(Step, u64)>,
}

impl Journal {
    pub fn new(now: Instant) -> Journal {
        Journal { started_at: now, step: Step::Datasource, step_started_at: now, done: Vec::new() }
    }

    pub fn started_at(&self) -> Instant {
        self.started_at
    }

    pub fn step(&self) -> Step {
        self.step
    }

    /// Ends the step that runs and begins another. A step that is begun again goes on.
    pub fn enter(&mut self, step: Step, now: Instant) {
        self.add_elapsed(now);
        self.step = step;
        self.step_started_at = now;
    }

    /// Milliseconds per step so far, and in all.
    pub fn timings(&self, now: Instant) -> Map<String, Value> {
        let running = (self.step, milliseconds(now - self.step_started_at));
        let mut timings = Map::new();
        for (step, elapsed_ms) in self.done.iter().copied().chain([running]) {
            let before = timings.get(step.as_str()).and_then(Value::as_u64).unwrap_or(0);
            timings.insert(step.as_str().to_owned(), json!(before + elapsed_ms));
        }
        timings.insert("total".to_owned(), json!(milliseconds(now - self.started_at)));
        timings
    }

    /// The steps so far, in the order in which each was first begun, and the milliseconds of each.
    pub fn steps(&self, now: Instant) -> Vec<(String, u64)> {
        let running = (self.step, milliseconds(now - self.step_started_at));
        let mut steps: Vec<(String, u64)> = Vec::new();
        for (step, elapsed_ms) in self.done.iter().copied().chain([running]) {
            match steps.iter_mut().find(|(name, _)| name == step.as_str()) {
                Some((_, total_ms)) => *total_ms += elapsed_ms,
                None => steps.push((step.as_str().to_owned(), elapsed_ms)),
            }
        }
        steps
    }

    fn add_elapsed(&mut self, now: Instant) {
        let elapsed_ms = milliseconds(now - self.step_started_at);
        match self.done.iter_mut().find(|(step, _)| *step == self.step) {
            Some((_, total_ms)) => *total_ms += elapsed_ms,
            None => self.done.push((self.step, elapsed_ms)),
        }
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_is_counted_per_step_also_when_one_is_begun_again() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut journal = Journal::new(start);
        journal.enter(Step::Engine, after(5));
        journal.enter(Step::Pull, after(7));
        journal.enter(Step::Engine, after(107));
        journal.enter(Step::Watch, after(110));
        let expect = json!({"datasource": 5, "engine": 5, "pull": 100, "watch": 40, "total": 150});
        assert_eq!(Value::Object(journal.timings(after(150))), expect);
    }
}
