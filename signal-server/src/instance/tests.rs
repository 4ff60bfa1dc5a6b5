use signal_protocol::frame::BootId;
use signal_protocol::signal::Status;

use serde_json::value::RawValue;

use super::*;
use crate::clock::ManualClock;
use crate::instance::view::InstanceState;
use crate::store::memory::MemoryStore;

const ID: InstanceId = InstanceId([7; 16]);
const DAY: Duration = Duration::from_secs(86_400);

struct Scene {
    instances: Instances,
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
}

fn scene() -> Scene {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let store = Arc::new(MemoryStore::new());
    Scene { instances: Instances::new(store.clone(), clock.clone()), clock, store }
}

fn identity() -> Identity {
    Identity { project: "p".to_owned(), name: Some("web-1".to_owned()), handle: None }
}

fn message(boot: u64, seq: u32) -> MessageId {
    MessageId { boot: BootId::from_random(boot), seq }
}

fn signal(status: Status, id: &str, reason: &str) -> News {
    let signal =
        Signal { reason: Some(reason.to_owned()), id: Some(id.to_owned()), ..Signal::new(status) };
    News::Signal(signal)
}

fn progress(phase: &str) -> News {
    News::Progress { phase: phase.to_owned(), text: String::new() }
}

impl Scene {
    async fn receive(&self, message: MessageId, news: &News) -> Result<(), InstanceError> {
        self.instances.receive(ID, &identity(), message, [1; 32], news).await
    }

    async fn view(&self) -> InstanceView {
        self.instances.view(ID).await.expect("a store in memory").expect("a record")
    }
}

#[test]
fn an_id_is_a_uuid() {
    let text = "7b1d3c0e-1111-4222-8333-444455556605";
    assert_eq!(InstanceId::parse(text).map(|id| id.to_string()), Some(text.to_owned()));
    let upper = text.to_uppercase();
    assert_eq!(InstanceId::parse(&upper), InstanceId::parse(text));
    for wrong in [
        "",
        "7b1d3c0e",
        "7b1d3c0e11114222833344445555660500000",
        &text.replace('-', "0"),
        "é-1111-4222-8333-444455556605-0000000",
    ] {
        assert_eq!(InstanceId::parse(wrong), None, "{wrong}");
    }
}

#[tokio::test]
async fn an_instance_goes_from_silence_to_a_result() {
    let scene = scene();
    assert!(scene.instances.view(ID).await.expect("a store").is_none());
    scene.receive(message(1, 1), &progress("pull")).await.expect("taken");
    let view = scene.view().await;
    assert_eq!(view.state, InstanceState::Contacted);
    assert_eq!(
        view.reason,
        "the instance has contacted the relay and not signalled yet; last heard of at \
         1970-01-01T00:00:00Z, phase pull"
    );
    scene.receive(message(1, 2), &signal(Status::Success, "a", "running")).await.expect("taken");
    assert_eq!(scene.view().await.state, InstanceState::Complete);
    scene.receive(message(1, 3), &signal(Status::Failure, "b", "exit 3")).await.expect("taken");
    let view = scene.view().await;
    assert_eq!((view.state, view.reason.as_str()), (InstanceState::Failed, "exit 3"));
    assert_eq!((view.n_boots, view.version), (1, 3));
}

#[tokio::test]
async fn a_repeated_message_changes_nothing() {
    let scene = scene();
    for _ in 0..3 {
        scene.receive(message(1, 1), &progress("pull")).await.expect("taken");
    }
    let view = scene.view().await;
    assert_eq!((view.phases.len(), view.version), (2, 1), "one contact, one pull");
    let standing = scene.instances.standing(ID, message(1, 1)).await.expect("a store");
    assert_eq!(standing.taken, Some([1; 32]));
    let standing = scene.instances.standing(ID, message(2, 1)).await.expect("a store");
    assert_eq!(standing.taken, None);
}

#[tokio::test]
async fn the_first_key_is_kept() {
    let scene = scene();
    let key = |byte| News::Key(InstanceKey::from_random([byte; 32]));
    scene.receive(message(1, 1), &key(1)).await.expect("taken");
    scene.receive(message(2, 1), &key(1)).await.expect("the same key again");
    assert_eq!(scene.receive(message(2, 2), &key(2)).await, Err(InstanceError::KeyTaken));
    let standing = scene.instances.standing(ID, message(2, 2)).await.expect("a store");
    assert_eq!(standing.key, Some(InstanceKey::from_random([1; 32])));
    assert_eq!(standing.taken, None, "what was refused is not marked as taken");
}

#[tokio::test]
async fn what_an_instance_says_is_bounded_and_harmless() {
    let scene = scene();
    let text = "\u{1b}[2Jred\u{7}\nline\n".to_owned();
    scene.receive(message(1, 1), &News::Log { text }).await.expect("taken");
    let data = RawValue::from_string(format!("\"{}\"", "x".repeat(200 << 10))).expect("JSON");
    for n in 0..100 {
        let one = Signal {
            id: Some(n.to_string()),
            data: Some(data.clone()),
            ..Signal::new(Status::Success)
        };
        scene.receive(message(1, 2 + n), &News::Signal(one)).await.expect("taken");
        scene.receive(message(1, 1000 + n), &progress("pull")).await.expect("taken");
    }
    let view = scene.view().await;
    assert_eq!(view.log.as_deref(), Some("[2Jred\nline\n"));
    assert_eq!((view.signals.len(), view.phases.len()), (64, 64));
    let kept = view.signals.iter().filter(|signal| signal.data.is_some()).count();
    assert_eq!(kept, 2, "512 KiB hold two of 200 KiB");
}

#[tokio::test]
async fn whoever_waits_is_told() {
    let scene = scene();
    let waiting = tokio::spawn({
        let instances = scene.instances.clone();
        async move { instances.changed(ID, 0, DAY).await }
    });
    tokio::task::yield_now().await;
    scene.receive(message(1, 1), &progress("pull")).await.expect("taken");
    waiting.await.expect("no panic").expect("a store");
    // What has changed already is not waited for.
    scene.instances.changed(ID, 0, DAY).await.expect("a store");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_does_not_hold_up_the_sweep() {
    let scene = scene();
    scene.receive(message(1, 1), &progress("pull")).await.expect("taken");
    let mut batch = Batch::new();
    batch.put(Key::new(KeyKind::Instance, &[&[0; 16]]), "damaged".into());
    scene.store.commit(batch).await.expect("a store");
    scene.clock.advance(DAY * 3);
    assert_eq!(scene.instances.sweep(DAY).await, Err(InstanceError::BadRecord));
    assert_eq!(scene.instances.sweep(DAY).await, Ok((1, true)));
    assert_eq!(scene.instances.sweep(DAY).await, Err(InstanceError::BadRecord), "a new round");
}

#[tokio::test]
async fn a_record_outlives_the_instance_until_the_retention_is_over() {
    let scene = scene();
    for seq in 0..250 {
        scene.receive(message(1, seq), &progress("pull")).await.expect("taken");
    }
    scene.clock.advance(DAY * 3);
    assert_eq!(scene.instances.sweep(DAY * 4).await, Ok((0, true)));
    assert_eq!(scene.instances.sweep(DAY).await, Ok((1, true)));
    assert!(scene.instances.view(ID).await.expect("a store").is_none());
    for kind in [KeyKind::Instance, KeyKind::InstanceMessage] {
        let left = scene.store.scan(&Key::new(kind, &[]), None, 10).await.expect("a store");
        assert!(left.is_empty(), "{kind}");
    }
}
