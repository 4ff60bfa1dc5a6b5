//! From the text of a document to a [`Document`].

use std::collections::BTreeMap;

use crate::userdata::diagnostic::{Diagnostic, Position, Warning, quote_key};
use crate::userdata::document::{Document, OutputName, Service, SignalSection, When};
use crate::userdata::fields::{Field, Fields};
use crate::userdata::image::{ImageReference, ImageReferenceError};
use crate::userdata::scalar::text;
use crate::userdata::schema::Kind;
use crate::userdata::schema::keys::DOCUMENT_KEYS;
use crate::userdata::value::{RestartPolicy, Value};
use crate::userdata::yaml::{self, Node};
use crate::userdata::{legacy, read, signal_section};

/// The one service of a document that has its keys at the top.
const MAIN_SERVICE: &str = "main";

/// Parses the text of a document, with or without its `#docker` line.
pub fn parse(text: &str) -> Result<Document, Diagnostic> {
    let mut warnings = Vec::new();
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(diagnostic) => match legacy::parse(text) {
            Some(root) => {
                warnings.push(legacy_warning(&diagnostic));
                Some(root)
            }
            None => return Err(diagnostic),
        },
    };
    let root = root.filter(|root| !root.is_null()).ok_or_else(empty)?;
    read_document(&root, warnings)
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

fn read_document(root: &Node, mut warnings: Vec<Warning>) -> Result<Document, Diagnostic> {
    let fields = Fields::of("the document", root, DOCUMENT_KEYS)?;
    if let (Some(cmd), Some(command)) = (fields.get("cmd"), fields.get("command")) {
        let message = format!(
            "`cmd` and `command` exclude each other; they stand at {} and {}",
            cmd.position, command.position
        );
        return Err(Diagnostic::new("cmd_and_command", command.position, message)
            .suggest("keep `cmd` for a shell command line, `command` for one without a shell"));
    }
    let image = image(fields.require("image")?)?;
    let mut values = BTreeMap::new();
    for field in fields.iter() {
        if let Some(value) = read::value(field)? {
            values.insert(field.key.name, value);
        }
    }
    let signal = match fields.get("signal") {
        Some(field) => signal_section::read(field.node, &mut warnings)?,
        None => SignalSection::default(),
    };
    let outputs = match fields.get("outputs") {
        Some(field) => signal_section::outputs(field.key.name, field.node)?,
        None => OutputName::DEFAULT.to_vec(),
    };
    check_restart(&fields, &values, &signal)?;
    check_health(&fields, &values, &signal)?;
    let service = Service { name: MAIN_SERVICE.to_owned(), image, values };
    Ok(Document { services: vec![service], signal, outputs, warnings })
}

fn image(field: Field<'_>) -> Result<ImageReference, Diagnostic> {
    let written = text(field.key.name, field.node, Kind::Image.shape())?;
    ImageReference::parse(written.trim()).map_err(|error| {
        let message = format!("{} {error}", quote_key(field.key.name));
        let diagnostic = Diagnostic::new("bad_image", field.node.position, message);
        match error {
            ImageReferenceError::UpperCase => diagnostic.suggest("write it in lower case"),
            ImageReferenceError::Registry => diagnostic.suggest("write it without `http://`"),
            _ => {
                diagnostic.suggest("write it as `registry/name:tag`, where only the name is needed")
            }
        }
    })
}

/// A container that is always restarted never exits for good.
fn check_restart(
    fields: &Fields<'_>,
    values: &BTreeMap<&'static str, Value>,
    signal: &SignalSection,
) -> Result<(), Diagnostic> {
    let restarts_forever = matches!(
        values.get("restart"),
        Some(Value::Restart(RestartPolicy::Always | RestartPolicy::UnlessStopped))
    );
    let Some(restart) = fields.get("restart") else { return Ok(()) };
    if signal.when != Some(When::Exit) || !restarts_forever {
        return Ok(());
    }
    let message = "`restart` keeps the container running, but `signal` waits for its exit";
    Err(Diagnostic::new("restart_and_exit", restart.node.position, message)
        .suggest("remove `restart`, or write no or on-failure"))
}

/// A check that is switched off never reports healthy.
fn check_health(
    fields: &Fields<'_>,
    values: &BTreeMap<&'static str, Value>,
    signal: &SignalSection,
) -> Result<(), Diagnostic> {
    let is_disabled =
        matches!(values.get("healthcheck"), Some(Value::Healthcheck(check)) if check.is_disabled());
    let Some(healthcheck) = fields.get("healthcheck") else { return Ok(()) };
    if signal.when != Some(When::Healthy) || !is_disabled {
        return Ok(());
    }
    let message = "`healthcheck` is switched off, but `signal` waits until it is healthy";
    Err(Diagnostic::new("no_healthcheck", healthcheck.node.position, message))
}
