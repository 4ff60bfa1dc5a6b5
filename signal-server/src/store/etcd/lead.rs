//! Which of several relays does a job: whoever holds the job's key in etcd.
//!
//! The key is made under a lease, on condition that there is none, and the lease is renewed again and again.
//! A relay that dies stops renewing, the key goes with its lease, and another relay makes it. A relay that
//! stops in an orderly way gives its lease back, so that nobody has to wait.
//!
//! A relay that is cut off, or stopped for a while, must know by itself that its time is over: it counts from
//! before it asked for the lease, and etcd from after, so it stops first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::store::etcd::client::{Client, Effect};
use crate::store::etcd::wire::{
    Compare, CompareResult, CompareTarget, Compared, LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE,
    LeaseGrantRequest, LeaseRequest, LeaseResponse, OneRequest, PutRequest, TXN, TxnRequest,
    TxnResponse,
};
use crate::store::sharing::Leadership;

/// How long a job stays with a relay of which nothing is heard. etcd grants no less than two seconds, and
/// an election of its own leader takes up to that; with this a lease outlives one.
const LEASE_SECONDS: u32 = 4;

/// How often a lease is renewed, and how often a relay looks whether a job is free.
const PAUSE: Duration = Duration::from_secs(1);

/// How long one renewal may take before another member is asked.
const RENEWAL_TIMEOUT: Duration = Duration::from_millis(1_200);

/// How long to wait before that, as it may have no leader either.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Takes part in the choice until nobody wants to know any more.
pub(crate) fn campaign(client: Arc<Client>, name: Bytes) -> Leadership {
    let (held, seen) = watch::channel(false);
    tokio::spawn(async move {
        let candidate = Candidate { client, name };
        loop {
            tokio::select! {
                () = held.closed() => return,
                () = candidate.one_term(&held) => {}
            }
        }
    });
    Leadership::of(seen)
}

struct Candidate {
    client: Arc<Client>,
    name: Bytes,
}

/// Gives a lease back when it is dropped, with whatever hangs on it.
struct Lease {
    client: Arc<Client>,
    id: i64,
    /// When the others may have it.
    ends_at: Instant,
}

impl Candidate {
    /// Tries to get the job once, and if so keeps it until it is lost.
    async fn one_term(&self, held: &watch::Sender<bool>) {
        // One that was long in coming may be over.
        if let Some(mut lease) = self.elect().await.filter(Lease::lasts) {
            held.send_replace(true);
            lease.keep().await;
            held.send_replace(false);
            tracing::warn!("lost the lease of a job: another relay does it now");
        }
        sleep(PAUSE).await;
    }

    async fn elect(&self) -> Option<Lease> {
        let is_taken = self.client.call::<_, TxnResponse>(TXN, self.look(), Effect::Repeatable);
        if !is_taken.await.ok()?.succeeded {
            return None;
        }
        let asked_at = Instant::now();
        let question = LeaseGrantRequest { ttl: i64::from(LEASE_SECONDS) };
        // One that is granted and not heard of ends by itself.
        let granted: LeaseResponse =
            self.client.call(LEASE_GRANT, question, Effect::Repeatable).await.ok()?;
        let lease =
            Lease { client: Arc::clone(&self.client), id: granted.id, ends_at: end(asked_at) };
        let mut take = self.look();
        let value = Bytes::new();
        let put = PutRequest { key: self.name.clone(), value, lease: granted.id };
        take.success.push(OneRequest::Put(put).into());
        // Where the answer is lost the lease is given back, and with it the key.
        let taken: TxnResponse = self.client.call(TXN, take, Effect::Once).await.ok()?;
        taken.succeeded.then_some(lease)
    }

    /// Succeeds if nobody has the job.
    fn look(&self) -> TxnRequest {
        let is_free = Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Version as i32,
            key: self.name.clone(),
            compared: Some(Compared::Version(0)),
        };
        TxnRequest { compare: vec![is_free], ..TxnRequest::default() }
    }
}

impl Lease {
    fn lasts(&self) -> bool {
        Instant::now() < self.ends_at
    }

    /// Renews the lease until that fails for as long as it lasts.
    async fn keep(&mut self) {
        let mut pause = PAUSE;
        loop {
            // Whoever cannot renew it is to stop when it ends, and not a pause later.
            sleep_until(self.ends_at.min(Instant::now() + pause)).await;
            if !self.lasts() {
                return;
            }
            let (asked_at, turn) = (Instant::now(), self.client.turn());
            let until = self.ends_at.min(asked_at + RENEWAL_TIMEOUT);
            let renewed = tokio::select! {
                renewed = timeout_at(until, self.renew(turn)) => renewed.ok(),
                () = self.client.left(turn) => None,
            };
            pause = match renewed {
                Some(Ok(true)) => {
                    self.ends_at = end(asked_at);
                    PAUSE
                }
                // Gone: somebody has revoked it, or time is not what it was.
                Some(Ok(false)) => return,
                Some(Err(status)) if status.code() == tonic::Code::Unauthenticated => {
                    self.client.forget_token();
                    RETRY_PAUSE
                }
                Some(Err(_)) | None => {
                    self.client.leave(turn);
                    RETRY_PAUSE
                }
            };
        }
    }

    /// Whether there is such a lease; then it lasts anew.
    async fn renew(&self, turn: usize) -> Result<bool, Status> {
        let id = self.id;
        let question = stream::once(async move { LeaseRequest { id } });
        let request: Request<_> = self.client.request(turn, question).await?;
        let mut grpc = Grpc::new(self.client.member(turn));
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let codec = ProstCodec::<LeaseRequest, LeaseResponse>::default();
        let path = PathAndQuery::from_static(LEASE_KEEP_ALIVE);
        let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
        let answer = answers.message().await?;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (client, id) = (Arc::clone(&self.client), self.id);
        // Without a runtime the process is ending, and the lease ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let question = LeaseRequest { id };
                let _it_ends_by_itself = client
                    .call::<_, LeaseResponse>(LEASE_REVOKE, question, Effect::Repeatable)
                    .await;
            });
        }
    }
}

fn end(asked_at: Instant) -> Instant {
    asked_at + Duration::from_secs(u64::from(LEASE_SECONDS))
}
