use std::collections::HashSet;
use std::path::Path;

use super::*;
use crate::plan::Plan;
use crate::userdata;
use crate::userdata::reference;
use crate::userdata::schema::document::{AGENT_KEYS, SERVICES_KEYS};
use crate::userdata::schema::host::HOST_KEYS;
use crate::userdata::schema::parts::PARTS;
use crate::userdata::schema::refused::REFUSED_KEYS;
use crate::userdata::schema::service::SERVICE_KEYS;
use crate::userdata::schema::shared::SHARED;

#[test]
fn spellings_are_unique_and_rows_are_complete() {
    let single: Vec<&Key> = SERVICE_KEYS.iter().chain(HOST_KEYS).chain(AGENT_KEYS).collect();
    let composed: Vec<&Key> = AGENT_KEYS.iter().chain(SERVICES_KEYS).collect();
    let nested = PARTS.iter().chain(SHARED).map(|table| table.keys.iter().collect());
    for table in [single, composed].into_iter().chain(nested) {
        let mut seen = HashSet::new();
        for key in table {
            assert!(seen.insert(key.name), "{} twice", key.name);
            for alias in key.aliases {
                assert!(seen.insert(alias), "{alias} twice");
            }
            assert!(!key.default.is_empty(), "{} has no default", key.name);
            assert!(key.summary.ends_with('.'), "{} has no summary", key.name);
        }
        for (name, _) in REFUSED_KEYS {
            assert!(!seen.contains(name), "{name} is not refused");
        }
    }
}

#[test]
fn every_key_is_shown_by_an_example() {
    let shows = |example: &str, key: &Key| {
        let spellings = key.aliases.iter().chain([&key.name]);
        spellings.into_iter().any(|spelling| example.contains(&format!("{spelling}:")))
    };
    for key in [SERVICE_KEYS, HOST_KEYS, AGENT_KEYS, SERVICES_KEYS].into_iter().flatten() {
        assert!(shows(key.example, key), "{} is not shown", key.name);
    }
    for table in PARTS.iter().chain(SHARED) {
        for key in table.keys.iter().filter(|key| !matches!(key.kind, Kind::Refused(_))) {
            let is_shown = table.examples.iter().any(|example| shows(example, key));
            assert!(is_shown, "{} of {} is not shown", key.name, table.title);
        }
    }
}

#[test]
fn every_example_validates_and_plans() {
    let examples = reference::examples();
    assert!(examples.len() > 100, "{} examples", examples.len());
    for (name, text) in examples {
        let document = userdata::load(text.as_bytes())
            .unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        assert!(!Plan::new(&document, Path::new("/state")).containers.is_empty(), "{name}");
    }
}

#[test]
fn the_json_schema_knows_every_spelling() {
    let schema = json::schema();
    for key in SERVICE_KEYS.iter().chain(HOST_KEYS).chain(AGENT_KEYS) {
        for spelling in key.aliases.iter().chain([&key.name]) {
            assert!(schema["else"]["properties"][*spelling].is_object(), "{spelling}");
        }
    }
    assert_eq!(schema["then"]["required"][0], "services");
}
