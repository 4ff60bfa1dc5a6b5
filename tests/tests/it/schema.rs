//! The JSON Schema, judged by a validator that is not ours: Debian's `python3-jsonschema`.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::{programs, reference};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stage::Scene;

pub(crate) fn scenes() -> Vec<Scene> {
    vec![Scene::new("schema::a_validator_agrees", |_| a_validator_agrees())]
}

/// Reads the schema and a list of documents, and prints whether the schema is one and what is wrong
/// with each document. YAML's own dates and keys that are no texts are none in a document.
const VALIDATOR: &str = r#"
import json, sys, yaml
from jsonschema import Draft202012Validator as Validator

def texts(node):
    if isinstance(node, dict):
        return {str(key): texts(value) for key, value in node.items()}
    if isinstance(node, list):
        return [texts(item) for item in node]
    return node if node is None or isinstance(node, (str, int, float, bool)) else str(node)

schema = json.load(open(sys.argv[1]))
Validator.check_schema(schema)
validator = Validator(schema)
documents = json.load(open(sys.argv[2]))
print(json.dumps([[error.message[:300] for error in validator.iter_errors(texts(yaml.safe_load(text)))]
                  for text in documents]))
"#;

/// What is wrong in its structure, so that an editor can say so. `validate` says more.
const MALFORMED: [&str; 30] = [
    "imag: busybox",
    "image: busybox\nenviroment: {A: 1}",
    "image: [busybox]",
    "image: {name: busybox}",
    "image: busybox\nports: 80",
    "image: busybox\nports: [{taget: 80}]",
    "image: busybox\nports: [[80]]",
    "image: busybox\nvolumes: 5",
    "image: busybox\nvolumes: [{typ: bind}]",
    "image: busybox\nenvironment: A",
    "image: busybox\nhealthcheck: true",
    "image: busybox\nhealthcheck: {tset: x}",
    "image: busybox\nrestart: [always]",
    "image: busybox\nrestart_policy: {nam: always}",
    "image: busybox\ndevices: [{path: /dev/null}]",
    "image: busybox\nulimits: [nofile]",
    "image: busybox\nmem_swappiness: 101",
    "image: busybox\nlogging: {drivr: json-file}",
    "image: busybox\nfiles: {path: /a}",
    "image: busybox\nfiles: [{pth: /a}]",
    "image: busybox\nimage_archive: {glanze: a}",
    "image: busybox\nsignal: [a]",
    "image: busybox\noutputs: [network_ipp]",
    "image: busybox\noutputs: network_ip",
    "image: busybox\nregistries: {r.example: {pasword: a}}",
    "image: busybox\nproxy: {htps: \"http://p\"}",
    "image: busybox\nservices: {web: {image: busybox}}",
    "services: {web: {imag: busybox}}",
    "services: {web: {image: busybox}}\nnetworks: {front: {drivr: bridge}}",
    "services: {web: {image: busybox}}\nvolumes: {data: {devise: \"label:a\"}}",
];

fn a_validator_agrees() -> Result<()> {
    let directory = TempDir::new()?;
    let path = |name: &str| directory.path().join(name);
    let program = programs::heliograph_agent()?;
    let printed = Command::new(program).arg("schema").output()?;
    ensure!(printed.status.success(), "{printed:?}");
    fs::write(path("schema.json"), &printed.stdout)?;

    let mut valid: Vec<String> = reference::examples()?.iter().map(|one| completed(one)).collect();
    for entry in fs::read_dir(programs::source_tree().join("examples"))? {
        let file = entry?.path();
        // The form of 2013 is no YAML.
        let is_yaml = file.extension().is_some_and(|extension| extension == "yaml");
        if is_yaml && !file.ends_with("line-form.yaml") {
            valid.push(fs::read_to_string(file)?);
        }
    }
    ensure!(valid.len() > 140, "only {} documents", valid.len());
    let documents: Vec<&str> = valid.iter().map(String::as_str).chain(MALFORMED).collect();
    fs::write(path("documents.json"), json!(documents).to_string())?;
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-W", "ignore", "-c", VALIDATOR]);
    let judged = command.args([path("schema.json"), path("documents.json")]).output()?;
    let said = String::from_utf8_lossy(&judged.stderr);
    ensure!(
        judged.status.success(),
        "{said}; is python3-jsonschema installed? run `make test-deps`"
    );
    let errors: Value = serde_json::from_slice(&judged.stdout)?;
    let errors = errors.as_array().context("no list")?;
    ensure!(errors.len() == documents.len(), "{} verdicts", errors.len());
    let mut wrong = String::new();
    for (index, (document, errors)) in documents.iter().zip(errors).enumerate() {
        let is_good = errors.as_array().is_some_and(Vec::is_empty);
        if is_good != (index < valid.len()) {
            wrong.push_str(&format!("{document}\n{errors}\n\n"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// An example stands for a document with an image.
fn completed(example: &str) -> String {
    let has = |key: &str| example.lines().any(|line| line.starts_with(key));
    match has("image:") || has("services:") {
        true => example.to_owned(),
        false => format!("image: busybox\n{example}"),
    }
}
