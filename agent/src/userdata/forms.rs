//! Documents of other programs, as trees in our form.
//!
//! A converted tree keeps the positions of what it is made from, so whatever is wrong with it is
//! reported at the place where its author wrote it.

pub(crate) mod docker_cmd;

pub(crate) mod konlet;

pub(crate) mod heat;

pub(crate) mod compose;

use crate::userdata::diagnostic::{Diagnostic, Position, quote_key};
use crate::userdata::yaml::{Content, Entry, Node, Scalar};

fn scalar(text: impl Into<String>, position: Position) -> Node {
    Node { position, content: Content::Scalar(Scalar { text: text.into(), quoted: true }) }
}

/// A scalar that is read as what it looks like.
fn plain(text: &str, position: Position) -> Node {
    Node { position, content: Content::Scalar(Scalar { text: text.to_owned(), quoted: false }) }
}

fn list(items: Vec<Node>, position: Position) -> Node {
    Node { position, content: Content::List(items) }
}

fn map(entries: Vec<Entry>, position: Position) -> Node {
    Node { position, content: Content::Map(entries) }
}

fn entry(key: &str, value: Node) -> Entry {
    Entry { key: key.to_owned(), key_position: value.position, value }
}

/// The entries of a map.
fn entries_of<'a>(label: &str, node: &'a Node) -> Result<&'a [Entry], Diagnostic> {
    match &node.content {
        Content::Map(entries) => Ok(entries),
        _ => Err(crate::userdata::scalar::wrong_type(label, node, "a map")),
    }
}

/// The error for a key that the other program has and that nothing here stands for.
fn unsupported(form: &str, entry: &Entry) -> Diagnostic {
    let message = format!("the key {} of {form} is not supported", quote_key(&entry.key));
    Diagnostic::new("refused_key", entry.key_position, message)
}

/// A name that a service may have, made from any name.
fn service_name(written: &str) -> String {
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' };
    let name: String = written.chars().take(63).map(plain).collect();
    let name = name.trim_start_matches(['_', '.', '-']);
    if name.is_empty() { "main".to_owned() } else { name.to_owned() }
}

/// One service stands at the top of a document, several under `services`.
fn document(mut services: Vec<Entry>, shared: Vec<Entry>, position: Position) -> Node {
    let mut entries = match services.len() {
        1 if shared.is_empty() => match services.remove(0).value.content {
            Content::Map(entries) => entries,
            _ => Vec::new(),
        },
        _ => vec![entry("services", map(services, position))],
    };
    entries.extend(shared);
    map(entries, position)
}
