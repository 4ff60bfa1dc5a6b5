//! Whether Keystone is there.
//!
//! A caller's question that is not answered says little: Keystone stumbles over some of them, and whoever
//! found one such question could ask it again and again. So it only raises a doubt, and what counts is a
//! question of the relay's own, which has nothing of a caller's in it:
//!
//! | state | who may ask | what comes next |
//! |---|---|---|
//! | there | everybody | a caller's question fails: doubted |
//! | doubted, the relay asks | everybody | the relay's question is answered: there; fails: away |
//! | away | nobody but the relay, every [`PROBE_INTERVAL`] while callers come | the relay's question is answered: there |

use std::time::Duration;

use tokio::time::Instant;

use crate::keystone::{CALL_TIMEOUT, PROBE_INTERVAL};

/// Whether a call may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Open,
    /// Keystone was away, and it is time to ask the relay's own question.
    Probe,
    /// Keystone is away, and the relay has just tried.
    Closed {
        away_for: Duration,
    },
}

#[derive(Debug)]
pub(super) struct Outage {
    state: State,
    /// Before this the relay asks no question of its own: it does so now, or did so just before.
    next_probe: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    There,
    Doubted { since: Instant },
    Away { since: Instant },
}

impl Outage {
    pub(super) fn new() -> Outage {
        Outage { state: State::There, next_probe: None }
    }

    /// How long Keystone has been away, if nothing can be asked now.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Away { since } if !self.is_due(now) => {
                Some(now.saturating_duration_since(since))
            }
            _ => None,
        }
    }

    /// Lets everybody pass while Keystone is there. While it is not, one caller at a time is told to have
    /// the relay's own question asked first.
    pub(super) fn admit(&mut self, now: Instant) -> Passage {
        match (self.state, self.closed_for(now)) {
            (_, Some(away_for)) => Passage::Closed { away_for },
            (State::Away { .. }, None) => {
                self.next_probe = Some(now + CALL_TIMEOUT);
                Passage::Probe
            }
            (_, None) => Passage::Open,
        }
    }

    /// A caller's question was not answered. Whether the relay's own has to be asked now.
    pub(super) fn doubt(&mut self, now: Instant) -> bool {
        if matches!(self.state, State::Away { .. }) || !self.is_due(now) {
            return false;
        }
        if matches!(self.state, State::There) {
            self.state = State::Doubted { since: now };
        }
        self.next_probe = Some(now + CALL_TIMEOUT);
        true
    }

    /// The relay's own question failed. Whether this was news.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let (since, is_news) = match self.state {
            State::There => (now, true),
            State::Doubted { since } => (since, true),
            State::Away { since } => (since, false),
        };
        self.state = State::Away { since };
        self.next_probe = Some(now + PROBE_INTERVAL);
        is_news
    }

    /// The relay's own question was answered. How long Keystone was away, if this was news.
    pub(super) fn end(&mut self, now: Instant) -> Option<Duration> {
        let away_for = match self.state {
            State::Away { since } => Some(now.saturating_duration_since(since)),
            State::There | State::Doubted { .. } => None,
        };
        *self = Outage { state: State::There, next_probe: Some(now + PROBE_INTERVAL) };
        away_for
    }

    #[cfg(test)]
    pub(super) fn is_doubted(&self) -> bool {
        matches!(self.state, State::Doubted { .. })
    }

    /// Otherwise nobody should wait for an answer who can do without.
    pub(super) fn is_there(&self) -> bool {
        matches!(self.state, State::There)
    }

    pub(super) fn away_for(&self, now: Instant) -> Duration {
        match self.state {
            State::There => Duration::ZERO,
            State::Doubted { since } | State::Away { since } => {
                now.saturating_duration_since(since)
            }
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next_probe.is_none_or(|next_probe| now >= next_probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(seconds: u64) -> Passage {
        Passage::Closed { away_for: Duration::from_secs(seconds) }
    }

    #[test]
    fn while_keystone_is_away_the_relay_asks_once_per_interval() {
        let (mut outage, start) = (Outage::new(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(outage.admit(start), Passage::Open);
        assert!(outage.doubt(start), "nothing was asked yet");
        assert_eq!(outage.admit(after(1)), Passage::Open, "until the relay knows");
        assert!(!outage.doubt(after(1)), "the relay asks already");
        assert!(outage.begin(after(1)), "news");
        assert_eq!(outage.admit(after(2)), closed(2));
        assert_eq!(outage.admit(after(3)), Passage::Probe);
        assert_eq!(outage.admit(after(6)), closed(6), "it is under way");
        assert!(!outage.begin(after(7)), "no news");
        assert!(!outage.doubt(after(8)), "no doubt either");
        assert_eq!(outage.admit(after(8)), closed(8));
        assert_eq!(outage.admit(after(9)), Passage::Probe);
        assert_eq!(outage.end(after(9)), Some(Duration::from_secs(9)));
        assert_eq!(outage.end(after(9)), None);
        assert_eq!(outage.admit(after(9)), Passage::Open);
    }

    #[test]
    fn whoever_fails_again_and_again_has_the_relay_ask_once_per_interval() {
        let (mut outage, start) = (Outage::new(), Instant::now());
        let mut n_probes = 0;
        for tenths in 0..100 {
            let now = start + Duration::from_millis(100 * tenths);
            assert_eq!(outage.admit(now), Passage::Open);
            if outage.doubt(now) {
                n_probes += 1;
                assert_eq!(outage.end(now), None);
            }
            assert_eq!(outage.away_for(now), Duration::ZERO);
        }
        assert_eq!(n_probes, 5, "in ten seconds");
    }

    #[test]
    fn a_question_of_the_relays_that_never_ends_is_asked_anew() {
        let (mut outage, start) = (Outage::new(), Instant::now());
        assert!(outage.doubt(start));
        assert!(!outage.doubt(start + CALL_TIMEOUT / 2));
        assert!(outage.doubt(start + CALL_TIMEOUT));
        assert_eq!(outage.away_for(start + CALL_TIMEOUT), CALL_TIMEOUT, "since the first doubt");
    }
}
