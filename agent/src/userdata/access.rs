//! What a document says about where images, files and devices come from, and with whose rights.
//!
//! Much of it is secret, so nothing here shows more than names in its debug output. It is serialized
//! for one purpose only: the hash of the document.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use url::Url;

/// Which block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceSelector {
    /// The serial that the hypervisor gives it; of a Cinder volume the first 20 characters of its id.
    Serial(String),
    /// The label of the file system on it.
    Label(String),
    Path(PathBuf),
}

/// The bytes of a file, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct FileContent(Vec<u8>);

impl FileContent {
    pub fn new(bytes: impl Into<Vec<u8>>) -> FileContent {
        FileContent(bytes.into())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileContent({} bytes)", self.0.len())
    }
}

/// How to speak to one registry.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct RegistryAccess {
    pub username: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    /// Certificates, in PEM, of the authorities that the registry's own certificate may be from.
    pub ca: Option<String>,
    /// The registry that is asked first in its place.
    pub mirror: Option<String>,
    /// Whether plain HTTP, and certificates of unknown authorities, will do.
    pub insecure: bool,
}

impl fmt::Debug for RegistryAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAccess")
            .field("mirror", &self.mirror)
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

/// By whom to speak to those that images and archives come from.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProxyAccess {
    /// For http URLs; it may have a password in it.
    pub http: Option<String>,
    /// For https URLs.
    pub https: Option<String>,
    /// Hosts, domains and networks that are spoken to directly.
    pub no_proxy: Vec<String>,
}

impl fmt::Debug for ProxyAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyAccess").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

/// How to speak to Glance.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct GlanceAccess {
    /// Keystone's address, which gives the token and knows where Glance is.
    pub auth_url: Option<String>,
    /// Glance's address, if Keystone is not to be asked.
    pub endpoint: Option<String>,
    pub token: Option<String>,
    pub application_credential_id: Option<String>,
    pub application_credential_secret: Option<String>,
    pub region: Option<String>,
}

impl fmt::Debug for GlanceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlanceAccess").field("region", &self.region).finish_non_exhaustive()
    }
}

/// Compose's conditions of `depends_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    Started,
    Healthy,
    CompletedSuccessfully,
}

/// Where a container's image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    Registry,
    Archive {
        location: ArchiveLocation,
        /// What the archive's digest has to be, in hex.
        sha256: Option<String>,
    },
}

/// Where an archive of an image is.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveLocation {
    /// A file or an OCI layout's directory of the instance.
    Path(PathBuf),
    /// A file of an attached volume, which is mounted for reading only meanwhile.
    Volume { selector: DeviceSelector, path: PathBuf },
    /// HTTP or HTTPS; Swift's TempURLs are such.
    Url(#[serde(serialize_with = "as_text")] Url),
    /// An image of container format `docker`, by id or name.
    Glance { image: String },
}

/// A URL may be a TempURL, which is a credential.
impl fmt::Debug for ArchiveLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArchiveLocation::Path(path) => write!(f, "Path({path:?})"),
            ArchiveLocation::Volume { selector, path } => {
                write!(f, "Volume({selector:?}, {path:?})")
            }
            ArchiveLocation::Url(url) => write!(f, "Url({}…)", url.host_str().unwrap_or("?")),
            ArchiveLocation::Glance { image } => write!(f, "Glance({image:?})"),
        }
    }
}

fn as_text<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_secret() {
        let secret = "s3cret";
        let registry = RegistryAccess {
            password: Some(secret.to_owned()),
            token: Some(secret.to_owned()),
            ..RegistryAccess::default()
        };
        let glance = GlanceAccess {
            token: Some(secret.to_owned()),
            application_credential_secret: Some(secret.to_owned()),
            ..GlanceAccess::default()
        };
        let proxy = ProxyAccess {
            https: Some(format!("http://u:{secret}@p.example")),
            ..ProxyAccess::default()
        };
        let url = Url::parse("http://h/v1/a/c/o?temp_url_sig=s3cret").expect("a URL");
        let printed = [
            format!("{registry:?}"),
            format!("{glance:?}"),
            format!("{proxy:?}"),
            format!("{:?}", FileContent::new(secret)),
            format!("{:?}", ArchiveLocation::Url(url)),
        ];
        for text in printed {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
