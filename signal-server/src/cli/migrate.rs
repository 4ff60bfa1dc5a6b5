//! `migrate --from STORE --to STORE`: moves everything from one store to another.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::cli::Exit;
use crate::cli::output::line;
use crate::config::{ConfigError, StoreConfig, StoreKind, store_named};
use crate::error::chain;
use crate::migrate::{Foreign, MigrateError, migrate as move_all};
use crate::store::embedded::{EmbeddedStore, OpenError};
use crate::store::etcd::{EtcdError, EtcdStore};
use crate::store::{Store, StoreError};

/// Progress is told after so many records.
const TOLD_RECORDS: u64 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Store to read: embedded:DIR, or etcd:HOST:PORT with more HOST:PORT after commas
    #[arg(long, value_name = "STORE")]
    from: Place,

    /// Store to write, in the same form
    #[arg(long, value_name = "STORE")]
    to: Place,

    /// Configuration file whose table [store.etcd] has certificates, user and prefix
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Replace and remove what is in the second store and not in the first
    #[arg(long)]
    overwrite: bool,
}

/// A store as it is named here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Embedded(PathBuf),
    Etcd(StoreKind),
}

/// Why nothing was moved, or not everything.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the configuration is not valid")]
    Config { source: ConfigError },
    #[error("there is no data directory {path}")]
    NoDirectory { path: PathBuf },
    #[error("failed to open the store in {path}")]
    OpenEmbedded { path: PathBuf, source: OpenError },
    #[error("failed to prepare the calls to etcd")]
    OpenEtcd { source: EtcdError },
    #[error("failed to ask etcd")]
    AskEtcd { source: StoreError },
    #[error("relays run on this etcd: stop them first")]
    InUse,
    #[error("failed to start the runtime")]
    Runtime { source: io::Error },
    #[error("failed to move everything")]
    Move { source: MigrateError },
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        if let Some(path) = text.strip_prefix("embedded:")
            && !path.is_empty()
        {
            return Ok(Place::Embedded(path.into()));
        }
        let members = text.strip_prefix("etcd:").unwrap_or_default();
        let members = members.strip_prefix("//").unwrap_or(members);
        let kind = format!("etcd://{members}").parse();
        kind.map(Place::Etcd).map_err(|_| "a store is embedded:DIR or etcd:HOST:PORT".to_owned())
    }
}

pub(crate) fn migrate(args: &MigrateArgs) -> Exit {
    match try_migrate(args) {
        Ok(summary) => {
            line(&mut io::stdout(), &summary);
            Exit::Success
        }
        Err(error) => {
            line(&mut io::stderr(), &format!("heliograph-server: {}", chain(&error)));
            Exit::CouldNotServe
        }
    }
}

fn try_migrate(args: &MigrateArgs) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Failure::Runtime { source })?;
    let foreign = if args.overwrite { Foreign::Overwrite } else { Foreign::Refuse };
    runtime.block_on(async {
        if let Place::Embedded(path) = &args.from
            && !path.is_dir()
        {
            return Err(Failure::NoDirectory { path: path.clone() });
        }
        let (from, to) = (open(&args.from, args).await?, open(&args.to, args).await?);
        let mut n_told = 0;
        let moved = move_all(from.as_ref(), to.as_ref(), foreign, |progress| {
            if progress.n_copied >= n_told + TOLD_RECORDS {
                n_told = progress.n_copied;
                line(&mut io::stderr(), &format!("copied {n_told} records"));
            }
        });
        let (progress, contents) = moved.await.map_err(|source| Failure::Move { source })?;
        Ok(format!(
            "copied {}, found {} there already, removed {}; in both stores: {contents}",
            progress.n_copied, progress.n_present, progress.n_removed
        ))
    })
}

async fn open(place: &Place, args: &MigrateArgs) -> Result<Box<dyn Store>, Failure> {
    let kind = match place {
        Place::Embedded(path) => {
            let store = EmbeddedStore::open(path);
            let failed = |source| Failure::OpenEmbedded { path: path.clone(), source };
            return Ok(Box::new(store.map_err(failed)?));
        }
        Place::Etcd(kind) => kind,
    };
    let config = store_named(kind, args.config.as_deref());
    let StoreConfig::Etcd(settings) = config.map_err(|source| Failure::Config { source })? else {
        return Err(Failure::OpenEtcd { source: EtcdError::NoEndpoint });
    };
    let store = EtcdStore::new(&settings).map_err(|source| Failure::OpenEtcd { source })?;
    if store.is_led().await.map_err(|source| Failure::AskEtcd { source })? {
        return Err(Failure::InUse);
    }
    Ok(Box::new(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_its_directory_or_its_members() {
        let etcd = |members: &[&str]| {
            Ok(Place::Etcd(StoreKind::Etcd(members.iter().map(|m| (*m).into()).collect())))
        };
        let refused = || Err("a store is embedded:DIR or etcd:HOST:PORT".to_owned());
        for (text, expect) in [
            ("embedded:/var/lib/heliograph", Ok(Place::Embedded("/var/lib/heliograph".into()))),
            ("embedded:a", Ok(Place::Embedded("a".into()))),
            ("etcd:a:1,b:2", etcd(&["a:1", "b:2"])),
            ("etcd://a:1", etcd(&["a:1"])),
            ("embedded:", refused()),
            ("memory", refused()),
            ("etcd:", refused()),
            ("a:1", refused()),
        ] {
            assert_eq!(text.parse::<Place>(), expect, "{text}");
        }
    }
}
