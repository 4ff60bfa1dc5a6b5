//! Heat's own API: POST with a token, which Keystone gives for the handle's user where the handle
//! does not bring one.
//!
//! Heat answers 200 to a signal that it does not understand and drops it, so a 200 says less here
//! than elsewhere; that is Heat's protocol.

use serde_json::{Value, json};
use url::Url;

/// `POST {auth_url}/auth/tokens`. The URL in the handle ends in `/v3/` or in `/v3`.
pub(crate) fn token_url(auth_url: &Url) -> Url {
    let mut url = auth_url.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty();
        segments.extend(["auth", "tokens"]);
    }
    url
}

/// Keystone's password method, scoped to the project.
pub(crate) fn token_request(user_id: &str, password: &str, project_id: &str) -> Value {
    json!({"auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {"id": user_id, "password": password}},
        },
        "scope": {"project": {"id": project_id}},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_url_has_one_slash_everywhere() {
        for auth_url in ["http://k:5000/v3", "http://k:5000/v3/"] {
            let url = token_url(&Url::parse(auth_url).unwrap());
            assert_eq!(url.as_str(), "http://k:5000/v3/auth/tokens");
        }
    }
}
