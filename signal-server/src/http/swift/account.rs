//! `/v1/{account}`: the keys that sign URLs, and the list of containers.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use crate::app::AppState;
use crate::error::ApiError;
use crate::http::permit::AccountPermit;
use crate::http::swift::query::{self, Format};
use crate::http::swift::time::{listing_time, x_timestamp};
use crate::http::swift::{KeyHeaders, empty, insert, insert_number, refuse_unsupported};
use crate::mailbox::Account;

/// One container in a JSON listing.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    name: &'a str,
    count: u64,
    bytes: u64,
    last_modified: String,
}

/// `HEAD`: Heat asks for the key that signs URLs, and makes one if there is none. There always is one.
pub(crate) async fn head(
    permit: AccountPermit,
    State(state): State<AppState>,
) -> Result<Response, ApiError> {
    let account = state.mailboxes.account(permit.account()).await?;
    Ok(empty(StatusCode::NO_CONTENT, headers_of(&account)))
}

/// `POST`: sets or removes keys.
pub(crate) async fn post(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    refuse_unsupported(&headers, &uri)?;
    let update = KeyHeaders::of_account().read(&headers)?;
    state.mailboxes.set_account_keys(permit.account(), &update).await?;
    Ok(empty(StatusCode::NO_CONTENT, HeaderMap::new()))
}

/// `GET`: the containers.
pub(crate) async fn get(
    permit: AccountPermit,
    State(state): State<AppState>,
    uri: Uri,
    request_headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, format) = query::parse(&uri, &request_headers)?;
    let account = state.mailboxes.existing_account(permit.account()).await?;
    let containers = state.mailboxes.list_containers(permit.account(), &query).await?;
    // A look makes nothing; only whoever asks for the key gets one.
    let headers = account.as_ref().map_or_else(no_account, headers_of);
    match format {
        Format::Text => {
            let names = containers.iter().map(|entry| entry.name.as_str());
            Ok(text_listing(headers, names))
        }
        Format::Json => {
            let entries: Vec<Entry<'_>> = containers
                .iter()
                .map(|entry| Entry {
                    name: entry.name.as_str(),
                    count: entry.n_objects,
                    bytes: entry.n_bytes,
                    last_modified: listing_time(entry.created_at),
                })
                .collect();
            Ok(json_listing(headers, &entries))
        }
    }
}

/// What is said of an account in which there is nothing.
fn no_account() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in ["x-account-container-count", "x-account-object-count", "x-account-bytes-used"] {
        insert_number(&mut headers, HeaderName::from_static(name), 0);
    }
    headers
}

fn headers_of(account: &Account) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert_number(
        &mut headers,
        HeaderName::from_static("x-account-container-count"),
        account.n_containers,
    );
    insert_number(
        &mut headers,
        HeaderName::from_static("x-account-object-count"),
        account.n_objects,
    );
    insert_number(&mut headers, HeaderName::from_static("x-account-bytes-used"), account.n_bytes);
    let created_at = x_timestamp(account.created_at);
    insert(&mut headers, HeaderName::from_static("x-timestamp"), &created_at);
    KeyHeaders::of_account().write(&account.keys, &mut headers);
    headers
}

/// One name on each line; 204 when there is none.
pub(crate) fn text_listing<'a>(
    mut headers: HeaderMap,
    names: impl Iterator<Item = &'a str>,
) -> Response {
    insert(&mut headers, CONTENT_TYPE, "text/plain; charset=utf-8");
    let mut text = String::new();
    for name in names {
        text.push_str(name);
        text.push('\n');
    }
    let status = if text.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::OK };
    let mut response = empty(status, headers);
    *response.body_mut() = text.into();
    response
}

/// A list, empty or not.
pub(crate) fn json_listing(mut headers: HeaderMap, entries: &impl Serialize) -> Response {
    insert(&mut headers, CONTENT_TYPE, "application/json; charset=utf-8");
    // Structs of strings and numbers always serialise.
    let json = serde_json::to_vec(entries).unwrap_or_default();
    let mut response = empty(StatusCode::OK, headers);
    *response.body_mut() = json.into();
    response
}
