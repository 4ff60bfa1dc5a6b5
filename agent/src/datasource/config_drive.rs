//! OpenStack's config drive.
//!
//! A small ISO 9660 or VFAT file system labelled `config-2` with the metadata service's answers as
//! files. `openstack/latest` is the newest version that this Nova knows; the two files read here
//! have not changed since the first.

use async_trait::async_trait;

use crate::datasource::drive::{Drive, Wanted};
use crate::datasource::openstack::parse_metadata;
use crate::datasource::{
    BrokenReason, Datasource, Found, MAX_METADATA_BYTES, MAX_USER_DATA_BYTES, Outcome,
};
use crate::error;

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
        "config-drive"
    }

    async fn probe(&self) -> Outcome {
        let files = match self.drive.read(FILES).await {
            Ok(Some(files)) => files,
            Ok(None) => return Outcome::Absent,
            Err(error) => return Outcome::Broken(BrokenReason(error::chain(&error))),
        };
        let Ok([metadata, user_data]) = <[_; 2]>::try_from(files) else { return Outcome::Absent };
        let Some(metadata) = metadata else {
            let reason = "openstack/latest/meta_data.json is missing";
            return Outcome::Broken(BrokenReason(reason.to_owned()));
        };
        match parse_metadata(&metadata) {
            Ok((instance_id, facts)) => Outcome::Found(Found {
                datasource: self.name(),
                instance_id: Some(instance_id),
                user_data: user_data.filter(|bytes| !bytes.is_empty()),
                facts,
            }),
            Err(reason) => Outcome::Broken(reason),
        }
    }
}
