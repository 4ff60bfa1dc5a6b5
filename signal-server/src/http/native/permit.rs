//! Who may call the native surface. Only this module can make a permit, and every handler takes one.

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use signal_protocol::handle::HandleId;
use signal_protocol::path::AccountName;
use signal_protocol::tempurl::TempUrl;

use crate::app::AppState;
use crate::error::ApiError;
use crate::http::native::handles::{handle_path, signals_path};
use crate::instance::OPERATOR_ACCOUNT;
use crate::keystone::TokenUse;
use crate::mailbox::Handle;
use crate::mailbox::error::MailboxError;

/// The bearer has a token of this account.
#[derive(Clone, Debug)]
pub(crate) struct AccountPermit {
    pub(crate) account: AccountName,
    _private: (),
}

/// The bearer has the operator's token, which opens all accounts where it says so.
#[derive(Clone, Debug)]
pub(crate) struct OperatorPermit {
    _private: (),
}

/// The bearer may signal this handle: a token of its account, or the handle's signal URL.
#[derive(Clone, Debug)]
pub(crate) struct SignalPermit {
    pub(crate) handle: Handle,
    _private: (),
}

/// The bearer may read this handle: a token of its account, or the handle's poll URL.
#[derive(Clone, Debug)]
pub(crate) struct ReadPermit {
    pub(crate) handle: Handle,
    _private: (),
}

impl FromRequestParts<AppState> for AccountPermit {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<AccountPermit, ApiError> {
        let token = token(&parts.headers).ok_or_else(no_permit)?;
        // Who waits for a handle may have to wait longer than a token lives.
        let token_use = match parts.method {
            Method::GET => TokenUse::Finish,
            _ => TokenUse::Begin,
        };
        let account = state.tokens.account_of(token, token_use).await?;
        Ok(AccountPermit { account, _private: () })
    }
}

impl FromRequestParts<AppState> for OperatorPermit {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<OperatorPermit, ApiError> {
        let permit = AccountPermit::from_request_parts(parts, state).await?;
        if permit.account.as_str() != OPERATOR_ACCOUNT {
            let message = "this is for the operator's token";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "operator_only", message));
        }
        Ok(OperatorPermit { _private: () })
    }
}

#[cfg(test)]
impl AccountPermit {
    /// As if a token of this account had been checked.
    pub(crate) fn for_tests(account: AccountName) -> AccountPermit {
        AccountPermit { account, _private: () }
    }
}

impl AccountPermit {
    /// The handle that the path names, if it belongs to this account. One of another account is not
    /// found: its existence is none of the bearer's business.
    pub(crate) async fn own_handle(&self, state: &AppState, uri: &Uri) -> Result<Handle, ApiError> {
        let handle = state.mailboxes.handle(&handle_id(uri)?).await?;
        if handle.account != self.account {
            return Err(MailboxError::HandleNotFound.into());
        }
        Ok(handle)
    }
}

impl FromRequestParts<AppState> for SignalPermit {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<SignalPermit, ApiError> {
        // The URL is signed for PUT, and good for POST as well: some clients can do only that.
        let handle = permitted_handle(parts, state, "PUT", signals_path).await?;
        Ok(SignalPermit { handle, _private: () })
    }
}

impl FromRequestParts<AppState> for ReadPermit {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<ReadPermit, ApiError> {
        // Also for the events, which show nothing that the handle does not.
        // In a box, which is gone when the bearer waits.
        let handle = Box::pin(permitted_handle(parts, state, "GET", handle_path)).await?;
        Ok(ReadPermit { handle, _private: () })
    }
}

/// The handle that the path names, if a signature or a token opens it.
async fn permitted_handle(
    parts: &mut Parts,
    state: &AppState,
    method: &str,
    signed_path: fn(&str) -> String,
) -> Result<Handle, ApiError> {
    let Some(temp_url) = TempUrl::from_query(parts.uri.query().unwrap_or_default())? else {
        let permit = AccountPermit::from_request_parts(parts, state).await?;
        return permit.own_handle(state, &parts.uri).await;
    };
    let id = handle_id(&parts.uri)?;
    let handle = state.mailboxes.handle(&id).await?;
    let now = u64::try_from(state.clock.now().as_second()).unwrap_or_default();
    temp_url.verify(method, &signed_path(id.as_str()), [&handle.signing_key], now)?;
    Ok(handle)
}

/// The id in `/api/v1/handles/{id}…`.
fn handle_id(uri: &Uri) -> Result<HandleId, ApiError> {
    let id = uri.path().split('/').nth(4).unwrap_or_default();
    HandleId::parse(id).map_err(|_| MailboxError::HandleNotFound.into())
}

fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(token) = headers.get("x-auth-token") {
        return token.to_str().ok();
    }
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn no_permit() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "no_permit",
        "this needs a token in X-Auth-Token or Authorization, or a signed URL",
    )
    .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &'static str)], expect: Option<&str>) {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        assert_eq!(token(&headers), expect, "{headers:?}");
    }

    #[test]
    fn a_token_comes_in_either_header() {
        check(&[], None);
        check(&[("x-auth-token", "t")], Some("t"));
        check(&[("authorization", "Bearer t")], Some("t"));
        check(&[("authorization", "bearer  t")], Some("t"));
        check(&[("authorization", "Basic t")], None);
        check(&[("authorization", "t")], None);
        check(&[("x-auth-token", "a"), ("authorization", "Bearer b")], Some("a"));
    }

    #[test]
    fn what_is_no_id_is_not_found() {
        for path in ["/api/v1/handles/", "/api/v1/handles/h-1", "/"] {
            assert!(handle_id(&path.parse().unwrap()).is_err(), "{path}");
        }
    }
}
