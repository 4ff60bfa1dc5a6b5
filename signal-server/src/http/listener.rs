//! Sockets: accept, serve, stop.
//!
//! HTTP/1.1 only, for the callers are Heat's Swift client, curl and the like, and a proxy in front of
//! the relay speaks the rest. The connection loop is hyper's, used directly: the limits below cannot be
//! set through the router's own server.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::app::Shutdown;
use crate::http::edge::{Edge, MAX_HEADER_BYTES};

/// How long a connection may be silent before or between requests. Heat keeps its connection and polls
/// once a second; a minute is far above that and below what attackers need to be worth their while.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The most that is buffered of a request's head, in bytes: twice what the edge takes, so that it is the
/// edge that refuses, with a code, and not the connection.
const MAX_HEAD_BUFFER_BYTES: usize = 4 * MAX_HEADER_BYTES;

/// How long to wait after a connection could not be accepted. The usual reason is that the process is
/// out of file descriptors, and only time can help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one listener serves.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) edge: Arc<Edge>,
}

/// How the last connections went when the listener stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All requests were answered.
    Whole,
    /// The time was over; this many connections were cut.
    Cut { n_connections: usize },
}

/// Serves until the shutdown begins, then answers what is being asked for at most `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Service,
    max_connections: usize,
    shutdown: Shutdown,
    grace: Duration,
) -> Drained {
    let slots = Arc::new(Semaphore::new(max_connections));
    let mut stopping = pin!(shutdown.begun());
    loop {
        // A connection that finds no slot waits in the queue of the kernel.
        let accepting = accept(&listener, &slots);
        let (stream, slot) = tokio::select! {
            accepted = accepting => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = &mut stopping => break,
        };
        tokio::spawn(serve_connection(stream, slot, service.clone(), shutdown.clone()));
    }
    drop(listener);
    drain(&slots, max_connections, grace).await
}

/// Takes the next connection when there is a slot for it.
pub(crate) async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _peer) = listener.accept().await?;
    // Answers are short; waiting for more to send would delay each by 40 ms.
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

async fn serve_connection(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    service: Service,
    shutdown: Shutdown,
) {
    let connections = service.edge.metrics().http.connections.clone();
    connections.inc();
    let answer = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let (edge, router) = (service.edge.clone(), service.router.clone());
        async move { Ok::<_, Infallible>(edge.call(router, request.map(Body::new)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_HEAD_BUFFER_BYTES)
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
    connections.dec();
    drop(slot);
}

async fn drain(slots: &Semaphore, max_connections: usize, grace: Duration) -> Drained {
    let all = u32::try_from(max_connections).unwrap_or(u32::MAX);
    if timeout(grace, slots.acquire_many(all)).await.is_ok() {
        return Drained::Whole;
    }
    Drained::Cut { n_connections: max_connections - slots.available_permits() }
}
