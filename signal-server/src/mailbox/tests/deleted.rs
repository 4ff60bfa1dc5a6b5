//! Containers that were deleted while somebody may wait for another handle in them.

use super::*;
use crate::mailbox::deleted::LONGEST_WAIT;

const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    /// What an update of a stack does to its container: the old handle goes, as Heat sees it, and the new one
    /// waits. Returns the new one.
    async fn update_of_a_stack(&self) -> ObjectAddress {
        let old = self.handle().await;
        self.signal(&old, r#"{"id":"old"}"#).await.expect("room");
        self.mailboxes.delete_object(&old).await.expect("it was read");
        let new_handle = object("c/new");
        self.mailboxes.put_as_owner(&new_handle, new(b"in progress")).await.expect("a handle");
        self.delete().await;
        new_handle
    }

    async fn delete(&self) {
        let container = object("c/x").container;
        let shown = self.mailboxes.container(&container).await.expect("it is there");
        assert_eq!(shown.n_objects, 0, "then Heat deletes it");
        self.mailboxes.delete_container(&container).await.expect("nothing is pending");
    }

    async fn n_containers(&self) -> u64 {
        let account = account("AUTH_p");
        let shown = self.mailboxes.existing_account(&account).await.expect("a look");
        let query = ListingQuery::default();
        let listed = self.mailboxes.list_containers(&account, &query).await.expect("a listing");
        let n_containers = shown.map_or(0, |account| account.n_containers);
        assert_eq!(listed.len() as u64, n_containers);
        n_containers
    }
}

#[tokio::test]
async fn a_signal_for_the_handle_that_stays_is_read() {
    let bench = Bench::new();
    let handle = bench.update_of_a_stack().await;
    let keys = bench.mailboxes.signing_keys(&handle.container).await.expect("keys");
    assert_eq!(keys.len(), 1, "its URL is still good");
    // To its owner the container is gone.
    let container = &handle.container;
    assert_eq!(code(bench.mailboxes.container(container).await), "container_not_found");
    assert_eq!(code(bench.mailboxes.delete_container(container).await), "container_not_found");
    assert_eq!(bench.listing().await, "container_not_found");
    assert_eq!(bench.n_containers().await, 0);

    for receipt in [Receipt::Stored, Receipt::Repeated] {
        assert_eq!(bench.signal(&handle, r#"{"id":"a"}"#).await.expect("it is kept"), receipt);
    }
    assert_eq!(bench.n_containers().await, 1);
    assert_eq!(code(bench.mailboxes.delete_container(container).await), "container_not_empty");
    assert_eq!(bench.listing().await, "new/00000001");
    let read = object("c/new/00000001");
    bench.mailboxes.object(&read).await.expect("it is there");
    for _ in 0..2 {
        // The second time because the answer to the first was lost.
        bench.mailboxes.delete_object(&read).await.expect("it was there");
    }
    assert_eq!(bench.listing().await, "container_not_found");
    assert_eq!(bench.n_containers().await, 0);
}

#[tokio::test]
async fn a_handle_is_kept_for_the_longest_wait() {
    let bench = Bench::new();
    let new = bench.update_of_a_stack().await;
    // One that waits for more: it was signalled before, and so read.
    let old = object("c/h");
    bench.clock.advance(LONGEST_WAIT - SECOND);
    bench.sweep().await;
    bench.signal(&new, r#"{"id":"a"}"#).await.expect("it is kept");
    bench.signal(&old, r#"{"id":"two of two"}"#).await.expect("it is kept");
    // And what is pending, for as long as anything that is pending.
    bench.clock.advance(DAY);
    bench.sweep().await;
    assert_eq!(bench.listing().await, "h/00000002 new/00000001");

    let bench = Bench::new();
    let handle = bench.update_of_a_stack().await;
    bench.nobody_waits_any_more().await;
    assert_eq!(code(bench.signal(&handle, "{}").await), "container_not_found");
    assert_eq!(bench.kinds().await, []);
}

#[tokio::test]
async fn a_container_that_is_made_again_has_its_handles() {
    let bench = Bench::new();
    let handle = bench.update_of_a_stack().await;
    let update = ContainerUpdate::default();
    let put = async || bench.mailboxes.put_container(&handle.container, &update).await;
    for creation in [Creation::Created, Creation::Existed] {
        assert_eq!(put().await.expect("made"), creation);
    }
    assert_eq!(bench.n_containers().await, 1);
    assert_eq!(bench.listing().await, "");
    bench.signal(&handle, "{}").await.expect("it was kept");
    assert_eq!(bench.listing().await, "new/00000001");
    bench.mailboxes.delete_object(&handle).await.expect("it was read");
    // It is like any other now.
    bench.clock.advance(LONGEST_WAIT + SECOND);
    bench.sweep().await;
    assert_eq!(bench.n_containers().await, 1);
}

#[tokio::test]
async fn a_handle_that_is_put_into_a_deleted_container_shows_it() {
    let bench = Bench::new();
    bench.update_of_a_stack().await;
    for name in ["c/third", "c/new"] {
        // Heat has made sure of the container before the deletion.
        bench.mailboxes.put_as_owner(&object(name), new(b"in progress")).await.expect("a handle");
        assert_eq!(bench.n_containers().await, 1);
        bench.delete().await;
    }
    // A plain object is not put into what is gone.
    for body in [b"".as_slice(), b"plain"] {
        let put = bench.mailboxes.put_as_owner(&object("c/plain"), new(body)).await;
        assert_eq!(code(put), "container_not_found");
        let put = bench.mailboxes.put_as_bearer(&object("c/plain"), new(body)).await;
        assert_eq!(code(put), "container_not_found");
    }
}

#[tokio::test]
async fn a_container_without_handles_is_removed_at_once() {
    let bench = Bench::new();
    let container = object("c/x").container;
    bench.mailboxes.put_container(&container, &ContainerUpdate::default()).await.expect("made");
    bench.delete().await;
    bench.sweep().await;
    assert_eq!(bench.kinds().await, []);
}
