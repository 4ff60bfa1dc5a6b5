//! `WWW-Authenticate`, as registries write it (RFC 9110 section 11.6.1, and the distribution
//! project's token authentication).

use url::Url;

/// What a registry wants to be asked with. Bearer is preferred where both are offered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// None: a scheme that is not known here.
    pub(super) fn parse(header: &str) -> Option<Challenge> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let value = |name: &str| {
            let found = parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        Some(Challenge::Bearer {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
        })
    }

    /// Where the token is to be had.
    pub(super) fn token_url(&self, realm: &str) -> Option<Url> {
        let Challenge::Bearer { service, scope, .. } = self else { return None };
        let mut url = Url::parse(realm).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        for (name, value) in [("service", service), ("scope", scope)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        Some(url)
    }
}

/// `name="value", name=value`. A comma within quotes belongs to the value, as in a scope of
/// `pull,push`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim().trim_start_matches(',').trim().to_owned();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.push((name, value.trim().to_owned()));
        rest = after;
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let (service, scope) = (owned(service), owned(scope));
            Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
        };
        let check = |header: &str, expect: Option<Challenge>| {
            assert_eq!(Challenge::parse(header), expect, "{header}");
        };
        check("Basic realm=\"scene\"", Some(Challenge::Basic));
        check("basic", Some(Challenge::Basic));
        check(
            "Bearer realm=\"https://a/token\",service=\"r.example\",scope=\"repository:a/b:pull,push\"",
            bearer("https://a/token", Some("r.example"), Some("repository:a/b:pull,push")),
        );
        check(
            "bearer realm=https://a/token, service=r",
            bearer("https://a/token", Some("r"), None),
        );
        check("Bearer service=\"r\"", None);
        check("Negotiate", None);
        check("", None);
    }

    #[test]
    fn the_tokens_address_carries_service_and_scope() {
        let check = |header: &str, expect: Option<&str>| {
            let challenge = Challenge::parse(header).unwrap();
            let Challenge::Bearer { realm, .. } = &challenge else { panic!("{header}") };
            let url = challenge.token_url(realm);
            assert_eq!(url.as_ref().map(Url::as_str), expect, "{header}");
        };
        check(
            "Bearer realm=\"https://a/t?x=1\",service=\"r e\",scope=\"repository:a:pull\"",
            Some("https://a/t?x=1&service=r+e&scope=repository%3Aa%3Apull"),
        );
        check("Bearer realm=\"file:///etc/passwd\"", None);
        check("Bearer realm=\"nowhere\"", None);
    }
}
