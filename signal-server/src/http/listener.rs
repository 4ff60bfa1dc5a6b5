//! Sockets: accept, serve, stop.
//!
//! HTTP/1.1 only, for the callers are Heat's Swift client, curl and the like, and a proxy in front of
//! the relay speaks the rest. The connection loop is hyper's, used directly: the limits below cannot be
//! set through the router's own server.

mod parking;
mod patience;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::app::Shutdown;
use crate::http::edge::{Edge, MAX_HEADER_BYTES, may_wait_long};
use crate::http::listener::parking::{
    Parked, Parking, Plain, can_be_parked, closed, detach, keeps_alive,
};
use crate::tls::Tls;

/// How long a connection may be silent before or between requests. Heat keeps its connection and polls
/// once a second; a minute is far above that and below what attackers need to be worth their while.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The most that is buffered of a request's head, in bytes: twice what the edge takes, so that it is the
/// edge that refuses, with a code, and not the connection.
const MAX_HEAD_BUFFER_BYTES: usize = 4 * MAX_HEADER_BYTES;

/// How long to wait after a connection could not be accepted. The usual reason is that the process is
/// out of file descriptors, and only time can help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers the requests of a listener. Cloned for each connection.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response> + Send;

    /// Whether the answer may take so long that nothing else should be held for it.
    fn may_wait_long(&self, _request: &Request<Incoming>) -> bool {
        false
    }
}

/// A router behind the layers.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) edge: Arc<Edge>,
}

impl Answer for Service {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        self.edge.call(self.router.clone(), request.map(Body::new)).await
    }

    fn may_wait_long(&self, request: &Request<Incoming>) -> bool {
        may_wait_long(request.method(), request.uri())
    }
}

/// How a listener serves.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) http: http1::Builder,
    pub(crate) max_connections: usize,
    /// Counts the open ones.
    pub(crate) connections: Gauge,
    /// Plain HTTP without it.
    pub(crate) tls: Option<Arc<Tls>>,
    /// How long the last requests may take when the listener stops.
    pub(crate) grace: Duration,
}

impl Serving {
    /// Plain HTTP with the limits of the relay's own surfaces.
    pub(crate) fn plain(max_connections: usize, connections: Gauge, grace: Duration) -> Serving {
        let mut http = http1::Builder::new();
        http.max_buf_size(MAX_HEAD_BUFFER_BYTES);
        Serving { http, max_connections, connections, tls: None, grace }
    }
}

/// How the last connections went when the listener stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All requests were answered.
    Whole,
    /// The time was over; this many connections were cut.
    Cut { n_connections: usize },
}

/// Serves until the shutdown begins, then answers what is being asked until the grace is over.
pub(crate) async fn serve(
    listener: TcpListener,
    answer: impl Answer,
    mut serving: Serving,
    shutdown: Shutdown,
) -> Drained {
    serving.http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    let serving = Arc::new(serving);
    let slots = Arc::new(Semaphore::new(serving.max_connections));
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
        let connection = Connection {
            serving: serving.clone(),
            answer: answer.clone(),
            shutdown: shutdown.clone(),
            _slot: slot,
        };
        tokio::spawn(connection.serve(stream));
    }
    drop(listener);
    drain(&slots, serving.max_connections, serving.grace).await
}

/// Takes the next connection when there is a slot for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _peer) = listener.accept().await?;
    // Answers are short; waiting for more to send would delay each by 40 ms.
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

/// One connection; its slot is free when it is gone.
struct Connection<A> {
    serving: Arc<Serving>,
    answer: A,
    shutdown: Shutdown,
    _slot: OwnedSemaphorePermit,
}

/// Counts a connection for as long as it is served, however that ends.
struct Counted(Arc<Serving>);

impl Counted {
    fn new(serving: Arc<Serving>) -> Counted {
        serving.connections.inc();
        Counted(serving)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

impl<A: Answer> Connection<A> {
    async fn serve(self, stream: TcpStream) {
        let _counted = Counted::new(self.serving.clone());
        match &self.serving.tls {
            None => self.serve_plain(stream).await,
            // In a box of its own, so that those without TLS do not pay for the room that it takes.
            Some(tls) => Box::pin(self.serve_tls(tls, stream)).await,
        }
    }

    /// Serves the requests of a connection; one that waits for long is parked meanwhile.
    async fn serve_plain(&self, stream: TcpStream) {
        let mut parking = Parking::with_answer(None);
        let mut plain = Plain::new(stream, parking.clone());
        loop {
            // In a box, which is gone while a request is parked.
            let Some(stop) = Box::pin(self.serve_until_parked(plain, &parking)).await else {
                return;
            };
            let answer = tokio::select! {
                biased;
                answer = stop.parked.answering => answer,
                () = closed(&stop.stream) => return,
            };
            parking = Parking::with_answer(Some(answer));
            let keeps_alive = stop.parked.keeps_alive && !self.shutdown.has_begun();
            plain = Plain::again(stop.stream, parking.clone(), keeps_alive, &stop.unread);
        }
    }

    /// Serves until the connection ends, or a request is parked.
    async fn serve_until_parked(&self, plain: Plain, parking: &Arc<Parking>) -> Option<Stop> {
        let service = service_fn(|mut request: Request<Incoming>| {
            let (answer, parking) = (self.answer.clone(), parking.clone());
            async move {
                if let Some(response) = parking.take_answer() {
                    return Ok::<_, Infallible>(response);
                }
                if !answer.may_wait_long(&request) || !can_be_parked(&request) {
                    return Ok(answer.answer(request).await);
                }
                let keeps_alive = keeps_alive(&request);
                detach(&mut request);
                let answering = Box::pin(async move { answer.answer(request).await });
                parking.park(Parked { answering, keeps_alive });
                std::future::pending().await
            }
        });
        let mut connection = self.serving.http.serve_connection(TokioIo::new(plain), service);
        let mut stopping = pin!(self.shutdown.begun());
        let mut is_stopping = false;
        let parked = poll_fn(|context| {
            loop {
                // A connection that breaks is the peer's affair: there is nobody left to tell.
                if Pin::new(&mut connection).poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                if let Some(parked) = parking.take_parked() {
                    return Poll::Ready(Some(parked));
                }
                if is_stopping || stopping.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        });
        let parked = parked.await?;
        let parts = connection.into_parts();
        let (stream, unread) = parts.io.into_inner().into_parts(&parts.read_buf);
        Some(Stop { stream, unread, parked })
    }

    async fn serve_tls(&self, tls: &Tls, stream: TcpStream) {
        match tls.accept(stream).await {
            Ok(stream) => self.serve_http(stream).await,
            Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
        }
    }

    async fn serve_http(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let answer = service_fn(|request| {
            let answer = self.answer.clone();
            async move { Ok::<_, Infallible>(answer.answer(request).await) }
        });
        let connection = self.serving.http.serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        // A connection that breaks is the peer's affair: there is nobody left to tell.
        tokio::select! {
            biased;
            _ended = connection.as_mut() => {}
            () = self.shutdown.begun() => {
                connection.as_mut().graceful_shutdown();
                let _ended = connection.await;
            }
        }
    }
}

/// A connection at the place where a request was parked.
struct Stop {
    stream: TcpStream,
    /// What the peer has sent behind the request.
    unread: Bytes,
    parked: Parked,
}

async fn drain(slots: &Semaphore, max_connections: usize, grace: Duration) -> Drained {
    let all = u32::try_from(max_connections).unwrap_or(u32::MAX);
    if timeout(grace, slots.acquire_many(all)).await.is_ok() {
        return Drained::Whole;
    }
    Drained::Cut { n_connections: max_connections - slots.available_permits() }
}
