//! Services, one by one: their keys against the tables, and what of them contradicts itself.

use std::collections::BTreeMap;

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, Position, quote_key};
use crate::userdata::document::{Document, Service, SignalSection, When};
use crate::userdata::fields::{Field, Fields};
use crate::userdata::image::{ImageReference, ImageReferenceError};
use crate::userdata::interpolate::Facts;
use crate::userdata::ports::HostPort;
use crate::userdata::read;
use crate::userdata::read::MAX_SCALE;
use crate::userdata::read::files::variables;
use crate::userdata::read::plain::{entries, small, texts};
use crate::userdata::scalar::text;
use crate::userdata::schema::Kind;
use crate::userdata::schema::host::HOST_KEYS;
use crate::userdata::schema::refused::REFUSED_KEYS;
use crate::userdata::schema::service::SERVICE_KEYS;
use crate::userdata::value::{FileEntry, RestartPolicy, Value};

/// The one service of a document that has its keys at the top.
pub(crate) const MAIN_SERVICE: &str = "main";

/// More on one instance is a cluster.
const MAX_SERVICES: usize = 64;

/// A service with the places of those keys that name others.
pub(crate) struct Written {
    pub(crate) service: Service,
    pub(crate) position: Position,
    pub(crate) places: BTreeMap<&'static str, Position>,
}

/// The active ones among the entries of `services`.
pub(crate) fn read_all(
    document_fields: &Fields<'_>,
    services: Field<'_>,
    document: &Document,
    facts: &Facts,
    context: &mut Context,
) -> Result<Vec<Written>, Diagnostic> {
    let active = match document_fields.get("profiles") {
        Some(field) => texts("profiles", field.node)?,
        None => Vec::new(),
    };
    let entries = entries("services", services.node, "a map of names to services")?;
    if entries.is_empty() || entries.len() > MAX_SERVICES {
        let message = format!("`services` must have between 1 and {MAX_SERVICES} entries");
        return Err(Diagnostic::new("bad_services", services.node.position, message));
    }
    let mut written = Vec::new();
    for entry in entries {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let starts_well = entry.key.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts_well || entry.key.len() > 63 || !entry.key.bytes().all(is_word) {
            let message =
                "a service's name must be of letters, digits, `_`, `.` and `-`, at most 63";
            return Err(Diagnostic::new("bad_name", entry.key_position, message));
        }
        let label = format!("service {}", quote_key(&entry.key));
        let tables = [SERVICE_KEYS, HOST_KEYS];
        let fields = Fields::of_tables(&label, &entry.value, &tables, REFUSED_KEYS, context)?;
        let profiles = match fields.get("profiles") {
            Some(field) => texts("profiles", field.node)?,
            None => Vec::new(),
        };
        // A service that is left out is checked all the same.
        let one = read(&entry.key, &fields, &document.signal, facts, context)?;
        if profiles.is_empty() || profiles.iter().any(|profile| active.contains(profile)) {
            written.push(Written { position: entry.key_position, ..one });
        }
    }
    if written.is_empty() {
        let message = "no service is active: each is of a profile that `profiles` does not name";
        return Err(Diagnostic::new("bad_services", services.node.position, message));
    }
    Ok(written)
}

/// Reads one service, whose keys are known already.
pub(crate) fn read(
    name: &str,
    fields: &Fields<'_>,
    signal: &SignalSection,
    facts: &Facts,
    context: &mut Context,
) -> Result<Written, Diagnostic> {
    check_exclusive(fields)?;
    let image = match (fields.get("image"), &facts.default_image) {
        (Some(field), _) => image(field)?,
        (None, Some(default)) => ImageReference::parse(default).map_err(|error| {
            let message = format!("the agent's `default_image` {error}");
            Diagnostic::new("bad_image", fields.position(), message)
        })?,
        (None, None) => {
            return Err(fields.require("image").err().unwrap_or_else(|| no_image(fields)));
        }
    };
    let mut values = BTreeMap::new();
    let mut places = BTreeMap::new();
    let is_of_service =
        |name: &str| SERVICE_KEYS.iter().chain(HOST_KEYS).any(|row| row.name == name);
    for field in fields.iter().filter(|field| is_of_service(field.key.name)) {
        if let Some(value) = read::value(field, context)? {
            values.insert(field.key.name, value);
            places.insert(field.key.name, field.node.position);
        }
    }
    take_replicas(fields, &mut values)?;
    take_env_files(fields, &mut values)?;
    check_scale(fields, &values)?;
    check_restart(fields, &values, signal)?;
    check_health(fields, &values, signal)?;
    let service = Service { name: name.to_owned(), image, values };
    Ok(Written { service, position: fields.position(), places })
}

fn no_image(fields: &Fields<'_>) -> Diagnostic {
    Diagnostic::new("missing_key", fields.position(), "a service needs the key `image`")
}

fn check_exclusive(fields: &Fields<'_>) -> Result<(), Diagnostic> {
    if let (Some(cmd), Some(command)) = (fields.get("cmd"), fields.get("command")) {
        let message = format!(
            "`cmd` and `command` exclude each other; they stand at {} and {}",
            cmd.position, command.position
        );
        return Err(Diagnostic::new("cmd_and_command", command.position, message)
            .suggest("keep `cmd` for a shell command line, `command` for one without a shell"));
    }
    if let (Some(mode), Some(_)) = (fields.get("network_mode"), fields.get("networks")) {
        let message = "`network_mode` and `networks` exclude each other";
        return Err(Diagnostic::new("mode_and_networks", mode.position, message));
    }
    Ok(())
}

/// `deploy.replicas` is `scale`.
fn take_replicas(
    fields: &Fields<'_>,
    values: &mut BTreeMap<&'static str, Value>,
) -> Result<(), Diagnostic> {
    let replicas = fields.get("deploy").and_then(|field| field.node.get("replicas"));
    if let (Some(node), false) = (replicas, values.contains_key("scale")) {
        values.insert("scale", Value::Count(small("replicas", node, 1, MAX_SCALE)?));
    }
    Ok(())
}

/// Puts the variables of the named files before those of `environment`, which win.
fn take_env_files(
    fields: &Fields<'_>,
    values: &mut BTreeMap<&'static str, Value>,
) -> Result<(), Diagnostic> {
    let Some(field) = fields.get("env_file") else { return Ok(()) };
    let files: &[FileEntry] = match values.get("files") {
        Some(Value::Files(files)) => files,
        _ => &[],
    };
    let mut variables_of_files: Vec<(String, String)> = Vec::new();
    for (path, position) in env_files(field)? {
        let Some(file) = files.iter().find(|file| file.path == path) else {
            let message = "`env_file` names no entry of `files`";
            return Err(Diagnostic::new("unknown_file", position, message).suggest(
                "give its content under `files`, or write the variables under `environment`",
            ));
        };
        let read = variables(&file.content).map_err(|line| {
            let message = format!("line {line} of a file of `env_file` is not NAME=value");
            Diagnostic::new("bad_assignment", position, message)
        })?;
        for (name, value) in read {
            variables_of_files.retain(|(other, _)| *other != name);
            variables_of_files.push((name, value));
        }
    }
    let own = match values.remove("environment") {
        Some(Value::Assignments(own)) => own,
        _ => Vec::new(),
    };
    variables_of_files.retain(|(name, _)| !own.iter().any(|(other, _)| other == name));
    variables_of_files.extend(own);
    values.insert("environment", Value::Assignments(variables_of_files));
    Ok(())
}

/// A path, or a list of paths or of Compose's maps of `path` and `required`.
fn env_files(field: Field<'_>) -> Result<Vec<(String, Position)>, Diagnostic> {
    let items = read::plain::one_or_more("env_file", field.node, Kind::EnvFile.shape())?;
    let path = |node: &crate::userdata::yaml::Node| -> Result<(String, Position), Diagnostic> {
        let path = node.get("path").unwrap_or(node);
        Ok((text("env_file", path, Kind::EnvFile.shape())?.to_owned(), path.position))
    };
    items.iter().map(path).collect()
}

fn check_scale(
    fields: &Fields<'_>,
    values: &BTreeMap<&'static str, Value>,
) -> Result<(), Diagnostic> {
    if !matches!(values.get("scale"), Some(Value::Count(2..))) {
        return Ok(());
    }
    let is_fixed = |name: &str| match values.get(name) {
        Some(Value::Ports(ports)) => {
            ports.iter().any(|port| matches!(port.host_port, HostPort::Fixed(_)))
        }
        Some(_) => name == "container_name",
        None => false,
    };
    for name in ["ports", "port_bindings", "expose", "container_name"] {
        if let (true, Some(field)) = (is_fixed(name), fields.get(name)) {
            let message =
                format!("{} can be had by one container, and `scale` wants more", quote_key(name));
            return Err(Diagnostic::new("bad_scale", field.position, message)
                .suggest("leave the port of the instance or the name out, or `scale`"));
        }
    }
    Ok(())
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
