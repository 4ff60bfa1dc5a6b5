//! Objects in a container: signal handles, their pending signals, and plain objects.

use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest, Md5};
use signal_protocol::path::ObjectName;
use signal_protocol::signal::Signal;

use crate::mailbox::append::{Append, AppendTarget, Stored};
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::{MAX_COMMIT_ATTEMPTS, MAX_CONTENT_TYPE_BYTES, PLACEHOLDER};
use crate::mailbox::record::{
    BodyPlace, HeadRecord, Number, ObjectRecord, decode, decode_object, encode,
};
use crate::mailbox::{
    NewObject, Object, ObjectAddress, ObjectInfo, PutOutcome, PutReceipt, Shared, key,
};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind};

/// What a client that names no content type gets; Swift's own default.
const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// How many digits a pending signal has behind its handle's name.
const N_SIGNAL_DIGITS: usize = 8;

/// An object that may be shown, before its body is read.
enum Found {
    Signal { head: HeadRecord, signal: u64, record: ObjectRecord, inline: Bytes },
    Plain { record: ObjectRecord, inline: Bytes },
}

/// What the name of an object stands for.
enum Target {
    Plain(Key),
    /// The head's key, and the number of one signal.
    Signal(Key, u64),
    /// The head's key.
    Handle(Key),
}

impl Shared {
    pub(crate) async fn put_as_owner(
        self: &Arc<Self>,
        address: &ObjectAddress,
        new: NewObject,
    ) -> Result<PutReceipt, MailboxError> {
        if new.body.as_ref() == PLACEHOLDER {
            let info = self.make_signal_handle(address, &new).await?;
            return Ok(PutReceipt { info, outcome: PutOutcome::SignalHandle });
        }
        self.put_as_bearer(address, new).await
    }

    pub(crate) async fn put_as_bearer(
        self: &Arc<Self>,
        address: &ObjectAddress,
        new: NewObject,
    ) -> Result<PutReceipt, MailboxError> {
        if let Some(receipt) = self.put_to_recalled(address, &new).await? {
            return Ok(receipt);
        }
        // What an object is can change between the look and the change, though hardly twice.
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let container = self.find_container(&address.container).await?;
            let head_key =
                key::in_container(KeyKind::Mailbox, container.number, address.object.as_str());
            if self.get(&head_key).await?.is_none() {
                match self.put_plain(address, container.number, &new).await? {
                    Some(info) => {
                        return Ok(PutReceipt { info, outcome: PutOutcome::Plain });
                    }
                    None => continue,
                }
            }
            let append = new.to_append()?;
            let target = AppendTarget::InContainer(container);
            match self.append_in_turn(head_key, target, append).await {
                Ok(stored) => return Ok(PutReceipt::of_signal(stored)),
                Err(MailboxError::ObjectNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Err(contended(KeyKind::Mailbox))
    }

    /// Puts a signal into a mailbox of a container that the store recalls, without asking whether that is still
    /// there: the commit will tell. Nothing where that is not known, or where anything stands in the way: then whoever
    /// calls has to look.
    async fn put_to_recalled(
        self: &Arc<Self>,
        address: &ObjectAddress,
        new: &NewObject,
    ) -> Result<Option<PutReceipt>, MailboxError> {
        let Some(container) = self.recall_container(&address.container) else {
            return Ok(None);
        };
        let head_key =
            key::in_container(KeyKind::Mailbox, container.number, address.object.as_str());
        let is_handle =
            self.store.recall(&head_key).is_some() || self.get(&head_key).await?.is_some();
        let Some(append) = new.to_append().ok().filter(|_| is_handle) else {
            return Ok(None);
        };
        let target = AppendTarget::InContainer(container);
        match self.append_in_turn(head_key, target, append).await {
            Ok(stored) => Ok(Some(PutReceipt::of_signal(stored))),
            Err(MailboxError::ObjectNotFound | MailboxError::ContainerNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Remembers that the object is a signal handle. Signals that wait there already stay.
    async fn make_signal_handle(
        self: &Arc<Self>,
        address: &ObjectAddress,
        new: &NewObject,
    ) -> Result<ObjectInfo, MailboxError> {
        if !leaves_room_for_signals(&address.object) {
            return Err(MailboxError::BadField {
                field: "the name of a signal handle",
                rule: "nine bytes shorter than the longest object name",
            });
        }
        let info = new.to_record(self.clock.now()).info;
        // Heat makes the container before, and the deletion of another handle may have hidden it since.
        let (_, container) = self.kept_container(&address.container).await?;
        let name = address.object.as_str();
        let head_key = key::in_container(KeyKind::Mailbox, container.number, name);
        let plain_key = key::in_container(KeyKind::Object, container.number, name);
        let (shared, address) = (Arc::clone(self), address.clone());
        // In the turn of the plain object, as every change of what this name stands for.
        self.in_turn(plain_key.clone(), async move {
            for _ in 0..MAX_COMMIT_ATTEMPTS {
                let mut batch = Batch::new();
                let was_deleted =
                    shared.expect_shown_container(&address, container.number, &mut batch).await?;
                let head = HeadRecord::new(Number::random(), shared.clock.now());
                match shared.get(&head_key).await? {
                    Some(before) => {
                        let old: HeadRecord = decode(KeyKind::Mailbox, &before)?;
                        let is_over = old.next_signal > 1 && old.n_pending == 0;
                        if !was_deleted && !is_over {
                            return Ok(info);
                        }
                        batch.expect(Expect::Value(head_key.clone(), before));
                        if is_over {
                            // Made anew, it knows none of the ids that it had.
                            batch.put(head_key.clone(), encode(&head));
                            batch.put(key::garbage(old.number), Bytes::new());
                        }
                    }
                    None => {
                        shared.replace_plain(&plain_key, &mut batch).await?;
                        batch.delete(plain_key.clone());
                        batch.expect(Expect::Absent(head_key.clone()));
                        batch.put(head_key.clone(), encode(&head));
                    }
                }
                match shared.store.commit(batch).await {
                    Ok(()) => return Ok(info),
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => return Err(MailboxError::Write(error)),
                }
            }
            Err(contended(KeyKind::Mailbox))
        })
        .await
    }

    pub(crate) async fn object(&self, address: &ObjectAddress) -> Result<Object, MailboxError> {
        // A body that is gone although its description was there: the object was replaced or removed
        // between the two reads, so look again.
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let (body_key, record) = match self.find(address).await? {
                Found::Signal { head, signal, record, inline } => match record.body {
                    BodyPlace::Inline => return Ok(record.into_object(inline)),
                    BodyPlace::Apart(_) => {
                        (key::of_signal(KeyKind::SignalBody, head.number, signal), record)
                    }
                },
                Found::Plain { record, inline } => match record.body {
                    BodyPlace::Inline => return Ok(record.into_object(inline)),
                    BodyPlace::Apart(number) => (key::object_body(number), record),
                },
            };
            if let Some(body) = self.get(&body_key).await? {
                return Ok(record.into_object(body));
            }
        }
        Err(contended(KeyKind::Object))
    }

    pub(crate) async fn object_info(
        &self,
        address: &ObjectAddress,
    ) -> Result<ObjectInfo, MailboxError> {
        Ok(match self.find(address).await? {
            Found::Signal { record, .. } | Found::Plain { record, .. } => record.info,
        })
    }

    pub(crate) async fn is_signal_handle(
        &self,
        address: &ObjectAddress,
    ) -> Result<bool, MailboxError> {
        Ok(matches!(self.target(address).await?, Some(Target::Handle(_))))
    }

    async fn find(&self, address: &ObjectAddress) -> Result<Found, MailboxError> {
        match self.target(address).await? {
            Some(Target::Plain(plain_key)) => {
                let Some(bytes) = self.get(&plain_key).await? else {
                    return Err(MailboxError::ObjectNotFound);
                };
                let (record, inline) = decode_object(KeyKind::Object, &bytes)?;
                Ok(Found::Plain { record, inline })
            }
            Some(Target::Signal(head_key, signal)) => {
                let Some(bytes) = self.get(&head_key).await? else {
                    return Err(MailboxError::ObjectNotFound);
                };
                let head: HeadRecord = decode(KeyKind::Mailbox, &bytes)?;
                let signal_key = key::of_signal(KeyKind::Signal, head.number, signal);
                let Some(bytes) = self.get(&signal_key).await? else {
                    return Err(MailboxError::ObjectNotFound);
                };
                let (record, inline) = decode_object(KeyKind::Signal, &bytes)?;
                Ok(Found::Signal { head, signal, record, inline })
            }
            Some(Target::Handle(_)) | None => Err(MailboxError::ObjectNotFound),
        }
    }

    /// What the name stands for: a plain object before a signal, which it can only meet if the plain
    /// object was there first.
    async fn target(&self, address: &ObjectAddress) -> Result<Option<Target>, MailboxError> {
        // That of a hidden container, too: a signal that is removed again, because the first answer was lost,
        // may have been the last one.
        let (_, container) = self.kept_container(&address.container).await?;
        let name = address.object.as_str();
        let plain_key = key::in_container(KeyKind::Object, container.number, name);
        if self.get(&plain_key).await?.is_some() {
            return Ok(Some(Target::Plain(plain_key)));
        }
        let head_key = key::in_container(KeyKind::Mailbox, container.number, name);
        if self.get(&head_key).await?.is_some() {
            return Ok(Some(Target::Handle(head_key)));
        }
        if let Some((handle, signal)) = split_signal_name(name) {
            let head_key = key::in_container(KeyKind::Mailbox, container.number, handle);
            if self.get(&head_key).await?.is_some() {
                return Ok(Some(Target::Signal(head_key, signal)));
            }
        }
        Ok(None)
    }

    pub(crate) async fn delete_object(
        self: &Arc<Self>,
        address: &ObjectAddress,
    ) -> Result<(), MailboxError> {
        let shared = Arc::clone(self);
        match self.target(address).await? {
            None => Err(MailboxError::ObjectNotFound),
            Some(Target::Plain(plain_key)) => {
                self.in_turn(
                    plain_key.clone(),
                    async move { shared.delete_plain(&plain_key).await },
                )
                .await
            }
            Some(Target::Signal(head_key, signal)) => {
                self.in_turn(head_key.clone(), async move {
                    shared.remove_signal(&head_key, signal).await
                })
                .await
            }
            Some(Target::Handle(head_key)) => {
                self.in_turn(head_key.clone(), async move {
                    shared.remove_oldest_signal(&head_key).await
                })
                .await
            }
        }
    }
}

impl NewObject {
    pub(crate) fn content_type(&self) -> String {
        self.content_type
            .as_deref()
            .filter(|text| !text.is_empty() && text.len() <= MAX_CONTENT_TYPE_BYTES)
            .unwrap_or(DEFAULT_CONTENT_TYPE)
            .to_owned()
    }

    /// The body as a signal, in the form that Heat reads.
    fn to_append(&self) -> Result<Append, MailboxError> {
        let (signal, rewritten) =
            Signal::parse_for_heat(&self.body).map_err(MailboxError::BadSignal)?;
        let body = rewritten.map_or_else(|| self.body.clone(), Bytes::from);
        Ok(Append { id: signal.id, content_type: self.content_type(), etag: md5_hex(&body), body })
    }
}

impl PutReceipt {
    fn of_signal(stored: Stored) -> PutReceipt {
        PutReceipt { info: stored.info, outcome: PutOutcome::Signal(stored.receipt) }
    }
}

impl ObjectRecord {
    fn into_object(self, body: Bytes) -> Object {
        Object { info: self.info, body }
    }
}

/// Takes the name of a pending signal apart: the handle's name and the signal's number.
pub(crate) fn split_signal_name(name: &str) -> Option<(&str, u64)> {
    let (handle, digits) = name.rsplit_once('/')?;
    let is_number = digits.len() == N_SIGNAL_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    if handle.is_empty() || !is_number {
        return None;
    }
    Some((handle, digits.parse().ok()?))
}

/// The name under which a pending signal is listed.
pub(crate) fn signal_name(handle: &str, signal: u64) -> String {
    format!("{handle}/{signal:0N_SIGNAL_DIGITS$}")
}

/// Whether signals of a handle with this name can be addressed: their names are longer.
fn leaves_room_for_signals(handle: &ObjectName) -> bool {
    ObjectName::parse(&signal_name(handle.as_str(), 0)).is_ok()
}

pub(crate) fn md5_hex(body: &[u8]) -> String {
    hex::encode(Md5::digest(body))
}

pub(crate) fn contended(kind: KeyKind) -> MailboxError {
    MailboxError::Contended { kind, attempts: MAX_COMMIT_ATTEMPTS }
}
