//! Every key that a document may have, each in one place.
//!
//! How to add a key: add its row to a table in `schema/`. The row's [`Kind`] says how the value is
//! read and checked; its [`Placement`] says where it goes in the body of `POST
//! /containers/create`. A key of an existing kind with a plain place needs nothing else: the
//! parser, the suggestions, the plan, `heliograph-agent schema` and `docs/document.md` all come
//! from the table. A new kind needs a reader in `read/`.

pub(crate) mod service;

pub(crate) mod host;

pub(crate) mod document;

pub(crate) mod parts;

pub(crate) mod shared;

pub(crate) mod refused;

pub(crate) mod kind;

pub(crate) mod json;

pub(crate) use crate::userdata::schema::kind::Kind;

/// One key of one map.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Other spellings that are accepted, from the sources in `origin`.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) kind: Kind,
    pub(crate) placement: Placement,
    /// What holds without the key, for the reference.
    pub(crate) default: &'static str,
    /// Who had this key first: `compose`, `heat` (the Docker plugin), `2013` (the first `#docker`),
    /// `nova` (its Docker driver), `konlet` or `docker-cmd`.
    pub(crate) origin: &'static str,
    /// One or two sentences for the reference.
    pub(crate) summary: &'static str,
    /// Lines of a document that show it, without its header. Empty in the tables of nested maps,
    /// which have an example for all of their keys.
    pub(crate) example: &'static str,
}

/// The keys of a nested map, and documents that show all of them.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) keys: &'static [Key],
    pub(crate) examples: &'static [&'static str],
}

/// Where a key's value ends up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Placement {
    /// A field of the create body, dots between its levels.
    Field(&'static str),
    /// Somewhere that needs code of its own; the text is for the reference.
    Elsewhere(&'static str),
}

/// Rows as people read them: names, kind and place, default and origin, summary, example.
macro_rules! keys {
    ($($name:literal $(, $alias:literal)* => $kind:expr, $placement:expr;
       default $default:literal; from $origin:literal; $summary:literal $(; $example:literal)?)*) => {
        &[$(crate::userdata::schema::Key {
            name: $name,
            aliases: &[$($alias),*],
            kind: $kind,
            placement: $placement,
            default: $default,
            origin: $origin,
            summary: $summary,
            example: concat!($($example)?),
        }),*]
    };
}
pub(crate) use keys;

/// The document that an example stands for: one that says no image gets one.
pub(crate) fn example_document(example: &str) -> String {
    let says_what_runs = ["image:", "Image:", "services:"]
        .iter()
        .any(|key| example.lines().any(|line| line.starts_with(key)));
    let image = if says_what_runs { "" } else { "image: busybox\n" };
    format!("#docker\n{image}{}\n", example.trim_end())
}

/// Every container is made with these, so that a chatty one cannot fill the instance's disk:
/// `docker logs` keeps the last 30 MB. Podman knows `json-file` as a name of its own format.
pub(crate) const LOG_DRIVER: &str = "json-file";
pub(crate) const LOG_OPTIONS: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

#[cfg(test)]
mod tests;
