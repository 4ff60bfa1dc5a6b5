use std::io;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode as Status;
use axum::response::{IntoResponse, Response as Answer};
use base64::Engine as _;
use serde_json::json;

use super::*;

const CONFIG: &[u8] = b"{}";
const LAYER: &[u8] = b"a layer";

/// A registry that wants a token of its own service, which wants a password.
fn registry(request: &Request, base: &str) -> Answer {
    let said = request.headers().get("authorization").and_then(|said| said.to_str().ok());
    let password = STANDARD.encode("scene:secret");
    match (request.uri().path(), said) {
        ("/token", Some(said)) if said == format!("Basic {password}") => {
            assert_eq!(request.uri().query(), Some("service=r&scope=repository%3Aweb%3Apull"));
            json!({"token": "the-token"}).to_string().into_response()
        }
        ("/token", _) => Status::UNAUTHORIZED.into_response(),
        (path, Some("Bearer the-token")) => content(path),
        _ => {
            let realm =
                format!("realm=\"{base}/token\",service=\"r\",scope=\"repository:web:pull\"");
            (Status::UNAUTHORIZED, [("www-authenticate", format!("Bearer {realm}"))])
                .into_response()
        }
    }
}

fn content(path: &str) -> Answer {
    let describe =
        |bytes: &[u8]| json!({"digest": Digest::sha256(bytes).to_string(), "size": bytes.len()});
    let manifest =
        json!({"schemaVersion": 2, "config": describe(CONFIG), "layers": [describe(LAYER)]});
    let manifest = manifest.to_string();
    let mut variant = describe(manifest.as_bytes());
    variant["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "manifests": [variant]}).to_string();
    let blob = |bytes: &[u8]| format!("/v2/web/blobs/{}", Digest::sha256(bytes));
    if path == "/v2/web/manifests/1" {
        return index.into_response();
    }
    if path == format!("/v2/web/manifests/{}", Digest::sha256(manifest.as_bytes())) {
        return manifest.into_response();
    }
    if path == blob(CONFIG) {
        return CONFIG.into_response();
    }
    if path == blob(LAYER) {
        return LAYER.into_response();
    }
    Status::NOT_FOUND.into_response()
}

async fn start() -> io::Result<String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let base = format!("http://{address}");
    let app = Router::new().fallback(move |request: Request| {
        let answer = registry(&request, &base);
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

#[tokio::test]
async fn a_token_is_asked_for_where_the_registry_says() {
    let address = start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let check = async |image: &str, access: RegistryAccess, expect: Result<(), PullProblem>| {
        let reference = ImageReference::parse(&format!("{address}/{image}")).unwrap();
        let access = RegistryAccess { insecure: true, ..access };
        let candidate = Candidate { reference, access };
        let trust = Trust { insecure: true, ..Trust::default() };
        let platform = Platform::of(Some("linux/amd64"));
        let directory = directory.path();
        let fetched =
            Repository::fetch_from(&candidate, &trust, &platform, directory, &|_| {}).await;
        if let Ok(bundle) = &fetched {
            assert_eq!(bundle.config, CONFIG);
            assert_eq!(std::fs::read(&bundle.layers[0].1.path).unwrap(), LAYER);
        }
        let found = fetched.map(drop).map_err(|error| error.problem());
        assert_eq!(found, expect, "{image}");
    };
    let user = |password: &str| RegistryAccess {
        username: Some("scene".to_owned()),
        password: Some(password.to_owned()),
        ..RegistryAccess::default()
    };
    let token =
        |token: &str| RegistryAccess { token: Some(token.to_owned()), ..RegistryAccess::default() };
    check("web:1", user("secret"), Ok(())).await;
    check("web:1", user("wrong"), Err(PullProblem::Unauthorized)).await;
    check("web:1", RegistryAccess::default(), Err(PullProblem::Unauthorized)).await;
    check("web:1", token("the-token"), Ok(())).await;
    check("web:1", token("another"), Err(PullProblem::Unauthorized)).await;
    check("web:2", token("the-token"), Err(PullProblem::NotFound)).await;
    let pinned = format!("web@sha256:{}", "0".repeat(64));
    check(&pinned, token("the-token"), Err(PullProblem::NotFound)).await;
}
