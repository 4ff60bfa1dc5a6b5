//! The steps that need an engine: run, watch, outputs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::boot::containers::Reconciler;
use crate::boot::fault::FaultPoint;
use crate::boot::pump::Pump;
use crate::boot::step::Step;
use crate::boot::watch::{Observer, Verdict};
use crate::boot::{Run, Trouble};
use crate::engine::docker::DockerEngine;
use crate::engine::logs::{LogRange, LogStart};
use crate::engine::{ContainerStatus, Engine, EngineError, Inspection};
use crate::error::{AgentError, chain, seconds};
use crate::outputs::{self, Facts};
use crate::plan::{OutputName, Plan, When};
use crate::retry::Schedule;

/// How often a container is looked at while it is new …
const FAST_POLL: Duration = Duration::from_millis(150);

/// … and after this many looks, when it needs its time.
const N_FAST_POLLS: u32 = 60;

const SLOW_POLL: Duration = Duration::from_secs(1);

/// How many of the last lines are read for `logs` and `logs_tail`.
const N_LOG_LINES: u32 = 200;

impl Run {
    /// Until the container of the plan is started. Without end as long as the engine is away; the
    /// caller has the deadline.
    pub(super) async fn run(&mut self, plan: &Plan, is_done: bool) -> Result<(), AgentError> {
        let mut n_failures = 0;
        loop {
            let engine = self.find_engine().await?;
            match self.reconcile(&engine, plan, is_done).await {
                Ok(()) => return Ok(()),
                Err(AgentError::Engine { source, .. }) if is_engine_away(&source) => {
                    let error = chain(&source);
                    tracing::warn!(error, "engine went away, beginning again");
                    self.last_trouble = Some(Trouble::Engine(source));
                }
                Err(error) => return Err(error),
            }
            n_failures += 1;
            tokio::time::sleep(Schedule::ENGINE.delay(n_failures)).await;
        }
    }

    async fn reconcile(
        &mut self,
        engine: &Arc<dyn Engine>,
        plan: &Plan,
        is_done: bool,
    ) -> Result<(), AgentError> {
        let (Some(container), Some(subject)) = (plan.containers.first(), &self.subject) else {
            return Ok(());
        };
        let mut reconciler = Reconciler {
            engine,
            console: &self.settings.console,
            subject,
            when: plan.watch.when,
            faults: self.settings.faults,
            progress: &mut self.progress,
        };
        let ours = reconciler.reconcile(container).await?;
        // What an earlier run has seen to its end was shown by it.
        let start = if is_done && ours.is_kept { LogStart::NewOnly } else { LogStart::Beginning };
        let console = self.settings.console.clone();
        self.pump = Some(Pump::start(Arc::clone(engine), console, ours.id.clone(), start));
        self.progress.status.container = Some(ours.id.clone());
        self.container = Some(ours);
        self.engine = Some(Arc::clone(engine));
        Ok(())
    }

    /// The first engine that answers, however long that takes: it may start after the agent.
    async fn find_engine(&mut self) -> Result<Arc<dyn Engine>, AgentError> {
        self.progress.enter(Step::Engine);
        let mut n_failures = 0;
        loop {
            // The first is the one that a reason is about.
            let mut first_error = None;
            for socket in &self.settings.engine_sockets {
                match ping(socket).await {
                    Ok(engine) => {
                        self.settings.faults.reach(FaultPoint::AfterEngine);
                        return Ok(engine);
                    }
                    Err(error @ EngineError::TooOld { .. }) => {
                        return Err(AgentError::Engine { step: Step::Engine, source: error });
                    }
                    Err(error) => drop(first_error.get_or_insert(error)),
                }
            }
            n_failures += 1;
            if let Some(error) = first_error {
                if n_failures == 1 {
                    self.settings.console.say(&format!("waiting for the engine: {error}"));
                }
                tracing::debug!(error = chain(&error), "engine does not answer");
                self.last_trouble = Some(Trouble::Engine(error));
            }
            tokio::time::sleep(Schedule::ENGINE.delay(n_failures)).await;
        }
    }

    /// Until the container is what the document calls a success; then the reason for the signal.
    pub(super) async fn watch(&mut self, plan: &Plan) -> Result<String, AgentError> {
        self.progress.enter(Step::Watch);
        let (Some(engine), Some(container)) = (self.engine.clone(), self.container.clone()) else {
            return Ok("nothing to run".to_owned());
        };
        let mut observer = Observer::new(&plan.watch, container.restarts_before);
        let mut n_looks = 0;
        loop {
            match engine.inspect(&container.id).await {
                Ok(found) => {
                    match observer.observe(found.as_ref(), Instant::now()) {
                        Verdict::Ready => {
                            self.settings.faults.reach(FaultPoint::AfterWatch);
                            return Ok(success_reason(plan, found.as_ref()));
                        }
                        Verdict::Failed(failure) => return Err(AgentError::Container(failure)),
                        Verdict::Wait => {}
                        Verdict::Start => {
                            tracing::warn!("engine has forgotten the container, starting it");
                            if let Err(error) = engine.start(&container.id).await {
                                tracing::warn!(error = chain(&error), "container was not started");
                            }
                        }
                    }
                    self.last_trouble = found.as_ref().map(|one| Trouble::Container(in_words(one)));
                }
                Err(error) if is_engine_away(&error) => {
                    // Said once, not at every look.
                    if !matches!(self.last_trouble, Some(Trouble::Engine(_))) {
                        tracing::warn!(error = chain(&error), "engine went away while watching");
                    }
                    observer.engine_is_away(Instant::now());
                    self.last_trouble = Some(Trouble::Engine(error));
                }
                Err(source) => return Err(AgentError::Engine { step: Step::Watch, source }),
            }
            n_looks += 1;
            let pause = if n_looks < N_FAST_POLLS { FAST_POLL } else { SLOW_POLL };
            tokio::time::sleep(pause).await;
        }
    }

    /// What the document wants to know. What cannot be found out is `null`: it does not spoil a
    /// success.
    pub(super) async fn outputs(&mut self, plan: &Plan) -> Map<String, Value> {
        self.progress.enter(Step::Outputs);
        let mut facts = Facts {
            host: outputs::host::addresses(),
            timings: self.progress.journal.timings(Instant::now()),
            ..Facts::default()
        };
        if let (Some(engine), Some(container)) = (&self.engine, &self.container) {
            if let Ok(Some(inspection)) = engine.inspect(&container.id).await {
                facts.inspection = inspection.raw;
            }
            if plan.outputs.contains(&OutputName::ImageDigest)
                && let Some(container) = plan.containers.first()
                && let Ok(Some(image)) = engine.image(&container.image).await
            {
                facts.image_digest = Some(image.digest);
            }
            if outputs::needs_logs(&plan.outputs) {
                let end = LogRange::LastLines(N_LOG_LINES);
                facts.log_beginning =
                    engine.logs(&container.id, LogRange::First).await.unwrap_or_default();
                facts.log_end = engine.logs(&container.id, end).await.unwrap_or_default();
            }
        }
        let outputs = outputs::collect(&plan.outputs, &facts);
        self.settings.faults.reach(FaultPoint::AfterOutputs);
        outputs
    }
}

async fn ping(socket: &std::path::Path) -> Result<Arc<dyn Engine>, EngineError> {
    let engine = DockerEngine::new(socket)?;
    let version = engine.ping().await?;
    tracing::info!(engine.server = version.server, engine.api = version.api, "engine answers");
    Ok(Arc::new(engine))
}

/// The engine, not what was asked of it, is the trouble.
fn is_engine_away(error: &EngineError) -> bool {
    matches!(error, EngineError::Unreachable { .. } | EngineError::Broken { .. })
}

fn success_reason(plan: &Plan, container: Option<&Inspection>) -> String {
    match plan.watch.when {
        When::Created => "container is started".to_owned(),
        When::Running => {
            format!("container has been running for {}", seconds(plan.watch.stable_for))
        }
        When::Healthy => "container is healthy".to_owned(),
        When::Exit => {
            let exit_code = container.map_or(0, |container| container.state.exit_code);
            format!("job ended with exit code {exit_code}")
        }
    }
}

fn in_words(container: &Inspection) -> String {
    let status = match container.state.status {
        ContainerStatus::Created => "created and not started",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Restarting => "restarting",
        ContainerStatus::Stopped => "stopped",
        ContainerStatus::Exited => "exited",
        ContainerStatus::Dead => "dead",
        ContainerStatus::Removing => "being removed",
        ContainerStatus::Unknown => "in an unknown state",
    };
    let health = container.state.health.as_ref().map_or(String::new(), |health| {
        format!(", its health check says {}", health.status.as_str())
    });
    format!("container is {status}{health}")
}
