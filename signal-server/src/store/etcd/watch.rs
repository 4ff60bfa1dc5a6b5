//! Tells of changes that any relay made, as they happen.
//!
//! A watch goes on from the revision behind the last one that was told of, at whichever member answers. If
//! etcd has forgotten that revision (it is compacted), or if the watch is the first one, whoever is told has
//! to look for himself: [`Change::Missed`].
//!
//! A member that is stopped, or cut off from the others, keeps a watch open and says nothing. So while
//! nothing comes, the member is asked something that it can answer only together with the others; if it does
//! not, the watch goes on elsewhere.

use std::time::Duration;

use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::store::etcd::client::MAX_ANSWER_BYTES;
use crate::store::etcd::wire::{
    EventType, RANGE, RangeRequest, RangeResponse, WATCH, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use crate::store::etcd::{EtcdStore, end_of};
use crate::store::sharing::Change;
use crate::store::{Key, KeyKind};

/// How often a member that says nothing is asked whether it is there. One read a second for each relay and
/// kind is nothing to etcd, and a long-poll is blind for about this and the next.
const TEST_INTERVAL: Duration = Duration::from_secs(1);

/// How long it may take to answer, or to begin a watch.
const TEST_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long to wait before the next member is tried.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a watch ended.
enum End {
    /// Nobody wants to be told any more.
    Unwanted,
    /// The member is away, or has ended it.
    Lost(Status),
    /// The revision is compacted away.
    Compacted,
}

/// Tells `told` of changes of records of `kind` until nobody listens.
pub(crate) async fn watch(store: EtcdStore, kind: KeyKind, told: mpsc::Sender<Change>) {
    let mut watch = Watch { store, kind, told, next_revision: 0 };
    let mut is_lost = false;
    loop {
        let turn = watch.store.client.turn();
        match watch.run(turn).await {
            End::Unwanted => return,
            End::Compacted => watch.next_revision = 0,
            End::Lost(status) => {
                if !is_lost {
                    tracing::warn!(error = status.message(), "lost the watch at a member of etcd");
                }
                is_lost = true;
                if status.code() == tonic::Code::Unauthenticated {
                    watch.store.client.forget_token();
                }
                watch.store.client.leave(turn);
                tokio::select! {
                    () = watch.told.closed() => return,
                    () = sleep(PAUSE) => {}
                }
                continue;
            }
        }
        is_lost = false;
    }
}

struct Watch {
    store: EtcdStore,
    kind: KeyKind,
    told: mpsc::Sender<Change>,
    /// Zero where nothing is known yet.
    next_revision: i64,
}

impl Watch {
    async fn run(&mut self, turn: usize) -> End {
        let begun = timeout(TEST_TIMEOUT, self.begin(turn)).await;
        let mut answers = match begun.unwrap_or(Err(silence())) {
            Ok(answers) => answers,
            Err(status) => return End::Lost(status),
        };
        let mut tests = interval(TEST_INTERVAL);
        tests.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.told.closed() => return End::Unwanted,
                answer = answers.message() => {
                    let taken = match answer {
                        Ok(Some(answer)) => self.take(answer).await,
                        Ok(None) => Err(End::Lost(Status::unavailable("the watch was ended"))),
                        Err(status) => Err(End::Lost(status)),
                    };
                    if let Err(end) = taken {
                        return end;
                    }
                }
                _ = tests.tick() => {
                    // Changes wait in the stream meanwhile, for as long as an answer takes.
                    let tested = timeout(TEST_TIMEOUT, self.test(turn)).await;
                    if let Err(status) = tested.unwrap_or(Err(silence())) {
                        return End::Lost(status);
                    }
                }
            }
        }
    }

    async fn begin(&self, turn: usize) -> Result<Streaming<WatchResponse>, Status> {
        let first = self.store.name(&Key::new(self.kind, &[]));
        let create = WatchCreateRequest {
            range_end: end_of(&first),
            key: first,
            start_revision: self.next_revision,
        };
        // The stream of questions stays open, as the watch lasts no longer than it.
        let questions =
            stream::unfold(Some(WatchRequest { create: Some(create) }), |question| async {
                match question {
                    Some(question) => Some((question, None)),
                    None => std::future::pending().await,
                }
            });
        let client = &self.store.client;
        let request: Request<_> = client.request(turn, questions).await?;
        let mut grpc = Grpc::new(client.member(turn)).max_decoding_message_size(MAX_ANSWER_BYTES);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let path = PathAndQuery::from_static(WATCH);
        Ok(grpc.streaming(request, path, codec).await?.into_inner())
    }

    async fn test(&self, turn: usize) -> Result<(), Status> {
        let client = &self.store.client;
        // A key of the relay's own, as it may be allowed no others.
        let question = RangeRequest {
            key: self.store.name(&Key::new(self.kind, &[])),
            count_only: true,
            ..RangeRequest::default()
        };
        let request = client.request(turn, question).await?;
        let mut grpc = Grpc::new(client.member(turn));
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
        grpc.unary(request, PathAndQuery::from_static(RANGE), codec).await.map(|_| ())
    }

    async fn take(&mut self, answer: WatchResponse) -> Result<(), End> {
        if answer.compact_revision > 0 {
            return Err(End::Compacted);
        }
        if answer.canceled {
            return Err(End::Lost(Status::unavailable("the watch was cancelled")));
        }
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.created && self.next_revision == 0 {
            self.next_revision = revision + 1;
            self.tell(Change::Missed).await?;
        }
        for event in answer.events {
            let is_put = event.r#type == EventType::Put as i32;
            let Some(record) = event.kv else { continue };
            let Some(key) = self.store.key(&record.key) else { continue };
            let revision = record.mod_revision;
            let change = if is_put { Change::Put(key, record.value) } else { Change::Deleted(key) };
            self.tell(change).await?;
            // Events of one revision may be cut apart only by a loss of the connection, and then some are
            // told twice rather than not at all.
            self.next_revision = self.next_revision.max(revision);
        }
        Ok(())
    }

    async fn tell(&self, change: Change) -> Result<(), End> {
        self.told.send(change).await.map_err(|_| End::Unwanted)
    }
}

fn silence() -> Status {
    Status::deadline_exceeded("no answer in time")
}
