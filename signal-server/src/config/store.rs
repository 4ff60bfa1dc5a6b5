//! Where signals are kept: `--store`, or `store` in the configuration file.
//!
//! A flag names a cluster by its members, `etcd://HOST:PORT,HOST:PORT`. What else there is to say, which
//! certificates and which user, stands in the table `[store.etcd]` of the file; members that the flag names
//! take the place of those in the table.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::file::FileConfig;
use crate::config::metadata::read_secret;
use crate::config::{ConfigError, Secret};
use crate::store::etcd::{EtcdSettings, EtcdTls, EtcdUser};

/// What the relay's keys in etcd begin with unless told otherwise.
const DEFAULT_PREFIX: &str = "heliograph/";

/// The password of the relay's user of etcd. A flag would show it to everybody who can list processes.
const PASSWORD_VARIABLE: &str = "HELIOGRAPH_ETCD_PASSWORD";

/// Where signals are kept, as `--store` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// In the data directory, synced before a signal is acknowledged.
    #[default]
    Embedded,
    /// In memory: gone with the process. For tests only.
    Memory,
    /// In the etcd cluster with these members.
    Etcd(Vec<String>),
}

/// The text names no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a store is embedded, memory, or etcd://HOST:PORT with more HOST:PORT after commas")]
pub struct StoreKindError;

/// Where signals are kept, with all that it needs.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    Embedded,
    Memory,
    Etcd(EtcdSettings),
}

/// `store` as it is written: a name, or a table `[store.etcd]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreSection {
    Embedded,
    Memory,
    Etcd(EtcdSection),
}

/// The table `[store.etcd]` as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EtcdSection {
    endpoints: Vec<String>,
    prefix: Option<String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    username: Option<String>,
    password_file: Option<PathBuf>,
}

impl FromStr for StoreKind {
    type Err = StoreKindError;

    fn from_str(text: &str) -> Result<StoreKind, StoreKindError> {
        match text {
            "embedded" => return Ok(StoreKind::Embedded),
            "memory" => return Ok(StoreKind::Memory),
            _ => {}
        }
        let members = text.strip_prefix("etcd://").ok_or(StoreKindError)?.trim_end_matches('/');
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        match members.iter().all(|member| is_address(member)) {
            true => Ok(StoreKind::Etcd(members)),
            false => Err(StoreKindError),
        }
    }
}

/// Whether it has the form `HOST:PORT`.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The store's settings, valid.
pub(crate) fn resolve_store(
    kind: Option<&StoreKind>,
    section: Option<&StoreSection>,
) -> Result<StoreConfig, ConfigError> {
    let table = match section {
        Some(StoreSection::Etcd(table)) => Some(table),
        _ => None,
    };
    match (kind, section) {
        (Some(StoreKind::Memory), _) | (None, Some(StoreSection::Memory)) => {
            Ok(StoreConfig::Memory)
        }
        (Some(StoreKind::Embedded), _) | (None, Some(StoreSection::Embedded) | None) => {
            Ok(StoreConfig::Embedded)
        }
        (Some(StoreKind::Etcd(members)), _) => {
            let table = table.cloned().unwrap_or_default();
            resolve_etcd(&EtcdSection { endpoints: members.clone(), ..table }, env_password())
        }
        (None, Some(StoreSection::Etcd(table))) => resolve_etcd(table, env_password()),
    }
}

/// The settings of a store that is named outside of the configuration, with what the file says beside it.
pub(crate) fn store_named(
    kind: &StoreKind,
    file: Option<&Path>,
) -> Result<StoreConfig, ConfigError> {
    let file = file.map(FileConfig::read).transpose()?.unwrap_or_default();
    resolve_store(Some(kind), file.store.as_ref())
}

fn resolve_etcd(table: &EtcdSection, password: Option<Secret>) -> Result<StoreConfig, ConfigError> {
    if table.endpoints.is_empty() {
        return Err(ConfigError::Empty { key: "store.etcd.endpoints" });
    }
    if let Some(endpoint) = table.endpoints.iter().find(|endpoint| !is_address(endpoint)) {
        return Err(ConfigError::BadEtcdEndpoint { endpoint: endpoint.clone() });
    }
    let missing = |key| ConfigError::Missing { key };
    let identity = match (&table.cert_file, &table.key_file) {
        (Some(certificate), Some(key)) => Some((read_pem(certificate)?, read_pem(key)?)),
        (None, None) => None,
        (Some(_), None) => return Err(missing("store.etcd.key_file")),
        (None, Some(_)) => return Err(missing("store.etcd.cert_file")),
    };
    let tls = match (&table.ca_file, identity) {
        (Some(ca), identity) => Some(EtcdTls { ca: read_pem(ca)?, identity }),
        (None, None) => None,
        (None, Some(_)) => return Err(missing("store.etcd.ca_file")),
    };
    let user = match (&table.username, password, &table.password_file) {
        (None, _, _) => None,
        (Some(name), Some(password), _) => Some((name, password)),
        (Some(name), None, Some(path)) => Some((name, read_secret(path)?)),
        (Some(_), None, None) => return Err(missing("store.etcd.password_file")),
    };
    let user = user.map(|(name, password)| EtcdUser {
        name: name.clone(),
        password: password.expose().to_owned(),
    });
    let prefix = table.prefix.clone().unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
    Ok(StoreConfig::Etcd(EtcdSettings { endpoints: table.endpoints.clone(), prefix, tls, user }))
}

fn read_pem(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|source| ConfigError::ReadPem { path: path.to_owned(), source })
}

#[expect(clippy::disallowed_methods, reason = "config reads the environment")]
fn env_password() -> Option<Secret> {
    std::env::var(PASSWORD_VARIABLE).ok().filter(|text| !text.is_empty()).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    #[test]
    fn a_store_is_named_by_a_word_or_by_its_members() {
        let etcd =
            |members: &[&str]| Ok(StoreKind::Etcd(members.iter().map(|m| (*m).into()).collect()));
        for (text, expect) in [
            ("embedded", Ok(StoreKind::Embedded)),
            ("memory", Ok(StoreKind::Memory)),
            ("etcd://a:2379", etcd(&["a:2379"])),
            ("etcd://a:2379,[::1]:2,10.0.0.1:3/", etcd(&["a:2379", "[::1]:2", "10.0.0.1:3"])),
            ("etcd://", Err(StoreKindError)),
            ("etcd://a", Err(StoreKindError)),
            ("etcd://a:0", Err(StoreKindError)),
            ("etcd://a:1,", Err(StoreKindError)),
            ("etcd://user:secret@a:1", Err(StoreKindError)),
            ("etcd://a:1/prefix", Err(StoreKindError)),
            ("redis://a:1", Err(StoreKindError)),
            ("", Err(StoreKindError)),
        ] {
            assert_eq!(text.parse(), expect, "{text}");
        }
    }

    /// Resolves a file with `DIR` for a directory that has `pem` and `password`.
    fn check(kind: Option<&str>, file: &str, expect: &str) {
        #[derive(Deserialize)]
        struct File {
            store: Option<StoreSection>,
        }
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().display().to_string();
        for name in ["pem", "password"] {
            fs::write(dir.path().join(name), "secret\n").expect("file is written");
        }
        let file: File = toml::from_str(&file.replace("DIR", &path)).expect("a file");
        let kind = kind.map(|kind| kind.parse().expect("a store"));
        let seen = match resolve_store(kind.as_ref(), file.store.as_ref()) {
            Ok(StoreConfig::Etcd(settings)) => {
                let has_identity = settings.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
                format!(
                    "{} {} tls {} identity {has_identity} user {:?}",
                    settings.endpoints.join(","),
                    settings.prefix,
                    settings.tls.is_some(),
                    settings.user.map(|user| (user.name, user.password))
                )
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => chain(&error).to_string().replace(&path, "DIR"),
        };
        assert_eq!(seen, expect, "{kind:?}");
    }

    #[test]
    fn the_file_says_what_the_flag_does_not() {
        check(None, "", "Embedded");
        check(None, "store = 'memory'", "Memory");
        check(Some("embedded"), "store = 'memory'", "Embedded");
        let table = "[store.etcd]\nendpoints = ['a:1', 'b:2']\n";
        check(None, table, "a:1,b:2 heliograph/ tls false identity false user None");
        check(
            Some("etcd://c:3"),
            &format!("{table}prefix = 'r/'\nca_file = 'DIR/pem'"),
            "c:3 r/ tls true identity false user None",
        );
        check(
            None,
            &format!(
                "{table}ca_file = 'DIR/pem'\ncert_file = 'DIR/pem'\nkey_file = 'DIR/pem'\n\
                 username = 'relay'\npassword_file = 'DIR/password'"
            ),
            "a:1,b:2 heliograph/ tls true identity true user Some((\"relay\", \"secret\"))",
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        check(None, "[store.etcd]", "store.etcd.endpoints is empty");
        for (line, expect) in [
            ("username = 'relay'", "store.etcd.password_file is not set"),
            ("cert_file = 'DIR/pem'", "store.etcd.key_file is not set"),
            ("key_file = 'DIR/pem'", "store.etcd.cert_file is not set"),
            ("cert_file = 'DIR/pem'\nkey_file = 'DIR/pem'", "store.etcd.ca_file is not set"),
        ] {
            check(None, &format!("[store.etcd]\nendpoints = ['a:1']\n{line}"), expect);
        }
        check(
            None,
            "[store.etcd]\nendpoints = ['http://a:1']",
            "\"http://a:1\" in store.etcd.endpoints is not HOST:PORT",
        );
        check(
            None,
            "[store.etcd]\nendpoints = ['a:1']\nca_file = 'DIR/none'",
            "failed to read the certificate or key DIR/none: No such file or directory (os error 2)",
        );
    }
}
