//! From the text of a document to a [`Document`].

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, Position, Warning};
use crate::userdata::document::{Document, Output, OutputName, SignalSection};
use crate::userdata::fields::Fields;
use crate::userdata::inputs::{self, Input};
use crate::userdata::interpolate::{Facts, interpolate};
use crate::userdata::read::place;
use crate::userdata::scalar::flag;
use crate::userdata::schema::document::{AGENT_KEYS, SERVICES_KEYS};
use crate::userdata::schema::host::HOST_KEYS;
use crate::userdata::schema::refused::REFUSED_KEYS;
use crate::userdata::schema::service::SERVICE_KEYS;
use crate::userdata::services::{self, MAIN_SERVICE};
use crate::userdata::yaml::{self, Content, Node};
use crate::userdata::{
    decode, definitions, forms, legacy, outputs_section, signal_section, together,
};

/// Parses the text of a document, with or without its `#docker` line, as far as that can be done
/// without an instance.
pub fn parse(text: &str) -> Result<Document, Diagnostic> {
    parse_with(text, &Facts::default())
}

/// Parses the text of a document on its instance.
pub fn parse_with(text: &str, facts: &Facts) -> Result<Document, Diagnostic> {
    let (mut root, mut context) = tree(text)?;
    let inputs = match root.get("inputs") {
        Some(node) => inputs::read(node)?,
        None => Input::default(),
    };
    if context.is_ours {
        interpolate(&mut root, &inputs, facts, &mut context.inner)?;
    }
    read_document(&root, facts, context.inner)
}

/// Checks a tree in our form, whatever it was made from.
pub(crate) fn check(root: &Node, context: &mut Context) -> Result<(), Diagnostic> {
    let mut root = root.clone();
    let inputs = match root.get("inputs") {
        Some(node) => inputs::read(node)?,
        None => Input::default(),
    };
    interpolate(&mut root, &inputs, &Facts::default(), context)?;
    let context = Context { warnings: Vec::new(), is_strict: true };
    read_document(&root, &Facts::default(), context).map(drop)
}

/// What was found out about a text beside its tree.
pub(crate) struct Form {
    pub(crate) inner: Context,
    /// Not a form of another program, in which `${…}` is not ours.
    pub(crate) is_ours: bool,
}

/// The tree of a text in whatever form, as a tree in ours.
pub(crate) fn tree(text: &str) -> Result<(Node, Form), Diagnostic> {
    let mut form = Form { inner: Context { warnings: Vec::new(), is_strict: true }, is_ours: true };
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(diagnostic) => match legacy::parse(text) {
            Some(root) => {
                form.inner.warnings.push(legacy_warning(&diagnostic));
                form.is_ours = false;
                Some(root)
            }
            None => return Err(diagnostic),
        },
    };
    let root = root.filter(|root| !root.is_null()).ok_or_else(empty)?;
    let converted = if decode::is_docker_cmd(text.as_bytes()) {
        Some(forms::docker_cmd::to_document(&root, &mut form.inner)?)
    } else if forms::konlet::is_konlet(&root) {
        Some(forms::konlet::to_document(&root, &mut form.inner)?)
    } else {
        None
    };
    match converted {
        Some(converted) => {
            form.is_ours = false;
            Ok((converted, form))
        }
        None => Ok((root, form)),
    }
}

fn legacy_warning(diagnostic: &Diagnostic) -> Warning {
    Warning {
        code: "line_form",
        position: diagnostic.position(),
        message: "this is not YAML and was read line by line, as in 2013; put quotes around the \
                  values"
            .to_owned(),
    }
}

fn empty() -> Diagnostic {
    let position = Position { line: 1, column: 1 };
    Diagnostic::new("document_empty", position, "there is nothing after the `#docker` line")
        .suggest("give at least an `image`; in a template, start the user data with `|`")
}

fn read_document(root: &Node, facts: &Facts, mut context: Context) -> Result<Document, Diagnostic> {
    if let Some(node) = root.get("strict") {
        context.is_strict = flag("strict", node)?;
    }
    let is_composed = root.get("services").is_some();
    let label = "the document";
    let tables: &[_] = match is_composed {
        true => &[AGENT_KEYS, SERVICES_KEYS],
        false => &[SERVICE_KEYS, HOST_KEYS, AGENT_KEYS],
    };
    if is_composed {
        refuse_stray_keys(root)?;
    }
    let fields = Fields::of_tables(label, root, tables, REFUSED_KEYS, &mut context)?;
    let signal = match fields.get("signal") {
        Some(field) => signal_section::read(field.node, &mut context.warnings)?,
        None => SignalSection::default(),
    };
    let outputs = match fields.get("outputs") {
        Some(field) => outputs_section::read(field.key.name, field.node)?,
        None => OutputName::DEFAULT.map(Output::from).to_vec(),
    };
    let mut document = Document {
        services: Vec::new(),
        is_composed,
        networks: Default::default(),
        volumes: Default::default(),
        secrets: Default::default(),
        configs: Default::default(),
        registries: Default::default(),
        proxy: None,
        glance: None,
        certificate_authorities: Vec::new(),
        signal,
        outputs,
        warnings: Vec::new(),
    };
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        match label {
            "registries" => document.registries = place::registries(label, node)?,
            "proxy" => document.proxy = Some(place::proxy(node)?),
            "glance" => document.glance = Some(place::glance(node)?),
            "ca_certificates" => {
                document.certificate_authorities = place::certificates(label, node)?;
            }
            "networks" if is_composed => document.networks = definitions::networks(label, node)?,
            "volumes" if is_composed => document.volumes = definitions::volumes(label, node)?,
            "secrets" if is_composed => document.secrets = definitions::files(label, node)?,
            "configs" if is_composed => document.configs = definitions::files(label, node)?,
            _ => {}
        }
    }
    let written = match fields.get("services") {
        Some(field) => services::read_all(&fields, field, &document, facts, &mut context)?,
        None if fields.get("profiles").is_some() => return Err(stray_profiles(&fields)),
        None => vec![services::read(MAIN_SERVICE, &fields, &document.signal, facts, &mut context)?],
    };
    together::check(&document, &written)?;
    document.services = written.into_iter().map(|written| written.service).collect();
    document.warnings = context.warnings;
    Ok(document)
}

/// Whether the only service is to run is no question.
fn stray_profiles(fields: &Fields<'_>) -> Diagnostic {
    let position = fields.get("profiles").map_or(fields.position(), |field| field.position);
    let message = "`profiles` chooses among `services`, and this document has none";
    Diagnostic::new("stray_key", position, message).suggest("remove it, or write `services`")
}

/// A key of a service that stands beside `services` was meant for one of them.
fn refuse_stray_keys(root: &Node) -> Result<(), Diagnostic> {
    let Content::Map(entries) = &root.content else { return Ok(()) };
    let is_shared = |name: &str| {
        [AGENT_KEYS, SERVICES_KEYS].iter().any(|table| table.iter().any(|key| key.name == name))
    };
    for entry in entries.iter().filter(|entry| !is_shared(&entry.key)) {
        let mut keys = SERVICE_KEYS.iter().chain(HOST_KEYS);
        if keys.any(|key| key.name == entry.key || key.aliases.contains(&entry.key.as_str())) {
            let key = crate::userdata::diagnostic::quote_key(&entry.key);
            let message = format!("{key} stands beside `services`");
            return Err(Diagnostic::new("stray_key", entry.key_position, message)
                .suggest("write it in the service that it is for"));
        }
    }
    Ok(())
}
