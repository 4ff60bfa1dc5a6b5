//! `heliograph-agent convert`: documents of other programs as `#docker` documents.

use std::path::Path;

use clap::ValueEnum;

use crate::cli::{complain, print, read};
use crate::error::{AgentError, Exit};
use crate::userdata::convert::{self, Origin};

/// What the file is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum From {
    /// A declaration of konlet, as in `gce-container-declaration`
    Konlet,
    /// A Compose file
    Compose,
    /// A Heat template with containers of the Docker plugin, or a docker-cmd document
    Heat,
}

/// Prints the document; what was left out and what is wrong goes to standard error.
pub(crate) fn convert(from: From, file: &Path) -> Result<Exit, AgentError> {
    let origin = match from {
        From::Konlet => Origin::Konlet,
        From::Compose => Origin::Compose,
        From::Heat => Origin::Heat,
    };
    let bytes = read(file)?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        complain(&format!("{}: the file is not UTF-8", file.display()));
        return Ok(Exit::Usage);
    };
    match convert::convert(origin, text) {
        Ok(converted) => {
            for warning in &converted.warnings {
                complain(&format!("{}: warning: {warning}", file.display()));
            }
            print(converted.text.trim_end());
            Ok(Exit::Success)
        }
        Err(diagnostic) => {
            complain(&format!("{}: {diagnostic} ({})", file.display(), diagnostic.code));
            Ok(Exit::Usage)
        }
    }
}
