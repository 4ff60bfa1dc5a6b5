//! Stacks: who has signalled the handles that Heat made, and who was expected to.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use signal_protocol::path::ContainerName;

use crate::app::AppState;
use crate::error::ApiError;
use crate::http::native::permit::AccountPermit;
use crate::http::native::{json, query};
use crate::mailbox::ContainerAddress;
use crate::mailbox::error::MailboxError;
use crate::stack::StackError;

/// `GET /api/v1/stacks/{id}`
pub(crate) async fn show(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Response, ApiError> {
    query::none(&uri)?;
    let id = uri.path().split('/').nth(4).unwrap_or_default();
    // What is no name of a container is none of Heat's stacks either.
    let container = ContainerName::parse(id).map_err(|_| MailboxError::ContainerNotFound)?;
    let address = ContainerAddress { account: permit.account, container };
    match state.stacks.view(&address).await {
        Ok(view) => Ok(json(StatusCode::OK, &view)),
        Err(StackError::Mailbox(MailboxError::ContainerNotFound)) => {
            let message = "the relay keeps no signals of a stack with this id in your project";
            Err(ApiError::new(StatusCode::NOT_FOUND, "stack_not_found", message))
        }
        Err(StackError::Mailbox(error)) => Err(error.into()),
        Err(StackError::Instance(error)) => Err(error.into()),
    }
}
