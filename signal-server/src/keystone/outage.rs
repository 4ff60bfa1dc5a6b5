//! Whether Keystone is there.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::keystone::PROBE_INTERVAL;

/// Whether a call may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Open,
    /// Keystone is away, and somebody else has just tried.
    Closed {
        away_for: Duration,
    },
}

/// What Keystone is asked to check. The relay's user may be allowed the one and not the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Tokens,
    Signatures,
}

#[derive(Debug)]
pub(super) struct Outages {
    tokens: Outage,
    signatures: Outage,
}

impl Outages {
    pub(super) fn new() -> Outages {
        Outages { tokens: Outage::new(), signatures: Outage::new() }
    }

    pub(super) fn of(&mut self, line: Line) -> &mut Outage {
        match line {
            Line::Tokens => &mut self.tokens,
            Line::Signatures => &mut self.signatures,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Line::Tokens => "tokens",
            Line::Signatures => "signatures",
        })
    }
}

/// Since when Keystone has been away, if it is.
#[derive(Debug)]
pub(super) struct Outage {
    since: Option<Away>,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    since: Instant,
    next_probe: Instant,
}

impl Outage {
    pub(super) fn new() -> Outage {
        Outage { since: None }
    }

    /// Lets everybody pass while Keystone is there, and one caller per [`PROBE_INTERVAL`] while it is not.
    pub(super) fn admit(&mut self, now: Instant) -> Passage {
        match &mut self.since {
            None => Passage::Open,
            Some(away) if now >= away.next_probe => {
                away.next_probe = now + PROBE_INTERVAL;
                Passage::Open
            }
            Some(away) => Passage::Closed { away_for: now.saturating_duration_since(away.since) },
        }
    }

    /// A call failed. Whether this was news.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let next_probe = now + PROBE_INTERVAL;
        match &mut self.since {
            Some(away) => {
                away.next_probe = next_probe;
                false
            }
            None => {
                self.since = Some(Away { since: now, next_probe });
                true
            }
        }
    }

    /// A call succeeded. How long Keystone was away, if this was news.
    pub(super) fn end(&mut self, now: Instant) -> Option<Duration> {
        let away = self.since.take()?;
        Some(now.saturating_duration_since(away.since))
    }

    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn away_for(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |away| now.saturating_duration_since(away.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_keystone_is_away_one_caller_per_interval_tries() {
        let (mut outage, start) = (Outage::new(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let closed = |seconds| Passage::Closed { away_for: Duration::from_secs(seconds) };
        assert_eq!(outage.admit(start), Passage::Open);
        assert!(outage.begin(start), "news");
        assert_eq!(outage.admit(after(1)), closed(1));
        assert_eq!(outage.admit(after(2)), Passage::Open);
        assert_eq!(outage.admit(after(2)), closed(2));
        assert!(!outage.begin(after(3)), "no news");
        assert_eq!(outage.admit(after(4)), closed(4));
        assert_eq!(outage.admit(after(5)), Passage::Open);
        assert_eq!(outage.end(after(6)), Some(Duration::from_secs(6)));
        assert_eq!(outage.end(after(6)), None);
        assert_eq!(outage.admit(after(6)), Passage::Open);
    }
}
