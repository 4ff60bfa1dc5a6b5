use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};

use super::*;

type Asked = Arc<Mutex<Vec<String>>>;

/// A Glance that says this to an image's data, and notes what it is asked.
async fn start(to_data: StatusCode) -> (GlanceAccess, Asked) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let access = GlanceAccess {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        token: Some("good".to_owned()),
        ..GlanceAccess::default()
    };
    let asked = Asked::default();
    let notes = Arc::clone(&asked);
    let app = Router::new().fallback(async move |request: Request| -> Response {
        let (parts, body) = request.into_parts();
        assert_eq!(parts.headers["x-auth-token"], "good");
        let is_whole = axum::body::to_bytes(body, 4096).await.is_ok();
        notes.lock().unwrap().push(format!("{} {}", parts.method, parts.uri));
        match parts.method {
            Method::POST => (StatusCode::CREATED, r#"{"id": "new"}"#).into_response(),
            Method::PUT if is_whole => to_data.into_response(),
            _ => StatusCode::NO_CONTENT.into_response(),
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (access, asked)
}

#[tokio::test]
async fn what_fails_leaves_no_image() {
    let whole = || stream::iter([Ok(b"archive".to_vec())]).boxed();
    let broken =
        || stream::iter([Ok(b"arch".to_vec()), Err(io::Error::other("engine is gone"))]).boxed();
    let check = async |archive: ImageArchive, to_data, expect: Result<&str, &str>| {
        let (access, asked) = start(to_data).await;
        let uploaded = upload(&access, "web", archive, &Trust::default()).await;
        let last = asked.lock().unwrap().last().cloned().unwrap();
        match expect {
            Ok(id) => {
                assert_eq!(uploaded.unwrap(), id);
                assert_eq!(last, "PUT /v2/images/new/file");
            }
            Err(words) => {
                let error = crate::error::chain(&uploaded.unwrap_err());
                assert!(error.contains(words), "{error} instead of {words}");
                assert_eq!(last, "DELETE /v2/images/new");
            }
        }
    };
    check(whole(), StatusCode::NO_CONTENT, Ok("new")).await;
    check(whole(), StatusCode::PAYLOAD_TOO_LARGE, Err("answered 413")).await;
    check(broken(), StatusCode::NO_CONTENT, Err("engine is gone")).await;
}
