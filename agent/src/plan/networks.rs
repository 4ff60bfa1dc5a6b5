//! Which networks a container is in, and what it is called there.
//!
//! The engine takes one endpoint when a container is made, and more once it is there.

use serde_json::{Map, Value as Json, json};

use crate::plan::create::{container_of, put};
use crate::plan::{Attachment, NetworkPlan};
use crate::userdata::document::{Document, Service};
use crate::userdata::value::{Link, Peer, ServiceNetwork, Value};

/// The network that services without `networks` share.
const DEFAULT_NETWORK: &str = "default";

/// What a container is given of networks.
pub(crate) struct Joined {
    first: Option<(String, Json)>,
    /// For a container in no network of the document.
    links: Vec<String>,
    pub(crate) attachments: Vec<Attachment>,
}

impl Joined {
    pub(crate) fn new(document: &Document, service: &Service) -> Joined {
        let links = links(document, service);
        let mut endpoints = networks_of(document, service).into_iter().map(|network| {
            let endpoint = endpoint(service, &network, &links);
            (engine_name(document, &network.network), endpoint)
        });
        let first = endpoints.next();
        let attachments =
            endpoints.map(|(network, endpoint)| Attachment { network, endpoint }).collect();
        let links = if first.is_some() { Vec::new() } else { links };
        Joined { first, links, attachments }
    }

    pub(crate) fn put(&self, body: &mut Map<String, Json>) {
        if let Some((network, endpoint)) = &self.first {
            put(body, "HostConfig.NetworkMode", network.as_str().into());
            let mut endpoints = Map::new();
            endpoints.insert(network.clone(), endpoint.clone());
            put(body, "NetworkingConfig.EndpointsConfig", Json::Object(endpoints));
        }
        if !self.links.is_empty() {
            put(body, "HostConfig.Links", self.links.clone().into());
        }
    }
}

/// The networks of a service, its first one first.
fn networks_of(document: &Document, service: &Service) -> Vec<ServiceNetwork> {
    match service.values.get("networks") {
        Some(Value::Networks(networks)) => networks.clone(),
        _ if document.is_composed && !service.values.contains_key("network_mode") => {
            vec![ServiceNetwork {
                network: DEFAULT_NETWORK.to_owned(),
                aliases: Vec::new(),
                endpoint: json!({}),
                priority: 0,
            }]
        }
        _ => Vec::new(),
    }
}

fn endpoint(service: &Service, network: &ServiceNetwork, links: &[String]) -> Json {
    let mut endpoint = network.endpoint.clone();
    let mut aliases = vec![service.name.clone()];
    aliases.extend(network.aliases.iter().filter(|alias| **alias != service.name).cloned());
    endpoint["Aliases"] = aliases.into();
    if !links.is_empty() {
        endpoint["Links"] = links.into();
    }
    endpoint
}

/// As the engine wants them: `container:alias`.
fn links(document: &Document, service: &Service) -> Vec<String> {
    let of = |key: &str, peer: fn(String) -> Peer| -> Vec<String> {
        let links: &[Link] = match service.values.get(key) {
            Some(Value::Links(links)) => links,
            _ => &[],
        };
        let link = |link: &Link| {
            format!("{}:{}", container_of(document, &peer(link.name.clone())), link.alias)
        };
        links.iter().map(link).collect()
    };
    [of("links", Peer::Service), of("external_links", Peer::Container)].concat()
}

fn engine_name(document: &Document, key: &str) -> String {
    let definition = document.networks.get(key);
    match definition.and_then(|definition| definition.name.clone()) {
        Some(name) => name,
        None if definition.is_some_and(|definition| definition.external) => key.to_owned(),
        None => format!("heliograph_{key}"),
    }
}

/// The networks that any service is in, in the order in which they are first named.
pub(crate) fn plans(document: &Document) -> Vec<NetworkPlan> {
    let mut plans: Vec<NetworkPlan> = Vec::new();
    for network in document.services.iter().flat_map(|service| networks_of(document, service)) {
        let name = engine_name(document, &network.network);
        if plans.iter().any(|plan| plan.name == name) {
            continue;
        }
        let definition = document.networks.get(&network.network);
        let external = definition.is_some_and(|definition| definition.external);
        let mut create =
            definition.map_or_else(|| json!({}), |definition| definition.create.clone());
        create["Name"] = name.as_str().into();
        if create.get("Driver").is_none() {
            create["Driver"] = "bridge".into();
        }
        plans.push(NetworkPlan {
            name,
            external,
            create: if external { Json::Null } else { create },
        });
    }
    plans
}
