//! NoCloud from a place that the hypervisor names: `ds=nocloud;s=http://host/path/`, in the machine's
//! SMBIOS serial number or on the kernel's command line, as cloud-init reads them.
//!
//! `meta-data` and `user-data` are fetched from below that place, which is a URL or, beginning with
//! `file://` or `/`, a directory. `i=` and `h=` give instance id and host name without any file.
//! The command line goes before the serial number, because who can write it owns the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use url::Url;

use crate::datasource::drive::Drive;
use crate::datasource::nocloud::{FILES, found_in};
use crate::datasource::{
    BrokenReason, Datasource, Found, MAX_METADATA_BYTES, MAX_USER_DATA_BYTES, Outcome,
};
use crate::error;
use crate::fetch::{self, FetchError, Trust, host_of, redirect};

const SERIAL: &str = "/sys/class/dmi/id/product_serial";
const COMMAND_LINE: &str = "/proc/cmdline";

/// The kernel cuts its command line at 4 KiB on every architecture with Linux virtual machines.
const MAX_HINT_BYTES: u64 = 64 * 1024;

/// NoCloud data at a place that is named outside the disk.
#[derive(Debug)]
pub struct Seed {
    /// Read in this order; the first that names a seed counts.
    hints: Vec<PathBuf>,
    authorities: Vec<String>,
}

/// What a hint says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hint {
    place: Option<String>,
    instance_id: Option<String>,
    hostname: Option<String>,
}

impl Seed {
    /// Where hypervisors write it. The certificates are trusted beside the system's.
    pub fn standard(authorities: &[String]) -> Seed {
        Seed::hinted_at(vec![COMMAND_LINE.into(), SERIAL.into()], authorities)
    }

    /// The same, from other files.
    pub fn hinted_at(hints: Vec<PathBuf>, authorities: &[String]) -> Seed {
        Seed { hints, authorities: authorities.to_vec() }
    }

    fn hint(&self) -> Option<Hint> {
        self.hints.iter().find_map(|path| {
            // What cannot be read, as a serial number by a user who is not root, names nothing.
            let bytes = crate::durable::read(path, MAX_HINT_BYTES).ok()??;
            parse_hint(&String::from_utf8_lossy(&bytes))
        })
    }

    async fn ask(&self) -> Result<Option<Found>, BrokenReason> {
        let Some(hint) = self.hint() else { return Ok(None) };
        let files = match hint.place.as_deref() {
            None => vec![None, None],
            Some(place) => match directory_of(place) {
                Some(directory) => read_directory(&directory).await?,
                None => self.fetch(place).await?,
            },
        };
        let mut found = match found_in(files) {
            Ok(found) => found,
            // The hint alone is metadata: there is no user data, and the instance is known.
            Err(_) if hint.instance_id.is_some() => Found {
                datasource: self.name(),
                instance_id: None,
                user_data: None,
                facts: BTreeMap::new(),
            },
            Err(reason) => return Err(reason),
        };
        found.datasource = self.name();
        found.instance_id = hint.instance_id.or(found.instance_id);
        if let Some(hostname) = hint.hostname {
            found.facts.insert("name".to_owned(), hostname.clone());
            found.facts.insert("hostname".to_owned(), hostname);
        }
        Ok(Some(found))
    }

    async fn fetch(&self, place: &str) -> Result<Vec<Option<Vec<u8>>>, BrokenReason> {
        let url = Url::parse(place).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| {
            BrokenReason("what `s=` names is neither a URL nor a directory".to_owned())
        })?;
        let metadata = self.get(&below(&url, "meta-data"), MAX_METADATA_BYTES).await?;
        let user_data = self.get(&below(&url, "user-data"), MAX_USER_DATA_BYTES).await?;
        Ok(vec![metadata, user_data])
    }

    async fn get(&self, url: &Url, max_bytes: u64) -> Result<Option<Vec<u8>>, BrokenReason> {
        let broken = |error: FetchError| BrokenReason(error::chain(&error));
        let trust = Trust { authorities: self.authorities.clone(), ..Trust::default() };
        let client = fetch::client(url, &trust).map_err(broken)?;
        let host = host_of(url);
        let none = HeaderMap::new();
        let response = redirect::get(&client, url, &none, &none).await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => {
                let body = fetch::read_bounded(response, &host, max_bytes).await;
                body.map(Some).map_err(broken)
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(broken(FetchError::Refused { host, status: status.as_u16() })),
        }
    }
}

async fn read_directory(directory: &Path) -> Result<Vec<Option<Vec<u8>>>, BrokenReason> {
    let read = Drive::directory(directory).read(FILES).await;
    let read = read.map_err(|error| BrokenReason(error::chain(&error)))?;
    read.ok_or_else(|| BrokenReason("directory that `s=` names is not there".to_owned()))
}

fn directory_of(place: &str) -> Option<PathBuf> {
    let path = place.strip_prefix("file://").unwrap_or(place);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// `http://h/a` and `http://h/a/` are the same place; cloud-init only puts the name behind it.
fn below(place: &Url, name: &str) -> Url {
    let mut url = place.clone();
    url.set_path(&format!("{}/{name}", place.path().trim_end_matches('/')));
    url
}

/// The word of a command line, or the serial number, that begins with `ds=nocloud`.
fn parse_hint(text: &str) -> Option<Hint> {
    let word = text.split_whitespace().find_map(|word| word.strip_prefix("ds="))?;
    // A boot loader's configuration may have kept the quotes around it.
    let mut parts = word.trim_matches(['"', '\'']).split(';');
    if !matches!(parts.next()?, "nocloud" | "nocloud-net") {
        return None;
    }
    let mut hint = Hint::default();
    for part in parts {
        let Some((key, value)) = part.split_once('=') else { continue };
        let slot = match key {
            "s" | "seedfrom" => &mut hint.place,
            "i" | "instance-id" => &mut hint.instance_id,
            "h" | "local-hostname" => &mut hint.hostname,
            _ => continue,
        };
        *slot = Some(value.to_owned()).filter(|value| !value.is_empty());
    }
    // `ds=nocloud` alone says where to look, not what is there: the drive's own source looks.
    (hint != Hint::default()).then_some(hint)
}

#[async_trait]
impl Datasource for Seed {
    fn name(&self) -> &'static str {
        "nocloud-seed"
    }

    async fn probe(&self) -> Outcome {
        match self.ask().await {
            Ok(Some(found)) => Outcome::Found(found),
            Ok(None) => Outcome::Absent,
            Err(reason) => Outcome::Broken(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read() {
        let hint = |place: Option<&str>, instance_id: Option<&str>, hostname: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let (place, instance_id) = (owned(place), owned(instance_id));
            Some(Hint { place, instance_id, hostname: owned(hostname) })
        };
        let check = |text: &str, expect: Option<Hint>| {
            assert_eq!(parse_hint(text), expect, "{text}");
        };
        check(
            "ds=nocloud;s=http://10.0.2.2:8000/\n",
            hint(Some("http://10.0.2.2:8000/"), None, None),
        );
        check(
            "root=/dev/vda1 quiet ds=nocloud-net;s=http://h/a;i=i-1;h=web console=ttyS0",
            hint(Some("http://h/a"), Some("i-1"), Some("web")),
        );
        check("\"ds=nocloud;i=i-1\"", None);
        check("ds=\"nocloud;seedfrom=/seed\"", hint(Some("/seed"), None, None));
        check("ds=nocloud;instance-id=i-1;unknown=x", hint(None, Some("i-1"), None));
        check("ds=nocloud", None);
        check("ds=nocloud;s=", None);
        check("ds=openstack", None);
        check("VMware-42 1d", None);
        check("", None);
    }

    #[test]
    fn places_are_told_apart() {
        assert_eq!(directory_of("file:///seed/a"), Some(PathBuf::from("/seed/a")));
        assert_eq!(directory_of("/seed"), Some(PathBuf::from("/seed")));
        assert_eq!(directory_of("http://h/"), None);
        for place in ["http://h/a?x=1", "http://h/a/?x=1"] {
            let url = below(&Url::parse(place).unwrap(), "user-data");
            assert_eq!(url.as_str(), "http://h/a/user-data?x=1");
        }
    }
}
