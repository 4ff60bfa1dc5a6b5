//! Which datasources are asked.

use crate::config::Config;
use crate::datasource::file::UserDataFile;
use crate::datasource::{self, Datasource};

/// The file that somebody named, and else every place where a cloud may put user data.
pub(crate) fn sources(config: &Config) -> Vec<Box<dyn Datasource>> {
    match &config.user_data {
        Some(path) => vec![Box::new(UserDataFile::new(path))],
        None => datasource::standard(&config.authorities),
    }
}
