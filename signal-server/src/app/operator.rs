//! The operator's token: made at the first start, so that a fresh relay can be used without a
//! configuration file, and kept in the data directory, so that it stays the same.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use signal_protocol::path::{AccountName, PathError};

use crate::config::{AccountToken, ConfigError, Secret, read_token_file};

/// The file in the data directory that holds the operator's token.
const TOKEN_FILE: &str = "operator.token";

/// The account that the operator's token opens.
const OPERATOR_ACCOUNT: &str = "AUTH_operator";

/// Random bytes in a token: twice what could be guessed.
const N_TOKEN_BYTES: usize = 32;

/// Why there is no operator's token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorTokenError {
    #[error("the file is there but of no use")]
    Read { source: ConfigError },
    #[error("failed to write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the operator's account has no valid name")]
    Account { source: PathError },
}

/// Makes the data directory, for nobody else to look into, unless it is there.
pub(crate) fn create_data_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The operator's token of a data directory.
pub(crate) fn read_or_create_token(data_dir: &Path) -> Result<AccountToken, OperatorTokenError> {
    let account = AccountName::parse(OPERATOR_ACCOUNT)
        .map_err(|source| OperatorTokenError::Account { source })?;
    let path = data_dir.join(TOKEN_FILE);
    if !path.exists() {
        let token = Secret::new(hex::encode(rand::random::<[u8; N_TOKEN_BYTES]>()));
        write_durably(&path, data_dir, token.expose())
            .map_err(|source| OperatorTokenError::Write { path: path.clone(), source })?;
        tracing::info!(path = %path.display(), "made the operator's token");
    }
    warn_if_others_can_read(&path);
    let token = read_token_file(&path).map_err(|source| OperatorTokenError::Read { source })?;
    Ok(AccountToken { account, token })
}

/// Writes a file that is either whole or not there, also after a crash: temporary file, sync, rename,
/// sync of the directory.
fn write_durably(path: &Path, directory: &Path, token: &str) -> io::Result<()> {
    let temporary = path.with_extension("token.new");
    // One that a crash left behind may have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

fn warn_if_others_can_read(path: &Path) {
    let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{:o}", mode & 0o777),
            "others than its owner can read the operator's token"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let data_dir = dir.path().join("a/b");
        create_data_dir(&data_dir).expect("directory is made");
        let mode =
            |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir), 0o700);

        fs::write(data_dir.join("operator.token.new"), "left by a crash").expect("file is written");
        let first = read_or_create_token(&data_dir).expect("a token");
        assert_eq!(first.account.as_str(), "AUTH_operator");
        assert_eq!(first.token.expose().len(), 2 * N_TOKEN_BYTES);
        assert_eq!(mode(&data_dir.join(TOKEN_FILE)), 0o600);
        assert!(!data_dir.join("operator.token.new").exists());

        let second = read_or_create_token(&data_dir).expect("the same token");
        assert_eq!(second.token.expose(), first.token.expose());
    }

    #[test]
    fn a_token_that_is_of_no_use_is_not_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join(TOKEN_FILE), "").expect("file is written");
        assert!(read_or_create_token(dir.path()).is_err());
    }
}
