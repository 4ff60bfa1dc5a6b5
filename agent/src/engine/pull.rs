//! The stream of a pull: one JSON object per line, each a report or the failure.
//!
//! The engine answers 200 before it has asked the registry anything, so a pull that failed looks
//! like one that worked until its last line is read: `{"error": …, "errorDetail": …}`. A stream
//! that just ends is a success only if nothing else was said, so the caller looks the image up
//! afterwards. Why a pull failed is said in words only, and those of Docker, Podman and their
//! libraries; [`PullProblem::of`] knows them.

mod problem;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use crate::engine::Credentials;
pub use crate::engine::pull::problem::PullProblem;

/// Lines longer than this are not reports of a pull; real ones have 300 bytes.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Layers beyond this many are not counted; the engines allow 127.
const MAX_LAYERS: usize = 256;

/// How far a pull is. Layers that were there already count as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    pub n_layers: usize,
    pub n_layers_done: usize,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// The `X-Registry-Auth` header: JSON in base64 for URLs, with its padding.
pub(crate) fn registry_auth(credentials: &Credentials) -> HeaderValue {
    let Credentials { username, password } = credentials;
    let json = serde_json::json!({ "username": username, "password": password });
    let encoded = URL_SAFE.encode(json.to_string());
    let mut value =
        HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Reads the stream piece by piece, however the network cut it.
#[derive(Debug, Default)]
pub(crate) struct PullStream {
    line: Vec<u8>,
    layers: BTreeMap<String, Layer>,
    failure: Option<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    bytes_done: u64,
    bytes_total: u64,
    is_done: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    status: Option<String>,
    id: Option<String>,
    #[serde(rename = "progressDetail")]
    progress: Option<ProgressDetail>,
    error: Option<String>,
    #[serde(rename = "errorDetail")]
    error_detail: Option<ErrorDetail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProgressDetail {
    current: Option<u64>,
    total: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorDetail {
    message: Option<String>,
}

impl PullStream {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() <= MAX_LINE_BYTES {
                self.line.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                self.end_of_line();
            }
        }
    }

    /// The end of the stream: the failure, if one was reported. A last line without a line feed
    /// counts.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        self.end_of_line();
        self.failure.map_or(Ok(()), Err)
    }

    pub(crate) fn progress(&self) -> PullProgress {
        let layers = self.layers.values();
        PullProgress {
            n_layers: self.layers.len(),
            n_layers_done: layers.clone().filter(|layer| layer.is_done).count(),
            bytes_done: layers.clone().map(|layer| layer.bytes_done).sum(),
            bytes_total: layers.map(|layer| layer.bytes_total).sum(),
        }
    }

    /// A line that is not a report is passed over: the last word is the image's presence.
    fn end_of_line(&mut self) {
        if let Ok(report) = serde_json::from_slice(&self.line) {
            self.take(report);
        }
        self.line.clear();
    }

    fn take(&mut self, report: Report) {
        let message = report.error_detail.and_then(|detail| detail.message).or(report.error);
        if let Some(message) = message {
            self.failure.get_or_insert(message);
            return;
        }
        let (Some(id), Some(status)) = (report.id, report.status) else {
            return;
        };
        let is_done =
            matches!(status.as_str(), "Pull complete" | "Already exists" | "Download complete");
        let is_layer = is_done
            || matches!(
                status.as_str(),
                "Pulling fs layer"
                    | "Waiting"
                    | "Downloading"
                    | "Extracting"
                    | "Verifying Checksum"
            );
        if !is_layer || (self.layers.len() >= MAX_LAYERS && !self.layers.contains_key(&id)) {
            return;
        }
        let layer = self.layers.entry(id).or_default();
        layer.is_done |= is_done;
        if status == "Downloading"
            && let Some(progress) = report.progress
        {
            layer.bytes_done = progress.current.unwrap_or(layer.bytes_done);
            layer.bytes_total = progress.total.unwrap_or(layer.bytes_total);
        }
        if layer.is_done {
            layer.bytes_done = layer.bytes_total;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_in_the_stream_is_found_however_it_is_cut() {
        let stream = b"{\"status\":\"Pulling from a\",\"id\":\"1\"}\r\n{\"errorDetail\":{\"message\":\"unexpected EOF\"},\"error\":\"unexpected EOF\"}";
        for cut in 0..stream.len() {
            let mut pull = PullStream::default();
            pull.feed(&stream[..cut]);
            pull.feed(&stream[cut..]);
            assert_eq!(pull.finish(), Err("unexpected EOF".to_owned()), "cut at {cut}");
        }
    }

    #[test]
    fn progress_counts_layers_and_bytes() {
        let mut pull = PullStream::default();
        pull.feed(b"{\"status\":\"Pulling from library/a\",\"id\":\"latest\"}\n");
        pull.feed(b"{\"status\":\"Already exists\",\"progressDetail\":{},\"id\":\"a1\"}\n");
        pull.feed(
            b"{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"a2\"}\nnot json\n",
        );
        pull.feed(b"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":10,\"total\":40},\"id\":\"a2\"}\n");
        let expect =
            PullProgress { n_layers: 2, n_layers_done: 1, bytes_done: 10, bytes_total: 40 };
        assert_eq!(pull.progress(), expect);

        pull.feed(b"{\"status\":\"Pull complete\",\"id\":\"a2\"}\n");
        let expect =
            PullProgress { n_layers: 2, n_layers_done: 2, bytes_done: 40, bytes_total: 40 };
        assert_eq!(pull.progress(), expect);
        assert_eq!(pull.finish(), Ok(()));
    }

    #[test]
    fn lines_and_layers_are_bounded() {
        let mut pull = PullStream::default();
        for _ in 0..1000 {
            pull.feed(&[b'x'; 1024]);
        }
        assert!(pull.line.len() <= MAX_LINE_BYTES);
        pull.feed(b"\n");
        for n in 0..2 * MAX_LAYERS {
            pull.feed(format!("{{\"status\":\"Waiting\",\"id\":\"{n}\"}}\n").as_bytes());
        }
        assert_eq!(pull.progress().n_layers, MAX_LAYERS);
    }
}
