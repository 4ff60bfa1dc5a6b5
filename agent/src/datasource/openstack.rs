//! OpenStack's metadata service, at 169.254.169.254 or at `fe80::a9fe:a9fe` on any interface.
//!
//! Two requests: `meta_data.json` says who the instance is, `user_data` has the user data or does
//! not exist. Behind the address stands a proxy of Neutron's, whose errors (500 while Nova is slow,
//! no answer while the network is set up) pass; they are broken, not absent.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::datasource::http::{Answer, Service};
use crate::datasource::{
    BrokenReason, Datasource, Found, MAX_METADATA_BYTES, MAX_USER_DATA_BYTES, Outcome,
};
use crate::link_local::{LINK_LOCAL_V4, addresses_v6};

/// The metadata service at one address.
#[derive(Debug)]
pub struct OpenStack {
    address: SocketAddr,
    host: String,
}

impl OpenStack {
    /// At the address where every OpenStack has it.
    pub fn link_local() -> OpenStack {
        OpenStack::at(SocketAddr::from((LINK_LOCAL_V4, 80)))
    }

    /// Somewhere else.
    pub fn at(address: SocketAddr) -> OpenStack {
        let host = match address {
            // A Host header has no room for the scope.
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
            SocketAddr::V4(address) => address.ip().to_string(),
        };
        OpenStack { address, host }
    }

    async fn ask(&self) -> Result<Option<Found>, BrokenReason> {
        let service = Service::new(self.address, &self.host)?;
        let path = "/openstack/latest/meta_data.json";
        let Answer::Data(metadata) =
            service.get(path, HeaderMap::new(), MAX_METADATA_BYTES).await?
        else {
            return Ok(None);
        };
        let (instance_id, facts) = parse_metadata(&metadata)?;
        let path = "/openstack/latest/user_data";
        let user_data = match service.get(path, HeaderMap::new(), MAX_USER_DATA_BYTES).await? {
            Answer::Data(user_data) if !user_data.is_empty() => Some(user_data),
            Answer::Data(_) | Answer::NotFound => None,
        };
        let instance_id = Some(instance_id);
        Ok(Some(Found { datasource: self.name(), instance_id, user_data, facts }))
    }
}

#[async_trait]
impl Datasource for OpenStack {
    fn name(&self) -> &'static str {
        "openstack"
    }

    async fn probe(&self) -> Outcome {
        outcome(self.ask().await)
    }
}

pub(crate) fn outcome(asked: Result<Option<Found>, BrokenReason>) -> Outcome {
    match asked {
        Ok(Some(found)) => Outcome::Found(found),
        Ok(None) => Outcome::Absent,
        Err(reason) => Outcome::Broken(reason),
    }
}

/// The metadata service on an IPv6-only network, on whichever interface it answers.
#[derive(Debug)]
pub struct LinkLocalV6;

#[async_trait]
impl Datasource for LinkLocalV6 {
    fn name(&self) -> &'static str {
        "openstack-ipv6"
    }

    /// Interfaces come up one by one, so they are listed anew at each probe.
    async fn probe(&self) -> Outcome {
        let sources: Vec<OpenStack> = addresses_v6().into_iter().map(OpenStack::at).collect();
        let mut probes: FuturesUnordered<_> = sources.iter().map(OpenStack::probe).collect();
        let mut last = Outcome::Absent;
        while let Some(outcome) = probes.next().await {
            match outcome {
                Outcome::Found(found) => {
                    return Outcome::Found(Found { datasource: self.name(), ..found });
                }
                Outcome::Broken(_) => last = outcome,
                Outcome::Absent => {}
            }
        }
        last
    }
}

/// What we read of `meta_data.json`, which is Nova's and grows with every release.
#[derive(Deserialize)]
struct MetadataFile {
    uuid: String,
    name: Option<String>,
    hostname: Option<String>,
    availability_zone: Option<String>,
    project_id: Option<String>,
    #[serde(default)]
    meta: BTreeMap<String, String>,
}

/// The instance's id, and the facts in the rest of `meta_data.json`.
pub(crate) fn parse_metadata(
    bytes: &[u8],
) -> Result<(String, BTreeMap<String, String>), BrokenReason> {
    let broken = |why: &str| BrokenReason(format!("meta_data.json {why}"));
    let file: MetadataFile = serde_json::from_slice(bytes).map_err(|error| {
        // The error's own text may quote a value.
        broken(&format!("is not as expected at line {}, column {}", error.line(), error.column()))
    })?;
    if !is_instance_id(&file.uuid) {
        return Err(broken("has no valid uuid"));
    }
    let named = [
        ("name", file.name),
        ("hostname", file.hostname),
        ("availability_zone", file.availability_zone),
        ("project_id", file.project_id),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let meta = file.meta.into_iter().map(|(key, value)| (format!("meta.{key}"), value));
    Ok((file.uuid, named.chain(meta).collect()))
}

/// The id becomes part of a signal's id, a label and a file name.
pub(crate) fn is_instance_id(id: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !id.is_empty() && id.len() <= 128 && id.bytes().all(is_word)
}
