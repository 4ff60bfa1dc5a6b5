//! Waiting for other services before one is started.

use tokio::time::Instant;

use crate::boot::containers::{Reconciler, ServiceError, failed_in};
use crate::boot::services::Pace;
use crate::boot::step::Step;
use crate::boot::watch::Verdict;
use crate::error::AgentError;
use crate::plan::{ContainerPlan, Dependency};

impl Reconciler<'_> {
    /// Until what the container depends on is there, or a service has failed.
    pub(super) async fn wait_for_others(
        &mut self,
        container: &ContainerPlan,
    ) -> Result<(), ServiceError> {
        self.look().await?;
        for dependency in &container.depends_on {
            self.wait_for(container, dependency).await?;
        }
        Ok(())
    }

    async fn wait_for(
        &mut self,
        container: &ContainerPlan,
        dependency: &Dependency,
    ) -> Result<(), ServiceError> {
        let member = self.members.of_service(&dependency.service);
        let Some(mut observer) = member.and_then(|one| one.observer_of(dependency.condition))
        else {
            return Ok(());
        };
        self.progress.enter(Step::Watch);
        let mut pace = Pace::default();
        loop {
            let seen = self.members.of_service(&dependency.service).and_then(|one| one.last_seen());
            match observer.observe(seen, Instant::now()) {
                Verdict::Ready => return Ok(()),
                Verdict::Failed(failure) if dependency.required => {
                    return Err((Some(dependency.service.clone()), AgentError::Container(failure)));
                }
                Verdict::Failed(failure) => {
                    let (service, other) = (&container.service, &dependency.service);
                    self.console.say(&format!(
                        "warning: {service} is started although {other} failed: {failure}"
                    ));
                    return Ok(());
                }
                Verdict::Wait | Verdict::Start => {}
            }
            pace.pause().await;
            self.look().await?;
        }
    }

    /// Looks at everything that was started.
    async fn look(&mut self) -> Result<(), ServiceError> {
        let looked = self.members.look(self.engine).await;
        looked.map_err(|source| (None, failed_in(Step::Watch)(source)))?;
        *self.last_trouble = self.members.trouble();
        match self.members.failed_and_needed() {
            Some(failed) => Err((Some(failed.service), AgentError::Container(failed.failure))),
            None => Ok(()),
        }
    }
}
