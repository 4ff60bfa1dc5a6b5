//! Calls to the members of an etcd cluster: over TLS, as a user, and at another member when one is away.
//!
//! One member is asked by everybody until it fails; then another one is. A member fails that cannot be
//! reached, that says that it has no leader, which it is asked to say before it does anything (`hasleader`),
//! or that is silent while another one answers: it is stopped, or cut off.
//!
//! A question may be asked again anywhere. So where a member is silent for a moment the next one is asked as
//! well, without giving up the first, and whoever answers first is right. While there is no leader nobody
//! answers, and the question is there when there is a new one.
//!
//! A change is asked for again only if it is certain that nobody has begun to make it: no connection came
//! about, the member had no leader, or did not know the token. After any other failure it may have been made,
//! and the caller is told so. To have few such failures in a row, a change is asked for only where something
//! was answered since the last one: else a question goes ahead of it, and the change to whoever answers that.

pub(crate) mod settings;

mod connection;
mod failure;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::store::etcd::client::connection::channel;
use crate::store::etcd::client::failure::Failure;
use crate::store::etcd::client::settings::{EtcdError, EtcdSettings, EtcdUser};
use crate::store::etcd::wire::{
    AUTHENTICATE, AuthenticateRequest, AuthenticateResponse, RANGE, RangeRequest, RangeResponse,
};

/// How long one member may take for one answer. A healthy one needs milliseconds. A change that got no answer
/// is given up after this, when the others have about elected a new leader.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long a member may be silent before the next one is asked the same as well: longer than a healthy one
/// takes on a busy machine, so that few questions are asked twice.
const PATIENCE: Duration = Duration::from_millis(400);

/// How long one call may take in all: most elections of a leader are over by then. A relay that is cut off
/// from all members says so after this, and whoever asked it can ask another one.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// Likewise while nobody has answered anything since a call was silent to its end.
const SILENT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long members may take for a question that is asked to see whether they answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(2_500);

/// How long to wait before a member is asked again that had no leader.
const PAUSE: Duration = Duration::from_millis(100);

/// The largest answer: a page of a scan, all of whose records are as large as they may be.
pub(crate) const MAX_ANSWER_BYTES: usize = 512 << 20;

/// Whether a call changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It may be made any number of times.
    Repeatable,
    /// Once it may have been taken, it is not made again.
    Once,
}

#[derive(Debug)]
pub(crate) struct Client {
    members: Vec<Channel>,
    /// Counts up; the member that is asked is this one modulo their number.
    current: watch::Sender<usize>,
    /// The last turn at which something was answered.
    proven: AtomicUsize,
    /// Whether a call was silent to its end, and nobody has answered anything since.
    is_silent: AtomicBool,
    /// A key that the relay may read.
    readable: Bytes,
    user: Option<EtcdUser>,
    token: RwLock<Option<AsciiMetadataValue>>,
    /// Where a cluster in memory answers instead of members.
    #[cfg(test)]
    line: Option<crate::store::etcd::model::line::Line>,
}

impl Client {
    /// Connects to nobody yet: that happens with the first call, and again whenever it must.
    pub(crate) fn new(settings: &EtcdSettings) -> Result<Client, EtcdError> {
        if settings.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        let members = settings
            .endpoints
            .iter()
            .map(|endpoint| channel(endpoint, settings.tls.as_ref()))
            .collect::<Result<_, _>>()?;
        // Zero is nobody's turn.
        let current = watch::Sender::new(rand::random_range(1..=settings.endpoints.len()));
        let readable = [settings.prefix.as_bytes(), b"group"].concat().into();
        Ok(Client {
            members,
            current,
            proven: AtomicUsize::new(0),
            is_silent: AtomicBool::new(false),
            readable,
            user: settings.user.clone(),
            token: RwLock::default(),
            #[cfg(test)]
            line: None,
        })
    }

    /// Asks a cluster in memory, always in the same order.
    #[cfg(test)]
    pub(crate) fn by(line: crate::store::etcd::model::line::Line) -> Client {
        static NOBODY: std::sync::OnceLock<Channel> = std::sync::OnceLock::new();
        let nobody =
            || tonic::transport::Endpoint::from_static("http://127.0.0.1:9").connect_lazy();
        Client {
            members: vec![
                NOBODY.get_or_init(nobody).clone();
                crate::store::etcd::model::line::N_MEMBERS
            ],
            current: watch::Sender::new(1),
            proven: AtomicUsize::new(0),
            is_silent: AtomicBool::new(false),
            readable: crate::store::etcd::model::name(b"group"),
            user: None,
            token: RwLock::default(),
            line: Some(line),
        }
    }

    /// Makes one call, at as many members and as often as it may be made.
    pub(crate) async fn call<Q, A>(
        &self,
        path: &'static str,
        question: Q,
        effect: Effect,
    ) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let is_silent = self.is_silent.load(Ordering::Relaxed);
        let end = Instant::now() + if is_silent { SILENT_TIMEOUT } else { CALL_TIMEOUT };
        match effect {
            Effect::Repeatable => self.ask(path, question, end).await,
            Effect::Once => self.change(path, question, end).await,
        }
    }

    /// Asks something that only most members together can answer; whoever does not is left.
    pub(crate) async fn probe(&self) -> Result<(), Status> {
        self.probe_until(Instant::now() + PROBE_TIMEOUT).await
    }

    async fn probe_until(&self, end: Instant) -> Result<(), Status> {
        let question =
            RangeRequest { key: self.readable.clone(), count_only: true, ..Default::default() };
        self.ask::<_, RangeResponse>(RANGE, question, end).await.map(|_| ())
    }

    /// Asks the present member, and those after it one by one while it is silent.
    async fn ask<Q, A>(&self, path: &'static str, question: Q, end: Instant) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut n_unreachable = 0;
        let mut turn = self.turn();
        let mut pause = Duration::ZERO;
        let mut asked = Vec::with_capacity(self.members.len());
        let mut attempts = FuturesUnordered::new();
        loop {
            asked.push(turn);
            attempts.push(self.attempt(pause, turn, path, question.clone()));
            (turn, pause) = tokio::select! {
                // Who has answered is heard first, and the same events lead to the same questions.
                biased;
                Some((at, outcome)) = attempts.next() => {
                    let status = match outcome {
                        Ok(answer) => return Ok(answer),
                        Err(status) => status,
                    };
                    asked.retain(|turn| *turn != at);
                    let failure = self.note(at, &status);
                    let is_unreachable = failure == Failure::Unreachable;
                    n_unreachable = if is_unreachable { n_unreachable + 1 } else { 0 };
                    let is_hopeless = asked.is_empty() && n_unreachable >= self.members.len();
                    if failure == Failure::Answer || is_hopeless {
                        return Err(status);
                    }
                    let pause = pause_after(n_unreachable, self.members.len());
                    // With a new token the same member may be asked.
                    let next = if failure == Failure::BadToken { at } else { self.next(turn, &asked) };
                    (next, pause)
                }
                () = sleep(PATIENCE), if asked.len() < self.members.len() => {
                    (self.next(turn, &asked), Duration::ZERO)
                }
                () = sleep_until(end) => {
                    self.is_silent.store(true, Ordering::Relaxed);
                    return Err(silence());
                }
            };
        }
    }

    /// Asks a member that has just answered, and others only if that is sure to have had no effect.
    async fn change<Q, A>(&self, path: &'static str, question: Q, end: Instant) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        loop {
            if self.proven.load(Ordering::Relaxed) != self.turn() {
                self.probe_until(end).await?;
            }
            let attempt = self.attempt(Duration::ZERO, self.turn(), path, question.clone());
            let Ok((turn, outcome)) = timeout_at(end, attempt).await else { return Err(silence()) };
            let status = match outcome {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let failure = self.note(turn, &status);
            let may_have_effect = matches!(failure, Failure::Answer | Failure::Unknown);
            if may_have_effect || Instant::now() + PAUSE >= end {
                return Err(status);
            }
            if failure != Failure::Unreachable {
                sleep(PAUSE).await;
            }
        }
    }

    /// Asks one member once, after a pause, and says which one.
    async fn attempt<Q, A>(
        &self,
        pause: Duration,
        turn: usize,
        path: &'static str,
        question: Q,
    ) -> (usize, Result<A, Status>)
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let answer = async {
            #[cfg(test)]
            if let Some(line) = &self.line {
                return line.call(turn, question).await;
            }
            unary(self.member(turn), path, self.request(turn, question).await?).await
        };
        let outcome = timeout_at(Instant::now() + ATTEMPT_TIMEOUT, answer).await;
        let outcome = outcome.unwrap_or_else(|_| Err(silence()));
        if outcome.is_ok() {
            self.prove(turn);
        }
        (turn, outcome)
    }

    /// Sees to it that the next attempt fares better.
    fn note(&self, turn: usize, status: &Status) -> Failure {
        let failure = Failure::of(status);
        if failure == Failure::BadToken && self.user.is_some() {
            self.forget_token();
        } else if failure != Failure::Answer {
            self.leave(turn);
        }
        failure
    }

    /// The next turn of a member that is not being asked; there must be one.
    fn next(&self, turn: usize, asked: &[usize]) -> usize {
        let member = |turn: usize| turn % self.members.len();
        let is_asked = |turn: usize| asked.iter().any(|asked| member(*asked) == member(turn));
        (turn + 1..=turn + self.members.len()).find(|turn| !is_asked(*turn)).unwrap_or(turn + 1)
    }

    /// A message with what every call carries beside it.
    pub(crate) async fn request<Q>(&self, turn: usize, question: Q) -> Result<Request<Q>, Status> {
        let mut request = Request::new(question);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = self.token(turn).await? {
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }

    /// Which member is asked at present, as a number for [`Client::member`] and [`Client::leave`].
    pub(crate) fn turn(&self) -> usize {
        *self.current.borrow()
    }

    pub(crate) fn member(&self, turn: usize) -> Channel {
        self.members[turn % self.members.len()].clone()
    }

    /// The next calls go to the next member, unless somebody else has seen to that already.
    pub(crate) fn leave(&self, turn: usize) {
        self.current.send_if_modified(|current| {
            let is_current = *current == turn;
            *current += usize::from(is_current);
            is_current
        });
    }

    /// Returns when another member is asked than at this turn.
    pub(crate) async fn left(&self, turn: usize) {
        let mut current = self.current.subscribe();
        // The sender is this client's own.
        let _never_closed = current.wait_for(|current| *current != turn).await;
    }

    /// The member has answered, before those whose turn it was.
    fn prove(&self, turn: usize) {
        self.proven.fetch_max(turn, Ordering::Relaxed);
        self.is_silent.store(false, Ordering::Relaxed);
        if turn > self.turn() {
            self.current.send_if_modified(|current| {
                let is_later = turn > *current;
                *current = turn.max(*current);
                is_later
            });
        }
    }

    async fn token(&self, turn: usize) -> Result<Option<AsciiMetadataValue>, Status> {
        let Some(user) = &self.user else {
            return Ok(None);
        };
        let present = self.token.read().unwrap_or_else(PoisonError::into_inner).clone();
        if present.is_some() {
            return Ok(present);
        }
        let question =
            AuthenticateRequest { name: user.name.clone(), password: user.password.clone() };
        let answer: AuthenticateResponse =
            unary(self.member(turn), AUTHENTICATE, Request::new(question)).await?;
        let token: AsciiMetadataValue =
            answer.token.parse().map_err(|_| Status::internal("the token is not ASCII"))?;
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(Some(token))
    }

    pub(crate) fn forget_token(&self) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// How long to wait after a failure: not at all where members cannot be reached, until none could.
fn pause_after(n_unreachable: usize, n_members: usize) -> Duration {
    if (1..n_members).contains(&n_unreachable) { Duration::ZERO } else { PAUSE }
}

async fn unary<Q, A>(member: Channel, path: &'static str, request: Request<Q>) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(member).max_decoding_message_size(MAX_ANSWER_BYTES);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let codec = ProstCodec::default();
    let answer = grpc.unary(request, PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

fn silence() -> Status {
    Status::deadline_exceeded("no answer in time")
}

#[cfg(test)]
mod tests;
