use std::sync::Arc;

use signal_protocol::frame::Assembly;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// What is at the metadata address, and what it does to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Relay,
    /// Nova alone: 404, and 200 for what it does not understand.
    Nova,
    /// A relay behind a proxy that loses bodies.
    LosesBodies,
    /// A relay behind a proxy that loses bodies of requests over this many bytes.
    Tears(usize),
    /// A relay whose store is down.
    Busy,
    /// A relay that refuses everything.
    Refuses,
    /// A relay behind a proxy that finds so many requests too many.
    Crowded(usize),
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<String>,
    messages: Vec<Vec<u8>>,
}

struct Place {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Place {
    async fn start(mood: Mood) -> Place {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let shared = seen.clone();
        tokio::spawn(async move {
            let mut assembly: Option<Assembly> = None;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (head, body) = read_request(&mut stream).await;
                shared.lock().unwrap().requests.push(head.clone());
                let target = head.split(' ').nth(1).unwrap().to_owned();
                let answer = answer(mood, &target, head.len(), &body, &mut assembly, &shared);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Place { address, seen }
    }

    fn messages(&self) -> Vec<Message> {
        let id = MessageId { boot: BootId::from_random(0), seq: 0 };
        let seen = self.seen.lock().unwrap();
        seen.messages.iter().map(|bytes| Message::parse(id, bytes, None).unwrap()).collect()
    }

    fn n_requests(&self) -> usize {
        self.seen.lock().unwrap().requests.len()
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let n = stream.read_buf(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.split_once("\r\n\r\n").filter(|(head, body)| {
            let length = head.split("Content-Length: ").nth(1).unwrap_or("0");
            body.len() >= length.lines().next().unwrap_or("0").trim().parse().unwrap()
        });
        if let Some((head, body)) = whole {
            return (head.to_owned(), body.as_bytes().to_vec());
        }
        assert_ne!(n, 0, "the request ended too early: {text}");
    }
}

fn answer(
    mood: Mood,
    target: &str,
    head_length: usize,
    body: &[u8],
    assembly: &mut Option<Assembly>,
    seen: &Mutex<Seen>,
) -> String {
    let page = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    if mood == Mood::Nova {
        return page("404 Not Found", "<html>not found</html>");
    }
    if matches!(mood, Mood::Crowded(limit) if seen.lock().unwrap().requests.len() <= limit) {
        return page("429 Too Many Requests", "<html>slow down</html>");
    }
    if target.ends_with("/hello") {
        return page("200 OK", "{\"ok\":true,\"code\":\"hello\"}");
    }
    if !target.starts_with("/heliograph/") {
        let text = format!("{target} {}", String::from_utf8_lossy(body));
        seen.lock().unwrap().messages.push(text.into_bytes());
        return page("200 OK", "{\"ok\":true}");
    }
    let code = match mood {
        Mood::Busy => Some("retry"),
        Mood::Refuses => Some("signal_bad_status"),
        _ => None,
    };
    if let Some(code) = code {
        return page("200 OK", &format!("{{\"ok\":false,\"code\":\"{code}\",\"after_ms\":7}}"));
    }
    let is_torn = match mood {
        Mood::LosesBodies => true,
        Mood::Tears(limit) => head_length + body.len() > limit,
        _ => false,
    };
    let arrived = if is_torn { b"" } else { body };
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let frame = match Frame::parse(path, query, arrived) {
        Ok(frame) => frame,
        Err(error) => {
            return page("200 OK", &format!("{{\"ok\":false,\"code\":\"{}\"}}", error.code()));
        }
    };
    let mut receipt = frame.receipt("stored");
    if frame.number == 1 {
        *assembly = Some(Assembly::begin(&frame));
    }
    if let Some(message) = assembly.as_mut().unwrap().add(frame).unwrap() {
        seen.lock().unwrap().messages.push(message);
        receipt.code = "complete".to_owned();
    }
    page("200 OK", &serde_json::to_string(&receipt).unwrap())
}

fn signal(length: usize) -> Signal {
    let body = format!("{{\"id\":\"a\",\"data\":\"{}\"}}", "x".repeat(length));
    Signal::parse(body.as_bytes()).unwrap()
}

/// Sends a signal of this length; the result is the error's code, and how many requests it took.
async fn check(mood: Mood, handle: &Handle, length: usize, expect: (&str, usize)) -> Place {
    let place = Place::start(mood).await;
    let gateway = Gateway::new(place.address, None);
    let sent = gateway.send(handle, &signal(length).to_json()).await;
    let code = sent.as_ref().err().map_or("ok", SendError::code);
    assert_eq!((code, place.n_requests()), expect, "{mood:?} {length} {sent:?}");
    place
}

#[tokio::test(start_paused = true)]
async fn a_signal_arrives_whole_in_as_many_requests_as_it_needs() {
    for (length, n_requests) in [(10, 2), (1_000, 2), (3_000, 3), (64 << 10, 38)] {
        let place = check(Mood::Relay, &Handle::Instance, length, ("ok", n_requests)).await;
        assert_eq!(place.messages(), [Message::Signal { signal: signal(length), to: None }]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_way_tears_goes_into_the_query_or_into_small_frames() {
    let place = check(Mood::LosesBodies, &Handle::Instance, 3_000, ("ok", 4)).await;
    assert_eq!(place.messages(), [Message::Signal { signal: signal(3_000), to: None }]);

    // A URL is a secret, and queries are logged.
    let handle = Handle::from_url("http://r.example/v1/waitcondition/a?Signature=s").unwrap();
    let place = check(Mood::Tears(1_200), &handle, 1_200, ("ok", 5)).await;
    let to = Destination {
        url: "http://r.example/v1/waitcondition/a?Signature=s".to_owned(),
        token: None,
        login: None,
    };
    assert_eq!(place.messages(), [Message::Signal { signal: signal(1_200), to: Some(to) }]);
    let place = check(Mood::LosesBodies, &handle, 10, ("signal_no_answer", 5)).await;
    let seen = place.seen.lock().unwrap();
    assert!(seen.requests.iter().all(|head| !head.contains('?')), "{:?}", seen.requests);
}

#[tokio::test(start_paused = true)]
async fn a_small_tempurl_goes_with_the_host_replaced_and_a_large_one_in_frames() {
    let url = "http://r.example/v1/AUTH_p/s/o?temp_url_sig=1&temp_url_expires=2";
    let handle = Handle::from_url(url).unwrap();
    let place = check(Mood::Relay, &handle, 10, ("ok", 2)).await;
    let first = place.seen.lock().unwrap().messages[0].clone();
    let expect =
        format!("/v1/AUTH_p/s/o?temp_url_sig=1&temp_url_expires=2 {}", signal(10).to_json());
    assert_eq!(String::from_utf8_lossy(&first), expect);

    let place = check(Mood::Relay, &handle, 2_000, ("ok", 3)).await;
    assert!(matches!(&place.messages()[..], [Message::Signal { to: Some(_), .. }]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_told_from_what_cannot_be_now() {
    let instance = Handle::Instance;
    check(Mood::Nova, &instance, 10, ("signal_no_answer", 1)).await;
    check(Mood::Busy, &instance, 10, ("signal_server_busy", 2)).await;
    check(Mood::Refuses, &instance, 10, ("signal_refused", 2)).await;
}

#[tokio::test(start_paused = true)]
async fn too_many_questions_are_no_answer_to_whether_a_relay_is_there() {
    for (mood, expect) in [
        (Mood::Relay, (true, 1)),
        (Mood::Nova, (false, 1)),
        (Mood::Crowded(3), (true, 4)),
        (Mood::Crowded(usize::MAX), (false, 15)),
    ] {
        let place = Place::start(mood).await;
        let gateway = Gateway::new(place.address, None);
        let is_known = gateway.knows_this_instance().await;
        assert_eq!((is_known, place.n_requests()), expect, "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_slot_takes_a_line_that_fits() {
    for (mood, length, expect) in [
        (Mood::Relay, 800, Ok(slot::Left::Written)),
        (Mood::Nova, 800, Err("signal_refused")),
        (Mood::Relay, 1_021, Err("signal_refused")),
        (Mood::Crowded(1), 800, Err("signal_server_busy")),
    ] {
        let place = Place::start(mood).await;
        let left = Gateway::new(place.address, None).leave(&"x".repeat(length)).await;
        assert_eq!(left.as_ref().map_err(SendError::code), expect.as_ref().map_err(|code| *code));
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_signal_has_the_number_of_the_first_and_the_next_one_another() {
    let place = Place::start(Mood::Busy).await;
    let gateway = Gateway::new(place.address, None);
    for length in [10, 10, 20] {
        let _busy = gateway.send(&Handle::Instance, &signal(length).to_json()).await;
    }
    let seen = place.seen.lock().unwrap();
    let numbers: Vec<&str> =
        seen.requests[1..].iter().map(|head| head.split('/').nth(5).unwrap()).collect();
    assert_eq!(numbers, ["1", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn with_a_key_every_message_is_signed() {
    let place = Place::start(Mood::Relay).await;
    let key = InstanceKey::from_random([3; 32]);
    let gateway = Gateway::new(place.address, Some(key.clone()));
    gateway.send(&Handle::Instance, &signal(10).to_json()).await.unwrap();
    assert_eq!(place.messages()[0], Message::Key(key.clone()));
    let seen = place.seen.lock().unwrap();
    for (index, bytes) in seen.messages.iter().enumerate() {
        let seq = u32::try_from(index).unwrap() + 1;
        let id = MessageId { boot: gateway.boot, seq };
        assert!(Message::parse(id, bytes, Some(&key)).is_ok(), "{index}");
    }
}
