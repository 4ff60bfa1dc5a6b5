//! The way of one relay to the members of a [`Cluster`], and what goes wrong on it.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{ConnectError, Status};

use crate::store::etcd::model::Cluster;
use crate::store::etcd::wire::{
    OneRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};

pub(crate) const N_MEMBERS: usize = 3;

/// How long what is late may take to arrive: also when its sender has given up.
const MAX_LATENESS: Duration = Duration::from_secs(4);

/// How often something goes wrong, in requests of a thousand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// No connection comes about, or the member says that there is no leader.
    pub(crate) refused: u32,
    /// The connection is lost before the request is taken, or after.
    pub(crate) lost: u32,
    /// The member that is ill says nothing.
    pub(crate) silent: u32,
    /// The member says that it has too much to do, or no space.
    pub(crate) full: u32,
    /// Old revisions are forgotten just before.
    pub(crate) compacted: u32,
    /// A request, and its answer, each take up to `max_delay`.
    pub(crate) delayed: u32,
    pub(crate) max_delay: Duration,
}

/// What the relay does wrong with requests, as a careless change to what makes them could bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bend {
    /// Commits that travel together expect nothing.
    ForgetsCompares,
    /// Of commits that travel together each gets the answer of another one.
    MixesCommits,
    /// Of reads that travel together likewise.
    MixesReads,
    /// It makes a commit once more whose answer was lost.
    RepeatsCommits,
    /// Each page of a scan is of another moment.
    ReadsPagesApart,
    /// A scan of what is forgotten ends there.
    EndsScansEarly,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) cluster: Arc<Cluster>,
    /// Which relay it is.
    pub(crate) number: u64,
    /// Whether the relay is dead: then nothing comes or goes.
    dead: watch::Receiver<bool>,
    rates: Rates,
    ill_member: usize,
    bend: Option<Bend>,
    dice: Mutex<StdRng>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Unreachable,
    NoLeader,
    Lost,
    AnswerLost,
    /// Nothing is said, and nothing done.
    Silent,
    /// Nothing is said, and it is done some time.
    Late,
    Busy,
    Full,
}

/// What is asked.
#[derive(Clone, Debug)]
enum Question {
    Range(RangeRequest),
    Txn(TxnRequest),
}

#[derive(Debug)]
enum Answer {
    Range(RangeResponse),
    Txn(TxnResponse),
}

impl Line {
    pub(crate) fn new(
        cluster: &Arc<Cluster>,
        number: u64,
        dead: watch::Receiver<bool>,
        seed: u64,
        rates: Rates,
        bend: Option<Bend>,
    ) -> Line {
        let mut dice = StdRng::seed_from_u64(seed);
        let ill_member = dice.random_range(0..N_MEMBERS);
        let dice = Mutex::new(dice);
        Line { cluster: Arc::clone(cluster), number, dead, rates, ill_member, bend, dice }
    }

    /// Asks the member whose turn it is. The messages are those of the call.
    pub(crate) async fn call<Q: Any + Send, A: Any + Send>(
        &self,
        turn: usize,
        question: Q,
    ) -> Result<A, Status> {
        let unknown = || Status::unimplemented("nobody asks that here");
        let question = (Box::new(question) as Box<dyn Any + Send>)
            .downcast::<RangeRequest>()
            .map(|range| Question::Range(*range))
            .or_else(|other| other.downcast::<TxnRequest>().map(|txn| Question::Txn(*txn)))
            .map_err(|_| unknown())?;
        let answer: Box<dyn Any + Send> = match self.ask(turn % N_MEMBERS, question).await? {
            Answer::Range(range) => Box::new(range),
            Answer::Txn(txn) => Box::new(txn),
        };
        answer.downcast().map(|answer| *answer).map_err(|_| unknown())
    }

    async fn ask(&self, member: usize, question: Question) -> Result<Answer, Status> {
        self.check_life()?;
        let (fate, [before, after]) = self.draw(member);
        let pause = |delay: Option<Duration>| async move {
            if let Some(delay) = delay {
                sleep(delay).await;
            }
        };
        pause(before).await;
        self.check_life()?;
        match fate {
            Fate::Unreachable => return Err(unreachable()),
            Fate::NoLeader => return Err(Status::unavailable("etcdserver: no leader")),
            Fate::Lost => return Err(Status::unknown("transport error")),
            Fate::Busy => {
                return Err(Status::resource_exhausted("etcdserver: too many requests"));
            }
            Fate::Full if matches!(question, Question::Txn(_)) => {
                let text = "etcdserver: mvcc: database space exceeded";
                return Err(Status::resource_exhausted(text));
            }
            Fate::Silent => return std::future::pending().await,
            Fate::Late => {
                self.do_later(question);
                return std::future::pending().await;
            }
            Fate::Answered | Fate::AnswerLost | Fate::Full => {}
        }
        let mut answer = self.answer(question.clone());
        if fate == Fate::AnswerLost && self.bend == Some(Bend::RepeatsCommits) {
            answer = self.answer(question);
        } else if fate == Fate::AnswerLost {
            return Err(Status::unavailable("etcdserver: request timed out"));
        }
        pause(after).await;
        self.check_life()?;
        answer
    }

    fn answer(&self, question: Question) -> Result<Answer, Status> {
        match question {
            Question::Range(mut range) => {
                if self.bend == Some(Bend::ReadsPagesApart) {
                    range.revision = 0;
                }
                match self.cluster.range(&range) {
                    Err(_) if self.bend == Some(Bend::EndsScansEarly) => {
                        Ok(Answer::Range(RangeResponse::default()))
                    }
                    answer => answer.map(Answer::Range),
                }
            }
            Question::Txn(mut txn) => {
                if self.bend == Some(Bend::ForgetsCompares) {
                    txn.success.iter_mut().for_each(forget_compares);
                }
                let mut answer = self.cluster.txn(self.number, &txn)?;
                let is_mixed = match self.bend {
                    Some(Bend::MixesCommits) => {
                        answer.responses.iter().any(|one| one.txn.is_some())
                    }
                    Some(Bend::MixesReads) => {
                        answer.responses.iter().all(|one| one.range.is_some())
                    }
                    _ => false,
                };
                if is_mixed {
                    // The first one of a group of commits belongs to nobody.
                    let first = usize::from(self.bend == Some(Bend::MixesCommits));
                    answer.responses[first..].reverse();
                }
                Ok(Answer::Txn(answer))
            }
        }
    }

    fn do_later(&self, question: Question) {
        let Question::Txn(txn) = question else { return };
        let (cluster, author) = (Arc::clone(&self.cluster), self.number);
        let delay = MAX_LATENESS.mul_f64(self.dice().random());
        tokio::spawn(async move {
            sleep(delay).await;
            let _nobody_listens = cluster.txn(author, &txn);
        });
    }

    fn draw(&self, member: usize) -> (Fate, [Option<Duration>; 2]) {
        let rates = self.rates;
        let mut dice = self.dice();
        if dice.random_range(0..1_000) < rates.compacted {
            self.cluster.compact();
        }
        let mut delay = || {
            let is_delayed = dice.random_range(0..1_000) < rates.delayed;
            is_delayed.then(|| rates.max_delay.mul_f64(dice.random()))
        };
        let delays = [delay(), delay()];
        let silent = if member == self.ill_member { rates.silent } else { 0 };
        let faults = [
            (rates.refused, [Fate::Unreachable, Fate::NoLeader]),
            (rates.lost, [Fate::Lost, Fate::AnswerLost]),
            (silent, [Fate::Silent, Fate::Late]),
            (rates.full, [Fate::Busy, Fate::Full]),
        ];
        let mut roll = dice.random_range(0..1_000);
        for (rate, fates) in faults {
            if roll < rate {
                return (fates[dice.random_range(0..2)], delays);
            }
            roll -= rate;
        }
        (Fate::Answered, delays)
    }

    fn check_life(&self) -> Result<(), Status> {
        match *self.dead.borrow() {
            true => Err(unreachable()),
            false => Ok(()),
        }
    }

    fn dice(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As where nobody listens.
fn unreachable() -> Status {
    Status::from_error(Box::new(ConnectError("connection refused".into())))
}

fn forget_compares(operation: &mut RequestOp) {
    if let Some(OneRequest::Txn(inner)) = &mut operation.request {
        inner.compare.clear();
    }
}
