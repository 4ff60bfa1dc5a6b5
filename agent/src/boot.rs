//! The one flow: find datasource → decode → document → plan → run → watch → outputs → signal → mark.
//!
//! Two promises shape it. The container runs even if no signal can be sent, and a signal is sent
//! even if no container could be run: so everything up to the outputs gives a `Result`, and either
//! way `conclude` tells the handle, as soon as one is known. And the agent may die anywhere: each
//! step first looks at what is there, the container's labels and the marks in the state directory
//! say what was done, and a second run ends with one container and one signal id.

pub mod fault;
pub mod files;
pub mod step;
pub mod watch;

mod act;
mod conclude;
pub(crate) mod containers;
mod dependencies;
pub(crate) mod destination;
pub(crate) mod engines;
mod facts;
pub(crate) mod follow;
pub(crate) mod guarding;
mod images;
pub(crate) mod labels;
mod objects;
mod prepare;
pub(crate) mod progress;
mod pull_report;
mod pump;
mod pumps;
mod services;
pub(crate) mod sources;
pub(crate) mod standing;
pub(crate) mod update;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use crate::boot::destination::Destination;
use crate::boot::fault::{FaultPoint, Faults};
use crate::boot::guarding::Guarding;
use crate::boot::progress::Progress;
use crate::boot::pumps::Pumps;
use crate::boot::services::Members;
use crate::boot::step::Step;
use crate::boot::update::Fingerprint;
use crate::console::Console;
use crate::datasource::{self, Datasource, Found};
use crate::engine::{Engine, EngineError};
use crate::error::{AgentError, Exit};
use crate::plan::Plan;
use crate::signal::HandleError;
use crate::signal::gateway::Reporter;
use crate::signal::outbox::Outbox;
use crate::signal::ways::Ways;
use crate::state::{Done, StateDirectory, Subject};
use crate::userdata::document::Document;
use crate::userdata::{self, Decoded, UserDataError};

/// How long datasources may take to appear. A network that comes up late takes two minutes.
const DATASOURCE_TIMEOUT: Duration = Duration::from_secs(300);

/// A FAILURE is sent so long before the orchestrator gives up, or a tenth of its patience if that
/// is less: enough for some attempts at sending.
const MAX_SENDING_RESERVE: Duration = Duration::from_secs(30);

/// The timeout where no document says one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What a run is given.
pub struct Settings {
    pub datasources: Vec<Box<dyn Datasource>>,
    /// True if somebody named a file: then it has to be a document.
    pub is_user_data_named: bool,
    /// Sockets of engines; the first that answers is used.
    pub engine_sockets: Vec<PathBuf>,
    pub instance_id: Option<String>,
    /// The image of a service that names none.
    pub default_image: Option<String>,
    pub state_directory: PathBuf,
    pub console: Console,
    /// PEM; trusted for HTTPS where images come from, beside those of system and document.
    pub authorities: Vec<String>,
    /// Containers are kept from the metadata service, but for those that may reach it.
    pub is_metadata_guarded: bool,
    pub ways: Ways,
    /// Tells a relay at the metadata address how far the run is.
    pub reporter: Option<Reporter>,
    pub faults: Faults,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("engine_sockets", &self.engine_sockets)
            .field("state_directory", &self.state_directory)
            .finish_non_exhaustive()
    }
}

/// One run of the flow.
pub struct Run {
    settings: Settings,
    progress: Progress,
    outbox: Outbox,
    /// What the datasources said.
    given: Option<Fingerprint>,
    /// What the document may refer to.
    document_facts: userdata::Facts,
    /// What the signal needs, as soon as it is known.
    subject: Option<Subject>,
    order: Order,
    engine: Option<Arc<dyn Engine>>,
    members: Members,
    pumps: Pumps,
    guarding: Guarding,
    /// What the step that runs is waiting for, for the reason if it waits too long.
    last_trouble: Option<Trouble>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// Whom to tell, and how.
#[derive(Debug)]
struct Order {
    destination: Destination,
    handle_error: Option<HandleError>,
    id: Option<String>,
    timeout: Duration,
    log_lines: u32,
    /// The document's only service.
    service: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Trouble {
    Engine(EngineError),
    Container { service: String, what: String },
}

/// How the work went when nothing failed.
enum Worked {
    /// With these outputs.
    Succeeded { reason: String, outputs: Map<String, Value> },
    /// The outcome of this very document was acknowledged in an earlier run.
    Before(Done),
}

/// Runs the flow once.
pub async fn boot(settings: Settings) -> Result<(Run, Exit), AgentError> {
    let mut run = Run::new(settings)?;
    run.guarding.raise_again().await;
    let outcome = run.work().await;
    let exit = run.conclude(outcome).await;
    Ok((run, exit))
}

impl Run {
    fn new(mut settings: Settings) -> Result<Run, AgentError> {
        let state = StateDirectory::open(&settings.state_directory).map_err(AgentError::State)?;
        let guarding = Guarding::new(settings.is_metadata_guarded, state.path());
        let outbox = Outbox::open(&state.outbox_path()).map_err(AgentError::Outbox)?;
        Ok(Run {
            progress: Progress::new(state, settings.reporter.take(), Instant::now()),
            settings,
            outbox,
            given: None,
            subject: None,
            document_facts: userdata::Facts::default(),
            order: Order {
                destination: Destination::default(),
                handle_error: None,
                id: None,
                timeout: DEFAULT_TIMEOUT,
                log_lines: 0,
                service: None,
            },
            engine: None,
            members: Members::default(),
            pumps: Pumps::default(),
            guarding,
            last_trouble: None,
        })
    }

    async fn work(&mut self) -> Result<Worked, AgentError> {
        let user_data = self.find_datasource().await?;
        let text = self.decode(&user_data)?;
        let document = self.document(&user_data, &text)?;
        let plan = self.plan(&document)?;
        self.deliver_leftovers().await;
        let done = self.done()?;

        let deadline = self.failure_deadline();
        let run = timeout_at(deadline, self.run(&plan, done.is_some())).await;
        run.unwrap_or_else(|_| Err(self.deadline_passed()))?;
        if let Some(done) = done {
            return Ok(Worked::Before(done));
        }
        let watched = timeout_at(deadline, self.watch(&plan)).await;
        let reason = watched.unwrap_or_else(|_| Err(self.deadline_passed()))?;
        let outputs = self.outputs(&plan).await;
        Ok(Worked::Succeeded { reason, outputs })
    }

    /// User data, once the instance is known.
    async fn find_datasource(&mut self) -> Result<Vec<u8>, AgentError> {
        let sources = std::mem::take(&mut self.settings.datasources);
        let race = datasource::race(sources, DATASOURCE_TIMEOUT).await;
        for report in &race.reports {
            tracing::info!(
                datasource = report.datasource,
                outcome = report.summary,
                "datasource was asked"
            );
        }
        let Some(found) = race.found else {
            let reports =
                race.reports.iter().map(|one| format!("{}: {}", one.datasource, one.summary));
            let reports = reports.collect::<Vec<_>>().join("; ");
            return Err(AgentError::NoDatasource { reports });
        };
        self.given = update::fingerprint(&found);
        let instance_id = self.instance_id(&found)?;
        self.progress.status.instance_id = Some(instance_id.clone());
        self.document_facts =
            facts::of(&instance_id, found.facts, self.settings.default_image.take());
        let Some(user_data) = found.user_data else {
            return Err(AgentError::NothingToDo {
                why: "this instance has no user data".to_owned(),
            });
        };
        // Until the document is read, what it is signalled under is its bytes.
        let document_hash = hex::encode(&Sha256::digest(&user_data)[..8]);
        self.subject = Some(Subject { instance_id, document_hash });
        self.settings.faults.reach(FaultPoint::AfterFind);
        Ok(user_data)
    }

    fn instance_id(&self, found: &Found) -> Result<String, AgentError> {
        let known = self.settings.instance_id.clone().or_else(|| found.instance_id.clone());
        match known {
            Some(id) => Ok(id),
            None => self.progress.state.instance_id().map_err(AgentError::State),
        }
    }

    fn decode(&mut self, user_data: &[u8]) -> Result<String, AgentError> {
        self.progress.enter(Step::Decode);
        let text = match userdata::decode(user_data) {
            Ok(Decoded::Docker(text)) => text,
            Ok(Decoded::NotDocker(kind)) if self.settings.is_user_data_named => {
                return Err(AgentError::UserData(UserDataError::NotDocker(kind)));
            }
            Ok(Decoded::NotDocker(kind)) => {
                let why = UserDataError::NotDocker(kind).to_string();
                return Err(AgentError::NothingToDo { why });
            }
            Err(error) => return Err(AgentError::UserData(UserDataError::Decode(error))),
        };
        self.settings.faults.reach(FaultPoint::AfterDecode);
        Ok(text)
    }

    fn document(&mut self, user_data: &[u8], text: &str) -> Result<Document, AgentError> {
        self.progress.enter(Step::Document);
        let document = match userdata::parse_with(text, &self.document_facts) {
            Ok(document) => document,
            Err(diagnostic) => {
                // Its author has to be told, so the handle is looked for all the same.
                let target = userdata::signal_target_of(user_data);
                self.take_destination(Destination::of_target(target.as_ref()));
                return Err(AgentError::UserData(UserDataError::Document(diagnostic)));
            }
        };
        self.settings.ways = self.settings.ways.trusting(&document.certificate_authorities);
        self.take_destination(Destination::of(&document.signal));
        self.order.id = document.signal.id.clone();
        self.order.timeout = document.signal.timeout;
        self.order.log_lines = document.signal.log_lines;
        for warning in &document.warnings {
            self.settings.console.say(&format!("warning: {warning}"));
        }
        self.settings.faults.reach(FaultPoint::AfterDocument);
        Ok(document)
    }

    fn plan(&mut self, document: &Document) -> Result<Plan, AgentError> {
        self.progress.enter(Step::Plan);
        let plan = Plan::new(document, &self.settings.state_directory);
        if let Some(subject) = &mut self.subject {
            subject.document_hash.clone_from(&plan.document_hash);
        }
        self.order.service = match plan.containers.as_slice() {
            [only] => Some(only.service.clone()),
            _ => None,
        };
        self.progress.status.document_hash = Some(plan.document_hash.clone());
        self.settings.faults.reach(FaultPoint::AfterPlan);
        Ok(plan)
    }

    /// A handle that cannot be used does not keep the container from running.
    fn take_destination(&mut self, destination: Result<Destination, HandleError>) {
        match destination {
            Ok(destination) => self.order.destination = destination,
            Err(error) => {
                self.settings.console.say(&format!("warning: no signal will be sent: {error}"));
                self.order.handle_error = Some(error);
            }
        }
    }

    fn done(&self) -> Result<Option<Done>, AgentError> {
        let Some(subject) = &self.subject else {
            return Ok(None);
        };
        self.progress.state.done(subject).map_err(AgentError::State)
    }

    /// When the outcome has to be known, so that the orchestrator hears it in time.
    fn failure_deadline(&self) -> Instant {
        let timeout = self.order.timeout;
        let reserve = MAX_SENDING_RESERVE.min(timeout / 10);
        self.progress.journal.started_at() + (timeout - reserve)
    }

    fn deadline_passed(&mut self) -> AgentError {
        let step = self.progress.journal.step();
        let last_trouble = match self.last_trouble.take() {
            // An engine that never came is its own reason.
            Some(Trouble::Engine(source)) if step == Step::Engine => {
                return AgentError::Engine { step, source };
            }
            Some(Trouble::Engine(error)) => Some(crate::error::chain(&error)),
            Some(Trouble::Container { service, what }) if self.order.service.is_none() => {
                Some(format!("service {service}: {what}"))
            }
            Some(Trouble::Container { what, .. }) => Some(what),
            None => None,
        };
        let after = Instant::now() - self.progress.journal.started_at();
        AgentError::Deadline { step, after, last_trouble }
    }
}

/// The engine, not what was asked of it, is the trouble.
pub(crate) fn is_engine_away(error: &EngineError) -> bool {
    matches!(error, EngineError::Unreachable { .. } | EngineError::Broken { .. })
}
