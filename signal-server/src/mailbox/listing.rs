//! The listing of a container: the pending signals of every mailbox and the plain objects, as one list
//! in the order of their names.
//!
//! The names come from several ranges of the store, each in order by itself: one of plain objects, one
//! for each mailbox. The page that is asked for is collected in a sorted map that never holds more than
//! the page.
//!
//! # What does not fit one page
//!
//! A client of Swift's asks on, with the last name of a page as its marker. Heat never does: it asks for one
//! page without saying which, takes the signals of one handle from it, and comes again in a second. Were that the
//! page of the first names, one handle that is flooded, perhaps because nobody reads it any more, would hide the
//! signals of all handles with a later name.
//!
//! So whoever says nothing about the part that is wanted gets a page that all ranges share: of each the first
//! names, and of none more than of another one that has more to show. Of each handle Heat sees the oldest signals
//! that wait; what it has read and removed makes room for the next ones.
//!
//! Who asks on must not miss what such a page leaves out. The smallest name that it leaves out parts it in two, and
//! the later names are listed before the earlier ones. So the last name of the page is one up to which nothing has
//! been left out, and whoever asks on from there sees all other names; those that were shown ahead of their order
//! come again in their place. The order within a handle is kept. A page that holds all there is, and each page for
//! which a part is named, be it by `limit=10000`, is in the order of the names and has each of them once.

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
        let (_, container) = self.existing_container(address).await?;
        let page = self.collect(container.number, Page::new(query, MAX_LISTING_ENTRIES)).await?;
        let names_no_part = *query == ListingQuery::default();
        if !(page.is_cut && names_no_part) {
            return Ok(page.into_entries());
        }
        let lengths = self.range_lengths(container.number).await?;
        let share = share(lengths, MAX_LISTING_ENTRIES);
        let page = Page { share, ..Page::new(query, MAX_LISTING_ENTRIES) };
        Ok(self.collect(container.number, page).await?.into_entries())
    }

    async fn collect<'a>(
        &self,
        container: Number,
        mut page: Page<'a>,
    ) -> Result<Page<'a>, MailboxError> {
        self.collect_plain(container, &mut page).await?;
        self.collect_mailboxes(container, &mut page).await?;
        Ok(page)
    }

    /// How many names each range has.
    async fn range_lengths(&self, container: Number) -> Result<Vec<u64>, MailboxError> {
        let mut n_plain = 0;
        let prefix = key::under(KeyKind::Object, container);
        let mut after = None;
        loop {
            let records = self.scan(&prefix, after.as_ref(), PAGE).await?;
            n_plain += records.len() as u64;
            match records.last() {
                Some((last, _)) if records.len() == PAGE => after = Some(last.clone()),
                _ => break,
            }
        }
        let mut lengths = vec![n_plain];
        let prefix = key::under(KeyKind::Mailbox, container);
        let mut after = None;
        loop {
            let heads = self.scan(&prefix, after.as_ref(), PAGE).await?;
            for (_, bytes) in &heads {
                lengths.push(decode::<HeadRecord>(KeyKind::Mailbox, bytes)?.n_pending);
            }
            match heads.last() {
                Some((last, _)) if heads.len() == PAGE => after = Some(last.clone()),
                _ => return Ok(lengths),
            }
        }
    }

    async fn collect_plain(
        &self,
        container: Number,
        page: &mut Page<'_>,
    ) -> Result<(), MailboxError> {
        let prefix = key::under(KeyKind::Object, container);
        let mut after = None;
        page.begin_range();
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
        page.begin_range();
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
    /// How many names each range may have on the page.
    share: u64,
    /// How many names of the present range have been offered.
    n_offered: u64,
    entries: BTreeMap<String, Option<ObjectInfo>>,
    /// The smallest name that was left out because its range has had its share.
    left_out: Option<String>,
    /// Whether names that are wanted did not fit.
    is_cut: bool,
}

impl<'a> Page<'a> {
    fn new(query: &'a ListingQuery, max_entries: usize) -> Self {
        Page {
            query,
            limit: query.limit.unwrap_or(max_entries).min(max_entries),
            share: u64::MAX,
            n_offered: 0,
            entries: BTreeMap::new(),
            left_out: None,
            is_cut: false,
        }
    }

    /// The names that are offered next are those of another range.
    fn begin_range(&mut self) {
        self.n_offered = 0;
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
        if self.n_offered == self.share {
            self.is_cut = true;
            if self.left_out.as_ref().is_none_or(|left_out| name < *left_out) {
                self.left_out = Some(name);
            }
            return Offer::NoneLater;
        }
        self.n_offered += 1;
        let folded = query
            .delimiter
            .as_deref()
            .filter(|delimiter| !delimiter.is_empty())
            .and_then(|delimiter| rest.split_once(delimiter).map(|(first, _)| (first, delimiter)))
            .map(|(first, delimiter)| format!("{}{first}{delimiter}", query.prefix));
        // The marker may be a folded entry itself, or a name that is folded into one that has more.
        if name <= query.marker || folded.as_ref() == Some(&query.marker) {
            return Offer::GoOn;
        }
        let is_folded = folded.is_some();
        let entry = folded.unwrap_or(name);
        let is_beyond = self.entries.len() >= self.limit
            && self.entries.last_key_value().is_some_and(|(last, _)| *last < entry);
        if is_beyond {
            // A later name may still be folded into an entry of the page, which changes nothing.
            self.is_cut = true;
            return Offer::NoneLater;
        }
        self.entries.insert(entry, (!is_folded).then_some(info));
        if self.entries.len() > self.limit {
            self.entries.pop_last();
            self.is_cut = true;
        }
        Offer::GoOn
    }

    fn into_entries(mut self) -> Vec<ListingEntry> {
        let ahead = self.left_out.map(|left_out| self.entries.split_off(&left_out));
        let in_order = ahead.into_iter().flatten().chain(self.entries);
        in_order
            .map(|(name, info)| match info {
                Some(info) => ListingEntry::Object { name, info },
                None => ListingEntry::Prefix { name },
            })
            .collect()
    }
}

/// The largest share of a page that ranges of these lengths may each have so that all fit, where those that
/// are shorter leave the rest to the others. At least one name, though there may be more ranges than room.
fn share(mut lengths: Vec<u64>, room: usize) -> u64 {
    lengths.sort_unstable();
    let mut left = room as u64;
    for (n_before, length) in lengths.iter().enumerate() {
        let share = left / (lengths.len() - n_before) as u64;
        if *length > share {
            return share.max(1);
        }
        left -= length;
    }
    u64::MAX
}

#[cfg(test)]
mod tests;
