//! The reference of all keys, from the tables that the parser uses.
//!
//! `docs/document.md` holds it between two marker lines, and a test compares the two.

use std::fmt::Write;

use crate::userdata::document::OutputName;
use crate::userdata::schema::document::{AGENT_KEYS, SERVICES_KEYS};
use crate::userdata::schema::host::HOST_KEYS;
use crate::userdata::schema::parts::PARTS;
use crate::userdata::schema::refused::REFUSED_KEYS;
use crate::userdata::schema::service::SERVICE_KEYS;
use crate::userdata::schema::shared::SHARED;
use crate::userdata::schema::{Key, Placement, Table, example_document};

/// The tables in Markdown.
pub fn markdown() -> String {
    let mut text = String::new();
    section(&mut text, "Keys of a service: its process", SERVICE_KEYS);
    section(&mut text, "Keys of a service: what it may use", HOST_KEYS);
    section(&mut text, "Keys of every document", AGENT_KEYS);
    section(&mut text, "Keys beside `services`", SERVICES_KEYS);
    for table in PARTS.iter().chain(SHARED) {
        nested(&mut text, table);
    }
    outputs(&mut text);
    refused(&mut text);
    text
}

/// Every example of the reference as a whole document, with what it shows.
pub fn examples() -> Vec<(String, String)> {
    let tables = [SERVICE_KEYS, HOST_KEYS, AGENT_KEYS, SERVICES_KEYS];
    let rows = tables.into_iter().flatten();
    let rows = rows.map(|key| (key.name.to_owned(), example_document(key.example)));
    let nested = PARTS.iter().chain(SHARED).flat_map(|table| {
        table.examples.iter().map(|example| (table.title.to_owned(), example_document(example)))
    });
    rows.chain(nested).collect()
}

fn section(text: &mut String, title: &str, keys: &[Key]) {
    line(text, &format!("### {title}\n"));
    for key in keys {
        row(text, key, true);
        code(text, key.example, "  ");
    }
    line(text, "");
}

fn nested(text: &mut String, table: &Table) {
    line(text, &format!("### Keys of {}\n", table.title));
    for key in table.keys {
        row(text, key, false);
    }
    line(text, "");
    for example in table.examples {
        code(text, example, "");
        line(text, "");
    }
}

fn row(text: &mut String, key: &Key, with_origin: bool) {
    line(text, &format!("- **`{}`**: {}. {}", key.name, key.kind.description(), key.summary));
    let mut facts = vec![format!("Default: {}.", key.default)];
    if !key.aliases.is_empty() {
        facts.push(format!("Also: {}.", list(key.aliases.iter().copied())));
    }
    match key.placement {
        Placement::Field(path) => facts.push(format!("Engine: `{path}`.")),
        Placement::Elsewhere("" | "the agent") => {}
        Placement::Elsewhere(place) => facts.push(format!("Engine: {place}.")),
    }
    if with_origin {
        facts.push(format!("From: {}.", key.origin));
    }
    line(text, &format!("  {}", facts.join(" ")));
}

fn code(text: &mut String, example: &str, indent: &str) {
    line(text, &format!("{indent}```yaml"));
    for one in example.lines() {
        line(text, &format!("{indent}{one}"));
    }
    line(text, &format!("{indent}```"));
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
