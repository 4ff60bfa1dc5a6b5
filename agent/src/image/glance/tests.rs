use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};

use super::*;

#[test]
fn addresses_are_made_of_either_spelling() {
    let url = |text: &str| Url::parse(text).unwrap();
    for auth_url in ["http://k:5000", "http://k:5000/", "http://k:5000/v3", "http://k:5000/v3/"] {
        let tokens = keystone(&url(auth_url), "auth/tokens").unwrap();
        assert_eq!(tokens.as_str(), "http://k:5000/v3/auth/tokens", "{auth_url}");
    }
    let below = keystone(&url("https://k/identity"), "auth/tokens").unwrap();
    assert_eq!(below.as_str(), "https://k/identity/v3/auth/tokens");
    for endpoint in ["http://g:9292", "http://g:9292/", "http://g:9292/v2", "http://g:9292/v2/"] {
        let image = at(&url(endpoint), &["v2", "images", "a name/../x"]).unwrap();
        assert_eq!(image.as_str(), "http://g:9292/v2/images/a%20name%2F..%2Fx", "{endpoint}");
    }
}

#[test]
fn the_public_endpoint_of_the_region_is_used() {
    let catalog: Vec<Service> = serde_json::from_value(json!([
        {"type": "compute", "endpoints": [
            {"interface": "public", "region": "one", "url": "http://nova"}]},
        {"type": "image", "endpoints": [
            {"interface": "admin", "region": "one", "url": "http://admin"},
            {"interface": "public", "region": "one", "url": "http://one"},
            {"interface": "public", "region": "two", "url": "http://two"}]},
    ]))
    .unwrap();
    let check = |region: Option<&str>, expect: Option<&str>| {
        let found = endpoint(&catalog, region).ok();
        assert_eq!(found.as_ref().map(Url::as_str), expect, "{region:?}");
    };
    check(None, Some("http://one/"));
    check(Some("two"), Some("http://two/"));
    check(Some("three"), None);
    assert!(endpoint(&[], None).is_err());
}

/// A Keystone and a Glance as far as the API pages say, at one address.
fn cloud(request: &Request, body: &str, base: &str) -> Response {
    let token = request.headers().get("x-auth-token").and_then(|token| token.to_str().ok());
    let endpoints =
        json!([{"interface": "public", "region": "one", "url": format!("{base}/image")}]);
    let catalog = json!([{"type": "image", "endpoints": endpoints}]);
    let image = |id: &str, format: &str, status: &str| {
        json!({"id": id, "status": status, "container_format": format, "os_hash_algo": "sha512",
            "os_hash_value": "ab".repeat(64)})
    };
    let query = request.uri().query().unwrap_or_default();
    match (request.method().as_str(), request.uri().path(), token) {
        ("POST", "/v3/auth/tokens", None) if body.contains("\"secret\":\"right\"") => {
            let answer = json!({"token": {"catalog": catalog}}).to_string();
            (StatusCode::CREATED, [("x-subject-token", "good")], answer).into_response()
        }
        ("POST", "/v3/auth/tokens", None) => StatusCode::UNAUTHORIZED.into_response(),
        ("GET", "/v3/auth/catalog", Some("good")) => {
            json!({"catalog": catalog}).to_string().into_response()
        }
        ("GET", "/v3/auth/catalog", _) => StatusCode::UNAUTHORIZED.into_response(),
        ("GET", "/image/v2/images/by-id", Some("good")) => {
            image("by-id", "docker", "active").to_string().into_response()
        }
        ("GET", "/image/v2/images", Some("good")) => {
            let images = match query {
                "name=web" => vec![image("web-id", "docker", "active")],
                "name=twice" => {
                    vec![image("a", "docker", "active"), image("b", "docker", "active")]
                }
                "name=disk" => vec![image("c", "bare", "active")],
                "name=late" => vec![image("d", "docker", "saving")],
                _ => vec![],
            };
            json!({ "images": images }).to_string().into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn start() -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let served = base.clone();
    let app = Router::new().fallback(move |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 4096).await.unwrap();
        let request = Request::from_parts(parts, axum::body::Body::empty());
        cloud(&request, &String::from_utf8_lossy(&body), &served)
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    base
}

#[tokio::test]
async fn an_image_is_found_by_id_or_name_with_either_credential() {
    let base = start().await;
    let with_token = GlanceAccess {
        auth_url: Some(format!("{base}/v3")),
        token: Some("good".to_owned()),
        ..GlanceAccess::default()
    };
    let with_secret = |secret: &str| GlanceAccess {
        auth_url: Some(base.clone()),
        application_credential_id: Some("id".to_owned()),
        application_credential_secret: Some(secret.to_owned()),
        ..GlanceAccess::default()
    };
    let at_endpoint = GlanceAccess {
        endpoint: Some(format!("{base}/image")),
        token: Some("good".to_owned()),
        ..GlanceAccess::default()
    };
    let check = async |access: &GlanceAccess, image: &str, expect: Result<&str, &str>| {
        let located = locate(access, image, &Trust::default()).await;
        match (located, expect) {
            (Ok(located), Ok(id)) => {
                assert_eq!(located.url.path(), format!("/image/v2/images/{id}/file"));
                assert_eq!(located.headers["x-auth-token"], "good");
                assert_eq!(located.digest.map(|one| one.algorithm()), Some("sha512"));
            }
            (Err(error), Err(words)) => {
                assert!(error.to_string().contains(words), "{error} instead of {words}");
            }
            (located, expect) => panic!("{image}: {located:?} instead of {expect:?}"),
        }
    };
    for access in [&with_token, &with_secret("right"), &at_endpoint] {
        check(access, "by-id", Ok("by-id")).await;
        check(access, "web", Ok("web-id")).await;
        check(access, "none", Err("no image with the id or name none")).await;
        check(access, "twice", Err("2 images of the name twice")).await;
        check(access, "disk", Err("container format is bare")).await;
        check(access, "late", Err("image is saving")).await;
    }
    check(&with_secret("wrong"), "web", Err("refused the credential (status 401)")).await;
    let elsewhere = GlanceAccess { region: Some("two".to_owned()), ..with_token.clone() };
    check(&elsewhere, "web", Err("no image service in region two")).await;
    check(&GlanceAccess::default(), "web", Err("no `glance` section")).await;
}

/// An application credential's secret is in the body, a token in a header that no library knows.
#[tokio::test]
async fn nobody_is_sent_elsewhere_with_a_credential() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let is_followed = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&is_followed);
    let elsewhere = format!("http://localhost:{}/elsewhere", address.port());
    let app = Router::new().fallback(async move |request: Request| {
        noted.fetch_or(request.uri().path() == "/elsewhere", Ordering::SeqCst);
        (StatusCode::TEMPORARY_REDIRECT, [("location", elsewhere)])
    });
    tokio::spawn(async move { axum::serve(listener, app).await });

    let url = Some(format!("http://{address}"));
    let token = Some("good".to_owned());
    let secret = Some("secret".to_owned());
    let check = async |access: GlanceAccess| {
        let located = locate(&access, "web", &Trust::default()).await.map(drop);
        let archive = stream::iter([Ok(b"archive".to_vec())]).boxed();
        let uploaded = upload::upload(&access, "web", archive, &Trust::default()).await.map(drop);
        for asked in [located, uploaded] {
            let error = crate::error::chain(&asked.unwrap_err());
            assert!(error.contains("answered 307"), "{error}");
        }
    };
    let none = GlanceAccess::default;
    check(GlanceAccess { endpoint: url.clone(), token: token.clone(), ..none() }).await;
    check(GlanceAccess { auth_url: url.clone(), token, ..none() }).await;
    check(GlanceAccess {
        auth_url: url,
        application_credential_id: Some("id".to_owned()),
        application_credential_secret: secret,
        ..none()
    })
    .await;
    assert!(!is_followed.load(Ordering::SeqCst), "a redirect was followed");
}
