//! The services of one document: how all of them are doing, and who waits for whom.
//!
//! Services are started one after another in the plan's order. Before each start every service that
//! was started so far is looked at, and what the next one depends on is waited for; a service that
//! has failed by then stops the rest from being started. Only a service that others merely would
//! like to have (`required: false`, and nobody requires it) does not. Once all are started, the
//! document is a success when one look finds every service to be one: a service that was ready and
//! is not any more counts as what it is now.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::boot::Trouble;
use crate::boot::containers::OurContainer;
use crate::boot::watch::{Observer, Verdict, WatchFailure};
use crate::engine::{ContainerStatus, Engine, EngineError, Inspection};
use crate::error::{AgentError, chain};
use crate::plan::{Condition, ContainerPlan, Plan, Watch, When};

/// How often a container is looked at while it is new …
const FAST_POLL: Duration = Duration::from_millis(150);

/// … and after this many looks, when it needs its time.
const N_FAST_POLLS: u32 = 60;

const SLOW_POLL: Duration = Duration::from_secs(1);

/// The pauses between looks.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    n_looks: u32,
}

impl Pace {
    pub(crate) async fn pause(&mut self) {
        self.n_looks += 1;
        let pause = if self.n_looks < N_FAST_POLLS { FAST_POLL } else { SLOW_POLL };
        tokio::time::sleep(pause).await;
    }
}

/// One service whose container was started.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) service: String,
    pub(crate) container: OurContainer,
    watch: Watch,
    observer: Observer,
    verdict: Verdict,
    /// Nobody needs it, so its failure does not keep others from being started.
    is_optional: bool,
    metadata_access: bool,
    last_seen: Option<Inspection>,
}

/// A service that will not become a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailedService {
    pub(crate) service: String,
    pub(crate) failure: WatchFailure,
}

impl FailedService {
    /// For a document whose services were all started.
    pub(crate) fn into_error(self, plan: &Plan) -> AgentError {
        let error = AgentError::Container(self.failure);
        if plan.containers.len() == 1 {
            return error;
        }
        AgentError::Service { service: self.service, not_started: vec![], source: error.into() }
    }
}

/// The services that were started, in their order.
#[derive(Debug, Default)]
pub(crate) struct Members {
    members: Vec<Member>,
}

impl Members {
    pub(crate) fn start(
        &mut self,
        plan: &Plan,
        container_plan: &ContainerPlan,
        container: OurContainer,
    ) {
        let watch = watch_of(plan, container_plan);
        self.members.push(Member {
            service: container_plan.service.clone(),
            observer: Observer::new(watch.clone(), container.restarts_before),
            container,
            watch,
            verdict: Verdict::Wait,
            is_optional: is_optional(plan, &container_plan.service),
            metadata_access: container_plan.metadata_access,
            last_seen: None,
        });
    }

    /// The engine went away, and everything is looked up anew.
    pub(crate) fn clear(&mut self) {
        self.members.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// The containers that may reach the metadata service.
    pub(crate) fn with_metadata_access(&self) -> impl Iterator<Item = &str> {
        let allowed = self.members.iter().filter(|member| member.metadata_access);
        allowed.map(|member| member.container.id.as_str())
    }

    pub(crate) fn of_service(&self, service: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.service == service)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The engine did not answer, so nothing is known of any.
    pub(crate) fn engine_is_away(&mut self, now: Instant) {
        self.members.iter_mut().for_each(|member| member.observer.engine_is_away(now));
    }

    /// Looks at every container once.
    pub(crate) async fn look(&mut self, engine: &Arc<dyn Engine>) -> Result<(), EngineError> {
        for member in &mut self.members {
            member.look(engine).await?;
        }
        Ok(())
    }

    pub(crate) fn are_ready(&self) -> bool {
        self.members.iter().all(|member| member.verdict == Verdict::Ready)
    }

    /// The first that failed.
    pub(crate) fn failed(&self) -> Option<FailedService> {
        self.members.iter().find_map(Member::failed)
    }

    /// The first that failed and without which there is no point in starting others.
    pub(crate) fn failed_and_needed(&self) -> Option<FailedService> {
        let mut needed = self.members.iter().filter(|member| !member.is_optional);
        needed.find_map(Member::failed)
    }

    /// What the first service that is not ready is doing, for a reason.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let member = self.members.iter().find(|member| member.verdict != Verdict::Ready)?;
        let what = in_words(member.last_seen.as_ref()?);
        Some(Trouble::Container { service: member.service.clone(), what })
    }
}

impl Member {
    async fn look(&mut self, engine: &Arc<dyn Engine>) -> Result<(), EngineError> {
        let found = engine.inspect(&self.container.id).await?;
        self.verdict = self.observer.observe(found.as_ref(), Instant::now());
        if self.verdict == Verdict::Start {
            let service = self.service.as_str();
            tracing::warn!(service, "engine has forgotten the container, starting it");
            if let Err(error) = engine.start(&self.container.id).await {
                tracing::warn!(service, error = chain(&error), "container was not started");
            }
        }
        self.last_seen = found;
        Ok(())
    }

    fn failed(&self) -> Option<FailedService> {
        let Verdict::Failed(failure) = &self.verdict else {
            return None;
        };
        Some(FailedService { service: self.service.clone(), failure: failure.clone() })
    }

    /// An observer that is content when the condition holds. None: it does already, for whatever
    /// was started has been started.
    pub(crate) fn observer_of(&self, condition: Condition) -> Option<Observer> {
        let when = match condition {
            Condition::Started => return None,
            Condition::Healthy => When::Healthy,
            Condition::CompletedSuccessfully => When::Exit,
        };
        Some(Observer::new(Watch { when, ..self.watch.clone() }, self.container.restarts_before))
    }

    pub(crate) fn last_seen(&self) -> Option<&Inspection> {
        self.last_seen.as_ref()
    }

    pub(crate) fn when(&self) -> When {
        self.watch.when
    }
}

/// What success means for one service. What another waits for the end of is a job.
pub(crate) fn watch_of(plan: &Plan, container: &ContainerPlan) -> Watch {
    let is_awaited_to_end = dependencies_on(plan, &container.service)
        .any(|dependency| dependency.condition == Condition::CompletedSuccessfully);
    Watch {
        when: if is_awaited_to_end { When::Exit } else { container.when },
        success_exit_codes: container.success_exit_codes.clone(),
        ..plan.watch.clone()
    }
}

fn is_optional(plan: &Plan, service: &str) -> bool {
    let mut dependencies = dependencies_on(plan, service).peekable();
    dependencies.peek().is_some() && dependencies.all(|dependency| !dependency.required)
}

fn dependencies_on<'a>(
    plan: &'a Plan,
    service: &'a str,
) -> impl Iterator<Item = &'a crate::plan::Dependency> {
    let all = plan.containers.iter().flat_map(|container| &container.depends_on);
    all.filter(move |dependency| dependency.service == service)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::Dependency;
    use crate::userdata;

    /// What a service depends on, for what, and whether it requires that.
    type Needs<'a> = &'a [(&'a str, Condition, bool)];

    /// A plan of these services, each with what it depends on.
    fn plan(services: &[(&str, Needs<'_>)]) -> Plan {
        let document = userdata::parse("image: a").unwrap();
        let mut plan = Plan::new(&document, Path::new("/state"));
        let only = plan.containers.remove(0);
        plan.containers = services
            .iter()
            .map(|(name, depends_on)| {
                let depends_on =
                    depends_on.iter().map(|(service, condition, required)| Dependency {
                        service: (*service).to_owned(),
                        condition: *condition,
                        required: *required,
                    });
                let depends_on = depends_on.collect();
                ContainerPlan { service: (*name).to_owned(), depends_on, ..only.clone() }
            })
            .collect();
        plan
    }

    #[test]
    fn what_is_awaited_to_end_is_a_job() {
        let (done, started) = (Condition::CompletedSuccessfully, Condition::Started);
        let plan = plan(&[
            ("seed", &[]),
            ("store", &[]),
            ("web", &[("seed", done, true), ("store", started, true)]),
        ]);
        let when = |at: usize| watch_of(&plan, &plan.containers[at]).when;
        assert_eq!([when(0), when(1), when(2)], [When::Exit, When::Running, When::Running]);
    }

    #[test]
    fn only_what_nobody_requires_is_optional() {
        let started = Condition::Started;
        let plan = plan(&[
            ("cache", &[]),
            ("store", &[]),
            ("web", &[("cache", started, false), ("store", started, false)]),
            ("jobs", &[("store", started, true)]),
        ]);
        for (service, expect) in [("cache", true), ("store", false), ("web", false)] {
            assert_eq!(is_optional(&plan, service), expect, "{service}");
        }
    }
}
