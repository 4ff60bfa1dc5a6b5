//! A Heat template with resources of the Docker plugin, as a document.
//!
//! `DockerInc::Docker::Container` and its name of 2013, `OS::Heat::Docker`, ran their containers on
//! an engine somewhere; here they become the services of one instance. What the template computes,
//! such as `get_attr`, is not known here and is refused by place.

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, Position, quote_key};
use crate::userdata::forms::{document, entries_of, entry, map, plain, scalar, service_name};
use crate::userdata::yaml::{Content, Entry, Node};

const TYPES: [&str; 2] = ["DockerInc::Docker::Container", "OS::Heat::Docker"];

pub(crate) fn to_document(root: &Node, context: &mut Context) -> Result<Node, Diagnostic> {
    let resources = root.get("resources").or_else(|| root.get("Resources"));
    let Some(resources) = resources else {
        let message = "a template needs the key `resources`";
        return Err(Diagnostic::new("missing_key", root.position, message));
    };
    let mut services: Vec<Entry> = Vec::new();
    for resource in entries_of("resources", resources)? {
        let type_of = resource.value.get("type").or_else(|| resource.value.get("Type"));
        let is_container = matches!(
            type_of.map(|node| &node.content),
            Some(Content::Scalar(scalar)) if TYPES.contains(&scalar.text.as_str())
        );
        if !is_container {
            let message = format!(
                "the resource {} is no container and was left out",
                quote_key(&resource.key)
            );
            context.warn("left_out", resource.key_position, message);
            continue;
        }
        services.push(Entry {
            key: service_name(&resource.key),
            key_position: resource.key_position,
            value: service(resource)?,
        });
    }
    if services.is_empty() {
        let message = "the template has no resource of type DockerInc::Docker::Container";
        return Err(Diagnostic::new("no_container", resources.position, message));
    }
    let shared = volumes(&services, root.position);
    Ok(document(services, shared, root.position))
}

/// The plugin hands names of volumes on to the engine; among several services a document names them.
fn volumes(services: &[Entry], position: Position) -> Vec<Entry> {
    let mut names: Vec<Entry> = Vec::new();
    let mounts = services.iter().filter(|_| services.len() > 1).filter_map(|service| {
        let mounts = service.value.get("volumes").or_else(|| service.value.get("Volumes"))?;
        entries_of("volumes", mounts).ok()
    });
    for mount in mounts.flatten() {
        let is_named = !mount.key.starts_with('/') && names.iter().all(|one| one.key != mount.key);
        if is_named {
            names.push(entry(&mount.key, plain("", mount.key_position)));
        }
    }
    match names.is_empty() {
        true => Vec::new(),
        false => vec![entry("volumes", map(names, position))],
    }
}

fn service(resource: &Entry) -> Result<Node, Diagnostic> {
    let properties = resource.value.get("properties").or_else(|| resource.value.get("Properties"));
    let Some(properties) = properties else {
        let message = format!("the resource {} has no `properties`", quote_key(&resource.key));
        return Err(Diagnostic::new("missing_key", resource.value.position, message));
    };
    let mut entries = Vec::new();
    for property in entries_of("properties", properties)? {
        refuse_functions(&property.value)?;
        // The instance's engine is the one there is.
        if !matches!(property.key.as_str(), "docker_endpoint" | "DockerEndpoint") {
            entries.push(property.clone());
        }
    }
    // The plugin's default.
    if !entries.iter().any(|one| matches!(one.key.as_str(), "restart_policy" | "RestartPolicy")) {
        entries.push(entry("restart", scalar("no", properties.position)));
    }
    Ok(map(entries, properties.position))
}

/// Heat's functions are maps with one key.
fn refuse_functions(node: &Node) -> Result<(), Diagnostic> {
    match &node.content {
        Content::Scalar(_) => Ok(()),
        Content::List(items) => items.iter().try_for_each(refuse_functions),
        Content::Map(entries) => {
            let is_function = |key: &str| {
                matches!(
                    key,
                    "get_attr"
                        | "get_param"
                        | "get_resource"
                        | "get_file"
                        | "str_replace"
                        | "list_join"
                        | "Ref"
                        | "repeat"
                        | "if"
                ) || key.starts_with("Fn::")
            };
            if let [only] = entries.as_slice()
                && is_function(&only.key)
            {
                let message =
                    format!("the value is computed by the template's {}", quote_key(&only.key));
                return Err(Diagnostic::new("template_function", only.key_position, message)
                    .suggest("write the value; on an instance, hand it in under `inputs`"));
            }
            entries.iter().try_for_each(|entry| refuse_functions(&entry.value))
        }
    }
}
