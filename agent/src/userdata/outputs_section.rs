//! `outputs`: what a SUCCESS carries.
//!
//! A list of names, or a map from names of the document's own to what they stand for: a name of
//! ours, and after a dot a place in it, such as `network_info.Networks.front.IPAddress`.

use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::document::{Output, OutputName};
use crate::userdata::scalar::{any_text, bad, wrong_type};
use crate::userdata::schema::Kind;
use crate::userdata::suggest::nearest;
use crate::userdata::yaml::{Content, Node};

/// A map's values are JSON in a signal of a megabyte; nobody reads more names than these.
const MAX_OUTPUTS: usize = 64;

/// A name, or a place in an output, is shorter than a path of the engine's inspection.
const MAX_NAME_BYTES: usize = 255;

pub(crate) fn read(label: &str, node: &Node) -> Result<Vec<Output>, Diagnostic> {
    let outputs = match &node.content {
        Content::List(items) => listed(label, items)?,
        Content::Map(entries) => {
            let of_entry = |(name, value): (&str, &Node)| -> Result<Output, Diagnostic> {
                if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(char::is_control)
                {
                    let shape = "a map whose names have at most 255 bytes";
                    return Err(bad("bad_name", label, value, shape));
                }
                let (source, path) = source(label, value)?;
                Ok(Output { name: name.to_owned(), source, path })
            };
            let entries = entries.iter().map(|entry| (entry.key.as_str(), &entry.value));
            entries.map(of_entry).collect::<Result<_, _>>()?
        }
        Content::Scalar(_) => return Err(wrong_type(label, node, Kind::Outputs.shape())),
    };
    if outputs.len() > MAX_OUTPUTS {
        let message = format!("{} has more than {MAX_OUTPUTS} entries", quote_key(label));
        return Err(Diagnostic::new("too_many", node.position, message));
    }
    Ok(outputs)
}

fn listed(label: &str, items: &[Node]) -> Result<Vec<Output>, Diagnostic> {
    let mut outputs: Vec<Output> = Vec::with_capacity(items.len());
    for item in items {
        let output = Output::from(named(label, item, any_text(label, item)?)?);
        if outputs.contains(&output) {
            let message = format!("{} names one output twice", quote_key(label));
            return Err(Diagnostic::new("duplicate_key", item.position, message));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// `name`, or `name.place`.
fn source(label: &str, node: &Node) -> Result<(OutputName, Option<String>), Diagnostic> {
    let written = any_text(label, node)?;
    let (name, path) = match written.split_once('.') {
        Some((name, path)) => (name, Some(path)),
        None => (written, None),
    };
    let is_bad = |path: &str| path.len() > MAX_NAME_BYTES || path.split('.').any(str::is_empty);
    if path.is_some_and(is_bad) {
        let shape = "a map to names of outputs, with places in them after dots";
        return Err(bad("bad_output", label, node, shape));
    }
    Ok((named(label, node, name)?, path.map(str::to_owned)))
}

fn named(label: &str, node: &Node, written: &str) -> Result<OutputName, Diagnostic> {
    if let Some(name) = OutputName::ALL.into_iter().find(|name| name.as_str() == written) {
        return Ok(name);
    }
    let message = format!("{} has no output of this name", quote_key(label));
    let diagnostic = Diagnostic::new("unknown_output", node.position, message);
    Err(match nearest(written, Kind::Outputs.words()) {
        Some(meant) => diagnostic.suggest(format!("did you mean {meant}?")),
        None => diagnostic,
    })
}
