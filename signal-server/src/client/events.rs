//! Reads server-sent events: lines `field: value`, an empty line ends an event.

use std::collections::VecDeque;

use reqwest::Response;

/// The longest line, in bytes: the largest signal with its JSON around it.
const MAX_LINE_BYTES: usize = 2 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Takes events off the body of an answer.
#[derive(Debug)]
pub(crate) struct EventReader {
    response: Response,
    parser: Parser,
}

impl EventReader {
    pub(crate) fn new(response: Response) -> EventReader {
        EventReader { response, parser: Parser::default() }
    }

    /// The next event; nothing when the stream has ended or broken.
    pub(crate) async fn next(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Some(event);
            }
            let bytes = self.response.chunk().await.ok()??;
            self.parser.take(&bytes)?;
        }
    }
}

#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    event: ServerEvent,
    ready: VecDeque<ServerEvent>,
}

impl Parser {
    /// Nothing when a line is too long.
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                return None;
            }
            self.line.extend_from_slice(part);
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take_line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            }
        }
        Some(())
    }

    fn take_line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if !event.name.is_empty() {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.event.id),
            "event" => value.clone_into(&mut self.event.name),
            "data" => self.event.data.push_str(value),
            // A comment, which keeps the connection alive, or a field of a later version.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&str], expect: &[(&str, &str, &str)]) {
        let mut parser = Parser::default();
        for chunk in chunks {
            parser.take(chunk.as_bytes()).expect("short lines");
        }
        let seen: Vec<(&str, &str, &str)> = parser
            .ready
            .iter()
            .map(|event| (event.id.as_str(), event.name.as_str(), event.data.as_str()))
            .collect();
        assert_eq!(seen, expect, "{chunks:?}");
    }

    #[test]
    fn events_are_put_together_from_any_pieces() {
        check(&["id: 1\nevent: a\ndata: x\n\n"], &[("1", "a", "x")]);
        check(
            &["id: 1\nev", "ent: a\r\ndata:x\n", "\nevent: b\n\n"],
            &[("1", "a", "x"), ("", "b", "")],
        );
        check(&[":\n\n: comment\n\nretry: 3\n\n"], &[]);
        check(&["event: a\ndata: unfinished\n"], &[]);
    }

    #[test]
    fn a_line_without_end_is_not_kept_for_ever() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; MAX_LINE_BYTES];
        assert!(parser.take(&chunk).is_some());
        assert!(parser.take(b"x").is_none());
    }
}
