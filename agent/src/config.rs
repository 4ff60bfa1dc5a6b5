//! What the agent is told before it starts: by flags, else by the environment, else by a file.
//!
//! Everything is read and checked here, before anything is opened or asked. An option has the same
//! name in all three places: `--state-dir`, `HELIOGRAPH_AGENT_STATE_DIR` and `state_dir`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::boot::fault::{FaultPoint, UnknownFaultPoint};
use crate::durable;
use crate::error::BoxError;
use crate::signal::gateway::METADATA_ADDRESS;

/// Read if it is there and no other is named.
const DEFAULT_FILE: &str = "/etc/heliograph/agent.toml";

pub(crate) const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/heliograph-agent";

const DEFAULT_CONSOLE: &str = "/dev/console";

/// Where Docker Engine and Podman listen; whichever answers first is used.
const DEFAULT_ENGINES: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// Six options need a few hundred bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// All authorities that browsers trust have 250 KiB.
const MAX_CA_FILE_BYTES: u64 = 1024 * 1024;

/// An id is part of the signal's id and a label on the container; real ones are UUIDs.
const MAX_INSTANCE_ID_BYTES: usize = 256;

/// The options on the command line; clap reads the environment for those that are not there.
#[derive(Debug, Default, clap::Args)]
pub struct Flags {
    /// Read this configuration file, which has to exist
    #[arg(long, value_name = "FILE", env = "HELIOGRAPH_AGENT_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Take user data from this file instead of from the cloud
    #[arg(long, value_name = "FILE", env = "HELIOGRAPH_AGENT_USER_DATA", hide_env_values = true)]
    pub user_data: Option<PathBuf>,
    /// Keep what must survive a reboot here [default: /var/lib/heliograph-agent]
    #[arg(long, value_name = "DIR", env = "HELIOGRAPH_AGENT_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Write the result and the container's output here [default: /dev/console]
    #[arg(long, value_name = "FILE", env = "HELIOGRAPH_AGENT_CONSOLE", hide_env_values = true)]
    pub console: Option<PathBuf>,
    /// Use the engine at this socket, unix:///PATH [default: Docker's, else Podman's]
    #[arg(long, value_name = "URL", env = "HELIOGRAPH_AGENT_ENGINE", hide_env_values = true)]
    pub engine: Option<String>,
    /// This instance's id, instead of what the datasource says
    #[arg(long, value_name = "ID", env = "HELIOGRAPH_AGENT_INSTANCE_ID", hide_env_values = true)]
    pub instance_id: Option<String>,
    /// The image of a service that names none
    #[arg(
        long,
        value_name = "IMAGE",
        env = "HELIOGRAPH_AGENT_DEFAULT_IMAGE",
        hide_env_values = true
    )]
    pub default_image: Option<String>,
    /// Where the metadata service is, IP:PORT, or `off` to send no signal that way
    /// [default: 169.254.169.254:80]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "HELIOGRAPH_AGENT_METADATA_ADDRESS",
        hide_env_values = true
    )]
    pub metadata_address: Option<String>,
    /// Give the relay at the metadata address a key, so that no container can speak for the agent
    #[arg(long, env = "HELIOGRAPH_AGENT_INSTANCE_KEY", hide_env_values = true, num_args = 0..=1, default_missing_value = "true")]
    pub instance_key: Option<bool>,
    /// Leave the result in Nova's password slot as well, for `nova get-password`
    #[arg(long, env = "HELIOGRAPH_AGENT_PASSWORD_SLOT", hide_env_values = true, num_args = 0..=1, default_missing_value = "true")]
    pub password_slot: Option<bool>,
    /// Keep containers from the metadata service [default: true if user data comes from the cloud]
    #[arg(
        long,
        value_name = "BOOL",
        env = "HELIOGRAPH_AGENT_METADATA_GUARD",
        hide_env_values = true
    )]
    pub metadata_guard: Option<bool>,
    /// With `run --follow`: ask the datasources again every so many seconds, and run again when they
    /// say something else [default: 30 if no number is given; not at all without the flag]
    #[arg(long, value_name = "SECONDS", env = "HELIOGRAPH_AGENT_WATCH_METADATA", hide_env_values = true, num_args = 0..=1, default_missing_value = "30")]
    pub watch_metadata: Option<u64>,
    /// Trust the certificates in this PEM file, beside the system's, where images come from
    #[arg(long, value_name = "FILE", env = "HELIOGRAPH_AGENT_CA_FILE", hide_env_values = true)]
    pub ca_file: Option<PathBuf>,
    /// What to log to standard error, such as `info` or `heliograph_agent=debug`
    #[arg(long, value_name = "FILTER", env = "HELIOGRAPH_AGENT_LOG", hide_env_values = true)]
    pub log: Option<String>,
    /// For tests only: die at this point; see `heliograph-agent fault-points`
    #[arg(long, hide = true, env = "HELIOGRAPH_FAULT_POINT", hide_env_values = true)]
    pub fault_point: Option<String>,
}

/// The file. An option that it does not know is an error, not a typo that nobody notices.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    user_data: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    console: Option<PathBuf>,
    engine: Option<String>,
    instance_id: Option<String>,
    default_image: Option<String>,
    metadata_address: Option<String>,
    instance_key: Option<bool>,
    password_slot: Option<bool>,
    metadata_guard: Option<bool>,
    watch_metadata: Option<u64>,
    ca_file: Option<PathBuf>,
    log: Option<String>,
}

/// The options that hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub user_data: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub console: PathBuf,
    /// In the order in which they are tried.
    pub engine_sockets: Vec<PathBuf>,
    pub instance_id: Option<String>,
    /// The image of a service that names none.
    pub default_image: Option<String>,
    /// None: no signal goes by way of the metadata address.
    pub metadata_address: Option<SocketAddr>,
    pub instance_key: bool,
    pub password_slot: bool,
    pub metadata_guard: bool,
    /// None: what the datasources said once holds until the next run.
    pub watch_metadata_seconds: Option<u64>,
    /// Certificates, in PEM, that are trusted beside the system's.
    pub authorities: Vec<String>,
    pub log: String,
    pub fault_point: Option<FaultPoint>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("CA file has no certificate in PEM in it")]
    Authorities,
    #[error("read the configuration file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("understand the configuration file {}", path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("engine has to be unix:///PATH")]
    Engine,
    #[error("fault point cannot be used")]
    FaultPoint { source: UnknownFaultPoint },
    #[error("data is not JSON, or the signal is longer than 1 MiB")]
    SignalData,
    #[error("instance id is not known here, so --id has to be given")]
    NoSignalId,
    #[error("document has no handle to signal")]
    NoHandle,
    #[error("log filter cannot be used")]
    Log { source: BoxError },
    #[error("metadata address is neither IP:PORT nor off")]
    MetadataAddress,
    #[error("instance id is empty, too long, or has white space or control characters in it")]
    InstanceId,
}

impl Config {
    /// Flags go before the environment, which clap has mixed in already, and both before the file.
    pub fn load(flags: Flags) -> Result<Config, ConfigError> {
        let file = match &flags.config {
            Some(path) => read(path)?.ok_or_else(|| ConfigError::Read {
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            })?,
            None => read(Path::new(DEFAULT_FILE))?.unwrap_or_default(),
        };
        Config::merge(flags, file)
    }

    fn merge(flags: Flags, file: ConfigFile) -> Result<Config, ConfigError> {
        let engine_sockets = match flags.engine.or(file.engine) {
            Some(engine) => vec![socket(&engine)?],
            None => DEFAULT_ENGINES.map(PathBuf::from).to_vec(),
        };
        let instance_id = flags.instance_id.or(file.instance_id);
        if instance_id.as_deref().is_some_and(|id| !is_instance_id(id)) {
            return Err(ConfigError::InstanceId);
        }
        let user_data = flags.user_data.or(file.user_data);
        let state_dir = flags.state_dir.or(file.state_dir);
        let console = flags.console.or(file.console);
        Ok(Config {
            user_data: user_data.clone(),
            state_dir: state_dir.unwrap_or_else(|| DEFAULT_STATE_DIRECTORY.into()),
            console: console.unwrap_or_else(|| DEFAULT_CONSOLE.into()),
            engine_sockets,
            instance_id,
            default_image: flags.default_image.or(file.default_image),
            metadata_address: metadata_address(
                flags.metadata_address.or(file.metadata_address).as_deref(),
            )?,
            instance_key: flags.instance_key.or(file.instance_key).unwrap_or(false),
            password_slot: flags.password_slot.or(file.password_slot).unwrap_or(false),
            // Whoever names a file tries a document out, on a machine whose firewall is theirs.
            metadata_guard: flags
                .metadata_guard
                .or(file.metadata_guard)
                .unwrap_or(user_data.is_none()),
            watch_metadata_seconds: watch_interval(flags.watch_metadata.or(file.watch_metadata)),
            authorities: authorities(flags.ca_file.or(file.ca_file).as_deref())?,
            log: flags.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            fault_point: fault_point(flags.fault_point.as_deref())?,
        })
    }
}

fn read(path: &Path) -> Result<Option<ConfigFile>, ConfigError> {
    let content = durable::read(path, MAX_FILE_BYTES)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let Some(content) = content else {
        return Ok(None);
    };
    let parsed = toml::from_slice(&content)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
    Ok(Some(parsed))
}

fn socket(engine: &str) -> Result<PathBuf, ConfigError> {
    let path = engine.strip_prefix("unix://").map(PathBuf::from);
    path.filter(|path| path.is_absolute()).ok_or(ConfigError::Engine)
}

fn metadata_address(text: Option<&str>) -> Result<Option<SocketAddr>, ConfigError> {
    match text {
        None => Ok(Some(METADATA_ADDRESS)),
        Some("off") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| ConfigError::MetadataAddress),
    }
}

/// Never: 0 says so in a place that overrides another.
fn watch_interval(seconds: Option<u64>) -> Option<u64> {
    seconds.filter(|seconds| *seconds > 0)
}

/// Read now, so that a wrong path is told before anything is done.
fn authorities(path: Option<&Path>) -> Result<Vec<String>, ConfigError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let content = durable::read(path, MAX_CA_FILE_BYTES).map_err(unreadable)?;
    let content = content.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
    let text = String::from_utf8(content).ok().filter(|text| text.contains("BEGIN CERTIFICATE"));
    Ok(vec![text.ok_or(ConfigError::Authorities)?])
}

/// Set to nothing is not set: that is how a test script says "nowhere".
fn fault_point(name: Option<&str>) -> Result<Option<FaultPoint>, ConfigError> {
    let name = name.filter(|name| !name.is_empty());
    name.map(str::parse).transpose().map_err(|source| ConfigError::FaultPoint { source })
}

fn is_instance_id(id: &str) -> bool {
    let is_odd = |c: char| c.is_whitespace() || c.is_control();
    !id.is_empty() && id.len() <= MAX_INSTANCE_ID_BYTES && !id.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    fn parse(file: &str) -> Result<ConfigFile, toml::de::Error> {
        toml::from_str(file)
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_the_defaults() {
        let flags = Flags { console: Some("/flag".into()), ..Flags::default() };
        let file = parse("console = '/file'\nstate_dir = '/file'\nengine = 'unix:///e'").unwrap();
        let config = Config::merge(flags, file).unwrap();
        let expect = Config {
            user_data: None,
            state_dir: "/file".into(),
            console: "/flag".into(),
            engine_sockets: vec!["/e".into()],
            instance_id: None,
            default_image: None,
            metadata_address: Some(METADATA_ADDRESS),
            instance_key: false,
            password_slot: false,
            metadata_guard: true,
            watch_metadata_seconds: None,
            authorities: Vec::new(),
            log: "info".to_owned(),
            fault_point: None,
        };
        assert_eq!(config, expect);

        let config = Config::merge(Flags::default(), ConfigFile::default()).unwrap();
        assert_eq!(config.engine_sockets.len(), 2);
        assert_eq!(config.console, PathBuf::from("/dev/console"));
    }

    #[test]
    fn what_cannot_hold_is_refused() {
        let check = |engine: Option<&str>, instance_id: Option<&str>, expect: bool| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let flags = Flags {
                engine: owned(engine),
                instance_id: owned(instance_id),
                ..Flags::default()
            };
            let result = Config::merge(flags, ConfigFile::default());
            assert_eq!(result.is_ok(), expect, "{engine:?} {instance_id:?}");
        };
        check(Some("unix:///run/podman/podman.sock"), Some("i-1"), true);
        check(Some("tcp://127.0.0.1:2375"), None, false);
        check(Some("unix://relative.sock"), None, false);
        check(Some("/run/docker.sock"), None, false);
        check(None, Some(""), false);
        check(None, Some("two words"), false);
        check(None, Some(&"x".repeat(MAX_INSTANCE_ID_BYTES)), true);
        check(None, Some(&"x".repeat(MAX_INSTANCE_ID_BYTES + 1)), false);
    }

    #[test]
    fn a_fault_point_is_known_or_not_set() {
        let check = |name: Option<&str>, expect: Option<Option<FaultPoint>>| {
            assert_eq!(fault_point(name).ok(), expect, "{name:?}");
        };
        check(None, Some(None));
        check(Some(""), Some(None));
        check(Some("after_mark"), Some(Some(FaultPoint::AfterMark)));
        check(Some("nowhere"), None);
    }

    #[test]
    fn every_option_is_documented() {
        let documented = include_str!("../../docs/agent.md");
        let command = Flags::augment_args(clap::Command::new("run"));
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let flag = argument.get_long().unwrap_or_default();
            let variable = argument.get_env().unwrap_or_default().to_string_lossy();
            let row = documented.lines().find(|line| line.starts_with(&format!("| `--{flag}")));
            assert!(row.is_some_and(|row| row.contains(&*variable)), "--{flag} {variable}");
        }
    }

    #[test]
    fn an_unknown_option_in_the_file_is_an_error() {
        let error = parse("consol = '/x'").unwrap_err().to_string();
        assert!(error.contains("consol") && error.contains("console"), "{error}");
    }

    #[test]
    fn a_file_that_is_named_has_to_exist() {
        let flags = Flags { config: Some("/nonexistent/agent.toml".into()), ..Flags::default() };
        assert!(matches!(Config::load(flags), Err(ConfigError::Read { .. })));
    }
}
