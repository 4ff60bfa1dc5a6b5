//! The calls to Keystone (Identity API v3): a token for the relay or for a user of Heat's, the meaning of a
//! token, and the exchange of an EC2 signature for a token.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use signal_protocol::message::Login;
use tokio::time::Instant;

use crate::config::Secret;
use crate::keystone::verdict::{ProjectId, Verdict};
use crate::keystone::{KeystoneSettings, TokenUse};
use crate::outbound::{AnswerError, ClientError, ServiceUrl, client, read_answer};

const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const X_SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// The part of its life after which the relay's own token is renewed. The rest is for calls that are
/// under way with it, and for services that look at it a second time.
const RENEW_AFTER: f64 = 0.8;

/// A request that carries a signature in its query (AWS signature version 2), as its sender signed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PresignedRequest<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    /// Percent-decoded: this is what is signed.
    pub(crate) path: &'a str,
    pub(crate) access_key: &'a str,
    pub(crate) signature: &'a str,
    /// All parameters but the signature, decoded.
    pub(crate) parameters: &'a [(String, String)],
    /// SHA-256 of the body, in hexadecimal.
    pub(crate) body_hash: &'a str,
}

/// What an EC2 signature was exchanged for.
#[derive(Clone, Debug)]
pub(crate) struct ExchangedToken {
    pub(crate) token: Secret,
    pub(crate) project: ProjectId,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum CallError {
    #[error("failed to reach keystone")]
    Send { source: reqwest::Error },
    #[error("failed to read keystone's answer")]
    ReadAnswer { source: AnswerError },
    #[error("failed to understand keystone's answer")]
    ParseAnswer { source: serde_json::Error },
    #[error("keystone's answer carries no token")]
    NoToken,
    #[error(
        "keystone refused the relay's user: user name, password, project and domains must fit ({status})"
    )]
    UserRefused { status: StatusCode },
    #[error("keystone refused the relay's token")]
    OwnTokenRefused,
    #[error("the relay's user may not do this: it needs the role service or admin")]
    Forbidden,
    #[error("keystone answered {status}")]
    Status { status: StatusCode },
    #[error("no more calls are made")]
    NoSlot,
    #[error("keystone did not answer the relay's own question in time")]
    Silent,
}

/// The token of the relay's own user.
#[derive(Debug)]
pub(super) struct OwnToken {
    token: Secret,
    renew_at: Instant,
}

impl OwnToken {
    pub(super) fn is_good(&self, now: Instant) -> bool {
        now < self.renew_at
    }

    pub(super) fn is(&self, token: &Secret) -> bool {
        self.token.expose() == token.expose()
    }

    pub(super) fn secret(&self) -> Secret {
        self.token.clone()
    }
}

pub(super) struct Calls {
    client: Client,
    url: ServiceUrl,
    /// What authenticates the relay's user; holds its password.
    credentials: Value,
}

impl fmt::Debug for Calls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Calls").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The part of a token's description that matters here.
#[derive(Deserialize)]
struct Envelope {
    token: Description,
}

#[derive(Deserialize)]
struct Description {
    expires_at: Timestamp,
    #[serde(default)]
    issued_at: Option<Timestamp>,
    #[serde(default)]
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

impl Calls {
    pub(super) fn new(
        settings: &KeystoneSettings,
        timeout: Duration,
    ) -> Result<Calls, ClientError> {
        let url = settings.auth_url.with_version("v3");
        let client = client([&url], settings.ca_file.as_deref(), timeout)?;
        let user = json!({
            "name": settings.username,
            "password": settings.password.expose(),
            "domain": {"name": settings.user_domain},
        });
        let project = json!({
            "name": settings.project,
            "domain": {"name": settings.project_domain},
        });
        let credentials = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }});
        Ok(Calls { client, url, credentials })
    }

    /// A token for the relay's own user.
    pub(super) async fn authenticate(&self) -> Result<OwnToken, CallError> {
        // Without the catalog, which is most of a token's description.
        let request = self.client.post(self.at("/auth/tokens?nocatalog")).json(&self.credentials);
        let response = send(request).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK => {}
            status if is_refusal(status) => return Err(CallError::UserRefused { status }),
            status => return Err(CallError::Status { status }),
        }
        let token = subject_token(&response)?;
        let Description { issued_at, expires_at, .. } = describe(response).await?;
        // Its life in Keystone's own time: the two clocks may differ.
        let life = issued_at.map_or(0, |issued_at| expires_at.as_second() - issued_at.as_second());
        let life = Duration::from_secs(u64::try_from(life).unwrap_or_default());
        Ok(OwnToken { token, renew_at: Instant::now() + life.mul_f64(RENEW_AFTER) })
    }

    /// A token for a user that Heat has made for one handle; nothing when Keystone does not know it.
    pub(super) async fn login(&self, login: &Login) -> Result<Option<Secret>, CallError> {
        let user = json!({"id": login.user_id, "password": login.password});
        let credentials = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": login.project_id}},
        }});
        let request = self.client.post(self.at("/auth/tokens?nocatalog")).json(&credentials);
        let response = send(request).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK => subject_token(&response).map(Some),
            status if is_refusal(status) => Ok(None),
            status => Err(CallError::Status { status }),
        }
    }

    /// What a caller's token means. With [`TokenUse::Begin`], one that has expired is unknown.
    pub(super) async fn validate(
        &self,
        own: Secret,
        token: &Secret,
        token_use: TokenUse,
    ) -> Result<Verdict, CallError> {
        let url = match token_use {
            TokenUse::Begin => self.at("/auth/tokens?nocatalog"),
            TokenUse::Finish => self.at("/auth/tokens?nocatalog&allow_expired=1"),
        };
        let Some(subject) = header_value(token) else {
            return Ok(Verdict::Unknown);
        };
        let request = with_token(self.client.get(url), &own).header(X_SUBJECT_TOKEN, subject);
        let response = send(request).await?;
        match response.status() {
            StatusCode::OK => {}
            // 400 is for what could never have been a token.
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => return Ok(Verdict::Unknown),
            status => return Err(of_own_token(status)),
        }
        let Description { expires_at, project, .. } = describe(response).await?;
        Ok(Verdict::Known { project: project.map(|project| ProjectId(project.id)), expires_at })
    }

    /// A token for whoever signed the request; nothing if the signature is not good.
    ///
    /// Since OSSA-2025-002 Keystone wants to know who asks, and heat-api-cfn does not say so before its
    /// release of November 2025.
    pub(super) async fn exchange(
        &self,
        own: Secret,
        request: &PresignedRequest<'_>,
    ) -> Result<Option<ExchangedToken>, CallError> {
        let parameters: Map<String, Value> = request
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        let credentials = json!({"ec2Credentials": {
            "access": request.access_key,
            "signature": request.signature,
            "host": request.host,
            "verb": request.method,
            "path": request.path,
            "params": parameters,
            "headers": {},
            "body_hash": request.body_hash,
        }});
        let url = self.at("/ec2tokens");
        let response = send(with_token(self.client.post(url), &own).json(&credentials)).await?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => {}
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => return Ok(None),
            // Keystone has one 401 for a signature that is not good and for a token of ours that is not.
            StatusCode::UNAUTHORIZED => return self.confirm(own).await.map(|()| None),
            status => return Err(of_own_token(status)),
        }
        let token = subject_token(&response)?;
        let Some(project) = describe(response).await?.project else {
            return Ok(None);
        };
        Ok(Some(ExchangedToken { token, project: ProjectId(project.id) }))
    }

    /// Whether Keystone takes the relay's own token. This is the question that has nothing of a caller's
    /// in it.
    pub(super) async fn confirm(&self, own: Secret) -> Result<(), CallError> {
        match self.validate(own.clone(), &own, TokenUse::Begin).await? {
            Verdict::Known { .. } => Ok(()),
            Verdict::Unknown => Err(CallError::OwnTokenRefused),
        }
    }

    fn at(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.url)
    }
}

async fn send(request: RequestBuilder) -> Result<Response, CallError> {
    // Without the URL: the chain goes into the log, where the address stands already.
    request.send().await.map_err(|source| CallError::Send { source: source.without_url() })
}

async fn describe(response: Response) -> Result<Description, CallError> {
    let body = read_answer(response).await.map_err(|source| CallError::ReadAnswer { source })?;
    let envelope: Envelope =
        serde_json::from_slice(&body).map_err(|source| CallError::ParseAnswer { source })?;
    Ok(envelope.token)
}

fn subject_token(response: &Response) -> Result<Secret, CallError> {
    let token = response.headers().get(X_SUBJECT_TOKEN).ok_or(CallError::NoToken)?;
    let token = token.to_str().map_err(|_| CallError::NoToken)?;
    Ok(Secret::new(token.to_owned()))
}

fn with_token(request: RequestBuilder, token: &Secret) -> RequestBuilder {
    match header_value(token) {
        Some(value) => request.header(X_AUTH_TOKEN, value),
        None => request,
    }
}

/// The value of a header that no log shows.
fn header_value(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
    )
}

/// What an answer says about the relay's own token.
fn of_own_token(status: StatusCode) -> CallError {
    match status {
        StatusCode::UNAUTHORIZED => CallError::OwnTokenRefused,
        StatusCode::FORBIDDEN => CallError::Forbidden,
        status => CallError::Status { status },
    }
}
