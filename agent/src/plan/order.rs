//! In which order containers start, and what each waits for.

use std::collections::BTreeSet;

use crate::plan::{Condition, Dependency};
use crate::userdata::document::{Document, Service};
use crate::userdata::together::{needed, scale};
use crate::userdata::value::Value;

/// Each service after those that it needs, otherwise in the order of the document. The document was
/// checked, so there is no cycle; if there were, the rest would come as it stands.
pub(crate) fn in_start_order(document: &Document) -> Vec<&Service> {
    let names: BTreeSet<&str> =
        document.services.iter().map(|service| service.name.as_str()).collect();
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    let mut ordered = Vec::new();
    let mut rest: Vec<&Service> = document.services.iter().collect();
    while !rest.is_empty() {
        let is_ready = |service: &&Service| {
            let mut others = needed(service).into_iter().map(|(_, other, _)| other);
            others.all(|other| placed.contains(other) || !names.contains(other))
        };
        let next = rest.remove(rest.iter().position(is_ready).unwrap_or(0));
        placed.insert(&next.name);
        ordered.push(next);
    }
    ordered
}

/// The name of a container's service in the plan: those after the first are counted.
pub(crate) fn planned_name(service: &Service, index: u32) -> String {
    if index == 1 { service.name.clone() } else { format!("{}-{index}", service.name) }
}

/// What a service's containers wait for. A key that names another service waits for its start.
pub(crate) fn dependencies(document: &Document, service: &Service) -> Vec<Dependency> {
    let mut dependencies: Vec<Dependency> = Vec::new();
    let mut add = |name: &str, condition: Condition, required: bool| {
        // One that is left out by its profile is not waited for.
        let Some(other) = document.services.iter().find(|other| other.name == name) else { return };
        for index in 1..=scale(other) {
            let service = planned_name(other, index);
            if !dependencies.iter().any(|known| known.service == service) {
                dependencies.push(Dependency { service, condition, required });
            }
        }
    };
    if let Some(Value::DependsOn(others)) = service.values.get("depends_on") {
        for other in others {
            add(&other.service, other.condition, other.required);
        }
    }
    for (_, other, _) in needed(service) {
        add(other, Condition::Started, true);
    }
    dependencies
}
