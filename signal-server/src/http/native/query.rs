//! Query parameters, strictly: an unknown or repeated one is refused by name, for a misspelt `wait`
//! would otherwise be a busy loop.

use std::time::Duration;

use axum::http::{StatusCode, Uri};
use signal_protocol::handle::HandleId;
use url::form_urlencoded;

use crate::duration::parse_duration;
use crate::error::ApiError;
use crate::mailbox::limits::MAX_HANDLE_PAGE;

/// The longest that one request waits for a change. Proxies commonly cut a silent request after 60 s;
/// a client that wants to wait longer asks again.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(55);

/// The entries of a page unless told otherwise.
const DEFAULT_PAGE: usize = 100;

/// How much of a parameter's name is repeated in the complaint about it, in characters.
const MAX_NAME_CHARS: usize = 40;

/// How long to wait, and for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitQuery {
    /// Zero answers at once. More than [`MAX_WAIT`] is cut to it.
    pub(crate) wait: Duration,
    /// The version that the caller has seen. Without it, any state but pending ends the wait.
    pub(crate) version: Option<u64>,
}

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageQuery<M = HandleId> {
    pub(crate) limit: usize,
    pub(crate) marker: Option<M>,
}

impl WaitQuery {
    pub(crate) fn parse(uri: &Uri) -> Result<WaitQuery, ApiError> {
        let mut query = WaitQuery::default();
        let mut parameters = Parameters::of(uri);
        while let Some((name, value)) = parameters.next()? {
            match name.as_str() {
                "wait" => {
                    let wait = parse_duration(&value).map_err(|error| bad(&name, &error))?;
                    query.wait = wait.min(MAX_WAIT);
                }
                "version" => {
                    query.version = Some(value.parse().map_err(|error| bad(&name, &error))?);
                }
                _ => return Err(unknown(&name)),
            }
        }
        Ok(query)
    }
}

impl PageQuery {
    pub(crate) fn parse(uri: &Uri) -> Result<PageQuery, ApiError> {
        PageQuery::parse_with(uri, HandleId::parse)
    }
}

impl<M> PageQuery<M> {
    /// The markers of other lists are read by `parse_marker`.
    pub(crate) fn parse_with<E: std::fmt::Display>(
        uri: &Uri,
        parse_marker: fn(&str) -> Result<M, E>,
    ) -> Result<PageQuery<M>, ApiError> {
        let mut query = PageQuery { limit: DEFAULT_PAGE, marker: None };
        let mut parameters = Parameters::of(uri);
        while let Some((name, value)) = parameters.next()? {
            match name.as_str() {
                "limit" => {
                    let limit: usize = value.parse().map_err(|error| bad(&name, &error))?;
                    if !(1..=MAX_HANDLE_PAGE).contains(&limit) {
                        return Err(bad(&name, &format!("1 to {MAX_HANDLE_PAGE}")));
                    }
                    query.limit = limit;
                }
                "marker" => {
                    let marker = parse_marker(&value).map_err(|error| bad(&name, &error))?;
                    query.marker = Some(marker);
                }
                _ => return Err(unknown(&name)),
            }
        }
        Ok(query)
    }
}

/// Refuses every parameter but those of a signature.
pub(crate) fn none(uri: &Uri) -> Result<(), ApiError> {
    match Parameters::of(uri).next()? {
        Some((name, _)) => Err(unknown(&name)),
        None => Ok(()),
    }
}

/// The parameters of a query without those of a signature, which the permit has read.
struct Parameters<'a> {
    pairs: form_urlencoded::Parse<'a>,
    seen: Vec<String>,
}

impl<'a> Parameters<'a> {
    fn of(uri: &'a Uri) -> Parameters<'a> {
        let query = uri.query().unwrap_or_default();
        Parameters { pairs: form_urlencoded::parse(query.as_bytes()), seen: Vec::new() }
    }

    fn next(&mut self) -> Result<Option<(String, String)>, ApiError> {
        for (name, value) in self.pairs.by_ref() {
            if name.starts_with("temp_url_") {
                continue;
            }
            if self.seen.iter().any(|seen| *seen == name) {
                return Err(bad(&name, &"it stands twice"));
            }
            self.seen.push(name.clone().into_owned());
            return Ok(Some((name.into_owned(), value.into_owned())));
        }
        Ok(None)
    }
}

fn unknown(name: &str) -> ApiError {
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    let message = format!("unknown parameter \"{name}\"");
    ApiError::new(StatusCode::BAD_REQUEST, "unknown_parameter", message)
}

fn bad(name: &str, complaint: &dyn std::fmt::Display) -> ApiError {
    let message = format!("parameter {name}: {complaint}");
    ApiError::new(StatusCode::BAD_REQUEST, "bad_parameter", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str, expect: &str) {
        let uri: Uri = format!("/api/v1/handles/h?{query}").parse().expect("a URI");
        let seen = match WaitQuery::parse(&uri) {
            Ok(query) => format!("{:?} {:?}", query.wait, query.version),
            Err(error) => error.to_string(),
        };
        assert_eq!(seen, expect, "{query}");
    }

    #[test]
    fn a_wait_is_a_time_and_a_version() {
        check("", "0ns None");
        check("wait=30s&version=7", "30s Some(7)");
        check("wait=30", "30s None");
        check("wait=10h", "55s None");
        check("temp_url_sig=a&temp_url_expires=1&wait=1s", "1s None");
    }

    #[test]
    fn a_wrong_parameter_is_refused_by_name() {
        check("wiat=30s", "unknown_parameter: unknown parameter \"wiat\"");
        check("version=-1", "bad_parameter: parameter version: invalid digit found in string");
        check("wait=1s&wait=2s", "bad_parameter: parameter wait: it stands twice");
        let long = "x".repeat(3000);
        let cut = "x".repeat(MAX_NAME_CHARS);
        check(&long, &format!("unknown_parameter: unknown parameter \"{cut}\""));
    }

    #[test]
    fn a_page_is_bounded() {
        let parse = |query: &str| {
            let uri: Uri = format!("/api/v1/handles?{query}").parse().expect("a URI");
            PageQuery::parse(&uri).map(|page| page.limit).map_err(|error| error.to_string())
        };
        assert_eq!(parse(""), Ok(DEFAULT_PAGE));
        assert_eq!(parse("limit=1000"), Ok(1000));
        let complaint = "bad_parameter: parameter limit: 1 to 1000".to_owned();
        assert_eq!(parse("limit=0"), Err(complaint.clone()));
        assert_eq!(parse("limit=1001"), Err(complaint));
        assert!(parse("marker=h-1").is_err());
    }
}
