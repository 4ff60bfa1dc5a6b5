//! Calls to the members of an etcd cluster: over TLS, as a user, and at another member when one is away.
//!
//! One member is asked until it fails; then the next one is, by everybody. A member fails that cannot be
//! reached, that does not answer in time (it is stopped, or cut off), or that says that it has no leader,
//! which it is asked to say before it does anything (`hasleader`).
//!
//! A question may be asked again anywhere. A change is asked for again only if it is certain that nobody has
//! begun to make it: no connection came about, the member had no leader, or did not know the token. After
//! any other failure it may have been made, and the caller is told so.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, sleep, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Request, Status};
use tonic_prost::ProstCodec;

use crate::store::etcd::wire::{AUTHENTICATE, AuthenticateRequest, AuthenticateResponse};

/// How long one member may take for one answer. A healthy one needs milliseconds; a member that is stopped
/// or cut off is left after this, when the others have about elected a new leader.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long one call may take in all: with this, a request at the relay has its 503 well before its sender
/// gives up.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait before a member is asked again that had no leader.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a connection on which calls wait is tested. etcd refuses clients that do so more often
/// (`--grpc-keepalive-min-time`, 5 s).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);

/// How long the answer to such a test may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest answer: a page of a scan, all of whose records are as large as they may be.
pub(crate) const MAX_ANSWER_BYTES: usize = 512 << 20;

/// Where the cluster is, and how it is spoken to.
#[derive(Clone, Debug, Default)]
pub struct EtcdSettings {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// What every key of the relay begins with.
    pub prefix: String,
    /// With this, members are spoken to over TLS.
    pub tls: Option<EtcdTls>,
    /// A user and the password.
    pub user: Option<EtcdUser>,
}

/// What TLS to etcd is made of, in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Who may have signed the members' certificates.
    pub ca: Vec<u8>,
    /// The relay's own certificate and key, where members want one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Who the relay is for etcd.
#[derive(Clone)]
pub struct EtcdUser {
    pub name: String,
    pub password: String,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    #[error("no endpoint of etcd is given")]
    NoEndpoint,
    #[error("\"{endpoint}\" is not HOST:PORT of a member of etcd")]
    BadEndpoint { endpoint: String, source: Box<tonic::transport::Error> },
    #[error("the certificates for etcd cannot be used")]
    Tls { source: Box<tonic::transport::Error> },
    #[error("the prefix of keys in etcd is longer than {limit} bytes")]
    PrefixTooLong { limit: usize },
}

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
    current: AtomicUsize,
    user: Option<EtcdUser>,
    token: RwLock<Option<AsciiMetadataValue>>,
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
        let current = AtomicUsize::new(rand::random_range(0..settings.endpoints.len()));
        Ok(Client { members, current, user: settings.user.clone(), token: RwLock::default() })
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
        let end = Instant::now() + CALL_TIMEOUT;
        let mut n_unreachable = 0;
        loop {
            let turn = self.current.load(Ordering::Relaxed);
            let left = end.saturating_duration_since(Instant::now()).min(ATTEMPT_TIMEOUT);
            let attempt = self.attempt(turn, path, question.clone());
            let status = match timeout(left, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            let failure = Failure::of(&status);
            if failure == Failure::BadToken && self.user.is_some() {
                self.forget_token();
            } else if failure != Failure::Answer {
                self.leave(turn);
            }
            let is_without_effect = failure != Failure::Unknown;
            n_unreachable = if failure == Failure::Unreachable { n_unreachable + 1 } else { 0 };
            let may_repeat = is_without_effect || effect == Effect::Repeatable;
            let is_hopeless = failure == Failure::Answer || n_unreachable >= self.members.len();
            if is_hopeless || !may_repeat || Instant::now() + PAUSE >= end {
                return Err(status);
            }
            if failure != Failure::Unreachable {
                sleep(PAUSE).await;
            }
        }
    }

    async fn attempt<Q, A>(&self, turn: usize, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let request = self.request(turn, question).await?;
        unary(self.member(turn), path, request).await
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
        self.current.load(Ordering::Relaxed)
    }

    pub(crate) fn member(&self, turn: usize) -> Channel {
        self.members[turn % self.members.len()].clone()
    }

    /// The next calls go to the next member, unless somebody else has seen to that already.
    pub(crate) fn leave(&self, turn: usize) {
        let _someone_else_did = self.current.compare_exchange(
            turn,
            turn.wrapping_add(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
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

fn channel(address: &str, tls: Option<&EtcdTls>) -> Result<Channel, EtcdError> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let bad =
        |source| EtcdError::BadEndpoint { endpoint: address.to_owned(), source: Box::new(source) };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(bad)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    if let Some(tls) = tls {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint
            .tls_config(config)
            .map_err(|source| EtcdError::Tls { source: Box::new(source) })?;
    }
    Ok(endpoint.connect_lazy())
}

/// What a failure says about the member, and about the change that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// There was no connection: nothing was sent.
    Unreachable,
    /// The member does nothing at present, and has done nothing.
    NoLeader,
    /// The member does not know us, and has done nothing.
    BadToken,
    /// The member is well and says no.
    Answer,
    /// Nobody knows what became of it.
    Unknown,
}

impl Failure {
    fn of(status: &Status) -> Failure {
        let text = status.message();
        if has_no_connection(status) {
            return Failure::Unreachable;
        }
        if text.starts_with("etcdserver: no leader") {
            return Failure::NoLeader;
        }
        let is_bad_token = status.code() == Code::Unauthenticated
            || text.starts_with("etcdserver: revision of auth store is old");
        if is_bad_token {
            return Failure::BadToken;
        }
        match status.code() {
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::NotFound
            | Code::Unimplemented
            | Code::DataLoss => Failure::Answer,
            _ => Failure::Unknown,
        }
    }
}

fn has_no_connection(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("EtcdTls(..)")
    }
}

impl std::fmt::Debug for EtcdUser {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EtcdUser").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_certainly_had_no_effect_is_called_so() {
        for (code, message, expect) in [
            (Code::Unavailable, "etcdserver: no leader", Failure::NoLeader),
            (Code::Unavailable, "etcdserver: request timed out", Failure::Unknown),
            (Code::Unavailable, "etcdserver: leader changed", Failure::Unknown),
            (Code::DeadlineExceeded, "no answer in time", Failure::Unknown),
            (Code::Unknown, "transport error", Failure::Unknown),
            (Code::Cancelled, "", Failure::Unknown),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Failure::BadToken),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Failure::Answer),
            (Code::PermissionDenied, "etcdserver: permission denied", Failure::Answer),
        ] {
            assert_eq!(Failure::of(&Status::new(code, message)), expect, "{message}");
        }
    }
}
