//! How much of anything the domain takes, and why so much.
//!
//! The constants are limits of the protocol or of the format on disk. [`Limits`] holds the ones that an
//! operator may want to change.

use std::time::Duration;

use signal_protocol::signal::MAX_SIGNAL_BYTES;

/// The body by which Heat announces a signal handle: it puts this text where the signal is to be, and
/// then cannot read it back (it compares bytes with a string), so nobody may ever be shown it.
pub const PLACEHOLDER: &[u8] = b"in progress";

/// Largest plain object. What Heat keeps in one passes through its API as well, so it is bounded by the
/// same `max_json_body_size` as a signal.
pub const MAX_OBJECT_BYTES: usize = MAX_SIGNAL_BYTES;

/// Longest content type that is kept; real ones have fewer than 100 bytes.
pub const MAX_CONTENT_TYPE_BYTES: usize = 256;

/// Longest key that a client may set: Swift's `max_meta_value_length`. Heat's have 32.
pub const MAX_SIGNING_KEY_BYTES: usize = 256;

/// How many former keys still verify. Each costs every request one more hash, and a new key is set
/// only by whoever found none, so a race of that many writers would be needed to lose one.
pub const MAX_FORMER_KEYS: usize = 6;

/// Longest `X-Versions-Location`: it is the name of a container, percent-encoded at worst.
pub const MAX_VERSIONS_LOCATION_BYTES: usize = 3 * 256;

/// Most names that a stack may expect signals from. They stand in one record that is read with every
/// signal; Heat's templates rarely have a tenth of it.
pub const MAX_EXPECTED: usize = 500;

/// Longest name that is expected: as much of an id as is remembered after its signal was read.
pub const MAX_EXPECTED_NAME_BYTES: usize = 128;

/// Most ids that the record of one stack's handle names; more than any stack expects.
pub const MAX_SHOWN_SENDERS: usize = 1_000;

/// Most handles that the record of one stack names: as many resources as Heat lets a stack have.
pub const MAX_SHOWN_HANDLES: usize = 1_000;

/// Most entries of one listing: Swift's `container_listing_limit`. Heat asks for one page only, so this
/// is also the most signals that one poll could show it, and the handles of a stack share it.
pub const MAX_LISTING_ENTRIES: usize = 10_000;

/// How many containers are counted for the totals of an account. Heat asks for an account twice for
/// each handle that it makes and looks at no total, so exactness must not cost a walk over everything.
pub const MAX_COUNTED_CONTAINERS: usize = 100;

/// Highest number that fits the eight digits in the name of a pending signal.
pub const MAX_SIGNAL_NUMBER: u64 = 99_999_999;

/// Largest body that stands in the record of its signal. A listing reads all records of a mailbox and
/// none of the bodies, so records must stay small: with this, 10 MiB for the longest listing.
pub const MAX_INLINE_BODY_BYTES: usize = 1_024;

/// Most distinct ids that a native handle may wait for: as many as `OS::Heat::SwiftSignal` takes. It is a
/// tenth of what a mailbox holds, so that senders who signal more than once do not fill it.
pub const MAX_HANDLE_COUNT: u32 = 1_000;

/// Longest time that a native handle may wait: a week. Heat's own wait conditions end after 12 hours.
pub const MAX_HANDLE_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Longest label: it is a line in a list for people.
pub const MAX_HANDLE_LABEL_BYTES: usize = 256;

/// Largest metadata of a native handle: room for what a pipeline wants to find again, not a store.
pub const MAX_HANDLE_METADATA_BYTES: usize = 16 << 10;

/// Most handles in one page of a list. What each one's signals mean is computed for the list, so a
/// page is a bounded amount of work.
pub const MAX_HANDLE_PAGE: usize = 1_000;

/// How often a change is tried again after somebody else changed the same record first. Only another
/// relay on the same store can be that somebody, and one of two always gets through.
pub const MAX_COMMIT_ATTEMPTS: usize = 16;

/// How many changes may wait for their turn at one mailbox; the next one is refused at once. At one
/// commit for up to 32 signals and 10 ms each, the last in line waits a third of a second.
pub const MAX_QUEUED_CHANGES: usize = 1_024;

/// How many records one call of the sweep looks at: some ten milliseconds of work.
pub const MAX_SWEPT_RECORDS: usize = 1_000;

/// What an operator may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pending signals in one mailbox. More would not fit one page of a listing, and Heat reads one page. Fewer
    /// are no protection to the other mailboxes of a container: the page is shared out among them.
    pub signals_per_mailbox: u64,
    /// Bytes of pending signals in one mailbox. A native handle is read as a whole, so this is what one
    /// reader can make the relay hold in memory.
    pub bytes_per_mailbox: u64,
    /// Containers in one account: one for each stack that has a handle.
    pub containers_per_account: u64,
    /// Native handles in one account.
    pub handles_per_account: u64,
    /// How long a pending signal is kept after its mailbox was last used. Heat's longest wait is 12 hours
    /// and Keystone's token for it lives 48 more, so whoever has not come after a week will not come.
    pub signal_retention: Duration,
    /// How long a mailbox without signals is kept after it was last used. Its URL may be part of a
    /// template's outputs for as long as the stack lives, so this is generous; it costs 200 bytes.
    pub mailbox_retention: Duration,
    /// How long a native handle is kept after its time is over.
    pub handle_retention: Duration,
    /// How long a container may stay empty.
    pub container_retention: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        Limits {
            signals_per_mailbox: 10_000,
            bytes_per_mailbox: 64 << 20,
            containers_per_account: 100_000,
            handles_per_account: 100_000,
            signal_retention: 7 * DAY,
            mailbox_retention: 90 * DAY,
            handle_retention: 7 * DAY,
            container_retention: 7 * DAY,
        }
    }
}
