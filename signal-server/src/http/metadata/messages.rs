//! What becomes of a message that has arrived whole.
//!
//! A signal goes to the handle that the instance's metadata names, or to the place that the message
//! names; and always into the record of the instance. Every step may happen twice: the handle knows the
//! signal by its id, the record knows the message by its number. The answer is given after the last one.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use signal_protocol::frame::MessageId;
use signal_protocol::handle::HandleId;
use signal_protocol::message::{Destination, Login, Message};
use signal_protocol::signal::Signal;
use url::Url;

use crate::error::ErrorCode;
use crate::http::metadata::Gateway;
use crate::http::metadata::identity::InstancePermit;
use crate::instance::error::InstanceError;
use crate::instance::{Identity, News, OPERATOR_ACCOUNT};
use crate::keystone::verdict::BearerError;
use crate::mailbox::error::{ErrorClass, MailboxError};

/// Why a message was not taken in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It never will be; this is why.
    ForGood(String),
    /// It may be in a moment.
    ForNow,
}

impl From<InstanceError> for Refused {
    fn from(error: InstanceError) -> Refused {
        match error.is_retriable() {
            true => Refused::ForNow,
            false => Refused::ForGood(error.code().to_owned()),
        }
    }
}

impl From<MailboxError> for Refused {
    fn from(error: MailboxError) -> Refused {
        match error.class() {
            ErrorClass::Busy | ErrorClass::Full | ErrorClass::Broken => Refused::ForNow,
            _ => Refused::ForGood(error.code().to_owned()),
        }
    }
}

impl Gateway {
    /// Takes in a message. Durable when it returns.
    pub(super) async fn take_in(
        &self,
        permit: &InstancePermit,
        identity: &Identity,
        id: MessageId,
        digest: [u8; 32],
        message: Message,
    ) -> Result<(), Refused> {
        let news = match message {
            Message::Signal { signal, to } => {
                let signal = with_id(signal, permit, id);
                match to {
                    Some(to) => self.send_on(&to, &signal).await?,
                    None => self.signal_handle(identity, &signal).await?,
                }
                News::Signal(signal)
            }
            Message::Progress { phase, text } => News::Progress { phase, text },
            Message::Log { text } => News::Log { text },
            Message::Key(key) => News::Key(key),
        };
        let instances = &self.instances;
        instances.receive(permit.instance(), identity, id, digest, &news).await?;
        Ok(())
    }

    /// Signals the handle that the instance's metadata names. One that is gone, or of another project,
    /// is none: the signal is still in the instance's record.
    async fn signal_handle(&self, identity: &Identity, signal: &Signal) -> Result<(), Refused> {
        let Some(id) = &identity.handle else { return Ok(()) };
        if !self.is_open_to(id, identity).await? {
            tracing::warn!(handle = %id, "an instance's metadata names a handle that is not its project's");
            return Ok(());
        }
        match self.app.mailboxes.signal_handle(id, signal).await {
            Ok(_) | Err(MailboxError::HandleNotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn is_open_to(&self, id: &HandleId, identity: &Identity) -> Result<bool, Refused> {
        let account = match self.app.mailboxes.handle(id).await {
            Ok(handle) => handle.account,
            Err(MailboxError::HandleNotFound) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let account = account.as_str();
        Ok(account == OPERATOR_ACCOUNT || account.strip_prefix("AUTH_") == Some(&identity.project))
    }

    /// Does with a signal what its sender would have done if it had a route: a request to one of the
    /// relay's own surfaces. Which host the URL names does not matter, for nothing is sent there; what
    /// goes upstream from those surfaces goes to servers of the configuration only.
    async fn send_on(&self, to: &Destination, signal: &Signal) -> Result<(), Refused> {
        let malformed = || Refused::ForGood("destination_malformed".to_owned());
        let url = Url::parse(&to.url).map_err(|_| malformed())?;
        let Some(method) = method_of(&url, to) else {
            return Err(Refused::ForGood("destination_unknown".to_owned()));
        };
        let token = match &to.login {
            Some(login) => Some(self.token_of(login).await?),
            None => to.token.clone(),
        };
        let mut request = Request::new(Body::from(signal.to_json()));
        *request.method_mut() = method;
        let target =
            url.query().map_or(url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        *request.uri_mut() = target.parse().map_err(|_| malformed())?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Signed URLs of CloudFormation's kind cover the host.
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        headers.insert(HOST, HeaderValue::try_from(host).map_err(|_| malformed())?);
        if let Some(token) = token {
            let mut token = HeaderValue::try_from(token).map_err(|_| malformed())?;
            token.set_sensitive(true);
            headers.insert("x-auth-token", token);
        }
        let answer = self.edge.call(self.public.clone(), request).await;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let can_be_repeated = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if can_be_repeated {
            return Err(Refused::ForNow);
        }
        Err(Refused::ForGood(code_of(answer, status).await))
    }
}

impl Gateway {
    /// The token of a user that Heat has made for one handle, from the configured Keystone.
    async fn token_of(&self, login: &Login) -> Result<String, Refused> {
        let Some(heat) = &self.app.heat else {
            return Err(Refused::ForGood("heat_not_configured".to_owned()));
        };
        match heat.keystone.login(login).await {
            Ok(token) => Ok(token.expose().to_owned()),
            Err(BearerError::Invalid) => Err(Refused::ForGood("login_refused".to_owned())),
            Err(_) => Err(Refused::ForNow),
        }
    }
}

/// The method for a URL of the relay's own surfaces; nothing for any other URL.
fn method_of(url: &Url, to: &Destination) -> Option<Method> {
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    let path = url.path();
    let is_own_handle = path.starts_with("/api/v1/handles/") && path.ends_with("/signals");
    let is_heats = path.contains("/stacks/") && path.ends_with("/signal");
    let is_signed = is_own_handle
        || path.starts_with("/v1/AUTH_")
        || path.starts_with("/v1/waitcondition/")
        || path.starts_with("/v1/signal/");
    let has_credential = to.token.is_some() || to.login.is_some();
    match (is_signed, is_heats && path.starts_with("/v1/") && has_credential) {
        (true, _) => Some(Method::PUT),
        (_, true) => Some(Method::POST),
        _ => None,
    }
}

/// What the surface calls its refusal.
async fn code_of(answer: axum::response::Response, status: StatusCode) -> String {
    if let Some(code) = answer.extensions().get::<ErrorCode>() {
        return code.0.to_owned();
    }
    let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    match value["error"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None => format!("refused_{}", status.as_u16()),
    }
}

/// A signal without an id would be counted once more each time it arrives, so it gets one that is the
/// same each time.
fn with_id(signal: Signal, permit: &InstancePermit, id: MessageId) -> Signal {
    let own = || format!("{}/{}/{}", permit.instance(), id.boot, id.seq);
    Signal { id: Some(signal.id.unwrap_or_else(own)), ..signal }
}
