//! The programs under test: those that were built together with the test that runs.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context as _, Error, Result, bail};

/// `heliograph-server`, beside the running test.
pub fn heliograph_server() -> Result<PathBuf> {
    static FOUND: OnceLock<Found> = OnceLock::new();
    once(&FOUND, "heliograph-server", &["signal-server", "signal-server/protocol"])
}

/// `heliograph-agent`, beside the running test.
pub fn heliograph_agent() -> Result<PathBuf> {
    static FOUND: OnceLock<Found> = OnceLock::new();
    once(&FOUND, "heliograph-agent", &["agent", "signal-server/protocol"])
}

/// Where cargo puts what it builds, all profiles together.
pub fn target_directory() -> Result<PathBuf> {
    let test = std::env::current_exe().context("failed to find the running test")?;
    // target/<profile>/deps/<test>, or target/<profile>/<program>
    let is_test = test.parent().is_some_and(|directory| directory.ends_with("deps"));
    let target = test.ancestors().nth(if is_test { 3 } else { 2 });
    let target = target.context("the running test is in no target directory")?;
    Ok(target.to_owned())
}

/// The top of the source tree.
pub fn source_tree() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// An error cannot be kept, its text can.
type Found = std::result::Result<PathBuf, String>;

/// Looks once: whoever edits sources while tests run does not change what they test.
fn once(found: &OnceLock<Found>, name: &str, source_directories: &[&str]) -> Result<PathBuf> {
    found
        .get_or_init(|| built(name, source_directories).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(Error::msg)
}

/// Finds a program in the directory of this build's profile. An older program would make the tests
/// tell about yesterday's code, so it is refused.
fn built(name: &str, source_directories: &[&str]) -> Result<PathBuf> {
    let test = std::env::current_exe().context("failed to find the running test")?;
    // target/<profile>/deps/<test> or target/<profile>/<program>
    let mut directory = test.parent().context("the running test has no directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("no profile directory")?;
    }
    let program = directory.join(name);
    let Ok(metadata) = program.metadata() else {
        bail!(
            "{} does not exist: run `cargo build --workspace --bins` with this profile first",
            program.display()
        );
    };
    let built_at = metadata.modified()?;
    for source_directory in source_directories {
        let sources = source_tree().join(source_directory).join("src");
        if let Some(newer) = newer_source(&sources, built_at)? {
            bail!(
                "{} is older than {}: run `cargo build --workspace --bins` with this profile first",
                program.display(),
                newer.display()
            );
        }
    }
    Ok(program)
}

/// A source that the program may be made of. Tests are not: cargo makes no program anew for them.
fn newer_source(directory: &Path, than: SystemTime) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(directory)
        .with_context(|| format!("failed to list {}", directory.display()))?
    {
        let path = entry?.path();
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            if let Some(newer) = newer_source(&path, than)? {
                return Ok(Some(newer));
            }
            continue;
        }
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        if is_source && path.metadata()?.modified()? > than {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
