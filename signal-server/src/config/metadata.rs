//! `[metadata]`: the gateway in front of Nova's metadata service. Without this table there is none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::{ConfigError, Secret};
use crate::duration::DurationText;
use crate::tls::{Tls, TlsFiles, client_config};

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
    #[serde(default)]
    nova_ca_file: Option<PathBuf>,
    secret_files: Vec<PathBuf>,
    #[serde(default)]
    retention: Option<DurationText>,
    #[serde(default)]
    tls: Option<TlsSection>,
}

/// TLS on the listener.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    certificate_file: PathBuf,
    key_file: PathBuf,
    #[serde(default)]
    client_ca_file: Option<PathBuf>,
}

/// The settings of the gateway, valid.
#[derive(Clone, Debug)]
pub struct MetadataConfig {
    /// Where Neutron's metadata agents send what instances ask.
    pub listen: SocketAddr,
    /// Nova's metadata servers; at least one.
    pub nova: Vec<Uri>,
    /// How servers with `https` are spoken to.
    pub nova_tls: ClientConfig,
    /// Neutron's `metadata_proxy_shared_secret`; at least one, none empty.
    pub secrets: Vec<Secret>,
    /// How long the record of an instance is kept after it was last heard of.
    pub retention: Duration,
    /// What Neutron's agents find on the listener; plain HTTP without it.
    pub tls: Option<Arc<Tls>>,
}

impl MetadataSection {
    pub(crate) fn resolve(&self) -> Result<MetadataConfig, ConfigError> {
        let empty = |key| ConfigError::Empty { key };
        let nova: Result<Vec<Uri>, ConfigError> =
            self.nova_urls.iter().map(|url| server(url)).collect();
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
        let is_encrypted = |url: &Uri| url.scheme_str() == Some("https");
        if self.nova_ca_file.is_none() && nova.iter().any(is_encrypted) {
            return Err(ConfigError::Missing { key: "metadata.nova_ca_file" });
        }
        let nova_tls = client_config(self.nova_ca_file.as_deref())
            .map_err(|source| ConfigError::NovaCa { source: source.into() })?;
        let tls = self.tls.as_ref().map(TlsSection::resolve).transpose()?;
        Ok(MetadataConfig { listen: self.listen, nova, nova_tls, secrets, retention, tls })
    }
}

impl TlsSection {
    fn resolve(&self) -> Result<Arc<Tls>, ConfigError> {
        let files = TlsFiles {
            certificate: self.certificate_file.clone(),
            key: self.key_file.clone(),
            client_ca: self.client_ca_file.clone(),
        };
        Tls::load(files).map(Arc::new).map_err(|source| ConfigError::Tls { source: source.into() })
    }
}

/// Reads `http://host:port` or `https://host:port`.
fn server(text: &str) -> Result<Uri, ConfigError> {
    let bad = || ConfigError::BadNovaUrl { url: text.to_owned() };
    let url = Url::parse(text).map_err(|_| bad())?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none();
    let (Some(host), true) = (url.host_str(), is_plain) else {
        return Err(bad());
    };
    let port = url.port_or_known_default().unwrap_or(80);
    format!("{}://{host}:{port}/", url.scheme()).parse().map_err(|_| bad())
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
    use crate::error::chain;

    /// Resolves the table; `SECRET` stands for a file with this content.
    fn check(secret: &str, table: &str, expect: &str) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, secret).expect("file is written");
        let table = table.replace("SECRET", &path.display().to_string());
        let section: MetadataSection = toml::from_str(&table).expect("a table");
        let seen = match section.resolve() {
            Ok(config) => format!("{} {:?} {}", config.listen, config.nova, config.secrets.len()),
            Err(error) => {
                chain(&error).to_string().replace(&dir.path().display().to_string(), "DIR")
            }
        };
        assert_eq!(seen, expect, "{table}");
    }

    #[test]
    fn a_gateway_needs_an_address_servers_and_secrets() {
        let listen = "listen = '10.0.0.1:8775'\n";
        let table = |rest: &str| format!("{listen}{rest}");
        let whole =
            table("nova_urls = ['http://a:8775', 'http://[::1]:1/']\nsecret_files = ['SECRET']");
        check("s\n", &whole, "10.0.0.1:8775 [http://a:8775/, http://[::1]:1/] 1");
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
        let encrypted = table("nova_urls = ['https://a']\nsecret_files = ['SECRET']");
        check("s", &encrypted, "metadata.nova_ca_file is not set");
        check(
            "s",
            &format!("{encrypted}\nnova_ca_file = 'SECRET'"),
            "metadata.nova_ca_file cannot be used: DIR/secret holds no certificate",
        );
        let tls = "[tls]\ncertificate_file = '/dev/null/no'\nkey_file = 'SECRET'";
        check(
            "s",
            &format!("{whole}\n{tls}"),
            "metadata.tls cannot be used: failed to read /dev/null/no: Not a directory (os error 20)",
        );
        for url in ["a:8775", "ftp://a:1", "http://a/p", "http://u@a", "http://a?q"] {
            check(
                "s",
                &table(&format!("nova_urls = ['{url}']\nsecret_files = ['SECRET']")),
                &format!("\"{url}\" is not http://HOST:PORT or https://HOST:PORT"),
            );
        }
    }
}
