//! What the containers of a document share: networks, volumes and files.
//!
//! All of it is made before the first container and carries the agent's label, by which it is found
//! again. Networks and files belong to one document and go with it; a volume holds data, which
//! outlives documents, and goes only when somebody asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::boot::labels::{self, AGENT_LABEL, DOCUMENT_LABEL, INSTANCE_LABEL};
use crate::engine::objects::{ObjectKind, SharedObject};
use crate::engine::{Engine, EngineError};
use crate::error::chain;
use crate::plan::{NetworkPlan, Plan};
use crate::state::Subject;

/// Makes the networks and volumes of the plan that are not there yet.
pub(crate) async fn make(
    engine: &Arc<dyn Engine>,
    plan: &Plan,
    subject: &Subject,
) -> Result<(), EngineError> {
    for network in &plan.networks {
        make_network(engine, network, subject).await?;
    }
    for volume in &plan.volumes {
        if volume.external {
            let name = volume.name.clone();
            let found = engine.volume(&name).await?;
            found.ok_or(EngineError::ObjectMissing { kind: ObjectKind::Volume, name })?;
            continue;
        }
        engine.create_volume(&labelled(&volume.create, subject)).await?;
    }
    // The engine would make these too, but without a label, and nobody would know whose they are.
    let planned: BTreeSet<&str> = plan.volumes.iter().map(|volume| volume.name.as_str()).collect();
    for name in bound_volumes(plan).difference(&planned) {
        engine.create_volume(&labelled(&json!({ "Name": name }), subject)).await?;
    }
    Ok(())
}

async fn make_network(
    engine: &Arc<dyn Engine>,
    network: &NetworkPlan,
    subject: &Subject,
) -> Result<(), EngineError> {
    let name = || network.name.clone();
    match engine.network(&network.name).await? {
        // Podman and Docker look up names by their beginning, too.
        Some(found) if found.name == network.name => {
            let is_usable = network.external || labels::are_of(&found.labels, subject);
            is_usable.then_some(()).ok_or_else(|| EngineError::ObjectNameTaken {
                kind: ObjectKind::Network,
                name: name(),
            })
        }
        _ if network.external => {
            Err(EngineError::ObjectMissing { kind: ObjectKind::Network, name: name() })
        }
        _ => engine.create_network(&labelled(&network.create, subject)).await,
    }
}

/// Removes the networks of other documents and instances. To be called when no container uses them.
pub(crate) async fn remove_outdated_networks(
    engine: &Arc<dyn Engine>,
    subject: &Subject,
) -> Result<(), EngineError> {
    for network in ours(engine.networks(&labels::ours()).await?) {
        if !labels::are_of(&network.labels, subject) {
            remove_network(engine, &network.name).await;
        }
    }
    Ok(())
}

/// Removes all networks of the agent, and its volumes too if that is wanted.
pub(crate) async fn remove_all(
    engine: &Arc<dyn Engine>,
    with_volumes: bool,
) -> Result<Vec<String>, EngineError> {
    let mut removed = Vec::new();
    for network in ours(engine.networks(&labels::ours()).await?) {
        engine.remove_network(&network.name).await?;
        removed.push(network.name);
    }
    if with_volumes {
        for volume in ours(engine.volumes(&labels::ours()).await?) {
            engine.remove_volume(&volume.name).await?;
            removed.push(volume.name);
        }
    }
    Ok(removed)
}

/// A container that somebody else has put into the network keeps it; that is no failure of ours.
async fn remove_network(engine: &Arc<dyn Engine>, name: &str) {
    if let Err(error) = engine.remove_network(name).await {
        tracing::warn!(network.name = name, error = chain(&error), "network was not removed");
    }
}

/// The engine may list more than it was asked for.
fn ours(listed: Vec<SharedObject>) -> impl Iterator<Item = SharedObject> {
    listed.into_iter().filter(|object| labels::is_ours(&object.labels))
}

fn labelled(create: &Value, subject: &Subject) -> Value {
    let mut body = create.clone();
    if let Some(body) = body.as_object_mut() {
        let labels = body.entry("Labels").or_insert_with(|| json!({}));
        let ours = [
            (AGENT_LABEL, "1"),
            (INSTANCE_LABEL, subject.instance_id.as_str()),
            (DOCUMENT_LABEL, subject.document_hash.as_str()),
        ];
        if let Some(labels) = labels.as_object_mut() {
            labels.extend(ours.map(|(name, value)| (name.to_owned(), Value::from(value))));
        }
    }
    body
}

/// The names of volumes that containers mount, which are those sources that are no path.
fn bound_volumes(plan: &Plan) -> BTreeSet<&str> {
    let binds = plan.containers.iter().filter_map(|one| one.create.pointer("/HostConfig/Binds"));
    let sources = binds.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    let sources = sources.filter_map(|bind| Some(bind.split_once(':')?.0));
    let mut names: BTreeSet<&str> =
        sources.filter(|source| !source.starts_with(['/', '.', '~'])).collect();
    let mounts = plan.containers.iter().filter_map(|one| one.create.pointer("/HostConfig/Mounts"));
    for mount in mounts.filter_map(Value::as_array).flatten() {
        let text = |key: &str| mount.get(key).and_then(Value::as_str);
        if text("Type") == Some("volume")
            && let Some(source) = text("Source")
        {
            names.insert(source);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::userdata;

    #[test]
    fn volumes_are_the_sources_that_are_no_paths() {
        let text =
            "image: a\nvolumes: [\"data:/data\", \"/etc:/etc:ro\", \"logs:/logs:ro\", /anonymous]";
        let plan = Plan::new(&userdata::parse(text).unwrap(), std::path::Path::new("/state"));
        assert_eq!(bound_volumes(&plan), BTreeSet::from(["data", "logs"]));
    }

    #[test]
    fn what_is_made_says_whose_it_is() {
        let subject = Subject { instance_id: "i".to_owned(), document_hash: "d".to_owned() };
        let check = |create: Value, expect: Value| {
            assert_eq!(labelled(&create, &subject)["Labels"], expect);
        };
        let ours = json!({"io.heliograph.agent": "1", "io.heliograph.instance": "i",
            "io.heliograph.document": "d"});
        check(json!({"Name": "n"}), ours.clone());
        let mut with_theirs = ours;
        with_theirs["x"] = json!("1");
        check(json!({"Name": "n", "Labels": {"x": "1", "io.heliograph.agent": "0"}}), with_theirs);
    }
}
