//! Values of one scalar or of a plain list or map, which need no more than a check.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value as Json;

use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::scalar::{any_text, bad, duration, size, text, wrong_type};
use crate::userdata::schema::Kind;
use crate::userdata::suggest::nearest;
use crate::userdata::yaml::{Content, Entry, Node};

pub(crate) fn list<'a>(label: &str, node: &'a Node, shape: &str) -> Result<&'a [Node], Diagnostic> {
    match &node.content {
        Content::List(items) => Ok(items),
        _ => Err(wrong_type(label, node, shape)),
    }
}

pub(crate) fn entries<'a>(
    label: &str,
    node: &'a Node,
    shape: &str,
) -> Result<&'a [Entry], Diagnostic> {
    match &node.content {
        Content::Map(entries) => Ok(entries),
        _ => Err(wrong_type(label, node, shape)),
    }
}

/// The items of a list, or the one value that stands for a list of it.
pub(crate) fn one_or_more<'a>(
    label: &str,
    node: &'a Node,
    shape: &str,
) -> Result<&'a [Node], Diagnostic> {
    match &node.content {
        Content::List(items) => Ok(items),
        Content::Scalar(_) => Ok(std::slice::from_ref(node)),
        Content::Map(_) => Err(wrong_type(label, node, shape)),
    }
}

/// A string or a list of strings, none of them empty.
pub(crate) fn texts(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    let shape = Kind::Texts.shape();
    let items = one_or_more(label, node, shape)?;
    items.iter().map(|item| text(label, item, "a string").map(str::to_owned)).collect()
}

pub(crate) fn one_of(
    label: &str,
    node: &Node,
    words: &'static [&'static str],
) -> Result<&'static str, Diagnostic> {
    let shape = words.join(", ");
    let written = text(label, node, &shape)?;
    if let Some(word) = words.iter().find(|word| **word == written) {
        return Ok(word);
    }
    let diagnostic = bad("bad_word", label, node, &shape);
    match nearest(written, words.iter().copied()) {
        Some(meant) => Err(diagnostic.suggest(format!("did you mean {meant}?"))),
        None => Err(diagnostic),
    }
}

pub(crate) fn number(label: &str, node: &Node, min: i64, max: i64) -> Result<i64, Diagnostic> {
    let shape = Kind::Number(min, max).description();
    let written = text(label, node, &shape)?;
    let digits = written.strip_prefix('-').unwrap_or(written);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match written.parse::<i64>() {
        Ok(number) if is_number && (min..=max).contains(&number) => Ok(number),
        _ => Err(bad("bad_number", label, node, &shape)),
    }
}

/// A number whose bounds fit.
pub(crate) fn small(label: &str, node: &Node, min: u32, max: u32) -> Result<u32, Diagnostic> {
    let number = number(label, node, min.into(), max.into())?;
    Ok(u32::try_from(number).unwrap_or(max))
}

/// `0440`, with or without its zero, as YAML 1.2 leaves it.
pub(crate) fn mode(label: &str, node: &Node) -> Result<u32, Diagnostic> {
    let shape = Kind::Mode.shape();
    let written = text(label, node, shape)?;
    let digits = written.strip_prefix("0o").unwrap_or(written);
    let is_octal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(mode),
        _ => Err(bad("bad_number", label, node, shape)),
    }
}

pub(crate) fn size_or_unlimited(label: &str, node: &Node) -> Result<i64, Diagnostic> {
    if any_text(label, node)? == "-1" {
        return Ok(-1);
    }
    size(label, node).map(u64::cast_signed)
}

pub(crate) fn cpu_set(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = Kind::CpuSet.shape();
    let written = text(label, node, shape)?;
    let is_cpu =
        |cpu: &str| cpu.len() <= 4 && !cpu.is_empty() && cpu.bytes().all(|b| b.is_ascii_digit());
    let is_range =
        |part: &str| part.split_once('-').map_or(is_cpu(part), |(a, b)| is_cpu(a) && is_cpu(b));
    if !written.split(',').all(is_range) {
        return Err(bad("bad_number", label, node, shape));
    }
    Ok(written.to_owned())
}

/// The engine wants microseconds, which is how Compose's number is meant.
pub(crate) fn microseconds(label: &str, node: &Node) -> Result<i64, Diagnostic> {
    const MAX: i64 = 1_000_000_000;
    let written = text(label, node, Kind::Microseconds.shape())?;
    if written.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(label, node, 0, MAX);
    }
    let duration: Duration = duration(label, node)?;
    match i64::try_from(duration.as_micros()) {
        Ok(micros) if micros <= MAX => Ok(micros),
        _ => Err(bad("bad_duration", label, node, "a duration of at most 1000s")),
    }
}

pub(crate) fn address(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = Kind::Address.shape();
    let address: IpAddr =
        text(label, node, shape)?.parse().map_err(|_| bad("bad_address", label, node, shape))?;
    Ok(address.to_string())
}

pub(crate) fn addresses(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    let items = one_or_more(label, node, Kind::Addresses.shape())?;
    items.iter().map(|item| address(label, item)).collect()
}

pub(crate) fn subnet(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = Kind::Subnet.shape();
    let written = text(label, node, shape)?;
    let error = || bad("bad_address", label, node, shape);
    let (address, prefix) = written.split_once('/').ok_or_else(error)?;
    let address: IpAddr = address.parse().map_err(|_| error())?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if prefix <= max => Ok(format!("{address}/{prefix}")),
        _ => Err(error()),
    }
}

pub(crate) fn mac_address(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = Kind::MacAddress.shape();
    let written = text(label, node, shape)?;
    let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    if written.split(':').count() != 6 || !written.split(':').all(is_pair) {
        return Err(bad("bad_address", label, node, shape));
    }
    Ok(written.to_ascii_lowercase())
}

pub(crate) fn platform(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = Kind::Platform.shape();
    let written = text(label, node, shape)?;
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if written.len() > 64 || written.split('/').count() > 3 || !written.split('/').all(is_part) {
        return Err(bad("bad_name", label, node, shape));
    }
    Ok(written.to_owned())
}

/// A map of texts, or a list of `name=value`; the order does not count.
pub(crate) fn settings(label: &str, node: &Node) -> Result<Json, Diagnostic> {
    let mut settings = serde_json::Map::new();
    let mut add = |name: &str, value: &str, node: &Node| {
        if name.is_empty() || name.contains('\0') {
            return Err(bad("bad_assignment", label, node, Kind::Settings.shape()));
        }
        if settings.insert(name.to_owned(), value.into()).is_some() {
            let message = format!("{} gives {} twice", quote_key(label), quote_key(name));
            return Err(Diagnostic::new("duplicate_key", node.position, message));
        }
        Ok(())
    };
    match &node.content {
        Content::Map(entries) => {
            for entry in entries {
                let value = if entry.value.is_null() { "" } else { any_text(label, &entry.value)? };
                add(&entry.key, value, &entry.value)?;
            }
        }
        Content::List(items) => {
            for item in items {
                let written = any_text(label, item)?;
                let (name, value) = written.split_once('=').unwrap_or((written, ""));
                add(name, value, item)?;
            }
        }
        Content::Scalar(_) => return Err(wrong_type(label, node, Kind::Settings.shape())),
    }
    Ok(Json::Object(settings))
}
