use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

/// Keys in order, which answers as etcd does, and counts what etcd walks over for it.
struct Keys {
    all: BTreeSet<Bytes>,
    n_questions: usize,
    n_visited: usize,
}

impl Keys {
    fn new(all: impl IntoIterator<Item = Vec<u8>>) -> Keys {
        Keys { all: all.into_iter().map(Bytes::from).collect(), n_questions: 0, n_visited: 0 }
    }

    fn page(&mut self, start: &Bytes, end: &Bytes, limit: usize) -> Vec<KeyValue> {
        let within: Vec<&Bytes> = self.all.range(start.clone()..end.clone()).collect();
        self.n_questions += 1;
        self.n_visited += within.len();
        let record = |key: &&Bytes| KeyValue { key: (*key).clone(), ..KeyValue::default() };
        within.iter().take(limit).map(record).collect()
    }

    /// Scans as the store does, and returns the width that the next scan begins with.
    fn scan(
        &mut self,
        start: &Bytes,
        end: &Bytes,
        limit: usize,
        stride: Option<Stride>,
    ) -> (Vec<Bytes>, Option<Stride>) {
        let mut walk = Walk { page: PAGE, start: start.clone(), end: end.clone(), stride };
        let mut found = Vec::new();
        let mut has_more = start < end;
        while has_more && found.len() < limit {
            let wanted = PAGE.min(limit - found.len());
            let window_end = walk.window_end();
            assert!(walk.start < window_end && window_end <= walk.end);
            let page = self.page(&walk.start, &window_end, wanted);
            has_more = walk.go_on(window_end, wanted, &page);
            found.extend(page.into_iter().map(|record| record.key));
        }
        (found, walk.stride)
    }

    /// Scans everything that begins with `prefix` in steps of `limit`, as the sweep does.
    fn scan_in_steps(&mut self, prefix: &[u8], limit: usize) -> Vec<Bytes> {
        let (mut start, end) = (Bytes::copy_from_slice(prefix), end_of(prefix));
        let (mut all, mut stride) = (Vec::new(), None);
        loop {
            let (found, next) = self.scan(&start, &end, limit, stride);
            stride = next;
            all.extend(found.iter().cloned());
            match found.last() {
                Some(last) if found.len() == limit => start = successor(last),
                _ => return all,
            }
        }
    }
}

/// As unlike one another as random numbers, and the same in every run.
fn random_number(of: u64) -> u64 {
    let mut number = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

const N_KEYS: u64 = 30_000;

/// Handles of stacks: a random number, and ten names below each.
fn of_mailboxes(number: u64) -> Vec<u8> {
    let name = format!("web-{}-handle", number % 10);
    [b"relay/M", random_number(number / 10).to_be_bytes().as_slice(), name.as_bytes()].concat()
}

/// Containers of a few accounts: a long beginning that is the same, and random names.
fn of_containers(number: u64) -> Vec<u8> {
    let account = format!("relay/C\0\x25AUTH_{:032x}", number % 4 * 1_000);
    [account.as_bytes(), format!("{:016x}", random_number(number)).as_bytes()].concat()
}

/// Names that were numbered by somebody.
fn numbered(number: u64) -> Vec<u8> {
    format!("relay/Msame-beginning-of-all-names-{number}-end").into_bytes()
}

/// What a walk over everything costs etcd, in steps of its index, and in questions.
fn check_cost(key: fn(u64) -> Vec<u8>, prefix: &[u8]) {
    let mut keys = Keys::new((0..N_KEYS).map(key));
    let found = keys.scan_in_steps(prefix, 1_000);
    assert_eq!(found.len(), keys.all.len());
    // The first page costs one walk over everything. In pages of all that is left it would be 58 steps for
    // each key.
    let n_visited = keys.n_visited - keys.all.len();
    assert!(n_visited < 6 * keys.all.len(), "{n_visited} steps");
    assert!(keys.n_questions < 4 * keys.all.len() / PAGE, "{} questions", keys.n_questions);
}

#[test]
fn a_page_costs_what_it_holds_however_keys_lie() {
    check_cost(of_mailboxes, b"relay/M");
    check_cost(of_containers, b"relay/C");
    check_cost(numbered, b"relay/M");
}

#[test]
fn a_scan_of_a_few_records_is_one_question() {
    let mut keys = Keys::new((0..PAGE as u64 - 1).map(of_mailboxes));
    assert_eq!(keys.scan_in_steps(b"relay/M", PAGE).len(), PAGE - 1);
    assert_eq!(keys.n_questions, 1);
}

#[test]
fn a_width_of_a_store_that_was_emptied_costs_few_questions() {
    let mut keys = Keys::new((0..N_KEYS).map(of_mailboxes));
    let (start, end) = (Bytes::from_static(b"relay/M"), end_of(b"relay/M"));
    let (_, stride) = keys.scan(&start, &end, 1_000, None);
    keys.all.clear();
    keys.n_questions = 0;
    let (found, stride) = keys.scan(&start, &end, 1_000, stride);
    assert!(found.is_empty() && keys.n_questions < 10, "{} questions", keys.n_questions);
    keys.n_questions = 0;
    keys.scan(&start, &end, 1_000, stride);
    assert_eq!(keys.n_questions, 1);
}

#[test]
fn a_stride_is_a_distance_between_keys() {
    let check = |first: &[u8], last: &[u8], start: &[u8], expect: &[u8]| {
        // As many keys as make the width the distance itself.
        let stride = Stride::of_two_pages(PAGE, first, last, 2 * PAGE);
        assert_eq!(stride.from(start).as_ref(), expect, "{first:?} to {last:?} from {start:?}");
    };
    check(b"M\x01", b"M\x03", b"M\x05", b"M\x07\0\0\0\0\0\0\0");
    check(b"M\x01\xff", b"M\x02\x01", b"M\x05", b"M\x05\x02\0\0\0\0\0\0");
    // Above the largest number at its place: behind all that have the same beginning.
    check(b"M\x01", b"M\xf1", b"M\xf0", b"N");
    // A start that is shorter than what was measured.
    check(b"Mab\x01", b"Mab\x02", b"M", b"M\0\0\x01\0\0\0\0\0\0\0");
    // Keys that differ by zeros at their ends are the least there is apart.
    check(b"M", b"M\0", b"M", b"M\0\0\0\0\0\0\0\x01");
}

#[test]
fn a_wider_stride_keeps_its_size_when_it_moves_to_the_left() {
    let check = |at, width, bits, expect: (usize, u64)| {
        let stride = Stride { at, width }.wider(bits);
        assert_eq!((stride.at, stride.width), expect);
    };
    check(3, 1, 4, (3, 16));
    check(3, 1 << 59, 4, (3, 1 << 63));
    check(3, 1 << 60, 4, (2, 1 << 56));
    check(3, u64::MAX, 1, (2, (u64::MAX >> 8) << 1));
    check(0, 1 << 63, 1, (0, u64::MAX));
}

/// Keys of few different bytes, so that many are neighbours, begin alike or are beginnings of others.
fn some_key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(0xfe), Just(0xff)], 0..12)
        .prop_map(|rest| [b"relay/M", rest.as_slice()].concat())
}

fn some_stride() -> impl Strategy<Value = Option<Stride>> {
    proptest::option::of(
        (0..20usize, 0..64u32).prop_map(|(at, bits)| Stride { at, width: 1 << bits }),
    )
}

proptest! {
    #[test]
    fn whatever_the_width_a_scan_finds_all_in_order(
        keys in btree_set(some_key(), 0..600),
        start in some_key(),
        limit in 1..700usize,
        stride in some_stride(),
    ) {
        let mut keys = Keys::new(keys);
        let (start, end) = (Bytes::from(start), end_of(b"relay/M"));
        let expect: Vec<Bytes> = keys.all.range(start.clone()..).take(limit).cloned().collect();
        let (found, _) = keys.scan(&start, &end, limit, stride);
        prop_assert_eq!(found, expect);
    }
}
