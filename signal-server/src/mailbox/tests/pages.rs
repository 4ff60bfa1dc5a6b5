//! Containers that hold more than one page of a listing.

use std::collections::BTreeSet;

use super::*;
use crate::mailbox::limits::MAX_LISTING_ENTRIES;

impl Bench {
    async fn more_handles(&self, names: &[&str]) {
        self.handle().await;
        for name in names {
            let handle = object(&format!("c/{name}"));
            self.mailboxes.put_as_owner(&handle, new(b"in progress")).await.expect("a handle");
        }
    }

    /// So many signals, each with an id of its own, as a sender makes them that never stops.
    async fn flood(&self, handle: &str, n_signals: usize) {
        let handle = object(&format!("c/{handle}"));
        let ids: Vec<usize> = (0..n_signals).collect();
        // As many as may wait for one mailbox.
        for ids in ids.chunks(1_000) {
            let bodies = ids.iter().map(|id| format!(r#"{{"id":{id}}}"#));
            let signals = bodies.map(|body| {
                let handle = &handle;
                async move { self.signal(handle, &body).await }
            });
            for receipt in futures_util::future::join_all(signals).await {
                assert_eq!(receipt.expect("a signal"), Receipt::Stored);
            }
        }
    }

    async fn page(&self, query: &ListingQuery) -> Vec<String> {
        let address = object("c/x").container;
        let entries = self.mailboxes.list_objects(&address, query).await.expect("a listing");
        entries.iter().map(|entry| name(entry).to_owned()).collect()
    }

    /// All pages as a client of Swift's asks for them, one after the other.
    async fn all_pages(&self, limit: Option<usize>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let marker = names.last().cloned().unwrap_or_default();
            let page = self.page(&ListingQuery { marker, limit, ..ListingQuery::default() }).await;
            if page.is_empty() {
                return names;
            }
            names.extend(page);
        }
    }
}

/// What Heat takes from a page for one handle.
fn of_handle<'a>(page: &'a [String], handle: &str) -> Vec<&'a str> {
    page.iter().map(String::as_str).filter(|name| name.contains(handle)).collect()
}

#[tokio::test]
async fn a_flooded_handle_hides_no_other_ones_signals() {
    let bench = Bench::new();
    bench.more_handles(&["s-a", "s-b", "s-c"]).await;
    bench.flood("s-a", MAX_LISTING_ENTRIES).await;
    bench.flood("s-b", 2).await;
    let page = bench.page(&ListingQuery::default()).await;
    assert_eq!(page.len(), MAX_LISTING_ENTRIES);
    assert_eq!(of_handle(&page, "s-b"), ["s-b/00000001", "s-b/00000002"]);
    let flooded = of_handle(&page, "s-a");
    assert_eq!((flooded.len(), flooded[0]), (MAX_LISTING_ENTRIES - 2, "s-a/00000001"));

    // A second flood takes a share, and no more.
    bench.flood("s-c", MAX_LISTING_ENTRIES).await;
    let page = bench.page(&ListingQuery::default()).await;
    assert_eq!(page.len(), MAX_LISTING_ENTRIES);
    for (handle, n_signals) in [("s-a", 4_999), ("s-b", 2), ("s-c", 4_999)] {
        let listed = of_handle(&page, handle);
        assert_eq!(listed.len(), n_signals, "{handle}");
        assert!(listed.is_sorted(), "{handle}");
    }
    // Heat has read some and removes them: the next ones come up.
    for number in 1..=3 {
        let signal = object(&format!("c/s-a/{number:08}"));
        bench.mailboxes.delete_object(&signal).await.expect("a removal");
    }
    let page = bench.page(&ListingQuery::default()).await;
    let listed = of_handle(&page, "s-a");
    assert_eq!((listed[0], listed.last()), ("s-a/00000004", Some(&"s-a/00005002")));

    // Who asks on sees all there is, and who names a limit sees it once and in order.
    let all = bench.all_pages(Some(7_000)).await;
    assert_eq!(all.len(), 2 * MAX_LISTING_ENTRIES + 2 - 3);
    assert!(all.is_sorted());
    let asked_on: BTreeSet<String> = bench.all_pages(None).await.into_iter().collect();
    assert!(asked_on.iter().eq(&all));
}
