//! The gateway on a socket, in front of a Nova of ours that writes down what reaches it.

use std::net::SocketAddr;
use std::sync::Mutex;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use signal_protocol::frame::{BootId, Form, MessageId, split};
use signal_protocol::handle::HandleState;
use signal_protocol::message::{Destination, InstanceKey};
use signal_protocol::signal::Status;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::app::Shutdown;
use crate::instance::InstanceId;
use crate::instance::view::InstanceState;
use crate::mailbox::limits::Limits;
use crate::mailbox::{Mailboxes, NewHandle};
use crate::store::Store;
use crate::store::faulty::{FaultRates, FaultyStore};
use crate::store::memory::MemoryStore;

const INSTANCE: &str = "7b1d3c0e-1111-4222-8333-444455556666";
const SECRET: &str = "secret";

/// What our Nova knows of the instance.
const METADATA: &str = r#"{"name":"web-1","project_id":"p","uuid":"7b1d3c0e-1111-4222-8333-444455556666","meta":{"heliograph_handle":"HANDLE"}}"#;

struct Nova {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Nova {
    async fn start(metadata: String) -> Nova {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let request = read_whole(&mut stream).await;
                let is_probe = request.starts_with("GET / HTTP/1.1\r\nHost: ")
                    || request.starts_with("GET / HTTP/1.1\r\nhost: ");
                let answer = match request.contains("meta_data.json") {
                    _ if request.contains("X-Tenant-ID: q")
                        || request.contains("x-tenant-id: q") =>
                    {
                        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                            .to_owned()
                    }
                    true => format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{metadata}",
                        metadata.len()
                    ),
                    false => "HTTP/1.1 203 Odd\r\nX-oDD: a\r\nx-odd: b\r\nContent-Length: 3\r\n\
                              Connection: close\r\n\r\n\u{0}\u{1}x"
                        .to_owned(),
                };
                if !is_probe {
                    shared.lock().expect("no panic").push(request);
                }
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
        });
        Nova { address, seen, task }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }
}

async fn read_whole(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let n = stream.read_buf(&mut bytes).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            body.len() >= length.map_or(0, |length| length.trim().parse().expect("a length"))
        });
        if is_whole || n == 0 {
            return text;
        }
    }
}

struct Scene {
    gateway: SocketAddr,
    app: AppState,
    shutdown: Shutdown,
}

impl Scene {
    async fn start(servers: &[SocketAddr]) -> Scene {
        Scene::with_app(servers, AppState::for_tests()).await
    }

    async fn with_app(servers: &[SocketAddr], app: AppState) -> Scene {
        let server =
            |address: &SocketAddr| format!("http://{address}/").parse().expect("host:port");
        let settings = GatewaySettings {
            servers: servers.iter().map(server).collect(),
            secrets: ["old", SECRET].map(|text| Secret::new(text.to_owned())).into(),
            limits: EdgeLimits { max_in_flight: 16, max_long_polls: 16 },
            nova_tls: crate::tls::client_config(None).expect("no file to read"),
            tls: None,
        };
        let public = crate::http::public_router(app.clone());
        let gateway = Gateway::new(settings, app.clone(), public);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let shutdown = Shutdown::new();
        tokio::spawn(listener::serve(
            listener,
            gateway,
            Arc::default(),
            shutdown.clone(),
            Duration::ZERO,
        ));
        Scene { gateway: address, app, shutdown }
    }

    async fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.gateway).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("written");
        read_whole(&mut stream).await
    }

    /// A request of the instance, as Neutron's agent sends it.
    async fn ask(&self, method: &str, target: &str, body: &str) -> String {
        self.ask_as(method, target, body, "p").await
    }

    async fn ask_as(&self, method: &str, target: &str, body: &str, project: &str) -> String {
        let signature = signature(SECRET);
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: g\r\nX-Instance-ID: {INSTANCE}\r\n\
             X-Tenant-ID: {project}\r\nX-Instance-ID-Signature: {signature}\r\n\
             X-Forwarded-For: 10.0.0.5\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        self.exchange(&request).await
    }

    async fn send(&self, seq: u32, message: &Message, key: Option<&InstanceKey>) -> Receipt {
        let id = MessageId { boot: BootId::from_random(1), seq };
        let frames = split(id, &message.to_bytes(id, key)).expect("not too large");
        let mut receipt = refusal("nothing");
        for frame in frames {
            let sent = frame.to_request(Form::Body);
            let answer = self.ask("PUT", &sent.target, &sent.body).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
            assert!(
                head.starts_with("HTTP/1.1 200") && head.contains("application/json"),
                "{head}"
            );
            receipt = serde_json::from_str(body).expect("a receipt");
        }
        receipt
    }

    async fn view(&self) -> crate::instance::view::InstanceView {
        let id = InstanceId::parse(INSTANCE).expect("a UUID");
        self.app.instances.view(id).await.expect("a store").expect("a record")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

fn signature(secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(INSTANCE.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn signal(status: Status, id: Option<&str>) -> Signal {
    Signal { id: id.map(str::to_owned), reason: Some("said".to_owned()), ..Signal::new(status) }
}

fn to_instance(status: Status, id: Option<&str>) -> Message {
    Message::Signal { signal: signal(status, id), to: None }
}

#[tokio::test]
async fn what_is_not_ours_passes_byte_for_byte() {
    let nova = Nova::start(METADATA.to_owned()).await;
    let scene = Scene::start(&[nova.address]).await;
    let head = "POST /latest/%7e//a/../b;c?x=%2F+&&y HTTP/1.1\r\nhOST: 169.254.169.254\r\n\
                X-Odd: one\r\nx-oDD: two\r\nContent-Length: 4\r\n";
    let answer = scene
        .exchange(&format!("{head}Connection: close, X-Hop\r\nX-Hop: h\r\n\r\n\u{1}{{}}x"))
        .await;
    let seen = nova.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].starts_with(head), "{}", seen[0]);
    assert!(seen[0].ends_with("\r\n\r\n\u{1}{}x") && !seen[0].contains("X-Hop"), "{}", seen[0]);
    assert!(answer.starts_with("HTTP/1.1 203 "), "{answer}");
    assert!(
        answer.contains("X-oDD: a\r\nx-odd: b\r\n") && answer.ends_with("\r\n\r\n\u{0}\u{1}x"),
        "{answer}"
    );
}

#[tokio::test]
async fn one_of_two_servers_is_enough_and_none_is_said() {
    let dead = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket").local_addr();
    let dead = dead.expect("an address");
    let nova = Nova::start(METADATA.to_owned()).await;
    let scene = Scene::start(&[dead, nova.address]).await;
    for _ in 0..6 {
        let answer = scene.ask("GET", "/latest/meta-data/", "").await;
        assert!(answer.starts_with("HTTP/1.1 203 "), "{answer}");
    }
    nova.task.abort();
    let scene = Scene::start(&[dead]).await;
    let answer = scene.ask("GET", "/latest/meta-data/", "").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("nova_unreachable"), "{answer}");
    // Of an instance that was never heard of, nothing is believed while Nova cannot be asked.
    let receipt = scene.send(1, &to_instance(Status::Success, None), None).await;
    assert_eq!(receipt.code, "retry");
}

#[tokio::test]
async fn who_is_nobody_is_refused_as_nova_refuses() {
    let nova = Nova::start(METADATA.to_owned()).await;
    let scene = Scene::start(&[nova.address]).await;
    let good = signature(SECRET);
    let check = async |headers: &str, expect: &str, words: &str| {
        for target in ["/heliograph/v1/hello", "/v1/AUTH_p/c/o", "/heliograph/v1/f/x"] {
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{headers}\r\n");
            let answer = scene.exchange(&request).await;
            assert!(answer.starts_with(expect) && answer.contains(words), "{headers}: {answer}");
        }
    };
    let id = format!("X-Instance-ID: {INSTANCE}\r\n");
    let tenant = "X-Tenant-ID: p\r\n";
    let signed = |signature: &str| format!("{id}{tenant}X-Instance-ID-Signature: {signature}\r\n");
    check("", "HTTP/1.1 400 ", "X-Instance-ID header is missing from request.").await;
    check(&format!("{id}{tenant}"), "HTTP/1.1 400 ", "X-Instance-ID-Signature header is missing")
        .await;
    let without_tenant = format!("{id}X-Instance-ID-Signature: {good}\r\n");
    check(&without_tenant, "HTTP/1.1 400 ", "X-Tenant-ID header is missing from request.").await;
    check(&signed("0"), "HTTP/1.1 403 ", "Invalid proxy request signature.").await;
    check(&signed(&signature("wrong")), "HTTP/1.1 403 ", "Invalid proxy").await;
    check(&format!("{id}{}", signed(&good)), "HTTP/1.1 403 ", "Invalid proxy").await;
    // Nova knows that the instance is not of this project.
    let answer = scene.ask_as("GET", "/heliograph/v1/hello", "", "q").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let answer = scene.ask("GET", "/heliograph/v1/hello", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_signal_needs_no_handle_and_finds_the_one_in_the_metadata() {
    let nova = Nova::start(METADATA.replace("HANDLE", "none")).await;
    let scene = Scene::start(&[nova.address]).await;
    let receipt = scene.send(1, &to_instance(Status::Success, None), None).await;
    assert_eq!((receipt.ok, receipt.code.as_str()), (true, "complete"));
    let view = scene.view().await;
    assert_eq!((view.state, view.name.as_deref()), (InstanceState::Complete, Some("web-1")));

    for (account, expect) in [("AUTH_p", 1), ("AUTH_operator", 1), ("AUTH_q", 0)] {
        let app = AppState::for_tests();
        let new = NewHandle {
            account: signal_protocol::path::AccountName::parse(account).expect("a name"),
            count: 1,
            timeout: Duration::from_secs(60),
            label: None,
            metadata: None,
        };
        let handle = app.mailboxes.create_handle(new).await.expect("a handle").id;
        let nova = Nova::start(METADATA.replace("HANDLE", handle.as_str())).await;
        let scene = Scene::with_app(&[nova.address], app).await;
        for _ in 0..2 {
            let receipt = scene.send(1, &to_instance(Status::Success, None), None).await;
            assert_eq!(receipt.code, "complete");
        }
        let view = scene.app.mailboxes.handle_view(&handle).await.expect("the handle");
        assert_eq!(view.signals.len(), expect, "{account}");
        assert_eq!(view.state == HandleState::Complete, expect == 1, "{account}");
        assert_eq!(scene.view().await.state, InstanceState::Complete, "in the record in any case");
    }
}

#[tokio::test]
async fn a_signal_of_many_frames_arrives_and_repeated_frames_change_nothing() {
    let nova = Nova::start(METADATA.replace("HANDLE", "none")).await;
    let scene = Scene::start(&[nova.address]).await;
    let data =
        serde_json::value::RawValue::from_string(format!("\"{}\"", "é\\u0000".repeat(4_000)));
    let long = Signal { data: Some(data.expect("JSON")), ..signal(Status::Success, Some("a")) };
    let message = Message::Signal { signal: long.clone(), to: None };
    for _ in 0..2 {
        assert_eq!(scene.send(9, &message, None).await.code, "complete");
    }
    let view = scene.view().await;
    assert_eq!(view.signals.len(), 1);
    let arrived = view.signals[0].data.as_ref().map(|data| data.get());
    assert_eq!(arrived, long.data.as_ref().map(|data| data.get()));
    assert_eq!(view.version, 1, "the second time changed nothing");
    // Another message under the same number is an error of the agent's.
    let other = to_instance(Status::Failure, Some("b"));
    assert_eq!(scene.send(9, &other, None).await.code, "frame_other_message");
}

#[tokio::test]
async fn with_a_key_nobody_else_in_the_instance_can_speak() {
    let nova = Nova::start(METADATA.replace("HANDLE", "none")).await;
    let scene = Scene::start(&[nova.address]).await;
    let (key, other) = (InstanceKey::from_random([1; 32]), InstanceKey::from_random([2; 32]));
    assert_eq!(scene.send(1, &Message::Key(key.clone()), None).await.code, "complete");
    let forged = to_instance(Status::Failure, None);
    for wrong in [None, Some(&other)] {
        assert_eq!(scene.send(2, &forged, wrong).await.code, "message_bad_mac");
        assert_eq!(
            scene.send(3, &Message::Key(other.clone()), wrong).await.code,
            "message_bad_mac"
        );
    }
    assert_eq!(scene.send(4, &Message::Key(other.clone()), Some(&key)).await.code, "key_taken");
    let true_one = to_instance(Status::Success, None);
    assert_eq!(scene.send(5, &true_one, Some(&key)).await.code, "complete");
    assert_eq!(scene.view().await.state, InstanceState::Complete);
}

#[tokio::test]
async fn a_signal_that_names_a_url_goes_there_and_nowhere_else() {
    let nova = Nova::start(METADATA.replace("HANDLE", "none")).await;
    let scene = Scene::start(&[nova.address]).await;
    let check = async |seq, url: &str, expect: &str| {
        let to = Destination { url: url.to_owned(), token: None, login: None };
        let message = Message::Signal { signal: signal(Status::Success, Some("a")), to: Some(to) };
        assert_eq!(scene.send(seq, &message, None).await.code, expect, "{url}");
    };
    check(1, "http://10.0.0.1/secret", "destination_unknown").await;
    check(2, "http://10.0.0.1/v1/p/stacks/s/1/resources/r/signal", "destination_unknown").await;
    check(3, "file:///v1/AUTH_p/c/o", "destination_unknown").await;
    check(4, "not a url", "destination_malformed").await;
    check(
        5,
        "http://r/v1/AUTH_p/c/o?temp_url_sig=1&temp_url_expires=9999999999",
        "temp_url_malformed",
    )
    .await;
    assert_eq!(nova.seen().len(), 1, "nothing was sent anywhere but the question who it is");
}

#[tokio::test]
async fn a_lost_body_is_not_a_success() {
    let nova = Nova::start(METADATA.replace("HANDLE", "none")).await;
    let scene = Scene::start(&[nova.address]).await;
    let answer = scene.ask("PUT", "/v1/AUTH_p/c/o?temp_url_sig=1&temp_url_expires=9", "").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("body_lost"), "{answer}");
    let answer = scene.ask("PUT", "/v1/AUTH_p/c/o?temp_url_sig=1&temp_url_expires=9", "{}").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "a 401 does not pass Neutron: {answer}");
}

fn app_on(rates: FaultRates) -> AppState {
    let store = FaultyStore::seeded(Arc::new(MemoryStore::new()), 7, rates);
    let store: Arc<dyn Store> = Arc::new(store);
    let app = AppState::for_tests();
    AppState {
        instances: Instances::new(store.clone(), app.clock.clone()),
        mailboxes: Mailboxes::new(store, app.clock.clone(), Limits::default()),
        ..app
    }
}

const NO_FAULTS: FaultRates =
    FaultRates { fail_before: 0, delay: 0, max_delay: Duration::ZERO, lose_reply: 0 };

#[tokio::test]
async fn with_a_dead_store_novas_metadata_goes_on_and_no_signal_is_acknowledged() {
    let nova = Nova::start(METADATA.replace("HANDLE", "none")).await;
    let app = app_on(FaultRates { fail_before: 1_000, ..NO_FAULTS });
    let scene = Scene::with_app(&[nova.address], app).await;
    assert_eq!(scene.send(1, &to_instance(Status::Success, None), None).await, retry());
    let answer = scene.ask("GET", "/heliograph/v1/hello", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"retry\""), "{answer}");
    let answer = scene.ask("GET", "/latest/user-data", "").await;
    assert!(answer.starts_with("HTTP/1.1 203 "), "{answer}");
}

#[tokio::test]
async fn a_store_that_loses_replies_makes_no_signal_two() {
    let nova = Nova::start(METADATA.replace("HANDLE", "none")).await;
    let app = app_on(FaultRates { fail_before: 300, lose_reply: 300, ..NO_FAULTS });
    let scene = Scene::with_app(&[nova.address], app).await;
    for seq in 1..=40 {
        let message = to_instance(Status::Success, None);
        while scene.send(seq, &message, None).await.code != "complete" {}
    }
    let view = scene.view().await;
    assert_eq!((view.signals.len(), view.version), (40, 40));
}
