//! The EC2 dialect, which Nova and many other clouds speak.
//!
//! `instance-id` and `user-data`, after an attempt to get a session token (IMDSv2): where tokens are
//! required a GET without one is refused, and where they are unknown the attempt fails and costs
//! nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::datasource::http::{Answer, Service};
use crate::datasource::openstack::{is_instance_id, outcome};
use crate::datasource::{BrokenReason, Datasource, Found, MAX_USER_DATA_BYTES, Outcome};
use crate::link_local::LINK_LOCAL_V4;

/// Longer than one probe takes.
const TOKEN_SECONDS: HeaderValue = HeaderValue::from_static("60");

/// Real tokens have 56 characters.
const MAX_TOKEN_BYTES: u64 = 1024;

/// Real ids have 10 or 19 characters.
const MAX_INSTANCE_ID_BYTES: u64 = 1024;

/// A host name has 253 characters at most.
const MAX_FACT_BYTES: u64 = 1024;

/// The metadata service in its EC2 dialect.
#[derive(Debug)]
pub struct Ec2 {
    address: SocketAddr,
}

impl Ec2 {
    /// At the address where every such cloud has it.
    pub fn link_local() -> Ec2 {
        Ec2::at(SocketAddr::from((LINK_LOCAL_V4, 80)))
    }

    /// Somewhere else.
    pub fn at(address: SocketAddr) -> Ec2 {
        Ec2 { address }
    }

    async fn ask(&self) -> Result<Option<Found>, BrokenReason> {
        let service = Service::new(self.address, &self.address.ip().to_string())?;
        let headers = token_header(&service).await;
        let path = "/latest/meta-data/instance-id";
        let Answer::Data(instance_id) =
            service.get(path, headers.clone(), MAX_INSTANCE_ID_BYTES).await?
        else {
            return Ok(None);
        };
        let instance_id = String::from_utf8_lossy(&instance_id).trim().to_owned();
        if !is_instance_id(&instance_id) {
            return Err(BrokenReason(format!("GET {path}: the answer is no instance id")));
        }
        let user_data =
            match service.get("/latest/user-data", headers.clone(), MAX_USER_DATA_BYTES).await? {
                Answer::Data(user_data) if !user_data.is_empty() => Some(user_data),
                Answer::Data(_) | Answer::NotFound => None,
            };
        Ok(Some(Found {
            datasource: self.name(),
            instance_id: Some(instance_id),
            user_data,
            facts: facts(&service, headers).await?,
        }))
    }
}

async fn facts(
    service: &Service,
    headers: HeaderMap,
) -> Result<BTreeMap<String, String>, BrokenReason> {
    let mut facts = BTreeMap::new();
    for (name, path) in [
        ("hostname", "/latest/meta-data/hostname"),
        ("availability_zone", "/latest/meta-data/placement/availability-zone"),
    ] {
        if let Answer::Data(value) = service.get(path, headers.clone(), MAX_FACT_BYTES).await? {
            facts.insert(name.to_owned(), String::from_utf8_lossy(&value).trim().to_owned());
        }
    }
    Ok(facts)
}

async fn token_header(service: &Service) -> HeaderMap {
    const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
    const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
    let request = HeaderMap::from_iter([(TTL, TOKEN_SECONDS)]);
    let token = service.put("/latest/api/token", request, MAX_TOKEN_BYTES).await;
    let mut token = match token.map(|token| HeaderValue::from_bytes(&token)) {
        Some(Ok(token)) => token,
        Some(Err(_)) | None => return HeaderMap::new(),
    };
    token.set_sensitive(true);
    HeaderMap::from_iter([(TOKEN, token)])
}

#[async_trait]
impl Datasource for Ec2 {
    fn name(&self) -> &'static str {
        "ec2"
    }

    async fn probe(&self) -> Outcome {
        outcome(self.ask().await)
    }
}
