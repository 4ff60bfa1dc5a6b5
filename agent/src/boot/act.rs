//! The steps that need an engine: run, watch, outputs.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::boot::containers::Reconciler;
use crate::boot::fault::FaultPoint;
use crate::boot::services::{Member, Members, Pace};
use crate::boot::step::Step;
use crate::boot::{Run, Trouble, engines, is_engine_away};
use crate::engine::logs::LogRange;
use crate::engine::{Engine, EngineError};
use crate::error::{AgentError, chain, seconds};
use crate::outputs::{self, Facts};
use crate::plan::{ContainerPlan, OutputName, Plan, When};
use crate::retry::Schedule;
use crate::state;

/// How many of the last lines are read for `logs` and `logs_tail`.
const N_LOG_LINES: u32 = 200;

impl Run {
    /// Until the containers of the plan are started. Without end as long as the engine is away; the
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
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        self.engine = Some(Arc::clone(engine));
        let files_directory = state::files_path(self.progress.state.path());
        let volumes_directory = state::volumes_path(self.progress.state.path());
        let mut reconciler = Reconciler {
            engine,
            console: &self.settings.console,
            subject,
            plan,
            files_directory: &files_directory,
            volumes_directory: &volumes_directory,
            authorities: &self.settings.authorities,
            is_done,
            faults: self.settings.faults,
            progress: &mut self.progress,
            members: &mut self.members,
            pumps: &mut self.pumps,
            guarding: &mut self.guarding,
            last_trouble: &mut self.last_trouble,
        };
        reconciler.reconcile().await
    }

    /// The first engine that answers, however long that takes: it may start after the agent.
    async fn find_engine(&mut self) -> Result<Arc<dyn Engine>, AgentError> {
        self.progress.enter(Step::Engine);
        let mut n_failures = 0;
        loop {
            // The first is the one that a reason is about.
            let mut first_error = None;
            for socket in &self.settings.engine_sockets {
                match engines::ping(socket).await {
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

    /// Until every container is what the document calls a success; then the reason for the signal.
    pub(super) async fn watch(&mut self, plan: &Plan) -> Result<String, AgentError> {
        self.progress.enter(Step::Watch);
        let Some(engine) = self.engine.clone() else {
            return Ok("nothing to run".to_owned());
        };
        let mut pace = Pace::default();
        loop {
            match self.members.look(&engine).await {
                Ok(()) => {
                    if let Some(failed) = self.members.failed() {
                        return Err(failed.into_error(plan));
                    }
                    if self.members.are_ready() {
                        self.settings.faults.reach(FaultPoint::AfterWatch);
                        return Ok(success_reason(plan, &self.members));
                    }
                    self.last_trouble = self.members.trouble();
                }
                Err(error) if is_engine_away(&error) => {
                    // Said once, not at every look.
                    if !matches!(self.last_trouble, Some(Trouble::Engine(_))) {
                        tracing::warn!(error = chain(&error), "engine went away while watching");
                    }
                    self.members.engine_is_away(Instant::now());
                    self.last_trouble = Some(Trouble::Engine(error));
                }
                Err(source) => return Err(AgentError::Engine { step: Step::Watch, source }),
            }
            pace.pause().await;
        }
    }

    /// What the document wants to know: of its only service, or of each by its name.
    pub(super) async fn outputs(&mut self, plan: &Plan) -> Map<String, Value> {
        self.progress.enter(Step::Outputs);
        let timings = self.progress.journal.timings(Instant::now());
        let mut outputs = Map::new();
        for container in &plan.containers {
            let of_service = self.outputs_of(plan, container, timings.clone()).await;
            if plan.containers.len() == 1 {
                outputs = of_service;
            } else {
                outputs.insert(container.service.clone(), Value::Object(of_service));
            }
        }
        self.settings.faults.reach(FaultPoint::AfterOutputs);
        outputs
    }

    /// What cannot be found out is `null`: it does not spoil a success.
    async fn outputs_of(
        &self,
        plan: &Plan,
        container: &ContainerPlan,
        timings: Map<String, Value>,
    ) -> Map<String, Value> {
        let mut facts = Facts { host: outputs::host::addresses(), timings, ..Facts::default() };
        let member = self.members.of_service(&container.service);
        if let (Some(engine), Some(member)) = (&self.engine, member) {
            let id = &member.container.id;
            if let Ok(Some(inspection)) = engine.inspect(id).await {
                facts.inspection = inspection.raw;
            }
            if plan.outputs.iter().any(|output| output.source == OutputName::ImageDigest)
                && let Ok(Some(image)) = engine.image(&container.image).await
            {
                facts.image_digest = Some(image.digest);
            }
            if outputs::needs_logs(&plan.outputs) {
                let end = LogRange::LastLines(N_LOG_LINES);
                facts.log_beginning = engine.logs(id, LogRange::First).await.unwrap_or_default();
                facts.log_end = engine.logs(id, end).await.unwrap_or_default();
            }
        }
        outputs::collect(&plan.outputs, &facts)
    }
}

fn success_reason(plan: &Plan, members: &Members) -> String {
    let mut all = members.iter();
    match (all.next(), all.next()) {
        (Some(only), None) => success_of(plan, only),
        _ => format!("{} services are as they should be", members.len()),
    }
}

fn success_of(plan: &Plan, member: &Member) -> String {
    match member.when() {
        When::Created => "container is started".to_owned(),
        When::Running => {
            format!("container has been running for {}", seconds(plan.watch.stable_for))
        }
        When::Healthy => "container is healthy".to_owned(),
        When::Exit => {
            let exit_code = member.last_seen().map_or(0, |container| container.state.exit_code);
            format!("job ended with exit code {exit_code}")
        }
    }
}
