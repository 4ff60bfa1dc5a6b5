//! `heliograph-agent run`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::boot::fault::Faults;
use crate::boot::follow::Followed;
use crate::boot::update::Update;
use crate::boot::{self, Run, Settings, sources};
use crate::config::Config;
use crate::console::Console;
use crate::error::{AgentError, Exit};
use crate::notify;
use crate::signal::gateway::{Gateway, Reporter};
use crate::signal::ways::Ways;
use crate::state;

/// How long a run that knows its outcome may go on to tell it when it is asked to stop. Service
/// managers wait for longer than this.
const SENDING_GRACE: Duration = Duration::from_secs(10);

/// Runs the flow; with `follow` it stays, and runs the flow again when the user data has changed.
pub(super) async fn run(
    config: &Config,
    follow: bool,
    notify_socket: Option<&str>,
) -> Result<Exit, AgentError> {
    // Before anything else: a request to stop that comes at any time is one to end in good order.
    let mut shutdown = Shutdown::listen();
    let ways = ways(config)?;
    let console = Console::new(&config.console);
    loop {
        let settings = Settings {
            datasources: sources::sources(config),
            is_user_data_named: config.user_data.is_some(),
            engine_sockets: config.engine_sockets.clone(),
            instance_id: config.instance_id.clone(),
            default_image: config.default_image.clone(),
            state_directory: config.state_dir.clone(),
            console: console.clone(),
            authorities: config.authorities.clone(),
            is_metadata_guarded: config.metadata_guard,
            ways: ways.clone(),
            reporter: ways
                .gateway()
                .cloned()
                .map(|gateway| Reporter::start(gateway).with_password_slot(config.password_slot)),
            faults: Faults(config.fault_point),
        };
        let Some(booted) = booted_or_asked(config, boot::boot(settings), &mut shutdown).await
        else {
            return Ok(Exit::Pending);
        };
        let (run, exit) = booted?;
        if let (Exit::Success, Some(socket)) = (exit, notify_socket) {
            notify::ready(socket);
        }
        // To the service manager a failure is a process that has ended.
        let stays = follow && (exit == Exit::Success || notify_socket.is_none());
        if !stays || !followed_to_change(config, run, &mut shutdown).await {
            return Ok(exit);
        }
        console.say("user data has changed, running again");
    }
}

/// None: the run was asked to stop. What it has begun is taken up by the next run, as after a crash.
async fn booted_or_asked<T>(
    config: &Config,
    booting: impl Future<Output = T>,
    shutdown: &mut Shutdown,
) -> Option<T> {
    let mut booting = std::pin::pin!(booting);
    tokio::select! {
        booted = &mut booting => return Some(booted),
        () = shutdown.asked() => {}
    }
    // With its outcome known, only the signal is still on its way.
    let status = state::read_status(&config.state_dir).ok().flatten()?;
    status.status?;
    tokio::time::timeout(SENDING_GRACE, booting).await.ok()
}

/// True if the flow is to run again.
async fn followed_to_change(config: &Config, run: Run, shutdown: &mut Shutdown) -> bool {
    let every = config.watch_metadata_seconds.map(Duration::from_secs);
    let update = every.zip(run.given()).map(|(every, known)| Update {
        sources: Box::new(|| sources::sources(config)),
        every,
        known,
    });
    matches!(run.follow(update, shutdown.asked()).await, Followed::Changed)
}

/// All ways to a handle that the configuration leaves.
pub(super) fn ways(config: &Config) -> Result<Ways, AgentError> {
    let authorities = config.authorities.clone();
    let Some(address) = config.metadata_address else {
        return Ok(Ways::new(authorities, None));
    };
    let key = match config.instance_key {
        true => Some(state::instance_key(&config.state_dir).map_err(AgentError::State)?),
        false => None,
    };
    Ok(Ways::new(authorities, Some(Arc::new(Gateway::new(address, key)))))
}

/// Requests to stop. Containers keep running.
struct Shutdown {
    /// Without a handler a signal ends the process, which is what it asks for.
    streams: [Option<Signal>; 2],
}

impl Shutdown {
    fn listen() -> Shutdown {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
        Shutdown { streams: kinds.map(|kind| signal(kind).ok()) }
    }

    async fn asked(&mut self) {
        let [terminate, interrupt] = &mut self.streams;
        tokio::select! {
            () = received(terminate) => {}
            () = received(interrupt) => {}
        }
    }
}

async fn received(stream: &mut Option<Signal>) {
    match stream {
        Some(stream) => drop(stream.recv().await),
        None => std::future::pending().await,
    }
}
