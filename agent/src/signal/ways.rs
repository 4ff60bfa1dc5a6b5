//! Which of the ways to a handle is taken.
//!
//! Usually all of them: see `ladder`. A document may name one, and then no other is tried.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::signal::direct::Direct;
use crate::signal::gateway::{Gateway, PasswordSlot};
use crate::signal::ladder::Ladder;
use crate::signal::{Handle, SendError, Transport};

/// What the document says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Every way that there is.
    #[default]
    Any,
    /// The handle's own URL only.
    Direct,
    /// The metadata address only.
    Metadata,
    /// Nova's password slot only.
    PasswordSlot,
}

/// All ways that this instance has.
#[derive(Clone, Debug)]
pub struct Ways {
    /// PEM, of the agent's configuration.
    authorities: Vec<String>,
    direct: Arc<Direct>,
    gateway: Option<Arc<Gateway>>,
}

/// A way that the document names and the configuration has switched off.
#[derive(Debug)]
struct NoWay;

impl Ways {
    pub fn new(authorities: Vec<String>, gateway: Option<Arc<Gateway>>) -> Ways {
        let direct = Arc::new(Direct::new(authorities.clone()));
        Ways { authorities, direct, gateway }
    }

    /// The same ways, trusting the document's authorities as well as the configuration's.
    #[must_use]
    pub fn trusting(&self, document_authorities: &[String]) -> Ways {
        let authorities = [&self.authorities, document_authorities].concat();
        Ways { direct: Arc::new(Direct::new(authorities)), ..self.clone() }
    }

    pub fn gateway(&self) -> Option<&Arc<Gateway>> {
        self.gateway.as_ref()
    }

    pub fn by(&self, way: Way) -> Arc<dyn Transport> {
        match (way, &self.gateway) {
            (Way::Any, Some(gateway)) => {
                Arc::new(Ladder::new(self.direct.clone(), gateway.clone()))
            }
            (Way::Any | Way::Direct, _) => self.direct.clone(),
            (Way::Metadata, Some(gateway)) => gateway.clone(),
            (Way::PasswordSlot, Some(gateway)) => Arc::new(PasswordSlot(gateway.clone())),
            (Way::Metadata | Way::PasswordSlot, None) => Arc::new(NoWay),
        }
    }
}

#[async_trait]
impl Transport for NoWay {
    async fn send(&self, handle: &Handle, _: &str) -> Result<(), SendError> {
        Err(SendError::Refused {
            host: handle.host(),
            status: 0,
            message: "the agent's configuration has switched the metadata address off".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::gateway::METADATA_ADDRESS;

    #[tokio::test]
    async fn a_way_that_is_off_is_a_refusal() {
        let ways = Ways::new(Vec::new(), None);
        for way in [Way::Metadata, Way::PasswordSlot] {
            let sent = ways.by(way).send(&Handle::Instance, "{}").await;
            assert_eq!(sent.unwrap_err().code(), "signal_refused", "{way:?}");
        }
        let sent = ways.by(Way::Any).send(&Handle::Instance, "{}").await;
        assert_eq!(sent.unwrap_err().code(), "signal_refused");
        let on = Ways::new(Vec::new(), Some(Arc::new(Gateway::new(METADATA_ADDRESS, None))));
        assert!(on.trusting(&[]).gateway().is_some(), "the gateway is the same one");
    }

    #[tokio::test]
    async fn an_authority_that_is_none_is_said() {
        let ways = Ways::new(vec!["-----BEGIN CERTIFICATE-----\n!\n".to_owned()], None);
        let handle = Handle::from_url("https://relay.example/h").unwrap();
        let sent = ways.by(Way::Direct).send(&handle, "{}").await;
        assert_eq!(sent.unwrap_err().code(), "signal_no_https");
    }
}
