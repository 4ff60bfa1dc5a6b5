//! Documents of other programs as `#docker` documents, for people to keep.

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, Position, Warning};
use crate::userdata::forms::{compose, docker_cmd, heat, konlet};
use crate::userdata::{decode, emit, parse, yaml};

/// What a file is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// konlet's declaration, as `gce-container-declaration` holds it.
    Konlet,
    Compose,
    /// A template with resources of Heat's Docker plugin, or a document of docker-cmd.
    Heat,
}

/// A converted document, which has been checked, and what was left out of it.
#[derive(Debug)]
pub struct Converted {
    pub text: String,
    pub warnings: Vec<Warning>,
}

/// Converts the text of a file. What has no meaning on an instance is left out with a warning; what
/// cannot be had there is an error at its place.
pub fn convert(origin: Origin, text: &str) -> Result<Converted, Diagnostic> {
    let root = yaml::parse(text)?.ok_or_else(|| {
        let start = Position { line: 1, column: 1 };
        Diagnostic::new("document_empty", start, "there is nothing in the file")
    })?;
    let mut context = Context { warnings: Vec::new(), is_strict: true };
    let document = match origin {
        Origin::Konlet if !konlet::is_konlet(&root) => {
            let message = "a declaration of konlet needs `spec` with `containers`";
            return Err(Diagnostic::new("missing_key", root.position, message));
        }
        Origin::Konlet => escaped(konlet::to_document(&root, &mut context)?),
        Origin::Compose => compose::to_document(&root, &mut context)?,
        Origin::Heat if decode::is_docker_cmd(text.as_bytes()) => {
            escaped(docker_cmd::to_document(&root, &mut context)?)
        }
        Origin::Heat => escaped(heat::to_document(&root, &mut context)?),
    };
    // Read as it stands, so that an error names the place in the original.
    let mut checked = Context { warnings: Vec::new(), is_strict: true };
    parse::check(&document, &mut checked)?;
    Ok(Converted { text: emit::document(&document), warnings: context.warnings })
}

/// In those forms a `$` is a `$`; ours has `$${` for the one that a brace follows.
fn escaped(mut node: yaml::Node) -> yaml::Node {
    escape(&mut node);
    node
}

fn escape(node: &mut yaml::Node) {
    match &mut node.content {
        yaml::Content::Scalar(scalar) => {
            if scalar.text.contains("$$") || scalar.text.contains("${") {
                scalar.text = scalar.text.replace('$', "$$");
            }
        }
        yaml::Content::List(items) => items.iter_mut().for_each(escape),
        yaml::Content::Map(entries) => {
            entries.iter_mut().for_each(|entry| escape(&mut entry.value));
        }
    }
}

#[cfg(test)]
mod tests;
