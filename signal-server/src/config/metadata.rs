//! `[metadata]`: the gateway in front of Nova's metadata service. Without this table there is none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::uri::Authority;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::{ConfigError, Secret};
use crate::duration::DurationText;

/// How long the record of an instance is kept after it was last heard of, unless told otherwise: long
/// enough to look into what happened over a holiday.
const DEFAULT_RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// The longest secret, in bytes. OpenStack's own examples have 32.
const MAX_SECRET_BYTES: usize = 1_024;

/// The table as it is written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetadataSection {
    listen: SocketAddr,
    nova_urls: Vec<String>,
    secret_files: Vec<PathBuf>,
    #[serde(default)]
    retention: Option<DurationText>,
}

/// The settings of the gateway, valid.
#[derive(Clone, Debug)]
pub struct MetadataConfig {
    /// Where Neutron's metadata agents send what instances ask.
    pub listen: SocketAddr,
    /// Nova's metadata servers; at least one.
    pub nova: Vec<Authority>,
    /// Neutron's `metadata_proxy_shared_secret`; at least one, none empty.
    pub secrets: Vec<Secret>,
    /// How long the record of an instance is kept after it was last heard of.
    pub retention: Duration,
}

impl MetadataSection {
    pub(crate) fn resolve(&self) -> Result<MetadataConfig, ConfigError> {
        let empty = |key| ConfigError::Empty { key };
        let nova: Result<Vec<Authority>, ConfigError> =
            self.nova_urls.iter().map(|url| authority(url)).collect();
        let secrets: Result<Vec<Secret>, ConfigError> =
            self.secret_files.iter().map(|path| read_secret(path)).collect();
        let (nova, secrets) = (nova?, secrets?);
        if nova.is_empty() {
            return Err(empty("metadata.nova_urls"));
        }
        if secrets.is_empty() {
            return Err(empty("metadata.secret_files"));
        }
        let retention = self.retention.map_or(DEFAULT_RETENTION, |text| text.0);
        if retention.is_zero() {
            return Err(ConfigError::Zero { key: "metadata.retention" });
        }
        Ok(MetadataConfig { listen: self.listen, nova, secrets, retention })
    }
}

/// Host and port of `http://host:port`.
fn authority(text: &str) -> Result<Authority, ConfigError> {
    let bad = || ConfigError::BadNovaUrl { url: text.to_owned() };
    let url = Url::parse(text).map_err(|_| bad())?;
    let is_plain = url.scheme() == "http"
        && url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none();
    let (Some(host), true) = (url.host_str(), is_plain) else {
        return Err(bad());
    };
    format!("{host}:{}", url.port_or_known_default().unwrap_or(80)).parse().map_err(|_| bad())
}

/// Reads a secret: one line, of which the newline at its end does not count. An empty one would let
/// everybody sign.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::ReadToken { path: path.to_owned(), source })?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.trim().is_empty() || secret.len() > MAX_SECRET_BYTES || secret.contains('\n') {
        return Err(ConfigError::BadSecret { path: path.to_owned() });
    }
    Ok(Secret::new(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves the table; `SECRET` stands for a file with this content.
    fn check(secret: &str, table: &str, expect: &str) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, secret).expect("file is written");
        let table = table.replace("SECRET", &path.display().to_string());
        let section: MetadataSection = toml::from_str(&table).expect("a table");
        let seen = match section.resolve() {
            Ok(config) => format!("{} {:?} {}", config.listen, config.nova, config.secrets.len()),
            Err(error) => error.to_string().replace(&dir.path().display().to_string(), "DIR"),
        };
        assert_eq!(seen, expect, "{table}");
    }

    #[test]
    fn a_gateway_needs_an_address_servers_and_secrets() {
        let listen = "listen = '10.0.0.1:8775'\n";
        let table = |rest: &str| format!("{listen}{rest}");
        let whole =
            table("nova_urls = ['http://a:8775', 'http://[::1]:1/']\nsecret_files = ['SECRET']");
        check("s\n", &whole, "10.0.0.1:8775 [a:8775, [::1]:1] 1");
        let bad =
            "the secret in DIR/secret is empty, has more than one line, or more than 1024 bytes";
        for secret in ["", "\n", "  \n", "a\nb\n", &"x".repeat(1025)] {
            check(secret, &whole, bad);
        }
        check(
            "s",
            &table("nova_urls = ['http://a:8775']\nsecret_files = []"),
            "metadata.secret_files is empty",
        );
        check(
            "s",
            &table("nova_urls = []\nsecret_files = ['SECRET']"),
            "metadata.nova_urls is empty",
        );
        for url in ["a:8775", "https://a:1", "http://a/p", "http://u@a", "http://a?q"] {
            check(
                "s",
                &table(&format!("nova_urls = ['{url}']\nsecret_files = ['SECRET']")),
                &format!("\"{url}\" is not http://HOST:PORT"),
            );
        }
    }
}
