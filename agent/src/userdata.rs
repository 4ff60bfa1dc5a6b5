//! From the bytes of the user data to a checked document.
//!
//! [`load`] is the whole way: `decode` unwraps base64, gzip and MIME until a `#docker` text is
//! left, `yaml` makes a tree of it, and `parse` reads the tree against the tables of `schema`.
//! Nothing here does I/O, and nothing here can make an error message out of a value.

pub mod access;
pub mod document;
pub mod image;

pub mod decode;

pub mod diagnostic;

mod context;
mod parse;

pub(crate) mod schema;

pub mod convert;

mod definitions;
mod emit;
mod fields;
mod forms;
mod inputs;
pub mod interpolate;
pub(crate) mod read;
mod services;
pub(crate) mod together;

mod legacy;
mod outputs_section;
pub(crate) mod ports;
mod scalar;
mod signal_section;
mod suggest;
pub(crate) mod value;
pub(crate) mod volumes;
mod words;
pub(crate) mod yaml;

pub mod reference;

#[cfg(test)]
mod tests;

pub use crate::userdata::decode::{Decoded, decode};
pub use crate::userdata::interpolate::Facts;
pub use crate::userdata::parse::{parse, parse_with};

use crate::userdata::decode::{ContentKind, DecodeError};
use crate::userdata::diagnostic::Diagnostic;
use crate::userdata::document::{Document, SignalTarget};
use crate::userdata::yaml::Content;

/// Decodes and parses user data, as far as that can be done without its instance.
pub fn load(bytes: &[u8]) -> Result<Document, UserDataError> {
    load_with(bytes, &Facts::default())
}

/// Decodes and parses user data on its instance.
pub fn load_with(bytes: &[u8], facts: &Facts) -> Result<Document, UserDataError> {
    match decode(bytes).map_err(UserDataError::Decode)? {
        Decoded::Docker(text) => parse_with(&text, facts).map_err(UserDataError::Document),
        Decoded::NotDocker(kind) => Err(UserDataError::NotDocker(kind)),
    }
}

/// The handle of user data that [`load`] refuses, so that its author can be told why.
///
/// Lenient: it looks for a `signal` key and forgives everything around it. A text that is not even
/// YAML is searched line by line.
pub fn signal_target_of(bytes: &[u8]) -> Option<SignalTarget> {
    let Ok(Decoded::Docker(text)) = decode(bytes) else { return None };
    match yaml::parse(&text) {
        Ok(root) => target_in_tree(root?.get("signal")?),
        Err(_) => text.lines().take(MAX_SEARCHED_LINES).find_map(target_in_line),
    }
}

/// A document that is not YAML is searched no further than this.
const MAX_SEARCHED_LINES: usize = 10_000;

fn target_in_tree(signal: &yaml::Node) -> Option<SignalTarget> {
    let inner = ["url", "handle", "json"].into_iter().find_map(|key| signal.get(key));
    signal_section::target(inner.unwrap_or(signal), &mut Vec::new()).ok().flatten()
}

/// `signal: …`, or `url: …` and `handle: …` below it, on one line.
fn target_in_line(line: &str) -> Option<SignalTarget> {
    let (key, value) = line.split_once(':')?;
    let is_handle = match key.trim() {
        "signal" => !key.starts_with(char::is_whitespace),
        "url" | "handle" | "json" => key.starts_with(char::is_whitespace),
        _ => false,
    };
    if !is_handle {
        return None;
    }
    if let Ok(Some(node)) = yaml::parse(value) {
        return target_in_tree(&node);
    }
    let text = value.trim().trim_matches(['"', '\'']).to_owned();
    let content = Content::Scalar(yaml::Scalar { text, quoted: true });
    let node = yaml::Node { position: diagnostic::Position::default(), content };
    signal_section::target(&node, &mut Vec::new()).ok().flatten()
}

/// Why user data is not a document. Every message may be signalled: none quotes the user data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    #[error("user data cannot be decoded: {0}")]
    Decode(DecodeError),
    #[error("user data does not start with a `#docker` line; it looks like {0}")]
    NotDocker(ContentKind),
    #[error("document has an error at {0}")]
    Document(Diagnostic),
}

impl UserDataError {
    /// Stable: scripts and tests compare it.
    pub fn code(&self) -> &'static str {
        match self {
            UserDataError::Decode(error) => error.code(),
            UserDataError::NotDocker(_) => "user_data_not_docker",
            UserDataError::Document(diagnostic) => diagnostic.code,
        }
    }
}
