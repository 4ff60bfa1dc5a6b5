//! Image references: `[registry/]repository[:tag][@digest]`.
//!
//! The grammar is that of the distribution project's `reference` package, which Docker and Podman
//! share, so that what passes here is not refused by the engine and the other way round.

use std::fmt;

use serde::Serialize;

/// An image, split as the Engine API wants it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ImageReference {
    pub registry: Option<String>,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

/// Why a text is no image reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageReferenceError {
    #[error("is longer than 255 characters")]
    TooLong,
    #[error("has upper-case letters in the image's name")]
    UpperCase,
    #[error("has no valid registry before the first `/`")]
    Registry,
    #[error("has no valid image name")]
    Repository,
    #[error("has no valid tag after the `:`")]
    Tag,
    #[error("has no valid digest after the `@`")]
    Digest,
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.from_image())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl ImageReference {
    /// The distribution project's limit for the name without tag and digest.
    const MAX_NAME_BYTES: usize = 255;

    pub fn parse(text: &str) -> Result<ImageReference, ImageReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(ImageReferenceError::Digest),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].split_once(':') {
            Some((last, tag)) if is_tag(tag) => {
                (&rest[..name_start + last.len()], Some(tag.to_owned()))
            }
            Some(_) => return Err(ImageReferenceError::Tag),
            None => (rest, None),
        };
        if name.len() > Self::MAX_NAME_BYTES {
            return Err(ImageReferenceError::TooLong);
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if looks_like_registry(first) => (Some(first), rest),
            _ => (None, name),
        };
        if registry.is_some_and(|registry| !is_registry(registry)) {
            return Err(ImageReferenceError::Registry);
        }
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ImageReferenceError::UpperCase);
        }
        if !repository.split('/').all(is_path_component) {
            return Err(ImageReferenceError::Repository);
        }
        let registry = registry.map(str::to_owned);
        Ok(ImageReference { registry, repository: repository.to_owned(), tag, digest })
    }

    /// The `fromImage` parameter of `/images/create`: the name without tag and digest.
    pub fn from_image(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.repository),
            None => self.repository.clone(),
        }
    }

    /// The `tag` parameter of `/images/create`: the digest if there is one, else the tag, else
    /// `latest`. Without a tag the engine would pull every tag of the repository.
    pub fn tag_or_digest(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

fn looks_like_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let port_is_number = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_valid = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            let edges = !label.starts_with('-') && !label.ends_with('-');
            let is_word = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            edges && is_word && !label.is_empty()
        }),
    };
    port_is_number && host_is_valid
}

/// Lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges_are_words =
        bytes.first().is_some_and(|b| is_word(*b)) && bytes.last().is_some_and(|b| is_word(*b));
    let mut separators = component.split(|c: char| c.is_ascii() && is_word(c as u8));
    edges_are_words
        && separators.all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let starts_well = tag.bytes().next().is_some_and(is_word);
    starts_well && tag.len() <= 128 && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    let hex_digits = match digest.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 => hex,
        Some(("sha512", hex)) if hex.len() == 128 => hex,
        _ => return false,
    };
    hex_digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_what_the_engine_accepts() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("registry.example:5000/team/web:1.0@{digest}");
        let cases = [
            ("centos", (None, "centos", None, "latest")),
            ("centos:7", (None, "centos", Some("7"), "7")),
            ("library/centos", (None, "library/centos", None, "latest")),
            ("localhost/web", (Some("localhost"), "web", None, "latest")),
            ("127.0.0.1:5000/web", (Some("127.0.0.1:5000"), "web", None, "latest")),
            ("[::1]:5000/web:x", (Some("[::1]:5000"), "web", Some("x"), "x")),
            (
                "quay.io/a/b-c__d.e:V_1.2-3",
                (Some("quay.io"), "a/b-c__d.e", Some("V_1.2-3"), "V_1.2-3"),
            ),
            (&pinned, (Some("registry.example:5000"), "team/web", Some("1.0"), &digest)),
        ];
        for (text, (registry, repository, tag, pulled)) in cases {
            let image = ImageReference::parse(text).expect(text);
            assert_eq!(image.registry.as_deref(), registry, "{text}");
            assert_eq!(image.repository, repository, "{text}");
            assert_eq!(image.tag.as_deref(), tag, "{text}");
            assert_eq!(image.tag_or_digest(), pulled, "{text}");
            assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_the_engine_refuses() {
        use ImageReferenceError::{Digest, Registry, Repository, Tag, TooLong, UpperCase};
        let long = "a".repeat(256);
        let cases = [
            ("", Repository),
            ("CentOS", UpperCase),
            ("centos:", Tag),
            ("centos:a b", Tag),
            ("centos@sha256:abc", Digest),
            ("-web", Repository),
            ("web-", Repository),
            ("a..b", Repository),
            ("a//b", Repository),
            ("http://example.com/web", Registry),
            ("ex ample.com/web", Registry),
            ("host:99999/web", Registry),
            ("web é", Repository),
            (&long, TooLong),
        ];
        for (text, expected) in cases {
            assert_eq!(ImageReference::parse(text), Err(expected), "{text}");
        }
    }
}
