//! The configuration file: TOML, every key optional, no key unknown.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::cloud::{HeatSection, KeystoneSection};
use crate::config::metadata::MetadataSection;
use crate::config::store::StoreSection;
use crate::config::{ConfigError, PublicUrl};
use crate::duration::DurationText;
use crate::telemetry::{LogFilter, LogFormat};

/// The configuration file as it is written.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileConfig {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) public_url: Option<PublicUrl>,
    pub(crate) store: Option<StoreSection>,
    pub(crate) log_level: Option<LogFilter>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) shutdown_grace: Option<DurationText>,
    pub(crate) max_in_flight: Option<usize>,
    pub(crate) max_long_polls: Option<usize>,
    pub(crate) tokens: Vec<TokenEntry>,
    pub(crate) metadata: Option<MetadataSection>,
    pub(crate) keystone: Option<KeystoneSection>,
    pub(crate) heat: Option<HeatSection>,
}

/// One `[[tokens]]` table. The token itself stands in a file of its own, so that the configuration
/// file may be read by everybody.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenEntry {
    pub(crate) account: String,
    pub(crate) token_file: PathBuf,
}

impl FileConfig {
    pub(crate) fn read(path: &Path) -> Result<FileConfig, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::ReadFile { path: path.to_owned(), source })?;
        FileConfig::parse(&text, path)
    }

    pub(crate) fn parse(text: &str, path: &Path) -> Result<FileConfig, ConfigError> {
        let failure = |key: String, error: &toml::de::Error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            let message = error.message().to_owned();
            ConfigError::ParseFile { path: path.to_owned(), line, column, key, message }
        };
        let document =
            toml::Deserializer::parse(text).map_err(|error| failure(String::new(), &error))?;
        serde_path_to_error::deserialize(document)
            .map_err(|error| failure(error.path().to_string(), error.inner()))
    }
}

/// Line and column, both from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).map_or(1, |part| part.chars().count() + 1);
    (line, column)
}
