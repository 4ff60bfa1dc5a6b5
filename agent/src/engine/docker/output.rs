//! What containers write, over the Engine API.

use reqwest::Method;

use crate::engine::docker::{DockerEngine, LOOKUP_TIMEOUT};
use crate::engine::http::broken;
use crate::engine::logs::{Demultiplexer, Excerpt, Lines, LogLine, LogRange, LogStart};
use crate::engine::{Engine, EngineError, Operation};

impl DockerEngine {
    pub(super) async fn read_excerpt(
        &self,
        container: &str,
        range: LogRange,
    ) -> Result<String, EngineError> {
        let tail = match range {
            LogRange::First => "all".to_owned(),
            LogRange::LastLines(n) => n.to_string(),
        };
        let has_tty = self.has_tty(container).await?;
        let query = [("stdout", "true"), ("stderr", "true"), ("tail", tail.as_str())];
        let request = self.http.request(Method::GET, &["containers", container, "logs"], &query);
        let mut response =
            self.http.send(Operation::ReadLogs, request.timeout(LOOKUP_TIMEOUT)).await?;

        let mut excerpt = Excerpt::new(range);
        let mut demultiplexer = Demultiplexer::default();
        while !excerpt.is_complete() {
            let chunk =
                response.chunk().await.map_err(|error| broken(Operation::ReadLogs, error))?;
            let Some(bytes) = chunk else { break };
            if has_tty {
                excerpt.push(&bytes);
            } else {
                demultiplexer.feed(&bytes, |_, piece| excerpt.push(piece));
            }
        }
        Ok(excerpt.into_text())
    }

    pub(super) async fn stream_lines(
        &self,
        container: &str,
        start: LogStart,
        is_followed: bool,
        on_line: &mut (dyn for<'l> FnMut(LogLine<'l>) + Send),
    ) -> Result<(), EngineError> {
        let mut query = vec![
            ("stdout", "true"),
            ("stderr", "true"),
            ("timestamps", "true"),
            ("follow", if is_followed { "true" } else { "false" }),
        ];
        let (since, tail);
        match start {
            LogStart::Beginning => {}
            LogStart::NewOnly => query.push(("tail", "0")),
            LogStart::LastLines(n_lines) => {
                tail = n_lines.to_string();
                query.push(("tail", &tail));
            }
            LogStart::Since(at) => {
                since = format!("{}.{:09}", at.as_second(), at.subsec_nanosecond());
                query.push(("since", &since));
            }
        }
        let has_tty = self.has_tty(container).await?;
        let request = self.http.request(Method::GET, &["containers", container, "logs"], &query);
        let mut response = self.http.send(Operation::ReadLogs, request).await?;

        let mut demultiplexer = Demultiplexer::default();
        let mut lines = [Lines::default(), Lines::default()];
        let ended = loop {
            match response.chunk().await {
                Ok(Some(bytes)) if has_tty => lines[0].feed(&bytes, on_line),
                Ok(Some(bytes)) => {
                    demultiplexer.feed(&bytes, |piece, bytes| {
                        if piece.begins_message {
                            lines[piece.stream].begin_message();
                        }
                        lines[piece.stream].feed(bytes, on_line);
                    });
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(broken(Operation::ReadLogs, error)),
            }
        };
        for lines in &mut lines {
            lines.finish(on_line);
        }
        ended
    }

    async fn has_tty(&self, container: &str) -> Result<bool, EngineError> {
        Ok(self.inspect(container).await?.is_some_and(|inspection| inspection.has_tty))
    }
}
