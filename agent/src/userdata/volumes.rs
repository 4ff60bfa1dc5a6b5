//! `volumes`: short `[source:]target[:options]`, and the map form.

use std::collections::HashSet;

use serde::Serialize;

use crate::userdata::access::DeviceSelector;
use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::fields::Fields;
use crate::userdata::read::place::device;
use crate::userdata::read::plain::one_of;
use crate::userdata::scalar::{any_text, flag, is_absolute_path, word, wrong_type};
use crate::userdata::schema::parts::MOUNT;
use crate::userdata::schema::{Key, Kind, Placement, keys};
use crate::userdata::yaml::{Content, Entry, Node};

/// Something that is mounted into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mount {
    pub(crate) source: MountSource,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    /// Options of the short form that the engine reads itself, such as `z`.
    pub(crate) options: Vec<&'static str>,
    /// The block device that the volume is.
    pub(crate) device: Option<DeviceSelector>,
    pub(crate) filesystem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MountSource {
    /// A directory or file of the instance; the engine makes a directory if nothing is there.
    Bind(String),
    Volume(String),
    /// A volume without a name, which goes with the container.
    Anonymous,
    /// Memory.
    Tmpfs,
}

/// Options that both engines understand in a bind string.
const OPTIONS: [&str; 9] =
    ["z", "Z", "nocopy", "shared", "slave", "private", "rshared", "rslave", "rprivate"];

/// Options that only mean something on macOS; files that carry them are common.
const IGNORED_OPTIONS: [&str; 3] = ["cached", "consistent", "delegated"];

const SHAPE: &str = "[source:]target[:options], with an absolute path as its target";

/// Reads the whole list.
pub(crate) fn read(label: &str, node: &Node) -> Result<Vec<Mount>, Diagnostic> {
    let items = match &node.content {
        Content::List(items) => items,
        Content::Map(entries) => return read_bindings(label, entries),
        Content::Scalar(_) => return Err(wrong_type(label, node, "a list of volumes")),
    };
    let mut mounts: Vec<Mount> = Vec::with_capacity(items.len());
    let mut targets = HashSet::new();
    for item in items {
        let mount = match &item.content {
            Content::Map(_) => read_map(label, item)?,
            Content::Scalar(_) => parse_short(any_text(label, item)?)
                .map_err(|shape| bad_volume(label, item, shape))?,
            Content::List(_) => return Err(wrong_type(label, item, SHAPE)),
        };
        if !targets.insert(mount.target.clone()) {
            let message = format!("{} mounts two things at one target", quote_key(label));
            return Err(Diagnostic::new("duplicate_volume", item.position, message));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

/// Heat's map of the instance's paths to the container's, or to maps of `bind` and `ro`.
fn read_bindings(label: &str, entries: &[Entry]) -> Result<Vec<Mount>, Diagnostic> {
    let mut mounts: Vec<Mount> = Vec::with_capacity(entries.len());
    for entry in entries {
        let (target, read_only) = match &entry.value.content {
            Content::Map(_) => {
                let fields = Fields::of(
                    &format!("an entry of {}", quote_key(label)),
                    &entry.value,
                    BINDING,
                )?;
                let read_only = match fields.get("ro") {
                    Some(field) => flag("ro", field.node)?,
                    None => false,
                };
                (any_text("bind", fields.require("bind")?.node)?, read_only)
            }
            _ => (any_text(label, &entry.value)?, false),
        };
        let mut mount = parse_short(&format!("{}:{target}", entry.key))
            .map_err(|shape| bad_volume(label, &entry.value, shape))?;
        mount.read_only |= read_only;
        if mounts.iter().any(|other| other.target == mount.target) {
            let message = format!("{} mounts two things at one target", quote_key(label));
            return Err(Diagnostic::new("duplicate_volume", entry.key_position, message));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

/// The keys of one value in Heat's map.
static BINDING: &[Key] = keys! {
    "bind" => Kind::AbsolutePath, Placement::Elsewhere(""); default "required"; from "heat";
        "Where it appears in the container."
    "ro" => Kind::Flag, Placement::Elsewhere(""); default "false"; from "heat";
        "Whether the container may only read it."
};

/// What the agent can make on an empty device.
pub(crate) static FILESYSTEMS: [&str; 2] = ["ext4", "xfs"];

fn bad_volume(label: &str, node: &Node, shape: &str) -> Diagnostic {
    let message = format!("an entry of {} must be {shape}", quote_key(label));
    Diagnostic::new("bad_volume", node.position, message)
}

/// The error is the shape that was expected.
fn parse_short(text: &str) -> Result<Mount, &'static str> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(SHAPE),
    };
    let source = match source {
        None => MountSource::Anonymous,
        Some(source) => parse_source(source)?,
    };
    let mut mount = Mount {
        source,
        target: parse_target(target)?,
        read_only: false,
        options: Vec::new(),
        device: None,
        filesystem: None,
    };
    for option in options.split(',').filter(|_| !options.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            "rw" => {}
            _ if IGNORED_OPTIONS.contains(&option) => {}
            _ => match OPTIONS.iter().find(|known| **known == option) {
                Some(known) => mount.options.push(known),
                None => return Err("one with options out of ro, rw, z, Z, nocopy and propagation"),
            },
        }
    }
    Ok(mount)
}

fn parse_source(source: &str) -> Result<MountSource, &'static str> {
    if source.starts_with(['.', '~']) {
        return Err(
            "one with an absolute path or a volume name as its source: an instance has no \
                    directory that a relative path could start from",
        );
    }
    if source.starts_with('/') {
        return plain_path(source).map(MountSource::Bind);
    }
    let starts_well = source.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    // The engine's limit for a name is a file name's.
    if !starts_well || source.len() > 255 || !source.bytes().all(is_word) {
        return Err("one with an absolute path or a volume name as its source");
    }
    Ok(MountSource::Volume(source.to_owned()))
}

fn parse_target(target: &str) -> Result<String, &'static str> {
    if target == "/" {
        return Err("one with a target below `/`");
    }
    plain_path(target).map_err(|_| SHAPE)
}

/// A bind string separates its parts by colons, so a path can have none.
fn plain_path(path: &str) -> Result<String, &'static str> {
    if !is_absolute_path(path) || path.contains(':') || path.contains(char::is_control) {
        return Err("one with absolute paths without `..` and `:`");
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

#[derive(Clone, Copy)]
enum MountType {
    Bind,
    Volume,
    Tmpfs,
}

fn read_map(label: &str, node: &Node) -> Result<Mount, Diagnostic> {
    const TYPES: [(&str, MountType); 3] =
        [("bind", MountType::Bind), ("volume", MountType::Volume), ("tmpfs", MountType::Tmpfs)];
    let fields = Fields::of(&format!("an entry of {}", quote_key(label)), node, MOUNT.keys)?;
    let mount_type = word("type", fields.require("type")?.node, &TYPES, "bind, volume or tmpfs")?;
    let target = fields.require("target")?;
    let target = parse_target(any_text("target", target.node)?)
        .map_err(|shape| bad_volume(label, target.node, shape))?;
    let read_only = match fields.get("read_only") {
        Some(field) => flag("read_only", field.node)?,
        None => false,
    };
    let source = match fields.get("source") {
        Some(field) => {
            let source = parse_source(any_text("source", field.node)?)
                .map_err(|shape| bad_volume(label, field.node, shape))?;
            Some((source, field.node))
        }
        None => None,
    };
    let source = match (mount_type, source) {
        (MountType::Bind, Some((source @ MountSource::Bind(_), _))) => source,
        (MountType::Bind, Some((_, node))) => {
            return Err(bad_volume(label, node, "one with an absolute path as its source"));
        }
        (MountType::Bind, None) => {
            return Err(Diagnostic::new(
                "missing_key",
                node.position,
                "a volume of type bind needs the key `source`",
            ));
        }
        (MountType::Volume, Some((source @ MountSource::Volume(_), _))) => source,
        (MountType::Volume, Some((_, node))) => {
            return Err(bad_volume(label, node, "one with a volume name as its source"));
        }
        (MountType::Volume, None) => MountSource::Anonymous,
        (MountType::Tmpfs, None) => MountSource::Tmpfs,
        (MountType::Tmpfs, Some((_, node))) => {
            return Err(bad_volume(label, node, "one without a source, because it is a tmpfs"));
        }
    };
    let device = match fields.get("device") {
        Some(field) if !matches!(source, MountSource::Volume(_)) => {
            return Err(bad_volume(
                label,
                field.node,
                "one of type volume with a name, if it has a device",
            ));
        }
        Some(field) => Some(device("device", field.node)?),
        None => None,
    };
    let filesystem = match fields.get("filesystem") {
        Some(field) => Some(one_of("filesystem", field.node, &FILESYSTEMS)?.to_owned()),
        None => None,
    };
    Ok(Mount { source, target, read_only, options: Vec::new(), device, filesystem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::userdata::yaml;

    fn check(written: &str, expected: Result<&str, &str>) {
        let node = yaml::parse(written).unwrap().unwrap();
        let got = read("volumes", &node);
        let got: Result<String, &str> = match &got {
            Ok(mounts) => Ok(mounts.iter().map(show).collect::<Vec<_>>().join(" ")),
            Err(diagnostic) => Err(diagnostic.code),
        };
        assert_eq!(got.as_deref().map_err(|code| *code), expected, "{written}");
    }

    fn show(mount: &Mount) -> String {
        let source = match &mount.source {
            MountSource::Bind(path) => format!("bind={path}"),
            MountSource::Volume(name) => format!("volume={name}"),
            MountSource::Anonymous => "anonymous".to_owned(),
            MountSource::Tmpfs => "tmpfs".to_owned(),
        };
        let read_only = if mount.read_only { ",ro" } else { "" };
        let options: String = mount.options.iter().map(|option| format!(",{option}")).collect();
        format!("{source}>{}{read_only}{options}", mount.target)
    }

    #[test]
    fn short_form() {
        let cases = [
            ("[/data]", Ok("anonymous>/data")),
            ("['/srv/www:/var/www:ro']", Ok("bind=/srv/www>/var/www,ro")),
            ("['/:/host/']", Ok("bind=/>/host")),
            ("['data:/data:rw,z,cached']", Ok("volume=data>/data,z")),
            ("['./data:/data']", Err("bad_volume")),
            ("['~/data:/data']", Err("bad_volume")),
            ("['/a/../b:/data']", Err("bad_volume")),
            ("['data:data']", Err("bad_volume")),
            ("['data:/']", Err("bad_volume")),
            ("['da ta:/data']", Err("bad_volume")),
            ("['/a:/b:rx']", Err("bad_volume")),
            ("['/a:/b:ro:z']", Err("bad_volume")),
            ("['']", Err("bad_volume")),
            ("['/a:/data', '/b:/data/']", Err("duplicate_volume")),
            ("{/a: /b, data: {bind: /c, ro: true}}", Ok("bind=/a>/b volume=data>/c,ro")),
            ("{/a: /b, /c: /b}", Err("duplicate_volume")),
            ("{/a: b}", Err("bad_volume")),
            ("{/a: {ro: true}}", Err("missing_key")),
        ];
        for (written, expected) in cases {
            check(written, expected);
        }
    }

    #[test]
    fn map_form() {
        let cases = [
            ("[{type: bind, source: /a, target: /b, read_only: true}]", Ok("bind=/a>/b,ro")),
            ("[{type: volume, source: data, target: /b}]", Ok("volume=data>/b")),
            ("[{type: volume, target: /b}]", Ok("anonymous>/b")),
            ("[{type: tmpfs, target: /b}]", Ok("tmpfs>/b")),
            ("[{type: bind, target: /b}]", Err("missing_key")),
            ("[{type: bind, source: data, target: /b}]", Err("bad_volume")),
            ("[{type: volume, source: /a, target: /b}]", Err("bad_volume")),
            ("[{type: tmpfs, source: /a, target: /b}]", Err("bad_volume")),
            ("[{type: npipe, target: /b}]", Err("bad_word")),
            ("[{source: /a, target: /b}]", Err("missing_key")),
        ];
        for (written, expected) in cases {
            check(written, expected);
        }
    }
}
