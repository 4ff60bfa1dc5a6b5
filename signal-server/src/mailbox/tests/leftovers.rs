//! What is left when everything was deleted: nothing.

use super::*;
use crate::mailbox::deleted::LONGEST_WAIT;
use crate::store::{Key, KeyKind};

impl Bench {
    /// The kinds of which the store has records.
    pub(super) async fn kinds(&self) -> Vec<KeyKind> {
        let mut kinds = Vec::new();
        for kind in KeyKind::ALL {
            let found = self.store.scan(&Key::new(*kind, &[]), None, 1).await.expect("a scan");
            kinds.extend((!found.is_empty()).then_some(*kind));
        }
        kinds
    }

    /// A container was deleted, and everybody who can have waited for a handle in it has given up.
    pub(super) async fn nobody_waits_any_more(&self) {
        self.clock.advance(LONGEST_WAIT + Duration::from_secs(1));
        // The container, then its mailboxes, then what lies in those.
        for _ in 0..3 {
            self.sweep().await;
        }
    }

    /// What Heat does for a stack with a wait condition and a deployment, from its create to its delete.
    async fn stack_comes_and_goes(&self) {
        let handle = self.handle().await;
        let account = &handle.container.account;
        self.mailboxes.account(account).await.expect("the key");
        let large = format!(r#"{{"id":"large","data":"{}"}}"#, "x".repeat(10_000));
        for body in [r#"{"id":"a"}"#, r#"{"id":"a"}"#, "{}", &large] {
            self.signal(&handle, body).await.expect("room");
        }
        let read = object("c/h/00000001");
        self.mailboxes.delete_object(&read).await.expect("it was read");
        let deployment = object("c/deployment");
        self.mailboxes.put_as_owner(&deployment, new(b"")).await.expect("room");
        self.mailboxes.put_as_bearer(&deployment, new(large.as_bytes())).await.expect("room");

        for object in [&handle, &handle, &deployment] {
            self.mailboxes.delete_object(object).await.expect("it is there");
        }
        self.mailboxes.delete_container(&handle.container).await.expect("it is empty");
        self.nobody_waits_any_more().await;
    }
}

#[tokio::test]
async fn a_stack_that_is_deleted_leaves_no_record() {
    let bench = Bench::new();
    bench.stack_comes_and_goes().await;
    assert_eq!(bench.kinds().await, []);
    // A look makes nothing, and the next stack finds a key.
    let account = account("AUTH_p");
    assert_eq!(bench.mailboxes.existing_account(&account).await.expect("a look"), None);
    assert_eq!(bench.kinds().await, []);
    bench.stack_comes_and_goes().await;
    assert_eq!(bench.kinds().await, []);
}

#[tokio::test]
async fn a_stack_of_the_same_project_keeps_its_key() {
    let bench = Bench::new();
    let other = object("other/h");
    let update = ContainerUpdate::default();
    bench.mailboxes.put_container(&other.container, &update).await.expect("a container");
    let keys = bench.mailboxes.signing_keys(&other.container).await.expect("keys");
    assert_eq!(keys.len(), 1);
    bench.stack_comes_and_goes().await;
    assert_eq!(bench.mailboxes.signing_keys(&other.container).await.expect("keys"), keys);
}

#[tokio::test]
async fn a_key_that_a_client_has_set_stays() {
    let bench = Bench::new();
    let set = |text: &str| KeyUpdate {
        primary: Some(KeyChange::Set(SigningKey::parse(text).expect("a key"))),
        secondary: None,
    };
    bench.mailboxes.set_account_keys(&account("AUTH_p"), &set("own")).await.expect("set");
    bench.stack_comes_and_goes().await;
    assert_eq!(bench.kinds().await, [KeyKind::Account]);
    let keys = bench.mailboxes.signing_keys(&object("c/h").container).await.expect("keys");
    assert_eq!(keys[0].reveal(), "own");
}

#[tokio::test]
async fn a_native_handle_leaves_no_record() {
    let bench = Bench::new();
    let new = NewHandle {
        account: account("AUTH_p"),
        count: 1,
        timeout: Duration::from_secs(60),
        label: None,
        metadata: None,
    };
    let handle = bench.mailboxes.create_handle(new).await.expect("a handle");
    let signal = Signal::parse(br#"{"id":"a"}"#).expect("a signal");
    bench.mailboxes.signal_handle(&handle.id, &signal).await.expect("room");
    bench.mailboxes.delete_handle(&handle.id).await.expect("it is there");
    bench.sweep().await;
    assert_eq!(bench.kinds().await, []);
}
