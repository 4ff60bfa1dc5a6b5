//! Swift's TempURL: a signature in the query that lets its bearer do one thing to one path.
//!
//! The signature is an HMAC under a key of the account or the container, over
//! `<METHOD>\n<expires>\n<path>`: method, expiry and path, but not the host, so that an instance
//! may send the same request by another way. Fields in the query:
//!
//! | field | meaning |
//! |---|---|
//! | `temp_url_sig` | hexadecimal digest (its length names the hash), or `sha1:`, `sha256:`, `sha512:` and base64 |
//! | `temp_url_expires` | seconds since 1970, or UTC as `2038-01-19T03:13:06Z` (also without `Z`, or the date alone) |
//! | `temp_url_prefix` | the signature covers `prefix:<path up to this prefix>` and is good for every object below it |
//!
//! Sources: Swift's `tempurl` middleware for the rules, python-swiftclient's `generate_temp_url`
//! for what Heat sends (SHA-256 since 4.0.1, SHA-1 before); `tests/vectors` holds signatures made
//! by the latter. `temp_url_ip_range` is refused: behind Neutron's proxies the relay does not see
//! the address that the range speaks of.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use crate::percent;

/// The hash under the HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    Sha1,
    Sha256,
    Sha512,
}

/// The TempURL fields of a query.
#[derive(Clone, PartialEq, Eq)]
pub struct TempUrl {
    pub signature: String,
    /// Seconds since 1970.
    pub expires: u64,
    pub prefix: Option<String>,
}

/// Why a TempURL opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TempUrlError {
    #[error("the signature's time is over")]
    Expired,
    #[error("the signature does not fit the request")]
    BadSignature,
    #[error("the query has no valid {field}")]
    Malformed { field: &'static str },
    #[error("{field} is not supported")]
    Unsupported { field: &'static str },
}

impl TempUrlError {
    /// The stable name of the error in an API's answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            TempUrlError::Expired => "temp_url_expired",
            TempUrlError::BadSignature => "temp_url_bad_signature",
            TempUrlError::Malformed { .. } => "temp_url_malformed",
            TempUrlError::Unsupported { .. } => "temp_url_unsupported",
        }
    }
}

impl TempUrl {
    /// Reads a query. `None` where it does not speak of a TempURL at all.
    pub fn from_query(query: &str) -> Result<Option<TempUrl>, TempUrlError> {
        let mut fields = Fields::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.take(name, value)?;
        }
        let (signature, expires) = match (fields.signature, fields.expires) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(TempUrlError::Malformed { field: "temp_url_sig" }),
            (Some(_), None) => return Err(TempUrlError::Malformed { field: "temp_url_expires" }),
            (Some(signature), Some(expires)) => (signature, expires),
        };
        let expires =
            parse_expires(&expires).ok_or(TempUrlError::Malformed { field: "temp_url_expires" })?;
        Ok(Some(TempUrl { signature, expires, prefix: fields.prefix }))
    }

    /// Checks the signature of a request against every key that may have made it.
    ///
    /// `path` is percent-decoded, `/v1/<account>/<container>/<object>`. A HEAD is opened by a
    /// signature for HEAD, GET or PUT, anything else by its own method only. The time taken does
    /// not depend on which key fits, or how nearly one does.
    pub fn verify(
        &self,
        method: &str,
        path: &str,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
        now_epoch_seconds: u64,
    ) -> Result<(), TempUrlError> {
        let (digest, signature) = parse_signature(&self.signature)
            .ok_or(TempUrlError::Malformed { field: "temp_url_sig" })?;
        let signed_path = self.signed_path(path)?;
        let methods: &[&str] = match method {
            "HEAD" => &["HEAD", "GET", "PUT"],
            _ => std::slice::from_ref(&method),
        };

        let mut fits = Choice::from(0);
        for key in keys {
            for method in methods {
                let text = signed_text(method, self.expires, &signed_path);
                fits |= mac(digest, key.as_ref(), &text).ct_eq(&signature);
            }
        }
        if !bool::from(fits) {
            return Err(TempUrlError::BadSignature);
        }
        if self.expires < now_epoch_seconds {
            return Err(TempUrlError::Expired);
        }
        Ok(())
    }

    fn signed_path(&self, path: &str) -> Result<String, TempUrlError> {
        let Some(prefix) = &self.prefix else { return Ok(path.to_owned()) };
        let object = path.splitn(5, '/').nth(4).ok_or(TempUrlError::BadSignature)?;
        if !object.starts_with(prefix.as_str()) {
            return Err(TempUrlError::BadSignature);
        }
        let container = &path[..path.len() - object.len()];
        Ok(format!("prefix:{container}{prefix}"))
    }
}

/// Makes the value of `temp_url_sig` as python-swiftclient spells it.
#[must_use]
pub fn sign(digest: Digest, key: &[u8], method: &str, expires: u64, path: &str) -> String {
    let tag = mac(digest, key, &signed_text(method, expires, path));
    match digest {
        Digest::Sha1 | Digest::Sha256 => hex::encode(tag),
        Digest::Sha512 => format!("sha512:{}", URL_SAFE_NO_PAD.encode(tag)),
    }
}

/// Shows no signature: it is all that a request needs.
impl std::fmt::Debug for TempUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TempUrl")
            .field("expires", &self.expires)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Fields {
    signature: Option<String>,
    expires: Option<String>,
    prefix: Option<String>,
}

impl Fields {
    fn take(&mut self, name: &str, value: &str) -> Result<(), TempUrlError> {
        let (field, slot) = match name {
            "temp_url_sig" => ("temp_url_sig", &mut self.signature),
            "temp_url_expires" => ("temp_url_expires", &mut self.expires),
            "temp_url_prefix" => ("temp_url_prefix", &mut self.prefix),
            "temp_url_ip_range" => {
                return Err(TempUrlError::Unsupported { field: "temp_url_ip_range" });
            }
            _ => return Ok(()),
        };
        let value = percent::decode_query(value).ok_or(TempUrlError::Malformed { field })?;
        // Two values would let one part of a system check the first and another use the second.
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(TempUrlError::Malformed { field }),
        }
    }
}

fn parse_expires(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|expires| *expires > 0);
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    let time: jiff::civil::DateTime = text.parse().ok()?;
    let timestamp = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    u64::try_from(timestamp.as_second()).ok().filter(|expires| *expires > 0)
}

/// Swift takes both base64 alphabets, padded or not.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

fn parse_signature(text: &str) -> Option<(Digest, Vec<u8>)> {
    if let Some((name, encoded)) = text.split_once(':') {
        let digest = match name {
            "sha1" => Digest::Sha1,
            "sha256" => Digest::Sha256,
            "sha512" => Digest::Sha512,
            _ => return None,
        };
        let signature = URL_SAFE.decode(encoded).or_else(|_| STANDARD.decode(encoded)).ok()?;
        return Some((digest, signature));
    }
    let signature = hex::decode(text).ok()?;
    let digest = match signature.len() {
        20 => Digest::Sha1,
        32 => Digest::Sha256,
        64 => Digest::Sha512,
        _ => return None,
    };
    Some((digest, signature))
}

fn signed_text(method: &str, expires: u64, path: &str) -> String {
    format!("{method}\n{expires}\n{path}")
}

fn mac(digest: Digest, key: &[u8], text: &str) -> Vec<u8> {
    match digest {
        Digest::Sha1 => mac_with::<Hmac<Sha1>>(key, text),
        Digest::Sha256 => mac_with::<Hmac<Sha256>>(key, text),
        Digest::Sha512 => mac_with::<Hmac<Sha512>>(key, text),
    }
}

fn mac_with<M: Mac + KeyInit>(key: &[u8], text: &str) -> Vec<u8> {
    // HMAC takes a key of any length (RFC 2104 §2), so this cannot fail.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "1f040a72c73e4bd9e809e2dd9ca99779";
    const PATH: &str = "/v1/AUTH_522957cc30834bcb90fc90fb433e925a/c46a946c-c97c-444c-8422-ad3ce9091473/t1-handle-bwdngbnrwyjz";
    const EXPIRES: u64 = 2_147_483_586;
    const NOW: u64 = 1_800_000_000;

    fn verify(query: &str, method: &str, path: &str) -> Result<(), TempUrlError> {
        TempUrl::from_query(query)?
            .ok_or(TempUrlError::Malformed { field: "temp_url_sig" })?
            .verify(method, path, ["another key", KEY], NOW)
    }

    #[test]
    fn the_signature_that_heat_made_is_ours() {
        assert_eq!(
            sign(Digest::Sha256, KEY.as_bytes(), "PUT", EXPIRES, PATH),
            "0e886553a680e560158dba48ee7712d64723b1cf52316dcfe6d818527f06b95d"
        );
        assert_eq!(
            sign(Digest::Sha1, KEY.as_bytes(), "PUT", EXPIRES, PATH),
            "e524f714310ce69e81bce4b3869b31206b6f07d3"
        );
    }

    #[test]
    fn a_signature_opens_its_method_and_head() {
        for (signed, asked, opens) in [
            ("PUT", "PUT", true),
            ("PUT", "HEAD", true),
            ("PUT", "GET", false),
            ("PUT", "DELETE", false),
            ("PUT", "POST", false),
            ("GET", "GET", true),
            ("GET", "HEAD", true),
            ("GET", "PUT", false),
            ("HEAD", "HEAD", true),
            ("HEAD", "GET", false),
        ] {
            for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha512] {
                let signature = sign(digest, KEY.as_bytes(), signed, EXPIRES, PATH);
                let query = format!("temp_url_sig={signature}&temp_url_expires={EXPIRES}");
                assert_eq!(verify(&query, asked, PATH).is_ok(), opens, "{signed} {asked}");
            }
        }
    }

    #[test]
    fn only_what_was_signed_is_opened() {
        let signature = sign(Digest::Sha256, KEY.as_bytes(), "PUT", EXPIRES, PATH);
        let query = format!("temp_url_sig={signature}&temp_url_expires={EXPIRES}");
        assert_eq!(verify(&query, "PUT", &format!("{PATH}x")), Err(TempUrlError::BadSignature));
        let later = format!("temp_url_sig={signature}&temp_url_expires={}", EXPIRES + 1);
        assert_eq!(verify(&later, "PUT", PATH), Err(TempUrlError::BadSignature));
        let no_keys: [&str; 0] = [];
        let temp_url = TempUrl::from_query(&query).expect("valid").expect("present");
        assert_eq!(temp_url.verify("PUT", PATH, no_keys, NOW), Err(TempUrlError::BadSignature));
    }

    #[test]
    fn a_signature_is_good_to_the_last_second() {
        let signature = sign(Digest::Sha256, KEY.as_bytes(), "PUT", NOW, PATH);
        let temp_url = TempUrl { signature, expires: NOW, prefix: None };
        assert_eq!(temp_url.verify("PUT", PATH, [KEY], NOW), Ok(()));
        assert_eq!(temp_url.verify("PUT", PATH, [KEY], NOW + 1), Err(TempUrlError::Expired));
    }

    #[test]
    fn a_prefix_opens_what_is_below_it() {
        let signature =
            sign(Digest::Sha256, KEY.as_bytes(), "GET", EXPIRES, "prefix:/v1/AUTH_p/c/logs/");
        let query =
            format!("temp_url_sig={signature}&temp_url_expires={EXPIRES}&temp_url_prefix=logs%2F");
        assert_eq!(verify(&query, "GET", "/v1/AUTH_p/c/logs/a"), Ok(()));
        for outside in ["/v1/AUTH_p/c/log", "/v1/AUTH_p/d/logs/a", "/v1/AUTH_p/c", "/v1"] {
            assert_eq!(verify(&query, "GET", outside), Err(TempUrlError::BadSignature));
        }
    }

    #[test]
    fn every_spelling_of_the_expiry_means_the_same_time() {
        let signature = sign(Digest::Sha256, KEY.as_bytes(), "PUT", 2_147_483_586, PATH);
        for expires in ["2147483586", "2038-01-19T03:13:06Z", "2038-01-19T03:13:06"] {
            let query = format!("temp_url_sig={signature}&temp_url_expires={expires}");
            assert_eq!(verify(&query, "PUT", PATH), Ok(()), "{expires}");
        }
        let midnight = TempUrl::from_query("temp_url_sig=a&temp_url_expires=2038-01-19");
        assert_eq!(midnight.expect("valid").expect("present").expires, 2_147_472_000);
    }

    #[test]
    fn queries_are_read_strictly() {
        assert_eq!(TempUrl::from_query(""), Ok(None));
        assert_eq!(TempUrl::from_query("format=json&limit=1"), Ok(None));
        for query in [
            "temp_url_sig=a",
            "temp_url_expires=1",
            "temp_url_sig=a&temp_url_expires=",
            "temp_url_sig=a&temp_url_expires=0",
            "temp_url_sig=a&temp_url_expires=-5",
            "temp_url_sig=a&temp_url_expires=99999999999999999999",
            "temp_url_sig=a&temp_url_expires=tomorrow",
            "temp_url_sig=a&temp_url_sig=b&temp_url_expires=1",
            "temp_url_sig=%f&temp_url_expires=1",
            "temp_url_sig=a&temp_url_expires=1&temp_url_ip_range=10.0.0.0/8",
        ] {
            assert!(TempUrl::from_query(query).is_err(), "{query}");
        }
        for signature in ["", "zz", "0e88", "md5:AAAA", "sha256:***"] {
            let query = format!("temp_url_sig={signature}&temp_url_expires={EXPIRES}");
            assert!(verify(&query, "PUT", PATH).is_err(), "{signature}");
        }
    }

    #[test]
    fn debug_output_carries_no_signature() {
        let temp_url = TempUrl { signature: "5ec7e7".into(), expires: 1, prefix: None };
        assert!(!format!("{temp_url:?}").contains("5ec7e7"));
    }
}
