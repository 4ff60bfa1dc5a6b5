//! Image manifests, as registries serve them and OCI layouts hold them.
//!
//! Two families with the same shape: OCI's, and Docker's schema 2. An index (Docker: manifest list)
//! names one manifest per platform; a manifest names a configuration and layers. Everything is named
//! by its digest, so whoever trusts the first digest can check all the rest.

use serde::Deserialize;

use crate::fetch::digest::Digest;

/// What is asked for at a registry, in the order of preference.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Registries refuse larger ones.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

/// The engines allow 127 layers.
const MAX_LAYERS: usize = 256;

/// An index that leads to an index is allowed; a long chain of them is somebody's joke.
pub(crate) const MAX_INDEX_DEPTH: usize = 4;

/// A document that a digest names.
#[derive(Debug)]
pub(crate) enum Manifest {
    Index(Vec<Descriptor>),
    Image { config: Descriptor, layers: Vec<Descriptor> },
}

/// Something that a digest names.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<PlatformFields>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PlatformFields {
    os: String,
    architecture: String,
    variant: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: u32,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest cannot be read")]
    Parse { source: serde_json::Error },
    #[error("manifest is of a kind that is not supported: {0}")]
    Kind(&'static str),
    #[error("manifest names something by {digest}, which is no digest")]
    Digest { digest: String },
    #[error("image has no variant for {platform}; it has {available}")]
    Platform { platform: String, available: String },
}

impl Manifest {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let fields: Fields =
            serde_json::from_slice(bytes).map_err(|source| ManifestError::Parse { source })?;
        if fields.schema_version != 2 {
            return Err(ManifestError::Kind("Docker's schema 1, which was given up in 2017"));
        }
        if let Some(manifests) = fields.manifests {
            return Ok(Manifest::Index(manifests));
        }
        let (Some(config), Some(layers)) = (fields.config, fields.layers) else {
            return Err(ManifestError::Kind("it is neither an image nor an index"));
        };
        if layers.len() > MAX_LAYERS {
            return Err(ManifestError::Kind("it has more layers than an engine takes"));
        }
        if layers.iter().any(|layer| layer.media_type.contains("foreign")) {
            return Err(ManifestError::Kind("a layer is not in the registry"));
        }
        Ok(Manifest::Image { config, layers })
    }
}

impl Descriptor {
    pub(crate) fn digest(&self) -> Result<Digest, ManifestError> {
        Digest::parse(&self.digest)
            .ok_or_else(|| ManifestError::Digest { digest: self.digest.clone() })
    }

    /// The tag, or the whole name, that an OCI layout gives to an image in it.
    pub(crate) fn name(&self) -> Option<&str> {
        let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        names.iter().find_map(|name| self.annotations.get(*name)).map(String::as_str)
    }

    fn platform(&self) -> Option<Platform> {
        let fields = self.platform.as_ref()?;
        Some(Platform {
            os: fields.os.clone(),
            architecture: fields.architecture.clone(),
            variant: Some(fields.variant.clone()).filter(|variant| !variant.is_empty()),
        })
    }
}

/// What a program is built for, as images name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// `linux/arm64/v8`; None: the one that this program runs on.
    pub(crate) fn of(platform: Option<&str>) -> Platform {
        let mut parts = platform.unwrap_or_default().split('/').filter(|part| !part.is_empty());
        Platform {
            os: parts.next().unwrap_or("linux").to_owned(),
            architecture: parts.next().unwrap_or_else(|| host_architecture()).to_owned(),
            variant: parts.next().map(str::to_owned),
        }
    }

    /// A variant that neither side names is not compared.
    fn fits(&self, other: &Platform) -> bool {
        let variants_agree = match (&self.variant, &other.variant) {
            (Some(mine), Some(other)) => mine == other,
            _ => true,
        };
        self.os == other.os && self.architecture == other.architecture && variants_agree
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// Go's names, which images use.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The manifest of an index for a platform. An index with one manifest that says nothing of its
/// platform has that one.
pub(crate) fn choose<'a>(
    manifests: &'a [Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, ManifestError> {
    let fitting = manifests
        .iter()
        .find(|one| one.platform().is_some_and(|available| platform.fits(&available)));
    let only = match manifests {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    };
    fitting.or(only).ok_or_else(|| {
        let available = manifests.iter().filter_map(Descriptor::platform);
        let available: Vec<String> = available.map(|platform| platform.to_string()).collect();
        ManifestError::Platform {
            platform: platform.to_string(),
            available: if available.is_empty() { "none".to_owned() } else { available.join(", ") },
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index(platforms: &[Option<&str>]) -> Vec<Descriptor> {
        let manifests: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(n, platform)| {
                let mut one = json!({"digest": format!("sha256:{n:064}"), "size": 1});
                if let Some((os, rest)) = platform.and_then(|platform| platform.split_once('/')) {
                    let (architecture, variant) = rest.split_once('/').unwrap_or((rest, ""));
                    one["platform"] =
                        json!({"os": os, "architecture": architecture, "variant": variant});
                }
                one
            })
            .collect();
        let bytes = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        match Manifest::parse(bytes.as_bytes()).expect("an index") {
            Manifest::Index(manifests) => manifests,
            Manifest::Image { .. } => panic!("it is an index"),
        }
    }

    #[test]
    fn a_platform_is_chosen() {
        let check = |platforms: &[Option<&str>], wanted: &str, expect: Option<usize>| {
            let manifests = index(platforms);
            let chosen = choose(&manifests, &Platform::of(Some(wanted)));
            let digest = chosen.ok().map(|one| one.digest.clone());
            assert_eq!(digest, expect.map(|n| format!("sha256:{n:064}")), "{wanted}");
        };
        let both = [Some("linux/amd64"), Some("linux/arm64/v8")];
        check(&both, "linux/amd64", Some(0));
        check(&both, "linux/arm64", Some(1));
        check(&both, "linux/arm64/v8", Some(1));
        check(&both, "linux/arm/v7", None);
        check(&both, "windows/amd64", None);
        check(&[None], "linux/amd64", Some(0));
        check(&[None, None], "linux/amd64", None);
        check(&[], "linux/amd64", None);
    }

    #[test]
    fn manifests_are_read_or_refused() {
        let check = |manifest: serde_json::Value, expect: &str| {
            let parsed = Manifest::parse(manifest.to_string().as_bytes());
            let said = match parsed {
                Ok(Manifest::Index(_)) => "index".to_owned(),
                Ok(Manifest::Image { .. }) => "image".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(said.contains(expect), "{manifest}: {said}");
        };
        let one = json!({"digest": "sha256:0", "size": 1, "mediaType": "x"});
        check(json!({"schemaVersion": 2, "config": one, "layers": [one]}), "image");
        check(json!({"schemaVersion": 2, "manifests": [one]}), "index");
        check(json!({"schemaVersion": 1, "fsLayers": []}), "schema 1");
        check(json!({"schemaVersion": 2}), "neither");
        check(json!([]), "cannot be read");
        let foreign = json!({"digest": "sha256:0", "size": 1, "mediaType": "a.foreign.b"});
        check(
            json!({"schemaVersion": 2, "config": one, "layers": [foreign]}),
            "not in the registry",
        );
        let many = vec![one.clone(); MAX_LAYERS + 1];
        check(json!({"schemaVersion": 2, "config": one, "layers": many}), "more layers");
    }
}
