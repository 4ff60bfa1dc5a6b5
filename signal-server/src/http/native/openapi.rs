//! The description of the native surface for programs that write clients. A test holds it against the
//! routes.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /api/v1/openapi.json`. Needs no permit: it says nothing about this relay but its version.
pub(crate) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Method, Request, StatusCode};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::app::AppState;
    use crate::http::native_routes;

    fn documented() -> BTreeSet<String> {
        let document: Value = serde_json::from_str(DOCUMENT).expect("valid JSON");
        let paths = document["paths"].as_object().expect("paths");
        let mut operations = BTreeSet::new();
        for (path, item) in paths {
            let methods = item.as_object().expect("a path item").keys();
            let methods = methods.filter(|key| *key != "parameters");
            operations.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
        operations
    }

    /// Asks the router which methods each of its paths has: those it does not answer with 405.
    async fn routed() -> BTreeSet<String> {
        let mut operations = BTreeSet::new();
        for (path, methods) in native_routes() {
            let router = Router::new().route(path, methods).with_state(AppState::for_tests());
            for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
                let uri = path.replace("{id}", "h-0");
                let request = Request::builder().method(&method).uri(uri).body(Body::empty());
                let response = router.clone().oneshot(request.expect("a request")).await;
                if response.expect("an answer").status() != StatusCode::METHOD_NOT_ALLOWED {
                    operations.insert(format!("{method} {path}"));
                }
            }
        }
        operations
    }

    #[tokio::test]
    async fn the_document_and_the_routes_are_the_same() {
        assert_eq!(documented(), routed().await);
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("a local reference");
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    members.values().for_each(|member| check(member, document));
                }
                Value::Array(items) => items.iter().for_each(|item| check(item, document)),
                _ => {}
            }
        }
        let document: Value = serde_json::from_str(DOCUMENT).expect("valid JSON");
        check(&document, &document);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
