//! The listing of a container: the pending signals of every mailbox and the plain objects, as one list
//! in the order of their names.
//!
//! The names come from several ranges of the store, each in order by itself: one of plain objects, one
//! for each mailbox. The page that is asked for is collected in a sorted map that never holds more than
//! the page.

use std::collections::BTreeMap;

use crate::mailbox::container::PAGE;
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::MAX_LISTING_ENTRIES;
use crate::mailbox::object::signal_name;
use crate::mailbox::record::{HeadRecord, Number, decode, decode_object};
use crate::mailbox::{ContainerAddress, ListingEntry, ListingQuery, ObjectInfo, Shared, key};
use crate::store::{Key, KeyKind};

impl Shared {
    pub(crate) async fn list_objects(
        &self,
        address: &ContainerAddress,
        query: &ListingQuery,
    ) -> Result<Vec<ListingEntry>, MailboxError> {
        let container = self.asked_container(address).await?;
        let mut page = Page::new(query);
        self.collect_plain(container.number, &mut page).await?;
        self.collect_mailboxes(container.number, &mut page).await?;
        Ok(page.into_entries())
    }

    async fn collect_plain(
        &self,
        container: Number,
        page: &mut Page<'_>,
    ) -> Result<(), MailboxError> {
        let prefix = key::under(KeyKind::Object, container);
        let mut after = None;
        loop {
            let records = self.scan(&prefix, after.as_ref(), PAGE).await?;
            for (key, bytes) in &records {
                let (record, _) = decode_object(KeyKind::Object, bytes)?;
                let name = name_after(key, &prefix)?;
                if page.offer(name.to_owned(), record.info) == Offer::NoneLater {
                    return Ok(());
                }
            }
            match records.last() {
                Some((last, _)) if records.len() == PAGE => after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn collect_mailboxes(
        &self,
        container: Number,
        page: &mut Page<'_>,
    ) -> Result<(), MailboxError> {
        let prefix = key::under(KeyKind::Mailbox, container);
        let mut after = None;
        loop {
            let heads = self.scan(&prefix, after.as_ref(), PAGE).await?;
            for (key, bytes) in &heads {
                let head: HeadRecord = decode(KeyKind::Mailbox, bytes)?;
                if head.n_pending > 0 {
                    let handle = name_after(key, &prefix)?;
                    self.collect_signals(handle, &head, page).await?;
                }
            }
            match heads.last() {
                Some((last, _)) if heads.len() == PAGE => after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn collect_signals(
        &self,
        handle: &str,
        head: &HeadRecord,
        page: &mut Page<'_>,
    ) -> Result<(), MailboxError> {
        let prefix = key::under(KeyKind::Signal, head.number);
        let mut after = None;
        loop {
            let records = self.scan(&prefix, after.as_ref(), PAGE).await?;
            for (key, bytes) in &records {
                let (record, _) = decode_object(KeyKind::Signal, bytes)?;
                let signal = key::signal_number(key, &prefix)
                    .ok_or(MailboxError::BadRecord { kind: KeyKind::Signal })?;
                if page.offer(signal_name(handle, signal), record.info) == Offer::NoneLater {
                    return Ok(());
                }
            }
            match records.last() {
                Some((last, _)) if records.len() == PAGE => after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }
}

fn name_after<'a>(key: &'a Key, prefix: &Key) -> Result<&'a str, MailboxError> {
    key.after(prefix)
        .and_then(|name| str::from_utf8(name).ok())
        .ok_or(MailboxError::BadRecord { kind: key.kind() })
}

/// What an offered name tells about the rest of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    /// Later names may be wanted.
    GoOn,
    /// No later name of the range can be on the page.
    NoneLater,
}

/// The part of a listing that is wanted, while it is collected.
struct Page<'a> {
    query: &'a ListingQuery,
    limit: usize,
    entries: BTreeMap<String, Option<ObjectInfo>>,
}

impl<'a> Page<'a> {
    fn new(query: &'a ListingQuery) -> Self {
        Page {
            query,
            limit: query.limit.unwrap_or(MAX_LISTING_ENTRIES).min(MAX_LISTING_ENTRIES),
            entries: BTreeMap::new(),
        }
    }

    /// Takes a name in if it belongs on the page. Names of one range are offered in their order.
    fn offer(&mut self, name: String, info: ObjectInfo) -> Offer {
        let query = self.query;
        if self.limit == 0 || (!query.end_marker.is_empty() && name >= query.end_marker) {
            return Offer::NoneLater;
        }
        let Some(rest) = name.strip_prefix(query.prefix.as_str()) else {
            return if name.as_str() > query.prefix.as_str() {
                Offer::NoneLater
            } else {
                Offer::GoOn
            };
        };
        let folded = query
            .delimiter
            .as_deref()
            .filter(|delimiter| !delimiter.is_empty())
            .and_then(|delimiter| rest.split_once(delimiter).map(|(first, _)| (first, delimiter)))
            .map(|(first, delimiter)| format!("{}{first}{delimiter}", query.prefix));
        let is_folded = folded.is_some();
        let entry = folded.unwrap_or(name);
        if entry <= query.marker {
            return Offer::GoOn;
        }
        let is_beyond = self.entries.len() >= self.limit
            && self.entries.last_key_value().is_some_and(|(last, _)| *last < entry);
        if is_beyond {
            // A later name may still be folded into an entry of the page, which changes nothing.
            return Offer::NoneLater;
        }
        self.entries.insert(entry, (!is_folded).then_some(info));
        if self.entries.len() > self.limit {
            self.entries.pop_last();
        }
        Offer::GoOn
    }

    fn into_entries(self) -> Vec<ListingEntry> {
        self.entries
            .into_iter()
            .map(|(name, info)| match info {
                Some(info) => ListingEntry::Object { name, info },
                None => ListingEntry::Prefix { name },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers `ranges` to a page and prints what is on it.
    fn check(query: &ListingQuery, ranges: &[&[&str]], expect: &str) {
        let mut page = Page::new(query);
        for range in ranges {
            for name in *range {
                let info = ObjectInfo {
                    etag: String::new(),
                    n_bytes: 0,
                    content_type: String::new(),
                    modified_at: jiff::Timestamp::UNIX_EPOCH,
                };
                if page.offer((*name).to_owned(), info) == Offer::NoneLater {
                    break;
                }
            }
        }
        let names: Vec<String> = page
            .into_entries()
            .into_iter()
            .map(|entry| match entry {
                ListingEntry::Object { name, .. } => name,
                ListingEntry::Prefix { name } => format!("[{name}]"),
            })
            .collect();
        assert_eq!(names.join(" "), expect, "{query:?}");
    }

    #[test]
    fn a_page_holds_the_first_names_of_all_ranges() {
        let ranges: &[&[&str]] = &[&["a-b/1", "m", "z"], &["a/1", "a/2", "a/3"], &["b/1"]];
        let query = ListingQuery::default();
        check(&query, ranges, "a-b/1 a/1 a/2 a/3 b/1 m z");
        let limited = |limit| ListingQuery { limit: Some(limit), ..ListingQuery::default() };
        check(&limited(0), ranges, "");
        check(&limited(3), ranges, "a-b/1 a/1 a/2");
        check(&limited(100_000), ranges, "a-b/1 a/1 a/2 a/3 b/1 m z");
        let marked = ListingQuery {
            marker: "a/2".to_owned(),
            end_marker: "m".to_owned(),
            ..ListingQuery::default()
        };
        check(&marked, ranges, "a/3 b/1");
        let prefixed = ListingQuery { prefix: "a/".to_owned(), ..ListingQuery::default() };
        check(&prefixed, ranges, "a/1 a/2 a/3");
        let folded = ListingQuery { delimiter: Some("/".to_owned()), ..ListingQuery::default() };
        check(&folded, ranges, "[a-b/] [a/] [b/] m z");
        let next_page = ListingQuery {
            delimiter: Some("/".to_owned()),
            marker: "a/".to_owned(),
            limit: Some(2),
            ..ListingQuery::default()
        };
        check(&next_page, ranges, "[b/] m");
    }
}
