//! `inputs`: values from elsewhere, to be found by a path of names.
//!
//! They are made for the `data` of a wait condition, verbatim: a JSON object from signal ids to
//! data, which is JSON again, as text. A path looks into texts that are JSON, and goes through an
//! object that has one entry only, so that `${inputs.db.network_ip}` finds the address whatever the
//! id of the signal was.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::userdata::diagnostic::Diagnostic;
use crate::userdata::scalar::wrong_type;
use crate::userdata::schema::Kind;
use crate::userdata::yaml::{Content, Node};

/// JSON in JSON in JSON: each level doubles its backslashes, so real data has two or three.
const MAX_NESTED_TEXTS: usize = 6;

/// A value and what is in it.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Input {
    /// As it stands in a document: the text itself, or JSON.
    pub(crate) text: String,
    pub(crate) parts: BTreeMap<String, Input>,
}

/// Reads the value of `inputs`.
pub(crate) fn read(node: &Node) -> Result<Input, Diagnostic> {
    let inputs = of_json(as_json(node), 0);
    let is_map = match &node.content {
        Content::Map(_) => true,
        Content::Scalar(_) => inputs.text.trim_start().starts_with('{') && !inputs.parts.is_empty(),
        Content::List(_) => false,
    };
    if !is_map && !node.is_null() && inputs.text.trim() != "{}" {
        return Err(wrong_type("inputs", node, Kind::Inputs.shape()));
    }
    Ok(inputs)
}

/// Unquoted scalars keep their text: `1.10` stays `1.10`.
fn as_json(node: &Node) -> Json {
    match &node.content {
        Content::Scalar(scalar) if scalar.is_null() => Json::Null,
        Content::Scalar(scalar) => scalar.text.clone().into(),
        Content::List(items) => items.iter().map(as_json).collect(),
        Content::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), as_json(&entry.value))).collect()
        }
    }
}

fn of_json(json: Json, n_texts: usize) -> Input {
    match json {
        Json::Null => Input::default(),
        Json::String(text) => {
            let looks_like_json = text.trim_start().starts_with(['{', '[']);
            let inner = match looks_like_json && n_texts < MAX_NESTED_TEXTS {
                true => serde_json::from_str::<Json>(&text).ok(),
                false => None,
            };
            let parts = inner.map(|json| of_json(json, n_texts + 1).parts).unwrap_or_default();
            Input { text, parts }
        }
        Json::Array(items) => {
            let text = Json::Array(items.clone()).to_string();
            let parts = items.into_iter().enumerate();
            let parts = parts.map(|(index, item)| (index.to_string(), of_json(item, n_texts)));
            Input { text, parts: parts.collect() }
        }
        Json::Object(map) => {
            let text = Json::Object(map.clone()).to_string();
            let parts = map.into_iter().map(|(name, value)| (name, of_json(value, n_texts)));
            Input { text, parts: parts.collect() }
        }
        plain => Input { text: plain.to_string(), parts: BTreeMap::new() },
    }
}

impl Input {
    /// The value at a path whose names have dots between them. A name may have dots itself.
    pub(crate) fn at(&self, path: &str) -> Option<&Input> {
        if let Some(found) = self.parts.get(path) {
            return Some(found);
        }
        let through = path.match_indices('.').find_map(|(dot, _)| {
            self.parts.get(&path[..dot]).and_then(|input| input.at(&path[dot + 1..]))
        });
        if through.is_some() {
            return through;
        }
        match self.parts.values().next() {
            Some(only) if self.parts.len() == 1 => only.at(path),
            _ => None,
        }
    }

    /// Paths that exist, for suggestions: two levels are what people mistype.
    pub(crate) fn paths(&self) -> Vec<String> {
        let below = |(name, input): (&String, &Input)| {
            let inner = input.parts.keys().map(|inner| format!("{name}.{inner}"));
            let through = input.parts.values().next().filter(|_| input.parts.len() == 1);
            let through = through.into_iter().flat_map(|only| only.parts.keys());
            let through = through.map(|inner| format!("{name}.{inner}"));
            let names: Vec<String> = inner.chain(through).chain([name.clone()]).collect();
            names
        };
        self.parts.iter().flat_map(below).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::userdata::yaml;

    fn inputs(text: &str) -> Input {
        read(&yaml::parse(text).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn paths_look_into_texts() {
        let wait_condition =
            r#"{"i-1/main/0a": "{\"network_ip\": \"10.0.0.4\", \"ports\": [3306, 33060]}"}"#;
        let documents = [
            format!("db: {wait_condition}"),
            format!("db: '{wait_condition}'"),
            format!("'{{\"db\": {wait_condition}}}'"),
        ];
        for text in documents {
            let inputs = inputs(&text);
            let at = |path: &str| inputs.at(path).map(|input| input.text.clone());
            assert_eq!(at("db.network_ip").as_deref(), Some("10.0.0.4"), "{text}");
            assert_eq!(at("db.i-1/main/0a.network_ip").as_deref(), Some("10.0.0.4"), "{text}");
            assert_eq!(at("db.ports.1").as_deref(), Some("33060"), "{text}");
            assert_eq!(at("db.ports").as_deref(), Some("[3306,33060]"), "{text}");
            assert_eq!(at("db.nothing"), None, "{text}");
        }
        let several = inputs(r#"{db: {"a": "{\"x\": 1}", "b.c": "{\"x\": 2}"}, version: 1.10}"#);
        let at = |path: &str| several.at(path).map(|input| input.text.clone());
        assert_eq!(at("db.a.x").as_deref(), Some("1"));
        assert_eq!(at("db.b.c.x").as_deref(), Some("2"));
        assert_eq!(at("db.x"), None, "two signals are told apart by their ids");
        assert_eq!(at("version").as_deref(), Some("1.10"));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in ["[a]", "a", "'[1]'", "5"] {
            assert!(read(&yaml::parse(text).unwrap().unwrap()).is_err(), "{text}");
        }
        for text in ["{}", "'{}'", "~"] {
            assert!(read(&yaml::parse(text).unwrap().unwrap()).is_ok(), "{text}");
        }
    }
}
