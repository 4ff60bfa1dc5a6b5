//! The handle, in the forms that people are given it.
//!
//! A URL is its own permission: a Swift TempURL, the relay's signal URL, or a presigned
//! CloudFormation URL, and a PUT to it is the signal. Heat's `signal` attribute is a JSON object
//! whose keys tell which of Heat's transports it is for; it is accepted verbatim.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::fetch::host_of;

/// Where a signal goes, and what permits it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handle {
    /// PUT to a URL that carries its own permission.
    Put {
        #[serde(with = "url_text")]
        url: Url,
        /// An outbox of an earlier version has none.
        #[serde(default)]
        spelling: Spelling,
    },
    /// Heat's `TOKEN_SIGNAL`: POST with a token that Heat made.
    HeatToken {
        #[serde(with = "url_text")]
        url: Url,
        token: String,
    },
    /// Heat's `HEAT_SIGNAL`: a token is asked of Keystone first.
    HeatPassword {
        #[serde(with = "url_text")]
        url: Url,
        #[serde(with = "url_text")]
        auth_url: Url,
        user_id: String,
        password: String,
        project_id: String,
    },
    /// No handle was given, but a relay at the metadata address knows the instance by its id.
    Instance,
}

/// How the members of a signal are called in a PUT. Everybody else takes Heat's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spelling {
    /// `status`, `reason`, `id`, `data`.
    #[default]
    Heat,
    /// `Status`, `Reason`, `UniqueId`, `Data`.
    CloudFormation,
    /// CloudFormation's, and Heat's if that is refused: both kinds of handles have such URLs.
    Either,
}

/// A handle is a credential and must not reach a log.
impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} at {})", self.kind(), self.host())
    }
}

/// Why a handle is of no use. Displayed in reasons: without any of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    #[error("handle is not an http or https URL")]
    NotHttp,
    #[error("handle uses ZAQAR_SIGNAL, which this agent cannot send; use TEMP_URL_SIGNAL")]
    Zaqar,
    #[error(
        "handle's JSON has neither alarm_url nor endpoint and token; pass the handle's whole signal attribute"
    )]
    UnknownForm,
}

impl HandleError {
    pub fn code(self) -> &'static str {
        match self {
            HandleError::NotHttp => "handle_not_http",
            HandleError::Zaqar => "handle_unsupported_transport",
            HandleError::UnknownForm => "handle_unknown_form",
        }
    }
}

impl Handle {
    /// A URL as it stands in a document. A presigned one of CloudFormation's is what a handle of
    /// CloudFormation's gives; one of Heat's own gives JSON.
    pub fn from_url(url: &str) -> Result<Handle, HandleError> {
        let url = http_url(url)?;
        let spelling = match is_presigned(&url) {
            true => Spelling::Either,
            false => Spelling::Heat,
        };
        Ok(Handle::Put { url, spelling })
    }

    /// The same handle, told in a spelling that somebody knows to be the right one.
    #[must_use]
    pub fn spelled(self, spelling: Spelling) -> Handle {
        match self {
            Handle::Put { url, .. } => Handle::Put { url, spelling },
            other => other,
        }
    }

    /// Reads Heat's `signal` attribute. None is `NO_SIGNAL`: nothing is to be sent.
    pub fn from_json(json: &Map<String, Value>) -> Result<Option<Handle>, HandleError> {
        let text =
            |key: &str| json.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if json.is_empty() {
            return Ok(None);
        }
        if let (Some(url), Some(token)) = (text("endpoint"), text("token")) {
            return Ok(Some(Handle::HeatToken { url: http_url(url)?, token: token.to_owned() }));
        }
        let Some(url) = text("alarm_url").or(text("signal_url")) else {
            let is_zaqar = text("queue_id").is_some();
            return Err(if is_zaqar { HandleError::Zaqar } else { HandleError::UnknownForm });
        };
        let url = http_url(url)?;
        let credentials = (text("auth_url"), text("user_id"), text("password"), text("project_id"));
        let (Some(auth_url), Some(user_id), Some(password), Some(project_id)) = credentials else {
            return Ok(Some(Handle::Put { url, spelling: Spelling::Heat }));
        };
        if carries_permission(&url) {
            return Ok(Some(Handle::Put { url, spelling: Spelling::Heat }));
        }
        Ok(Some(Handle::HeatPassword {
            url,
            auth_url: http_url(auth_url)?,
            user_id: user_id.to_owned(),
            password: password.to_owned(),
            project_id: project_id.to_owned(),
        }))
    }

    /// The name of the way, for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Handle::Put { .. } => "put",
            Handle::HeatToken { .. } => "heat_token",
            Handle::HeatPassword { .. } => "heat_password",
            Handle::Instance => "instance",
        }
    }

    /// Host and port, which may be shown; the rest of the URL may not.
    pub fn host(&self) -> String {
        match self {
            Handle::Put { url, .. }
            | Handle::HeatToken { url, .. }
            | Handle::HeatPassword { url, .. } => host_of(url),
            Handle::Instance => "the metadata address".to_owned(),
        }
    }
}

fn http_url(text: &str) -> Result<Url, HandleError> {
    let url = Url::parse(text.trim()).map_err(|_| HandleError::NotHttp)?;
    let is_http = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    if is_http { Ok(url) } else { Err(HandleError::NotHttp) }
}

/// True for a TempURL and for a presigned CloudFormation URL.
fn carries_permission(url: &Url) -> bool {
    url.query_pairs().any(|(name, _)| matches!(name.as_ref(), "temp_url_sig" | "Signature"))
}

/// Of a wait condition's handle, by CloudFormation's rules.
fn is_presigned(url: &Url) -> bool {
    let is_wait_condition = url.path().contains("/waitcondition/");
    is_wait_condition && url.query_pairs().any(|(name, _)| name == "Signature")
}

mod url_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use url::Url;

    pub(super) fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        let text = String::deserialize(deserializer)?;
        Url::parse(&text).map_err(|_| D::Error::custom("not a URL"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn heats_signal_attribute_is_recognised() {
        let check = |json: Value, expect: Result<Option<&str>, HandleError>| {
            let handle = Handle::from_json(json.as_object().unwrap());
            assert_eq!(handle.map(|handle| handle.map(|handle| handle.kind())), expect, "{json}");
        };
        let credentials = |url: &str| {
            json!({"alarm_url": url, "auth_url": "http://k:5000/v3/", "user_id": "u",
                "username": "n", "password": "p", "project_id": "q", "domain_id": "d"})
        };
        check(json!({}), Ok(None));
        check(json!({"alarm_url": "http://r/v1/a/c/o?temp_url_sig=1"}), Ok(Some("put")));
        check(json!({"alarm_url": "http://h/v1/waitcondition/x?Signature=1"}), Ok(Some("put")));
        check(credentials("http://r/v1/a/c/o?temp_url_sig=1"), Ok(Some("put")));
        check(credentials("http://h/v1/p/stacks/s/resources/r/signal"), Ok(Some("heat_password")));
        check(json!({"endpoint": "http://h/signal", "token": "t"}), Ok(Some("heat_token")));
        check(json!({"id": "h-1", "signal_url": "http://r/api/v1/x"}), Ok(Some("put")));
        check(json!({"queue_id": "q", "auth_url": "http://k"}), Err(HandleError::Zaqar));
        check(json!({"endpoint": "http://h/signal"}), Err(HandleError::UnknownForm));
        check(json!({"alarm_url": "ftp://r/x"}), Err(HandleError::NotHttp));
        check(json!({"alarm_url": "not a url"}), Err(HandleError::NotHttp));
    }

    #[test]
    fn the_spelling_is_that_of_whoever_gave_the_handle() {
        let check = |handle: Handle, expect: Spelling| {
            assert!(matches!(handle, Handle::Put { spelling, .. } if spelling == expect));
        };
        let presigned = "http://h/v1/waitcondition/arn?SignatureVersion=2&Signature=1";
        check(Handle::from_url(presigned).unwrap(), Spelling::Either);
        let template = json!({ "alarm_url": presigned });
        let of_heat = Handle::from_json(template.as_object().unwrap()).unwrap().unwrap();
        check(of_heat.clone(), Spelling::Heat);
        check(of_heat.spelled(Spelling::CloudFormation), Spelling::CloudFormation);
        check(Handle::from_url("http://r/v1/a/c/o?temp_url_sig=1").unwrap(), Spelling::Heat);
        let of_old: Handle = serde_json::from_str(r#"{"put": {"url": "http://r/x"}}"#).unwrap();
        check(of_old, Spelling::Heat);
    }

    #[test]
    fn a_handle_survives_the_disk_and_stays_out_of_logs() {
        let handle = Handle::from_json(
            json!({"alarm_url": "http://h:8004/secret-path", "auth_url": "http://k/v3",
                "user_id": "u", "password": "hunter2", "project_id": "q"})
            .as_object()
            .unwrap(),
        )
        .unwrap()
        .unwrap();

        let stored = serde_json::to_string(&handle).unwrap();
        assert_eq!(serde_json::from_str::<Handle>(&stored).unwrap(), handle);
        assert_eq!(format!("{handle:?}"), "Handle(heat_password at h:8004)");
    }
}
