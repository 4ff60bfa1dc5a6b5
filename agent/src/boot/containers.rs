//! Making the instance's containers those of the plan.
//!
//! The agent owns what carries its label, and touches nothing else. A container that belongs to
//! this instance and this document is kept, with what it has in its writable layer; every other one
//! of ours is removed: the document has changed, or the disk has become another instance's. All of
//! it may be interrupted anywhere and done again: each step looks first at what is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use crate::boot::fault::{FaultPoint, Faults};
use crate::boot::progress::Progress;
use crate::boot::pull_report::PullReporter;
use crate::boot::step::Step;
use crate::console::Console;
use crate::engine::pull::PullProblem;
use crate::engine::{ContainerStatus, Engine, EngineError, Image, ListedContainer};
use crate::error::{AgentError, chain};
use crate::plan::{ContainerPlan, PullPolicy, When};
use crate::retry::Schedule;
use crate::state::Subject;

/// What every container of the agent carries.
const AGENT_LABEL: &str = "io.heliograph.agent";
const INSTANCE_LABEL: &str = "io.heliograph.instance";
const DOCUMENT_LABEL: &str = "io.heliograph.document";
const SERVICE_LABEL: &str = "io.heliograph.service";

/// Attempts of one pull; with the schedule's pauses a registry has a quarter of a minute to appear.
const MAX_PULL_ATTEMPTS: u32 = 5;

/// The container that the plan asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OurContainer {
    pub(crate) id: String,
    /// It was there before this run, and its log too.
    pub(crate) is_kept: bool,
    /// How often the engine had restarted it before this run.
    pub(crate) restarts_before: i64,
}

/// One attempt to bring the engine's containers in line with the plan.
pub(crate) struct Reconciler<'a> {
    pub(crate) engine: &'a Arc<dyn Engine>,
    pub(crate) console: &'a Console,
    pub(crate) subject: &'a Subject,
    pub(crate) when: When,
    pub(crate) faults: Faults,
    pub(crate) progress: &'a mut Progress,
}

impl Reconciler<'_> {
    pub(crate) async fn reconcile(
        &mut self,
        plan: &ContainerPlan,
    ) -> Result<OurContainer, AgentError> {
        self.progress.enter(Step::Create);
        let label = format!("{AGENT_LABEL}=1");
        let ours = self.engine.list(&label).await.map_err(failed_in(Step::Create))?;
        let (kept, others) = sort_out(ours, self.subject, &plan.service);

        if let Some(kept) = kept {
            self.remove(&others).await?;
            if let Some(container) = self.keep(&kept).await? {
                return Ok(container);
            }
        }
        self.check_name(&plan.name).await?;
        self.get_image(plan).await?;
        self.faults.reach(FaultPoint::AfterPull);
        self.progress.enter(Step::Create);
        self.remove(&others).await?;
        self.faults.reach(FaultPoint::AfterRemove);
        self.create(plan).await
    }

    /// Starts the container if that is due. None: it cannot be started, and was removed.
    async fn keep(&mut self, kept: &ListedContainer) -> Result<Option<OurContainer>, AgentError> {
        self.progress.enter(Step::Start);
        let inspected = self.engine.inspect(&kept.id).await.map_err(failed_in(Step::Start))?;
        let Some(inspection) = inspected else {
            return Ok(None);
        };
        let is_up = matches!(
            inspection.state.status,
            ContainerStatus::Running | ContainerStatus::Restarting | ContainerStatus::Paused
        );
        // A job runs once. What it was ended by, the engine still knows.
        let is_finished_job = self.when == When::Exit && inspection.state.started_at.is_some();
        let restarts_before = inspection.restart_count;
        let container = OurContainer { id: kept.id.clone(), is_kept: true, restarts_before };
        if is_up || is_finished_job {
            tracing::info!(container.name = kept.name, "container is kept as it is");
            return Ok(Some(container));
        }
        match self.engine.start(&kept.id).await {
            Ok(()) => {
                self.console.say(&format!("started {} again", kept.name));
                Ok(Some(container))
            }
            Err(error) if error.is_retriable() => Err(failed_in(Step::Start)(error)),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(container.name = kept.name, error, "container is made anew");
                self.remove(std::slice::from_ref(kept)).await?;
                Ok(None)
            }
        }
    }

    /// A container of that name that is not ours stays, and is a failure before anything is pulled.
    async fn check_name(&self, name: &str) -> Result<(), AgentError> {
        let found = self.engine.inspect(name).await.map_err(failed_in(Step::Create))?;
        let is_foreign = found.is_some_and(|found| !is_ours(&found.labels));
        if is_foreign {
            let source = EngineError::NameTaken { name: name.to_owned() };
            return Err(AgentError::Engine { step: Step::Create, source });
        }
        Ok(())
    }

    async fn get_image(&mut self, plan: &ContainerPlan) -> Result<(), AgentError> {
        self.progress.enter(Step::Pull);
        let is_local = plan.pull != PullPolicy::Always && self.image(plan).await?.is_some();
        if is_local {
            return Ok(());
        }
        if plan.pull == PullPolicy::Never {
            let source = EngineError::Pull {
                image: plan.image.to_string(),
                problem: PullProblem::NotLocal,
                message: "pull_policy is never".to_owned(),
            };
            return Err(AgentError::Engine { step: Step::Pull, source });
        }
        let mut n_failures = 0;
        loop {
            let error = match self.pull_once(plan).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            n_failures += 1;
            if !error.is_retriable() || n_failures == MAX_PULL_ATTEMPTS {
                return Err(failed_in(Step::Pull)(error));
            }
            let delay = Schedule::PULL.delay(n_failures);
            tracing::warn!(
                image = %plan.image,
                pull.n_failures = n_failures,
                error = chain(&error),
                "image was not pulled, will try again"
            );
            self.console.say(&format!("{error}; trying again"));
            tokio::time::sleep(delay).await;
        }
    }

    /// The image's presence is the proof: an engine that says nothing of a failure may have failed.
    async fn pull_once(&self, plan: &ContainerPlan) -> Result<(), EngineError> {
        let reporter = PullReporter::new(&plan.image, self.console, Instant::now());
        self.engine
            .pull(&plan.image, &|progress| reporter.report(progress, Instant::now()))
            .await?;
        if self.engine.image(&plan.image).await?.is_none() {
            return Err(EngineError::Pull {
                image: plan.image.to_string(),
                problem: PullProblem::BrokenStream,
                message: "engine reported no error, and the image is not there".to_owned(),
            });
        }
        reporter.done(Instant::now());
        Ok(())
    }

    async fn image(&self, plan: &ContainerPlan) -> Result<Option<Image>, AgentError> {
        self.engine.image(&plan.image).await.map_err(failed_in(Step::Pull))
    }

    async fn create(&mut self, plan: &ContainerPlan) -> Result<OurContainer, AgentError> {
        let body = with_instance_label(&plan.create, &self.subject.instance_id);
        let id = self.engine.create(&plan.name, &body).await.map_err(failed_in(Step::Create))?;
        self.faults.reach(FaultPoint::AfterCreate);

        self.progress.enter(Step::Start);
        self.engine.start(&id).await.map_err(failed_in(Step::Start))?;
        self.faults.reach(FaultPoint::AfterStart);
        self.console.say(&format!("started {} from {}", plan.name, plan.image));
        Ok(OurContainer { id, is_kept: false, restarts_before: 0 })
    }

    async fn remove(&self, containers: &[ListedContainer]) -> Result<(), AgentError> {
        for container in containers {
            tracing::info!(container.name = container.name, "removing a container of ours");
            let stopped = self.engine.stop(&container.id).await;
            // One that cannot be stopped, because it is dead or was never started, is removed by force.
            if let Err(error) = stopped {
                tracing::debug!(
                    container.name = container.name,
                    error = chain(&error),
                    "not stopped"
                );
            }
            self.engine.remove(&container.id).await.map_err(failed_in(Step::Create))?;
            self.console.say(&format!("removed {}", container.name));
        }
        Ok(())
    }
}

fn failed_in(step: Step) -> impl Fn(EngineError) -> AgentError {
    move |source| AgentError::Engine { step, source }
}

fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    labels.get(AGENT_LABEL).is_some_and(|value| value == "1")
}

/// The one container to keep, and those to remove. The engine may list more than it was asked for.
fn sort_out(
    listed: Vec<ListedContainer>,
    subject: &Subject,
    service: &str,
) -> (Option<ListedContainer>, Vec<ListedContainer>) {
    let mut kept = None;
    let mut others = Vec::new();
    for container in listed.into_iter().filter(|container| is_ours(&container.labels)) {
        let says = |label: &str, value: &str| {
            container.labels.get(label).is_some_and(|labelled| labelled == value)
        };
        let is_wanted = says(INSTANCE_LABEL, &subject.instance_id)
            && says(DOCUMENT_LABEL, &subject.document_hash)
            && says(SERVICE_LABEL, service);
        if is_wanted && kept.is_none() {
            kept = Some(container);
        } else {
            others.push(container);
        }
    }
    (kept, others)
}

/// The plan does not know which instance it is for.
fn with_instance_label(create: &Value, instance_id: &str) -> Value {
    let mut body = create.clone();
    if let Some(labels) = body.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.insert(INSTANCE_LABEL.to_owned(), Value::from(instance_id));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, labels: &[(&str, &str)]) -> ListedContainer {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ListedContainer { id: id.to_owned(), name: id.to_owned(), labels: labels.collect() }
    }

    fn labelled(id: &str, instance: &str, document: &str, service: &str) -> ListedContainer {
        listed(
            id,
            &[
                (AGENT_LABEL, "1"),
                (INSTANCE_LABEL, instance),
                (DOCUMENT_LABEL, document),
                (SERVICE_LABEL, service),
            ],
        )
    }

    #[test]
    fn one_container_is_kept_and_only_ours_are_removed() {
        let subject = Subject { instance_id: "i".to_owned(), document_hash: "d".to_owned() };
        let check = |containers: Vec<ListedContainer>, keep: Option<&str>, remove: &[&str]| {
            let (kept, others) = sort_out(containers, &subject, "main");
            assert_eq!(kept.as_ref().map(|one| one.id.as_str()), keep);
            let others: Vec<&str> = others.iter().map(|one| one.id.as_str()).collect();
            assert_eq!(others, remove);
        };
        check(vec![], None, &[]);
        check(vec![labelled("a", "i", "d", "main")], Some("a"), &[]);
        check(
            vec![
                labelled("other-instance", "j", "d", "main"),
                labelled("a", "i", "d", "main"),
                labelled("twin", "i", "d", "main"),
                labelled("other-document", "i", "e", "main"),
                labelled("other-service", "i", "d", "db"),
                listed("foreign", &[(INSTANCE_LABEL, "i")]),
                listed("not-ours", &[(AGENT_LABEL, "0")]),
                listed("half-labelled", &[(AGENT_LABEL, "1")]),
            ],
            Some("a"),
            &["other-instance", "twin", "other-document", "other-service", "half-labelled"],
        );
    }

    #[test]
    fn the_instance_is_added_to_the_plans_labels() {
        let create = serde_json::json!({"Image": "a", "Labels": {"x": "1"}});
        let expect =
            serde_json::json!({"Image": "a", "Labels": {"x": "1", "io.heliograph.instance": "i"}});
        assert_eq!(with_instance_label(&create, "i"), expect);
    }
}
