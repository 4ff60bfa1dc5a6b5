//! `backup --to FILE`: everything that a relay has stored, in one file, while it serves. `restore --from FILE`
//! puts it into a data directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::backup::{BackupError, check, restore as restore_into};
use crate::cli::output::{Failure, line};
use crate::cli::{ConnectionArgs, Exit};
use crate::client::ClientError;
use crate::client::backup::BackupReader;
use crate::error::chain;
use crate::migrate::Contents;

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// File to write; it must not be there
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Backup to read
    #[arg(long, value_name = "FILE")]
    from: PathBuf,

    /// Data directory to make: empty but for an operator.token, or not there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Saved {
    n_records: u64,
    sha256: String,
}

/// Why no backup was saved.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("{} is there already", path.display())]
    Exists { path: PathBuf },
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Ask(ClientError),
    #[error("the relay sent no whole backup")]
    Check { source: BackupError },
}

pub(crate) async fn backup(args: &BackupArgs) -> Result<Exit, Failure> {
    let client = args.connection.client(None)?;
    if args.to.exists() {
        return Err(SaveError::Exists { path: args.to.clone() }.into());
    }
    let contents = save(client.backup().await?, &args.to).await?;
    let saved = Saved { n_records: contents.n_records, sha256: hex::encode(contents.digest) };
    args.connection.output().answer(&saved, format_args!("saved {contents}"));
    Ok(Exit::Success)
}

/// Writes the file under another name, and gives it its own when it is whole and on disk.
async fn save(mut pieces: BackupReader, path: &Path) -> Result<Contents, SaveError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let failed = |source| SaveError::Write { path: part.clone(), source };
    // What lets signals in is in it.
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&part);
    let mut file = file.map_err(failed)?;
    let saved = async {
        while let Some(piece) = pieces.next().await.map_err(SaveError::Ask)? {
            file.write_all(&piece).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        let contents = check(&part).map_err(|source| SaveError::Check { source })?;
        // Not over one that has come meanwhile.
        fs::hard_link(&part, path).and_then(|()| sync_folder_of(path)).map_err(failed)?;
        Ok(contents)
    };
    let saved: Result<Contents, SaveError> = saved.await;
    let removed = fs::remove_file(&part).map_err(failed);
    let contents = saved?;
    removed?;
    Ok(contents)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

impl From<SaveError> for Failure {
    fn from(error: SaveError) -> Failure {
        match error {
            SaveError::Ask(error) => error.into(),
            error => Failure::named("no_backup_saved", chain(&error)),
        }
    }
}

pub(crate) fn restore(args: &RestoreArgs) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let restored = match runtime {
        Ok(runtime) => runtime.block_on(restore_into(&args.from, &args.data_dir)),
        Err(error) => {
            line(&mut io::stderr(), &format!("heliograph-server: {}", chain(&error)));
            return Exit::CouldNotServe;
        }
    };
    match restored {
        Ok(contents) => {
            line(&mut io::stdout(), &format!("restored {contents}"));
            Exit::Success
        }
        Err(error) => {
            line(&mut io::stderr(), &format!("heliograph-server: {}", chain(&error)));
            Exit::CouldNotServe
        }
    }
}
