//! Files that the document brings: `files`, and the `secrets` and `configs` that services share.

use crate::userdata::decode::decode_base64;
use crate::userdata::diagnostic::{Diagnostic, Position, quote_key};
use crate::userdata::fields::Fields;
use crate::userdata::read::network::is_name;
use crate::userdata::read::plain::{list, mode, one_of, small};
use crate::userdata::scalar::{absolute_path, any_text, bad, text};
use crate::userdata::schema::Kind;
use crate::userdata::schema::parts::{FILE, GRANT};
use crate::userdata::schema::shared::FILE_DEFINITION;
use crate::userdata::value::{FileAccess, FileEntry, Grant};
use crate::userdata::yaml::{Content, Node};

/// More than any process needs; each is a mount of its own.
const MAX_FILES: usize = 100;

/// Where a secret or a config has its content.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileDefinition {
    Content(Vec<u8>),
    /// A file of the instance.
    Path(String),
}

/// The content may be a secret.
impl std::fmt::Debug for FileDefinition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileDefinition::Content(content) => write!(f, "Content({} bytes)", content.len()),
            FileDefinition::Path(path) => write!(f, "Path({path:?})"),
        }
    }
}

pub(super) fn files(label: &str, node: &Node) -> Result<Vec<FileEntry>, Diagnostic> {
    let items = list(label, node, Kind::Files.shape())?;
    if items.len() > MAX_FILES {
        let message = format!("{} has more than {MAX_FILES} entries", quote_key(label));
        return Err(Diagnostic::new("too_many_files", node.position, message));
    }
    let mut files: Vec<FileEntry> = Vec::new();
    for item in items {
        let fields = Fields::of("an entry of `files`", item, FILE.keys)?;
        let path_node = fields.require("path")?.node;
        let path = absolute_path("path", path_node)?.trim_end_matches('/').to_owned();
        if path.is_empty() || files.iter().any(|file| file.path == path) {
            return Err(bad(
                "bad_path",
                "path",
                path_node,
                "a path below `/` that no other entry has",
            ));
        }
        let content = content(&fields)?;
        let content =
            content.ok_or_else(|| missing("an entry of `files`", "content", item.position))?;
        files.push(FileEntry { path, content, access: access(&fields, 0o444)? });
    }
    Ok(files)
}

fn missing(map: &str, key: &str, position: Position) -> Diagnostic {
    Diagnostic::new("missing_key", position, format!("{map} needs the key `{key}`"))
}

/// An empty content is a content.
fn content(fields: &Fields<'_>) -> Result<Option<Vec<u8>>, Diagnostic> {
    let Some(field) = fields.get("content") else { return Ok(None) };
    let written = match &field.node.content {
        Content::Scalar(scalar) if scalar.quoted && scalar.text.is_empty() => "",
        _ => any_text("content", field.node)?,
    };
    let encoding = match fields.get("encoding") {
        Some(field) => one_of("encoding", field.node, &["text", "base64"])?,
        None => "text",
    };
    if encoding == "text" {
        return Ok(Some(written.as_bytes().to_vec()));
    }
    let decoded = decode_base64(written.as_bytes());
    decoded.map(Some).ok_or_else(|| bad("bad_base64", "content", field.node, "base64"))
}

fn access(fields: &Fields<'_>, default_mode: u32) -> Result<FileAccess, Diagnostic> {
    let id = |name: &str| match fields.get(name) {
        Some(field) => small(name, field.node, 0, u32::MAX - 1),
        None => Ok(0),
    };
    let mode = match fields.get("mode") {
        Some(field) => mode("mode", field.node)?,
        None => default_mode,
    };
    Ok(FileAccess { mode, uid: id("uid")?, gid: id("gid")? })
}

/// `secrets` and `configs` of a service: names, or maps.
pub(super) fn grants(label: &str, node: &Node) -> Result<Vec<Grant>, Diagnostic> {
    let default_mode = if label == "secrets" { 0o400 } else { 0o444 };
    let mut grants: Vec<Grant> = Vec::new();
    for item in list(label, node, Kind::Secrets.shape())? {
        let grant = match &item.content {
            Content::Map(_) => {
                let name = format!("an entry of {}", quote_key(label));
                let fields = Fields::of(&name, item, GRANT.keys)?;
                let source = text("source", fields.require("source")?.node, "a name")?.to_owned();
                let target = match fields.get("target") {
                    Some(field) => Some((text("target", field.node, "a path")?, field.node)),
                    None => None,
                };
                let target = target_of(label, &source, target)?;
                Grant { source, target, access: access(&fields, default_mode)? }
            }
            _ => {
                let source = text(label, item, "a name")?.to_owned();
                let target = target_of(label, &source, None)?;
                Grant { source, target, access: FileAccess { mode: default_mode, uid: 0, gid: 0 } }
            }
        };
        if !is_name(&grant.source) {
            return Err(bad("bad_name", label, item, "names of letters, digits, `_`, `.` and `-`"));
        }
        if grants.iter().any(|other| other.target == grant.target) {
            let message = format!("{} puts two things at one place", quote_key(label));
            return Err(Diagnostic::new("duplicate_key", item.position, message));
        }
        grants.push(grant);
    }
    Ok(grants)
}

fn target_of(
    label: &str,
    source: &str,
    target: Option<(&str, &Node)>,
) -> Result<String, Diagnostic> {
    let is_secret = label == "secrets";
    match target {
        None if is_secret => Ok(format!("/run/secrets/{source}")),
        None => Ok(format!("/{source}")),
        Some((target, node)) if target.starts_with('/') => {
            absolute_path("target", node).map(|_| target.to_owned())
        }
        Some((target, _)) if is_secret && is_name(target) => Ok(format!("/run/secrets/{target}")),
        Some((_, node)) => Err(bad("bad_path", "target", node, "an absolute path")),
    }
}

/// An entry of the document's `secrets` or `configs`.
pub(crate) fn definition(node: &Node) -> Result<FileDefinition, Diagnostic> {
    let fields = Fields::of("an entry of `secrets` or `configs`", node, FILE_DEFINITION.keys)?;
    for field in fields.iter() {
        if let Kind::Refused(instead) = field.key.kind {
            let message = format!("the key {} is not supported", quote_key(field.key.name));
            return Err(Diagnostic::new("refused_key", field.position, message).suggest(instead));
        }
    }
    match (content(&fields)?, fields.get("file")) {
        (Some(content), None) => Ok(FileDefinition::Content(content)),
        (None, Some(field)) => {
            if any_text("file", field.node)?.starts_with(['.', '~']) {
                return Err(bad("bad_path", "file", field.node, "an absolute path").suggest(
                    "write `content`: an instance has no directory that it could start from",
                ));
            }
            Ok(FileDefinition::Path(absolute_path("file", field.node)?.to_owned()))
        }
        (Some(_), Some(field)) => {
            let message = "`file` and `content` exclude each other";
            Err(Diagnostic::new("bad_file", field.position, message))
        }
        (None, None) => {
            Err(missing("an entry of `secrets` or `configs`", "content", node.position))
        }
    }
}

/// The lines of a file as environment variables; the error says which line.
pub(crate) fn variables(content: &[u8]) -> Result<Vec<(String, String)>, usize> {
    let text = std::str::from_utf8(content).map_err(|_| 1_usize)?;
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        if name.is_empty() || value.contains('\0') {
            return Err(index + 1);
        }
        let quoted = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        variables.push((name.to_owned(), quoted.unwrap_or(value).to_owned()));
    }
    Ok(variables)
}
