//! Where an image is asked for, and with what: its registry, and the mirror that stands before it.

use std::collections::BTreeMap;

use crate::engine::EngineError;
use crate::engine::pull::PullProblem;
use crate::image::registry::DEFAULT_REGISTRY;
use crate::plan::{ImageReference, RegistryAccess};

/// One place to ask.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// The image's name there.
    pub(crate) reference: ImageReference,
    pub(crate) access: RegistryAccess,
}

impl Candidate {
    /// What an engine cannot be told for one pull.
    pub(crate) fn needs_own_client(&self) -> bool {
        self.access.ca.is_some() || self.access.insecure || self.access.token.is_some()
    }

    /// "Not found" with a digest in the name is about the digest.
    pub(crate) fn more_precisely(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Pull { image, problem: PullProblem::NotFound, message }
                if self.reference.digest.is_some() =>
            {
                EngineError::Pull { image, problem: PullProblem::NoSuchDigest, message }
            }
            error => error,
        }
    }
}

/// The image at its own registry.
pub(crate) fn origin_of(
    image: &ImageReference,
    registries: &BTreeMap<String, RegistryAccess>,
) -> Candidate {
    let host = image.registry.as_deref().unwrap_or(DEFAULT_REGISTRY);
    let access = registries.get(host).cloned().unwrap_or_default();
    Candidate { reference: image.clone(), access }
}

/// The image at the mirror of its registry: `host[:port][/prefix]`, with `https://` or `http://`
/// before it. What the mirror is asked with is the entry of its own host in `registries`.
pub(crate) fn mirror_of(
    image: &ImageReference,
    registries: &BTreeMap<String, RegistryAccess>,
) -> Option<Candidate> {
    let origin = origin_of(image, registries);
    let mirror = origin.access.mirror.as_deref()?.trim_end_matches('/');
    let (is_plain, place) = match mirror.split_once("://") {
        Some((scheme, place)) => (scheme == "http", place),
        None => (false, mirror),
    };
    let (host, prefix) = place.split_once('/').unwrap_or((place, ""));
    let is_short = image.registry.as_deref().is_none_or(|registry| registry == DEFAULT_REGISTRY)
        && !image.repository.contains('/');
    let repository = match (prefix, is_short) {
        ("", false) => image.repository.clone(),
        ("", true) => format!("library/{}", image.repository),
        (prefix, false) => format!("{prefix}/{}", image.repository),
        (prefix, true) => format!("{prefix}/library/{}", image.repository),
    };
    let mut access = registries.get(host).cloned().unwrap_or_default();
    access.insecure |= is_plain;
    let reference = ImageReference { registry: Some(host.to_owned()), repository, ..image.clone() };
    Some(Candidate { reference, access })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_has_the_image_under_its_own_name() {
        let check = |image: &str, registry: &str, mirror: &str, expect: Option<(&str, bool)>| {
            let access =
                RegistryAccess { mirror: Some(mirror.to_owned()), ..RegistryAccess::default() };
            let registries = BTreeMap::from([(registry.to_owned(), access)]);
            let image = ImageReference::parse(image).unwrap();
            let found = mirror_of(&image, &registries);
            let found = found.map(|one| (one.reference.to_string(), one.access.insecure));
            let expect = expect.map(|(name, insecure)| (name.to_owned(), insecure));
            assert_eq!(found, expect, "{image} {mirror}");
        };
        check("web:1", "docker.io", "m.example", Some(("m.example/library/web:1", false)));
        check("team/web", "docker.io", "http://m:5000/", Some(("m:5000/team/web", true)));
        check("docker.io/web", "docker.io", "m.example", Some(("m.example/library/web", false)));
        check(
            "r.example/web",
            "r.example",
            "https://m.example/r",
            Some(("m.example/r/web", false)),
        );
        check("r.example/web", "docker.io", "m.example", None);
    }

    #[test]
    fn the_mirror_has_credentials_of_its_own() {
        let registries = BTreeMap::from([
            (
                "docker.io".to_owned(),
                RegistryAccess {
                    mirror: Some("m:5000".to_owned()),
                    username: Some("origin".to_owned()),
                    ..RegistryAccess::default()
                },
            ),
            (
                "m:5000".to_owned(),
                RegistryAccess { username: Some("mirror".to_owned()), ..RegistryAccess::default() },
            ),
        ]);
        let image = ImageReference::parse("web").unwrap();
        let username = |candidate: Candidate| candidate.access.username;
        assert_eq!(username(origin_of(&image, &registries)).as_deref(), Some("origin"));
        let mirror = mirror_of(&image, &registries).map(username);
        assert_eq!(mirror.flatten().as_deref(), Some("mirror"));
    }
}
