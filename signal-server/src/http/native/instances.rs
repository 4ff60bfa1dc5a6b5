//! Instances: what is known of one that has spoken by way of the metadata surface.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use tokio::time::Instant;

use crate::app::AppState;
use crate::error::ApiError;
use crate::http::native::json;
use crate::http::native::permit::AccountPermit;
use crate::http::native::query::WaitQuery;
use crate::instance::error::InstanceError;
use crate::instance::view::{InstanceState, InstanceView};
use crate::instance::{InstanceId, OPERATOR_ACCOUNT};

/// `GET /api/v1/instances/{id}`: at once, or as soon as there is something new. Without a version the
/// wait ends with a result.
pub(crate) async fn show(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = WaitQuery::parse(&uri)?;
    let text = uri.path().split('/').nth(4).unwrap_or_default();
    let id = InstanceId::parse(text).ok_or_else(|| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_instance_id", "an instance's id is a UUID")
    })?;
    let deadline = Instant::now() + query.wait;
    loop {
        let view = view(&state, &permit, id).await?;
        let is_news = match query.version {
            Some(seen) => view.version > seen,
            None => matches!(view.state, InstanceState::Complete | InstanceState::Failed),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if is_news || left.is_zero() || state.shutdown.has_begun() {
            return Ok(json(StatusCode::OK, &view));
        }
        tokio::select! {
            changed = state.instances.changed(id, view.version, left) => { changed?; }
            () = state.shutdown.begun() => {}
        }
    }
}

/// The instance, if it is one of the bearer's project. That nothing was ever heard of an id is an
/// answer, too, and no secret; an instance of another project is not found.
async fn view(
    state: &AppState,
    permit: &AccountPermit,
    id: InstanceId,
) -> Result<InstanceView, ApiError> {
    let Some(view) = state.instances.view(id).await? else {
        return Ok(InstanceView::never_contacted(id.to_string()));
    };
    let account = permit.account.as_str();
    let is_own =
        account.strip_prefix("AUTH_").is_some_and(|own| view.project.as_deref() == Some(own));
    if is_own || account == OPERATOR_ACCOUNT {
        return Ok(view);
    }
    let message = "no instance of your project has this id";
    Err(ApiError::new(StatusCode::NOT_FOUND, "instance_not_found", message))
}

impl From<InstanceError> for ApiError {
    fn from(error: InstanceError) -> ApiError {
        let (status, message) = match error.is_retriable() {
            true => (StatusCode::SERVICE_UNAVAILABLE, "the relay cannot read its store at present"),
            false => {
                (StatusCode::INTERNAL_SERVER_ERROR, "the relay failed to answer; its log says more")
            }
        };
        ApiError::new(status, error.code(), message).caused_by(&error)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use signal_protocol::path::AccountName;

    use super::*;
    use crate::instance::Identity;

    const ID: &str = "7b1d3c0e-1111-4222-8333-444455556666";

    async fn check(account: &str, id: &str, expect: &str) {
        let state = AppState::for_tests();
        let known = InstanceId::parse(ID).expect("a UUID");
        let identity = Identity { project: "p".to_owned(), name: None, handle: None };
        state.instances.contact(known, &identity).await.expect("a store in memory");
        let account = AccountName::parse(account).expect("a name");
        let permit = AccountPermit::for_tests(account.clone());
        let uri: Uri = format!("/api/v1/instances/{id}").parse().expect("a URI");
        let seen = match show(permit, State(state), uri).await {
            Ok(answer) => {
                let body = answer.into_body().collect().await.expect("a body").to_bytes();
                let view: InstanceView = serde_json::from_slice(&body).expect("a view");
                format!("{:?} {}", view.state, view.version)
            }
            Err(error) => error.to_string(),
        };
        let seen = seen.split(':').next().unwrap_or_default().to_owned();
        assert_eq!(seen, expect, "{account} {id}");
    }

    #[tokio::test]
    async fn an_instance_is_shown_to_its_project_and_to_the_operator() {
        check("AUTH_p", ID, "Contacted 1").await;
        check("AUTH_operator", ID, "Contacted 1").await;
        check("AUTH_q", ID, "instance_not_found").await;
        check("AUTH_q", &ID.replace('7', "8"), "NeverContacted 0").await;
        check("AUTH_p", "web-1", "bad_instance_id").await;
    }
}
