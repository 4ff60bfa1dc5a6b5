//! NoCloud: a drive labelled `cidata` with `user-data` and `meta-data` in its root, as cloud-init
//! reads it and as virtualisation tools without a metadata service make it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::datasource::drive::{Drive, Files, Wanted};
use crate::datasource::{
    BrokenReason, Datasource, Found, MAX_METADATA_BYTES, MAX_USER_DATA_BYTES, Outcome,
};

const NAME: &str = "nocloud";

pub const LABELS: &[&str] = &["cidata", "CIDATA"];

pub(crate) const FILES: &[Wanted] = &[
    Wanted { path: "meta-data", max_bytes: MAX_METADATA_BYTES },
    Wanted { path: "user-data", max_bytes: MAX_USER_DATA_BYTES },
];

/// A NoCloud drive.
#[derive(Debug)]
pub struct NoCloud {
    drive: Drive,
}

impl NoCloud {
    pub fn new(drive: Drive) -> NoCloud {
        NoCloud { drive }
    }
}

#[async_trait]
impl Datasource for NoCloud {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn probe(&self) -> Outcome {
        self.drive.probe(FILES, found_in).await
    }
}

/// What `meta-data` and `user-data` say, from wherever they are.
pub(crate) fn found_in(files: Files) -> Result<Found, BrokenReason> {
    let mut files = files.into_iter();
    let (metadata, user_data) = (files.next().flatten(), files.next().flatten());
    if metadata.is_none() && user_data.is_none() {
        return Err(BrokenReason("neither meta-data nor user-data is there".to_owned()));
    }
    let metadata = metadata.unwrap_or_default();
    let metadata = String::from_utf8_lossy(&metadata);
    Ok(Found {
        datasource: NAME,
        instance_id: value_of(&metadata, "instance-id"),
        user_data: user_data.filter(|bytes| !bytes.is_empty()),
        facts: facts(&metadata),
    })
}

/// The instance has no name besides its host name.
fn facts(metadata: &str) -> BTreeMap<String, String> {
    let known = [
        ("name", "local-hostname"),
        ("hostname", "local-hostname"),
        ("availability_zone", "availability-zone"),
    ];
    let known = known.into_iter();
    known.filter_map(|(name, key)| Some((name.to_owned(), value_of(metadata, key)?))).collect()
}

/// One value of `meta-data`, which is YAML by its specification and `key: value` lines or JSON in
/// practice. A full YAML reader would be a second one for the sake of two lines.
fn value_of(metadata: &str, key: &str) -> Option<String> {
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(metadata) {
        return json.get(key)?.as_str().map(str::to_owned);
    }
    let line = metadata.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?.trim();
    let value = match line.chars().next() {
        Some(quote @ ('"' | '\'')) => line[1..].split(quote).next().unwrap_or_default(),
        _ => line.split(" #").next().unwrap_or_default().trim(),
    };
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_lines() {
        let cases = [
            ("instance-id: i-1\nlocal-hostname: web\n", Some("i-1")),
            ("local-hostname: web\r\ninstance-id: \"i 1\" # x\r\n", Some("i 1")),
            ("instance-id: 'i-1'", Some("i-1")),
            ("instance-id: i-1 # the first", Some("i-1")),
            ("{\"instance-id\": \"i-1\"}", Some("i-1")),
            ("instance-id:\n", None),
            ("  instance-id: nested\n", None),
            ("instance-idx: i-1\n", None),
            ("", None),
        ];
        for (metadata, expected) in cases {
            assert_eq!(value_of(metadata, "instance-id").as_deref(), expected, "{metadata:?}");
        }
    }
}
