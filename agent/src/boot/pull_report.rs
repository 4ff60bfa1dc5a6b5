//! A pull on the console: one line when it begins, one every few seconds, one when it is done.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::console::Console;
use crate::engine::pull::PullProgress;
use crate::error::seconds;
use crate::plan::ImageReference;

/// An engine reports many times a second; a person wants to see that it goes on.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct PullReporter<'a> {
    image: &'a ImageReference,
    console: &'a Console,
    started_at: Instant,
    reported_at: Mutex<Instant>,
}

impl PullReporter<'_> {
    pub(crate) fn new<'a>(
        image: &'a ImageReference,
        console: &'a Console,
        now: Instant,
    ) -> PullReporter<'a> {
        console.say(&format!("pulling {image}"));
        PullReporter { image, console, started_at: now, reported_at: Mutex::new(now) }
    }

    pub(crate) fn report(&self, progress: PullProgress, now: Instant) {
        let mut reported_at = self.reported_at.lock().unwrap_or_else(PoisonError::into_inner);
        if now - *reported_at < REPORT_INTERVAL {
            return;
        }
        *reported_at = now;
        self.console.say(&format!("pulling {}: {}", self.image, in_words(progress)));
    }

    pub(crate) fn done(&self, now: Instant) {
        self.console.say(&format!("pulled {} in {}", self.image, seconds(now - self.started_at)));
    }
}

fn in_words(progress: PullProgress) -> String {
    let PullProgress { n_layers, n_layers_done, bytes_done, bytes_total } = progress;
    format!(
        "{n_layers_done} of {n_layers} layers, {} of {} MB",
        megabytes(bytes_done),
        megabytes(bytes_total)
    )
}

/// One decimal place, without floating point.
fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_words() {
        let progress = PullProgress {
            n_layers: 5,
            n_layers_done: 2,
            bytes_done: 12_345_678,
            bytes_total: 40_000_000,
        };
        assert_eq!(in_words(progress), "2 of 5 layers, 12.3 of 40.0 MB");
    }

    #[test]
    fn an_engine_that_reports_all_the_time_gets_a_line_now_and_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let console = Console::new(&path);
        let image = ImageReference {
            registry: None,
            repository: "web".to_owned(),
            tag: Some("1".to_owned()),
            digest: None,
        };
        let start = Instant::now();
        let reporter = PullReporter::new(&image, &console, start);
        for tenth in 0..120 {
            let now = start + Duration::from_millis(tenth * 100);
            reporter.report(PullProgress::default(), now);
        }
        reporter.done(start + Duration::from_secs(12));
        console.flush(Duration::from_secs(10));
        let written = std::fs::read_to_string(path).unwrap();
        assert_eq!(written.lines().count(), 4, "{written}");
    }
}
