//! Over the store in memory.

use bytes::Bytes;
use signal_protocol::path::{AccountName, ContainerName, ObjectName};
use signal_protocol::signal::Signal;

use super::*;
use crate::clock::SystemClock;
use crate::instance::Identity;
use crate::mailbox::limits::{Limits, PLACEHOLDER};
use crate::mailbox::{ContainerUpdate, NewObject, ObjectAddress};
use crate::store::memory::MemoryStore;

const FIRST: &str = "11111111-1111-4111-8111-111111111111";
const SECOND: &str = "22222222-2222-4222-8222-222222222222";
const THIRD: &str = "33333333-3333-4333-8333-333333333333";

fn stacks() -> Stacks {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(SystemClock));
    let instances = Instances::new(store.clone(), clock.clone());
    Stacks::new(Mailboxes::new(store, clock, Limits::default()), instances)
}

fn container(name: &str) -> ContainerAddress {
    let account = AccountName::parse("AUTH_p").expect("a name");
    ContainerAddress { account, container: ContainerName::parse(name).expect("a name") }
}

impl Stacks {
    async fn expect(&self, name: &str, expected: &[&str]) {
        let expected = Some(expected.iter().map(|name| (*name).to_owned()).collect());
        let update = ContainerUpdate { expected, ..ContainerUpdate::default() };
        self.mailboxes.put_container(&container(name), &update).await.expect("a container");
    }

    async fn put(&self, body: &[u8]) {
        let object = ObjectName::parse("t-h-1").expect("a name");
        let address = ObjectAddress { container: container("S"), object };
        let new = NewObject { content_type: None, body: Bytes::copy_from_slice(body) };
        let taken = self.mailboxes.put_as_owner(&address, new).await;
        taken.expect("a signal or the placeholder");
    }

    async fn contact(&self, id: &str, project: &str) {
        let id = InstanceId::parse(id).expect("a UUID");
        let name = Some("web-2".to_owned());
        let identity = Identity { project: project.to_owned(), name, handle: None };
        self.instances.contact(id, &identity).await.expect("a store in memory");
        if project == "elsewhere" {
            let signal = Signal::parse(b"{}").expect("a signal");
            let noted = self.instances.note_signal(id, &identity, &signal).await;
            noted.expect("a store in memory");
        }
    }

    async fn reason(&self) -> String {
        self.view(&container("S")).await.expect("a stack").reason
    }
}

#[tokio::test]
async fn who_was_expected_and_has_not_signalled_is_named() {
    let stacks = stacks();
    stacks.expect("S", &[]).await;
    stacks.put(PLACEHOLDER).await;
    assert_eq!(stacks.reason().await, "the stack has not said who is expected to signal");

    stacks.expect("S-expected", &[FIRST, SECOND, THIRD, "web"]).await;
    // The beginning of a name is another name.
    stacks.expect("T-expected", &["somebody"]).await;
    stacks.put(format!(r#"{{"id":"{FIRST}/main/0123"}}"#).as_bytes()).await;
    stacks.put(br#"{"id":"web-1"}"#).await;
    stacks.contact(SECOND, "p").await;
    stacks.contact(THIRD, "another").await;
    assert_eq!(
        stacks.reason().await,
        format!(
            "1 of 4 expected have signalled; {SECOND} (web-2) has called and not signalled, \
             {THIRD} has never called, web has not signalled"
        )
    );
    stacks.put(br#"{"id":"web"}"#).await;
    for id in [SECOND, THIRD] {
        stacks.put(format!(r#"{{"id":"{id}"}}"#).as_bytes()).await;
    }
    assert_eq!(stacks.reason().await, "all 4 that are expected have signalled");
}

#[tokio::test]
async fn what_came_is_known_after_it_was_read_and_removed() {
    let stacks = stacks();
    stacks.expect("S", &["a", "b"]).await;
    stacks.put(PLACEHOLDER).await;
    let long = "c".repeat(300);
    for body in [r#"{"id":"a"}"#, r#"{"id":"a"}"#, "{}", &format!(r#"{{"id":"{long}"}}"#)] {
        stacks.put(body.as_bytes()).await;
    }
    for number in 1..=3 {
        let object = ObjectName::parse(&format!("t-h-1/{number:08}")).expect("a name");
        let address = ObjectAddress { container: container("S"), object };
        stacks.mailboxes.delete_object(&address).await.expect("it is there");
    }
    let view = stacks.view(&container("S")).await.expect("a stack");
    let [handle] = &view.handles[..] else { panic!("one handle: {view:?}") };
    assert_eq!((handle.name.as_str(), handle.n_received, handle.n_pending), ("t-h-1", 3, 0));
    let mut ids: Vec<&str> = handle.senders.iter().map(|sender| sender.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", &long[..128]]);
    assert_eq!(view.reason, "1 of 2 expected have signalled; b has not signalled");
}

#[tokio::test]
async fn a_name_writes_no_line_of_its_own_into_the_log() {
    let name = "S\n2026-11-21T00:00:00Z ERROR the store is lost\u{1b}[31m";
    let stacks = stacks();
    stacks.expect(name, &["a"]).await;
    let log = tempfile::NamedTempFile::new().expect("a file");
    let lines = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Arc::new(log.reopen().expect("the file")))
        .finish();
    let guard = tracing::subscriber::set_default(lines);
    stacks.report(&container(name)).await;
    drop(guard);
    let log = std::fs::read_to_string(log.path()).expect("a log");
    assert!(log.contains("some never came") && log.contains("the store is lost"), "{log}");
    assert_eq!(log.matches(char::is_control).collect::<Vec<_>>(), ["\n"], "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_over_when_heat_has_been_silent_for_longer_than_it_ever_is() {
    let stacks = stacks();
    stacks.asked_for(&container("S"));
    tokio::time::advance(Duration::from_secs(16)).await;
    assert!(stacks.take_silent(Instant::now()).is_empty());
    stacks.asked_for(&container("S"));
    tokio::time::advance(Duration::from_secs(16)).await;
    assert!(stacks.take_silent(Instant::now()).is_empty());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(stacks.take_silent(Instant::now()), [container("S")]);
    assert!(stacks.take_silent(Instant::now()).is_empty(), "it is told once");
}

#[tokio::test]
async fn too_many_and_too_long_names_are_refused() {
    let stacks = stacks();
    for (names, is_taken) in [
        (vec!["x".repeat(128)], true),
        (vec!["x".repeat(129)], false),
        ((0..500).map(|n| n.to_string()).collect(), true),
        ((0..501).map(|n| n.to_string()).collect(), false),
    ] {
        let update = ContainerUpdate { expected: Some(names), ..ContainerUpdate::default() };
        let put = stacks.mailboxes.put_container(&container("S"), &update).await;
        assert_eq!(put.is_ok(), is_taken, "{put:?}");
    }
}
