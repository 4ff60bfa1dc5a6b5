//! A map of the document against its table of keys.

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, Position, quote_key};
use crate::userdata::schema::Key;
use crate::userdata::suggest::nearest;
use crate::userdata::yaml::{Content, Entry, Node};

/// The fields of one map, all of them known and none given twice.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    fields: Vec<Field<'a>>,
    position: Position,
    label: String,
}

/// One key with its value.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) key: &'static Key,
    pub(crate) node: &'a Node,
    pub(crate) position: Position,
}

/// Values must not reach a log.
impl std::fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.key.name, self.position)
    }
}

impl<'a> Fields<'a> {
    /// Checks a map against a table. `label` names the map in messages.
    pub(crate) fn of(
        label: &str,
        node: &'a Node,
        table: &'static [Key],
    ) -> Result<Fields<'a>, Diagnostic> {
        let mut context = Context { warnings: Vec::new(), is_strict: true };
        Fields::of_tables(label, node, &[table], &[], &mut context)
    }

    /// The same against several tables, with keys that are known and refused. Keys that start with
    /// `x-` are for other programs.
    pub(crate) fn of_tables(
        label: &str,
        node: &'a Node,
        tables: &[&'static [Key]],
        refused: &[(&str, &str)],
        context: &mut Context,
    ) -> Result<Fields<'a>, Diagnostic> {
        let Content::Map(entries) = &node.content else {
            let message = format!("{label} must be a map, not {}", node.kind());
            return Err(Diagnostic::new("wrong_type", node.position, message));
        };
        let mut fields: Vec<Field<'a>> = Vec::with_capacity(entries.len());
        for entry in entries {
            if !refused.is_empty() && entry.key.starts_with("x-") {
                continue;
            }
            let Some(key) = find(tables, &entry.key) else {
                let diagnostic = unknown(label, entry, tables, refused);
                if context.is_strict || diagnostic.code != "unknown_key" {
                    return Err(diagnostic);
                }
                context.warn("unknown_key", entry.key_position, diagnostic.message);
                continue;
            };
            if let Some(first) = fields.iter().find(|field| field.key.name == key.name) {
                let message = format!(
                    "{} is given already at {}, in another spelling",
                    quote_key(&entry.key),
                    first.position
                );
                return Err(Diagnostic::new("duplicate_key", entry.key_position, message)
                    .suggest("remove one of the two"));
            }
            fields.push(Field { key, node: &entry.value, position: entry.key_position });
        }
        Ok(Fields { fields, position: node.position, label: label.to_owned() })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Field<'a>> {
        self.fields.iter().find(|field| field.key.name == name).copied()
    }

    /// A key that the map cannot do without.
    pub(crate) fn require(&self, name: &'static str) -> Result<Field<'a>, Diagnostic> {
        self.get(name).ok_or_else(|| {
            let message = format!("{} needs the key `{name}`", self.label);
            Diagnostic::new("missing_key", self.position, message)
        })
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'a>> {
        self.fields.iter().copied()
    }
}

fn find(tables: &[&'static [Key]], written: &str) -> Option<&'static Key> {
    let mut keys = tables.iter().flat_map(|table| table.iter());
    keys.find(|key| key.name == written || key.aliases.contains(&written))
}

fn unknown(
    label: &str,
    entry: &Entry,
    tables: &[&'static [Key]],
    refused: &[(&str, &str)],
) -> Diagnostic {
    let written = quote_key(&entry.key);
    if let Some((_, instead)) = refused.iter().find(|(name, _)| *name == entry.key) {
        let message = format!("the key {written} is not supported");
        return Diagnostic::new("refused_key", entry.key_position, message).suggest(*instead);
    }
    let message = format!("{label} has no key {written}");
    let diagnostic = Diagnostic::new("unknown_key", entry.key_position, message);
    let keys = tables.iter().flat_map(|table| table.iter());
    let known = keys.flat_map(|key| key.aliases.iter().copied().chain([key.name]));
    let Some(meant) = nearest(&entry.key, known).and_then(|spelling| find(tables, spelling)) else {
        return diagnostic;
    };
    diagnostic.suggest(format!("did you mean `{}`?", meant.name))
}
