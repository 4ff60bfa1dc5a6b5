//! The JSON Schema of documents, for editors and other checks beside `validate`.
//!
//! It is made from the tables, so it knows every key and spelling. It is wider than the parser: the
//! forms of texts, and what keys say of one another, are for the parser to judge.

use serde_json::{Map, Value as Json, json};

use crate::userdata::schema::document::{AGENT_KEYS, SERVICES_KEYS};
use crate::userdata::schema::host::HOST_KEYS;
use crate::userdata::schema::service::SERVICE_KEYS;
use crate::userdata::schema::{Key, Kind, example_document, parts, shared};

/// The dialect, by its name.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a whole document.
pub(crate) fn schema() -> Json {
    let service = object(&[SERVICE_KEYS, HOST_KEYS]);
    let single = object(&[SERVICE_KEYS, HOST_KEYS, AGENT_KEYS]);
    let mut composed = object(&[AGENT_KEYS, SERVICES_KEYS]);
    composed["required"] = json!(["services"]);
    composed["properties"]["services"]["additionalProperties"] =
        json!({ "$ref": "#/$defs/service" });
    json!({
        "$schema": DIALECT,
        "title": "a #docker document",
        "if": { "required": ["services"] },
        "then": composed,
        "else": single,
        "$defs": { "service": service },
    })
}

fn object(tables: &[&'static [Key]]) -> Json {
    let mut properties = Map::new();
    for key in tables.iter().flat_map(|table| table.iter()) {
        let mut property = of_kind(key.kind);
        property["description"] = format!("{} Default: {}.", key.summary, key.default).into();
        if !key.example.is_empty() {
            property["examples"] = json!([example_document(key.example)]);
        }
        for alias in key.aliases {
            properties.insert((*alias).to_owned(), property.clone());
        }
        properties.insert(key.name.to_owned(), property);
    }
    json!({
        "type": "object",
        "properties": properties,
        "patternProperties": { "^x-": true },
        "additionalProperties": false,
    })
}

fn map_of(value: &Json) -> Json {
    json!({ "type": "object", "additionalProperties": value })
}

fn list_of(item: &Json) -> Json {
    json!({ "type": "array", "items": item })
}

/// A scalar: YAML writes numbers and words without quotes.
fn scalar() -> Json {
    json!({ "type": ["string", "number", "boolean"] })
}

fn either(one: &Json, other: &Json) -> Json {
    json!({ "anyOf": [one, other] })
}

fn of_kind(kind: Kind) -> Json {
    let nested = |keys: &'static [Key]| object(&[keys]);
    match kind {
        Kind::Flag => json!({ "type": ["boolean", "string"] }),
        Kind::Number(min, max) => either(
            &json!({ "type": "integer", "minimum": min, "maximum": max }),
            &json!({ "type": "string" }),
        ),
        Kind::Words(_) | Kind::When => json!({ "enum": kind.words() }),
        Kind::Texts
        | Kind::Addresses
        | Kind::EnvFile
        | Kind::Tmpfs
        | Kind::VolumesFrom
        | Kind::Certificates
        | Kind::ShellCommand
        | Kind::SplitCommand
        | Kind::HealthTest => {
            either(&json!({ "type": ["string", "number", "boolean", "null"] }), &list_of(&scalar()))
        }
        Kind::Settings | Kind::Environment | Kind::Labels | Kind::Links | Kind::ExtraHosts => {
            either(&list_of(&scalar()), &json!({ "type": "object" }))
        }
        Kind::Capabilities | Kind::Expose | Kind::ExitCodes | Kind::Profiles => list_of(&scalar()),
        Kind::Outputs => either(
            &list_of(&json!({ "enum": kind.words() })),
            &map_of(&json!({ "type": "string" })),
        ),
        Kind::Proxy => nested(shared::PROXY.keys),
        Kind::Ports => list_of(&either(&scalar(), &nested(parts::PORT.keys))),
        Kind::Volumes => either(
            &list_of(&either(&scalar(), &nested(parts::MOUNT.keys))),
            &json!({ "type": "object" }),
        ),
        Kind::Devices => list_of(&either(&scalar(), &nested(parts::DEVICE.keys))),
        Kind::Files => list_of(&nested(parts::FILE.keys)),
        Kind::Secrets | Kind::Configs => list_of(&either(&scalar(), &nested(parts::GRANT.keys))),
        Kind::Networks => either(
            &list_of(&scalar()),
            &map_of(&either(&json!({ "type": "null" }), &nested(parts::SERVICE_NETWORK.keys))),
        ),
        Kind::DependsOn => either(
            &list_of(&scalar()),
            &map_of(&either(&json!({ "type": "null" }), &nested(parts::DEPENDENCY.keys))),
        ),
        Kind::Ulimits => map_of(&either(&scalar(), &nested(parts::ULIMIT.keys))),
        Kind::Gpus => either(&scalar(), &list_of(&nested(parts::GPU.keys))),
        Kind::Blkio => nested(parts::BLKIO.keys),
        Kind::Logging => nested(parts::LOGGING.keys),
        Kind::Deploy => nested(parts::DEPLOY.keys),
        Kind::Healthcheck => nested(parts::HEALTHCHECK.keys),
        Kind::Restart => either(&scalar(), &nested(parts::RESTART.keys)),
        Kind::Archive => either(&scalar(), &nested(shared::ARCHIVE.keys)),
        Kind::Registries => map_of(&nested(shared::REGISTRY.keys)),
        Kind::Glance => nested(shared::GLANCE.keys),
        Kind::NetworkDefinitions => {
            map_of(&either(&json!({ "type": "null" }), &nested(shared::NETWORK.keys)))
        }
        Kind::VolumeDefinitions => {
            map_of(&either(&json!({ "type": "null" }), &nested(shared::VOLUME.keys)))
        }
        Kind::FileDefinitions => map_of(&nested(shared::FILE_DEFINITION.keys)),
        Kind::Services | Kind::PortBindings => json!({ "type": "object" }),
        Kind::Signal => json!({ "type": ["string", "object", "null"] }),
        Kind::Inputs => json!({ "type": ["string", "object", "null"] }),
        Kind::SignalJson => json!({ "type": ["string", "object"] }),
        Kind::Ignored(_) | Kind::Refused(_) | Kind::Part(_) => json!({}),
        _ => scalar(),
    }
}
