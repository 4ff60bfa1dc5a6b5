//! Redirects, followed by hand.
//!
//! Object stores and content networks serve the data of images for registries and for Glance, which
//! send whoever asks on to them. What is for the server that was asked, a token or a password, must not
//! go along. An HTTP library takes away the headers that it knows to be credentials, and OpenStack has
//! one of its own (`X-Auth-Token`). So what a request has for its server is apart here from what it has
//! for whoever answers, and the server is scheme, host and port of the URL (RFC 6454). Only `GET`s for
//! data and for what is read as such are sent on: Keystone, and all but the data of Glance, answer
//! themselves or not at all.

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use crate::fetch::{FetchError, host_of};

/// Object stores redirect once or twice.
pub(super) const MAX_REDIRECTS: usize = 5;

/// Asks for the URL, and wherever its server sends on to. `own` is for that server alone, and is not
/// sent again when the way comes back to it.
pub(crate) async fn get(
    client: &Client,
    url: &Url,
    own: &HeaderMap,
    common: &HeaderMap,
) -> Result<Response, FetchError> {
    let mut at = url.clone();
    let mut is_own = true;
    for _ in 0..=MAX_REDIRECTS {
        let mut request = client.get(at.clone()).headers(common.clone());
        if is_own {
            request = request.headers(own.clone());
        }
        let sent = request.send().await;
        let response = sent.map_err(|source| FetchError::Unanswered {
            host: host_of(&at),
            source: source.without_url().into(),
        })?;
        let Some(next) = next(&at, &response)? else { return Ok(response) };
        is_own &= next.origin() == url.origin();
        at = next;
    }
    Err(refused(&at, "there are too many of them"))
}

/// Where an answer sends on to; None if it is the answer.
fn next(at: &Url, response: &Response) -> Result<Option<Url>, FetchError> {
    let is_redirect = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let Some(location) = response.headers().get(LOCATION).filter(|_| is_redirect) else {
        return Ok(None);
    };
    let next = location.to_str().ok().and_then(|location| at.join(location).ok());
    let mut next = next.ok_or_else(|| refused(at, "it leads to no URL"))?;
    if next.origin() == at.origin() && next.username().is_empty() {
        // A user and password in the URL are for this server, too.
        let _is_set = next.set_username(at.username()).and(next.set_password(at.password()));
    }
    match why_not(at, &next) {
        Some(why) => Err(refused(at, why)),
        None => Ok(Some(next)),
    }
}

/// Why nobody is to be led from one URL to the other.
fn why_not(at: &Url, next: &Url) -> Option<&'static str> {
    match (at.scheme(), next.scheme()) {
        // The client was made without certificates.
        ("http", "https") => Some("it leads from http to https: name the https URL"),
        // Whoever is on the way could answer.
        ("https", "http") => Some("it leads from https to http"),
        (_, "http" | "https") => None,
        _ => Some("it leads neither to http nor to https"),
    }
}

fn refused(at: &Url, why: &'static str) -> FetchError {
    FetchError::Redirected { host: host_of(at), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_keeps_what_protects_the_way() {
        let check = |at: &str, next: &str, expect: Option<&str>| {
            let url = |text: &str| Url::parse(text).expect("a URL");
            assert_eq!(why_not(&url(at), &url(next)), expect, "{at} to {next}");
        };
        check("http://a/", "http://b/", None);
        check("https://a/", "https://b/", None);
        check("https://a/", "http://a/", Some("it leads from https to http"));
        check("http://a/", "https://a/", Some("it leads from http to https: name the https URL"));
        check("https://a/", "file:///etc/passwd", Some("it leads neither to http nor to https"));
    }
}
