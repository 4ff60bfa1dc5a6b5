//! Lengths of time as people write them: `30s`, `10m`, `12h`, `7d`, `500ms`, or a bare number of seconds.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time in a configuration file or a request, written as text or as whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurationText(pub(crate) Duration);

/// The text is not a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a length of time is a whole number with one of the units ms, s, m, h, d, or a whole number of seconds"
)]
pub(crate) struct DurationError;

/// The units and their length in milliseconds; `ms` stands first because it ends in `s`.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a length of time.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let (digits, milliseconds_per_unit) = UNITS
        .iter()
        .find_map(|(unit, length)| Some((text.strip_suffix(unit)?, *length)))
        .unwrap_or((text, 1_000));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DurationError);
    }
    let number: u64 = digits.parse().map_err(|_| DurationError)?;
    let milliseconds = number.checked_mul(milliseconds_per_unit).ok_or(DurationError)?;
    Ok(Duration::from_millis(milliseconds))
}

impl fmt::Display for DurationText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() != 0 {
            return write!(formatter, "{}ms", self.0.as_millis());
        }
        write!(formatter, "{}s", self.0.as_secs())
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DurationText, D::Error> {
        deserializer.deserialize_any(DurationVisitor).map(DurationText)
    }
}

struct DurationVisitor;

impl serde::de::Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a length of time such as \"120s\", or whole seconds")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Duration, E> {
        Ok(Duration::from_secs(seconds))
    }

    fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Duration, E> {
        u64::try_from(seconds).map(Duration::from_secs).map_err(|_| E::custom(DurationError))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<u64>) {
        let milliseconds = parse_duration(text).ok().map(|duration| duration.as_millis());
        assert_eq!(milliseconds, expect.map(u128::from), "{text}");
    }

    #[test]
    fn a_length_of_time_is_a_number_and_a_unit() {
        check("0", Some(0));
        check("120", Some(120_000));
        check("120s", Some(120_000));
        check("500ms", Some(500));
        check("10m", Some(600_000));
        check("12h", Some(43_200_000));
        check("7d", Some(604_800_000));
        for text in ["", "s", "-1s", "+1s", "1.5s", "1 s", "1w", "1h30m", "99999999999999999999d"] {
            check(text, None);
        }
        check(&format!("{}d", u64::MAX), None);
    }

    #[test]
    fn json_may_hold_text_or_seconds() {
        let read = |json: &str| serde_json::from_str::<DurationText>(json).ok();
        assert_eq!(read("\"2m\""), Some(DurationText(Duration::from_secs(120))));
        assert_eq!(read("90"), Some(DurationText(Duration::from_secs(90))));
        for json in ["-1", "1.5", "null", "\"soon\"", "[]"] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
