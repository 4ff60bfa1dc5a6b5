//! YAML, as far as a document may use it, with the position of everything.
//!
//! The parser underneath gives events; this module builds a tree of [`Node`]s that keeps the line
//! and column of every key and value and the notation of every scalar. A deserializer into Rust
//! types would lose both, and with them the error messages and the difference between `no` and
//! `"no"`.
//!
//! The dialect is YAML 1.2 with the core schema and less: one document, no tags, no merge keys, no
//! directives, keys are scalars and unique. Aliases are expanded while the tree is built, against
//! budgets, so that nine lines cannot become nine gigabytes. A scalar keeps its original text; who
//! reads it decides what it may mean.
//!
//! Only this file names the YAML crate.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, Span};

use crate::userdata::diagnostic::{Diagnostic, Position, quote_key};

/// Four times the 64 KiB that Nova accepts for user data, because gzip may have packed it.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// The deepest legal document nests five levels; recursion over the tree must not exhaust a stack.
pub(crate) const MAX_DEPTH: usize = 32;

/// Nodes of the tree with every alias expanded. A long `environment` has hundreds.
pub(crate) const MAX_NODES: usize = 20_000;

/// Bytes of all scalars with every alias expanded: a few anchors over a large text must not
/// multiply it beyond this.
pub(crate) const MAX_EXPANDED_BYTES: usize = 1024 * 1024;

/// A value of the document and where it stands.
#[derive(Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) content: Content,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A scalar before anybody has decided on its type.
#[derive(Clone, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Quoted or a block: a string, whatever it looks like.
    pub(crate) quoted: bool,
}

/// One key of a map with its value.
#[derive(Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_position: Position,
    pub(crate) value: Node,
}

impl Scalar {
    /// Nothing, `~` or `null` without quotes.
    pub(crate) fn is_null(&self) -> bool {
        !self.quoted && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// A boolean of the core schema, without quotes.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self.text.as_str() {
            "true" | "True" | "TRUE" if !self.quoted => Some(true),
            "false" | "False" | "FALSE" if !self.quoted => Some(false),
            _ => None,
        }
    }
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(scalar) if scalar.is_null())
    }

    /// The value of a key, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let Content::Map(entries) = &self.content else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// What kind of node it is, for a message about the wrong one.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar(scalar) if scalar.is_null() => "nothing",
            Content::Scalar(_) => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }

    /// The same value as JSON, scalars read by the core schema.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.content {
            Content::Scalar(scalar) => scalar_to_json(scalar),
            Content::List(items) => items.iter().map(Node::to_json).collect(),
            Content::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

fn scalar_to_json(scalar: &Scalar) -> serde_json::Value {
    if scalar.is_null() {
        return serde_json::Value::Null;
    }
    if let Some(flag) = scalar.as_bool() {
        return flag.into();
    }
    if !scalar.quoted
        && let Ok(number) = scalar.text.parse::<serde_json::Number>()
    {
        return number.into();
    }
    scalar.text.clone().into()
}

/// Parses one YAML document. `Ok(None)` when there is nothing in it but comments.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, Diagnostic> {
    if text.len() > MAX_DOCUMENT_BYTES {
        let message = format!("the document is larger than {} KiB", MAX_DOCUMENT_BYTES / 1024);
        return Err(Diagnostic::new("document_too_large", START, message));
    }
    let mut options = granit_parser::options! {
        disallow_directives: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        builder.accept(event, &span)?;
    }
    Ok(builder.root)
}

const START: Position = Position { line: 1, column: 1 };

/// The parser counts columns from 0.
fn position_at(marker: Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

/// The parser's own messages describe grammar and quote at most one character of the text.
fn scan_error(error: &granit_parser::ScanError) -> Diagnostic {
    let position = position_at(*error.marker());
    let (code, message, suggestion) = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => {
            ("yaml_tab", "a tab stands where YAML wants spaces", Some("indent with spaces"))
        }
        ErrorKind::RecursionLimitExceeded => ("yaml_too_deep", "the document nests too deep", None),
        ErrorKind::UnknownAnchor => ("yaml_alias", "the alias has no anchor before it", None),
        ErrorKind::DirectiveDisallowed => {
            ("yaml_directive", "YAML directives are not supported", Some("remove the `%` line"))
        }
        ErrorKind::UndeclaredTagHandle => ("yaml_tag", "YAML tags are not supported", None),
        ErrorKind::MappingValueNotAllowed
        | ErrorKind::InvalidMappingValueWhitespace
        | ErrorKind::InvalidColonPlacement => (
            "yaml_syntax",
            "a `:` makes this line a key where no key may stand",
            Some("put quotes around a value that contains a colon"),
        ),
        ErrorKind::ExpectedFlowMappingSeparator => (
            "yaml_syntax",
            "a `,` or `}` is missing here",
            Some("put quotes around a value that contains a colon"),
        ),
        ErrorKind::UnclosedQuotedScalar => {
            ("yaml_syntax", "a quoted value is still open here", Some("add the missing quote"))
        }
        ErrorKind::UnexpectedCharacter { character: '@' | '`' } => (
            "yaml_syntax",
            "a value cannot start with this character",
            Some("put quotes around the value"),
        ),
        // The character may be the first one of a value.
        ErrorKind::UnexpectedCharacter { .. } => {
            ("yaml_syntax", "there is a character that YAML does not allow here", None)
        }
        kind => return Diagnostic::new("yaml_syntax", position, format!("not YAML: {kind}")),
    };
    let diagnostic = Diagnostic::new(code, position, message);
    match suggestion {
        Some(suggestion) => diagnostic.suggest(suggestion),
        None => diagnostic,
    }
}

/// A collection that is not complete yet.
struct Open {
    node: Node,
    anchor: usize,
    /// In a map: the key that waits for its value.
    key: Option<(String, Position)>,
    /// In a map: where each key was seen first.
    seen: HashMap<String, Position>,
}

/// Builds the tree from events; an explicit stack, so that depth costs no stack frames.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Weight)>,
    spent: Weight,
    document_seen: bool,
}

/// What a subtree costs of the budgets.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

impl Builder {
    fn accept(&mut self, event: Event<'_>, span: &Span) -> Result<(), Diagnostic> {
        let position = position_at(span.start);
        match event {
            Event::DocumentStart(..) if self.document_seen => Err(Diagnostic::new(
                "yaml_multiple_documents",
                position,
                "a second YAML document starts here",
            )
            .suggest("remove the `---` line")),
            Event::DocumentStart(..) => {
                self.document_seen = true;
                Ok(())
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => {
                let tag = span.tag_start().map_or(position, position_at);
                Err(Diagnostic::new("yaml_tag", tag, "YAML tags are not supported")
                    .suggest("remove the `!` tag, or put quotes around the value"))
            }
            Event::Scalar(text, style, anchor, None) => {
                let quoted = style != ScalarStyle::Plain;
                let content = Content::Scalar(Scalar { text: text.into_owned(), quoted });
                let node = Node { position, content };
                self.spend(weigh(&node), position)?;
                self.complete(node, anchor)
            }
            Event::SequenceStart(_, anchor, None) => {
                self.enter(Content::List(Vec::new()), anchor, position)
            }
            Event::MappingStart(_, anchor, None) => {
                self.enter(Content::Map(Vec::new()), anchor, position)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.complete(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let Some((node, weight)) = self.anchors.get(&anchor).cloned() else {
                    let message = "the alias stands inside its own anchor";
                    return Err(Diagnostic::new("yaml_alias", position, message));
                };
                self.spend(weight, position)?;
                self.complete(Node { position, ..node }, 0)
            }
            _ => Ok(()),
        }
    }

    fn enter(
        &mut self,
        content: Content,
        anchor: usize,
        position: Position,
    ) -> Result<(), Diagnostic> {
        if self.awaits_key() {
            return Err(Diagnostic::new("yaml_key", position, "a key must be a single value"));
        }
        self.spend(Weight { nodes: 1, bytes: 0, depth: 1 }, position)?;
        let node = Node { position, content };
        self.open.push(Open { node, anchor, key: None, seen: HashMap::new() });
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        let innermost = self.open.last();
        innermost.is_some_and(|o| matches!(o.node.content, Content::Map(_)) && o.key.is_none())
    }

    fn spend(&mut self, weight: Weight, position: Position) -> Result<(), Diagnostic> {
        self.spent.nodes = self.spent.nodes.saturating_add(weight.nodes);
        self.spent.bytes = self.spent.bytes.saturating_add(weight.bytes);
        if self.open.len() + weight.depth > MAX_DEPTH {
            return Err(Diagnostic::new("yaml_too_deep", position, "the document nests too deep"));
        }
        if self.spent.nodes > MAX_NODES || self.spent.bytes > MAX_EXPANDED_BYTES {
            let message = "the document is too large once its aliases are expanded";
            return Err(Diagnostic::new("yaml_too_large", position, message));
        }
        Ok(())
    }

    /// Puts a complete node where it belongs: as a key, a value, an item or the root.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        if anchor != 0 {
            let weight = weigh(&node);
            self.anchors.insert(anchor, (node.clone(), weight));
            // The copy lives as long as the parse and counts like the original.
            self.spend(Weight { depth: 0, ..weight }, node.position)?;
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node.content {
            Content::List(items) => items.push(node),
            Content::Map(entries) => match parent.key.take() {
                Some((key, key_position)) => {
                    entries.push(Entry { key, key_position, value: node });
                }
                None => {
                    let (key, position) = accept_key(node)?;
                    if let Some(first) = parent.seen.insert(key.clone(), position) {
                        return Err(duplicate(&key, first, position));
                    }
                    parent.key = Some((key, position));
                }
            },
            // A scalar is never opened.
            Content::Scalar(_) => {}
        }
        Ok(())
    }
}

fn accept_key(node: Node) -> Result<(String, Position), Diagnostic> {
    let position = node.position;
    let Content::Scalar(scalar) = node.content else {
        return Err(Diagnostic::new("yaml_key", position, "a key must be a single value"));
    };
    if scalar.is_null() {
        return Err(Diagnostic::new("yaml_key", position, "a key is missing before the `:`"));
    }
    if scalar.text == "<<" && !scalar.quoted {
        return Err(Diagnostic::new(
            "yaml_merge_key",
            position,
            "YAML merge keys are not supported",
        )
        .suggest("write the keys out"));
    }
    Ok((scalar.text, position))
}

fn duplicate(key: &str, first: Position, second: Position) -> Diagnostic {
    let message = format!("{} is given twice, first at {first}", quote_key(key));
    Diagnostic::new("duplicate_key", second, message).suggest("remove one of the two")
}

fn weigh(node: &Node) -> Weight {
    match &node.content {
        Content::Scalar(scalar) => Weight { nodes: 1, bytes: scalar.text.len(), depth: 0 },
        Content::List(items) => weigh_all(items.iter(), 0),
        Content::Map(entries) => {
            let key_bytes = entries.iter().map(|entry| entry.key.len()).sum();
            let mut weight = weigh_all(entries.iter().map(|entry| &entry.value), key_bytes);
            weight.nodes += entries.len();
            weight
        }
    }
}

fn weigh_all<'a>(children: impl Iterator<Item = &'a Node>, bytes: usize) -> Weight {
    children.map(weigh).fold(Weight { nodes: 1, bytes, depth: 1 }, |sum, child| Weight {
        nodes: sum.nodes + child.nodes,
        bytes: sum.bytes + child.bytes,
        depth: sum.depth.max(child.depth + 1),
    })
}

#[cfg(test)]
mod tests;
