//! `/v1/{account}/{container}`: made by Heat for each stack, listed about once a second.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;

use crate::app::AppState;
use crate::error::ApiError;
use crate::http::permit::ContainerPermit;
use crate::http::permit::listing::ListingPermit;
use crate::http::swift::account::{json_listing, text_listing};
use crate::http::swift::query::{self, Format};
use crate::http::swift::time::{listing_time, x_timestamp};
use crate::http::swift::{KeyHeaders, empty, insert, insert_number, refuse_unsupported};
use crate::mailbox::error::MailboxError;
use crate::mailbox::{Container, ContainerUpdate, Creation, ListingEntry};

const X_VERSIONS_LOCATION: HeaderName = HeaderName::from_static("x-versions-location");

/// Who is expected to signal, with commas between them: the one property of their own that containers have
/// here. Heat sets it for `OS::Swift::Container`.
const X_EXPECT: HeaderName = HeaderName::from_static("x-container-meta-expect");
const X_REMOVE_EXPECT: HeaderName = HeaderName::from_static("x-remove-container-meta-expect");

/// One line of a JSON listing. The two forms have no key in common, so Swift needs no tag.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    /// An object. Heat reads the name alone.
    Object {
        name: &'a str,
        hash: &'a str,
        bytes: u64,
        content_type: &'a str,
        last_modified: String,
    },
    /// What several names begin with.
    Prefix { subdir: &'a str },
}

/// `PUT`: 201 for a new container, 202 for one that exists.
pub(crate) async fn put(
    permit: ContainerPermit,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    refuse_unsupported(&headers, &uri)?;
    let update = update_of(&headers)?;
    let creation = state.mailboxes.put_container(permit.container(), &update).await?;
    let status = match creation {
        Creation::Created => StatusCode::CREATED,
        Creation::Existed => StatusCode::ACCEPTED,
    };
    Ok(empty(status, HeaderMap::new()))
}

/// `POST`: changes keys, the versions location, and who is expected to signal.
pub(crate) async fn post(
    permit: ContainerPermit,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    refuse_unsupported(&headers, &uri)?;
    let update = update_of(&headers)?;
    state.mailboxes.update_container(permit.container(), &update).await?;
    Ok(empty(StatusCode::NO_CONTENT, HeaderMap::new()))
}

/// `HEAD`: Heat deletes a container when `X-Container-Object-Count` is 0.
pub(crate) async fn head(
    permit: ContainerPermit,
    State(state): State<AppState>,
) -> Result<Response, ApiError> {
    let container = state.mailboxes.container(permit.container()).await?;
    let mut headers = headers_of(&container);
    insert(&mut headers, CONTENT_TYPE, "text/plain; charset=utf-8");
    Ok(empty(StatusCode::NO_CONTENT, headers))
}

/// `GET`: pending signals and plain objects.
pub(crate) async fn get(
    permit: ListingPermit,
    State(state): State<AppState>,
    uri: Uri,
    request_headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, format) = query::parse(&uri, &request_headers)?;
    let ListingPermit::Full(permit) = permit else {
        return Ok(empty_listing(format));
    };
    let listed = async {
        let container = state.mailboxes.container(permit.container()).await?;
        state.stacks.asked_for(permit.container());
        let entries = state.mailboxes.list_objects(permit.container(), &query).await?;
        Ok((headers_of(&container), entries))
    };
    let (headers, entries) = match listed.await {
        Ok(listed) => listed,
        // Heat fails a stack over errors that last; it asks again a second after an empty listing.
        Err(error) if MailboxError::is_store_away(&error) => return Ok(empty_listing(format)),
        Err(error) => return Err(error.into()),
    };
    match format {
        Format::Text => {
            let names = entries.iter().map(|entry| match entry {
                ListingEntry::Object { name, .. } | ListingEntry::Prefix { name } => name.as_str(),
            });
            Ok(text_listing(headers, names))
        }
        Format::Json => {
            let entries: Vec<Entry<'_>> = entries.iter().map(json_entry).collect();
            Ok(json_listing(headers, &entries))
        }
    }
}

fn empty_listing(format: Format) -> Response {
    let mut headers = HeaderMap::new();
    insert_number(&mut headers, HeaderName::from_static("x-container-object-count"), 0);
    match format {
        Format::Text => text_listing(headers, std::iter::empty()),
        Format::Json => json_listing(headers, &[(); 0]),
    }
}

/// `DELETE`: 409 as long as something is in it.
pub(crate) async fn delete(
    permit: ContainerPermit,
    State(state): State<AppState>,
) -> Result<Response, ApiError> {
    state.mailboxes.delete_container(permit.container()).await?;
    Ok(empty(StatusCode::NO_CONTENT, HeaderMap::new()))
}

fn update_of(headers: &HeaderMap) -> Result<ContainerUpdate, ApiError> {
    let versions_location = headers
        .get(X_VERSIONS_LOCATION)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let keys = KeyHeaders::of_container().read(headers)?;
    Ok(ContainerUpdate { versions_location, keys, expected: expected_of(headers) })
}

fn expected_of(headers: &HeaderMap) -> Option<Vec<String>> {
    if headers.contains_key(X_REMOVE_EXPECT) {
        return Some(Vec::new());
    }
    let text = String::from_utf8_lossy(headers.get(X_EXPECT)?.as_bytes());
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    Some(names.map(str::to_owned).collect())
}

fn headers_of(container: &Container) -> HeaderMap {
    let mut headers = HeaderMap::new();
    insert_number(
        &mut headers,
        HeaderName::from_static("x-container-object-count"),
        container.n_objects,
    );
    insert_number(
        &mut headers,
        HeaderName::from_static("x-container-bytes-used"),
        container.n_bytes,
    );
    let created_at = x_timestamp(container.created_at);
    insert(&mut headers, HeaderName::from_static("x-timestamp"), &created_at);
    if let Some(location) = &container.versions_location {
        insert(&mut headers, X_VERSIONS_LOCATION, location);
    }
    if !container.expected.is_empty() {
        insert(&mut headers, X_EXPECT, &container.expected.join(","));
    }
    KeyHeaders::of_container().write(&container.keys, &mut headers);
    headers
}

fn json_entry(entry: &ListingEntry) -> Entry<'_> {
    match entry {
        ListingEntry::Object { name, info } => Entry::Object {
            name,
            hash: &info.etag,
            bytes: info.n_bytes,
            content_type: &info.content_type,
            last_modified: listing_time(info.modified_at),
        },
        ListingEntry::Prefix { name } => Entry::Prefix { subdir: name },
    }
}
