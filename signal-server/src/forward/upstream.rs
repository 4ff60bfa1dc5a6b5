//! Sends one signal to Heat, once.
//!
//! | transport | what is sent |
//! |---|---|
//! | heat | `POST` to heat-api with the sender's token, and the relay's own as `X-Service-Token`: the service then takes a token that has expired since, which is what Keystone has this for |
//! | cfn | the request as it was signed, `Host` included, to heat-api-cfn; if that refuses the signature, `POST` to heat-api with the token that Keystone gave for it |
//!
//! heat-api says 200 to a wait condition's signal in either spelling, and Heat then drops the one that the
//! handle does not take: `OS::Heat` handles take `status`, CloudFormation's take `Status`. Nothing in the
//! request tells which it is; tools for CloudFormation send the one to both, and an agent sends the other.
//! heat-api-cfn asks its engine and is silent over the wrong one. So what goes to heat-api in heat-api-cfn's
//! place goes there in both spellings, with the same id.
//!
//! The second try of a CFN signal is not a guess: the relay has verified the signature at Keystone before
//! it took the signal, while a heat-api-cfn from before November 2025 is refused by any Keystone that has
//! the fix of OSSA-2025-002, whatever the signature.
//!
//! What an answer means:
//!
//! | answer | |
//! |---|---|
//! | 2xx | delivered |
//! | 408, 409, 425, 429, 5xx; no answer | try again |
//! | 3xx, any other 4xx | refused: it would be refused again |
//!
//! After a 500, or when an answer does not come, the signal itself may be the cause: heat-api-cfn is silent
//! for a minute over a signal that its engine dislikes.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use signal_protocol::signal::Signal;

use crate::config::Secret;
use crate::forward::queue::Suspect;
use crate::forward::record::{EntryRecord, Route, SignedRequest};
use crate::forward::target::Target;
use crate::keystone::Keystone;
use crate::outbound::{ClientError, ServiceUrl, client, read_answer};

/// How long heat-api may take. It hands the signal to an engine and does not wait for it.
const HEAT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long heat-api-cfn may take: it waits for its engine, which has 60 s (`rpc_response_timeout`).
const CFN_TIMEOUT: Duration = Duration::from_secs(75);

/// The longest name of an error of Heat's that is repeated, in bytes. Real ones are names of classes.
const MAX_ERROR_NAME_BYTES: usize = 64;

const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const X_SERVICE_TOKEN: HeaderName = HeaderName::from_static("x-service-token");

/// Where Heat is. At least one of the two is there.
#[derive(Clone, Debug)]
pub struct HeatSettings {
    /// heat-api, without the version.
    pub api_url: Option<ServiceUrl>,
    /// heat-api-cfn, without the version.
    pub cfn_url: Option<ServiceUrl>,
    pub ca_file: Option<PathBuf>,
}

/// Whoever takes signals to Heat.
#[async_trait]
pub(crate) trait Upstream: Debug + Send + Sync {
    /// Whether signals with a token can be sent.
    fn has_api(&self) -> bool;

    /// Whether a path can be sent as it is.
    fn takes_path(&self, path_and_query: &str) -> bool;

    /// Sends a signal. May be called again for the same one, also while an earlier call is still under way
    /// elsewhere or was dropped half-way: Heat knows a repeated signal by its id.
    async fn send(&self, entry: &EntryRecord, body: &Bytes) -> Attempt;
}

/// heat-api and heat-api-cfn.
#[derive(Debug)]
pub(crate) struct HeatServices {
    client: Client,
    keystone: Keystone,
    api_url: Option<ServiceUrl>,
    cfn_url: Option<ServiceUrl>,
}

/// What became of one attempt; the text is for people and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Delivered(String),
    Refused(String),
    TryAgain(String, Suspect),
}

/// What a service said, as far as it matters.
enum Answer {
    Status(StatusCode, Option<String>),
    None { failure: &'static str, suspect: Suspect },
}

impl HeatServices {
    pub(crate) fn new(
        settings: &HeatSettings,
        keystone: Keystone,
    ) -> Result<HeatServices, ClientError> {
        let services = settings.api_url.iter().chain(&settings.cfn_url);
        let client = client(services, settings.ca_file.as_deref(), CFN_TIMEOUT)?;
        let (api_url, cfn_url) = (settings.api_url.clone(), settings.cfn_url.clone());
        Ok(HeatServices { client, keystone, api_url, cfn_url })
    }

    async fn signal_heat(
        &self,
        target: &Target,
        project: &str,
        token: &Secret,
        body: &Bytes,
    ) -> Attempt {
        let Some(api_url) = &self.api_url else {
            return Attempt::Refused("the relay knows no heat-api".to_owned());
        };
        let Some(url) = api_url.join(&target.heat_path(project)) else {
            return Attempt::Refused("the names in the path are none of Heat's".to_owned());
        };
        let Ok(service_token) = self.keystone.service_token().await else {
            return Attempt::TryAgain("keystone is away".to_owned(), Suspect::Upstream);
        };
        let request = |service_token: &Secret| {
            let request = self.client.post(url.clone()).timeout(HEAT_TIMEOUT);
            let request = with_secret(request, X_AUTH_TOKEN, token);
            with_secret(request, X_SERVICE_TOKEN, service_token).body(body.clone())
        };
        let answer = exchange(request(&service_token)).await;
        if !matches!(answer, Answer::Status(StatusCode::UNAUTHORIZED, _)) {
            return answer.attempt("heat-api");
        }
        // Perhaps it was the relay's own token.
        self.keystone.forget_service_token(&service_token);
        let Ok(service_token) = self.keystone.service_token().await else {
            return Attempt::TryAgain("keystone is away".to_owned(), Suspect::Upstream);
        };
        exchange(request(&service_token)).await.attempt("heat-api")
    }

    async fn repeat_signed(
        &self,
        cfn_url: &ServiceUrl,
        signed: &SignedRequest,
        body: &Bytes,
    ) -> Answer {
        let path_and_query = signed.path_and_query.secret().expose();
        let method = Method::from_bytes(signed.method.as_bytes());
        let (Some(url), Ok(method)) = (cfn_url.join(path_and_query), method) else {
            return Answer::Status(StatusCode::BAD_REQUEST, None);
        };
        let request = self.client.request(method, url).header(HOST, &signed.host);
        exchange(request.body(body.clone())).await
    }
}

#[async_trait]
impl Upstream for HeatServices {
    fn has_api(&self) -> bool {
        self.api_url.is_some()
    }

    fn takes_path(&self, path_and_query: &str) -> bool {
        self.cfn_url.as_ref().is_none_or(|url| url.join(path_and_query).is_some())
    }

    async fn send(&self, entry: &EntryRecord, body: &Bytes) -> Attempt {
        match &entry.route {
            Route::Heat { project, token } => {
                self.signal_heat(&entry.target, project, token.secret(), body).await
            }
            Route::Cfn { signed, project, token } => {
                if let Some(cfn_url) = &self.cfn_url {
                    let answer = self.repeat_signed(cfn_url, signed, body).await;
                    if !(answer.is_refusal_of_bearer() && self.has_api()) {
                        return answer.attempt("heat-api-cfn");
                    }
                }
                let target = &entry.target;
                let attempt = self.signal_heat(target, project, token.secret(), body).await;
                match (&attempt, other_spelling(signed, body)) {
                    (Attempt::Delivered(_), Some(other)) => {
                        self.signal_heat(target, project, token.secret(), &other).await
                    }
                    _ => attempt,
                }
            }
        }
    }
}

/// The other spelling of what is meant for a wait condition.
fn other_spelling(signed: &SignedRequest, body: &Bytes) -> Option<Bytes> {
    let path_and_query = signed.path_and_query.secret().expose();
    let is_for_wait_condition = path_and_query.starts_with("/v1/waitcondition/");
    is_for_wait_condition.then(|| Signal::respelled(body).map(Bytes::from))?
}

fn with_secret(request: RequestBuilder, name: HeaderName, secret: &Secret) -> RequestBuilder {
    match HeaderValue::from_str(secret.expose()) {
        Ok(mut value) => {
            value.set_sensitive(true);
            request.header(name, value)
        }
        Err(_) => request,
    }
}

async fn exchange(request: RequestBuilder) -> Answer {
    let request =
        request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json");
    match request.send().await {
        Ok(response) => {
            let status = response.status();
            let name = if status.is_success() { None } else { error_name(response).await };
            Answer::Status(status, name)
        }
        Err(error) if error.is_connect() => {
            Answer::None { failure: "cannot be reached", suspect: Suspect::Upstream }
        }
        Err(error) if error.is_timeout() => {
            Answer::None { failure: "did not answer in time", suspect: Suspect::Signal }
        }
        Err(_) => Answer::None { failure: "broke the connection off", suspect: Suspect::Signal },
    }
}

/// What Heat calls the error: `{"error": {"type": "EntityNotFound", …}}`. The rest of the answer repeats
/// what was sent.
async fn error_name(response: Response) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        r#type: String,
    }
    let body = read_answer(response).await.ok()?;
    let name = serde_json::from_slice::<Envelope>(&body).ok()?.error.r#type;
    let is_name = name.len() <= MAX_ERROR_NAME_BYTES
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some(name)
}

impl Answer {
    fn is_refusal_of_bearer(&self) -> bool {
        matches!(self, Answer::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _))
    }

    fn attempt(self, service: &str) -> Attempt {
        let (status, name) = match self {
            Answer::Status(status, name) => (status, name),
            Answer::None { failure, suspect } => {
                return Attempt::TryAgain(format!("{service} {failure}"), suspect);
            }
        };
        let text = match name {
            Some(name) => format!("{service} answered {} {name}", status.as_u16()),
            None => format!("{service} answered {}", status.as_u16()),
        };
        match status {
            status if status.is_success() => Attempt::Delivered(text),
            StatusCode::INTERNAL_SERVER_ERROR => Attempt::TryAgain(text, Suspect::Signal),
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::CONFLICT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS => Attempt::TryAgain(text, Suspect::Upstream),
            status if status.is_server_error() => Attempt::TryAgain(text, Suspect::Upstream),
            _ => Attempt::Refused(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_to_try_again() {
        let try_again = |text: &str, suspect| Attempt::TryAgain(text.to_owned(), suspect);
        for (status, expect) in [
            (200, Attempt::Delivered("heat answered 200".to_owned())),
            (202, Attempt::Delivered("heat answered 202".to_owned())),
            (302, Attempt::Refused("heat answered 302".to_owned())),
            (400, Attempt::Refused("heat answered 400".to_owned())),
            (401, Attempt::Refused("heat answered 401".to_owned())),
            (403, Attempt::Refused("heat answered 403".to_owned())),
            (404, Attempt::Refused("heat answered 404".to_owned())),
            (408, try_again("heat answered 408", Suspect::Upstream)),
            (409, try_again("heat answered 409", Suspect::Upstream)),
            (429, try_again("heat answered 429", Suspect::Upstream)),
            (500, try_again("heat answered 500", Suspect::Signal)),
            (502, try_again("heat answered 502", Suspect::Upstream)),
            (503, try_again("heat answered 503", Suspect::Upstream)),
            (504, try_again("heat answered 504", Suspect::Upstream)),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Answer::Status(status, None).attempt("heat"), expect);
        }
        let named = Answer::Status(StatusCode::NOT_FOUND, Some("EntityNotFound".to_owned()));
        let expect = Attempt::Refused("heat answered 404 EntityNotFound".to_owned());
        assert_eq!(named.attempt("heat"), expect);
    }
}
