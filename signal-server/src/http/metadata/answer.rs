//! Answers that reach an instance.
//!
//! Neutron's metadata agent lets few statuses through, and of an answer's headers the content type at
//! most; any other status becomes a 500 or a broken connection, and up to 2024.2 the body of an error is
//! replaced by a page. So what is said to an agent is a 200 with JSON in ASCII, also when it is bad news;
//! and where a client expects HTTP's statuses, because it is curl with a signed URL, they are mapped to
//! those that pass.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use signal_protocol::frame::Receipt;

/// How long an agent is asked to wait when the relay cannot take its message, in milliseconds. A store
/// that is being restarted is back after that.
pub(crate) const RETRY_AFTER_MS: u64 = 5_000;

/// Bad news.
pub(crate) fn refusal(code: &str) -> Receipt {
    Receipt {
        ok: false,
        code: code.to_owned(),
        seq: 0,
        len: 0,
        sha256: String::new(),
        after_ms: None,
    }
}

/// Not now.
pub(crate) fn retry() -> Receipt {
    Receipt { after_ms: Some(RETRY_AFTER_MS), ..refusal("retry") }
}

/// A receipt as a response.
pub(crate) fn receipt(receipt: &Receipt) -> Response {
    json(serde_json::to_string(receipt).unwrap_or_default())
}

/// A 200 with a JSON body in ASCII.
pub(crate) fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The answer of another surface, in the statuses that pass.
pub(crate) async fn fit(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    parts.status = match parts.status.as_u16() {
        200..=299 => StatusCode::OK,
        401 => StatusCode::FORBIDDEN,
        408 | 425 | 429 | 507 => StatusCode::SERVICE_UNAVAILABLE,
        400 | 403 | 404 | 409 | 500 | 502..=504 => parts.status,
        500..=599 => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    // What the surfaces answer is in memory already.
    let mut body = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => bytes::Bytes::new(),
    };
    // Neutron's agents fail over an answer without a type, and some releases over one without a body.
    if body.is_empty() && parts.status == StatusCode::OK {
        body = bytes::Bytes::from_static(b"{\"ok\":true}");
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let content_type = with_charset(parts.headers.get(CONTENT_TYPE));
    parts.headers.insert(CONTENT_TYPE, content_type);
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body))
}

/// Neutron's agents of 2025.1 and later encode the answer anew, and drop it where they do not know in
/// what: JSON they know, and text; of anything else the type has to say it.
fn with_charset(content_type: Option<&HeaderValue>) -> HeaderValue {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let Some(content_type) = content_type else { return plain };
    let Ok(text) = content_type.to_str() else { return plain };
    if text.contains("charset=") || text.starts_with("application/json") {
        return content_type.clone();
    }
    HeaderValue::try_from(format!("{text}; charset=utf-8")).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(status: u16, body: &'static str, expect: &str) {
        let answer = Response::builder().status(status).body(Body::from(body)).expect("an answer");
        let fitted = fit(answer).await;
        let status = fitted.status().as_u16();
        let body = fitted.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(format!("{status} {}", String::from_utf8_lossy(&body)), expect);
    }

    #[test]
    fn the_type_of_an_answer_says_how_it_is_encoded() {
        let check = |given: Option<&'static str>, expect: &str| {
            let given = given.map(HeaderValue::from_static);
            assert_eq!(with_charset(given.as_ref()), expect);
        };
        check(None, "text/plain; charset=utf-8");
        check(Some("application/json"), "application/json");
        check(Some("application/xml"), "application/xml; charset=utf-8");
        check(Some("text/html; charset=UTF-8"), "text/html; charset=UTF-8");
    }

    #[tokio::test]
    async fn only_statuses_that_pass_are_answered() {
        check(201, "", "200 {\"ok\":true}").await;
        check(204, "", "200 {\"ok\":true}").await;
        check(200, "x", "200 x").await;
        check(401, "no", "403 no").await;
        for passes in [400, 403, 404, 409, 500, 502, 503, 504] {
            check(passes, "e", &format!("{passes} e")).await;
        }
        check(413, "e", "400 e").await;
        check(301, "e", "400 e").await;
        check(429, "e", "503 e").await;
        check(507, "e", "503 e").await;
        check(501, "e", "500 e").await;
    }
}
