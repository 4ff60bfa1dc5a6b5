//! Where a request waits that may wait for long, without what reading and writing need.
//!
//! A connection of hyper's has a buffer of 8 KiB to read into, one to write from, and, while it is told to look
//! whether the peer has gone, another one to read into. That is most of what somebody costs who waits for a
//! signal. So such a request is taken out of hyper: its answer goes on by itself, of the connection there is
//! only the socket left, and the kernel tells when the peer closes it. When the answer is there, hyper is given
//! the socket again, and a request that stands for the one that it has forgotten ([`STAND_IN`]); its answer is
//! the one that was waited for. So hyper writes it, and goes on with the requests that follow.
//!
//! A client that closes its side of the connection while it waits is taken to have gone, as by hyper; it gets no
//! answer even if it had sent another request before.
//!
//! What hyper had still to write, for an earlier request, would be lost. It says when there is nothing: it
//! flushes ([`Plain::poll_flush`]) only then.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::http::header::CONNECTION;
use axum::http::{Request, Version};
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::http::listener::patience::WritePatience;

/// The request that hyper reads for one that was parked.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: parked\r\n\r\n";

/// Likewise, if the connection is to be closed behind its answer.
const LAST_STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: parked\r\nconnection: close\r\n\r\n";

/// An answer on its way.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A request that waits.
pub(crate) struct Parked {
    pub(crate) answering: Answering,
    /// Whether other requests may follow on the connection.
    pub(crate) keeps_alive: bool,
}

/// What a connection, its requests and its socket have in common.
#[derive(Default)]
pub(crate) struct Parking {
    /// A request that is to be taken out.
    parked: Mutex<Option<Parked>>,
    /// The answer to the stand-in.
    answer: Mutex<Option<Response>>,
    has_unflushed: AtomicBool,
}

impl fmt::Debug for Parking {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Parking").finish_non_exhaustive()
    }
}

impl Parking {
    /// One whose first request is a stand-in for that of this answer.
    pub(crate) fn with_answer(answer: Option<Response>) -> Arc<Parking> {
        Arc::new(Parking { answer: Mutex::new(answer), ..Parking::default() })
    }

    /// The answer, if the first request has not come yet.
    pub(crate) fn take_answer(&self) -> Option<Response> {
        take(&self.answer)
    }

    /// Leaves a request to whoever holds the connection.
    pub(crate) fn park(&self, parked: Parked) {
        *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some(parked);
    }

    /// The request that was left, once all answers before it have been sent.
    pub(crate) fn take_parked(&self) -> Option<Parked> {
        if self.has_unflushed.load(Ordering::Relaxed) {
            return None;
        }
        take(&self.parked)
    }
}

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    // A panic cannot leave half a value there.
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Whether a request can be taken out: nothing of it is still to be read, and what stands for it says the same
/// about the connection.
pub(crate) fn can_be_parked(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11 && request.body().is_end_stream()
}

/// Lets go of the buffer that the request was read into: its parts share it, and hold all of it as long as one
/// of them is there. Headers are used up before anybody waits.
pub(crate) fn detach(request: &mut Request<Incoming>) {
    // A URI that was read once is read again.
    if let Ok(uri) = request.uri().to_string().parse() {
        *request.uri_mut() = uri;
    }
}

/// Whether the connection is to stay open behind the answer.
pub(crate) fn keeps_alive(request: &Request<Incoming>) -> bool {
    let closes = |value: &[u8]| value.to_ascii_lowercase().windows(5).any(|part| part == b"close");
    !request.headers().get_all(CONNECTION).iter().any(|value| closes(value.as_bytes()))
}

/// Returns when the peer will send no more, or has gone.
pub(crate) async fn closed(stream: &TcpStream) {
    // Readiness to read would be there as soon as another request was sent. This asks for urgent data, which
    // HTTP has none of, and is told as well when the peer closes its side.
    match stream.ready(Interest::PRIORITY).await {
        Ok(ready) if !ready.is_read_closed() => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}

/// A socket, and what is to be read before it.
#[derive(Debug)]
pub(crate) struct Plain {
    stream: TcpStream,
    before: Bytes,
    parking: Arc<Parking>,
    patience: WritePatience,
}

impl Plain {
    /// A new connection.
    pub(crate) fn new(stream: TcpStream, parking: Arc<Parking>) -> Plain {
        Plain { stream, before: Bytes::new(), parking, patience: WritePatience::default() }
    }

    /// One whose parked request has been answered; `unread` is what had been read behind that.
    pub(crate) fn again(
        stream: TcpStream,
        parking: Arc<Parking>,
        keeps_alive: bool,
        unread: &[u8],
    ) -> Plain {
        let mut before = BytesMut::from(if keeps_alive { STAND_IN } else { LAST_STAND_IN });
        before.extend_from_slice(unread);
        let before = before.freeze();
        Plain { stream, before, parking, patience: WritePatience::default() }
    }

    /// The socket, and what hyper has read and not used (`unread`), and not read.
    pub(crate) fn into_parts(self, unread: &Bytes) -> (TcpStream, Bytes) {
        if self.before.is_empty() && unread.is_empty() {
            return (self.stream, Bytes::new());
        }
        (self.stream, [unread.as_ref(), self.before.as_ref()].concat().into())
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let n_bytes = self.before.len().min(buffer.remaining());
        buffer.put_slice(&self.before[..n_bytes]);
        self.before.advance(n_bytes);
        if self.before.is_empty() {
            // Its block is not to be held as long as the connection.
            self.before = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.parking.has_unflushed.store(true, Ordering::Relaxed);
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patience.bound(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.parking.has_unflushed.store(true, Ordering::Relaxed);
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.patience.bound(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.parking.has_unflushed.store(false, Ordering::Relaxed);
        self.patience.end();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
