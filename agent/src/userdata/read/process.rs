//! The values that say what a service's process is: names, commands, variables, restarts, checks.

use std::time::Duration;

use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::fields::Fields;
use crate::userdata::read::plain::number;
use crate::userdata::scalar::{any_text, bad, duration, flag, size, text, wrong_type};
use crate::userdata::schema::Kind;
use crate::userdata::schema::parts::{HEALTHCHECK, RESTART};
use crate::userdata::suggest::nearest;
use crate::userdata::value::{Healthcheck, RestartPolicy};
use crate::userdata::words;
use crate::userdata::yaml::{Content, Node};

/// Docker refuses less (its own processes would not fit).
pub(crate) const MIN_MEMORY_BYTES: u64 = 6 << 20;

/// A restart or check count beyond this is a typo, and the engine counts in 32 bits.
const MAX_RETRIES: u32 = 1_000_000;

/// The labels that the agent finds its own containers by.
const RESERVED_LABEL_PREFIX: &str = "io.heliograph.";

/// Docker's rule for names.
pub(super) fn container_name(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = "a name of letters, digits, `_`, `.` and `-` that starts with a letter or digit";
    let name = text(label, node, shape)?;
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    // The name becomes a file name in some engines.
    if !starts_well || name.len() < 2 || name.len() > 128 || !name.bytes().all(is_word) {
        return Err(bad("bad_name", label, node, shape));
    }
    Ok(name.to_owned())
}

/// The kernel's limit is 64 bytes.
pub(super) fn hostname(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = Kind::Hostname.shape();
    let name = text(label, node, shape)?;
    let is_label = |part: &str| {
        let is_word = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !part.is_empty() && is_word && !part.starts_with('-') && !part.ends_with('-')
    };
    if name.len() > 64 || !name.split('.').all(is_label) {
        return Err(bad("bad_name", label, node, shape));
    }
    Ok(name.to_owned())
}

pub(super) fn memory(label: &str, node: &Node) -> Result<u64, Diagnostic> {
    let bytes = size(label, node)?;
    if bytes != 0 && bytes < MIN_MEMORY_BYTES {
        let message = format!("{} is less than the engine's minimum of 6m", quote_key(label));
        let diagnostic = Diagnostic::new("bad_size", node.position, message);
        return Err(diagnostic.suggest("add a unit, such as m"));
    }
    Ok(bytes)
}

/// Words of a command in exec form. An empty word is a word.
pub(super) fn word_list(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    let Content::List(items) = &node.content else {
        return Err(wrong_type(label, node, "a list of words"));
    };
    if items.is_empty() {
        let message = format!("{} is an empty list", quote_key(label));
        return Err(Diagnostic::new("empty_value", node.position, message)
            .suggest("remove the key to run what the image runs"));
    }
    items.iter().map(|item| any_text(label, item).map(str::to_owned)).collect()
}

pub(super) fn split_command(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    if let Content::List(_) = node.content {
        return word_list(label, node);
    }
    let line = text(label, node, Kind::SplitCommand.shape())?;
    words::split(line).ok_or_else(|| {
        let message = format!("{} has a quote that is never closed", quote_key(label));
        Diagnostic::new("bad_command", node.position, message)
    })
}

/// `NAME=value` lines or a map, in the order of the document, each name once.
pub(super) fn assignments(
    label: &str,
    node: &Node,
    value_is_optional: bool,
) -> Result<Vec<(String, String)>, Diagnostic> {
    let mut assignments: Vec<(String, String)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut add = |name: &str, value: &str, node: &Node| {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("an entry of {} has no valid name", quote_key(label));
            return Err(Diagnostic::new("bad_assignment", node.position, message));
        }
        if !seen.insert(name.to_owned()) {
            let message = format!("{} gives {} twice", quote_key(label), quote_key(name));
            return Err(Diagnostic::new("duplicate_key", node.position, message));
        }
        assignments.push((name.to_owned(), value.to_owned()));
        Ok(())
    };
    match &node.content {
        Content::Map(entries) => {
            for entry in entries {
                if entry.value.is_null() && !value_is_optional {
                    return Err(no_value(label, &entry.value));
                }
                let value = if entry.value.is_null() { "" } else { any_text(label, &entry.value)? };
                add(&entry.key, value, &entry.value)?;
            }
        }
        Content::List(items) => {
            for item in items {
                match any_text(label, item)?.split_once('=') {
                    Some((name, value)) => add(name, value, item)?,
                    None if value_is_optional => add(any_text(label, item)?, "", item)?,
                    None => return Err(no_value(label, item)),
                }
            }
        }
        Content::Scalar(_) => {
            return Err(wrong_type(label, node, "a list of NAME=value, or a map"));
        }
    }
    Ok(assignments)
}

/// Compose would look the value up in the environment of whoever types the command; an instance
/// has nobody who types.
fn no_value(label: &str, node: &Node) -> Diagnostic {
    let message = format!("an entry of {} has no value", quote_key(label));
    Diagnostic::new("missing_value", node.position, message)
        .suggest("write `\"\"` for an empty value")
}

pub(super) fn environment(label: &str, node: &Node) -> Result<Vec<(String, String)>, Diagnostic> {
    assignments(label, node, false)
}

pub(crate) fn labels(label: &str, node: &Node) -> Result<Vec<(String, String)>, Diagnostic> {
    let labels = assignments(label, node, true)?;
    if labels.iter().any(|(name, _)| name.starts_with(RESERVED_LABEL_PREFIX)) {
        let message = format!("{} starting with `{RESERVED_LABEL_PREFIX}` are the agent's", label);
        return Err(Diagnostic::new("reserved_label", node.position, message));
    }
    Ok(labels)
}

/// A word as Compose has it, or a map as Heat's plugin has it.
pub(super) fn restart(label: &str, node: &Node) -> Result<RestartPolicy, Diagnostic> {
    if let Content::Map(_) = node.content {
        let fields = Fields::of(&quote_key(label), node, RESTART.keys)?;
        let retries = match fields.get("maximum_retry_count") {
            Some(field) => retries("maximum_retry_count", field.node)?,
            None => 0,
        };
        let Some(name) = fields.get("name") else { return Ok(RestartPolicy::No) };
        return restart_word(label, name.node, Some(retries));
    }
    restart_word(label, node, None)
}

fn restart_word(
    label: &str,
    node: &Node,
    retries: Option<u32>,
) -> Result<RestartPolicy, Diagnostic> {
    let shape = Kind::Restart.shape();
    let written = text(label, node, shape)?;
    let diagnostic = bad("bad_restart", label, node, shape);
    match written {
        "no" => return Ok(RestartPolicy::No),
        "always" => return Ok(RestartPolicy::Always),
        "unless-stopped" => return Ok(RestartPolicy::UnlessStopped),
        "on-failure" => return Ok(RestartPolicy::OnFailure(retries.unwrap_or(0))),
        // Programs that write YAML 1.1 turn an unquoted `no` into this.
        "false" => return Err(diagnostic.suggest("write \"no\", with quotes")),
        _ => {}
    }
    if let Some(count) = written.strip_prefix("on-failure:")
        && retries.is_none()
        && let Some(count) = count.parse().ok().filter(|count| *count <= MAX_RETRIES)
    {
        return Ok(RestartPolicy::OnFailure(count));
    }
    match nearest(written, Kind::Restart.words()) {
        Some(meant) => Err(diagnostic.suggest(format!("did you mean {meant}?"))),
        None => Err(diagnostic),
    }
}

fn retries(label: &str, node: &Node) -> Result<u32, Diagnostic> {
    let count = number(label, node, 0, MAX_RETRIES.into())?;
    Ok(u32::try_from(count).unwrap_or(MAX_RETRIES))
}

pub(super) fn healthcheck(node: &Node) -> Result<Healthcheck, Diagnostic> {
    let fields = Fields::of("`healthcheck`", node, HEALTHCHECK.keys)?;
    let mut healthcheck = Healthcheck::default();
    for field in fields.iter() {
        let label = field.key.name;
        match label {
            "test" => healthcheck.test = Some(health_test(label, field.node)?),
            "interval" => healthcheck.interval = Some(health_duration(label, field.node)?),
            "timeout" => healthcheck.timeout = Some(health_duration(label, field.node)?),
            "start_period" => healthcheck.start_period = Some(health_duration(label, field.node)?),
            "retries" => healthcheck.retries = Some(retries(label, field.node)?),
            "start_interval" => drop(health_duration(label, field.node)?),
            // `disable`
            _ => {
                if flag(label, field.node)? && fields.get("test").is_some() {
                    let message = "`disable` and `test` contradict each other";
                    return Err(Diagnostic::new("bad_healthcheck", field.position, message));
                }
                if flag(label, field.node)? {
                    healthcheck.test = Some(vec!["NONE".to_owned()]);
                }
            }
        }
    }
    Ok(healthcheck)
}

/// The engine refuses less than a millisecond, except zero, which is "as the image has it".
pub(super) fn health_duration(label: &str, node: &Node) -> Result<Duration, Diagnostic> {
    let duration = duration(label, node)?;
    if !duration.is_zero() && duration.as_millis() == 0 {
        return Err(bad("bad_duration", label, node, "a duration of at least 1ms"));
    }
    Ok(duration)
}

pub(super) fn health_test(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    let shape = Kind::HealthTest.shape();
    if let Content::Scalar(_) = node.content {
        let line = text(label, node, shape)?.to_owned();
        return Ok(vec!["CMD-SHELL".to_owned(), line]);
    }
    let words = word_list(label, node)?;
    let is_valid = match words[0].as_str() {
        "NONE" => words.len() == 1,
        "CMD" => words.len() > 1,
        "CMD-SHELL" => words.len() == 2,
        _ => false,
    };
    if !is_valid {
        let shape = "a shell command line, or a list that starts with CMD, CMD-SHELL or NONE";
        return Err(bad("bad_healthcheck", label, node, shape));
    }
    Ok(words)
}
