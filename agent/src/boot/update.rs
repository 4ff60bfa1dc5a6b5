//! Noticing that the metadata has changed, for an agent that was asked to.
//!
//! Nova lets user data be changed when an instance is rebuilt, and its metadata at any time; a
//! document may refer to both. So the datasources are asked again now and then, and when what they
//! say differs from what the last run was given, the flow runs again: an unchanged document keeps
//! its containers, a changed one replaces them. A datasource that does not answer changes nothing.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;

use crate::datasource::{self, Datasource, Found};

/// How long the datasources may take each time.
const DATASOURCE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a run depends on, in so few bytes that it can be kept without keeping secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

/// None: there is no user data, which says nothing.
pub(crate) fn fingerprint(found: &Found) -> Option<Fingerprint> {
    let user_data = found.user_data.as_ref()?;
    let mut digest = Sha256::new();
    let facts = found.facts.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let instance_id = found.instance_id.as_deref().unwrap_or_default().as_bytes();
    // Each part after its length, so that no two lists of parts are alike.
    for part in [user_data.as_slice(), instance_id].into_iter().chain(facts) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    Some(Fingerprint(digest.finalize().into()))
}

/// How to notice.
pub(crate) struct Update<'a> {
    pub(crate) sources: Box<dyn Fn() -> Vec<Box<dyn Datasource>> + 'a>,
    pub(crate) every: Duration,
    /// What the last run was given.
    pub(crate) known: Fingerprint,
}

impl fmt::Debug for Update<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Update").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Update<'_> {
    /// When the datasources say something else.
    pub(crate) async fn changed(&self) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the run has just asked.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let race = datasource::race((self.sources)(), DATASOURCE_TIMEOUT).await;
            let now = race.found.as_ref().and_then(fingerprint);
            if now.is_some_and(|now| now != self.known) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(user_data: Option<&str>, facts: &[(&str, &str)]) -> Found {
        Found {
            datasource: "file",
            instance_id: Some("i".to_owned()),
            user_data: user_data.map(|text| text.as_bytes().to_vec()),
            facts: facts.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    #[test]
    fn whatever_a_document_may_depend_on_is_in_the_fingerprint() {
        let plain = fingerprint(&found(Some("a"), &[("name", "web")]));
        assert_eq!(plain, fingerprint(&found(Some("a"), &[("name", "web")])));
        for other in [
            found(Some("b"), &[("name", "web")]),
            found(Some("a"), &[("name", "db")]),
            found(Some("a"), &[("namew", "eb")]),
            found(Some("a"), &[]),
            Found { instance_id: None, ..found(Some("a"), &[("name", "web")]) },
        ] {
            assert_ne!(fingerprint(&other), plain, "{other:?}");
        }
        assert_eq!(fingerprint(&found(None, &[])), None);
    }
}
