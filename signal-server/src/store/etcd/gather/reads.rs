//! Reads that travel together.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::oneshot;
use tonic::Status;

use crate::store::etcd::batch::has_no_space;
use crate::store::etcd::client::{Client, Effect};
use crate::store::etcd::gather::{Group, Waiting, incomplete, refuse};
use crate::store::etcd::wire::{
    OneRequest, RANGE, RangeRequest, RangeResponse, TXN, TxnRequest, TxnResponse,
};

/// Most reads in one request: half of etcd's limit of 128 operations, so that answers stay small.
const MAX_READS: usize = 64;

/// What etcd has at some keys, in their order.
pub(crate) type Found = Vec<Option<Bytes>>;

#[derive(Default)]
pub(crate) struct Reads {
    callers: Vec<(usize, oneshot::Sender<Result<Found, Status>>)>,
    keys: Vec<Bytes>,
}

impl Group for Reads {
    type Question = Vec<Bytes>;
    type Answer = Found;

    fn has_room_for(&self, next: &Vec<Bytes>) -> bool {
        self.keys.len() + next.len() <= MAX_READS
    }

    fn push(&mut self, next: Waiting<Vec<Bytes>, Found>) {
        self.callers.push((next.question.len(), next.caller));
        self.keys.extend(next.question);
    }

    async fn send(self, client: Arc<Client>) {
        match read(&client, &self.keys).await {
            Ok(mut found) => {
                for (n_keys, caller) in self.callers {
                    let rest = found.split_off(n_keys.min(found.len()));
                    let _gone = caller.send(Ok(std::mem::replace(&mut found, rest)));
                }
            }
            Err(status) => refuse(self.callers.into_iter().map(|(_, caller)| caller), &status),
        }
    }
}

/// What is at these keys; asks as often as [`MAX_READS`] demands.
pub(crate) async fn read(client: &Client, keys: &[Bytes]) -> Result<Found, Status> {
    let mut found = Vec::with_capacity(keys.len());
    for keys in keys.chunks(MAX_READS) {
        match keys {
            [key] => found.push(read_one(client, key).await?),
            keys => found.extend(read_together(client, keys).await?),
        }
    }
    Ok(found)
}

async fn read_one(client: &Client, key: &Bytes) -> Result<Option<Bytes>, Status> {
    let answer = client.call(RANGE, question(key), Effect::Repeatable).await?;
    Ok(value_of(Some(answer)))
}

async fn read_together(client: &Client, keys: &[Bytes]) -> Result<Found, Status> {
    let success = keys.iter().map(|key| OneRequest::Range(question(key)).into()).collect();
    let request = TxnRequest { success, ..TxnRequest::default() };
    let answer: TxnResponse = match client.call(TXN, request, Effect::Repeatable).await {
        Err(status) if has_no_space(&status) => {
            return try_join_all(keys.iter().map(|key| read_one(client, key))).await;
        }
        answer => answer?,
    };
    if answer.responses.len() != keys.len() {
        return Err(incomplete());
    }
    Ok(answer.responses.into_iter().map(|response| value_of(response.range)).collect())
}

fn question(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

fn value_of(answer: Option<RangeResponse>) -> Option<Bytes> {
    answer.and_then(|mut answer| answer.kvs.pop()).map(|record| record.value)
}
