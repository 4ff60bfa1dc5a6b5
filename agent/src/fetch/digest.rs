//! Digests: `sha256:<hex>` and `sha512:<hex>`, as registries and Glance write them.

use std::fmt;

use sha2::Digest as _;
use sha2::{Sha256, Sha512};

/// A digest that was read or computed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Digest {
    /// None: it is no digest that can be compared here.
    pub(crate) fn parse(text: &str) -> Option<Digest> {
        let (algorithm, n_digits, hex) = match text.split_once(':')? {
            ("sha256", hex) => (Algorithm::Sha256, 64, hex),
            ("sha512", hex) => (Algorithm::Sha512, 128, hex),
            _ => return None,
        };
        let is_hex = hex.len() == n_digits && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| Digest { algorithm, hex: hex.to_ascii_lowercase() })
    }

    pub(crate) fn sha256(bytes: &[u8]) -> Digest {
        Digest { algorithm: Algorithm::Sha256, hex: hex::encode(Sha256::digest(bytes)) }
    }

    /// The digest of the same algorithm.
    pub(crate) fn of(&self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::like(Some(self));
        hasher.update(bytes);
        hasher.finish()
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex)
    }
}

/// Computes a digest piece by piece.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// For comparing with a digest; SHA-256 if there is none.
    pub(crate) fn like(digest: Option<&Digest>) -> Hasher {
        match digest.map(|digest| digest.algorithm) {
            Some(Algorithm::Sha512) => Hasher::Sha512(Box::default()),
            Some(Algorithm::Sha256) | None => Hasher::Sha256(Sha256::default()),
        }
    }

    /// The same algorithm, with nothing in it.
    pub(crate) fn anew(&self) -> Hasher {
        match self {
            Hasher::Sha256(_) => Hasher::Sha256(Sha256::default()),
            Hasher::Sha512(_) => Hasher::Sha512(Box::default()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => {
                Digest { algorithm: Algorithm::Sha256, hex: hex::encode(hasher.finalize()) }
            }
            Hasher::Sha512(hasher) => {
                Digest { algorithm: Algorithm::Sha512, hex: hex::encode(hasher.finalize()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_and_compared() {
        let (short, long) = ("ab".repeat(32), "ab".repeat(64));
        let check = |text: &str, expect: bool| {
            assert_eq!(Digest::parse(text).is_some(), expect, "{text}");
        };
        check(&format!("sha256:{short}"), true);
        check(&format!("sha512:{long}"), true);
        check(&format!("sha256:{long}"), false);
        check(&format!("md5:{short}"), false);
        check(&short, false);
        check(&format!("sha256:{}", "xy".repeat(32)), false);
        let upper = Digest::parse(&format!("sha256:{}", "AB".repeat(32)));
        assert_eq!(upper, Digest::parse(&format!("sha256:{short}")));

        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::sha256(b"").to_string(), empty);
        assert_eq!(Digest::parse(empty).map(|digest| digest.of(b"")), Digest::parse(empty));
    }
}
