//! A file that was named: `--user-data FILE`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::datasource::{BrokenReason, Datasource, Found, MAX_USER_DATA_BYTES, Outcome};

/// User data in a file. A file that is not there is broken, not absent: somebody named it.
#[derive(Debug)]
pub struct UserDataFile {
    path: PathBuf,
}

impl UserDataFile {
    pub fn new(path: impl Into<PathBuf>) -> UserDataFile {
        UserDataFile { path: path.into() }
    }
}

#[async_trait]
impl Datasource for UserDataFile {
    fn name(&self) -> &'static str {
        "file"
    }

    async fn probe(&self) -> Outcome {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read_bounded(&path, MAX_USER_DATA_BYTES));
        match read.await {
            Ok(Ok(user_data)) => Outcome::Found(Found {
                datasource: self.name(),
                instance_id: None,
                user_data: Some(user_data),
                facts: BTreeMap::new(),
            }),
            Ok(Err(error)) => broken(&self.path, &error.to_string()),
            Err(_) => broken(&self.path, "reading was interrupted"),
        }
    }

    fn may_appear(&self) -> bool {
        false
    }
}

fn broken(path: &Path, why: &str) -> Outcome {
    Outcome::Broken(BrokenReason(format!("cannot read {}: {why}", path.display())))
}

/// A whole file, or an error when it is larger than the limit.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let message = format!("it is larger than {} KiB", limit / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}
