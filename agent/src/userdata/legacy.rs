//! The line form of 2013.
//!
//! The first `#docker` user data was not YAML for long: each line was split at its first colon,
//! and quotes were optional. `cmd: echo a: b` worked, and is not YAML. Such a document is still
//! read, but only if it can be nothing else: every line is a comment or sets `image` or `cmd`.

use crate::userdata::diagnostic::Position;
use crate::userdata::yaml::{Content, Entry, Node, Scalar};

/// The document as a tree, or None if it is not in the line form.
pub(crate) fn parse(text: &str) -> Option<Node> {
    let mut entries: Vec<Entry> = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (key, value) = trimmed.split_once(':')?;
        let key = key.trim();
        let is_repeated = entries.iter().any(|entry| entry.key == key);
        if !matches!(key, "image" | "cmd") || is_repeated {
            return None;
        }
        let line_number = index + 1;
        let key_column = 1 + line.chars().take_while(|c| c.is_whitespace()).count();
        let value_column = 2 + line.chars().take_while(|c| *c != ':').count();
        entries.push(Entry {
            key: key.to_owned(),
            key_position: Position { line: line_number, column: key_column },
            value: Node {
                position: Position { line: line_number, column: value_column },
                content: Content::Scalar(Scalar { text: unquote(value), quoted: true }),
            },
        });
    }
    let position = entries.first()?.key_position;
    Some(Node { position, content: Content::Map(entries) })
}

/// As in 2013: every quote and blank at either end goes, whether they match or not.
fn unquote(value: &str) -> String {
    value.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).to_owned()
}
