//! Tells of changes that any relay made, as they happen.
//!
//! A watch goes on from the revision behind the last one that was told of, at whichever member answers. If
//! etcd has forgotten that revision (it is compacted), or if the watch is the first one, whoever is told has
//! to look for himself: [`Change::Missed`].
//!
//! A member that is stopped, or cut off from the others, keeps a watch open and says nothing. So a watch goes
//! on elsewhere as soon as calls are made elsewhere; and it sees to it that there is a call again and again,
//! of something that a member can answer only together with the others. If nobody answers that, whoever is
//! told has to look as well: he sees that there is nothing to be seen here, and can ask another relay.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::store::etcd::client::{Client, MAX_ANSWER_BYTES};
use crate::store::etcd::wire::{EventType, WATCH, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::store::etcd::{EtcdStore, end_of};
use crate::store::sharing::Change;
use crate::store::{Key, KeyKind};

/// How long after one answer a member is asked for the next one. One read a second for each relay and kind is
/// nothing to etcd, and a long-poll at a relay with nothing else to do is blind for about this.
const TEST_PAUSE: Duration = Duration::from_secs(1);

/// How long it may take to begin a watch.
const BEGIN_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long to wait before the next member is tried.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a watch ended.
enum End {
    /// Nobody wants to be told any more.
    Unwanted,
    /// The member is away, or has ended it.
    Lost(Status),
    /// Another member is asked by now.
    Moved,
    /// The revision is compacted away.
    Compacted,
}

/// Tells `told` of changes of records of `kind` until nobody listens.
pub(crate) async fn watch(store: EtcdStore, kind: KeyKind, told: mpsc::Sender<Change>) {
    let client = Arc::clone(&store.client);
    let tests = test(&client, &told);
    let watch = Watch { store, kind, told: told.clone(), next_revision: 0, is_lost: false };
    tokio::select! {
        () = watch.follow() => {}
        () = tests => {}
    }
}

/// Asks again and again, whereby a member is left that does not answer.
async fn test(client: &Client, told: &mpsc::Sender<Change>) {
    let mut is_answered = true;
    loop {
        let was_answered = is_answered;
        is_answered = client.probe().await.is_ok();
        let is_news = was_answered && !is_answered;
        if is_news && told.send(Change::Missed).await.is_err() {
            return;
        }
        sleep(TEST_PAUSE).await;
    }
}

struct Watch {
    store: EtcdStore,
    kind: KeyKind,
    told: mpsc::Sender<Change>,
    /// Zero where nothing is known yet.
    next_revision: i64,
    /// Whether that was said since it last began.
    is_lost: bool,
}

impl Watch {
    async fn follow(mut self) {
        loop {
            let turn = self.store.client.turn();
            match self.run(turn).await {
                End::Unwanted => return,
                End::Compacted => {
                    self.next_revision = 0;
                    continue;
                }
                End::Moved => tracing::debug!("a watch goes on at another member of etcd"),
                End::Lost(status) => {
                    if !self.is_lost {
                        tracing::warn!(
                            error = status.message(),
                            "lost the watch at a member of etcd"
                        );
                    }
                    self.is_lost = true;
                    if status.code() == tonic::Code::Unauthenticated {
                        self.store.client.forget_token();
                    }
                    self.store.client.leave(turn);
                }
            }
            // Where all members are away one is left after the other.
            tokio::select! {
                () = self.told.closed() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    async fn run(&mut self, turn: usize) -> End {
        let client = Arc::clone(&self.store.client);
        let left = client.left(turn);
        tokio::pin!(left);
        let begun = tokio::select! {
            begun = timeout(BEGIN_TIMEOUT, self.begin(turn)) => begun.unwrap_or(Err(silence())),
            () = &mut left => return End::Moved,
        };
        let mut answers = match begun {
            Ok(answers) => answers,
            Err(status) => return End::Lost(status),
        };
        self.is_lost = false;
        loop {
            tokio::select! {
                () = self.told.closed() => return End::Unwanted,
                () = &mut left => return End::Moved,
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

    async fn take(&mut self, answer: WatchResponse) -> Result<(), End> {
        if answer.compact_revision > 0 {
            return Err(End::Compacted);
        }
        if answer.canceled {
            return Err(End::Lost(Status::unavailable("the watch was cancelled")));
        }
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.created && revision + 1 < self.next_revision {
            // It was restored from a backup, and will be silent until it is where it was. Or this member lags
            // behind the one before: then some changes are told twice.
            return Err(End::Compacted);
        }
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
