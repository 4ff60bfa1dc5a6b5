//! Signal and mark: telling the outcome, once, whatever it is.
//!
//! The order is outbox, send, mark, remove from the outbox, and each of them is durable before the
//! next begins. A crash before the mark sends the same signal again under the same id; a crash after
//! it finds the mark and sends nothing.

use std::time::Duration;

use serde_json::{Map, Value, json};
use signal_protocol::signal::{MAX_SIGNAL_BYTES, Signal, Status};
use tokio::time::Instant;

use crate::boot::fault::FaultPoint;
use crate::boot::step::Step;
use crate::boot::{Run, Worked};
use crate::engine::logs::LogRange;
use crate::error::{AgentError, Exit, chain};
use crate::signal::outbox::Entry;
use crate::signal::ways::Way;
use crate::signal::{self, Handle, SendError, console};
use crate::state::{Done, SignalState, Subject};
use crate::text;

/// How much of the container's log a reason carries, which ends up in an orchestrator's event.
const MAX_LOG_BYTES: usize = 2048;

/// The longest reason without the log.
const MAX_REASON_BYTES: usize = 1024;

/// Sending goes on for at least so long, also when the orchestrator's patience is over: it may
/// have been longer than the document says.
const MIN_SENDING: Duration = Duration::from_secs(30);

/// A signal of an earlier run is tried once, and not for long: the container comes first.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Looking for a relay at the metadata address, when no handle was given.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(10);

/// Waiting for the console before the process ends.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reading the log of a container that has failed.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome, before it has an id.
struct Told {
    status: Status,
    reason: String,
    data: Map<String, Value>,
    exit: Exit,
}

impl Run {
    pub(super) async fn conclude(&mut self, outcome: Result<Worked, AgentError>) -> Exit {
        let exit = match outcome {
            Ok(Worked::Before(done)) => self.was_done_before(&done),
            Ok(Worked::Succeeded { reason, outputs }) => {
                let exit = Exit::Success;
                self.tell(Told { status: Status::Success, reason, data: outputs, exit }).await
            }
            Err(AgentError::NothingToDo { why }) => {
                self.settings.console.say(&format!("nothing to do: {why}"));
                Exit::Success
            }
            Err(error) => self.conclude_failure(&error).await,
        };
        self.progress.status.is_over = true;
        self.progress.report();
        self.settings.console.flush(CONSOLE_TIMEOUT);
        exit
    }

    async fn conclude_failure(&mut self, error: &AgentError) -> Exit {
        tracing::error!(error = chain(error), code = error.code(), "run failed");
        if let Ok(Some(done)) = self.done() {
            self.settings.console.say(&error.reason());
            self.was_done_before(&done);
            return error.exit();
        }
        let (told, log) = self.failure(error).await;
        let exit = self.tell(told).await;
        if let (Some(log), Some(reporter)) = (log, &self.progress.reporter) {
            reporter.log(&log).await;
        }
        exit
    }

    fn was_done_before(&mut self, done: &Done) -> Exit {
        self.progress.status.status = Some(done.status);
        self.progress.status.signal = SignalState::Acknowledged;
        // Whoever asks the agent to stop from now on is told this outcome.
        self.progress.report();
        let status = status_word(done.status);
        self.settings.console.say(&format!("{status} was signalled before, as {}", done.id));
        if done.status == Status::Success { Exit::Success } else { Exit::Failure }
    }

    async fn failure(&mut self, error: &AgentError) -> (Told, Option<String>) {
        let journal = &self.progress.journal;
        let mut data = Map::new();
        data.insert("code".to_owned(), json!(error.code()));
        data.insert("step".to_owned(), json!(journal.step().as_str()));
        data.insert("timings".to_owned(), json!(journal.timings(Instant::now())));
        let failed_service = match error {
            AgentError::Service { service, not_started, .. } => {
                data.insert("service".to_owned(), json!(service));
                data.insert("not_started".to_owned(), json!(not_started));
                Some(service.clone())
            }
            _ => self.order.service.clone(),
        };
        if let Some(failure) = error.watch_failure() {
            data.insert("exit_code".to_owned(), json!(failure.exit_code()));
        }
        let mut reason = text::shorten(&error.reason(), MAX_REASON_BYTES);
        let facts = self.container_facts(failed_service.as_deref(), &mut data);
        let facts = tokio::time::timeout(LOG_TIMEOUT, facts).await;
        let log = facts.ok().flatten();
        if let Some(log) = &log {
            reason = format!("{reason}\nlast output:\n{log}");
        }
        (Told { status: Status::Failure, reason, data, exit: error.exit() }, log)
    }

    /// What the engine says about the failed container, and the end of its log.
    async fn container_facts(
        &self,
        service: Option<&str>,
        data: &mut Map<String, Value>,
    ) -> Option<String> {
        let engine = self.engine.as_ref()?;
        let container = &self.members.of_service(service?)?.container;
        let inspection = engine.inspect(&container.id).await.ok()??;
        data.insert("container_id".to_owned(), json!(container.id));
        data.insert("oom_killed".to_owned(), json!(inspection.state.oom_killed));
        data.insert("restart_count".to_owned(), json!(inspection.restart_count));
        if self.order.log_lines == 0 {
            return None;
        }
        let range = LogRange::LastLines(self.order.log_lines);
        let log = engine.logs(&container.id, range).await.ok()?;
        let log = text::clean_tail(&log, MAX_LOG_BYTES);
        (!log.trim().is_empty()).then_some(log)
    }

    async fn tell(&mut self, told: Told) -> Exit {
        self.progress.enter(Step::Signal);
        self.catch_up().await;
        self.progress.status.status = Some(told.status);
        self.progress.status.reason = Some(told.reason.clone());
        self.progress.report();
        let exit = told.exit;
        let subject = self.subject.clone();
        let id = subject.as_ref().map(|subject| self.signal_id(subject));
        let signal = signal(told, id);
        self.settings.console.say(&console::summary(&signal));
        let line = console::machine_line(1, &signal);
        self.settings.console.write_result(&line);
        if let Some(reporter) = &self.progress.reporter {
            reporter.result(&line).await;
        }
        // Without an instance there is no document, and so no handle.
        let Some(subject) = subject else {
            return exit;
        };
        match self.send_and_mark(subject, signal).await {
            Ok(()) => exit,
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    code = error.code(),
                    "signal was not delivered"
                );
                self.settings.console.say(&error.reason());
                error.exit()
            }
        }
    }

    async fn send_and_mark(&mut self, subject: Subject, signal: Signal) -> Result<(), AgentError> {
        let id = signal.id.clone().unwrap_or_default();
        let status = signal.status;
        if let Some(error) = self.order.handle_error {
            return Err(AgentError::Handle(error));
        }
        if let Some((handle, way)) = self.handle().await {
            self.send(&entry(&subject, handle, way, signal)).await?;
        }
        self.progress.enter(Step::Mark);
        let done = Done { subject, id: id.clone(), status };
        self.progress.state.mark_done(&done).map_err(AgentError::State)?;
        self.settings.faults.reach(FaultPoint::AfterMark);
        self.outbox.remove(&id).map_err(AgentError::Outbox)?;
        self.settings.faults.reach(FaultPoint::AfterOutboxRemoved);
        Ok(())
    }

    /// The handle of the document; without one, a relay at the metadata address may know the instance.
    async fn handle(&self) -> Option<(Handle, Way)> {
        let way = self.order.destination.way?;
        if let Some(handle) = &self.order.destination.handle {
            return Some((handle.clone(), way));
        }
        let transport = self.settings.ways.by(way);
        let asking = transport.knows_this_instance();
        let is_known = tokio::time::timeout(GATEWAY_TIMEOUT, asking).await.unwrap_or(false);
        is_known.then_some((Handle::Instance, way))
    }

    async fn send(&mut self, entry: &Entry) -> Result<(), AgentError> {
        let body = entry.signal().to_json();
        let host = entry.handle.host();
        // A full disk must not keep the signal back: then it is sent without the net.
        if let Err(error) = self.outbox.put(entry) {
            tracing::error!(error = chain(&error), "signal is not in the outbox");
        }
        self.progress.status.signal = SignalState::Pending;
        self.progress.report();
        self.settings.faults.reach(FaultPoint::AfterOutbox);

        let now = Instant::now();
        let patience_ends = self.progress.journal.started_at() + self.order.timeout;
        let deadline = patience_ends.max(now + MIN_SENDING);
        let transport = self.settings.ways.by(entry.way);
        let sent = signal::deliver(transport.as_ref(), &entry.handle, &body, deadline).await;
        sent.map_err(AgentError::Undelivered)?;
        self.settings.faults.reach(FaultPoint::AfterSend);
        self.progress.status.signal = SignalState::Acknowledged;
        self.settings.console.say(&format!("signal was acknowledged by {host}"));
        let elapsed_ms = u64::try_from((Instant::now() - now).as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            signal.id = entry.id,
            signal.duration_ms = elapsed_ms,
            "signal was acknowledged"
        );
        Ok(())
    }

    /// What an earlier run could not deliver, tried once. The rest stays.
    pub(super) async fn deliver_leftovers(&mut self) {
        let Some(subject) = self.subject.clone() else {
            return;
        };
        let entries = match self.outbox.entries() {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(error = chain(&error), "outbox cannot be read");
                return;
            }
        };
        for entry in entries {
            if let Err(error) = self.deliver_leftover(&subject, &entry).await {
                tracing::warn!(
                    error = chain(&error),
                    signal.id = entry.id,
                    "signal stays in the outbox"
                );
            }
        }
    }

    async fn deliver_leftover(&self, subject: &Subject, entry: &Entry) -> Result<(), AgentError> {
        let state = &self.progress.state;
        let is_ours = entry.instance_id == subject.instance_id;
        let is_current = is_ours && entry.document_hash == subject.document_hash;
        let is_done = is_current && state.done(subject).map_err(AgentError::State)?.is_some();
        if is_ours && !is_done {
            self.send_once(entry).await.map_err(AgentError::Undelivered)?;
            tracing::info!(signal.id = entry.id, "signal of an earlier run was acknowledged");
        }
        if is_current && !is_done {
            let done =
                Done { subject: subject.clone(), id: entry.id.clone(), status: entry.status };
            state.mark_done(&done).map_err(AgentError::State)?;
        }
        // A disk that came from another instance does not speak for that one.
        self.outbox.remove(&entry.id).map_err(AgentError::Outbox)
    }

    async fn send_once(&self, entry: &Entry) -> Result<(), SendError> {
        let body = entry.signal().to_json();
        let transport = self.settings.ways.by(entry.way);
        let sent = transport.send(&entry.handle, &body);
        match tokio::time::timeout(LEFTOVER_TIMEOUT, sent).await {
            Ok(sent) => sent,
            Err(elapsed) => {
                Err(SendError::NoAnswer { host: entry.handle.host(), source: elapsed.into() })
            }
        }
    }

    /// Stable over retries and reboots, and different for every instance and document.
    fn signal_id(&self, subject: &Subject) -> String {
        let service = self.order.service.as_deref().unwrap_or("document");
        let made = || format!("{}/{service}/{}", subject.instance_id, subject.document_hash);
        self.order.id.clone().unwrap_or_else(made)
    }

    /// What the containers wrote comes before the result on the console.
    async fn catch_up(&mut self) {
        if let Some(engine) = &self.engine {
            self.pumps.catch_up(engine, &self.members).await;
        }
    }
}

fn entry(subject: &Subject, handle: Handle, way: Way, signal: Signal) -> Entry {
    Entry {
        instance_id: subject.instance_id.clone(),
        document_hash: subject.document_hash.clone(),
        handle,
        way,
        id: signal.id.unwrap_or_default(),
        status: signal.status,
        reason: signal.reason,
        data: signal.data,
    }
}

/// The signal, without its data if that would make it too long.
fn signal(told: Told, id: Option<String>) -> Signal {
    let data = serde_json::value::to_raw_value(&told.data).ok();
    let mut signal = Signal { status: told.status, reason: Some(told.reason), id, data };
    if signal.to_json().len() > MAX_SIGNAL_BYTES {
        signal.data = None;
    }
    signal
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Success => "SUCCESS",
        Status::Failure => "FAILURE",
    }
}
