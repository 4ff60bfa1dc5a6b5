//! `signal`: whom to tell, when, and how.
//!
//! `signal` is a URL, or the handle's `signal` attribute as Heat gives it (a JSON string, or the
//! same JSON pasted into the document, where it is a YAML map), or our own map around either.

use std::time::Duration;

use serde_json::Map;
use url::Url;

use crate::userdata::diagnostic::{Diagnostic, Position, Warning, quote_key};
use crate::userdata::document::{SignalSection, SignalStyle, SignalTarget, SignalTransport, When};
use crate::userdata::fields::Fields;
use crate::userdata::read::plain::small;
use crate::userdata::scalar::{bad, duration, text, word, wrong_type};
use crate::userdata::schema::Kind;
use crate::userdata::schema::parts::SIGNAL;
use crate::userdata::yaml::{Content, Entry, Node};

/// Services, firewalls and proxies cut longer ones; a CloudFormation URL has about 600.
pub(crate) const MAX_SIGNAL_URL_BYTES: usize = 8 * 1024;

/// A FAILURE is for a person to read; the rest is in the console log.
pub(crate) const MAX_LOG_LINES: u32 = 1000;

/// Heat keeps ids as keys of a JSON map in a database row.
const MAX_ID_BYTES: usize = 255;

const DEFAULT_STABLE_FOR: Duration = Duration::from_secs(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
const DEFAULT_LOG_LINES: u32 = 20;

/// A map with one of these keys is Heat's `signal` attribute.
const HEAT_KEYS: [&str; 4] = ["alarm_url", "auth_url", "queue_id", "endpoint"];

impl Default for SignalSection {
    fn default() -> SignalSection {
        SignalSection {
            target: None,
            id: None,
            when: None,
            stable_for: DEFAULT_STABLE_FOR,
            timeout: DEFAULT_TIMEOUT,
            log_lines: DEFAULT_LOG_LINES,
            style: SignalStyle::Auto,
            transport: SignalTransport::Auto,
        }
    }
}

/// Reads the value of `signal`.
pub(crate) fn read(node: &Node, warnings: &mut Vec<Warning>) -> Result<SignalSection, Diagnostic> {
    let is_heat = HEAT_KEYS.iter().any(|key| node.get(key).is_some());
    let section = match &node.content {
        Content::Map(entries) if entries.is_empty() => SignalSection::default(),
        Content::Map(entries) if is_heat => read_mixed(node, entries, warnings)?,
        Content::Map(_) => read_map(node, warnings)?,
        _ => SignalSection { target: target(node, warnings)?, ..SignalSection::default() },
    };
    check_transport(&section, node.position)?;
    Ok(section)
}

/// Heat's attribute, perhaps with keys of ours between its own: no key is in both.
fn read_mixed(
    node: &Node,
    entries: &[Entry],
    warnings: &mut Vec<Warning>,
) -> Result<SignalSection, Diagnostic> {
    let is_ours = |entry: &&Entry| {
        let written = entry.key.as_str();
        SIGNAL.keys.iter().any(|key| key.name == written || key.aliases.contains(&written))
    };
    let (ours, heats): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(is_ours);
    let map = |entries: Vec<&Entry>| Node {
        position: node.position,
        content: Content::Map(entries.into_iter().cloned().collect()),
    };
    let section = read_map(&map(ours), warnings)?;
    if section.target.is_some() {
        return Err(two_handles(node.position));
    }
    Ok(SignalSection { target: target(&map(heats), warnings)?, ..section })
}

fn two_handles(position: Position) -> Diagnostic {
    let message = "`signal` gives two handles, and only one can be signalled";
    Diagnostic::new("bad_signal", position, message)
}

/// A document that names a kind of handle is told here, and not by a signal that is lost, that it
/// was given another.
fn check_transport(section: &SignalSection, position: Position) -> Result<(), Diagnostic> {
    let (fits, wanted) = match section.transport {
        SignalTransport::Cfn => (has_in_query(section, "Signature"), "a presigned URL"),
        SignalTransport::TempUrl => (has_in_query(section, "temp_url_sig"), "a TempURL"),
        SignalTransport::Relay => {
            let path = url_of(section).map(|url| url.path().to_owned());
            let is_relays = path.is_some_and(|path| path.contains("/api/v1/handles/"));
            (is_relays, "a relay's signal URL")
        }
        SignalTransport::Heat => {
            let keys = ["token", "password"];
            let has_login = matches!(&section.target, Some(SignalTarget::Json(json))
                if keys.iter().any(|key| json.contains_key(*key)));
            (has_login, "a handle with `token`, or with user and password")
        }
        SignalTransport::Auto
        | SignalTransport::Metadata
        | SignalTransport::Password
        | SignalTransport::Console => return Ok(()),
    };
    if fits {
        return Ok(());
    }
    let message = format!("`transport` of `signal` needs {wanted}, which `signal` does not give");
    Err(Diagnostic::new("bad_signal", position, message).suggest("leave `transport` out"))
}

/// The URL that a signal is put to.
fn url_of(section: &SignalSection) -> Option<Url> {
    match section.target.as_ref()? {
        SignalTarget::Url(url) => Some(url.clone()),
        SignalTarget::Json(json) => parse_url(json.get("alarm_url")?.as_str()?),
    }
}

fn has_in_query(section: &SignalSection, name: &str) -> bool {
    url_of(section).is_some_and(|url| url.query_pairs().any(|(found, _)| found == name))
}

fn read_map(node: &Node, warnings: &mut Vec<Warning>) -> Result<SignalSection, Diagnostic> {
    let fields = Fields::of("`signal`", node, SIGNAL.keys)?;
    if let (Some(_), Some(json)) = (fields.get("url"), fields.get("json")) {
        return Err(two_handles(json.position));
    }
    let mut section = SignalSection::default();
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        match label {
            "url" | "json" => section.target = target(node, warnings)?,
            "id" => section.id = Some(id(label, node)?),
            "when" => section.when = Some(word(label, node, &When::WORDS, Kind::When.shape())?),
            "stable_for" => section.stable_for = duration(label, node)?,
            "timeout" => section.timeout = duration(label, node)?,
            "style" => section.style = word(label, node, &SignalStyle::WORDS, STYLES)?,
            "transport" => section.transport = transport(label, node)?,
            _ => section.log_lines = small(label, node, 0, MAX_LOG_LINES)?,
        }
    }
    check_times(&section, node.position)?;
    Ok(section)
}

const STYLES: &str = "auto, aws or heat";

const TRANSPORTS: &str = "auto, metadata, cfn, heat, tempurl, relay, password, console or none";

fn transport(label: &str, node: &Node) -> Result<SignalTransport, Diagnostic> {
    if matches!(&node.content, Content::Scalar(scalar) if scalar.text == "zaqar") {
        let message = "the agent does not send by Zaqar";
        return Err(Diagnostic::new("bad_word", node.position, message)
            .suggest("give the handle the signal_transport TEMP_URL_SIGNAL"));
    }
    word(label, node, &SignalTransport::WORDS, TRANSPORTS)
}

/// Without this a document could only ever end in FAILURE.
fn check_times(section: &SignalSection, position: Position) -> Result<(), Diagnostic> {
    if section.timeout < Duration::from_secs(1) {
        let message = "`timeout` must be at least 1s";
        return Err(Diagnostic::new("bad_duration", position, message));
    }
    if section.stable_for >= section.timeout {
        let message = "`stable_for` must be shorter than `timeout`";
        return Err(Diagnostic::new("bad_duration", position, message));
    }
    Ok(())
}

fn id(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = "a text of at most 255 bytes without control characters";
    let id = text(label, node, shape)?;
    if id.len() > MAX_ID_BYTES || id.contains(char::is_control) {
        return Err(bad("bad_name", label, node, shape));
    }
    Ok(id.to_owned())
}

/// A handle: a URL, or Heat's JSON as a string or as a map. None: Heat has none to give.
pub(crate) fn target(
    node: &Node,
    warnings: &mut Vec<Warning>,
) -> Result<Option<SignalTarget>, Diagnostic> {
    let shape = Kind::Signal.shape();
    let text = match &node.content {
        Content::Map(_) => return json_target(node, node.to_json()),
        Content::List(_) => return Err(wrong_type("signal", node, shape)),
        Content::Scalar(scalar) if scalar.is_null() || scalar.text.trim() == "null" => {
            warnings.push(no_handle(node));
            return Ok(None);
        }
        Content::Scalar(_) => text("signal", node, shape)?.trim(),
    };
    if text.starts_with('{') {
        let json: serde_json::Value = serde_json::from_str(text).map_err(|_| {
            Diagnostic::new("bad_signal_json", node.position, "`signal` starts as JSON and is not")
        })?;
        return json_target(node, json);
    }
    parse_url(text).map(|url| Some(SignalTarget::Url(url))).ok_or_else(|| bad_url(node))
}

fn bad_url(node: &Node) -> Diagnostic {
    bad("bad_signal_url", "signal", node, "an http or https URL of at most 8 KiB")
        .suggest("check that the template replaces the placeholder by the handle's URL")
}

/// Heat's `signal` attribute is the string `null` for a handle whose transport is TOKEN_SIGNAL.
fn no_handle(node: &Node) -> Warning {
    Warning {
        code: "signal_null",
        position: node.position,
        message: "`signal` is null: the outcome goes to the console only; a Heat handle has a \
                  `signal` attribute if its signal_transport is TEMP_URL_SIGNAL, CFN_SIGNAL or \
                  HEAT_SIGNAL"
            .to_owned(),
    }
}

fn json_target(node: &Node, json: serde_json::Value) -> Result<Option<SignalTarget>, Diagnostic> {
    let serde_json::Value::Object(json) = json else {
        let message = "`signal` must be a JSON object";
        return Err(Diagnostic::new("bad_signal_json", node.position, message));
    };
    // What Heat gives for NO_SIGNAL.
    if json.is_empty() {
        return Ok(None);
    }
    if !HEAT_KEYS.iter().any(|key| json.contains_key(*key)) {
        let message = "`signal` is JSON without `alarm_url`, so it is no handle";
        return Err(Diagnostic::new("bad_signal_json", node.position, message));
    }
    check_json_urls(&json).map_err(|key| {
        let message = format!("{} in `signal` must be an http or https URL", quote_key(key));
        Diagnostic::new("bad_signal_url", node.position, message)
    })?;
    Ok(Some(SignalTarget::Json(json)))
}

/// The error is the key whose value is no URL.
fn check_json_urls(json: &Map<String, serde_json::Value>) -> Result<(), &'static str> {
    for key in ["alarm_url", "auth_url"] {
        let is_valid = match json.get(key) {
            None => true,
            Some(value) => value.as_str().and_then(parse_url).is_some(),
        };
        if !is_valid {
            return Err(key);
        }
    }
    Ok(())
}

pub(crate) fn parse_url(text: &str) -> Option<Url> {
    if text.len() > MAX_SIGNAL_URL_BYTES {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_http = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    is_http.then_some(url)
}
