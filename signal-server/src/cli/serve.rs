//! `serve`: configuration, then parts, then sockets; each step is whole before the next begins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::app::{BuildError, Parts, run};
use crate::cli::Exit;
use crate::cli::output::line;
use crate::config::{Config, ConfigError, ServeArgs};
use crate::error::chain;
use crate::telemetry;

/// How many connections may be there that have not been accepted. Whoever waited for a signal comes again at
/// once when a relay has been started anew, and one that finds no room tries again only after a second, then
/// after three. The kernel gives `net.core.somaxconn` at most, 4,096 by default.
const BACKLOG: u32 = 65_535;

/// Why the relay could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("the configuration is not valid")]
    Config { source: ConfigError },
    #[error("failed to build the relay")]
    Build { source: BuildError },
    #[error("failed to listen on {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("failed to {step}")]
    Run { step: &'static str, source: io::Error },
}

pub(crate) fn serve(args: &ServeArgs) -> Exit {
    match try_serve(args) {
        Ok(()) => Exit::Success,
        Err(error) => {
            line(&mut io::stderr(), &format!("heliograph-server: {}", chain(&error)));
            Exit::CouldNotServe
        }
    }
}

fn try_serve(args: &ServeArgs) -> Result<(), ServeError> {
    let config = Config::resolve(args).map_err(|source| ServeError::Config { source })?;
    if args.check_config {
        line(&mut io::stdout(), "the configuration is valid");
        return Ok(());
    }
    let log = telemetry::init(&config.log_level, config.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| ServeError::Run { step: "start the runtime", source })?;
    runtime.block_on(async {
        let parts = Parts::build(&config, log).map_err(|source| ServeError::Build { source })?;
        let stop = stop_signal()?;
        let parts = parts.with_renewal(renewal_signal()?);
        let listener = bind("public", "http", config.listen)?;
        let admin_listener = bind("admin", "http", config.admin_listen)?;
        let parts = match &config.metadata {
            Some(metadata) => {
                let scheme = if metadata.tls.is_some() { "https" } else { "http" };
                let listener = bind("metadata", scheme, metadata.listen)?;
                parts.with_metadata_listener(listener)
            }
            None => parts,
        };
        run(listener, admin_listener, parts, stop)
            .await
            .map_err(|source| ServeError::Run { step: "run the relay", source })
    })
}

/// Binds, and prints where: a script that gave port 0 reads it.
fn bind(surface: &str, scheme: &str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = listen(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    line(&mut io::stdout(), &format!("listening {surface} {scheme}://{bound}"));
    Ok(listener)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections of the relay before may still be on their way out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Told when the process gets a `SIGHUP`.
fn renewal_signal() -> Result<Arc<Notify>, ServeError> {
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|source| ServeError::Run { step: "listen for signals", source })?;
    let renew = Arc::new(Notify::new());
    let told = renew.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            told.notify_one();
        }
    });
    Ok(renew)
}

/// Returns when somebody wants the relay to stop.
fn stop_signal() -> Result<impl Future<Output = ()>, ServeError> {
    let listen = |kind| {
        signal(kind).map_err(|source| ServeError::Run { step: "listen for signals", source })
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// More than the 1,024 for which sockets have room that are told nothing.
    const N_AT_ONCE: usize = 1_500;

    #[tokio::test]
    async fn many_may_come_before_the_first_is_accepted() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = listener.local_addr().expect("an address");
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a setting");
        let most = most.trim().parse().expect("a number");
        for number in 0..N_AT_ONCE.min(most) {
            // It is gone at once, and has its place in the queue all the same.
            let connected = timeout(Duration::from_secs(20), TcpStream::connect(address)).await;
            connected.unwrap_or_else(|_| panic!("{number} had room")).expect("a connection");
        }
    }
}
