use axum::body::to_bytes;
use axum::http::header::RETRY_AFTER;
use axum::routing::{get, put};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::http::body::RequestBody;
use crate::http::public_surface;

fn edge(max_in_flight: usize) -> Arc<Edge> {
    let limits = EdgeLimits { max_in_flight, max_long_polls: 1 };
    Edge::new(public_surface, limits, Arc::new(Metrics::new()))
}

fn router() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/panic", get(panics))
        .route("/slow", get(std::future::pending::<()>))
        .route("/api/v1/handles/h", get(std::future::pending::<()>))
}

async fn panics() -> StatusCode {
    panic!("a handler that panics")
}

fn request(uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).expect("a request")
}

/// The status and the start of the body.
async fn outcome(response: Response) -> String {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 4096).await.expect("a body");
    let body = String::from_utf8_lossy(&body);
    let code = body.split('"').nth(5).unwrap_or(&body).to_owned();
    format!("{status} {code}")
}

async fn check(uri: &str, headers: &[(&str, &str)], expect: &str) {
    let response = edge(1).call(router(), request(uri, headers)).await;
    assert!(response.headers().contains_key(X_REQUEST_ID), "{uri}");
    assert_eq!(outcome(response).await, expect, "{uri}");
}

#[tokio::test]
async fn sizes_are_refused_each_by_its_code() {
    let long = |limit: usize| "x".repeat(limit + 1);
    check("/", &[], "200 hello").await;
    check(&format!("/?{}", "x".repeat(MAX_QUERY_BYTES)), &[], "200 hello").await;
    check(&format!("/?{}", long(MAX_QUERY_BYTES)), &[], "414 query_too_long").await;
    check(&format!("/{}", long(MAX_PATH_BYTES)), &[], "414 path_too_long").await;
    check("/", &[("x-a", &long(MAX_HEADER_BYTES))], "431 headers_too_large").await;
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    check("/panic", &[], "500 internal_error").await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_end_is_not_waited_for() {
    check("/slow", &[], "503 timeout").await;
}

#[tokio::test]
async fn what_is_over_the_limit_is_refused_at_once() {
    let edge = edge(1);
    let entered = Arc::new(Notify::new());
    let router = Router::new().route("/", {
        let entered = entered.clone();
        get(async move || {
            entered.notify_one();
            std::future::pending::<()>().await;
        })
    });
    let first = tokio::spawn({
        let (edge, router) = (edge.clone(), router.clone());
        async move { edge.call(router, request("/", &[])).await }
    });
    entered.notified().await;

    let second = edge.call(router.clone(), request("/", &[])).await;
    assert_eq!(second.headers().get(RETRY_AFTER).map(|value| value.as_bytes()), Some(&b"1"[..]));
    assert_eq!(outcome(second).await, "503 overloaded");
    let page = edge.metrics.encode().expect("metrics");
    assert!(page.contains("heliograph_http_shed_total 1"), "{page}");
    assert!(page.contains("heliograph_http_in_flight 1"), "{page}");

    first.abort();
    assert!(first.await.is_err());
    let third = edge.call(router, request("/nothing", &[])).await;
    assert_eq!(third.status(), StatusCode::NOT_FOUND);
}

/// A PUT of five bytes, the last of which come when they are told to.
fn slow_put() -> (Request<Body>, oneshot::Sender<()>) {
    let (go_on, rest) = oneshot::channel::<()>();
    let body = stream::unfold(Some(rest), async |rest| {
        let rest = rest?;
        rest.await.ok()?;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"ello")), None))
    });
    let first = stream::iter([Ok(Bytes::from_static(b"h"))]);
    let body = Body::from_stream(first.chain(body));
    (Request::put("/put").body(body).expect("a request"), go_on)
}

#[tokio::test]
async fn bodies_on_their_way_hold_no_places() {
    const N_SLOW: usize = 5;
    let edge = edge(1);
    let router = router().route("/put", put(async |RequestBody(body): RequestBody| body));
    let arriving = |n: usize| format!("heliograph_http_arriving {n}\n");
    let mut slow: Vec<_> = (0..N_SLOW)
        .map(|_| {
            let (edge, router, (request, go_on)) = (edge.clone(), router.clone(), slow_put());
            (tokio::spawn(async move { edge.call(router, request).await }), go_on)
        })
        .collect();
    while !edge.metrics.encode().expect("metrics").contains(&arriving(N_SLOW)) {
        tokio::task::yield_now().await;
    }
    let brief = edge.call(router.clone(), request("/", &[])).await;
    assert_eq!(outcome(brief).await, "200 hello");
    let whole = Request::put("/put").body(Body::from("whole")).expect("a request");
    assert_eq!(outcome(edge.call(router.clone(), whole).await).await, "200 whole");

    // One whose body is there is answered, or refused if there is no place then.
    let (answer, go_on) = slow.pop().expect("a slow one");
    go_on.send(()).expect("somebody reads");
    assert_eq!(outcome(answer.await.expect("an answer")).await, "200 hello");
    let place = edge.in_flight.take().expect("a place");
    let (answer, go_on) = slow.pop().expect("a slow one");
    go_on.send(()).expect("somebody reads");
    assert_eq!(outcome(answer.await.expect("an answer")).await, "503 overloaded");
    drop(place);
    for (answer, _) in slow {
        answer.abort();
        assert!(answer.await.is_err());
    }
    let page = edge.metrics.encode().expect("metrics");
    assert!(
        page.contains(&arriving(0)) && page.contains("heliograph_http_in_flight 0\n"),
        "{page}"
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_have_a_limit_of_their_own_and_no_timeout() {
    let edge = edge(1);
    let waiting = tokio::spawn({
        let edge = edge.clone();
        async move { edge.call(router(), request("/api/v1/handles/h", &[])).await }
    });
    tokio::time::sleep(10 * REQUEST_TIMEOUT).await;
    assert!(!waiting.is_finished());
    let brief = edge.call(router(), request("/", &[])).await;
    assert_eq!(outcome(brief).await, "200 hello");
    let another = edge.call(router(), request("/api/v1/handles/h", &[])).await;
    assert_eq!(outcome(another).await, "503 overloaded");
    waiting.abort();
}

#[tokio::test]
async fn the_caller_may_name_the_request() {
    let name = |headers: &'static [(&str, &str)]| async move {
        let response = edge(1).call(router(), request("/", headers)).await;
        let id = response.headers()[X_REQUEST_ID].to_str().expect("text").to_owned();
        assert_eq!(response.headers()[X_TRANS_ID], id);
        id
    };
    assert_eq!(name(&[("x-request-id", "req-7")]).await, "req-7");
    assert!(name(&[]).await.starts_with("tx"));
    assert!(name(&[("x-request-id", "with space")]).await.starts_with("tx"));
}
