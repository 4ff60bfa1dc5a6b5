//! The parts of a relay, how it starts, and how it stops.
//!
//! Parts are built and checked before anything is bound, sockets belong to the caller, and so does the
//! decision to stop. A stop goes: not ready any more, no new connections, waiting requests answered with
//! what there is, running ones finished within the grace, the store closed last.

mod operator;
mod sweeping;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::app::operator::OperatorTokenError;
use crate::app::sweeping::{sweep, sweep_instances};
use crate::backup::Backups;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, MetadataConfig, PublicUrl, StoreConfig};
use crate::forward::Forwarder;
use crate::http::edge::{Edge, EdgeLimits};
use crate::http::heat::Heat;
use crate::http::listener::{Drained, Service, Serving, serve};
use crate::http::metadata::{Gateway, GatewaySettings, listener as metadata_listener};
use crate::http::permit::{FixedTokens, KeystoneTokens, TokenCheck};
use crate::http::{admin_router, admin_surface, public_router, public_surface};
use crate::instance::Instances;
use crate::keystone::Keystone;
use crate::mailbox::Mailboxes;
use crate::mailbox::limits::Limits;
use crate::metrics::{MeteredStore, Metrics};
use crate::outbound::ClientError;
use crate::stack::Stacks;
use crate::store::Store;
use crate::store::embedded::{EmbeddedStore, OpenError};
use crate::store::etcd::{EtcdError, EtcdStore};
use crate::store::memory::MemoryStore;
use crate::store::remembering::RememberingStore;
use crate::store::sharing::Job;
use crate::telemetry::LogControl;

/// How many connections the admin surface serves at once: a scraper, a load balancer and some people.
const MAX_ADMIN_CONNECTIONS: usize = 256;

/// How many file descriptors are kept from connections: the store's files, the log, the listeners.
const RESERVED_FILES: u64 = 512;

/// The most connections, however many files may be open: each costs some kilobytes even when idle. Twice the
/// hundred thousand that may wait for a signal at once on a large relay.
const MAX_CONNECTIONS: u64 = 200_000;

/// What every handler may use. Cloned for each request, so it holds handles only.
#[derive(Clone, Debug)]
pub(crate) struct AppState {
    pub(crate) mailboxes: Mailboxes,
    pub(crate) instances: Instances,
    pub(crate) stacks: Stacks,
    pub(crate) backups: Backups,
    pub(crate) tokens: Arc<dyn TokenCheck>,
    pub(crate) heat: Option<Heat>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) public_url: Arc<PublicUrl>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
}

/// What the handlers of the admin surface may use.
#[derive(Clone, Debug)]
pub(crate) struct AdminState {
    pub(crate) mailboxes: Mailboxes,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
    pub(crate) log: LogControl,
}

/// A latch that says that the relay is stopping. Once it has begun it never ends.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown {
    has_begun: Arc<watch::Sender<bool>>,
}

impl Shutdown {
    pub(crate) fn new() -> Shutdown {
        Shutdown { has_begun: Arc::new(watch::Sender::new(false)) }
    }

    pub(crate) fn begin(&self) {
        self.has_begun.send_replace(true);
    }

    pub(crate) fn has_begun(&self) -> bool {
        *self.has_begun.borrow()
    }

    /// Returns when the stop has begun.
    pub(crate) async fn begun(&self) {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.has_begun.subscribe().wait_for(|begun| *begun).await;
    }
}

/// A relay that is ready to be run: its store is open, its settings are valid.
#[derive(Debug)]
pub struct Parts {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    tokens: Arc<dyn TokenCheck>,
    heat: Option<Heat>,
    log: LogControl,
    metrics: Arc<Metrics>,
    public_url: Option<PublicUrl>,
    edge_limits: EdgeLimits,
    shutdown_grace: Duration,
    metadata: Option<MetadataConfig>,
    metadata_listener: Option<TcpListener>,
    renew: Arc<Notify>,
}

/// Why a relay could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    #[error("failed to create the data directory {path}")]
    CreateDataDir { path: PathBuf, source: io::Error },
    #[error("failed to open the store in {path}")]
    OpenStore { path: PathBuf, source: OpenError },
    #[error("failed to prepare the calls to etcd")]
    OpenEtcd { source: EtcdError },
    #[error("failed to prepare the operator's token")]
    OperatorToken { source: OperatorTokenError },
    #[error("failed to prepare the calls to {service}")]
    Client { service: &'static str, source: ClientError },
}

impl Parts {
    /// Opens the store and reads what it needs. A second relay on the same data directory fails here,
    /// before it has touched anything.
    pub fn build(config: &Config, log: LogControl) -> Result<Parts, BuildError> {
        let path = &config.data_dir;
        operator::create_data_dir(path)
            .map_err(|source| BuildError::CreateDataDir { path: path.clone(), source })?;
        let store: Arc<dyn Store> = match &config.store {
            StoreConfig::Memory => Arc::new(MemoryStore::new()),
            StoreConfig::Etcd(settings) => {
                let etcd = EtcdStore::new(settings);
                let etcd = etcd.map_err(|source| BuildError::OpenEtcd { source })?;
                Arc::new(RememberingStore::new(Arc::new(etcd)))
            }
            StoreConfig::Embedded => Arc::new(
                EmbeddedStore::open(path)
                    .map_err(|source| BuildError::OpenStore { path: path.clone(), source })?,
            ),
        };
        let operator_token = operator::read_or_create_token(path)
            .map_err(|source| BuildError::OperatorToken { source })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new());
        let keystone = match &config.keystone {
            Some(settings) => Some(
                Keystone::new(settings, clock.clone())
                    .map_err(|source| BuildError::Client { service: "keystone", source })?,
            ),
            None => None,
        };
        let operator = operator_token.account.clone();
        let heat = match (&config.heat, &keystone) {
            (Some(settings), Some(keystone)) => {
                let store = Arc::new(MeteredStore::new(store.clone(), metrics.store.clone()));
                let (clock, metrics) = (clock.clone(), metrics.forwards.clone());
                let keystone = keystone.clone();
                Forwarder::new(settings, keystone.clone(), store, clock, operator, metrics)
                    .map(|forwarder| Some(Heat { keystone, forwarder }))
                    .map_err(|source| BuildError::Client { service: "heat", source })?
            }
            _ => None,
        };
        let fixed = config.tokens.iter().cloned().chain([operator_token]);
        let fixed = FixedTokens::new(fixed.map(|entry| (entry.token, entry.account)));
        let tokens: Arc<dyn TokenCheck> = match keystone {
            Some(keystone) => Arc::new(KeystoneTokens::new(fixed, keystone)),
            None => Arc::new(fixed),
        };
        Ok(Parts {
            store,
            clock,
            tokens,
            heat,
            log,
            metrics,
            public_url: config.public_url.clone(),
            edge_limits: EdgeLimits {
                max_in_flight: config.max_in_flight,
                max_long_polls: config.max_long_polls,
            },
            shutdown_grace: config.shutdown_grace,
            metadata: config.metadata.clone(),
            metadata_listener: None,
            renew: Arc::default(),
        })
    }

    /// The socket of the metadata surface, where the configuration has one.
    #[must_use]
    pub fn with_metadata_listener(self, listener: TcpListener) -> Parts {
        Parts { metadata_listener: Some(listener), ..self }
    }

    /// Told when certificates have to be read anew.
    #[must_use]
    pub fn with_renewal(self, renew: Arc<Notify>) -> Parts {
        Parts { renew, ..self }
    }

    /// The gateway in front of Nova, and its socket.
    fn take_gateway(&mut self, app: &AppState) -> Option<(TcpListener, Arc<Gateway>)> {
        let (config, listener) = (self.metadata.as_ref()?, self.metadata_listener.take()?);
        let settings = GatewaySettings {
            servers: config.nova.clone(),
            nova_tls: config.nova_tls.clone(),
            secrets: config.secrets.clone(),
            limits: self.edge_limits,
            tls: config.tls.clone(),
        };
        Some((listener, Gateway::new(settings, app.clone(), public_router(app.clone()))))
    }

    fn states(&self, public_url: PublicUrl) -> (AppState, AdminState) {
        let store = MeteredStore::new(self.store.clone(), self.metrics.store.clone());
        let store: Arc<dyn Store> = Arc::new(store);
        let instances = Instances::new(store.clone(), self.clock.clone());
        let backups = Backups::new(store.clone());
        let mailboxes = Mailboxes::new(store, self.clock.clone(), Limits::default());
        let shutdown = Shutdown::new();
        let app = AppState {
            mailboxes: mailboxes.clone(),
            stacks: Stacks::new(mailboxes.clone(), instances.clone()),
            instances,
            backups,
            tokens: self.tokens.clone(),
            heat: self.heat.clone(),
            clock: self.clock.clone(),
            public_url: Arc::new(public_url),
            metrics: self.metrics.clone(),
            shutdown: shutdown.clone(),
        };
        let metrics = self.metrics.clone();
        (app, AdminState { mailboxes, metrics, shutdown, log: self.log.clone() })
    }
}

/// Runs a relay on two listeners until `stop` returns, and then until its requests are answered.
pub async fn run(
    listener: TcpListener,
    admin_listener: TcpListener,
    mut parts: Parts,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let public_url = match &parts.public_url {
        Some(url) => url.clone(),
        None => own_url(&listener)?,
    };
    let (app, admin) = parts.states(public_url);
    let shutdown = app.shutdown.clone();
    let leadership = parts.store.lead(Job::Sweep);
    let sweeper = sweep(app.mailboxes.clone(), app.clock.clone(), leadership.clone());
    let sweeper = tokio::spawn(sweeper);
    let mailboxes = app.mailboxes.clone();
    let follower = tokio::spawn(async move { mailboxes.follow_others().await });
    let forwarding = app.heat.clone().map(|heat| {
        let shutdown = shutdown.clone();
        tokio::spawn(heat.forwarder.run(async move { shutdown.begun().await }))
    });
    let gateway = parts.take_gateway(&app);
    let retention = parts.metadata.as_ref().map(|metadata| metadata.retention);
    let stacks = app.stacks.clone();
    let stack_watcher = tokio::spawn(async move { stacks.watch().await });
    let instance_sweeper = sweep_instances(app.instances.clone(), retention, leadership);
    let instance_sweeper = tokio::spawn(instance_sweeper);

    let service = |router, surface_of| Service {
        router,
        edge: Edge::new(surface_of, parts.edge_limits, parts.metrics.clone()),
    };
    let public = service(public_router(app), public_surface);
    let admin = service(admin_router(admin), admin_surface);
    let (grace, max_connections) = (parts.shutdown_grace, max_connections());
    // The admin surface answers until the other one has stopped: somebody may want to watch.
    let admin_shutdown = Shutdown::new();
    let connections = parts.metrics.http.connections.clone();
    let plain = |max, grace| Serving::plain(max, connections.clone(), grace);
    let admin_serving = plain(MAX_ADMIN_CONNECTIONS, Duration::ZERO);
    let admin_serving = serve(admin_listener, admin, admin_serving, admin_shutdown.clone());
    let serving = async {
        let public = serve(listener, public, plain(max_connections, grace), shutdown.clone());
        let stopping = async {
            stop.await;
            tracing::info!("stopping: no new connections, waiting requests are answered");
            shutdown.begin();
        };
        let metadata = async {
            if let Some((listener, gateway)) = gateway {
                let renew = parts.renew.clone();
                metadata_listener::serve(listener, gateway, renew, shutdown.clone(), grace).await;
            }
        };
        let (drained, (), ()) = tokio::join!(public, stopping, metadata);
        admin_shutdown.begin();
        drained
    };
    let (drained, _) = tokio::join!(serving, admin_serving);
    sweeper.abort();
    if let Some(forwarding) = forwarding {
        // It has been told to stop, and waits for what is under way for a bounded time.
        let _ended = forwarding.await;
    }
    instance_sweeper.abort();
    follower.abort();
    stack_watcher.abort();
    match drained {
        Drained::Whole => tracing::info!("stopped: every request was answered"),
        Drained::Cut { n_connections } => {
            tracing::warn!(n_connections, "stopped by force: the grace was over");
        }
    }
    Ok(())
}

/// The URL of a relay that nobody named: the address that it listens on.
fn own_url(listener: &TcpListener) -> io::Result<PublicUrl> {
    let address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        tracing::warn!(
            "public_url is not set and the relay listens on every address: signal URLs will begin \
             with http://{address}, which no instance can reach"
        );
    }
    Ok(PublicUrl::of_address(address))
}

/// As many connections as there are files to open. The soft limit is raised to the hard one first: it is
/// low for the sake of programs that use select, which this one does not.
fn max_connections() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let n_files = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let n_connections = n_files.saturating_sub(RESERVED_FILES).clamp(64, MAX_CONNECTIONS);
    usize::try_from(n_connections).unwrap_or(64)
}

#[cfg(test)]
impl AppState {
    /// A relay in memory that knows no token.
    pub(crate) fn for_tests() -> AppState {
        let parts = Parts {
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(SystemClock),
            tokens: Arc::new(FixedTokens::new([])),
            heat: None,
            log: LogControl::detached(),
            metrics: Arc::new(Metrics::new()),
            public_url: None,
            edge_limits: EdgeLimits { max_in_flight: 16, max_long_polls: 16 },
            shutdown_grace: Duration::ZERO,
            metadata: None,
            metadata_listener: None,
            renew: Arc::default(),
        };
        parts.states(PublicUrl::of_address(([127, 0, 0, 1], 80).into())).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_that_has_begun_is_seen_by_late_comers() {
        let shutdown = Shutdown::new();
        let early = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.begun().await }
        });
        assert!(!shutdown.has_begun());
        shutdown.begin();
        shutdown.begun().await;
        early.await.unwrap();
        assert!(shutdown.has_begun());
    }
}
