//! Where images and devices come from: archives, registries, Glance, certificates, block devices.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::userdata::access::{
    ArchiveLocation, DeviceSelector, GlanceAccess, ImageSource, ProxyAccess, RegistryAccess,
};
use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::fields::{Field, Fields};
use crate::userdata::read::plain::{entries, one_or_more};
use crate::userdata::scalar::{absolute_path, any_text, bad, flag, is_absolute_path, text};
use crate::userdata::schema::Kind;
use crate::userdata::schema::shared::{ARCHIVE, GLANCE, PROXY, REGISTRY};
use crate::userdata::signal_section::parse_url;
use crate::userdata::yaml::{Content, Node};

/// Serials and labels are shorter than that: 20 bytes for virtio, 16 for ext4, 12 for XFS.
const MAX_SELECTOR_BYTES: usize = 64;

const ARCHIVE_SHAPE: &str = "an absolute path, `oci:` and a directory, `volume:` with a label and a \
                             path, an http or https URL, or `glance:` and an id or name";

/// `image_archive`.
pub(super) fn archive(label: &str, node: &Node) -> Result<ImageSource, Diagnostic> {
    if let Content::Map(_) = node.content {
        return archive_map(node);
    }
    let written = text(label, node, Kind::Archive.shape())?.trim();
    let error = || bad("bad_archive", label, node, ARCHIVE_SHAPE);
    let location = if let Some(image) = written.strip_prefix("glance:") {
        ArchiveLocation::Glance { image: glance_image(image).ok_or_else(error)? }
    } else if let Some(on_volume) = written.strip_prefix("volume:") {
        let (selector, path) = on_volume.split_once('/').ok_or_else(error)?;
        let selector = selector_of(selector).or_else(|| selector_of(&format!("label:{selector}")));
        let path = format!("/{path}");
        if !is_absolute_path(&path) {
            return Err(error());
        }
        ArchiveLocation::Volume { selector: selector.ok_or_else(error)?, path: PathBuf::from(path) }
    } else if written.contains("://") {
        ArchiveLocation::Url(parse_url(written).ok_or_else(error)?)
    } else {
        let path = written.strip_prefix("oci:").unwrap_or(written);
        if !is_absolute_path(path) {
            return Err(error());
        }
        ArchiveLocation::Path(PathBuf::from(path))
    };
    Ok(ImageSource::Archive { location, sha256: None })
}

/// Ids and names of Glance have at most 255 characters.
fn glance_image(image: &str) -> Option<String> {
    let is_good = !image.is_empty() && image.len() <= 255 && !image.contains(char::is_control);
    is_good.then(|| image.to_owned())
}

fn archive_map(node: &Node) -> Result<ImageSource, Diagnostic> {
    let fields = Fields::of("`image_archive`", node, ARCHIVE.keys)?;
    let path = match fields.get("path") {
        Some(field) => Some(PathBuf::from(absolute_path("path", field.node)?)),
        None => None,
    };
    let error =
        |field: Field<'_>| bad("bad_archive", field.key.name, field.node, field.key.kind.shape());
    let location = match (path, fields.get("volume"), fields.get("url"), fields.get("glance")) {
        (Some(path), None, None, None) => ArchiveLocation::Path(path),
        (Some(path), Some(volume), None, None) => {
            ArchiveLocation::Volume { selector: device("volume", volume.node)?, path }
        }
        (None, None, Some(url), None) => {
            let written = text("url", url.node, Kind::SignalUrl.shape())?;
            ArchiveLocation::Url(parse_url(written).ok_or_else(|| error(url))?)
        }
        (None, None, None, Some(glance)) => {
            let written = text("glance", glance.node, "an id or name")?;
            let image = glance_image(written).ok_or_else(|| error(glance))?;
            ArchiveLocation::Glance { image }
        }
        _ => {
            let message =
                "`image_archive` needs one of `path`, `volume` with `path`, `url` and `glance`";
            return Err(Diagnostic::new("bad_archive", node.position, message));
        }
    };
    let sha256 = match fields.get("sha256") {
        Some(field) => Some(sha256("sha256", field.node)?),
        None => None,
    };
    Ok(ImageSource::Archive { location, sha256 })
}

fn sha256(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = Kind::Sha256.shape();
    let written = text(label, node, shape)?;
    let digits = written.strip_prefix("sha256:").unwrap_or(written);
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad("bad_digest", label, node, shape));
    }
    Ok(digits.to_ascii_lowercase())
}

/// `serial:…`, `label:…` or a path below `/dev`.
pub(crate) fn device(label: &str, node: &Node) -> Result<DeviceSelector, Diagnostic> {
    let shape = Kind::Device.shape();
    let written = text(label, node, shape)?.trim();
    selector_of(written).ok_or_else(|| bad("bad_device", label, node, shape))
}

fn selector_of(written: &str) -> Option<DeviceSelector> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= MAX_SELECTOR_BYTES
            && !name.contains(['/', '\0'])
            && !name.contains(char::is_control)
    };
    if let Some(serial) = written.strip_prefix("serial:") {
        return is_name(serial).then(|| DeviceSelector::Serial(serial.to_owned()));
    }
    if let Some(label) = written.strip_prefix("label:") {
        return is_name(label).then(|| DeviceSelector::Label(label.to_owned()));
    }
    let is_device = written.starts_with("/dev/") && is_absolute_path(written);
    is_device.then(|| DeviceSelector::Path(PathBuf::from(written)))
}

/// `registries`.
pub(crate) fn registries(
    label: &str,
    node: &Node,
) -> Result<BTreeMap<String, RegistryAccess>, Diagnostic> {
    let mut registries = BTreeMap::new();
    for entry in entries(label, node, "a map of `host` or `host:port` to maps")? {
        let host = entry.key.as_str();
        let is_host = !host.is_empty()
            && host.len() <= 255
            && host.bytes().all(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']')
            });
        if !is_host {
            let message = "a registry must be named as `host` or `host:port`, without a path";
            return Err(Diagnostic::new("bad_registry", entry.key_position, message));
        }
        registries.insert(host.to_owned(), registry(&entry.value)?);
    }
    Ok(registries)
}

fn registry(node: &Node) -> Result<RegistryAccess, Diagnostic> {
    let fields = Fields::of("an entry of `registries`", node, REGISTRY.keys)?;
    let mut access = RegistryAccess::default();
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        match label {
            "insecure" => access.insecure = flag(label, node)?,
            "ca" => access.ca = Some(certificates(label, node)?.join("\n")),
            _ => {
                let value = Some(text(label, node, "a string")?.to_owned());
                match label {
                    "username" => access.username = value,
                    "password" => access.password = value,
                    "token" => access.token = value,
                    _ => access.mirror = value,
                }
            }
        }
    }
    if access.username.is_some() != access.password.is_some() {
        let message = "`username` and `password` of a registry belong together";
        return Err(Diagnostic::new("bad_registry", node.position, message));
    }
    Ok(access)
}

/// `glance`.
pub(crate) fn glance(node: &Node) -> Result<GlanceAccess, Diagnostic> {
    let fields = Fields::of("`glance`", node, GLANCE.keys)?;
    let mut access = GlanceAccess::default();
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        let written = text(label, node, field.key.kind.shape())?;
        if field.key.kind == Kind::SignalUrl && parse_url(written).is_none() {
            return Err(bad("bad_url", label, node, Kind::SignalUrl.shape()));
        }
        let value = Some(written.to_owned());
        match label {
            "auth_url" => access.auth_url = value,
            "endpoint" => access.endpoint = value,
            "token" => access.token = value,
            "application_credential_id" => access.application_credential_id = value,
            "application_credential_secret" => access.application_credential_secret = value,
            _ => access.region = value,
        }
    }
    let has_credential = access.application_credential_id.is_some();
    if has_credential != access.application_credential_secret.is_some()
        || (has_credential && access.auth_url.is_none())
    {
        let message = "an application credential needs its id, its secret and `auth_url`";
        return Err(Diagnostic::new("bad_glance", node.position, message));
    }
    if access.auth_url.is_none() && access.endpoint.is_none() {
        let message = "`glance` needs the key `auth_url` or `endpoint`";
        return Err(Diagnostic::new("missing_key", node.position, message));
    }
    Ok(access)
}

/// `proxy`.
pub(crate) fn proxy(node: &Node) -> Result<ProxyAccess, Diagnostic> {
    let fields = Fields::of("`proxy`", node, PROXY.keys)?;
    let mut access = ProxyAccess::default();
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        if label == "no_proxy" {
            access.no_proxy = no_proxy(label, node)?;
            continue;
        }
        let shape = field.key.kind.shape();
        let url = parse_url(text(label, node, shape)?)
            .ok_or_else(|| bad("bad_url", label, node, shape))?;
        let value = Some(url.to_string());
        match label {
            "http" => access.http = value,
            _ => access.https = value,
        }
    }
    if access.http.is_none() && access.https.is_none() {
        let message = "`proxy` needs the key `http` or `https`";
        return Err(Diagnostic::new("missing_key", node.position, message));
    }
    Ok(access)
}

/// A list, or one text with commas as the environment has it.
fn no_proxy(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    let shape = Kind::Texts.shape();
    let mut hosts = Vec::new();
    for item in one_or_more(label, node, shape)? {
        let names = any_text(label, item)?.split(',').map(str::trim);
        hosts.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    let is_host = |host: &String| {
        host.len() <= 255
            && host.bytes().all(|b| {
                b.is_ascii_alphanumeric()
                    || matches!(b, b'.' | b'-' | b':' | b'/' | b'*' | b'[' | b']')
            })
    };
    if !hosts.iter().all(is_host) {
        return Err(bad("bad_name", label, node, "names, domains, addresses and networks"));
    }
    Ok(hosts)
}

/// Certificates in PEM; whether each is one is seen by whoever uses it.
pub(crate) fn certificates(label: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
    let shape = Kind::Certificates.shape();
    let mut certificates = Vec::new();
    for item in one_or_more(label, node, shape)? {
        let written = any_text(label, item)?;
        let begins = written.matches("-----BEGIN CERTIFICATE-----").count();
        let ends = written.matches("-----END CERTIFICATE-----").count();
        if begins == 0 || begins != ends {
            let diagnostic = bad("bad_certificate", label, item, shape);
            return Err(if written.contains("PRIVATE KEY") {
                diagnostic.suggest(format!("{} takes certificates, not keys", quote_key(label)))
            } else {
                diagnostic.suggest("write it as a block, with `|`")
            });
        }
        certificates.push(written.trim().to_owned());
    }
    Ok(certificates)
}
