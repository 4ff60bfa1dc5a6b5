//! A container's output on the console, for as long as anybody wants it.
//!
//! The engine ends the stream when the container stops, also when it will start it again, and when
//! the engine itself restarts. So the pump asks again, from the last line's timestamp on, and passes
//! over the lines of that moment that it has shown already: Podman's timestamps have whole seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::console::Console;
use crate::engine::logs::{LogLine, LogStart};
use crate::engine::{ContainerStatus, Engine};

/// How often a container that has stopped is looked at.
const STOPPED_POLL: Duration = Duration::from_millis(500);

/// Output that a running container wrote just now may still be on its way.
const RUNNING_GRACE: Duration = Duration::from_millis(300);

/// Reading the rest of the log of a container that has ended.
const ENDED_GRACE: Duration = Duration::from_secs(3);

/// The task that pumps. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Pump {
    task: JoinHandle<()>,
    /// How many streams have been read to their end.
    n_streams: watch::Receiver<u64>,
}

impl Pump {
    /// `label` is what each line begins with, if anything.
    pub(crate) fn start(
        engine: Arc<dyn Engine>,
        console: Console,
        container: String,
        start: LogStart,
        label: Option<String>,
    ) -> Pump {
        let (sender, n_streams) = watch::channel(0);
        let output = Output { console, label };
        let task = tokio::spawn(pump(engine, output, container, start, sender));
        Pump { task, n_streams }
    }

    /// Waits until what the container has written so far is on its way to the console.
    pub(crate) async fn catch_up(&mut self, liveliness: Liveliness) {
        let n_seen = *self.n_streams.borrow();
        let n_wanted = match liveliness {
            Liveliness::Running => return tokio::time::sleep(RUNNING_GRACE).await,
            Liveliness::Ended => 1,
            Liveliness::Looping => n_seen + 1,
        };
        let read_all = self.n_streams.wait_for(|n_streams| *n_streams >= n_wanted);
        drop(tokio::time::timeout(ENDED_GRACE, read_all).await);
    }

    /// When the container is gone.
    pub(crate) async fn ended(&mut self) {
        // How the task ended makes no difference.
        drop((&mut self.task).await);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a container is about to do, which decides when its output has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveliness {
    Running,
    Ended,
    /// It ended, and was or will be started again.
    Looping,
}

/// The console, and what a line of this container begins with there.
struct Output {
    console: Console,
    label: Option<String>,
}

impl Output {
    fn line(&self, text: &[u8]) {
        let Some(label) = &self.label else {
            return self.console.container_line(text, Instant::now());
        };
        let line = [label.as_bytes(), b" | ", text].concat();
        self.console.container_line(&line, Instant::now());
    }
}

async fn pump(
    engine: Arc<dyn Engine>,
    output: Output,
    container: String,
    mut start: LogStart,
    n_streams: watch::Sender<u64>,
) {
    let mut position = Position::default();
    let mut restart_count = 0;
    loop {
        position.resume();
        let mut on_line = |line: LogLine<'_>| {
            if position.is_new(&line) {
                output.line(line.text);
            }
        };
        let followed = engine.follow(&container, start.clone(), &mut on_line).await;
        if let Err(error) = &followed {
            let error = crate::error::chain(error);
            tracing::debug!(container.id = container, error, "container's output broke off");
        }
        if let Some(at) = position.at {
            start = LogStart::Since(at);
        }
        if followed.is_ok() {
            n_streams.send_modify(|n_streams| *n_streams += 1);
        }
        match wait_for_another_start(engine.as_ref(), &container, restart_count).await {
            Some(n) => restart_count = n,
            None => return,
        }
    }
}

/// Waits until the container runs, or ran meanwhile; answers how often it was restarted. None when
/// the container is gone.
async fn wait_for_another_start(
    engine: &dyn Engine,
    container: &str,
    restarts_before: i64,
) -> Option<i64> {
    loop {
        tokio::time::sleep(STOPPED_POLL).await;
        // An engine that does not answer is on its way back, or the watch will tell.
        let Ok(found) = engine.inspect(container).await else {
            continue;
        };
        let found = found?;
        let is_running = found.state.status == ContainerStatus::Running;
        if is_running || found.restart_count > restarts_before {
            return Some(found.restart_count);
        }
    }
}

/// Which lines have been shown.
#[derive(Debug, Default)]
struct Position {
    at: Option<jiff::Timestamp>,
    /// Lines of that moment that have been shown.
    n_shown: u64,
    /// Lines of that moment that the stream will repeat.
    n_to_skip: u64,
}

impl Position {
    fn resume(&mut self) {
        self.n_to_skip = self.n_shown;
    }

    fn is_new(&mut self, line: &LogLine<'_>) -> bool {
        let Some(at) = line.at else {
            return true;
        };
        match self.at {
            Some(last) if at < last => return self.n_to_skip == 0,
            Some(last) if at == last => {
                if self.n_to_skip > 0 {
                    self.n_to_skip -= 1;
                    return false;
                }
                self.n_shown += 1;
            }
            _ => {
                self.at = Some(at);
                self.n_shown = 1;
                self.n_to_skip = 0;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows streams of (second, text) and gives back what was new.
    fn check(streams: &[&[(i64, &str)]], expect: &[&str]) {
        let mut position = Position::default();
        let mut shown = Vec::new();
        for stream in streams {
            position.resume();
            for (second, text) in *stream {
                let at = jiff::Timestamp::from_second(*second).ok();
                if position.is_new(&LogLine { at, text: text.as_bytes() }) {
                    shown.push(*text);
                }
            }
        }
        assert_eq!(shown, expect, "{streams:?}");
    }

    #[test]
    fn a_stream_that_is_taken_up_again_repeats_nothing_and_loses_nothing() {
        check(&[&[(1, "a"), (2, "b")]], &["a", "b"]);
        check(&[&[(1, "a"), (2, "b")], &[(2, "b"), (3, "c")]], &["a", "b", "c"]);
        check(
            &[&[(1, "a"), (2, "b"), (2, "c")], &[(2, "b"), (2, "c"), (2, "d"), (3, "e")]],
            &["a", "b", "c", "d", "e"],
        );
        check(&[&[(1, "a")], &[(1, "a")], &[(1, "a"), (1, "b")]], &["a", "b"]);
        // The engine ignored the start, and sends everything again.
        check(&[&[(1, "a"), (2, "b")], &[(1, "a"), (2, "b"), (3, "c")]], &["a", "b", "c"]);
        // Standard output and standard error are not in order within a moment.
        check(
            &[&[(2, "a"), (1, "late"), (2, "b")], &[(2, "a"), (2, "b"), (2, "c")]],
            &["a", "late", "b", "c"],
        );
    }
}
