use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response as Answer};
use reqwest::header::HeaderValue;
use tokio::io::AsyncReadExt;

use super::*;

const CONTENT: &[u8] = b"0123456789";

/// Serves one handler on a free port of the loopback.
async fn serve(handler: impl Fn(&Request) -> Answer + Clone + Send + Sync + 'static) -> Url {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let app = Router::new().fallback(move |request: Request| {
        let response = handler(&request);
        async move { response }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Url::parse(&format!("http://{address}/archive?temp_url_sig=secret")).unwrap()
}

async fn fetch(url: &Url, digest: Option<&Digest>) -> Result<Vec<u8>, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    let client = client(url, &Trust::default()).unwrap();
    let what = Download { url, headers: HeaderMap::new(), max_bytes: 100, digest };
    match download(&client, &what, &path, &|_, _| {}).await {
        Ok(_) => Ok(std::fs::read(&path).unwrap()),
        Err(error) => Err(crate::error::chain(&error)),
    }
}

/// Answers one connection after the other with these bytes, and gives the requests that it got.
async fn serve_raw(answers: &[&str]) -> (Url, tokio::task::JoinHandle<Vec<String>>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let served = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            requests.push(String::from_utf8(request).unwrap().to_ascii_lowercase());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        requests
    });
    (Url::parse(&format!("http://{address}/archive")).unwrap(), served)
}

const CUT: &str = "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: 10\r\n\r\n0123";

#[tokio::test]
async fn a_broken_download_goes_on_where_it_was() {
    let rest = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4-9/10\r\n\
                Content-Length: 6\r\n\r\n456789";
    let (url, served) = serve_raw(&[CUT, rest]).await;
    assert_eq!(fetch(&url, None).await, Ok(CONTENT.to_vec()));
    let requests = served.await.unwrap();
    assert!(!requests[0].contains("range:"), "{}", requests[0]);
    assert!(requests[1].contains("\nrange: bytes=4-\r"), "{}", requests[1]);
    assert!(requests[1].contains("\nif-range: \"one\"\r"), "{}", requests[1]);
}

/// Without a validator, or where the server has another file by now, it begins anew.
#[tokio::test]
async fn a_download_that_cannot_go_on_begins_anew() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    let (url, served) = serve_raw(&[CUT, whole]).await;
    assert_eq!(fetch(&url, None).await, Ok(CONTENT.to_vec()));
    assert!(served.await.unwrap()[1].contains("range: bytes=4-"));

    let unknown = CUT.replace("ETag: \"one\"\r\n", "");
    let (url, served) = serve_raw(&[&unknown, whole]).await;
    assert_eq!(fetch(&url, None).await, Ok(CONTENT.to_vec()));
    assert!(!served.await.unwrap()[1].contains("range:"));
}

#[tokio::test]
async fn what_is_not_right_is_an_error_and_says_nothing_of_the_signature() {
    let wrong = Digest::sha256(b"something else");
    let url = serve(|_| CONTENT.into_response()).await;
    let error = fetch(&url, Some(&wrong)).await.unwrap_err();
    assert!(error.contains("instead of") && error.contains(wrong.hex()), "{error}");
    assert!(fetch(&url, Some(&Digest::sha256(CONTENT))).await.is_ok());

    let url = serve(|_| vec![b'x'; 101].into_response()).await;
    assert!(fetch(&url, None).await.unwrap_err().contains("larger than 100 bytes"));

    for (status, expect) in [(StatusCode::NOT_FOUND, "404"), (StatusCode::UNAUTHORIZED, "401")] {
        let url = serve(move |_| status.into_response()).await;
        let error = fetch(&url, None).await.unwrap_err();
        assert!(error.contains(expect) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn link_local_addresses_are_known() {
    let check = |url: &str, expect: bool| {
        assert_eq!(is_link_local(&Url::parse(url).unwrap()), expect, "{url}");
    };
    check("http://169.254.169.254/v1/x", true);
    check("http://[fe80::a9fe:a9fe]/x", true);
    check("http://10.0.0.1/", false);
    check("https://example.org/", false);
}

#[test]
fn a_weak_entity_tag_validates_nothing() {
    let check = |name: &'static str, value: &'static str, expect: Option<&str>| {
        let headers = HeaderMap::from_iter([(
            reqwest::header::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )]);
        let found = validator(&headers);
        assert_eq!(found.as_ref().and_then(|value| value.to_str().ok()), expect);
    };
    check("etag", "\"a\"", Some("\"a\""));
    check("etag", "W/\"a\"", None);
    check("last-modified", "Sat, 21 Nov 2026 12:00:00 GMT", Some("Sat, 21 Nov 2026 12:00:00 GMT"));
}

/// The document's proxy is asked, but for what the document has a direct way to.
#[tokio::test]
async fn the_documents_proxy_is_used() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    let (proxy, served) = serve_raw(&[whole]).await;
    let direct = serve(|_| CONTENT.into_response()).await;
    let access = ProxyAccess {
        http: Some(format!("http://user:secret@{}", host_of(&proxy))),
        https: None,
        no_proxy: vec!["127.0.0.0/8".to_owned()],
    };
    let trust = Trust { proxy: Some(access), ..Trust::default() };
    for url in [Url::parse("http://files.example/archive").unwrap(), direct] {
        let answer = client(&url, &trust).unwrap().get(url).send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap(), CONTENT);
    }
    let requests = served.await.unwrap();
    assert!(requests[0].starts_with("get http://files.example/archive http/1.1\r"), "{requests:?}");
    assert!(requests[0].contains("\nproxy-authorization: basic "), "{requests:?}");
}

#[test]
fn a_proxy_that_is_none_is_an_error_without_its_text() {
    let access = ProxyAccess { http: Some("no url: secret".to_owned()), ..ProxyAccess::default() };
    let trust = Trust { proxy: Some(access), ..Trust::default() };
    let error = client(&Url::parse("http://files.example/").unwrap(), &trust).unwrap_err();
    let words = crate::error::chain(&error);
    assert!(words.starts_with("proxy given in the document"), "{words}");
    assert!(!words.contains("secret"), "{words}");
}

/// Host name and path of each request that came, and the token that came with it. Two names of the
/// loopback are two servers; `/archive` is sent on within the first, from there to the second and back.
#[tokio::test]
async fn a_redirect_takes_no_credential_to_another_server() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let url = serve(move |request| {
        let header = |name| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        let (name, port) = header("host").split_once(':').unwrap();
        let path = request.uri().path();
        let range = header("range");
        notes.lock().unwrap().push(format!("{name}{path} {} {range}", header("x-auth-token")));
        let to = match path {
            "/archive" => "again".to_owned(),
            "/again" => format!("http://localhost:{port}/elsewhere"),
            "/elsewhere" => format!("http://127.0.0.1:{port}/back"),
            _ => return CONTENT.into_response(),
        };
        (StatusCode::FOUND, [("location", to)]).into_response()
    })
    .await;
    let own = HeaderMap::from_iter([("x-auth-token".parse().unwrap(), "secret".parse().unwrap())]);
    let common = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=4-"))]);
    let client = client(&url, &Trust::default()).unwrap();
    let response = redirect::get(&client, &url, &own, &common).await.unwrap();
    assert_eq!(response.bytes().await.unwrap(), CONTENT);
    let expect = [
        "127.0.0.1/archive secret bytes=4-",
        "127.0.0.1/again secret bytes=4-",
        "localhost/elsewhere  bytes=4-",
        "127.0.0.1/back  bytes=4-",
    ];
    assert_eq!(*seen.lock().unwrap(), expect);
}

/// Within a server that is a part of its URL; as the library would have it.
#[tokio::test]
async fn user_and_password_of_a_url_stay_with_its_server() {
    let mut url = serve(|request| {
        let is_known = request.headers().contains_key("authorization");
        let (_, port) = request.headers()["host"].to_str().unwrap().split_once(':').unwrap();
        let to = match (request.uri().path(), is_known) {
            ("/archive", true) => format!("http://127.0.0.1:{port}/again"),
            ("/again", true) => format!("http://localhost:{port}/elsewhere"),
            ("/elsewhere", false) => return CONTENT.into_response(),
            _ => return StatusCode::FORBIDDEN.into_response(),
        };
        (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response()
    })
    .await;
    url.set_username("user").unwrap();
    url.set_password(Some("secret")).unwrap();
    assert_eq!(fetch(&url, None).await, Ok(CONTENT.to_vec()));
}

#[tokio::test]
async fn a_redirect_that_leads_nowhere_good_is_said() {
    let check = async |location: &'static str, words: &str| {
        let url = serve(move |_| (StatusCode::SEE_OTHER, [("location", location)]).into_response());
        let error = fetch(&url.await, None).await.unwrap_err();
        assert!(error.contains(words) && error.contains("127.0.0.1:"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    };
    check("https://127.0.0.1/x?sig=secret", "from http to https").await;
    check("ftp://127.0.0.1/x?sig=secret", "neither to http nor to https").await;
    check("http://[secret", "to no URL").await;
    check("/archive?sig=secret", "too many").await;
}

#[tokio::test]
async fn redirects_are_bounded() {
    let n_asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&n_asked);
    let url = serve(move |_| {
        *count.lock().unwrap() += 1;
        (StatusCode::FOUND, [("location", "again")]).into_response()
    });
    fetch(&url.await, None).await.unwrap_err();
    assert_eq!(*n_asked.lock().unwrap(), redirect::MAX_REDIRECTS + 1);
}
