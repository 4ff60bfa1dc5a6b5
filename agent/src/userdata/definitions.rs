//! What services share: networks, named volumes, secrets and configs.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::document::{DeviceDefinition, NetworkDefinition, VolumeDefinition};
use crate::userdata::fields::Fields;
use crate::userdata::read::files::{FileDefinition, definition};
use crate::userdata::read::network::is_name;
use crate::userdata::read::place::device;
use crate::userdata::read::plain::{address, entries, list, one_of, settings, subnet};
use crate::userdata::read::process::labels;
use crate::userdata::scalar::{bad, flag, text};
use crate::userdata::schema::shared::{IPAM, NETWORK, SUBNET, VOLUME};
use crate::userdata::volumes::FILESYSTEMS;
use crate::userdata::yaml::Node;

pub(crate) fn networks(
    label: &str,
    node: &Node,
) -> Result<BTreeMap<String, NetworkDefinition>, Diagnostic> {
    read_map(label, node, network)
}

pub(crate) fn volumes(
    label: &str,
    node: &Node,
) -> Result<BTreeMap<String, VolumeDefinition>, Diagnostic> {
    read_map(label, node, volume)
}

pub(crate) fn files(
    label: &str,
    node: &Node,
) -> Result<BTreeMap<String, FileDefinition>, Diagnostic> {
    read_map(label, node, definition)
}

fn read_map<T>(
    label: &str,
    node: &Node,
    read: impl Fn(&Node) -> Result<T, Diagnostic>,
) -> Result<BTreeMap<String, T>, Diagnostic> {
    let mut map = BTreeMap::new();
    for entry in entries(label, node, "a map of names")? {
        if !is_name(&entry.key) {
            let message = format!(
                "a name in {} must be of letters, digits, `_`, `.` and `-`",
                quote_key(label)
            );
            return Err(Diagnostic::new("bad_name", entry.key_position, message));
        }
        map.insert(entry.key.clone(), read(&entry.value)?);
    }
    Ok(map)
}

fn network(node: &Node) -> Result<NetworkDefinition, Diagnostic> {
    let mut definition = NetworkDefinition { create: json!({}), ..NetworkDefinition::default() };
    if node.is_null() {
        return Ok(definition);
    }
    let fields = Fields::of("an entry of `networks`", node, NETWORK.keys)?;
    let mut create = Map::new();
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        let (name, value): (&str, Json) = match label {
            "name" => {
                definition.name = Some(engine_name(label, node)?);
                continue;
            }
            "external" => {
                definition.external = flag(label, node)?;
                continue;
            }
            "driver" => ("Driver", text(label, node, "a string")?.into()),
            "driver_opts" => ("Options", settings(label, node)?),
            "internal" => ("Internal", flag(label, node)?.into()),
            "attachable" => ("Attachable", flag(label, node)?.into()),
            "enable_ipv6" => ("EnableIPv6", flag(label, node)?.into()),
            "ipam" => ("IPAM", ipam(node)?),
            _ => ("Labels", labels_json(label, node)?),
        };
        create.insert(name.to_owned(), value);
    }
    if definition.external && !create.is_empty() {
        let message = "a network that is external can have a `name` only";
        return Err(Diagnostic::new("bad_network", node.position, message));
    }
    definition.create = Json::Object(create);
    Ok(definition)
}

fn engine_name(label: &str, node: &Node) -> Result<String, Diagnostic> {
    let shape = "a name of letters, digits, `_`, `.` and `-` that starts with a letter or digit";
    let name = text(label, node, shape)?;
    is_name(name).then(|| name.to_owned()).ok_or_else(|| bad("bad_name", label, node, shape))
}

fn labels_json(label: &str, node: &Node) -> Result<Json, Diagnostic> {
    let labels = labels(label, node)?.into_iter().map(|(name, value)| (name, Json::from(value)));
    Ok(Json::Object(labels.collect()))
}

fn ipam(node: &Node) -> Result<Json, Diagnostic> {
    let mut ipam = Map::new();
    for field in Fields::of("`ipam`", node, IPAM.keys)?.iter() {
        let (label, node) = (field.key.name, field.node);
        let (name, value) = match label {
            "driver" => ("Driver", text(label, node, "a string")?.into()),
            "options" => ("Options", settings(label, node)?),
            _ => {
                let subnets = list(label, node, "a list of maps")?.iter().map(subnet_config);
                ("Config", subnets.collect::<Result<Vec<_>, _>>()?.into())
            }
        };
        ipam.insert(name.to_owned(), value);
    }
    Ok(Json::Object(ipam))
}

fn subnet_config(node: &Node) -> Result<Json, Diagnostic> {
    let mut config = Map::new();
    for field in Fields::of("an entry of `config`", node, SUBNET.keys)?.iter() {
        let (label, node) = (field.key.name, field.node);
        let (name, value) = match label {
            "subnet" => ("Subnet", subnet(label, node)?.into()),
            "ip_range" => ("IPRange", subnet(label, node)?.into()),
            "gateway" => ("Gateway", address(label, node)?.into()),
            _ => ("AuxiliaryAddresses", settings(label, node)?),
        };
        config.insert(name.to_owned(), value);
    }
    Ok(Json::Object(config))
}

fn volume(node: &Node) -> Result<VolumeDefinition, Diagnostic> {
    let mut definition = VolumeDefinition::default();
    if node.is_null() {
        return Ok(definition);
    }
    let fields = Fields::of("an entry of `volumes`", node, VOLUME.keys)?;
    let mut create = Map::new();
    for field in fields.iter() {
        let (label, node) = (field.key.name, field.node);
        let (name, value): (&str, Json) = match label {
            "name" => {
                definition.name = Some(engine_name(label, node)?);
                continue;
            }
            "external" => {
                definition.external = flag(label, node)?;
                continue;
            }
            "driver" => ("Driver", text(label, node, "a string")?.into()),
            "driver_opts" => ("DriverOpts", settings(label, node)?),
            "labels" => ("Labels", labels_json(label, node)?),
            _ => continue,
        };
        create.insert(name.to_owned(), value);
    }
    definition.device = device_definition(&fields)?;
    let has_more = !create.is_empty() || definition.name.is_some();
    if (definition.external && !create.is_empty())
        || (definition.device.is_some() && (has_more || definition.external))
    {
        let message =
            "a volume is external, with a `name` only, or a `device`, or made by the engine";
        return Err(Diagnostic::new("bad_volume", node.position, message));
    }
    if has_more {
        definition.create = Json::Object(create);
    }
    Ok(definition)
}

fn device_definition(fields: &Fields<'_>) -> Result<Option<DeviceDefinition>, Diagnostic> {
    let filesystem = match fields.get("filesystem") {
        Some(field) => Some(one_of("filesystem", field.node, &FILESYSTEMS)?.to_owned()),
        None => None,
    };
    let read_only = match fields.get("read_only") {
        Some(field) => flag("read_only", field.node)?,
        None => false,
    };
    let Some(field) = fields.get("device") else {
        let stray = fields.get("filesystem").or_else(|| fields.get("read_only"));
        return match stray {
            None => Ok(None),
            Some(field) => {
                let message =
                    format!("{} is for a volume with a `device`", quote_key(field.key.name));
                Err(Diagnostic::new("bad_volume", field.position, message))
            }
        };
    };
    Ok(Some(DeviceDefinition { selector: device("device", field.node)?, filesystem, read_only }))
}
