//! From a node of the tree to a typed value, by the kind that the schema gives.

pub(crate) mod plain;

pub(crate) mod process;

pub(crate) mod network;

mod host;

pub(crate) mod files;

pub(crate) mod place;

mod together;

use crate::userdata::context::Context;
use crate::userdata::diagnostic::{Diagnostic, quote_key};
use crate::userdata::document::PullPolicy;
use crate::userdata::fields::Field;
use crate::userdata::read::plain::{list, texts};
use crate::userdata::scalar::{
    absolute_path, duration, flag, nano_cpus, size, text, word, wrong_type,
};
use crate::userdata::schema::Kind;
use crate::userdata::value::Value;
use crate::userdata::yaml::{Content, Node};
use crate::userdata::{ports, volumes};

/// Reads one key of a service. None: the key has no effect, or says "as the image has it".
pub(crate) fn value(field: Field<'_>, context: &mut Context) -> Result<Option<Value>, Diagnostic> {
    let Field { key, node, .. } = field;
    let label = key.name;
    let value = match key.kind {
        Kind::Ignored(reason) => {
            let message = format!("{} has no effect: {reason}", quote_key(label));
            context.warn("no_effect", field.position, message);
            return Ok(None);
        }
        Kind::SplitCommand if node.is_null() => return Ok(None),
        Kind::Pull => Value::Pull(pull(label, node, context)?),
        Kind::Expose => Value::Ports(ports::exposed(label, node, context)?),
        Kind::Links => {
            let message = format!(
                "{} is an old way: services see each other by their names",
                quote_key(label)
            );
            context.warn("old_key", field.position, message);
            Value::Links(network::links(label, node)?)
        }
        Kind::Deploy => Value::Fields(host::deploy(label, node, context)?),
        _ => match plain_value(field)? {
            Some(value) => value,
            None => return composed_value(field),
        },
    };
    Ok(Some(value))
}

/// The kinds whose value is one field of the engine's.
fn plain_value(field: Field<'_>) -> Result<Option<Value>, Diagnostic> {
    let Field { key, node, .. } = field;
    let (label, shape) = (key.name, key.kind.shape());
    let json = match key.kind {
        Kind::Text => text(label, node, shape)?.into(),
        Kind::Texts => texts(label, node)?.into(),
        Kind::Words(words) => plain::one_of(label, node, words)?.into(),
        Kind::Hostname => process::hostname(label, node)?.into(),
        Kind::AbsolutePath => absolute_path(label, node)?.into(),
        Kind::Flag => flag(label, node)?.into(),
        Kind::Size => size(label, node)?.into(),
        Kind::Memory => process::memory(label, node)?.into(),
        Kind::SizeOrUnlimited => plain::size_or_unlimited(label, node)?.into(),
        Kind::Cpus => nano_cpus(label, node)?.into(),
        Kind::CpuSet => plain::cpu_set(label, node)?.into(),
        Kind::Number(min, max) => plain::number(label, node, min, max)?.into(),
        Kind::Microseconds => plain::microseconds(label, node)?.into(),
        Kind::Addresses => plain::addresses(label, node)?.into(),
        Kind::MacAddress => plain::mac_address(label, node)?.into(),
        Kind::Settings => plain::settings(label, node)?,
        Kind::ExtraHosts => network::extra_hosts(label, node)?.into(),
        Kind::Tmpfs => host::tmpfs(label, node)?,
        Kind::Devices => host::devices(label, node)?,
        Kind::Gpus => host::gpus(label, node)?,
        Kind::Ulimits => host::ulimits(label, node)?,
        Kind::Capabilities => host::capabilities(label, node)?.into(),
        Kind::Logging => host::logging(label, node)?,
        _ => return Ok(None),
    };
    Ok(Some(Value::Json(json)))
}

/// The kinds that have a value of their own, for the plan to make something of.
fn composed_value(field: Field<'_>) -> Result<Option<Value>, Diagnostic> {
    let Field { key, node, .. } = field;
    let (label, shape) = (key.name, key.kind.shape());
    let value = match key.kind {
        Kind::ContainerName => Value::Text(process::container_name(label, node)?),
        Kind::Platform => Value::Text(plain::platform(label, node)?),
        Kind::ShellCommand => match &node.content {
            Content::List(_) => Value::Words(process::word_list(label, node)?),
            _ => {
                let line = text(label, node, shape)?;
                Value::Words(["/bin/sh", "-c", line].map(str::to_owned).to_vec())
            }
        },
        Kind::SplitCommand => Value::Words(process::split_command(label, node)?),
        Kind::Environment => Value::Assignments(process::environment(label, node)?),
        Kind::Labels => Value::Assignments(process::labels(label, node)?),
        Kind::Grace => Value::Duration(duration(label, node)?),
        Kind::ExitCodes => Value::Codes(exit_codes(label, node)?),
        Kind::Scale => Value::Count(plain::small(label, node, 1, MAX_SCALE)?),
        Kind::Ports => Value::Ports(ports::read(label, node)?),
        Kind::PortBindings => Value::Ports(ports::bindings(label, node)?),
        Kind::Volumes => Value::Mounts(volumes::read(label, node)?),
        Kind::VolumesFrom => Value::VolumesFrom(network::volumes_from(label, node)?),
        Kind::Restart => Value::Restart(process::restart(label, node)?),
        Kind::Healthcheck => Value::Healthcheck(process::healthcheck(node)?),
        Kind::NetworkMode => Value::Peer(network::mode(label, node)?),
        Kind::Namespace => Value::Peer(network::namespace(label, node)?),
        Kind::Networks => Value::Networks(network::networks(label, node)?),
        Kind::Blkio => Value::Fields(host::blkio(node)?),
        Kind::DependsOn => Value::DependsOn(together::depends_on(label, node)?),
        Kind::Secrets | Kind::Configs => Value::Grants(files::grants(label, node)?),
        Kind::Files => Value::Files(files::files(label, node)?),
        Kind::Archive => Value::Archive(place::archive(label, node)?),
        // The remaining kinds are read by the code of the map that they stand in.
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// A document with more containers of one service is a cluster's, not an instance's.
pub(crate) const MAX_SCALE: u32 = 32;

fn exit_codes(label: &str, node: &Node) -> Result<Vec<i64>, Diagnostic> {
    let codes = list(label, node, Kind::ExitCodes.shape())?;
    if codes.is_empty() {
        return Err(wrong_type(label, node, "a list of at least one number"));
    }
    codes.iter().map(|code| plain::number(label, code, 0, 255)).collect()
}

/// Compose's schedules are for machines on which people pull: an instance pulls when it is made.
fn pull(label: &str, node: &Node, context: &mut Context) -> Result<PullPolicy, Diagnostic> {
    let written = text(label, node, Kind::Pull.shape())?;
    if matches!(written, "daily" | "weekly") || written.starts_with("every_") {
        let message = format!("{} is read as `missing`", quote_key(label));
        context.warn("no_effect", node.position, message);
        return Ok(PullPolicy::Missing);
    }
    word(label, node, &PullPolicy::WORDS, Kind::Pull.shape())
}
