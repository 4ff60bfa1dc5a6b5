//! Who may signal: whoever has a token of the project in the path, or has signed the request with an EC2
//! credential that Keystone knows. Only this module can make a permit, and every handler takes one.
//!
//! Keystone is asked before anything is stored: an instance whose token is not good hears so at once, and
//! nobody else can fill the relay's disk.
//!
//! A token may have expired. Heat gives it to the instance when the stack begins, wait conditions last for
//! up to twelve hours, and Keystone's tokens for one; it is good for one resource's signals only.

use std::borrow::Cow;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use signal_protocol::percent;
use url::form_urlencoded;

use crate::app::AppState;
use crate::config::Secret;
use crate::error::ApiError;
use crate::forward::record::SignedRequest;
use crate::forward::target::{CfnPath, Target, TargetError};
use crate::http::body::RequestBody;
use crate::http::heat::configured;
use crate::http::host;
use crate::http::permit::TokenError;
use crate::keystone::TokenUse;
use crate::keystone::calls::{ExchangedToken, PresignedRequest};
use crate::keystone::verdict::ProjectId;

/// The bearer has a token of the project in the path.
#[derive(Debug)]
pub(crate) struct TokenPermit {
    project: ProjectId,
    target: Target,
    token: Secret,
}

/// Whoever made this request could sign it.
#[derive(Debug)]
pub(crate) struct SignaturePermit {
    pub(crate) cfn_path: CfnPath,
    pub(crate) target: Target,
    pub(crate) signed: SignedRequest,
    pub(crate) exchanged: ExchangedToken,
    pub(crate) body: Bytes,
    _private: (),
}

/// What a presigned query says, without what it was signed for.
struct Signature {
    access_key: String,
    signature: String,
    parameters: Vec<(String, String)>,
}

impl TokenPermit {
    pub(crate) fn into_parts(self) -> (ProjectId, Target, Secret) {
        (self.project, self.target, self.token)
    }
}

impl FromRequestParts<AppState> for TokenPermit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let heat = configured(state)?;
        if !heat.forwarder.has_api() {
            let message = "this relay forwards signed requests only: it does not know heat-api";
            return Err(ApiError::new(StatusCode::NOT_FOUND, "heat_not_configured", message));
        }
        let (tenant, target) = Target::of_heat_path(parts.uri.path())?;
        let token = parts.headers.get("x-auth-token").and_then(|token| token.to_str().ok());
        let token = token.ok_or_else(|| no_permit("this needs a token in X-Auth-Token"))?;
        let project = heat.keystone.project_of(token, TokenUse::Finish).await;
        let project = project.map_err(TokenError::from)?;
        if project.as_str() != tenant {
            let message = "the token is not one of the project in the path";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "wrong_account", message));
        }
        Ok(TokenPermit { project, target, token: Secret::new(token.to_owned()) })
    }
}

impl FromRequest<AppState> for SignaturePermit {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let heat = configured(state)?;
        let uri = request.uri().clone();
        let (cfn_path, target) = Target::of_cfn_path(uri.path())?;
        let signature = Signature::of(&uri)?;
        let path = percent::decode_text(uri.path()).ok_or(TargetError)?;
        let path_and_query = uri.path_and_query().map_or(uri.path(), |whole| whole.as_str());
        if !heat.forwarder.takes_path(path_and_query) {
            return Err(TargetError.into());
        }
        let method = request.method().as_str().to_owned();
        // Keystone fails over what is no host.
        let host = host::of(request.headers()).ok_or_else(bad_host)?.to_owned();
        let RequestBody(body) = RequestBody::from_request(request, state).await?;
        let presigned = PresignedRequest {
            method: &method,
            host: &host,
            path: &path,
            access_key: &signature.access_key,
            signature: &signature.signature,
            parameters: &signature.parameters,
            body_hash: &hex::encode(Sha256::digest(&body)),
        };
        let exchanged = heat.keystone.exchange(&presigned).await;
        let exchanged = exchanged.map_err(|error| match TokenError::from(error) {
            TokenError::Unknown => {
                let message = "the signature is not good for this request, or its time is over";
                ApiError::new(StatusCode::FORBIDDEN, "bad_signature", message)
            }
            other => other.into(),
        })?;
        let path_and_query = Secret::new(path_and_query.to_owned()).into();
        let signed = SignedRequest { method, host, path_and_query };
        Ok(SignaturePermit { cfn_path, target, signed, exchanged, body, _private: () })
    }
}

impl Signature {
    fn of(uri: &Uri) -> Result<Signature, ApiError> {
        let (mut access_key, mut signature, mut version) = (None, None, None);
        let mut parameters = Vec::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let value: Cow<'_, str> = value;
            match name.as_ref() {
                "Signature" => {
                    signature = Some(value.into_owned());
                    continue;
                }
                "AWSAccessKeyId" => access_key = Some(value.clone().into_owned()),
                "SignatureVersion" => version = Some(value.clone().into_owned()),
                _ => {}
            }
            parameters.push((name.into_owned(), value.into_owned()));
        }
        let (Some(access_key), Some(signature)) = (access_key, signature) else {
            return Err(no_permit("this needs a presigned URL: AWSAccessKeyId and Signature"));
        };
        if version.as_deref() != Some("2") {
            return Err(no_permit("Heat signs with signature version 2, and no other is taken"));
        }
        Ok(Signature { access_key, signature, parameters })
    }
}

fn bad_host() -> ApiError {
    let message =
        "the signature is for a host: send one Host, a name or an address, perhaps with a port";
    ApiError::new(StatusCode::BAD_REQUEST, "bad_host", message)
}

fn no_permit(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "no_permit", message)
}

impl From<TargetError> for ApiError {
    fn from(error: TargetError) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "resource_not_found", error.to_string())
    }
}
