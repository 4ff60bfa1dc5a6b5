//! Watching a container until it is what the document calls a success, or cannot become it.
//!
//! The container is looked at again and again; what each look means is decided by [`Observer`],
//! which is a plain value. A container that ends although it should run is a failure at once if the
//! engine leaves it there, and after [`MAX_EXITS`] ends if the engine starts it again: a service
//! often needs its second start, because what it depends on was not up at the first.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{ContainerStatus, Health, HealthStatus, Inspection};
use crate::plan::{Watch, When};
use crate::text;

/// Ends after which a container that is started again and again is a crash loop. Docker doubles
/// its pauses from 100 ms, so this takes less than a second; Podman makes none.
pub const MAX_EXITS: i64 = 3;

/// A crash loop whose exit code nobody saw is told without it after so many ends.
const MAX_UNSEEN_EXITS: i64 = 30;

/// Podman says `stopped` between the end of a process and its decision what follows. One that
/// stays so has ended.
const MAX_STOPPED: Duration = Duration::from_secs(3);

/// An engine that comes back finds containers ended, and has started them again after so long. One
/// that it has forgotten, which Docker does after it was killed, is started by the agent.
const ENGINE_SETTLES: Duration = Duration::from_secs(5);

/// SIGKILL. Docker forgets that it was the kernel's out-of-memory killer when it starts the
/// container again, and Podman does not learn of it on every kernel, so where there is a memory
/// limit it is taken to be that.
const KILLED: i64 = 137;

/// How much of a health check's output goes into a reason.
const MAX_CHECK_OUTPUT_BYTES: usize = 300;

/// What one look at the container means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wait,
    Ready,
    /// The engine ended it by going away, and has not started it again.
    Start,
    Failed(WatchFailure),
}

/// Why a container will not become a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchFailure {
    #[error("container ended with exit code {exit_code}")]
    Exited { exit_code: i64, is_job: bool, has_memory_limit: bool },
    #[error("container ended {n_exits} times")]
    CrashLoop { n_exits: i64, exit_code: Option<i64>, has_memory_limit: bool },
    #[error("container ran out of memory")]
    OutOfMemory { limit_bytes: i64 },
    #[error("container is unhealthy")]
    Unhealthy { exit_code: Option<i64>, output: Option<String> },
    #[error("container has no health check")]
    NoHealthCheck,
    #[error("container was removed by somebody else")]
    Gone,
    #[error("container cannot run any more")]
    Dead { error: String },
}

impl WatchFailure {
    pub fn code(&self) -> &'static str {
        match self {
            WatchFailure::Exited { exit_code: 127, .. } => "command_not_found",
            WatchFailure::Exited { exit_code: 126, .. } => "command_not_executable",
            WatchFailure::Exited { exit_code: KILLED, has_memory_limit: true, .. }
            | WatchFailure::CrashLoop { exit_code: Some(KILLED), has_memory_limit: true, .. } => {
                "container_out_of_memory"
            }
            WatchFailure::Exited { .. } => "container_exited",
            WatchFailure::CrashLoop { .. } => "container_crash_loop",
            WatchFailure::OutOfMemory { .. } => "container_out_of_memory",
            WatchFailure::Unhealthy { .. } => "container_unhealthy",
            WatchFailure::NoHealthCheck => "health_check_missing",
            WatchFailure::Gone => "container_gone",
            WatchFailure::Dead { .. } => "container_dead",
        }
    }

    /// One line for a person.
    pub fn reason(&self) -> String {
        match self {
            WatchFailure::Exited { exit_code, is_job: true, has_memory_limit } => {
                format!("job ended with {}", explained(*exit_code, *has_memory_limit))
            }
            WatchFailure::Exited { exit_code: 0, is_job: false, .. } => {
                "container ended with exit code 0 although it should keep running; if it is a job, write `when: exit` below `signal`".to_owned()
            }
            WatchFailure::Exited { exit_code, has_memory_limit, .. } => {
                format!("container ended with {}", explained(*exit_code, *has_memory_limit))
            }
            WatchFailure::CrashLoop { n_exits, exit_code, has_memory_limit } => {
                let last = exit_code.map_or("an unknown exit code".to_owned(), |code| {
                    explained(code, *has_memory_limit)
                });
                let hint = if *exit_code == Some(0) {
                    "; if it is a job, write `when: exit` below `signal`"
                } else {
                    ""
                };
                format!("crash loop: container ended {n_exits} times, last with {last}{hint}")
            }
            WatchFailure::OutOfMemory { limit_bytes: 0 } => {
                "out of memory (OOM): the instance has no memory left for the container; use a larger flavor".to_owned()
            }
            WatchFailure::OutOfMemory { limit_bytes } => format!(
                "out of memory (OOM): container was killed at its limit of {} MiB; raise mem_limit",
                limit_bytes / (1024 * 1024)
            ),
            WatchFailure::Unhealthy { exit_code, output } => {
                let code = exit_code.map_or(String::new(), |code| format!(" with exit code {code}"));
                let output = output.as_deref().map_or("it wrote nothing".to_owned(), |output| {
                    format!("it wrote: {}", text::clean(output, MAX_CHECK_OUTPUT_BYTES))
                });
                format!("health check failed as often as its retries allow; the last ended{code}, {output}")
            }
            WatchFailure::NoHealthCheck => {
                "signal.when is healthy, and neither the document nor the image has a health check".to_owned()
            }
            WatchFailure::Gone => "container was removed by somebody else".to_owned(),
            WatchFailure::Dead { error } => {
                format!("engine cannot run the container any more: {}", text::clean(error, 400))
            }
        }
    }

    /// The container's exit code, where the failure has one.
    pub fn exit_code(&self) -> Option<i64> {
        match self {
            WatchFailure::Exited { exit_code, .. } => Some(*exit_code),
            WatchFailure::CrashLoop { exit_code, .. } => *exit_code,
            WatchFailure::OutOfMemory { .. } => Some(KILLED),
            _ => None,
        }
    }
}

/// What shells and engines mean by an exit code.
fn explained(exit_code: i64, has_memory_limit: bool) -> String {
    let meaning = match exit_code {
        126 => "command is not executable",
        127 => "command not found",
        KILLED if has_memory_limit => {
            "killed; out of memory (OOM) in all likelihood, raise mem_limit"
        }
        KILLED => "killed, perhaps for want of memory",
        139 => "segmentation fault",
        143 => "terminated",
        _ => return format!("exit code {exit_code}"),
    };
    format!("exit code {exit_code} ({meaning})")
}

/// Turns looks at one container into a verdict.
#[derive(Debug)]
pub struct Observer {
    watch: Watch,
    /// A kept container may have been restarted long ago.
    restarts_before: i64,
    last_exit_code: Option<i64>,
    /// Since when this very start of the container has been seen running.
    running: Option<(Option<String>, Instant)>,
    stopped_since: Option<Instant>,
    engine_away_at: Option<Instant>,
}

impl Observer {
    pub fn new(watch: Watch, restarts_before: i64) -> Observer {
        Observer {
            watch,
            restarts_before,
            last_exit_code: None,
            running: None,
            stopped_since: None,
            engine_away_at: None,
        }
    }

    /// The engine did not answer, so nothing is known, and what is seen next may pass.
    pub fn engine_is_away(&mut self, now: Instant) {
        self.running = None;
        self.engine_away_at = Some(now);
    }

    /// None: the container is not there any more.
    pub fn observe(&mut self, container: Option<&Inspection>, now: Instant) -> Verdict {
        let Some(container) = container else {
            return Verdict::Failed(WatchFailure::Gone);
        };
        let state = &container.state;
        if state.status != ContainerStatus::Stopped {
            self.stopped_since = None;
        }
        match state.status {
            ContainerStatus::Running => self.running(container, now),
            ContainerStatus::Exited => self.ended(container, now),
            ContainerStatus::Stopped => {
                self.running = None;
                self.last_exit_code = Some(state.exit_code);
                let since = *self.stopped_since.get_or_insert(now);
                if now - since >= MAX_STOPPED {
                    return self.ended(container, now);
                }
                self.looping(container)
            }
            ContainerStatus::Restarting => {
                self.running = None;
                self.last_exit_code = Some(state.exit_code);
                if state.oom_killed && self.watch.when != When::Exit {
                    return Verdict::Failed(out_of_memory(container));
                }
                self.looping(container)
            }
            ContainerStatus::Dead | ContainerStatus::Removing => {
                Verdict::Failed(WatchFailure::Dead { error: state.error.clone() })
            }
            ContainerStatus::Created | ContainerStatus::Paused | ContainerStatus::Unknown => {
                self.running = None;
                Verdict::Wait
            }
        }
    }

    fn running(&mut self, container: &Inspection, now: Instant) -> Verdict {
        let started_at = container.state.started_at.clone();
        let since = match &self.running {
            Some((seen, since)) if *seen == started_at => *since,
            _ => now,
        };
        self.running = Some((started_at, since));
        let looping = self.looping(container);
        if looping != Verdict::Wait {
            return looping;
        }
        match self.watch.when {
            When::Created => Verdict::Ready,
            When::Running if now - since >= self.watch.stable_for => Verdict::Ready,
            When::Running | When::Exit => Verdict::Wait,
            When::Healthy => healthy(container.state.health.as_ref()),
        }
    }

    fn ended(&mut self, container: &Inspection, now: Instant) -> Verdict {
        if let Some(at) = self.engine_away_at
            && container.has_restart_policy
        {
            if now - at < ENGINE_SETTLES {
                return Verdict::Wait;
            }
            self.engine_away_at = None;
            return Verdict::Start;
        }
        let exit_code = container.state.exit_code;
        let is_job = self.watch.when == When::Exit;
        if container.state.oom_killed {
            return Verdict::Failed(out_of_memory(container));
        }
        if is_job && self.watch.success_exit_codes.contains(&exit_code) {
            return Verdict::Ready;
        }
        let has_memory_limit = container.memory_limit > 0;
        Verdict::Failed(WatchFailure::Exited { exit_code, is_job, has_memory_limit })
    }

    /// A job may be started as often as its restart policy says.
    fn looping(&self, container: &Inspection) -> Verdict {
        let n_exits = container.restart_count - self.restarts_before;
        let is_told = self.last_exit_code.is_some() || n_exits >= MAX_UNSEEN_EXITS;
        if self.watch.when == When::Exit || n_exits < MAX_EXITS || !is_told {
            return Verdict::Wait;
        }
        Verdict::Failed(WatchFailure::CrashLoop {
            n_exits,
            exit_code: self.last_exit_code,
            has_memory_limit: container.memory_limit > 0,
        })
    }
}

fn healthy(health: Option<&Health>) -> Verdict {
    let Some(health) = health else {
        return Verdict::Failed(WatchFailure::NoHealthCheck);
    };
    match health.status {
        HealthStatus::Starting => Verdict::Wait,
        HealthStatus::Healthy => Verdict::Ready,
        HealthStatus::Unhealthy => Verdict::Failed(WatchFailure::Unhealthy {
            exit_code: health.last_exit_code,
            output: health.last_output.clone(),
        }),
    }
}

fn out_of_memory(container: &Inspection) -> WatchFailure {
    WatchFailure::OutOfMemory { limit_bytes: container.memory_limit }
}

#[cfg(test)]
#[path = "watch/tests.rs"]
mod tests;
