//! The part of the Swift API that Heat uses, so that an unmodified Heat polls the relay.
//!
//! Heat believes that it talks to an object store. Three of its resource types do, and each in its own
//! way; all of them are served by one model:
//!
//! * A wait condition puts a placeholder where the signal is to be, lists the container about once a
//!   second, reads every object whose name contains the handle's, and deletes what it has read. A 404 for
//!   such a DELETE fails the stack.
//! * `OS::Heat::SwiftSignal` lists and reads in the same way, and deletes the handle's own name again and
//!   again until it gets a 404.
//! * Software deployments put an empty object, look at its `Last-Modified` about once a second, and read it
//!   when that has grown. They never delete what they have read; the last PUT is what counts.
//!
//! So a signal becomes an object of its own, `<handle>/<8-digit number>`, that nobody can overwrite; the
//! placeholder is never shown, because a wait condition reads it as a broken signal; and a body that Heat
//! would fail over is refused while the instance still listens.
//!
//! Heat fails a stack for good over a 400, 401, 403 or 3xx and asks again after a 5xx, for half a minute in
//! all. What is the relay's own trouble is therefore always a 5xx.
//!
//! What other Swift clients want and Heat does not is refused with 501 where doing something else instead
//! would be wrong: large-object manifests, server-side copies, archives.
//!
//! ```text
//! /v1/{account}                        GET HEAD POST
//! /v1/{account}/{container}            GET HEAD PUT POST DELETE
//! /v1/{account}/{container}/{*object}  GET HEAD PUT DELETE
//! ```
//! The first two also with a slash at the end, which some clients add.

pub(crate) mod account;
pub(crate) mod container;
pub(crate) mod object;

mod query;
mod time;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::mailbox::error::MailboxError;
use crate::mailbox::{KeyChange, KeyUpdate, SigningKey, SigningKeys};

/// How the headers of an account and of a container call the same things.
#[derive(Debug)]
struct KeyHeaders {
    primary: HeaderName,
    secondary: HeaderName,
    remove_primary: HeaderName,
    remove_secondary: HeaderName,
}

impl KeyHeaders {
    fn of_account() -> Self {
        KeyHeaders {
            primary: HeaderName::from_static("x-account-meta-temp-url-key"),
            secondary: HeaderName::from_static("x-account-meta-temp-url-key-2"),
            remove_primary: HeaderName::from_static("x-remove-account-meta-temp-url-key"),
            remove_secondary: HeaderName::from_static("x-remove-account-meta-temp-url-key-2"),
        }
    }

    fn of_container() -> Self {
        KeyHeaders {
            primary: HeaderName::from_static("x-container-meta-temp-url-key"),
            secondary: HeaderName::from_static("x-container-meta-temp-url-key-2"),
            remove_primary: HeaderName::from_static("x-remove-container-meta-temp-url-key"),
            remove_secondary: HeaderName::from_static("x-remove-container-meta-temp-url-key-2"),
        }
    }

    /// What a request wants done with the keys.
    fn read(&self, headers: &HeaderMap) -> Result<KeyUpdate, ApiError> {
        let change = |set, remove| -> Result<Option<KeyChange>, ApiError> {
            if headers.contains_key(remove) {
                return Ok(Some(KeyChange::Remove));
            }
            let Some(value) = headers.get(set) else {
                return Ok(None);
            };
            if value.is_empty() {
                return Ok(Some(KeyChange::Remove));
            }
            let text = value.to_str().map_err(|_| MailboxError::BadSigningKey)?;
            Ok(Some(KeyChange::Set(SigningKey::parse(text)?)))
        };
        Ok(KeyUpdate {
            primary: change(&self.primary, &self.remove_primary)?,
            secondary: change(&self.secondary, &self.remove_secondary)?,
        })
    }

    /// Shows the keys to their owner.
    fn write(&self, keys: &SigningKeys, headers: &mut HeaderMap) {
        for (name, key) in [(&self.primary, &keys.primary), (&self.secondary, &keys.secondary)] {
            if let Some(key) = key {
                insert(headers, name.clone(), key.reveal());
            }
        }
    }
}

/// An answer without a body.
fn empty(status: StatusCode, headers: HeaderMap) -> Response {
    (status, headers).into_response()
}

/// Sets a header. A value that no header can hold is left out; none of ours is such a one.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn insert_number(headers: &mut HeaderMap, name: HeaderName, number: u64) {
    headers.insert(name, HeaderValue::from(number));
}

/// Refuses requests that ask for something that is not done here, rather than do something else.
fn refuse_unsupported(headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    const HEADERS: [(&str, &str); 4] = [
        ("x-object-manifest", "dynamic large objects"),
        ("x-copy-from", "server-side copies"),
        ("x-symlink-target", "symbolic links"),
        ("x-delete-at", "objects that expire"),
    ];
    const FIELDS: [(&str, &str); 5] = [
        ("multipart-manifest", "static large objects"),
        ("bulk-delete", "bulk deletes"),
        ("extract-archive", "archives"),
        ("symlink", "symbolic links"),
        ("version-id", "object versions"),
    ];
    let query = uri.query().unwrap_or_default();
    let has_field = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let by_header = HEADERS.iter().find(|(name, _)| headers.contains_key(*name));
    let by_field = FIELDS.iter().find(|(name, _)| has_field(name));
    let custom_metadata = headers.keys().find(|name| is_custom_metadata(name.as_str()));
    let unsupported = by_header.or(by_field).map(|(_, what)| *what);
    match unsupported.or(custom_metadata.map(|_| "metadata of your own")) {
        None => Ok(()),
        Some(what) => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "not_implemented",
            format!("this relay keeps signals; it has no {what}"),
        )),
    }
}

/// Whether a header would set metadata of an account or a container, other than the keys that sign
/// TempURLs and who is expected to signal. To take it and forget it would look like success.
fn is_custom_metadata(name: &str) -> bool {
    if name == "x-container-meta-expect" {
        return false;
    }
    let property = ["x-account-meta-", "x-container-meta-"];
    let property = property.iter().find_map(|prefix| name.strip_prefix(prefix));
    property.is_some_and(|property| !property.starts_with("temp-url-key"))
}

#[cfg(test)]
mod tests;
