//! Making the instance's containers those of the plan.
//!
//! The agent owns what carries its label, and touches nothing else. A container that belongs to
//! this instance and this document is kept, with what it has in its writable layer; every other one
//! of ours is removed: the document has changed, or the disk has become another instance's. All of
//! it may be interrupted anywhere and done again: each step looks first at what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::boot::fault::{FaultPoint, Faults};
use crate::boot::guarding::Guarding;
use crate::boot::labels::{self, INSTANCE_LABEL, ORDER_LABEL, SERVICE_LABEL};
use crate::boot::progress::Progress;
use crate::boot::pumps::Pumps;
use crate::boot::services::{Members, watch_of};
use crate::boot::step::Step;
use crate::boot::{Trouble, is_engine_away};
use crate::console::Console;
use crate::engine::logs::LogStart;
use crate::engine::{ContainerStatus, Engine, EngineError, ListedContainer};
use crate::error::{AgentError, chain};
use crate::plan::{ContainerPlan, Plan, When};
use crate::state::Subject;

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
    pub(crate) plan: &'a Plan,
    pub(crate) files_directory: &'a Path,
    pub(crate) volumes_directory: &'a Path,
    /// Trusted for HTTPS beside those of the document.
    pub(crate) authorities: &'a [String],
    /// The outcome was told in an earlier run, and so was what the containers wrote until then.
    pub(crate) is_done: bool,
    pub(crate) faults: Faults,
    pub(crate) progress: &'a mut Progress,
    pub(crate) members: &'a mut Members,
    pub(crate) pumps: &'a mut Pumps,
    pub(crate) guarding: &'a mut Guarding,
    pub(crate) last_trouble: &'a mut Option<Trouble>,
}

/// Which service the error is about, if one.
pub(crate) type ServiceError = (Option<String>, AgentError);

impl Reconciler<'_> {
    pub(crate) async fn reconcile(&mut self) -> Result<(), AgentError> {
        self.members.clear();
        self.reconcile_all().await.map_err(|(service, error)| self.told(service, error))
    }

    async fn reconcile_all(&mut self) -> Result<(), ServiceError> {
        let plan = self.plan;
        self.progress.enter(Step::Create);
        let ours = self.engine.list(&labels::ours()).await;
        let ours = ours.map_err(|source| (None, failed_in(Step::Create)(source)))?;
        let services = plan.containers.iter().map(|one| one.service.as_str()).collect();
        let (mut kept, others) = sort_out(ours, self.subject, &services);

        let new = plan.containers.iter().filter(|one| !kept.contains_key(&one.service));
        let new: Vec<&ContainerPlan> = new.collect();
        for container in &new {
            self.check_name(&container.name).await.map_err(of(container))?;
        }
        for container in &new {
            self.get_image(container).await.map_err(of(container))?;
        }
        self.faults.reach(FaultPoint::AfterPull);
        self.progress.enter(Step::Create);
        self.remove(&others).await.map_err(|error| (None, error))?;
        self.faults.reach(FaultPoint::AfterRemove);
        self.prepare(&kept).await.map_err(|error| (None, error))?;
        self.faults.reach(FaultPoint::AfterPrepare);

        for container in &plan.containers {
            self.wait_for_others(container).await?;
            let kept = kept.remove(&container.service);
            let ours = self.bring_up(container, kept).await.map_err(of(container))?;
            self.started(container, ours);
            if container.metadata_access {
                self.guarding.update(self.engine, self.members, self.console).await;
            }
        }
        Ok(())
    }

    /// An error with what it means for the other services, where there are any.
    fn told(&self, service: Option<String>, error: AgentError) -> AgentError {
        let is_about_engine =
            matches!(&error, AgentError::Engine { source, .. } if is_engine_away(source));
        let Some(service) = service.filter(|_| self.plan.containers.len() > 1 && !is_about_engine)
        else {
            return error;
        };
        let rest = self.plan.containers.iter().skip(self.members.len());
        let not_started = rest.map(|one| one.service.clone()).filter(|one| *one != service);
        let not_started = not_started.collect();
        AgentError::Service { service, not_started, source: error.into() }
    }

    async fn bring_up(
        &mut self,
        container: &ContainerPlan,
        kept: Option<ListedContainer>,
    ) -> Result<OurContainer, AgentError> {
        if let Some(kept) = kept {
            if let Some(ours) = self.keep(container, &kept).await? {
                return Ok(ours);
            }
            self.check_name(&container.name).await?;
            self.get_image(container).await?;
        }
        self.create(container).await
    }

    fn started(&mut self, container: &ContainerPlan, ours: OurContainer) {
        // What an earlier run has seen to its end was shown by it.
        let start =
            if self.is_done && ours.is_kept { LogStart::NewOnly } else { LogStart::Beginning };
        let label = (self.plan.containers.len() > 1).then(|| container.service.clone());
        self.pumps.start(self.engine, self.console, &ours.id, start, label);
        self.progress.status.started(&container.service, &ours.id);
        self.members.start(self.plan, container, ours);
    }

    /// Starts the container if that is due. None: it cannot be started, and was removed.
    async fn keep(
        &mut self,
        plan: &ContainerPlan,
        kept: &ListedContainer,
    ) -> Result<Option<OurContainer>, AgentError> {
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
        let is_job = watch_of(self.plan, plan).when == When::Exit;
        let is_finished_job = is_job && inspection.state.started_at.is_some();
        // Between its creation and its first start it may not have got all its networks.
        let is_half_made = inspection.state.started_at.is_none() && !plan.attachments.is_empty();
        if is_half_made {
            self.remove(std::slice::from_ref(kept)).await?;
            return Ok(None);
        }
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
        let is_foreign = found.is_some_and(|found| !labels::is_ours(&found.labels));
        if is_foreign {
            let source = EngineError::NameTaken { name: name.to_owned() };
            return Err(AgentError::Engine { step: Step::Create, source });
        }
        Ok(())
    }

    async fn create(&mut self, plan: &ContainerPlan) -> Result<OurContainer, AgentError> {
        let order = self.members.len().to_string();
        let labels = [(INSTANCE_LABEL, self.subject.instance_id.as_str()), (ORDER_LABEL, &order)];
        let mut body = with_stop_grace(with_labels(&plan.create, &labels), plan.stop_grace);
        body["Image"] = self.image_name(&plan.image).await?.into();
        let id = self.engine.create(&plan.name, &body).await.map_err(failed_in(Step::Create))?;
        self.faults.reach(FaultPoint::AfterCreate);
        for attachment in &plan.attachments {
            let connected = self.engine.connect(&attachment.network, &id, &attachment.endpoint);
            connected.await.map_err(failed_in(Step::Create))?;
        }

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

/// For [`Result::map_err`]: the engine failed in this step.
pub(crate) fn failed_in(step: Step) -> impl Fn(EngineError) -> AgentError {
    move |source| AgentError::Engine { step, source }
}

/// For [`Result::map_err`]: the error is about this container's service.
fn of(container: &ContainerPlan) -> impl Fn(AgentError) -> ServiceError {
    |error| (Some(container.service.clone()), error)
}

/// The containers to keep, by service, and those to remove. The engine may list more than it was
/// asked for.
fn sort_out(
    listed: Vec<ListedContainer>,
    subject: &Subject,
    services: &BTreeSet<&str>,
) -> (BTreeMap<String, ListedContainer>, Vec<ListedContainer>) {
    let (mut kept, mut others) = (BTreeMap::new(), Vec::new());
    for container in listed.into_iter().filter(|container| labels::is_ours(&container.labels)) {
        let service = container.labels.get(SERVICE_LABEL).cloned().unwrap_or_default();
        let is_wanted =
            labels::are_of(&container.labels, subject) && services.contains(service.as_str());
        if is_wanted && !kept.contains_key(&service) {
            kept.insert(service, container);
        } else {
            others.push(container);
        }
    }
    (kept, others)
}

/// The plan does not know which instance it is for.
fn with_labels(create: &Value, labels: &[(&str, &str)]) -> Value {
    let mut body = create.clone();
    if let Some(known) = body.get_mut("Labels").and_then(Value::as_object_mut) {
        known.extend(labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    }
    body
}

/// Podman kills a container at once that was made without saying how long it may take to stop.
fn with_stop_grace(mut create: Value, stop_grace: Duration) -> Value {
    if let Some(body) = create.as_object_mut() {
        body.entry("StopTimeout").or_insert_with(|| stop_grace.as_secs().into());
    }
    create
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::labels::{AGENT_LABEL, DOCUMENT_LABEL};

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
        let check = |containers: Vec<ListedContainer>, keep: &[&str], remove: &[&str]| {
            let (kept, others) = sort_out(containers, &subject, &["main", "web"].into());
            let kept: Vec<&str> = kept.values().map(|one| one.id.as_str()).collect();
            assert_eq!(kept, keep);
            let others: Vec<&str> = others.iter().map(|one| one.id.as_str()).collect();
            assert_eq!(others, remove);
        };
        check(vec![], &[], &[]);
        check(vec![labelled("a", "i", "d", "main")], &["a"], &[]);
        check(
            vec![
                labelled("other-instance", "j", "d", "main"),
                labelled("a", "i", "d", "main"),
                labelled("b", "i", "d", "web"),
                labelled("twin", "i", "d", "main"),
                labelled("other-document", "i", "e", "main"),
                labelled("other-service", "i", "d", "db"),
                listed("foreign", &[(INSTANCE_LABEL, "i")]),
                listed("not-ours", &[(AGENT_LABEL, "0")]),
                listed("half-labelled", &[(AGENT_LABEL, "1")]),
            ],
            &["a", "b"],
            &["other-instance", "twin", "other-document", "other-service", "half-labelled"],
        );
    }

    #[test]
    fn the_instance_is_added_to_the_plans_labels() {
        let create = serde_json::json!({"Image": "a", "Labels": {"x": "1"}});
        let expect =
            serde_json::json!({"Image": "a", "Labels": {"x": "1", "io.heliograph.instance": "i"}});
        assert_eq!(with_labels(&create, &[(INSTANCE_LABEL, "i")]), expect);
    }
}
