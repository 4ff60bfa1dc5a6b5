//! Heat's own requests, in Heat's own order, as they were captured from a real one.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use jiff::Timestamp;
use signal_protocol::path::AccountName;
use signal_protocol::tempurl::{Digest, sign};
use tower::ServiceExt;

use crate::app::AppState;
use crate::clock::ManualClock;
use crate::config::Secret;
use crate::http::permit::FixedTokens;
use crate::http::public_router;
use crate::mailbox::Mailboxes;
use crate::mailbox::limits::Limits;
use crate::store::faulty::{Fault, FaultyStore};
use crate::store::memory::MemoryStore;
use crate::store::{CommitError, Store};

/// Headers that are shown in a transcript, in this order.
const SHOWN: [&str; 10] = [
    "content-type",
    "etag",
    "last-modified",
    "retry-after",
    "www-authenticate",
    "x-account-container-count",
    "x-account-object-count",
    "x-container-bytes-used",
    "x-container-object-count",
    "x-versions-location",
];

const EXPIRES: u64 = 2_147_483_586;

const SIGNAL: &str = r#"{"status":"SUCCESS","id":"1"}"#;

struct Relay {
    router: Router,
    clock: Arc<ManualClock>,
}

impl Relay {
    fn new() -> Self {
        Relay::over(Arc::new(MemoryStore::new()))
    }

    /// A relay that knows the token `token` of the account `AUTH_p`, and `other` of `AUTH_q`.
    fn over(store: Arc<dyn Store>) -> Self {
        let start = Timestamp::from_second(1_795_219_937).expect("in range");
        let clock = Arc::new(ManualClock::new(start));
        let account = |name| AccountName::parse(name).expect("an account");
        let tokens = [("token", "AUTH_p"), ("other", "AUTH_q")]
            .map(|(token, name)| (Secret::new(token.to_owned()), account(name)));
        let mut state = AppState::for_tests();
        state.mailboxes = Mailboxes::new(store, clock.clone(), Limits::default());
        state.clock = clock.clone();
        state.tokens = Arc::new(FixedTokens::new(tokens));
        Relay { router: public_router(state), clock }
    }

    /// Sends `METHOD path [header=value …]`, where `~` is the account, and returns the answer as
    /// `status header=value … | body`.
    async fn send(&self, request: &str, body: &str) -> String {
        let (status, shown, body) = self.answer(request, body).await;
        if body.is_empty() {
            format!("{status}{shown}")
        } else {
            format!("{status}{shown} | {body}")
        }
    }

    async fn answer(&self, request: &str, body: &str) -> (u16, String, String) {
        let mut words = request.split(' ');
        let method = words.next().expect("a method");
        let path = words.next().expect("a path").replace('~', "/v1/AUTH_p");
        let mut builder = Request::builder().method(method).uri(path);
        for word in words {
            let (name, value) = word.split_once('=').expect("a header");
            builder = builder.header(name, value);
        }
        let request = builder.body(Body::from(body.to_owned())).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let mut shown = String::new();
        for name in SHOWN {
            if let Some(value) = response.headers().get(name) {
                let value = value.to_str().expect("text");
                write!(shown, " {name}={value}").expect("a string takes all");
            }
        }
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, shown, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// As Heat does: with the token of the account.
    async fn heat(&self, request: &str, body: &str, expect: &str) {
        let seen = self.send(&format!("{request} x-auth-token=token"), body).await;
        assert_eq!(seen, expect, "{request}");
    }

    /// As an instance does: with a URL that is signed for `method`.
    async fn instance(&self, method: &str, request: &str, body: &str, expect: &str) {
        let seen = self.send(&self.signed(method, request).await, body).await;
        assert_eq!(seen, expect, "{request}");
    }

    /// Adds to a request what a URL signed for `method` has.
    async fn signed(&self, method: &str, request: &str) -> String {
        let (verb, rest) = request.split_once(' ').expect("a method");
        let (path, rest) = rest.split_once(' ').map_or((rest, ""), |(path, rest)| (path, rest));
        let path = path.replace('~', "/v1/AUTH_p");
        let signature = sign(Digest::Sha256, self.key().await.as_bytes(), method, EXPIRES, &path);
        let space = if rest.is_empty() { "" } else { " " };
        format!("{verb} {path}?temp_url_sig={signature}&temp_url_expires={EXPIRES}{space}{rest}")
    }

    /// The key that the account shows to Heat.
    async fn key(&self) -> String {
        let request = Request::builder()
            .method("HEAD")
            .uri("/v1/AUTH_p")
            .header("x-auth-token", "token")
            .body(Body::empty())
            .expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let key = &response.headers()["x-account-meta-temp-url-key"];
        key.to_str().expect("text").to_owned()
    }

    /// What Heat does when the `signal` attribute of a wait condition handle is first read.
    async fn make_handle(&self, created: &str) {
        self.heat("PUT ~/S content-length=0", "", created).await;
        self.heat("PUT ~/S x-versions-location=S content-length=0", "", "202").await;
        self.heat(
            "PUT ~/S/t-h-1",
            "in progress",
            "201 etag=9214b4e4460fcdb9f3a369941400e71e last-modified=Sat, 21 Nov 2026 00:12:17 GMT",
        )
        .await;
    }

    /// The names that Heat's poll sees.
    async fn poll(&self) -> Vec<String> {
        let (status, _, body) = self.answer("GET ~/S?format=json x-auth-token=token", "").await;
        if status == 404 {
            return Vec::new();
        }
        assert_eq!(status, 200);
        let entries: Vec<serde_json::Value> = serde_json::from_str(&body).expect("a JSON list");
        entries.iter().map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
    }
}

/// What a PUT of [`SIGNAL`] is answered, in the first second.
const SIGNAL_STORED: &str =
    "201 etag=4b1f7ddfab3adb5630ec1a98b7fad665 last-modified=Sat, 21 Nov 2026 00:12:17 GMT";

const ACCOUNT_HEAD: &str = "204 x-account-container-count=1 x-account-object-count=0";

#[tokio::test]
async fn the_signal_attribute_is_read() {
    let relay = Relay::new();
    relay.make_handle("201").await;
    relay.heat("HEAD ~", "", ACCOUNT_HEAD).await;
    let key = relay.key().await;
    assert_eq!(key.len(), 32);

    // Somebody reads the attribute through the API: everything comes again, perhaps with another key.
    relay.make_handle("202").await;
    let early = relay.signed("PUT", "PUT ~/S/t-h-1").await;
    let heats_key = "1f040a72c73e4bd9e809e2dd9ca99779";
    relay.heat(&format!("POST ~ x-account-meta-temp-url-key={heats_key}"), "", "204").await;
    assert_eq!(relay.key().await, heats_key);
    // Both URLs are out, and both are good.
    assert_eq!(relay.send(&early, SIGNAL).await, SIGNAL_STORED);
    relay.instance("PUT", "PUT ~/S/t-h-1", SIGNAL, SIGNAL_STORED).await;
    assert_eq!(relay.poll().await, ["t-h-1/00000001"]);
}

#[tokio::test]
async fn a_wait_condition_polls() {
    let relay = Relay::new();
    // Before anything is there.
    relay.heat(
        "GET ~/S?format=json",
        "",
        r#"404 content-type=application/json | {"error":{"code":"container_not_found","message":"there is no such container"}}"#,
    )
    .await;
    relay.make_handle("201").await;
    let empty = "200 content-type=application/json; charset=utf-8 x-container-bytes-used=0 \
                 x-container-object-count=0 x-versions-location=S | []";
    relay.heat("GET ~/S?format=json accept-encoding=gzip", "", empty).await;
    for method in ["GET", "HEAD"] {
        let seen = relay.send(&format!("{method} ~/S/t-h-1 x-auth-token=token"), "").await;
        assert!(seen.starts_with("404"), "the placeholder is hidden: {seen}");
    }

    relay.instance("PUT", "PUT ~/S/t-h-1 content-type=text/x-any", SIGNAL, SIGNAL_STORED).await;
    relay.clock.advance(Duration::from_micros(1_680_746));
    relay
        .instance(
            "PUT",
            "PUT ~/S/t-h-1",
            r#"{"id":"2"}"#,
            "201 etag=921c1b373345da64a5088297d6d637cc last-modified=Sat, 21 Nov 2026 00:12:19 GMT",
        )
        .await;
    relay.heat(
        "GET ~/S?format=json accept-encoding=gzip",
        "",
        concat!(
            "200 content-type=application/json; charset=utf-8 x-container-bytes-used=39 ",
            "x-container-object-count=2 x-versions-location=S | [",
            r#"{"name":"t-h-1/00000001","hash":"4b1f7ddfab3adb5630ec1a98b7fad665","bytes":29,"#,
            r#""content_type":"text/x-any","last_modified":"2026-11-21T00:12:17.000000"},"#,
            r#"{"name":"t-h-1/00000002","hash":"921c1b373345da64a5088297d6d637cc","bytes":10,"#,
            r#""content_type":"application/octet-stream","last_modified":"2026-11-21T00:12:18.680746"}]"#,
        ),
    )
    .await;
    let first = "200 content-type=text/x-any etag=4b1f7ddfab3adb5630ec1a98b7fad665 \
                 last-modified=Sat, 21 Nov 2026 00:12:17 GMT";
    relay.heat("GET ~/S/t-h-1/00000001", "", &format!("{first} | {SIGNAL}")).await;
    relay.heat("HEAD ~/S/t-h-1/00000001", "", first).await;
    relay.heat("DELETE ~/S/t-h-1/00000001", "", "204").await;
    // A reply that was lost, and another thread of Heat: what once was there is gone, not missing.
    relay.heat("DELETE ~/S/t-h-1/00000001", "", "204").await;
    assert!(relay.send("GET ~/S/t-h-1/00000001 x-auth-token=token", "").await.starts_with("404"));
    assert!(
        relay.send("DELETE ~/S/t-h-1/00000003 x-auth-token=token", "").await.starts_with("404")
    );
    relay.heat("DELETE ~/S/t-h-1/00000002", "", "204").await;
    assert!(relay.poll().await.is_empty());
    // The instance did not hear that its signal was taken, and says it once more.
    relay
        .instance(
            "PUT",
            "PUT ~/S/t-h-1",
            r#"{"id":"2"}"#,
            "201 etag=921c1b373345da64a5088297d6d637cc last-modified=Sat, 21 Nov 2026 00:12:19 GMT",
        )
        .await;
    assert!(relay.poll().await.is_empty());
}

#[tokio::test]
async fn a_stack_with_pending_signals_is_deleted() {
    let relay = Relay::new();
    relay.make_handle("201").await;
    relay.instance("PUT", "PUT ~/S/t-h-1", SIGNAL, SIGNAL_STORED).await;
    relay
        .instance(
            "PUT",
            "PUT ~/S/t-h-1",
            r#"{"id":"2"}"#,
            "201 etag=921c1b373345da64a5088297d6d637cc last-modified=Sat, 21 Nov 2026 00:12:17 GMT",
        )
        .await;
    let conflict = r#"409 content-type=application/json | {"error":{"code":"container_not_empty","message":"the container is not empty"}}"#;
    relay.heat("DELETE ~/S", "", conflict).await;

    let names = relay.poll().await;
    assert_eq!(names.iter().filter(|name| name.contains("t-h-1")).count(), 2);
    relay.heat("DELETE ~/S/t-h-1", "", "204").await;
    assert_eq!(relay.poll().await, ["t-h-1/00000002"], "the oldest goes first");
    relay.heat("DELETE ~/S/t-h-1", "", "204").await;
    let head = "204 content-type=text/plain; charset=utf-8 x-container-bytes-used=0 \
                x-container-object-count=0 x-versions-location=S";
    relay.heat("HEAD ~/S", "", head).await;
    relay.heat("DELETE ~/S", "", "204").await;
    let gone = r#"404 content-type=application/json | {"error":{"code":"container_not_found","message":"there is no such container"}}"#;
    relay.heat("GET ~/S?format=json", "", gone).await;
    relay.heat("DELETE ~/S", "", gone).await;
    // The same names again: nothing of the old is left.
    relay.make_handle("201").await;
    assert!(relay.poll().await.is_empty());
    relay.instance("PUT", "PUT ~/S/t-h-1", SIGNAL, SIGNAL_STORED).await;
    assert_eq!(relay.poll().await, ["t-h-1/00000001"]);
}

#[tokio::test]
async fn a_swift_signal_reads_without_deleting_and_deletes_until_there_is_none() {
    let relay = Relay::new();
    relay.make_handle("201").await;
    for number in 1..=3 {
        let body = format!(r#"{{"id":"{number}"}}"#);
        let seen = relay.send(&relay.signed("PUT", "PUT ~/S/t-h-1").await, &body).await;
        assert!(seen.starts_with("201"), "{seen}");
    }
    for _ in 0..3 {
        let names = relay.poll().await;
        assert_eq!(names, ["t-h-1/00000001", "t-h-1/00000002", "t-h-1/00000003"]);
        for name in names {
            let seen = relay.send(&format!("GET ~/S/{name} x-auth-token=token"), "").await;
            assert!(seen.starts_with("200"), "{seen}");
        }
    }
    let mut n_deleted = 0;
    while relay.send("DELETE ~/S/t-h-1 x-auth-token=token", "").await == "204" {
        n_deleted += 1;
    }
    assert_eq!(n_deleted, 3);
    relay.heat("DELETE ~/S", "", "204").await;
}

#[tokio::test]
async fn a_software_deployment_is_a_plain_object() {
    let relay = Relay::new();
    relay.heat("PUT ~/S content-length=0", "", "201").await;
    let empty = "etag=d41d8cd98f00b204e9800998ecf8427e last-modified=Sat, 21 Nov 2026 00:12:17 GMT";
    relay.heat("PUT ~/S/d", "", &format!("201 {empty}")).await;
    let head = format!("200 content-type=application/octet-stream {empty}");
    relay.heat("HEAD ~/S/d", "", &head).await;

    // All within one second of the clock, and still each one is later than the one before.
    let output = r#"{"deploy_status_code":0}"#;
    let put =
        "201 etag=2b58bbf28a88f05a309fcc827a2ee47c last-modified=Sat, 21 Nov 2026 00:12:18 GMT";
    relay.instance("PUT", "PUT ~/S/d", output, put).await;
    let first = "200 content-type=application/octet-stream etag=2b58bbf28a88f05a309fcc827a2ee47c \
                 last-modified=Sat, 21 Nov 2026 00:12:18 GMT";
    relay.heat("HEAD ~/S/d", "", first).await;
    relay.heat("GET ~/S/d", "", &format!("{first} | {output}")).await;
    let put =
        "201 etag=4b1f7ddfab3adb5630ec1a98b7fad665 last-modified=Sat, 21 Nov 2026 00:12:19 GMT";
    relay.instance("PUT", "PUT ~/S/d", SIGNAL, put).await;
    assert_eq!(relay.poll().await, ["d"]);

    // Metadata of a server: the instance reads with a URL of its own.
    relay
        .instance(
            "GET",
            "GET ~/S/d",
            "",
            &format!(
                "200 content-type=application/octet-stream etag=4b1f7ddfab3adb5630ec1a98b7fad665 \
         last-modified=Sat, 21 Nov 2026 00:12:19 GMT | {SIGNAL}"
            ),
        )
        .await;
    relay.heat("DELETE ~/S/d", "", "204").await;
    assert!(relay.send("HEAD ~/S/d x-auth-token=token", "").await.starts_with("404"));
    assert!(relay.send("DELETE ~/S/d x-auth-token=token", "").await.starts_with("404"));
    relay.heat("DELETE ~/S", "", "204").await;
}

#[tokio::test]
async fn what_would_fail_a_stack_is_refused_before_it_is_stored() {
    let relay = Relay::new();
    relay.make_handle("201").await;
    for (body, code) in [
        (r#"{"status":"#, "signal_not_json"),
        ("{}\n{}", "signal_not_json"),
        ("[1]", "signal_not_object"),
        (r#"{"unset_hook":"pre-create"}"#, "signal_unknown_key"),
        (r#"{"status":"success"}"#, "signal_bad_status"),
        (r#"{"reason":{"a":1},"status":"FAILURE"}"#, "signal_bad_reason"),
        (r#"{"Status":"SUCCESS"}"#, "signal_missing_key"),
    ] {
        let seen = relay.send(&relay.signed("PUT", "PUT ~/S/t-h-1").await, body).await;
        assert!(seen.starts_with("400 "), "{body}: {seen}");
        assert!(seen.contains(&format!("\"code\":\"{code}\"")), "{body}: {seen}");
    }
    assert!(relay.poll().await.is_empty());
}

#[tokio::test]
async fn heat_reads_its_own_form_of_whatever_was_sent() {
    let relay = Relay::new();
    relay.make_handle("201").await;
    let cases = [
        ("", r#"{"status":"SUCCESS"}"#),
        ("{}", "{}"),
        (" { \"id\" : 7 } ", " { \"id\" : 7 } "),
        (
            r#"{"Status":"SUCCESS","Reason":"up","UniqueId":"x","Data":"d"}"#,
            r#"{"status":"SUCCESS","reason":"up","id":"x","data":"d"}"#,
        ),
        (
            r#"{"\u0053tatus":"FAILURE","Reason":"","UniqueId":"y","Data":1}"#,
            r#"{"status":"FAILURE","reason":"","id":"y","data":1}"#,
        ),
        // Each of them counts, as if it had no id.
        (r#"{"id":null,"data":null}"#, r#"{"status":"SUCCESS"}"#),
        (r#"{"id":null,"data":null}"#, r#"{"status":"SUCCESS"}"#),
        (r#"{"status":"FAILURE","id":"z","reason": null}"#, r#"{"status":"FAILURE","id":"z"}"#),
        (r#"{"id":"null","data":[null]}"#, r#"{"id":"null","data":[null]}"#),
    ];
    for (number, (sent, expect)) in (1..).zip(cases) {
        let seen = relay.send(&relay.signed("PUT", "PUT ~/S/t-h-1").await, sent).await;
        assert!(seen.starts_with("201 "), "{sent}: {seen}");
        let request = format!("GET ~/S/t-h-1/{number:08} x-auth-token=token");
        assert_eq!(relay.answer(&request, "").await.2, expect, "{sent}");
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_permit() {
    let relay = Relay::new();
    relay.make_handle("201").await;
    relay.instance("PUT", "PUT ~/S/t-h-1", SIGNAL, SIGNAL_STORED).await;
    let invalid =
        "401 content-type=text/plain; charset=utf-8 www-authenticate=Swift realm=\"unknown\"";
    let invalid_with_text = format!("{invalid} | 401 Unauthorized: Temp URL invalid\n");
    // A URL that is signed for PUT opens PUT and HEAD.
    relay.instance("PUT", "HEAD ~/S/t-h-1", "", "200").await;
    for request in ["GET ~/S/t-h-1", "DELETE ~/S/t-h-1", "GET ~/S/t-h-1/00000001"] {
        relay.instance("PUT", request, "", &invalid_with_text).await;
    }
    relay.instance("GET", "PUT ~/S/t-h-1", SIGNAL, &invalid_with_text).await;
    relay.instance("GET", "HEAD ~/S/t-h-1/00000001", "", "200 content-type=application/octet-stream etag=4b1f7ddfab3adb5630ec1a98b7fad665 last-modified=Sat, 21 Nov 2026 00:12:17 GMT").await;

    let signed = relay.signed("PUT", "PUT ~/S/t-h-1").await;
    for (what, forged) in [
        ("another object", signed.replace("t-h-1", "t-h-2")),
        ("another account", signed.replace("AUTH_p", "AUTH_q")),
        ("another time", signed.replace("2147483586", "2147483587")),
        ("no time", signed.replace("&temp_url_expires=2147483586", "")),
        ("another signature", signed.replace("temp_url_sig=", "temp_url_sig=00")),
    ] {
        assert_eq!(relay.send(&forged, SIGNAL).await, invalid_with_text, "{what}");
        // A token beside it does not help.
        let with_token = format!("{forged} x-auth-token=token");
        assert_eq!(relay.send(&with_token, SIGNAL).await, invalid_with_text, "{what}");
    }
    assert_eq!(relay.send(&signed.replacen("t-h-1", "t%2Dh%2D1", 1), SIGNAL).await, SIGNAL_STORED);

    let paths = ["~", "~/S", "~/S/t-h-1/00000001"];
    for path in paths {
        for (header, status) in [
            ("", 401),
            (" x-auth-token=", 401),
            (" x-auth-token=toke", 401),
            (" x-auth-token=other", 403),
        ] {
            let (seen, _, _) = relay.answer(&format!("GET {path}{header}"), "").await;
            assert_eq!(seen, status, "{path}{header}");
        }
    }
}

#[tokio::test]
async fn what_is_not_done_here_is_refused() {
    let relay = Relay::new();
    relay.heat("PUT ~/S", "", "201").await;
    for (request, status) in [
        ("PUT ~/S/o x-object-manifest=S/seg", 501),
        ("PUT ~/S/o x-copy-from=/S/x", 501),
        ("POST ~/S x-container-meta-colour=blue", 501),
        ("POST ~ x-account-meta-colour=blue", 501),
        ("PUT ~/S/o?multipart-manifest=put", 501),
        ("POST ~?bulk-delete", 501),
        ("PUT ~/S?extract-archive=tar", 501),
        ("PUT ~/S/o etag=00000000000000000000000000000000", 422),
        ("POST ~/S/o", 405),
        ("COPY ~/S/o", 405),
        ("PUT ~", 405),
        ("DELETE ~", 405),
        ("GET ~/S?format=xml", 406),
        ("GET ~/S?limit=10001", 412),
        ("PUT ~/none/o", 404),
        ("PUT ~/S/%ff", 400),
        ("GET /v1/AUTH_p%2FS", 404),
        ("GET /v1/p", 400),
        ("POST ~/none", 404),
        ("HEAD ~/none", 404),
    ] {
        let (seen, _, body) = relay.answer(&format!("{request} x-auth-token=token"), "").await;
        assert_eq!(seen, status, "{request}: {body}");
    }
}

#[tokio::test]
async fn listings_are_pages_of_text_or_json() {
    let relay = Relay::new();
    relay.heat("GET ~", "", "204 content-type=text/plain; charset=utf-8 x-account-container-count=0 x-account-object-count=0").await;
    relay.make_handle("201").await;
    relay.heat("GET ~/S", "", "204 content-type=text/plain; charset=utf-8 x-container-bytes-used=0 x-container-object-count=0 x-versions-location=S").await;
    relay.instance("PUT", "PUT ~/S/t-h-1", SIGNAL, SIGNAL_STORED).await;
    relay.instance("PUT", "PUT ~/S/plain", SIGNAL, SIGNAL_STORED).await;
    for (query, expect) in [
        ("", "plain\nt-h-1/00000001\n"),
        ("?prefix=t", "t-h-1/00000001\n"),
        ("?marker=plain", "t-h-1/00000001\n"),
        ("?limit=1", "plain\n"),
        ("?delimiter=/", "plain\nt-h-1/\n"),
        ("?delimiter=/&format=json&prefix=t", r#"[{"subdir":"t-h-1/"}]"#),
    ] {
        let request = format!("GET ~/S{query} x-auth-token=token");
        assert_eq!(relay.answer(&request, "").await.2, expect, "{query}");
    }
    let request = "GET ~?format=json x-auth-token=token";
    let containers =
        r#"[{"name":"S","count":2,"bytes":58,"last_modified":"2026-11-21T00:12:17.000000"}]"#;
    assert_eq!(relay.answer(request, "").await.2, containers);
}

#[tokio::test]
async fn a_failure_of_the_store_is_never_a_success() {
    let store = Arc::new(FaultyStore::scripted(Arc::new(MemoryStore::new()), []));
    let relay = Relay::over(store.clone());
    relay.make_handle("201").await;
    let url = relay.signed("PUT", "PUT ~/S/t-h-1").await;
    let detail = String::new;
    for (fault, status, retry_after) in [
        (Fault::FailBefore(CommitError::Overloaded), 503, " retry-after=1"),
        (Fault::FailBefore(CommitError::Unavailable { detail: detail() }), 503, " retry-after=1"),
        (Fault::FailBefore(CommitError::Full { detail: detail() }), 507, " retry-after=30"),
        (Fault::FailBefore(CommitError::Corrupt { detail: detail() }), 500, ""),
    ] {
        store.then(Some(fault.clone()));
        let (seen, headers, _) = relay.answer(&url, SIGNAL).await;
        assert_eq!(seen, status, "{fault:?}");
        assert!(headers.ends_with(retry_after), "{fault:?}: {headers}");
        assert!(relay.poll().await.is_empty(), "{fault:?}");
    }
    // Taken, but the answer was lost: the sender is told to come again, and then it is still one signal.
    store.then(Some(Fault::LoseReply));
    assert_eq!(relay.answer(&url, SIGNAL).await.0, 503);
    assert_eq!(relay.send(&url, SIGNAL).await, SIGNAL_STORED);
    assert_eq!(relay.poll().await, ["t-h-1/00000001"]);
}
