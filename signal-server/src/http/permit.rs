//! Who may call: permits.
//!
//! A permit is a value that only a successful check in this file can make. The handlers of the Swift
//! surface take one as an argument, together with the address that it opens, so a handler without a check
//! does not compile, and none can be called with somebody else's address.
//!
//! | permit | opened by |
//! |---|---|
//! | [`AccountPermit`], [`ContainerPermit`] | a token of the account in the path |
//! | [`ListingPermit`](listing::ListingPermit) | the same, or for an empty listing a token that nobody can check |
//! | [`ObjectPermit`] | a token of the account in the path, or a TempURL signed for the method and the path |
//!
//! A request with a TempURL is judged by the TempURL alone, as Swift does.

pub(crate) mod listing;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use signal_protocol::path::{AccountName, PathError, SwiftPath};
use signal_protocol::tempurl::{TempUrl, TempUrlError};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::app::AppState;
use crate::config::Secret;
use crate::error::{ApiError, ErrorCode};
use crate::instance::OPERATOR_ACCOUNT;
use crate::keystone::verdict::BearerError;
use crate::keystone::{Keystone, TokenUse};
use crate::mailbox::error::MailboxError;
use crate::mailbox::{ContainerAddress, ObjectAddress};

/// Says which account a token opens.
///
/// Called once for each request that carries a token, so a check that asks somebody else keeps what it
/// was told. It may be called again for the same token at any time, also at the same moment.
#[async_trait]
pub(crate) trait TokenCheck: Send + Sync + fmt::Debug {
    /// The account of the token's bearer, if the token is good for this use.
    async fn account_of(&self, token: &str, token_use: TokenUse)
    -> Result<AccountName, TokenError>;
}

/// Why a token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum TokenError {
    /// Nobody has issued this token, or it is no longer good.
    #[error("the token is not valid")]
    Unknown,
    /// The token is good, but for no account.
    #[error("the token is not scoped to a project")]
    NoAccount,
    /// Whoever could tell does not answer. Never a reason to refuse for good: Heat fails a stack at once
    /// over a 401 and asks again after a 503.
    #[error("the token cannot be checked at present")]
    Unavailable,
    /// Whoever could tell has not answered for a while. Heat gives up half a minute after the first 503, so
    /// whoever lists a container had better be shown an empty one now.
    #[error("the token could not be checked for a while")]
    AwayForLong,
}

/// Tokens that stand in the relay's own settings.
///
/// Only their hashes are kept, so that neither a dump of the memory nor the time of a comparison tells
/// anything about them.
#[derive(Clone)]
pub(crate) struct FixedTokens {
    accounts: Vec<([u8; 32], AccountName)>,
}

/// The bearer has a token of this account.
#[derive(Debug)]
pub(crate) struct AccountPermit {
    account: AccountName,
}

/// The bearer has a token of the account that this container is in.
#[derive(Debug)]
pub(crate) struct ContainerPermit {
    container: ContainerAddress,
}

/// The bearer may do to this object what the method of the request says.
#[derive(Debug)]
pub(crate) struct ObjectPermit {
    object: ObjectAddress,
    caller: Caller,
}

/// Who asks for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody with a token of the account: Heat, or a person.
    Owner,
    /// Somebody with a TempURL: an instance, or Heat on its behalf.
    Bearer,
}

/// Why there is no permit.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// No token, a wrong one, or one of another account.
    Token(ApiError),
    /// A token that nobody could check for a while.
    AwayForLong(ApiError),
    /// A TempURL that does not open this.
    TempUrl(TempUrlError),
}

impl FixedTokens {
    /// Each token with the account that it opens.
    pub(crate) fn new(tokens: impl IntoIterator<Item = (Secret, AccountName)>) -> Self {
        FixedTokens {
            accounts: tokens
                .into_iter()
                .map(|(token, account)| (hash(token.expose()), account))
                .collect(),
        }
    }
}

#[async_trait]
impl TokenCheck for FixedTokens {
    /// A token that stands in the settings never ends.
    async fn account_of(&self, token: &str, _: TokenUse) -> Result<AccountName, TokenError> {
        let given = hash(token);
        let mut account = None;
        // All are compared, so that the time does not tell which one fits.
        for (known, owner) in &self.accounts {
            if bool::from(known.ct_eq(&given)) {
                account = Some(owner);
            }
        }
        account.cloned().ok_or(TokenError::Unknown)
    }
}

impl fmt::Debug for FixedTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FixedTokens")
            .field("n_tokens", &self.accounts.len())
            .finish_non_exhaustive()
    }
}

/// The tokens of the relay's own settings, and those of Keystone beside them.
#[derive(Clone, Debug)]
pub(crate) struct KeystoneTokens {
    fixed: FixedTokens,
    keystone: Keystone,
}

impl KeystoneTokens {
    pub(crate) fn new(fixed: FixedTokens, keystone: Keystone) -> Self {
        KeystoneTokens { fixed, keystone }
    }
}

#[async_trait]
impl TokenCheck for KeystoneTokens {
    async fn account_of(
        &self,
        token: &str,
        token_use: TokenUse,
    ) -> Result<AccountName, TokenError> {
        if let Ok(account) = self.fixed.account_of(token, token_use).await {
            return Ok(account);
        }
        let project = self.keystone.project_of(token, token_use).await?;
        match AccountName::of_project(project.as_str()) {
            // A project whose id is that word is not the relay's operator.
            Ok(account) if account.as_str() != OPERATOR_ACCOUNT => Ok(account),
            Ok(_) | Err(_) => Err(TokenError::NoAccount),
        }
    }
}

impl From<BearerError> for TokenError {
    fn from(error: BearerError) -> TokenError {
        match error {
            BearerError::Invalid => TokenError::Unknown,
            BearerError::NoProject => TokenError::NoAccount,
            BearerError::Unavailable => TokenError::Unavailable,
            BearerError::AwayForLong => TokenError::AwayForLong,
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl AccountPermit {
    pub(crate) fn account(&self) -> &AccountName {
        &self.account
    }
}

impl ContainerPermit {
    pub(crate) fn container(&self) -> &ContainerAddress {
        &self.container
    }
}

impl ObjectPermit {
    pub(crate) fn object(&self) -> &ObjectAddress {
        &self.object
    }

    pub(crate) fn caller(&self) -> Caller {
        self.caller
    }
}

impl FromRequestParts<AppState> for AccountPermit {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<AccountPermit, Refusal> {
        let SwiftPath::Account(account) = SwiftPath::parse(parts.uri.path())? else {
            return Err(PathError::NotSwift.into());
        };
        // An account hands out the keys that sign, to readers as well.
        check_token(&parts.headers, state, &account, TokenUse::Begin).await?;
        Ok(AccountPermit { account })
    }
}

impl FromRequestParts<AppState> for ContainerPermit {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<ContainerPermit, Refusal> {
        let SwiftPath::Container(account, container) = SwiftPath::parse(parts.uri.path())? else {
            return Err(PathError::NotSwift.into());
        };
        let token_use = use_of(&parts.method);
        check_token(&parts.headers, state, &account, token_use).await?;
        Ok(ContainerPermit { container: ContainerAddress { account, container } })
    }
}

impl FromRequestParts<AppState> for ObjectPermit {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<ObjectPermit, Refusal> {
        let path = SwiftPath::parse(parts.uri.path())?;
        let decoded = path.decoded();
        let SwiftPath::Object(account, container, object) = path else {
            return Err(PathError::NotSwift.into());
        };
        let container = ContainerAddress { account, container };
        let object = ObjectAddress { container, object };
        let query = parts.uri.query().unwrap_or_default();
        let caller = match TempUrl::from_query(query).map_err(Refusal::TempUrl)? {
            Some(temp_url) => {
                let keys = state.mailboxes.signing_keys_for(&object).await?;
                let now = u64::try_from(state.clock.now().as_second()).unwrap_or_default();
                temp_url
                    .verify(parts.method.as_str(), &decoded, &keys, now)
                    .map_err(Refusal::TempUrl)?;
                Caller::Bearer
            }
            None => {
                let token_use = use_of(&parts.method);
                check_token(&parts.headers, state, &object.container.account, token_use).await?;
                Caller::Owner
            }
        };
        Ok(ObjectPermit { object, caller })
    }
}

/// What a token is used for on containers and objects: Heat polls and cleans up with the token of whoever
/// made the stack, which may have ended since.
fn use_of(method: &Method) -> TokenUse {
    match *method {
        Method::GET | Method::HEAD | Method::DELETE => TokenUse::Finish,
        _ => TokenUse::Begin,
    }
}

async fn check_token(
    headers: &HeaderMap,
    state: &AppState,
    account: &AccountName,
    token_use: TokenUse,
) -> Result<(), Refusal> {
    let token =
        headers.get("x-auth-token").and_then(|token| token.to_str().ok()).ok_or_else(no_token)?;
    let owner = match state.tokens.account_of(token, token_use).await {
        Ok(owner) => owner,
        Err(TokenError::AwayForLong) => {
            return Err(Refusal::AwayForLong(TokenError::AwayForLong.into()));
        }
        Err(error) => return Err(Refusal::Token(error.into())),
    };
    if owner != *account {
        return Err(Refusal::Token(ApiError::new(
            StatusCode::FORBIDDEN,
            "wrong_account",
            "the token is not one of this account",
        )));
    }
    Ok(())
}

fn no_token() -> Refusal {
    let error = ApiError::new(
        StatusCode::UNAUTHORIZED,
        "no_permit",
        "this needs a token in X-Auth-Token, or a signed URL",
    );
    Refusal::Token(error.header(WWW_AUTHENTICATE, REALM))
}

const REALM: HeaderValue = HeaderValue::from_static("Swift realm=\"unknown\"");

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Refusal {
        Refusal::Token(error)
    }
}

impl From<MailboxError> for Refusal {
    fn from(error: MailboxError) -> Refusal {
        Refusal::Token(error.into())
    }
}

impl From<PathError> for Refusal {
    fn from(error: PathError) -> Refusal {
        Refusal::Token(match error {
            PathError::NotSwift => {
                ApiError::new(StatusCode::NOT_FOUND, error.code(), error.to_string())
            }
            other => other.into(),
        })
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> ApiError {
        match error {
            TokenError::Unknown => {
                ApiError::new(StatusCode::UNAUTHORIZED, "token_unknown", error.to_string())
                    .header(WWW_AUTHENTICATE, REALM)
            }
            TokenError::NoAccount => {
                ApiError::new(StatusCode::FORBIDDEN, "token_without_project", error.to_string())
            }
            TokenError::Unavailable | TokenError::AwayForLong => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                ApiError::new(status, "token_check_unavailable", error.to_string())
                    .retry_after(Duration::from_secs(1))
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Token(error) | Refusal::AwayForLong(error) => error.into_response(),
            // Swift's own words: people search for them.
            Refusal::TempUrl(error) => {
                let headers = [
                    (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
                    (WWW_AUTHENTICATE, REALM),
                ];
                let body = "401 Unauthorized: Temp URL invalid\n";
                let mut response = (StatusCode::UNAUTHORIZED, headers, body).into_response();
                response.extensions_mut().insert(ErrorCode(error.code()));
                response
            }
        }
    }
}
