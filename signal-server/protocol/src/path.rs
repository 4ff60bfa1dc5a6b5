//! Names and paths of the Swift API: `/v1/AUTH_<project>/<container>/<object>`.
//!
//! A path arrives percent-encoded and is decoded as a whole before it is split, as Swift does:
//! an encoded slash separates like a plain one. TempURL signatures cover the decoded path, so
//! [`SwiftPath::decoded`] is what they are checked against.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::percent;

/// The longest account and container name, in bytes: Swift's `max_account_name_length` and
/// `max_container_name_length`.
pub const MAX_CONTAINER_NAME_BYTES: usize = 256;

/// The longest object name, in bytes: Swift's `max_object_name_length`.
pub const MAX_OBJECT_NAME_BYTES: usize = 1024;

/// What every account name begins with. Heat and Keystone's catalog write it in front of the
/// project's id, and a TempURL made by Heat always has it.
pub const ACCOUNT_PREFIX: &str = "AUTH_";

/// Why a path or a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    #[error("the path is not /v1/ACCOUNT, /v1/ACCOUNT/CONTAINER or /v1/ACCOUNT/CONTAINER/OBJECT")]
    NotSwift,
    #[error("the path has a percent escape that is cut short, or is not UTF-8 when decoded")]
    BadEncoding,
    #[error("the {kind} name is empty")]
    Empty { kind: &'static str },
    #[error("the {kind} name has more than {limit} bytes")]
    TooLong { kind: &'static str, limit: usize },
    #[error("the {kind} name has a character that is not allowed there")]
    BadCharacter { kind: &'static str },
    #[error("the account name does not begin with {ACCOUNT_PREFIX}")]
    NoAccountPrefix,
}

impl PathError {
    /// The stable name of the error in an API's answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            PathError::NotSwift => "path_unknown",
            PathError::BadEncoding => "path_bad_encoding",
            PathError::Empty { .. } => "name_empty",
            PathError::TooLong { .. } => "name_too_long",
            PathError::BadCharacter { .. } => "name_bad_character",
            PathError::NoAccountPrefix => "account_bad_prefix",
        }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr, slash: $slash:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a decoded name.
            pub fn parse(name: &str) -> Result<$name, PathError> {
                check_name(name, $kind, $limit, $slash)?;
                Ok($name(name.to_owned()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = PathError;

            fn try_from(name: String) -> Result<$name, PathError> {
                $name::parse(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name!(
    /// An account: `AUTH_` and the id of an OpenStack project.
    AccountName, "account", MAX_CONTAINER_NAME_BYTES, slash: false
);

name!(
    /// A container: for Heat the UUID of a stack.
    ContainerName, "container", MAX_CONTAINER_NAME_BYTES, slash: false
);

name!(
    /// An object: for Heat the physical name of a handle. It may contain slashes.
    ObjectName, "object", MAX_OBJECT_NAME_BYTES, slash: true
);

impl AccountName {
    /// The account of an OpenStack project.
    pub fn of_project(project_id: &str) -> Result<AccountName, PathError> {
        AccountName::parse(&format!("{ACCOUNT_PREFIX}{project_id}"))
    }

    /// The id of the project that the account belongs to.
    #[must_use]
    pub fn project_id(&self) -> &str {
        &self.0[ACCOUNT_PREFIX.len()..]
    }
}

fn check_name(name: &str, kind: &'static str, limit: usize, slash: bool) -> Result<(), PathError> {
    if name.is_empty() {
        return Err(PathError::Empty { kind });
    }
    if name.len() > limit {
        return Err(PathError::TooLong { kind, limit });
    }
    if name.contains('\0') || (!slash && name.contains('/')) {
        return Err(PathError::BadCharacter { kind });
    }
    if kind == "account" {
        return match name.strip_prefix(ACCOUNT_PREFIX) {
            Some("") => Err(PathError::Empty { kind }),
            Some(_) => Ok(()),
            None => Err(PathError::NoAccountPrefix),
        };
    }
    Ok(())
}

/// A path of the Swift API, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwiftPath {
    Account(AccountName),
    Container(AccountName, ContainerName),
    Object(AccountName, ContainerName, ObjectName),
}

impl SwiftPath {
    /// Reads the path of a request line, percent-encoded and without its query.
    pub fn parse(path: &str) -> Result<SwiftPath, PathError> {
        let decoded = percent::decode_text(path).ok_or(PathError::BadEncoding)?;
        let rest = decoded.strip_prefix("/v1/").ok_or(PathError::NotSwift)?;

        let (account, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let account = AccountName::parse(account)?;
        if rest.is_empty() {
            return Ok(SwiftPath::Account(account));
        }
        let (container, object) = rest.split_once('/').unwrap_or((rest, ""));
        let container = ContainerName::parse(container)?;
        if object.is_empty() {
            return Ok(SwiftPath::Container(account, container));
        }
        Ok(SwiftPath::Object(account, container, ObjectName::parse(object)?))
    }

    #[must_use]
    pub fn account(&self) -> &AccountName {
        match self {
            SwiftPath::Account(account)
            | SwiftPath::Container(account, _)
            | SwiftPath::Object(account, _, _) => account,
        }
    }

    /// The path as TempURL signatures cover it: decoded, from `/v1/` on.
    #[must_use]
    pub fn decoded(&self) -> String {
        match self {
            SwiftPath::Account(account) => format!("/v1/{account}"),
            SwiftPath::Container(account, container) => format!("/v1/{account}/{container}"),
            SwiftPath::Object(account, container, object) => {
                format!("/v1/{account}/{container}/{object}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expect: &str) {
        let seen = match SwiftPath::parse(path) {
            Ok(path) => {
                let kind = match path {
                    SwiftPath::Account(..) => "account",
                    SwiftPath::Container(..) => "container",
                    SwiftPath::Object(..) => "object",
                };
                format!("{kind} {}", path.decoded())
            }
            Err(error) => error.code().to_owned(),
        };
        assert_eq!(seen, expect, "{path}");
    }

    #[test]
    fn paths_are_decoded_and_split_as_swift_does() {
        for (path, expect) in [
            ("/v1/AUTH_p", "account /v1/AUTH_p"),
            ("/v1/AUTH_p/", "account /v1/AUTH_p"),
            ("/v1/AUTH_p/c", "container /v1/AUTH_p/c"),
            ("/v1/AUTH_p/c/", "container /v1/AUTH_p/c"),
            ("/v1/AUTH_p/c/o", "object /v1/AUTH_p/c/o"),
            ("/v1/AUTH_p/c/o/00000001", "object /v1/AUTH_p/c/o/00000001"),
            ("/v1/AUTH_p%2Fc%2Fo", "object /v1/AUTH_p/c/o"),
            ("/v1/AUTH_p/c/%C3%BC", "object /v1/AUTH_p/c/ü"),
            ("/v1/AUTH_p/c/..", "object /v1/AUTH_p/c/.."),
            ("/", "path_unknown"),
            ("/v1", "path_unknown"),
            ("/v2/AUTH_p", "path_unknown"),
            ("/v1/", "name_empty"),
            ("/v1/AUTH_", "name_empty"),
            ("/v1/AUTH_p//o", "name_empty"),
            ("/v1/p/c", "account_bad_prefix"),
            ("/v1/AUTH_p/%ff", "path_bad_encoding"),
            ("/v1/AUTH_p/%2", "path_bad_encoding"),
            ("/v1/AUTH_p/%00", "name_bad_character"),
        ] {
            check(path, expect);
        }
    }

    #[test]
    fn name_limits_are_exact() {
        let container = "c".repeat(MAX_CONTAINER_NAME_BYTES);
        let object = "o".repeat(MAX_OBJECT_NAME_BYTES);
        assert!(SwiftPath::parse(&format!("/v1/AUTH_p/{container}/{object}")).is_ok());
        check(&format!("/v1/AUTH_p/{container}c"), "name_too_long");
        check(&format!("/v1/AUTH_p/c/{object}o"), "name_too_long");
        check(&format!("/v1/AUTH_{container}"), "name_too_long");
    }

    proptest::proptest! {
        #[test]
        fn no_path_makes_it_panic_and_a_checked_one_reads_back(path in "/v1/[ -~]{0,40}") {
            if let Ok(parsed) = SwiftPath::parse(&path) {
                let encoded = parsed.decoded().replace('%', "%25");
                proptest::prop_assert_eq!(SwiftPath::parse(&encoded), Ok(parsed));
            }
        }
    }
}
