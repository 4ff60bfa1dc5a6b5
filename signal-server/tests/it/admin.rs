//! Health, metrics, log level.

use heliograph_server::config::StoreKind;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Relay, answer, client, signal};

#[tokio::test]
async fn an_operator_sees_how_the_relay_is() {
    for store in [StoreKind::Memory, StoreKind::Embedded] {
        let relay = Relay::start(store).await;
        let created = relay.create("{}").await;
        signal(&created, r#"{"id":"a"}"#).await;
        signal(&created, r#"{"id":"a"}"#).await;
        signal(&created, "nonsense").await;

        let get = |path: &str| client().get(format!("{}{path}", relay.admin_url));
        assert_eq!(
            get("/healthz").send().await.expect("an answer").text().await.expect("text"),
            "ok\n"
        );
        assert_eq!(answer(get("/readyz")).await, (200, json!({"ready": true, "reasons": []})));
        assert_eq!(answer(get("/nothing")).await.0, 404);
        for line in [
            r#"heliograph_http_requests_total{surface="native",status="201"} 2"#,
            r#"heliograph_http_requests_total{surface="native",status="200"} 1"#,
            "heliograph_signals_accepted_total 1",
            "heliograph_signals_duplicate_total 1",
            r#"heliograph_signals_refused_total{code="signal_not_json"} 1"#,
        ] {
            relay.until_metric(line).await;
        }
        relay.stopped().await;
    }
}

#[tokio::test]
async fn the_log_level_changes_while_the_relay_runs() {
    let relay = Relay::start(StoreKind::Memory).await;
    let url = format!("{}/log-level", relay.admin_url);
    let put = |level: &str| client().request(Method::PUT, &url).body(level.to_owned());
    assert_eq!(answer(client().get(&url)).await, (200, json!({"level": "info"})));
    assert_eq!(answer(put("warn,heliograph_server=debug")).await.0, 200);
    let expect = json!({"level": "warn,heliograph_server=debug"});
    assert_eq!(answer(client().get(&url)).await, (200, expect));
    let (status, seen) = answer(put("loud")).await;
    assert_eq!((status, &seen["error"]["code"]), (400, &json!("bad_log_level")));
    relay.stopped().await;
}

#[tokio::test]
async fn the_surfaces_do_not_mix() {
    let relay = Relay::start(StoreKind::Memory).await;
    for path in ["/metrics", "/log-level", "/readyz"] {
        assert_eq!(relay.get(path).await.0, 404, "{path}");
    }
    let (status, _) =
        answer(client().get(format!("{}/api/v1/openapi.json", relay.admin_url))).await;
    assert_eq!(status, 404);
    let (status, document) =
        answer(client().get(format!("{}/api/v1/openapi.json", relay.url))).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    relay.stopped().await;
}
