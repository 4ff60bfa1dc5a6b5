//! OpenStack's config drive.
//!
//! A small ISO 9660 or VFAT file system labelled `config-2` with the metadata service's answers as
//! files. `openstack/latest` is the newest version that this Nova knows; the two files read here
//! have not changed since the first.

use async_trait::async_trait;

use crate::datasource::drive::{Drive, Files, Wanted};
use crate::datasource::openstack::parse_metadata;
use crate::datasource::{
    BrokenReason, Datasource, Found, MAX_METADATA_BYTES, MAX_USER_DATA_BYTES, Outcome,
};

const NAME: &str = "config-drive";

/// VFAT labels are upper case with some tools.
pub const LABELS: &[&str] = &["config-2", "CONFIG-2"];

const FILES: &[Wanted] = &[
    Wanted { path: "openstack/latest/meta_data.json", max_bytes: MAX_METADATA_BYTES },
    Wanted { path: "openstack/latest/user_data", max_bytes: MAX_USER_DATA_BYTES },
];

/// A config drive.
#[derive(Debug)]
pub struct ConfigDrive {
    drive: Drive,
}

impl ConfigDrive {
    pub fn new(drive: Drive) -> ConfigDrive {
        ConfigDrive { drive }
    }
}

#[async_trait]
impl Datasource for ConfigDrive {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn probe(&self) -> Outcome {
        self.drive.probe(FILES, found_in).await
    }
}

fn found_in(files: Files) -> Result<Found, BrokenReason> {
    let mut files = files.into_iter();
    let Some(metadata) = files.next().flatten() else {
        return Err(BrokenReason("openstack/latest/meta_data.json is missing".to_owned()));
    };
    let (instance_id, facts) = parse_metadata(&metadata)?;
    Ok(Found {
        datasource: NAME,
        instance_id: Some(instance_id),
        user_data: files.next().flatten().filter(|bytes| !bytes.is_empty()),
        facts,
    })
}
