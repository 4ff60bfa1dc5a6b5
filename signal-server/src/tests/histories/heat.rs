//! Heat, as far as signals know it: it keeps them by their ids, and a signal with an id that is there takes the
//! place of the former one. What goes wrong on the way is drawn for each request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use signal_protocol::signal::Signal;
use tokio::time::sleep;

use crate::forward::queue::Suspect;
use crate::forward::record::EntryRecord;
use crate::forward::upstream::{Attempt, Upstream};
use crate::tests::histories::life::Life;

/// The resource of which Heat knows nothing any more.
pub(super) const GONE: &str = "gone";

/// The longest time that a request, an answer or a sender's patience takes.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// A signal at Heat: of which resource, and by which id.
pub(super) type Place = (String, String);

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is taken and answered, each in its time.
    Taken,
    /// Nobody hears of it.
    Lost,
    /// 503, by whoever stands before Heat.
    Unavailable,
    /// 500.
    Choked,
    /// It is taken, and the answer is lost.
    AnswerLost,
    /// It is taken when its sender has given up.
    Late,
    /// It is taken and answered, and comes once more, as by a proxy that repeats requests.
    Twice,
    /// Its sender dies before it is taken.
    SenderDiesBefore,
    /// Its sender dies when it has been taken, before the answer.
    SenderDiesAfter,
}

/// All but [`Fate::Taken`].
const FAULTS: [Fate; 8] = [
    Fate::Lost,
    Fate::Unavailable,
    Fate::Choked,
    Fate::AnswerLost,
    Fate::Late,
    Fate::Twice,
    Fate::SenderDiesBefore,
    Fate::SenderDiesAfter,
];

#[derive(Debug)]
pub(super) struct Heat {
    /// How often something goes wrong, in requests of a thousand.
    faults: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dice: StdRng,
    signals: BTreeMap<Place, Kept>,
    n_requests: usize,
}

/// A signal that Heat keeps.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    content: Bytes,
    /// How often it became another one.
    pub(super) n_effects: usize,
}

impl Heat {
    pub(super) fn new(seed: u64, faults: u32) -> Heat {
        let dice = StdRng::seed_from_u64(seed);
        let state = State { dice, signals: BTreeMap::new(), n_requests: 0 };
        Heat { faults, state: Mutex::new(state) }
    }

    /// The way to it of this process.
    pub(super) fn reached_by(self: &Arc<Self>, life: &Arc<Life>) -> Line {
        Line { heat: self.clone(), life: life.clone() }
    }

    pub(super) fn signals(&self) -> BTreeMap<Place, Kept> {
        self.state().signals.clone()
    }

    /// How many requests were made, the same for the same history.
    pub(super) fn n_requests(&self) -> usize {
        self.state().n_requests
    }

    fn draw(&self) -> (Fate, [Duration; 2]) {
        let mut state = self.state();
        state.n_requests += 1;
        let roll = state.dice.random_range(0..1_000);
        let fault = FAULTS[state.dice.random_range(0..FAULTS.len())];
        let fate = if roll < self.faults { fault } else { Fate::Taken };
        let mut delay = || MAX_DELAY.mul_f64(state.dice.random::<f64>().powi(3));
        (fate, [delay(), delay()])
    }

    fn take(&self, resource: &str, body: &Bytes) {
        let id = Signal::parse(body).ok().and_then(|signal| signal.id);
        let mut state = self.state();
        // Heat gives the next number to a signal that has none, each time that it comes.
        let id = id.unwrap_or_else(|| (state.signals.len() + 1).to_string());
        let new = Kept { content: body.clone(), n_effects: 0 };
        let kept = state.signals.entry((resource.to_owned(), id)).or_insert(new);
        if kept.n_effects == 0 || kept.content != *body {
            kept.content = body.clone();
            kept.n_effects += 1;
        }
    }

    fn take_later(self: &Arc<Self>, resource: &str, body: &Bytes, delay: Duration) {
        let (heat, resource, body) = (self.clone(), resource.to_owned(), body.clone());
        tokio::spawn(async move {
            sleep(delay).await;
            heat.take(&resource, &body);
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to Heat of one process.
#[derive(Debug)]
pub(super) struct Line {
    heat: Arc<Heat>,
    life: Arc<Life>,
}

impl Line {
    /// What is on its way arrives; but nobody is there to hear the answer.
    async fn die(&self) -> Attempt {
        self.life.end();
        std::future::pending().await
    }
}

#[async_trait]
impl Upstream for Line {
    fn has_api(&self) -> bool {
        true
    }

    fn takes_path(&self, _path_and_query: &str) -> bool {
        true
    }

    async fn send(&self, entry: &EntryRecord, body: &Bytes) -> Attempt {
        if self.life.has_ended() {
            return std::future::pending().await;
        }
        let resource = entry.target.resource.as_str();
        let (fate, [before, after]) = self.heat.draw();
        let silence = || Attempt::TryAgain("no answer".to_owned(), Suspect::Signal);
        sleep(before).await;
        if resource == GONE {
            return Attempt::Refused("404".to_owned());
        }
        match fate {
            Fate::Lost => {}
            Fate::Unavailable => return Attempt::TryAgain("503".to_owned(), Suspect::Upstream),
            Fate::Choked => return Attempt::TryAgain("500".to_owned(), Suspect::Signal),
            Fate::Late => self.heat.take_later(resource, body, MAX_DELAY),
            Fate::SenderDiesBefore => return self.die().await,
            Fate::Taken | Fate::AnswerLost | Fate::Twice | Fate::SenderDiesAfter => {
                self.heat.take(resource, body);
            }
        }
        if matches!(fate, Fate::SenderDiesAfter) {
            return self.die().await;
        }
        if matches!(fate, Fate::Twice) {
            self.heat.take_later(resource, body, after);
        }
        sleep(after).await;
        match fate {
            Fate::Taken | Fate::Twice => Attempt::Delivered("200".to_owned()),
            _ => silence(),
        }
    }
}
