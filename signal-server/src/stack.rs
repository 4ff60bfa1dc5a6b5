//! Stacks: which of those that Heat's stacks expect have signalled, and which have never called.
//!
//! Heat's own words about a time-out are `1 of 3 received`. The relay knows more: the ids that came
//! ([`StackRecord`]), whom the stack expected, and what the instances said by way of the metadata surface
//! ([`Instances`]). An expected name is an id, or what ids of it begin with before a slash: the agent's own
//! ids begin with its instance's UUID, so that a list of instances will do.
//!
//! When Heat stops asking for a stack's signals, its wait is over, well or badly. What is missing then is
//! written to the log, once. This is noticed by the relay that Heat asked, and not noted anywhere; the
//! record itself can be read at any time.

pub(crate) mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::error::chain;
use crate::instance::error::InstanceError;
use crate::instance::view::InstanceState;
use crate::instance::{InstanceId, Instances};
use crate::mailbox::error::MailboxError;
use crate::mailbox::{ContainerAddress, Mailboxes, StackHandle, StackRecord};
use crate::stack::view::{ExpectedState, ExpectedView, StackView};

/// How long Heat must not have asked for a wait to be over. It asks every second, and waits up to 16 s when
/// an answer was an error.
const SILENCE: Duration = Duration::from_secs(20);

/// How often it is looked which waits are over.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The most stacks that are watched at once: as many as heat-engine could poll once a second here. Of more
/// the records are kept as well, but nothing is said when their waits end.
const MAX_WATCHED: usize = 100_000;

/// Who has signalled for the stacks of one relay. Cloning it is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Stacks {
    mailboxes: Mailboxes,
    instances: Instances,
    asked_at: Arc<Mutex<HashMap<ContainerAddress, Instant>>>,
}

/// Why a stack's record cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StackError {
    #[error("failed to read the signals of the stack")]
    Mailbox(#[source] MailboxError),
    #[error("failed to read the record of an instance")]
    Instance(#[source] InstanceError),
}

impl Stacks {
    pub(crate) fn new(mailboxes: Mailboxes, instances: Instances) -> Stacks {
        Stacks { mailboxes, instances, asked_at: Arc::default() }
    }

    /// Notes that somebody, most likely Heat, has asked for the signals of a stack.
    pub(crate) fn asked_for(&self, stack: &ContainerAddress) {
        let mut asked_at = self.asked_at();
        if let Some(time) = asked_at.get_mut(stack) {
            *time = Instant::now();
        } else if asked_at.len() < MAX_WATCHED {
            asked_at.insert(stack.clone(), Instant::now());
        }
    }

    /// What is known of a stack.
    pub(crate) async fn view(&self, stack: &ContainerAddress) -> Result<StackView, StackError> {
        let record = self.mailboxes.stack(stack).await.map_err(StackError::Mailbox)?;
        let mut expected = Vec::with_capacity(record.expected.len());
        for name in &record.expected {
            expected.push(self.expected(stack, &record, name).await?);
        }
        Ok(StackView::new(stack.container.as_str(), record, expected))
    }

    async fn expected(
        &self,
        stack: &ContainerAddress,
        record: &StackRecord,
        name: &str,
    ) -> Result<ExpectedView, StackError> {
        let mut view = ExpectedView { name: name.to_owned(), ..ExpectedView::default() };
        if record.handles.iter().any(|handle| has_signalled(handle, name)) {
            view.state = ExpectedState::Signalled;
            return Ok(view);
        }
        let Some(id) = InstanceId::parse(name) else { return Ok(view) };
        let known = self.instances.view(id).await.map_err(StackError::Instance)?;
        // An instance of another project is as unknown as one that never was.
        let project = stack.account.as_str().strip_prefix("AUTH_");
        let known = known.filter(|known| known.project.as_deref() == project);
        let Some(known) = known else {
            view.state = ExpectedState::NeverContacted;
            return Ok(view);
        };
        view.state = match known.state {
            // What it said went elsewhere: it was not told of this stack's handle.
            InstanceState::Complete | InstanceState::Failed => ExpectedState::SignalledElsewhere,
            InstanceState::Contacted | InstanceState::NeverContacted => ExpectedState::Contacted,
        };
        view.instance_name = known.name;
        view.reason = Some(known.reason);
        Ok(view)
    }

    /// Says for each stack whose wait ends who has not signalled. Never returns.
    pub(crate) async fn watch(&self) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for stack in self.take_silent(Instant::now()) {
                self.report(&stack).await;
            }
        }
    }

    fn take_silent(&self, now: Instant) -> Vec<ContainerAddress> {
        let is_silent = |time: &Instant| now.saturating_duration_since(*time) > SILENCE;
        let mut asked_at = self.asked_at();
        asked_at.extract_if(|_, time| is_silent(time)).map(|(stack, _)| stack).collect()
    }

    async fn report(&self, stack: &ContainerAddress) {
        match self.view(stack).await {
            Ok(view) if view.n_missing > 0 => tracing::warn!(
                account = stack.account.as_str(),
                // As text, of which control characters are escaped; any token can choose the name.
                stack = stack.container.as_str(),
                n_expected = view.expected.len(),
                n_missing = view.n_missing,
                missing = view.missing(),
                "Heat has stopped asking for the signals of a stack, and some never came"
            ),
            Ok(_) => {}
            // It was deleted.
            Err(StackError::Mailbox(MailboxError::ContainerNotFound)) => {}
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to look who has signalled");
            }
        }
    }

    fn asked_at(&self) -> MutexGuard<'_, HashMap<ContainerAddress, Instant>> {
        // A panic cannot leave a map half changed.
        self.asked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an id is the name, or begins with it before a slash.
fn has_signalled(handle: &StackHandle, name: &str) -> bool {
    handle.senders.iter().any(|sender| {
        sender.id.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests;
