//! A scan in pages, each of which costs etcd what it holds.
//!
//! Whoever asks etcd for the first records of a range, with a `limit`, makes it walk through its index to the
//! end of the range all the same: 3.4 gathers every key before it drops what is above the limit
//! (`mvcc/kvstore_txn.go`, `rangeKeys`), and later versions still count them. A walk over a million records
//! in pages, each of what is left, would be two thousand million steps. So a page is looked for in a window
//! that begins where the last page ended, and is as wide as it takes to hold about twice a page, judged by
//! how far the keys of the last full page lay apart. Where a window turns out to hold less than was wanted
//! the next one is wider.
//!
//! The first page of a scan is asked for with the whole range as its window: nearly all scans are of a few
//! records below one number, and have but this page. Those over a whole kind begin with the width that the
//! last of them ended with.
//!
//! Choice not taken: the `count` of an answer, from which a width could be reckoned: it counts what lies in
//! a window, where neighbours in a page say how keys lie that share a long beginning, as those of one
//! account's containers do.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tonic::Status;

use crate::store::etcd::wire::{KeyValue, RangeRequest};
use crate::store::etcd::{EtcdStore, end_of, is_small};
use crate::store::{Key, KeyKind};

/// How many records are asked for at once. A scan of more is several questions about one revision.
pub(crate) const PAGE: usize = 256;

/// How many bodies, which may have 1 MiB each: 8 MiB come within the time that a member has for an answer over
/// 50 Mbit/s.
const BODIES_PER_PAGE: usize = 8;

/// How often a scan is begun anew whose revision was compacted away between two of its pages.
pub(crate) const MAX_SCAN_ATTEMPTS: usize = 3;

/// A window that held nothing is followed by one that is sixteen times as wide: from the narrowest to one
/// that spans everything it is sixteen questions for each eight bytes of the keys.
const WIDER_AFTER_NOTHING_BITS: u32 = 4;

/// One that held less than was wanted, by one that is four times as wide.
const WIDER_AFTER_FEW_BITS: u32 = 2;

/// Bytes of a key that a distance is reckoned with.
const DIGITS: usize = size_of::<u64>();

/// How far apart keys lie: a number at a place of the key, the most significant byte first, with nothing but
/// zeros behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stride {
    /// How many bytes of the key stand before the number.
    at: usize,
    width: u64,
}

impl Stride {
    /// What spans about two pages, where these are the first and the last of `n_keys` neighbours.
    fn of_two_pages(page: usize, first: &[u8], last: &[u8], n_keys: usize) -> Stride {
        let at = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let between = digits(last, at).saturating_sub(digits(first, at));
        let width = u128::from(between) * 2 * page as u128 / n_keys.max(1) as u128;
        Stride { at, width: u64::try_from(width).unwrap_or(u64::MAX).max(1) }
    }

    fn wider(self, bits: u32) -> Stride {
        if self.width.leading_zeros() >= bits {
            return Stride { width: self.width << bits, ..self };
        }
        match self.at.checked_sub(1) {
            // The same number, a byte further to the left.
            Some(at) => Stride { at, width: (self.width >> 8) << bits },
            None => Stride { width: u64::MAX, ..self },
        }
    }

    /// The key that lies this far behind `start`.
    fn from(self, start: &[u8]) -> Bytes {
        let mut end = start[..self.at.min(start.len())].to_vec();
        end.resize(self.at, 0);
        match digits(start, self.at).checked_add(self.width) {
            Some(sum) => {
                end.extend_from_slice(&sum.to_be_bytes());
                end.into()
            }
            None => end_of(&end),
        }
    }
}

/// The number that stands at this place of a key.
fn digits(key: &[u8], at: usize) -> u64 {
    let mut digits = [0; DIGITS];
    for (digit, byte) in digits.iter_mut().zip(key.get(at..).unwrap_or_default()) {
        *digit = *byte;
    }
    u64::from_be_bytes(digits)
}

/// The widths with which the last scans over whole kinds ended. One that is out of date costs questions, and
/// makes no difference to what is found.
#[derive(Debug, Default)]
pub(crate) struct Strides(Mutex<BTreeMap<KeyKind, Stride>>);

impl Strides {
    fn get(&self, kind: KeyKind) -> Option<Stride> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&kind).copied()
    }

    fn set(&self, kind: KeyKind, stride: Stride) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, stride);
    }
}

/// How far a scan has come.
#[derive(Debug)]
struct Walk {
    /// How many records are asked for at once.
    page: usize,
    start: Bytes,
    end: Bytes,
    /// `None` for all that is left.
    stride: Option<Stride>,
}

impl Walk {
    /// Where the window of the next page ends.
    fn window_end(&self) -> Bytes {
        let end = self.stride.map(|stride| stride.from(&self.start));
        let is_within = |end: &Bytes| self.start < *end && *end < self.end;
        end.filter(is_within).unwrap_or_else(|| self.end.clone())
    }

    /// Goes on behind the window, or behind the last of the records that were found in it. Returns whether
    /// there may be more.
    fn go_on(&mut self, window_end: Bytes, wanted: usize, found: &[KeyValue]) -> bool {
        if let [first, .., last] = found
            && found.len() >= wanted
        {
            self.stride = Some(Stride::of_two_pages(self.page, &first.key, &last.key, found.len()));
        }
        self.start = match found.last() {
            Some(last) if found.len() >= wanted => successor(&last.key),
            _ => {
                let bits =
                    if found.is_empty() { WIDER_AFTER_NOTHING_BITS } else { WIDER_AFTER_FEW_BITS };
                self.stride = self.stride.map(|stride| stride.wider(bits));
                window_end
            }
        };
        self.start < self.end
    }
}

impl EtcdStore {
    /// The first records from `start` on, of one revision, as long as they begin with `prefix`.
    pub(super) async fn try_scan(
        &self,
        prefix: &Key,
        start: Bytes,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, Status> {
        // Nothing but the kind.
        let whole_kind = (prefix.as_bytes().len() == 1).then(|| prefix.kind());
        let stride = whole_kind.and_then(|kind| self.strides.get(kind));
        let page = if is_small(prefix.kind()) { self.page } else { self.page.min(BODIES_PER_PAGE) };
        let mut walk = Walk { page, start, end: end_of(&self.name(prefix)), stride };
        let mut found = Vec::new();
        let mut revision = 0;
        let mut has_more = walk.start < walk.end;
        while has_more && found.len() < limit {
            let wanted = walk.page.min(limit - found.len());
            let window_end = walk.window_end();
            let request = RangeRequest {
                key: walk.start.clone(),
                range_end: window_end.clone(),
                limit: i64::try_from(wanted).unwrap_or(i64::MAX),
                revision,
                count_only: false,
            };
            let answer = self.range(request).await?;
            if revision == 0 {
                revision = answer.header.map_or(0, |header| header.revision);
            }
            has_more = walk.go_on(window_end, wanted, &answer.kvs);
            for record in answer.kvs {
                // What is not a key of the relay is not the relay's.
                found.extend(self.key(&record.key).map(|key| (key, record.value)));
            }
        }
        if let (Some(kind), Some(stride)) = (whole_kind, walk.stride) {
            self.strides.set(kind, stride);
        }
        Ok(found)
    }
}

/// The first key behind this one.
pub(super) fn successor(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

#[cfg(test)]
mod tests;
