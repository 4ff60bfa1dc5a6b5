//! A pull on the console: one line when it begins, one every few seconds, one when it is done.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::console::Console;
use crate::engine::pull::PullProgress;
use crate::error::seconds;
use crate::image::Progress;
use crate::plan::ImageReference;

/// An engine reports many times a second; a person wants to see that it goes on.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct PullReporter<'a> {
    image: &'a ImageReference,
    console: &'a Console,
    state: Mutex<State>,
}

/// What was begun, and when the console heard of it last.
#[derive(Default)]
struct State {
    what: String,
    started_at: Option<Instant>,
    reported_at: Option<Instant>,
}

impl PullReporter<'_> {
    /// Says nothing yet: an image that is there needs no words.
    pub(crate) fn new<'a>(image: &'a ImageReference, console: &'a Console) -> PullReporter<'a> {
        PullReporter { image, console, state: Mutex::default() }
    }

    pub(crate) fn report(&self, progress: Progress<'_>, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Begun(what) => {
                self.console.say(&what);
                *state = State { what, started_at: Some(now), reported_at: Some(now) };
            }
            Progress::Moving(progress) => {
                if state.reported_at.is_some_and(|before| now - before < REPORT_INTERVAL) {
                    return;
                }
                state.reported_at = Some(now);
                self.console.say(&format!("{}: {}", state.what, in_words(progress)));
            }
            Progress::TryingAgain(error) => {
                self.console.say(&format!("{}; trying again", error.brief()));
            }
            Progress::Done => {
                let took = state.started_at.map_or(Duration::ZERO, |started_at| now - started_at);
                self.console.say(&format!("pulled {} in {}", self.image, seconds(took)));
            }
        }
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
        let reporter = PullReporter::new(&image, &console);
        reporter.report(Progress::Begun("pulling web:1".to_owned()), start);
        for tenth in 0..120 {
            let now = start + Duration::from_millis(tenth * 100);
            reporter.report(Progress::Moving(PullProgress::default()), now);
        }
        reporter.report(Progress::Done, start + Duration::from_secs(12));
        console.flush(Duration::from_secs(10));
        let written = std::fs::read_to_string(path).unwrap();
        assert_eq!(written.lines().count(), 4, "{written}");
    }
}
