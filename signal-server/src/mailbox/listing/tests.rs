use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What is on a page of `max_entries` onto which these ranges were offered.
fn page(query: &ListingQuery, max_entries: usize, share: u64, ranges: &[Vec<String>]) -> String {
    let mut page = Page { share, ..Page::new(query, max_entries) };
    for range in ranges {
        page.begin_range();
        for name in range {
            let info = ObjectInfo {
                etag: String::new(),
                n_bytes: 0,
                content_type: String::new(),
                modified_at: jiff::Timestamp::UNIX_EPOCH,
            };
            if page.offer(name.clone(), info) == Offer::NoneLater {
                break;
            }
        }
    }
    let names = page.into_entries().into_iter().map(|entry| match entry {
        ListingEntry::Object { name, .. } => name,
        ListingEntry::Prefix { name } => format!("[{name}]"),
    });
    names.collect::<Vec<_>>().join(" ")
}

/// Each range is one text of words.
fn check(query: &ListingQuery, max_entries: usize, ranges: &[&str], expect: &str) {
    let split = |range: &&str| range.split_whitespace().map(str::to_owned).collect();
    let ranges: Vec<Vec<String>> = ranges.iter().map(split).collect();
    let share = match *query == ListingQuery::default() {
        true => share(lengths(&ranges), max_entries),
        false => u64::MAX,
    };
    assert_eq!(page(query, max_entries, share, &ranges), expect, "{query:?} {max_entries}");
}

fn lengths(ranges: &[Vec<String>]) -> Vec<u64> {
    ranges.iter().map(|range| range.len() as u64).collect()
}

const MAX: usize = MAX_LISTING_ENTRIES;

#[test]
fn a_page_holds_the_first_names_of_all_ranges() {
    let ranges = &["a-b/1 m z", "a/1 a/2 a/3", "b/1"];
    let query = ListingQuery::default();
    check(&query, MAX, ranges, "a-b/1 a/1 a/2 a/3 b/1 m z");
    let limited = |limit| ListingQuery { limit: Some(limit), ..ListingQuery::default() };
    check(&limited(0), MAX, ranges, "");
    check(&limited(3), MAX, ranges, "a-b/1 a/1 a/2");
    check(&limited(100_000), MAX, ranges, "a-b/1 a/1 a/2 a/3 b/1 m z");
    check(&limited(100_000), 3, ranges, "a-b/1 a/1 a/2");
    let marked = ListingQuery {
        marker: "a/2".to_owned(),
        end_marker: "m".to_owned(),
        ..ListingQuery::default()
    };
    check(&marked, MAX, ranges, "a/3 b/1");
    let prefixed = ListingQuery { prefix: "a/".to_owned(), ..ListingQuery::default() };
    check(&prefixed, MAX, ranges, "a/1 a/2 a/3");
    let folded = ListingQuery { delimiter: Some("/".to_owned()), ..ListingQuery::default() };
    check(&folded, MAX, ranges, "[a-b/] [a/] [b/] m z");
    let next_page = ListingQuery { marker: "a/".to_owned(), limit: Some(2), ..folded.clone() };
    check(&next_page, MAX, ranges, "[b/] m");
    // A name in what is folded is no entry of its own: what comes after it is still to be told of.
    let inside = ListingQuery { marker: "a/2".to_owned(), ..folded };
    check(&inside, MAX, ranges, "[a/] [b/] m z");
}

#[test]
fn a_page_that_names_no_part_is_shared_by_all_ranges() {
    let query = ListingQuery::default();
    let ranges = &["m", "a/1 a/2 a/3 a/4 a/5", "b/1 b/2", "c/1 c/2 c/3 c/4"];
    // All that fits is in order.
    check(&query, 12, ranges, "a/1 a/2 a/3 a/4 a/5 b/1 b/2 c/1 c/2 c/3 c/4 m");
    // a/4 is the first that is left out; from the name before it one may ask on.
    check(&query, 10, ranges, "b/1 b/2 c/1 c/2 c/3 m a/1 a/2 a/3");
    check(&query, 5, ranges, "b/1 c/1 m a/1");
    // More ranges than room: the first names.
    check(&query, 2, ranges, "b/1 a/1");
    check(&query, 3, &["", "a/1", "b/1 b/2 b/3 b/4"], "a/1 b/1 b/2");
    // Only one that is full: nothing after it is hidden, and it has all the rest.
    check(&query, 4, &["", "a/1 a/2 a/3 a/4 a/5", "b/1"], "b/1 a/1 a/2 a/3");
}

#[test]
fn a_share_is_what_lets_all_fit() {
    for (lengths, room, expect) in [
        (&[][..], 10, u64::MAX),
        (&[10], 10, u64::MAX),
        (&[11], 10, 10),
        (&[0, 0, 10_000, 1], 10_000, 9_999),
        (&[3, 3, 3], 8, 2),
        (&[1, 1, 9, 9], 10, 4),
        (&[5, 5], 1, 1),
        (&[u64::MAX, u64::MAX], 10, 5),
    ] {
        assert_eq!(share(lengths.to_vec(), room), expect, "{lengths:?} {room}");
    }
}

/// Swift's listing, by its own description: of the names that are wanted, in order, each that goes on
/// after the delimiter is told of by what it begins with, once.
fn model(query: &ListingQuery, max_entries: usize, names: &BTreeSet<String>) -> String {
    let wanted = names.iter().filter(|name| {
        name.starts_with(&query.prefix)
            && **name > query.marker
            && (query.end_marker.is_empty() || **name < query.end_marker)
    });
    let mut entries: Vec<String> = Vec::new();
    for name in wanted {
        let delimiter = query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let end = delimiter.and_then(|delimiter| {
            let start = name[query.prefix.len()..].find(delimiter)?;
            Some(query.prefix.len() + start + delimiter.len())
        });
        let entry = match end {
            Some(end) if name[..end] == query.marker => continue,
            Some(end) => format!("[{}]", &name[..end]),
            None => name.clone(),
        };
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    entries.truncate(query.limit.unwrap_or(max_entries).min(max_entries));
    entries.join(" ")
}

/// Ranges as a container has them: plain objects, and mailboxes with names that may lie within one another's.
fn ranges() -> impl Strategy<Value = Vec<Vec<String>>> {
    let plain = proptest::collection::btree_set("[ab/]{1,3}", 0..5);
    let mailbox = ("[ab/-]{1,3}", proptest::collection::btree_set(1_u8..10, 0..8));
    let mailboxes = proptest::collection::btree_map(mailbox.0, mailbox.1, 0..5);
    (plain, mailboxes).prop_map(|(plain, mailboxes)| {
        let signals = mailboxes.into_iter().map(|(handle, numbers)| {
            numbers.into_iter().map(|number| format!("{handle}/{number}")).collect()
        });
        std::iter::once(plain.into_iter().collect()).chain(signals).collect()
    })
}

fn queries() -> impl Strategy<Value = ListingQuery> {
    let name = || prop_oneof![Just(String::new()), "[ab/-]{0,3}(/[1-9])?"];
    let delimiter = prop_oneof![Just(None), Just(Some("/")), Just(Some("")), Just(Some("/a"))];
    let limit = prop_oneof![Just(None), (0_usize..12).prop_map(Some)];
    (name(), name(), name(), delimiter, limit).prop_map(
        |(prefix, marker, end_marker, delimiter, limit)| ListingQuery {
            prefix,
            marker,
            end_marker,
            delimiter: delimiter.map(str::to_owned),
            limit,
        },
    )
}

proptest! {
    #[test]
    fn every_part_is_what_swift_lists(ranges in ranges(), query in queries(), max in 1_usize..30) {
        let names = ranges.iter().flatten().cloned().collect();
        prop_assert_eq!(page(&query, max, u64::MAX, &ranges), model(&query, max, &names));
    }

    #[test]
    fn who_asks_on_after_a_shared_page_misses_nothing(ranges in ranges(), max in 1_usize..12) {
        let names: BTreeSet<String> = ranges.iter().flatten().cloned().collect();
        let share = share(lengths(&ranges), max);
        let first = page(&ListingQuery::default(), max, share, &ranges);
        let first: Vec<&str> = first.split_whitespace().collect();
        prop_assert!(first.len() <= max);
        let mut seen: BTreeSet<String> = first.iter().map(|name| (*name).to_owned()).collect();
        // Each range that fits with one name has its first ones there, in their order.
        if ranges.len() <= max {
            for range in &ranges {
                let on_page = first.iter().filter(|name| range.iter().any(|own| own == *name));
                let n_shown = range.len().min(usize::try_from(share).unwrap_or(usize::MAX));
                let mut on_page: Vec<&str> = on_page.copied().collect();
                prop_assert!(on_page.len() >= n_shown);
                on_page.sort_unstable();
                prop_assert!(on_page.iter().take(n_shown).eq(range.iter().take(n_shown)));
            }
        }
        let mut marker = first.last().copied().unwrap_or_default().to_owned();
        while !marker.is_empty() {
            let query = ListingQuery { marker, ..ListingQuery::default() };
            let next = page(&query, max, u64::MAX, &ranges);
            seen.extend(next.split_whitespace().map(str::to_owned));
            marker = next.split_whitespace().last().unwrap_or_default().to_owned();
        }
        prop_assert_eq!(seen, names);
    }
}
