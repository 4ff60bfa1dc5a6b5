//! How names become keys of the store.
//!
//! ```text
//! A <account>                                   account
//! C <length><account> <container>               container; holds its 16-byte number
//! M <container number> <object>                 head of a mailbox; holds its 16-byte number
//! O <container number> <object>                 description of a plain object
//! P <body number>                               body of a plain object, if it is large
//! H <handle number>                             native handle
//! N <handle number>                             head of its mailbox; the handle's number is the mailbox's
//! L <length><account> <handle number>           index of the native handles of an account
//! S <mailbox number> <signal number>            one pending signal, oldest first
//! B <mailbox number> <signal number>            its body, if that is large
//! I <mailbox number> <hash of the id>           that this id has been received, and with which content
//! G <kind of number> <number>                   garbage: a number whose records are to be removed
//! ```
//!
//! Names are used once, on the way to a random number; everything below lies under the number. So the
//! removal of a container or a handle is one small commit that forgets the number and leaves a note for
//! the sweep, and something new under the same name never meets what is left of the old.
//!
//! Account names have no more than 256 bytes; two bytes of length in front keep `AUTH_a` from being
//! the beginning of `AUTH_ab`.

use sha2::{Digest, Sha256};
use signal_protocol::handle::HandleId;
use signal_protocol::path::{AccountName, ContainerName};

use crate::mailbox::ContainerAddress;
use crate::mailbox::record::Number;
use crate::store::{Key, KeyKind};

pub(crate) fn account(account: &AccountName) -> Key {
    Key::new(KeyKind::Account, &[account.as_str().as_bytes()])
}

/// All containers of an account.
pub(crate) fn containers(account: &AccountName) -> Key {
    of_account(KeyKind::Container, account, b"")
}

pub(crate) fn container(address: &ContainerAddress) -> Key {
    of_account(KeyKind::Container, &address.account, address.container.as_str().as_bytes())
}

/// The index entries of all native handles of an account.
pub(crate) fn handle_index(account: &AccountName) -> Key {
    of_account(KeyKind::HandleIndex, account, b"")
}

pub(crate) fn handle_index_entry(account: &AccountName, number: Number) -> Key {
    of_account(KeyKind::HandleIndex, account, &number.0)
}

fn of_account(kind: KeyKind, account: &AccountName, rest: &[u8]) -> Key {
    let account = account.as_str().as_bytes();
    let length = u16::try_from(account.len()).unwrap_or(u16::MAX);
    Key::new(kind, &[&length.to_be_bytes(), account, rest])
}

/// Everything of `kind` that lies under a number.
pub(crate) fn under(kind: KeyKind, number: Number) -> Key {
    Key::new(kind, &[&number.0])
}

/// The account and the container that a container's key names.
pub(crate) fn parse_container(key: &Key) -> Option<ContainerAddress> {
    let rest = key.after(&Key::new(KeyKind::Container, &[]))?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (account, container) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some(ContainerAddress {
        account: AccountName::parse(str::from_utf8(account).ok()?).ok()?,
        container: ContainerName::parse(str::from_utf8(container).ok()?).ok()?,
    })
}

/// The body of a plain object.
pub(crate) fn object_body(number: Number) -> Key {
    Key::new(KeyKind::ObjectBody, &[&number.0])
}

/// The number at the end of a key that was found under `prefix`.
pub(crate) fn number_after(key: &Key, prefix: &Key) -> Option<Number> {
    Some(Number(key.after(prefix)?.try_into().ok()?))
}

/// An object, or the head of a mailbox, in a container.
pub(crate) fn in_container(kind: KeyKind, container: Number, object: &str) -> Key {
    Key::new(kind, &[&container.0, object.as_bytes()])
}

pub(crate) fn handle(number: Number) -> Key {
    Key::new(KeyKind::Handle, &[&number.0])
}

pub(crate) fn handle_mailbox(number: Number) -> Key {
    Key::new(KeyKind::HandleMailbox, &[&number.0])
}

/// The record of a signal, or its body.
pub(crate) fn of_signal(kind: KeyKind, mailbox: Number, signal: u64) -> Key {
    Key::new(kind, &[&mailbox.0, &signal.to_be_bytes()])
}

/// The number of the signal that a key names, given the prefix that it was found under.
pub(crate) fn signal_number(key: &Key, prefix: &Key) -> Option<u64> {
    let digits = key.after(prefix)?;
    Some(u64::from_be_bytes(digits.try_into().ok()?))
}

/// The mark that an id has been received. The id may be long, so its hash stands for it.
pub(crate) fn seen(mailbox: Number, id: &str) -> Key {
    let hash = Sha256::digest(id.as_bytes());
    Key::new(KeyKind::Seen, &[&mailbox.0, &hash[..16]])
}

/// The note that everything under `number` is to be removed.
pub(crate) fn garbage(number: Number) -> Key {
    Key::new(KeyKind::Garbage, &[&number.0])
}

/// The number of a native handle. The id is made of the same 128 bits.
pub(crate) fn number_of_handle(id: &HandleId) -> Option<Number> {
    let digits = id.as_str().strip_prefix("h-")?;
    let mut number = [0; 16];
    hex::decode_to_slice(digits, &mut number).ok()?;
    Some(Number(number))
}
