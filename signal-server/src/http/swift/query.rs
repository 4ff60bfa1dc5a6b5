//! The query of a listing.

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode, Uri};
use url::form_urlencoded;

use crate::error::ApiError;
use crate::mailbox::ListingQuery;
use crate::mailbox::limits::MAX_LISTING_ENTRIES;

/// How a listing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One name on each line.
    Text,
    Json,
}

/// Reads what is wanted and how. An unknown field is ignored, as Swift does.
pub(crate) fn parse(uri: &Uri, headers: &HeaderMap) -> Result<(ListingQuery, Format), ApiError> {
    let mut query = ListingQuery::default();
    let mut format = accepted(headers);
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "format" => format = named(&value)?,
            "prefix" => query.prefix = value.into_owned(),
            "marker" => query.marker = value.into_owned(),
            "end_marker" => query.end_marker = value.into_owned(),
            "delimiter" => query.delimiter = Some(value.into_owned()),
            "limit" => query.limit = Some(parse_limit(&value)?),
            "path" | "reverse" => {
                return Err(ApiError::new(
                    StatusCode::NOT_IMPLEMENTED,
                    "not_implemented",
                    format!("listings have no \"{name}\" here"),
                ));
            }
            _ => {}
        }
    }
    Ok((query, format))
}

fn named(name: &str) -> Result<Format, ApiError> {
    match name {
        "json" => Ok(Format::Json),
        "xml" => Err(ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            "format_unsupported",
            "listings are text or JSON here",
        )),
        _ => Ok(Format::Text),
    }
}

fn accepted(headers: &HeaderMap) -> Format {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first = accept.split([',', ';']).next().unwrap_or_default().trim();
    if first.eq_ignore_ascii_case("application/json") { Format::Json } else { Format::Text }
}

/// Swift answers 412 to a limit that it will not serve.
fn parse_limit(text: &str) -> Result<usize, ApiError> {
    match text.parse() {
        Ok(limit) if limit <= MAX_LISTING_ENTRIES => Ok(limit),
        _ => Err(ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "limit_out_of_range",
            format!("limit is a number from 0 to {MAX_LISTING_ENTRIES}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result is `format prefix|marker|end_marker|delimiter|limit`, or the code of the refusal.
    fn check(query: &str, accept: &'static str, expect: &str) {
        let uri: Uri = format!("/v1/AUTH_p/c?{query}").parse().expect("a valid URI");
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a valid header"));
        let seen = match parse(&uri, &headers) {
            Ok((query, format)) => format!(
                "{format:?} {}|{}|{}|{}|{}",
                query.prefix,
                query.marker,
                query.end_marker,
                query.delimiter.unwrap_or_default(),
                query.limit.map(|limit| limit.to_string()).unwrap_or_default()
            ),
            Err(error) => error.status().as_u16().to_string(),
        };
        assert_eq!(seen, expect, "{query}");
    }

    #[test]
    fn a_listing_is_asked_for_as_with_swift() {
        for (query, accept, expect) in [
            ("", "*/*", "Text ||||"),
            ("format=json", "*/*", "Json ||||"),
            ("", "application/json, text/plain", "Json ||||"),
            ("format=plain", "application/json", "Text ||||"),
            (
                "prefix=a%2Fb&marker=c+d&end_marker=e&delimiter=/&limit=7",
                "*/*",
                "Text a/b|c d|e|/|7",
            ),
            ("limit=10000", "*/*", "Text ||||10000"),
            ("limit=10001", "*/*", "412"),
            ("limit=-1", "*/*", "412"),
            ("limit=x", "*/*", "412"),
            ("format=xml", "*/*", "406"),
            ("reverse=true", "*/*", "501"),
            ("unknown=1", "*/*", "Text ||||"),
        ] {
            check(query, accept, expect);
        }
    }
}
