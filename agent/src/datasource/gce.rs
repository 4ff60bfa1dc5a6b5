//! Google's metadata service, and the container declaration that its "container-optimized" instances
//! were described with.
//!
//! One request: the whole of `instance/` as JSON, with the header that the service asks for. The
//! attribute `gce-container-declaration` is a document of the form `spec: {containers: …}` without a
//! first line that says so; it gets one here. An instance without it may have `user-data` like any
//! other. The format is that of Google's page "View and query VM metadata".

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::datasource::http::{Answer, Service};
use crate::datasource::openstack::outcome;
use crate::datasource::{BrokenReason, Datasource, Found, MAX_METADATA_BYTES, Outcome};
use crate::link_local::LINK_LOCAL_V4;

const PATH: &str = "/computeMetadata/v1/instance/?recursive=true&alt=json";

/// The service compares it, and answers to no other name.
const HOST: &str = "metadata.google.internal";

const DECLARATION: &str = "gce-container-declaration";
const USER_DATA: &str = "user-data";

/// The metadata service of a Google instance.
#[derive(Debug)]
pub struct Gce {
    address: SocketAddr,
}

/// What we read of the answer.
#[derive(Deserialize)]
struct Instance {
    id: u64,
    name: Option<String>,
    hostname: Option<String>,
    /// `projects/NUMBER/zones/ZONE`.
    zone: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

impl Gce {
    /// At the address where Google has it.
    pub fn link_local() -> Gce {
        Gce::at(SocketAddr::from((LINK_LOCAL_V4, 80)))
    }

    /// Somewhere else.
    pub fn at(address: SocketAddr) -> Gce {
        Gce { address }
    }

    async fn ask(&self) -> Result<Option<Found>, BrokenReason> {
        const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
        let headers = HeaderMap::from_iter([(FLAVOR, HeaderValue::from_static("Google"))]);
        let service = Service::new(self.address, HOST)?;
        let Answer::Data(answer) = service.get(PATH, headers, MAX_METADATA_BYTES).await? else {
            return Ok(None);
        };
        // The error's own text may quote a value.
        let mut instance: Instance = serde_json::from_slice(&answer)
            .map_err(|_| BrokenReason("GCE's metadata is not as expected".to_owned()))?;
        let declaration = instance.attributes.remove(DECLARATION);
        let user_data = instance.attributes.remove(USER_DATA);
        let user_data = declaration.map(|declaration| as_document(&declaration)).or(user_data);
        Ok(Some(Found {
            datasource: self.name(),
            instance_id: Some(instance.id.to_string()),
            user_data: user_data.map(String::into_bytes).filter(|bytes| !bytes.is_empty()),
            facts: facts(instance),
        }))
    }
}

fn as_document(declaration: &str) -> String {
    if declaration.trim_start().starts_with("#docker") {
        return declaration.to_owned();
    }
    format!("#docker\n{declaration}")
}

fn facts(instance: Instance) -> BTreeMap<String, String> {
    let zone = instance.zone.as_deref().and_then(|zone| zone.rsplit('/').next());
    let named = [
        ("name", instance.name),
        ("hostname", instance.hostname),
        ("availability_zone", zone.map(str::to_owned)),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let meta = instance.attributes.into_iter().map(|(key, value)| (format!("meta.{key}"), value));
    named.chain(meta).collect()
}

#[async_trait]
impl Datasource for Gce {
    fn name(&self) -> &'static str {
        "gce"
    }

    async fn probe(&self) -> Outcome {
        outcome(self.ask().await)
    }
}
