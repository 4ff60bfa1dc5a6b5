//! The body of a request, read whole within limits.
//!
//! While it is on its way the request holds no place among those that are being answered
//! ([`places`](crate::http::edge::places)).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use signal_protocol::signal::MAX_SIGNAL_BYTES;
use tokio::time::{Instant, timeout_at};

use crate::error::ApiError;
use crate::http::edge::places::{Arrival, ReceivingPlace};

/// The largest body, in bytes, on every surface: the largest signal. Nothing else that is sent to the
/// relay comes near.
pub(crate) const MAX_BODY_BYTES: usize = MAX_SIGNAL_BYTES;

/// How much of a body that is too large is still read, in bytes. A sender that is cut off while it
/// sends sees a broken connection instead of the answer that tells it why.
const MAX_DRAINED_BYTES: usize = 8 * MAX_BODY_BYTES;

/// How long a body may take whatever its length. TCP sends a packet that was lost again after some 0.2, 0.4, 0.8
/// and 1.6 s, so four times in a row.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pace of the slowest link, in bytes per second: half a megabit per second. What has arrived of a body has had
/// the time that it takes at this pace, beside [`PATIENCE`]; the largest signal has 21.8 s.
const SLOWEST_PACE: f64 = 62_500.0;

/// The whole body of a request; at most [`MAX_BODY_BYTES`].
#[derive(Debug, Clone)]
pub(crate) struct RequestBody(pub(crate) Bytes);

impl<S: Sync> FromRequest<S> for RequestBody {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, _state: &S) -> Result<RequestBody, ApiError> {
        let place = request.extensions_mut().remove::<Arc<ReceivingPlace>>();
        let mut arrival = place.as_ref().map(|place| place.give_back());
        let body = read(request.into_body(), arrival.as_mut()).await?;
        drop(arrival);
        if let Some(place) = place {
            place.take_again()?;
        }
        Ok(body)
    }
}

async fn read(mut body: Body, mut arrival: Option<&mut Arrival>) -> Result<RequestBody, ApiError> {
    let announced = body.size_hint().lower();
    if announced > MAX_DRAINED_BYTES as u64 {
        return Err(too_large());
    }
    let started = Instant::now();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut n_bytes = 0;
    loop {
        let frame = timeout_at(started + time_for(n_bytes), body.frame());
        let Some(frame) = frame.await.map_err(|_| too_slow())? else {
            break;
        };
        let data = match frame.map_err(|_| broken_off())?.into_data() {
            Ok(data) => data,
            Err(_trailers) => continue,
        };
        n_bytes += data.len();
        if n_bytes > MAX_DRAINED_BYTES {
            return Err(too_large());
        }
        let is_kept = n_bytes <= MAX_BODY_BYTES;
        if let Some(arrival) = &mut arrival {
            arrival.hold(if is_kept { n_bytes } else { 0 })?;
        }
        if !is_kept {
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

/// How long a body may have been on its way of which so many bytes have arrived.
fn time_for(n_bytes: usize) -> Duration {
    let n_bytes = u32::try_from(n_bytes.min(MAX_BODY_BYTES)).unwrap_or(u32::MAX);
    PATIENCE + Duration::from_secs_f64(f64::from(n_bytes) / SLOWEST_PACE)
}

fn too_slow() -> ApiError {
    let message = format!(
        "the body arrived too slowly: it has {} s, and one more for each {SLOWEST_PACE} bytes",
        PATIENCE.as_secs()
    );
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
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
    use futures_util::{StreamExt as _, stream};
    use tokio::time::sleep;

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

    /// Reads a body of frames that come after so many milliseconds each, and then no end; the result is after how
    /// many it was given up.
    async fn check_pace(frames: &[(u64, usize)], expect: u64) {
        let frames = frames.to_vec();
        let arriving = stream::iter(frames.clone()).then(async |(milliseconds, n_bytes)| {
            sleep(Duration::from_millis(milliseconds)).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; n_bytes]))
        });
        let request = Request::new(Body::from_stream(arriving.chain(stream::pending())));
        let started = Instant::now();
        let error = RequestBody::from_request(request, &()).await.expect_err("a timeout");
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
        let seen = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Timers have milliseconds, and round up.
        assert!((expect..=expect + 2).contains(&seen), "{frames:?}: {seen} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_waited_for_as_long_as_what_has_come_of_it_takes() {
        check_pace(&[], 5_000).await;
        check_pace(&[(0, 1)], 5_000).await;
        check_pace(&[(4_900, 1)], 5_000).await;
        check_pace(&[(1_000, 1); 30], 5_000).await;
        check_pace(&[(4_900, 62_500)], 6_000).await;
        check_pace(&[(1_000, 62_500); 9], 14_000).await;
        // What is too large is still read, but not for longer.
        check_pace(&[(1_000, MAX_BODY_BYTES); 2], 21_777).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_signal_passes_over_the_slowest_link() {
        let frames = stream::iter(0..16).then(async |_| {
            sleep(Duration::from_millis(1_048)).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; MAX_BODY_BYTES / 16]))
        });
        let request = Request::new(Body::from_stream(frames));
        let body = RequestBody::from_request(request, &()).await.expect("a body");
        assert_eq!(body.0.len(), MAX_BODY_BYTES);
    }
}
