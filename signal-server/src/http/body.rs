//! The body of a request, read whole within limits.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use signal_protocol::signal::MAX_SIGNAL_BYTES;
use tokio::time::timeout;

use crate::error::ApiError;

/// The largest body, in bytes, on every surface: the largest signal. Nothing else that is sent to the
/// relay comes near.
pub(crate) const MAX_BODY_BYTES: usize = MAX_SIGNAL_BYTES;

/// How much of a body that is too large is still read, in bytes. A sender that is cut off while it
/// sends sees a broken connection instead of the answer that tells it why.
const MAX_DRAINED_BYTES: usize = 8 * MAX_BODY_BYTES;

/// How long a body may take to arrive: 1 MiB over a link of half a megabit per second.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The whole body of a request; at most [`MAX_BODY_BYTES`].
#[derive(Debug, Clone)]
pub(crate) struct RequestBody(pub(crate) Bytes);

impl<S: Sync> FromRequest<S> for RequestBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<RequestBody, ApiError> {
        let reading = read(request.into_body());
        timeout(BODY_TIMEOUT, reading).await.unwrap_or_else(|_| {
            Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
            ))
        })
    }
}

async fn read(mut body: Body) -> Result<RequestBody, ApiError> {
    let announced = body.size_hint().lower();
    if announced > MAX_DRAINED_BYTES as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut n_bytes = 0;
    while let Some(frame) = body.frame().await {
        let data = match frame.map_err(|_| broken_off())?.into_data() {
            Ok(data) => data,
            Err(_trailers) => continue,
        };
        n_bytes += data.len();
        if n_bytes > MAX_DRAINED_BYTES {
            return Err(too_large());
        }
        if n_bytes > MAX_BODY_BYTES {
            (first, rest) = (Bytes::new(), BytesMut::new());
            continue;
        }
        // Nearly every signal arrives as one frame, which is then used as it is.
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    if n_bytes > MAX_BODY_BYTES {
        return Err(too_large());
    }
    Ok(RequestBody(if rest.is_empty() { first } else { rest.freeze() }))
}

fn too_large() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body has more than {MAX_BODY_BYTES} bytes"),
    )
}

fn broken_off() -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "body_broken_off", "the body ended before its time")
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// Reads a body that arrives in frames of the given lengths; the result is its length or the status.
    async fn check(frames: &[usize], expect: Result<usize, StatusCode>) {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            frames.iter().map(|length| Ok(Bytes::from(vec![b'x'; *length]))).collect();
        let request = Request::new(Body::from_stream(stream::iter(chunks)));
        let seen = RequestBody::from_request(request, &()).await;
        let seen = seen.map(|body| body.0.len()).map_err(|error| error.status());
        assert_eq!(seen, expect, "{frames:?}");
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        check(&[], Ok(0)).await;
        check(&[400], Ok(400)).await;
        check(&[1, 0, 2, 3], Ok(6)).await;
        check(&[MAX_BODY_BYTES], Ok(MAX_BODY_BYTES)).await;
        check(&[MAX_BODY_BYTES, 1], Err(StatusCode::PAYLOAD_TOO_LARGE)).await;
        check(&[MAX_BODY_BYTES; 9], Err(StatusCode::PAYLOAD_TOO_LARGE)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let request =
            Request::new(Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()));
        let error = RequestBody::from_request(request, &()).await.expect_err("a timeout");
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
