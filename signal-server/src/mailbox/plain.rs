//! Plain objects: what Heat keeps for software deployments and for the metadata of servers. They are
//! replaced as a whole, and the last PUT is what counts.

use std::sync::Arc;

use jiff::Timestamp;

use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::{MAX_COMMIT_ATTEMPTS, MAX_INLINE_BODY_BYTES, MAX_OBJECT_BYTES};
use crate::mailbox::object::{contended, md5_hex, split_signal_name};
use crate::mailbox::record::{BodyPlace, Number, ObjectRecord, decode_object, encode_object};
use crate::mailbox::{NewObject, ObjectAddress, ObjectInfo, Shared, key};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind};

impl Shared {
    /// Writes a plain object; nothing if it has become a signal handle meanwhile.
    pub(crate) async fn put_plain(
        self: &Arc<Self>,
        address: &ObjectAddress,
        container: Number,
        new: &NewObject,
    ) -> Result<Option<ObjectInfo>, MailboxError> {
        if new.body.len() > MAX_OBJECT_BYTES {
            return Err(MailboxError::ObjectTooLarge {
                length: new.body.len(),
                limit: MAX_OBJECT_BYTES,
            });
        }
        let name = address.object.as_str();
        if let Some((handle, _)) = split_signal_name(name) {
            let head_key = key::in_container(KeyKind::Mailbox, container, handle);
            if self.get(&head_key).await?.is_some() {
                return Err(MailboxError::NameReserved);
            }
        }
        let plain_key = key::in_container(KeyKind::Object, container, name);
        let head_key = key::in_container(KeyKind::Mailbox, container, name);
        let (shared, address, new) = (Arc::clone(self), address.clone(), new.clone());
        self.in_turn(plain_key.clone(), async move {
            for _ in 0..MAX_COMMIT_ATTEMPTS {
                let mut batch = Batch::new();
                shared.expect_same_container(&address, container, &mut batch).await?;
                if shared.get(&head_key).await?.is_some() {
                    return Ok(None);
                }
                batch.expect(Expect::Absent(head_key.clone()));
                let before = shared.replace_plain(&plain_key, &mut batch).await?;
                let record = new.to_record(modified_at(shared.clock.now(), before));
                if let BodyPlace::Apart(number) = record.body {
                    batch.put(key::object_body(number), new.body.clone());
                }
                batch.put(plain_key.clone(), encode_object(&record, &new.body));
                match shared.store.commit(batch).await {
                    Ok(()) => return Ok(Some(record.info)),
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => return Err(MailboxError::Write(error)),
                }
            }
            Err(contended(KeyKind::Object))
        })
        .await
    }

    pub(crate) async fn delete_plain(&self, plain_key: &Key) -> Result<(), MailboxError> {
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            if self.get(plain_key).await?.is_none() {
                return Err(MailboxError::ObjectNotFound);
            }
            let mut batch = Batch::new();
            self.replace_plain(plain_key, &mut batch).await?;
            batch.delete(plain_key.clone());
            match self.store.commit(batch).await {
                Ok(()) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(MailboxError::Write(error)),
            }
        }
        Err(contended(KeyKind::Object))
    }

    /// Makes the batch depend on the plain object as it is now, and removes its body with it. Returns
    /// when the object was put, if there is one.
    pub(crate) async fn replace_plain(
        &self,
        plain_key: &Key,
        batch: &mut Batch,
    ) -> Result<Option<Timestamp>, MailboxError> {
        let Some(bytes) = self.get(plain_key).await? else {
            batch.expect(Expect::Absent(plain_key.clone()));
            return Ok(None);
        };
        let (record, _) = decode_object(KeyKind::Object, &bytes)?;
        if let BodyPlace::Apart(number) = record.body {
            batch.delete(key::object_body(number));
        }
        batch.expect(Expect::Value(plain_key.clone(), bytes));
        Ok(Some(record.info.modified_at))
    }

    pub(crate) async fn expect_same_container(
        &self,
        address: &ObjectAddress,
        container: Number,
        batch: &mut Batch,
    ) -> Result<(), MailboxError> {
        let (bytes, record) = self.existing_container(&address.container).await?;
        if record.number != container {
            return Err(MailboxError::ContainerNotFound);
        }
        self.expect_container(&key::container(&address.container), bytes, record, batch);
        Ok(())
    }
}

impl NewObject {
    pub(crate) fn to_record(&self, now: Timestamp) -> ObjectRecord {
        ObjectRecord {
            info: ObjectInfo {
                etag: md5_hex(&self.body),
                n_bytes: self.body.len() as u64,
                content_type: self.content_type(),
                modified_at: now,
            },
            body: if self.body.len() <= MAX_INLINE_BODY_BYTES {
                BodyPlace::Inline
            } else {
                BodyPlace::Apart(Number::random())
            },
        }
    }
}

/// When an object is said to have been put. Heat reads an object again only if its `Last-Modified`, which
/// has whole seconds and is rounded up, has grown; so each put is given a second of its own.
fn modified_at(now: Timestamp, before: Option<Timestamp>) -> Timestamp {
    let Some(before) = before else {
        return now;
    };
    let next_second = before.as_second() + i64::from(before.subsec_nanosecond() > 0);
    let earliest = Timestamp::new(next_second, 1_000).unwrap_or(now);
    now.max(earliest)
}
