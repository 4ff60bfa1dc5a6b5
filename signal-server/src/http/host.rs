//! The `Host` of a request, which a signature may be for.

use axum::http::HeaderMap;
use axum::http::header::HOST;
use url::Host;

/// The host that a request is for, perhaps with a port. Nothing where there is none or more than one, or
/// where the text is no host: RFC 9110, section 7.2, has such requests answered with 400.
pub(crate) fn of(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(HOST).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    value.to_str().ok().filter(|text| is_host(text))
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    // RFC 3986, section 3.2.3, lets the digits of a port be missing.
    let is_port = port.is_empty()
        || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    is_port && Host::parse(host).is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(values: &[&str], expect: bool) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HOST, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        assert_eq!(of(&headers), values.first().copied().filter(|_| expect), "{values:?}");
    }

    #[test]
    fn a_request_is_for_one_host() {
        for host in [
            "relay",
            "relay:8090",
            "relay:",
            "heat_api.example.com.:8000",
            "192.0.2.1",
            "192.0.2.1:80",
            "[2001:db8::1]",
            "[2001:db8::1]:65535",
        ] {
            check(&[host], true);
        }
        for host in [
            "", ":80", "[:a", "[:a]", "[::1", "::1", "[::1]a:1", "a:b:1", "a:-1", "a:+1",
            "a:65536", "a/b", "u@a", "a b", "a?b", "a#b", "a\\b", "a%00", "a\u{e9}",
        ] {
            check(&[host], false);
        }
        check(&[], false);
        check(&["relay", "relay"], false);
    }
}
