//! Which instance speaks: the headers that Neutron's metadata agent adds, checked as Nova checks them.
//!
//! The signature is HMAC-SHA256 of the instance's id with the secret that Neutron and Nova share. It
//! covers the id alone: neither project nor path nor time, and it never changes. So it is never logged
//! and never shown; and the project is only believed once Nova has agreed (see
//! [`nova`](crate::http::metadata::nova)).
//!
//! A request that Nova would refuse is refused here with Nova's status and Nova's page, so that an
//! operator finds what he knows. What Nova's web server does to a header that stands twice is done too:
//! the values are joined, and then are nobody's.

use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::config::Secret;
use crate::instance::InstanceId;

const INSTANCE_ID: HeaderName = HeaderName::from_static("x-instance-id");
const SIGNATURE: HeaderName = HeaderName::from_static("x-instance-id-signature");
const PROJECT: HeaderName = HeaderName::from_static("x-tenant-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The headers that say who asks; they are passed on to Nova when it is asked about the instance.
const PASSED_ON: [HeaderName; 4] = [INSTANCE_ID, SIGNATURE, PROJECT, FORWARDED_FOR];

/// The secrets that Neutron may sign with: one, or while it is being changed two.
#[derive(Clone, Debug)]
pub(crate) struct Secrets(Vec<Secret>);

/// Neutron has said that this instance speaks, and has signed it.
///
/// Its project is what Neutron says, which Nova is asked about before anything rests on it.
#[derive(Debug)]
pub(crate) struct InstancePermit {
    instance: InstanceId,
    project: String,
    headers: HeaderMap,
}

/// Why a request is nobody's: what Nova says then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing(&'static str),
    BadSignature,
    UnknownInstance,
}

impl Secrets {
    /// At least one, and none of them empty: the configuration has seen to it.
    pub(crate) fn new(secrets: Vec<Secret>) -> Secrets {
        Secrets(secrets)
    }

    /// Checks the headers of a request, in the order in which Nova checks them.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<InstancePermit, Refusal> {
        let instance = joined(headers, &INSTANCE_ID).ok_or(Refusal::Missing("X-Instance-ID"))?;
        let signature =
            joined(headers, &SIGNATURE).ok_or(Refusal::Missing("X-Instance-ID-Signature"))?;
        let project = joined(headers, &PROJECT).ok_or(Refusal::Missing("X-Tenant-ID"))?;
        if !self.have_signed(&instance, &signature) {
            return Err(Refusal::BadSignature);
        }
        let not_utf8 = |_| Refusal::UnknownInstance;
        let instance = String::from_utf8(instance).map_err(not_utf8)?;
        let instance = InstanceId::parse(&instance).ok_or(Refusal::UnknownInstance)?;
        let project = String::from_utf8(project).map_err(not_utf8)?;
        let mut passed_on = HeaderMap::new();
        for name in PASSED_ON {
            for value in headers.get_all(&name) {
                passed_on.append(name.clone(), value.clone());
            }
        }
        Ok(InstancePermit { instance, project, headers: passed_on })
    }

    /// Compares with every secret's signature, so that the time does not tell which one fits.
    fn have_signed(&self, instance: &[u8], signature: &[u8]) -> bool {
        let mut has_signed = Choice::from(0);
        for secret in &self.0 {
            let expected = hex::encode(sign(secret, instance));
            has_signed |= expected.as_bytes().ct_eq(signature);
        }
        has_signed.into()
    }
}

fn sign(secret: &Secret, instance: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else {
        unreachable!("HMAC refused a key");
    };
    mac.update(instance);
    mac.finalize().into_bytes().into()
}

/// The value of a header; of one that stands twice, both with a comma between, as WSGI has it.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    if values.is_empty() {
        return None;
    }
    Some(values.join(&b','))
}

impl InstancePermit {
    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The project that Neutron names.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// The headers with which Nova can be asked about the instance.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, title, explanation) = match self {
            Refusal::Missing(header) => (
                StatusCode::BAD_REQUEST,
                "400 Bad Request",
                format!("{header} header is missing from request."),
            ),
            Refusal::BadSignature => (
                StatusCode::FORBIDDEN,
                "403 Forbidden",
                "Invalid proxy request signature.".to_owned(),
            ),
            Refusal::UnknownInstance => (
                StatusCode::NOT_FOUND,
                "404 Not Found",
                "The resource could not be found.".to_owned(),
            ),
        };
        // The page of WebOb, with which Nova answers.
        let page = format!(
            "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  \
             {explanation}<br /><br />\n\n\n\n </body>\n</html>"
        );
        (status, [(CONTENT_TYPE, "text/html; charset=UTF-8")], page).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "7b1d3c0e-1111-4222-8333-444455556666";
    /// By Nova's formula: `hmac.new(b"secret", instance, sha256).hexdigest()`.
    const SIGNED: &str = "ef898d704bdc5d82fc7787898b39d8f043967eeca3772f143b2393d1607258c9";

    fn check(headers: &[(&'static str, &str)], expect: Result<(), Refusal>) {
        let secrets = ["other", "secret"].map(|text| Secret::new(text.to_owned()));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header value"));
        }
        let seen = Secrets::new(secrets.into()).check(&map);
        let seen = seen.map(|permit| assert_eq!(permit.instance().to_string(), INSTANCE));
        assert_eq!(seen, expect, "{headers:?}");
    }

    #[test]
    fn headers_are_checked_as_nova_does() {
        let id = ("x-instance-id", INSTANCE);
        let signature = ("x-instance-id-signature", SIGNED);
        let project = ("x-tenant-id", "p");
        check(&[id, signature, project], Ok(()));
        check(&[], Err(Refusal::Missing("X-Instance-ID")));
        check(&[id, project], Err(Refusal::Missing("X-Instance-ID-Signature")));
        check(&[id, signature], Err(Refusal::Missing("X-Tenant-ID")));
        check(&[id, id, signature, project], Err(Refusal::BadSignature));
        check(&[id, signature, signature, project], Err(Refusal::BadSignature));
        let other = ("x-instance-id", "7b1d3c0e-1111-4222-8333-444455556667");
        check(&[other, signature, project], Err(Refusal::BadSignature));
        for forged in ["", "0", &SIGNED[1..], &SIGNED.to_uppercase(), &"0".repeat(64)] {
            let forged = ("x-instance-id-signature", forged);
            check(&[id, forged, project], Err(Refusal::BadSignature));
        }
    }
}
