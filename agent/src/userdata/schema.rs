//! Every key that a document may have, each in one place.
//!
//! How to add a key: add its row to the table of its map, in `schema/keys.rs`. The row's [`Kind`]
//! says how the value is read and checked; its [`Placement`] says where it goes in the body of
//! `POST /containers/create`. A key of an existing kind with a plain place needs nothing else: the
//! parser, the suggestions, the plan and `docs/document.md` all come from the table. A new kind
//! needs a reader in `read.rs`, and a value of its own where the engine's form is not plain.

pub(crate) mod keys;

use crate::userdata::document::{OutputName, PullPolicy, When};

/// One key of one map.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Other spellings that are accepted, from the sources in `origin`.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) kind: Kind,
    /// What holds without the key, for the reference.
    pub(crate) default: &'static str,
    pub(crate) placement: Placement,
    /// One sentence for the reference.
    pub(crate) summary: &'static str,
    /// Who had this key first: `compose`, `heat` (the Docker plugin), `2013` (the first `#docker`).
    pub(crate) origin: &'static str,
}

/// Where a key's value ends up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Placement {
    /// A field of the create body, dots between its levels.
    Field(&'static str),
    /// Somewhere that needs code of its own; the text is for the reference.
    Elsewhere(&'static str),
}

/// How a value is read and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    Text,
    ContainerName,
    Hostname,
    AbsolutePath,
    Flag,
    Size,
    Cpus,
    Count,
    Duration,
    /// A string for `/bin/sh -c`, or a list of words.
    ShellCommand,
    /// A string that is split into words without a shell, or a list of words.
    SplitCommand,
    Environment,
    Labels,
    Ports,
    Volumes,
    Restart,
    Healthcheck,
    HealthTest,
    Pull,
    When,
    SignalUrl,
    SignalJson,
    Signal,
    Outputs,
    /// Read by the code of the map that it stands in.
    Part(&'static str),
}

impl Kind {
    /// The expected shape, for messages and the reference.
    pub(crate) fn shape(self) -> &'static str {
        match self {
            Kind::Image => "an image reference such as `registry/name:tag`",
            Kind::Text => "a string",
            Kind::ContainerName => "a name of letters, digits, `_`, `.` and `-`",
            Kind::Hostname => "a host name of at most 64 letters, digits, `-` and `.`",
            Kind::AbsolutePath => "an absolute path",
            Kind::Flag => "true or false",
            Kind::Size => "a size such as 512m or 1g",
            Kind::Cpus => "a number of processors such as 1.5",
            Kind::Count => "a whole number",
            Kind::Duration => "a duration such as 90s or 1m30s",
            Kind::ShellCommand => "a shell command line, or a list of words",
            Kind::SplitCommand => "a command line without shell, or a list of words",
            Kind::Environment => "a list of NAME=value, or a map",
            Kind::Labels => "a list of name=value, or a map",
            Kind::Ports => "a list of [ip:][host:]container[/protocol], or of maps",
            Kind::Volumes => "a list of [source:]target[:options], or of maps",
            Kind::Restart => "no, always, on-failure[:retries] or unless-stopped",
            Kind::Healthcheck => "a map",
            Kind::HealthTest => "a shell command line, or a list that starts with CMD",
            Kind::Pull => "always, missing or never",
            Kind::When => "created, running, healthy or exit",
            Kind::SignalUrl => "an http or https URL",
            Kind::SignalJson => "the handle's `signal` attribute, as JSON",
            Kind::Signal => "a URL, the handle's `signal` attribute, or a map",
            Kind::Outputs => "a list of output names",
            Kind::Part(shape) => shape,
        }
    }

    /// The words that are accepted, where only certain words are.
    pub(crate) fn words(self) -> Vec<&'static str> {
        match self {
            Kind::Restart => vec!["no", "always", "on-failure", "unless-stopped"],
            Kind::Pull => PullPolicy::WORDS.iter().map(|(word, _)| *word).collect(),
            Kind::When => When::WORDS.iter().map(|(word, _)| *word).collect(),
            Kind::Outputs => OutputName::ALL.iter().map(|name| name.as_str()).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::userdata::schema::keys::{
        DOCUMENT_KEYS, HEALTHCHECK_KEYS, PORT_KEYS, REFUSED_KEYS, RESTART_KEYS, SIGNAL_KEYS,
        VOLUME_KEYS,
    };

    #[test]
    fn spellings_are_unique_and_rows_are_complete() {
        let tables =
            [DOCUMENT_KEYS, SIGNAL_KEYS, HEALTHCHECK_KEYS, PORT_KEYS, VOLUME_KEYS, RESTART_KEYS];
        for table in tables {
            let mut seen = HashSet::new();
            for key in table {
                assert!(seen.insert(key.name), "{} twice", key.name);
                for alias in key.aliases {
                    assert!(seen.insert(alias), "{alias} twice");
                }
                assert!(!key.default.is_empty(), "{} has no default", key.name);
            }
        }
        for (name, _) in REFUSED_KEYS {
            assert!(!DOCUMENT_KEYS.iter().any(|key| key.name == *name), "{name} is not refused");
        }
    }
}
