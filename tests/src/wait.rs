//! Waiting for something to become true, with a limit and a sentence for when it does not.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a probe looks. Short enough not to be felt, long enough to leave two cores to the programs
/// under test.
const PAUSE: Duration = Duration::from_millis(25);

/// Probes until it gives a value. `what` completes the sentence "waited … for".
pub fn until<T>(
    what: &str,
    limit: Duration,
    probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    until_with_pause(what, limit, PAUSE, probe)
}

/// Likewise, and lets so much time pass between two probes, where a probe costs what it looks at.
pub fn until_with_pause<T>(
    what: &str,
    limit: Duration,
    between: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().with_context(|| format!("while waiting for {what}"))? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        pause(between);
    }
}

/// Lets time pass, where time itself is what a scene is about.
#[expect(
    clippy::disallowed_methods,
    reason = "other processes cannot be awaited: this is the one place that looks again later"
)]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
