//! `${…}` in the texts of a document.
//!
//! `${inputs.db.network_ip}` is a value of `inputs`, `${instance.name}` a fact of the instance, and
//! `${NAME}` an input or an entry of the instance's own metadata. `${NAME:-default}` has a default
//! for a name that is unknown or empty, `${NAME-default}` for one that is unknown; `$${` is `${`,
//! and `$$` is `$`, as Compose has it. A `$` before anything else is itself, so that a command's
//! `$HOME` reaches its shell. Nothing is run, and what was put in is not looked at again.
//!
//! An entry of `environment` that has no value is an old way to say `NAME: ${NAME}`, and gets one
//! here too.

use std::collections::BTreeMap;

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, Position, quote_key};
use crate::userdata::inputs::Input;
use crate::userdata::suggest::nearest;
use crate::userdata::yaml::{Content, MAX_EXPANDED_BYTES, Node, Scalar};

/// What the document may refer to and the agent may add.
#[derive(Clone, Default)]
pub struct Facts {
    /// What is known of the instance: `name`, `id`, `availability_zone`, `host_ip`, `meta.…`. None
    /// on a workstation, where a placeholder of the right form stands for each.
    pub instance: Option<BTreeMap<String, String>>,
    /// The image of a service that names none.
    pub default_image: Option<String>,
}

/// Metadata of an instance may be secret.
impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts")
            .field(
                "instance",
                &self.instance.as_ref().map(|facts| facts.keys().collect::<Vec<_>>()),
            )
            .field("default_image", &self.default_image)
            .finish()
    }
}

/// A name longer than this is no name.
const MAX_NAME_BYTES: usize = 512;

/// Replaces in every text of the tree but those of `inputs`.
pub(crate) fn interpolate(
    root: &mut Node,
    inputs: &Input,
    facts: &Facts,
    context: &mut Context,
) -> Result<(), Diagnostic> {
    let mut names = Names { inputs, facts, n_bytes: 0, context };
    if let Content::Map(entries) = &mut root.content {
        for entry in entries.iter_mut().filter(|entry| entry.key != "inputs") {
            names.visit(&mut entry.value)?;
        }
    }
    names.give_values(root)?;
    if let Some(Content::Map(services)) = content_of(root, &["services"]) {
        services.iter_mut().try_for_each(|service| names.give_values(&mut service.value))?;
    }
    Ok(())
}

const ENVIRONMENT: [&str; 3] = ["environment", "env", "Env"];

/// What stands under one of these keys.
fn content_of<'a>(node: &'a mut Node, keys: &[&str]) -> Option<&'a mut Content> {
    let Content::Map(entries) = &mut node.content else { return None };
    let entry = entries.iter_mut().find(|entry| keys.contains(&entry.key.as_str()))?;
    Some(&mut entry.value.content)
}

struct Names<'a> {
    inputs: &'a Input,
    facts: &'a Facts,
    n_bytes: usize,
    context: &'a mut Context,
}

impl Names<'_> {
    fn visit(&mut self, node: &mut Node) -> Result<(), Diagnostic> {
        let position = node.position;
        match &mut node.content {
            Content::Scalar(scalar) if scalar.text.contains('$') => {
                scalar.text = self.replace(&scalar.text, position)?;
                // An empty value is a text, and the text `null` is not nothing.
                scalar.quoted |= Scalar { text: scalar.text.clone(), quoted: false }.is_null();
                Ok(())
            }
            Content::Scalar(_) => Ok(()),
            Content::List(items) => items.iter_mut().try_for_each(|item| self.visit(item)),
            Content::Map(entries) => {
                entries.iter_mut().try_for_each(|entry| self.visit(&mut entry.value))
            }
        }
    }

    /// Values for those variables of a service that are only named.
    fn give_values(&mut self, service: &mut Node) -> Result<(), Diagnostic> {
        match content_of(service, &ENVIRONMENT) {
            Some(Content::Map(entries)) => {
                for entry in entries.iter_mut().filter(|entry| entry.value.is_null()) {
                    let label = quote_key(&entry.key);
                    let text = self.value_of_variable(&entry.key, &label, entry.key_position)?;
                    entry.value.content = Content::Scalar(Scalar { text, quoted: true });
                }
            }
            Some(Content::List(items)) => {
                for item in items {
                    let position = item.position;
                    let Content::Scalar(scalar) = &mut item.content else { continue };
                    if !scalar.is_null() && !scalar.text.contains('=') {
                        // What has no name in front of it may be a value that was meant for one.
                        let label = "in `environment`";
                        let value = self.value_of_variable(&scalar.text, label, position)?;
                        scalar.text = format!("{}={value}", scalar.text);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn value_of_variable(
        &mut self,
        name: &str,
        label: &str,
        position: Position,
    ) -> Result<String, Diagnostic> {
        let found = self.find(name, position);
        if found.is_none() && self.facts.instance.is_none() {
            let message = format!("a variable {label} is known on the instance only");
            self.context.warn("instance_unknown", position, message);
            return Ok(placeholder(name));
        }
        let value = found.ok_or_else(|| no_value(label, position))?;
        self.n_bytes += value.len();
        self.check_size(0, position)?;
        Ok(value)
    }

    fn replace(&mut self, text: &str, position: Position) -> Result<String, Diagnostic> {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            replaced.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                replaced.push('$');
                rest = after;
            } else if let Some(expression) = rest.strip_prefix('{') {
                let Some((expression, after)) = expression.split_once('}') else {
                    let message = "a `${` is never closed";
                    return Err(Diagnostic::new("bad_variable", position, message)
                        .suggest("write `$${` for a variable of the shell"));
                };
                replaced.push_str(&self.value(expression, position)?);
                rest = after;
            } else {
                replaced.push('$');
            }
            self.check_size(replaced.len(), position)?;
        }
        replaced.push_str(rest);
        self.n_bytes += replaced.len();
        self.check_size(0, position)?;
        Ok(replaced)
    }

    /// A few references to a long input must not fill the memory.
    fn check_size(&self, n_more: usize, position: Position) -> Result<(), Diagnostic> {
        if self.n_bytes + n_more > MAX_EXPANDED_BYTES {
            let message = "the document is too large once its variables are replaced";
            return Err(Diagnostic::new("document_too_large", position, message));
        }
        Ok(())
    }

    fn value(&mut self, expression: &str, position: Position) -> Result<String, Diagnostic> {
        let (name, default) = split(expression);
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_name) {
            let message = "what stands in `${…}` is not a name with or without a default";
            return Err(Diagnostic::new("bad_variable", position, message)
                .suggest("write `$${` for a variable of the shell"));
        }
        let found = self.find(name, position);
        match (found, default) {
            (Some(value), Default::IfEmpty(default)) if value.is_empty() => Ok(default.to_owned()),
            (Some(value), _) => Ok(value),
            (None, Default::IfEmpty(default) | Default::IfUnknown(default)) => {
                Ok(default.to_owned())
            }
            (None, Default::None) => Err(self.unknown(name, position)),
        }
    }

    fn find(&mut self, name: &str, position: Position) -> Option<String> {
        if let Some(path) = name.strip_prefix("inputs.") {
            return self.inputs.at(path).map(|input| input.text.clone());
        }
        let Some(fact) = name.strip_prefix("instance.") else {
            let input = self.inputs.parts.get(name).map(|input| input.text.clone());
            return input
                .or_else(|| self.facts.instance.as_ref()?.get(&format!("meta.{name}")).cloned());
        };
        let Some(facts) = &self.facts.instance else {
            let message = format!("{} is known on the instance only", quote_key(name));
            self.context.warn("instance_unknown", position, message);
            return Some(placeholder(fact));
        };
        facts.get(fact).cloned()
    }

    fn unknown(&self, name: &str, position: Position) -> Diagnostic {
        let message = format!("there is no value for {}", quote_key(name));
        let diagnostic = Diagnostic::new("unknown_variable", position, message);
        let facts = self.facts.instance.iter().flat_map(|facts| facts.keys());
        let known: Vec<String> = facts
            .map(|fact| format!("instance.{fact}"))
            .chain(self.inputs.paths().into_iter().map(|path| format!("inputs.{path}")))
            .collect();
        match nearest(name, known.iter().map(String::as_str)) {
            Some(meant) => diagnostic.suggest(format!("did you mean {}?", quote_key(meant))),
            None => diagnostic
                .suggest("give it under `inputs`, or write `$${` for a variable of the shell"),
        }
    }
}

fn no_value(label: &str, position: Position) -> Diagnostic {
    let message = format!(
        "a variable {label} has no value, and neither `inputs` nor the instance's metadata has one"
    );
    Diagnostic::new("missing_value", position, message).suggest("write `\"\"` for an empty value")
}

enum Default<'a> {
    None,
    IfUnknown(&'a str),
    IfEmpty(&'a str),
}

fn split(expression: &str) -> (&str, Default<'_>) {
    if let Some((name, default)) = expression.split_once(":-") {
        return (name, Default::IfEmpty(default));
    }
    // A name may have a `-`, so only a name of the shell's form is cut at one.
    let is_shell_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match expression.split_once('-') {
        Some((name, default)) if is_shell_name(name) => (name, Default::IfUnknown(default)),
        _ => (expression, Default::None),
    }
}

/// Something of the form that the fact has, so that a document can be checked without an instance.
fn placeholder(fact: &str) -> String {
    match fact {
        // Addresses that are kept for documentation.
        "host_ip" => "192.0.2.1".to_owned(),
        "id" => "00000000-0000-0000-0000-000000000000".to_owned(),
        other => {
            let is_plain = |c: &char| c.is_ascii_alphanumeric();
            let name: String = other.chars().filter(is_plain).take(32).collect();
            format!("instance-{name}")
        }
    }
}
