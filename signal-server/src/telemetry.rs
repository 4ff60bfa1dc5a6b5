//! Logs: set up once on stderr, and their level changed while the relay runs.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt as log_format, reload};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for a person.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged: a level, or a comma-separated list of levels and `target=level`.
///
/// Stricter than the library's own reader, which takes a misspelt level for the name of a module
/// and then logs nothing at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

/// The text does not say what to log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a log level is one of off, error, warn, info, debug, trace, or a comma-separated list of levels and target=level"
)]
pub struct LogFilterError;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<LogFilter, LogFilterError> {
        let is_level = |word: &str| LEVELS.contains(&word);
        let is_target = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
        };
        let is_directive = |word: &str| match word.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            None => is_level(word),
        };
        if !text.split(',').all(is_directive) {
            return Err(LogFilterError);
        }
        Ok(LogFilter(text.to_owned()))
    }
}

impl Default for LogFilter {
    fn default() -> LogFilter {
        LogFilter("info".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for LogFilter {
    type Error = LogFilterError;

    fn try_from(text: String) -> Result<LogFilter, LogFilterError> {
        text.parse()
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> String {
        filter.0
    }
}

/// Changes what is logged while the relay runs.
#[derive(Clone)]
pub struct LogControl {
    current: Arc<Mutex<LogFilter>>,
    handle: Option<reload::Handle<EnvFilter, Registry>>,
}

impl fmt::Debug for LogControl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogControl").field("current", &self.current).finish_non_exhaustive()
    }
}

impl LogControl {
    /// A control that nothing listens to, for a relay inside another program, which has logs of
    /// its own.
    #[must_use]
    pub fn detached() -> LogControl {
        LogControl { current: Arc::default(), handle: None }
    }

    pub(crate) fn current(&self) -> LogFilter {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, filter: LogFilter) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &self.handle {
            // The subscriber lives as long as the process, so it is always there to be told.
            let _ = handle.reload(EnvFilter::new(&filter.0));
        }
        *current = filter;
    }
}

/// Sends the logs of this process to stderr. Only the first call of a process has an effect.
pub fn init(filter: &LogFilter, format: LogFormat) -> LogControl {
    let (env_filter, handle) = reload::Layer::new(EnvFilter::new(&filter.0));
    let lines = log_format::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(env_filter).with(lines).try_init();
    LogControl { current: Arc::new(Mutex::new(filter.clone())), handle: Some(handle) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in ["info", "off", "warn,heliograph_server=trace", "heliograph_server::http=debug"]
        {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        for text in ["", "verbose", "INFO", "info,", "a=loud", "=info", "a[b]=info", "a =info"] {
            assert_eq!(text.parse::<LogFilter>(), Err(LogFilterError), "{text}");
        }
    }

    #[test]
    fn the_control_remembers_what_was_set() {
        let control = LogControl::detached();
        assert_eq!(control.current(), LogFilter::default());
        control.set("debug".parse().expect("a level"));
        assert_eq!(control.current().to_string(), "debug");
    }
}
