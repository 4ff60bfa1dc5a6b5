//! The permit of a listing, which is worth something even when nobody can check tokens.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::AppState;
use crate::http::permit::{ContainerPermit, Refusal};

/// How much of a container its bearer may see.
#[derive(Debug)]
pub(crate) enum ListingPermit {
    /// What is in it.
    Full(ContainerPermit),
    /// An empty listing, whatever is in it: nobody could check the token for a while. That tells nothing to
    /// whoever it is, and Heat, which gives up over half a minute of refusals, goes on polling.
    Empty,
}

impl FromRequestParts<AppState> for ListingPermit {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<ListingPermit, Refusal> {
        match ContainerPermit::from_request_parts(parts, state).await {
            Ok(permit) => Ok(ListingPermit::Full(permit)),
            Err(Refusal::AwayForLong(_)) => Ok(ListingPermit::Empty),
            Err(refusal) => Err(refusal),
        }
    }
}
