//! Single values: what a scalar's text may mean for a key of a certain kind.
//!
//! No message quotes the text: it may be a secret that slipped one line down.

use std::time::Duration;

use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::suggest::nearest;
use crate::userdata::yaml::{Content, Node, Scalar};

/// Longer than any timeout of an orchestrator (Heat's is twelve hours); a larger number is a typo.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(7 * 24 * 3600);

/// The error for a value of the wrong kind.
pub(crate) fn wrong_type(label: &str, node: &Node, shape: &str) -> Diagnostic {
    let message = format!("{} must be {shape}, not {}", quote_key(label), node.kind());
    Diagnostic::new("wrong_type", node.position, message)
}

/// The error for a value of the right kind and the wrong form.
pub(crate) fn bad(code: &'static str, label: &str, node: &Node, shape: &str) -> Diagnostic {
    Diagnostic::new(code, node.position, format!("{} must be {shape}", quote_key(label)))
}

fn scalar<'a>(label: &str, node: &'a Node, shape: &str) -> Result<&'a Scalar, Diagnostic> {
    let Content::Scalar(scalar) = &node.content else {
        return Err(wrong_type(label, node, shape));
    };
    if scalar.is_null() {
        let message = format!("{} has no value", quote_key(label));
        return Err(Diagnostic::new("missing_value", node.position, message)
            .suggest(format!("give {shape}, or remove the key")));
    }
    if scalar.text.contains('\0') {
        let message = format!("{} contains a NUL character", quote_key(label));
        return Err(Diagnostic::new("bad_text", node.position, message));
    }
    Ok(scalar)
}

/// Any scalar as the text that it was written with: `1.10` stays `1.10`.
pub(crate) fn any_text<'a>(label: &str, node: &'a Node) -> Result<&'a str, Diagnostic> {
    Ok(&scalar(label, node, "a string")?.text)
}

/// A text that says something.
pub(crate) fn text<'a>(label: &str, node: &'a Node, shape: &str) -> Result<&'a str, Diagnostic> {
    let text = &scalar(label, node, shape)?.text;
    if text.trim().is_empty() {
        let message = format!("{} is empty", quote_key(label));
        return Err(Diagnostic::new("empty_value", node.position, message)
            .suggest(format!("give {shape}, or remove the key")));
    }
    Ok(text)
}

pub(crate) fn flag(label: &str, node: &Node) -> Result<bool, Diagnostic> {
    let scalar = scalar(label, node, "true or false")?;
    if let Some(flag) = scalar.as_bool() {
        return Ok(flag);
    }
    let diagnostic = bad("bad_boolean", label, node, "true or false");
    let meant = match scalar.text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" | "true" | "1" => "true",
        "no" | "n" | "off" | "false" | "0" => "false",
        _ => return Err(diagnostic),
    };
    Err(diagnostic.suggest(format!("write {meant}, without quotes")))
}

/// Bytes, with Docker's units: powers of 1024, any case, an optional trailing `b`.
pub(crate) fn size(label: &str, node: &Node) -> Result<u64, Diagnostic> {
    let shape = "a size such as 512m or 1g";
    let text = text(label, node, shape)?.to_ascii_lowercase();
    let error = || bad("bad_size", label, node, shape);
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim_start() {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        "t" | "tb" | "ti" | "tib" => 1 << 40,
        _ => return Err(error()),
    };
    let billionths = decimal(number).ok_or_else(error)?;
    let bytes = billionths * u128::from(factor) / BILLION;
    i64::try_from(bytes).map_err(|_| error()).map(i64::cast_unsigned)
}

/// Processors in billionths, exactly as written: `0.1` is not a binary fraction.
pub(crate) fn nano_cpus(label: &str, node: &Node) -> Result<u64, Diagnostic> {
    /// More than any machine has; beyond it the engine's own arithmetic overflows.
    const MAX_CPUS: u128 = 65_536;
    let shape = "a number of processors such as 1.5, greater than 0";
    let billionths = decimal(text(label, node, shape)?);
    match billionths {
        Some(nano_cpus) if nano_cpus > 0 && nano_cpus <= MAX_CPUS * BILLION => {
            u64::try_from(nano_cpus).map_err(|_| bad("bad_number", label, node, shape))
        }
        _ => Err(bad("bad_number", label, node, shape)),
    }
}

const BILLION: u128 = 1_000_000_000;

/// A decimal number in billionths; more than nine decimals or 18 digits are refused.
fn decimal(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = is_digits(whole) && is_digits(fraction) && !whole.is_empty();
    if !is_number || whole.len() > 18 || fraction.len() > 9 {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let fraction: u128 = format!("{fraction:0<9}").parse().ok()?;
    Some(whole * BILLION + fraction)
}

/// A duration as Compose and Go write it: numbers with units, the largest first.
pub(crate) fn duration(label: &str, node: &Node) -> Result<Duration, Diagnostic> {
    let shape = "a duration such as 90s or 1m30s";
    let text = text(label, node, shape)?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("bad_duration", label, node, shape).suggest("add a unit: ms, s, m or h"));
    }
    match parse_duration(text) {
        Some(duration) if duration <= MAX_DURATION => Ok(duration),
        Some(_) => Err(bad("bad_duration", label, node, "a duration of at most seven days")),
        None => Err(bad("bad_duration", label, node, shape)),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u128); 6] = [
        ("h", 3_600_000_000_000),
        ("ms", 1_000_000),
        ("m", 60_000_000_000),
        ("us", 1_000),
        ("ns", 1),
        ("s", 1_000_000_000),
    ];
    let mut rest = text;
    let mut total: u128 = 0;
    let mut previous_unit = u128::MAX;
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(split);
        let (name, unit) = UNITS.into_iter().find(|(name, _)| tail.starts_with(name))?;
        if unit >= previous_unit {
            return None;
        }
        previous_unit = unit;
        total = total.checked_add(decimal(number)?.checked_mul(unit)? / BILLION)?;
        rest = &tail[name.len()..];
    }
    Some(Duration::from_nanos(u64::try_from(total).ok()?))
}

/// One of a few words.
pub(crate) fn word<T: Copy>(
    label: &str,
    node: &Node,
    words: &[(&'static str, T)],
    shape: &str,
) -> Result<T, Diagnostic> {
    let written = text(label, node, shape)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == written) {
        return Ok(*value);
    }
    let diagnostic = bad("bad_word", label, node, shape);
    // A suggestion names one of our words, not what was written.
    match nearest(written, words.iter().map(|(word, _)| *word)) {
        Some(meant) => Err(diagnostic.suggest(format!("did you mean {meant}?"))),
        None => Err(diagnostic),
    }
}

/// An absolute path in its plain form.
pub(crate) fn absolute_path<'a>(label: &str, node: &'a Node) -> Result<&'a str, Diagnostic> {
    let path = text(label, node, "an absolute path")?;
    if !is_absolute_path(path) {
        return Err(bad("bad_path", label, node, "an absolute path without `..`"));
    }
    Ok(path)
}

/// Docker refuses relative paths; `..` would make a mount's place a riddle.
pub(crate) fn is_absolute_path(path: &str) -> bool {
    /// Linux's PATH_MAX.
    const MAX_PATH_BYTES: usize = 4096;
    path.starts_with('/')
        && path.len() < MAX_PATH_BYTES
        && !path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::userdata::yaml;

    fn node(text: &str) -> Node {
        yaml::parse(text).unwrap().unwrap()
    }

    #[test]
    fn sizes() {
        let cases = [
            ("512m", Some(512 << 20)),
            ("1g", Some(1 << 30)),
            ("1.5GB", Some(3 << 29)),
            ("1 GiB", Some(1 << 30)),
            ("1048576", Some(1 << 20)),
            ("10kb", Some(10 << 10)),
            ("0", Some(0)),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1.2.3g", None),
            ("1e9", None),
            ("99999999t", None),
            ("999999999999999999999", None),
        ];
        for (written, expected) in cases {
            assert_eq!(size("mem_limit", &node(written)).ok(), expected, "{written}");
        }
    }

    #[test]
    fn durations() {
        let cases = [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1h", Some(3_600_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1_500)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("0s", Some(0)),
            ("168h", Some(604_800_000)),
            ("90", None),
            ("s", None),
            ("10 s", None),
            ("1s1m", None),
            ("1s1s", None),
            ("169h", None),
            ("99999999999999999h", None),
            ("-1s", None),
            ("1d", None),
        ];
        for (written, expected) in cases {
            let got = duration("timeout", &node(written)).ok().map(|d| d.as_millis());
            assert_eq!(got, expected, "{written}");
        }
    }

    #[test]
    fn processors() {
        let cases = [
            ("0.1", Some(100_000_000)),
            ("1.5", Some(1_500_000_000)),
            ("2", Some(2_000_000_000)),
            ("0", None),
            (".5", None),
            ("1e3", None),
            ("70000", None),
        ];
        for (written, expected) in cases {
            assert_eq!(nano_cpus("cpus", &node(written)).ok(), expected, "{written}");
        }
    }

    #[test]
    fn booleans_get_a_suggestion() {
        assert_eq!(flag("tty", &node("true")), Ok(true));
        let cases = [
            ("yes", Some("write true, without quotes")),
            ("'true'", Some("write true, without quotes")),
            ("OFF", Some("write false, without quotes")),
            ("maybe", None),
        ];
        for (written, expected) in cases {
            let diagnostic = flag("tty", &node(written)).unwrap_err();
            assert_eq!(diagnostic.suggestion.as_deref(), expected, "{written}");
            assert_eq!(diagnostic.code, "bad_boolean");
        }
    }
}
