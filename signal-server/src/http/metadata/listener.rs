//! The socket of the metadata surface: as the other listeners, but nothing is added to what passes.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::app::Shutdown;
use crate::http::listener::accept;
use crate::http::metadata::Gateway;

/// How many connections are served at once. Each hypervisor's agent opens one for each request and
/// serves some tens at once; a region has some hundreds of hypervisors.
const MAX_CONNECTIONS: u32 = 8_192;

/// How long a connection may be silent before or between requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait after a connection could not be accepted; the usual reason is that the process is
/// out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the shutdown begins, then answers what is being asked for at most `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    shutdown: Shutdown,
    grace: Duration,
) {
    let slots = Arc::new(Semaphore::new(usize::try_from(MAX_CONNECTIONS).unwrap_or(1)));
    let mut stopping = pin!(shutdown.begun());
    let mut probing = pin!(gateway.probe());
    loop {
        let (stream, slot) = tokio::select! {
            accepted = accept(&listener, &slots) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = &mut stopping => break,
            () = &mut probing => continue,
        };
        tokio::spawn(serve_connection(stream, slot, gateway.clone(), shutdown.clone()));
    }
    drop(listener);
    let drained = timeout(grace, slots.acquire_many(MAX_CONNECTIONS)).await;
    if drained.is_err() {
        tracing::warn!("the metadata surface stopped by force: the grace was over");
    }
}

async fn serve_connection(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    gateway: Arc<Gateway>,
    shutdown: Shutdown,
) {
    let answer = service_fn(|request| {
        let gateway = gateway.clone();
        async move { Ok::<_, Infallible>(gateway.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    // A connection that breaks is the peer's affair: there is nobody left to tell.
    tokio::select! {
        biased;
        _ended = connection.as_mut() => {}
        () = shutdown.begun() => {
            connection.as_mut().graceful_shutdown();
            let _ended = connection.await;
        }
    }
    drop(slot);
}
