//! The reference of all keys, from the tables that the parser uses.
//!
//! `docs/document.md` holds it between two marker lines, and a test compares the two.

use std::fmt::Write;

use crate::userdata::document::OutputName;
use crate::userdata::schema::keys::{
    DOCUMENT_KEYS, HEALTHCHECK_KEYS, PORT_KEYS, REFUSED_KEYS, SIGNAL_KEYS, VOLUME_KEYS,
};
use crate::userdata::schema::{Key, Placement};

/// The tables in Markdown.
pub fn markdown() -> String {
    let mut text = String::new();
    section(&mut text, "Keys of the document", DOCUMENT_KEYS);
    section(&mut text, "Keys of `signal`", SIGNAL_KEYS);
    section(&mut text, "Keys of `healthcheck`", HEALTHCHECK_KEYS);
    section(&mut text, "Keys of an entry of `ports`", PORT_KEYS);
    section(&mut text, "Keys of an entry of `volumes`", VOLUME_KEYS);
    outputs(&mut text);
    refused(&mut text);
    text
}

fn section(text: &mut String, title: &str, keys: &[Key]) {
    line(text, &format!("### {title}\n"));
    for key in keys {
        line(text, &format!("- **`{}`**: {}. {}", key.name, key.kind.shape(), key.summary));
        let mut facts = vec![format!("Default: {}.", key.default)];
        if !key.aliases.is_empty() {
            facts.push(format!("Also: {}.", list(key.aliases.iter().copied())));
        }
        match key.placement {
            Placement::Field(path) => facts.push(format!("Engine: `{path}`.")),
            Placement::Elsewhere("" | "the agent") => {}
            Placement::Elsewhere(place) => facts.push(format!("Engine: {place}.")),
        }
        if std::ptr::eq(keys, DOCUMENT_KEYS) {
            facts.push(format!("From: {}.", key.origin));
        }
        line(text, &format!("  {}", facts.join(" ")));
    }
    line(text, "");
}

fn outputs(text: &mut String) {
    line(text, "### Names in `outputs`\n");
    let names = list(OutputName::ALL.iter().map(|name| name.as_str()));
    let default = list(OutputName::DEFAULT.iter().map(|name| name.as_str()));
    line(text, &format!("{names}.\n\nWithout `outputs`: {default}.\n"));
}

fn refused(text: &mut String) {
    line(text, "### Keys that are refused\n");
    for (name, instead) in REFUSED_KEYS {
        line(text, &format!("- `{name}`: {instead}."));
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn line(text: &mut String, line: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{line}");
}
