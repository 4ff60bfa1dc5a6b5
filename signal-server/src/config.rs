//! What an operator can set, where it comes from, and what makes it valid.
//!
//! A setting is taken from its flag, else from its environment variable, else from the configuration
//! file, else from its default. Everything is read and checked here, before the relay opens its store
//! or binds an address: a [`Config`] that exists is valid.

mod cloud;
mod file;
mod metadata;
mod store;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use signal_protocol::path::{AccountName, PathError};
use url::Url;

pub use crate::config::cloud::CloudArgs;
use crate::config::cloud::{PASSWORD_VARIABLE, resolve_heat, resolve_keystone};
use crate::config::file::FileConfig;
pub use crate::config::metadata::MetadataConfig;
use crate::config::store::resolve_store;
pub(crate) use crate::config::store::store_named;
pub use crate::config::store::{StoreConfig, StoreKind};
use crate::duration::parse_duration;
use crate::forward::upstream::HeatSettings;
use crate::keystone::KeystoneSettings;
use crate::telemetry::{LogFilter, LogFormat};
use crate::tls::TlsError;

/// Where the surfaces for instances and orchestrators listen unless told otherwise: loopback, so that
/// nobody serves signals to a network without having said so.
const DEFAULT_LISTEN: &str = "127.0.0.1:8090";

/// Where the admin surface listens unless told otherwise.
const DEFAULT_ADMIN_LISTEN: &str = "127.0.0.1:8091";

/// Where a service keeps its state on a system that follows the file system hierarchy standard.
const DEFAULT_DATA_DIR: &str = "/var/lib/heliograph";

/// How long a stopping relay waits for the requests that it is answering. Twice the longest sync seen
/// on a busy disk, and well under the 90 s after which a service manager kills.
const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How many requests are answered at once unless told otherwise. A commit group takes far fewer; the
/// rest would only wait in memory, with up to 1 MiB of body each.
const DEFAULT_MAX_IN_FLIGHT: usize = 1024;

/// How many requests may wait for a signal unless told otherwise. Each costs an open connection and
/// some kilobytes.
const DEFAULT_MAX_LONG_POLLS: usize = 50_000;

/// The shortest token that is taken, in bytes: anything shorter can be guessed over the network.
const MIN_TOKEN_BYTES: usize = 16;

/// The longest token that is taken, in bytes: a token is sent in a header, whose size is limited.
const MAX_TOKEN_BYTES: usize = 4096;

/// The flags of `serve`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Address of the surfaces for instances and orchestrators; port 0 takes a free port
    #[arg(long, env = "HELIOGRAPH_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// Address of health, metrics and log level
    #[arg(long, env = "HELIOGRAPH_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,

    /// Directory of the store and of operator.token
    #[arg(long, env = "HELIOGRAPH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Configuration file in TOML
    #[arg(long, env = "HELIOGRAPH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// URL under which instances reach the relay; signal URLs begin with it
    #[arg(long, env = "HELIOGRAPH_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<PublicUrl>,

    /// Where signals are kept: embedded, memory, or etcd://HOST:PORT,HOST:PORT
    #[arg(long, env = "HELIOGRAPH_STORE", value_name = "STORE")]
    pub store: Option<StoreKind>,

    /// What is logged: a level, or levels and target=level separated by commas
    #[arg(long, env = "HELIOGRAPH_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<LogFilter>,

    /// How log lines are written
    #[arg(long, env = "HELIOGRAPH_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// How long a stopping relay waits for the requests that it is answering
    #[arg(long, env = "HELIOGRAPH_SHUTDOWN_GRACE", value_name = "TIME", value_parser = parse_duration)]
    pub shutdown_grace: Option<Duration>,

    /// How many requests are answered at once; more are refused with 503
    #[arg(long, env = "HELIOGRAPH_MAX_IN_FLIGHT", value_name = "COUNT")]
    pub max_in_flight: Option<usize>,

    /// How many requests may wait for a signal; more are refused with 503
    #[arg(long, env = "HELIOGRAPH_MAX_LONG_POLLS", value_name = "COUNT")]
    pub max_long_polls: Option<usize>,

    #[command(flatten)]
    pub cloud: CloudArgs,

    /// Check flags, environment, configuration file and token files, then exit
    #[arg(long)]
    pub check_config: bool,
}

/// The URL under which instances reach the relay, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicUrl(String);

/// The text cannot begin a signal URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a public URL is http:// or https://, a host, and nothing after the path: no user, query or fragment"
)]
pub struct PublicUrlError;

impl PublicUrl {
    /// The URL of a relay that is reached where it listens.
    pub(crate) fn of_address(address: SocketAddr) -> PublicUrl {
        PublicUrl(format!("http://{address}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port, as a client writes them into the header `Host`.
    pub(crate) fn host(&self) -> Option<&str> {
        let (_, rest) = self.0.split_once("://")?;
        rest.split('/').next()
    }
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<PublicUrl, PublicUrlError> {
        let url = Url::parse(text).map_err(|_| PublicUrlError)?;
        let has_more = !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some();
        if has_more || !url.has_host() || !matches!(url.scheme(), "http" | "https") {
            return Err(PublicUrlError);
        }
        Ok(PublicUrl(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = PublicUrlError;

    fn try_from(text: String) -> Result<PublicUrl, PublicUrlError> {
        text.parse()
    }
}

impl From<PublicUrl> for String {
    fn from(url: PublicUrl) -> String {
        url.0
    }
}

/// All settings of a relay, valid.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub data_dir: PathBuf,
    pub public_url: Option<PublicUrl>,
    pub store: StoreConfig,
    pub log_level: LogFilter,
    pub log_format: LogFormat,
    pub shutdown_grace: Duration,
    pub max_in_flight: usize,
    pub max_long_polls: usize,
    pub tokens: Vec<AccountToken>,
    /// The gateway in front of Nova's metadata service, if there is one.
    pub metadata: Option<MetadataConfig>,
    /// Who says whose token it is, beside the fixed tokens.
    pub keystone: Option<KeystoneSettings>,
    /// Where signals are forwarded to, if they are.
    pub heat: Option<HeatSettings>,
}

/// A fixed token and the account that it opens.
#[derive(Clone, Debug)]
pub struct AccountToken {
    pub account: AccountName,
    pub token: Secret,
}

/// Text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Secret {
        Secret(text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// Why the settings are not valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("failed to read the configuration file {path}")]
    ReadFile { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}, column {column}{}: {message}", at_key(key))]
    ParseFile { path: PathBuf, line: usize, column: usize, key: String, message: String },
    #[error("failed to read the token file {path}")]
    ReadToken { path: PathBuf, source: io::Error },
    #[error(
        "the token in {path} is not {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} visible ASCII characters"
    )]
    BadToken { path: PathBuf },
    #[error("the account \"{account}\" of a token is not valid")]
    BadAccount { account: String, source: PathError },
    #[error("two entries of tokens hold the same token: {path} repeats one above it")]
    RepeatedToken { path: PathBuf },
    #[error("the secret in {path} is empty, has more than one line, or more than 1024 bytes")]
    BadSecret { path: PathBuf },
    #[error("\"{url}\" is not http://HOST:PORT or https://HOST:PORT")]
    BadNovaUrl { url: String },
    #[error("metadata.tls cannot be used")]
    Tls { source: Box<TlsError> },
    #[error("metadata.nova_ca_file cannot be used")]
    NovaCa { source: Box<TlsError> },
    #[error("\"{endpoint}\" in store.etcd.endpoints is not HOST:PORT")]
    BadEtcdEndpoint { endpoint: String },
    #[error("failed to read the certificate or key {path}")]
    ReadPem { path: PathBuf, source: io::Error },
    #[error("{key} is empty")]
    Empty { key: &'static str },
    #[error("{key} is not set")]
    Missing { key: &'static str },
    #[error(
        "heat.api_url or heat.cfn_url is set, and keystone.auth_url is not: what is forwarded has to be checked"
    )]
    HeatWithoutKeystone,
    #[error("{key} is zero: the relay would refuse every request")]
    Zero { key: &'static str },
    #[error("listen and admin_listen are both {address}")]
    SameAddress { address: SocketAddr },
}

fn at_key(key: &str) -> String {
    match key {
        "" | "." => String::new(),
        key => format!(", key {key}"),
    }
}

impl Config {
    /// Joins flags, environment (which the flags already hold) and file, and checks the whole.
    pub fn resolve(args: &ServeArgs) -> Result<Config, ConfigError> {
        let file = match &args.config {
            Some(path) => FileConfig::read(path)?,
            None => FileConfig::default(),
        };
        let keystone = resolve_keystone(&args.cloud, file.keystone.as_ref(), env_password())?;
        let heat = resolve_heat(&args.cloud, file.heat.as_ref(), keystone.is_some())?;
        let args = args.clone();
        let config = Config {
            listen: args.listen.or(file.listen).unwrap_or(address(DEFAULT_LISTEN)),
            admin_listen: args
                .admin_listen
                .or(file.admin_listen)
                .unwrap_or(address(DEFAULT_ADMIN_LISTEN)),
            data_dir: args.data_dir.or(file.data_dir).unwrap_or(DEFAULT_DATA_DIR.into()),
            public_url: args.public_url.or(file.public_url),
            store: resolve_store(args.store.as_ref(), file.store.as_ref())?,
            log_level: args.log_level.or(file.log_level).unwrap_or_default(),
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            shutdown_grace: args
                .shutdown_grace
                .or(file.shutdown_grace.map(|text| text.0))
                .unwrap_or(DEFAULT_SHUTDOWN_GRACE),
            max_in_flight: args
                .max_in_flight
                .or(file.max_in_flight)
                .unwrap_or(DEFAULT_MAX_IN_FLIGHT),
            max_long_polls: args
                .max_long_polls
                .or(file.max_long_polls)
                .unwrap_or(DEFAULT_MAX_LONG_POLLS),
            tokens: read_tokens(&file.tokens)?,
            metadata: file.metadata.as_ref().map(|section| section.resolve()).transpose()?,
            keystone,
            heat,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.max_in_flight == 0 {
            return Err(ConfigError::Zero { key: "max_in_flight" });
        }
        if self.max_long_polls == 0 {
            return Err(ConfigError::Zero { key: "max_long_polls" });
        }
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            return Err(ConfigError::SameAddress { address: self.listen });
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
fn env_password() -> Option<Secret> {
    let password = std::env::var(PASSWORD_VARIABLE).ok()?;
    if password.is_empty() { None } else { Some(Secret::new(password)) }
}

/// An address that stands in this file.
fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn read_tokens(entries: &[file::TokenEntry]) -> Result<Vec<AccountToken>, ConfigError> {
    let mut seen = BTreeSet::new();
    let mut tokens = Vec::with_capacity(entries.len());
    for entry in entries {
        let account = AccountName::parse(&entry.account)
            .map_err(|source| ConfigError::BadAccount { account: entry.account.clone(), source })?;
        let token = read_token_file(&entry.token_file)?;
        if !seen.insert(token.expose().to_owned()) {
            return Err(ConfigError::RepeatedToken { path: entry.token_file.clone() });
        }
        tokens.push(AccountToken { account, token });
    }
    Ok(tokens)
}

/// Reads a token from its file: one line, whose surrounding white space does not count.
pub(crate) fn read_token_file(path: &Path) -> Result<Secret, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::ReadToken { path: path.to_owned(), source })?;
    let token = text.trim();
    let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible || !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&token.len()) {
        return Err(ConfigError::BadToken { path: path.to_owned() });
    }
    Ok(Secret::new(token.to_owned()))
}

/// The token that a client shows: from a file, else from the environment, else none.
pub(crate) fn client_token(token_file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    if let Some(path) = token_file {
        return read_token_file(path).map(Some);
    }
    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
    let variable = |name| std::env::var(name).ok().filter(|token| !token.is_empty());
    Ok(variable("HELIOGRAPH_TOKEN").or_else(|| variable("OS_TOKEN")).map(Secret::new))
}

#[cfg(test)]
mod tests;
