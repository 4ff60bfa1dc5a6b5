//! Accounts: their keys and their counts.

use std::sync::Arc;

use bytes::Bytes;
use signal_protocol::path::AccountName;

use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::{MAX_COMMIT_ATTEMPTS, MAX_COUNTED_CONTAINERS, MAX_FORMER_KEYS};
use crate::mailbox::record::{AccountRecord, ContainerRecord, decode, encode};
use crate::mailbox::{
    Account, ContainerAddress, KeyChange, KeyUpdate, ObjectAddress, Shared, SigningKey,
    SigningKeys, key,
};
use crate::store::{Batch, CommitError, Expect, Key, KeyKind};

/// What lies in the containers of an account.
#[derive(Debug, Clone, Copy, Default)]
struct AccountCounts {
    n_hidden_containers: u64,
    n_objects: u64,
    n_bytes: u64,
}

impl Shared {
    pub(crate) async fn account(
        self: &Arc<Self>,
        account: &AccountName,
    ) -> Result<Account, MailboxError> {
        let record = match self.account_record(account).await? {
            Some((_, record)) if record.keys.primary.is_some() => record,
            _ => self.change_account(account, |_| Ok(())).await?,
        };
        self.shown_account(account, record).await
    }

    pub(crate) async fn existing_account(
        &self,
        account: &AccountName,
    ) -> Result<Option<Account>, MailboxError> {
        match self.account_record(account).await? {
            Some((_, record)) => Ok(Some(self.shown_account(account, record).await?)),
            None => Ok(None),
        }
    }

    async fn shown_account(
        &self,
        account: &AccountName,
        record: AccountRecord,
    ) -> Result<Account, MailboxError> {
        let counts = self.count_account(account).await?;
        Ok(Account {
            keys: record.keys,
            n_containers: record.n_containers.saturating_sub(counts.n_hidden_containers),
            n_objects: counts.n_objects,
            n_bytes: counts.n_bytes,
            created_at: record.created_at,
        })
    }

    pub(crate) async fn set_account_keys(
        self: &Arc<Self>,
        account: &AccountName,
        update: &KeyUpdate,
    ) -> Result<(), MailboxError> {
        let update = update.clone();
        self.change_account(account, move |record| {
            record.keys.apply(&update);
            record.has_chosen_keys = true;
            Ok(())
        })
        .await?;
        Ok(())
    }

    pub(crate) async fn signing_keys(
        &self,
        container: &ContainerAddress,
    ) -> Result<Vec<SigningKey>, MailboxError> {
        self.read_signing_keys(container, None).await
    }

    pub(crate) async fn signing_keys_for(
        &self,
        object: &ObjectAddress,
    ) -> Result<Vec<SigningKey>, MailboxError> {
        let recalled = self.recall_container(&object.container);
        let head = recalled.map(|container| {
            key::in_container(KeyKind::Mailbox, container.number, object.object.as_str())
        });
        self.read_signing_keys(&object.container, head).await
    }

    /// Reads the keys that sign, and together with them what will be wanted next.
    async fn read_signing_keys(
        &self,
        container: &ContainerAddress,
        wanted_next: Option<Key>,
    ) -> Result<Vec<SigningKey>, MailboxError> {
        let names = [key::account(&container.account), key::container(container)];
        let names: Vec<Key> = names.into_iter().chain(wanted_next).collect();
        let found = self.get_many(&names).await?;
        let mut keys = Vec::new();
        if let (Some(name), Some(Some(bytes))) = (names.first(), found.first()) {
            keys.extend(self.accounts.decode(name, bytes)?.keys.all().cloned());
        }
        if let (Some(name), Some(Some(bytes))) = (names.get(1), found.get(1)) {
            keys.extend(self.containers.decode(name, bytes)?.keys.all().cloned());
        }
        Ok(keys)
    }

    /// Changes an account in its turn, making it if need be.
    async fn change_account(
        self: &Arc<Self>,
        account: &AccountName,
        change: impl Fn(&mut AccountRecord) -> Result<(), MailboxError> + Send + Sync + 'static,
    ) -> Result<AccountRecord, MailboxError> {
        let account_key = key::account(account);
        let (shared, account) = (Arc::clone(self), account.clone());
        self.in_turn(account_key, async move {
            for _ in 0..MAX_COMMIT_ATTEMPTS {
                let mut batch = Batch::new();
                let mut record = shared.expect_account(&account, &mut batch).await?;
                change(&mut record)?;
                put_account(&account, &mut record, &mut batch);
                match shared.store.commit(batch).await {
                    Ok(()) => return Ok(record),
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => return Err(MailboxError::Write(error)),
                }
            }
            Err(MailboxError::Contended { kind: KeyKind::Account, attempts: MAX_COMMIT_ATTEMPTS })
        })
        .await
    }

    /// Reads an account, or what a new one would be, and makes the batch depend on it.
    pub(crate) async fn expect_account(
        &self,
        account: &AccountName,
        batch: &mut Batch,
    ) -> Result<AccountRecord, MailboxError> {
        let account_key = key::account(account);
        let Some((bytes, record)) = self.account_record(account).await? else {
            batch.expect(Expect::Absent(account_key));
            return Ok(AccountRecord {
                keys: SigningKeys::default(),
                n_containers: 0,
                n_handles: 0,
                created_at: self.clock.now(),
                has_chosen_keys: false,
            });
        };
        batch.expect(Expect::Value(account_key, bytes));
        Ok(record)
    }

    async fn account_record(
        &self,
        account: &AccountName,
    ) -> Result<Option<(Bytes, AccountRecord)>, MailboxError> {
        let Some(bytes) = self.get(&key::account(account)).await? else {
            return Ok(None);
        };
        let record = decode(KeyKind::Account, &bytes)?;
        Ok(Some((bytes, record)))
    }

    async fn count_account(&self, account: &AccountName) -> Result<AccountCounts, MailboxError> {
        let mut sum = AccountCounts::default();
        let containers = self.scan(&key::containers(account), None, MAX_COUNTED_CONTAINERS).await?;
        for (_, bytes) in containers {
            let record: ContainerRecord = decode(KeyKind::Container, &bytes)?;
            let counts = self.count_container(record.number).await?;
            sum.n_hidden_containers += u64::from(record.is_hidden(&counts));
            sum.n_objects += counts.n_objects;
            sum.n_bytes += counts.n_bytes;
        }
        Ok(sum)
    }

    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Bytes>, MailboxError> {
        self.store.get(key).await.map_err(MailboxError::Read)
    }

    pub(crate) async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, MailboxError> {
        self.store.get_many(keys).await.map_err(MailboxError::Read)
    }

    /// Reads two records at once.
    pub(crate) async fn get_both(
        &self,
        keys: [&Key; 2],
    ) -> Result<[Option<Bytes>; 2], MailboxError> {
        let mut found = self.get_many(&keys.map(Key::clone)).await?.into_iter();
        Ok([found.next().flatten(), found.next().flatten()])
    }

    pub(crate) async fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, MailboxError> {
        self.store.scan(prefix, after, limit).await.map_err(MailboxError::Read)
    }
}

/// Writes an account. One without a key gets one, so that Heat finds a key whenever it looks.
pub(crate) fn put_account(account: &AccountName, record: &mut AccountRecord, batch: &mut Batch) {
    record.keys.primary.get_or_insert_with(SigningKey::random);
    batch.put(key::account(account), encode(record));
}

/// Writes an account that something was removed from. One with nothing left in it goes, together with the
/// key that the relay made for it: Heat makes a container before it asks for the key, and asks anew for each
/// URL. A key that a client has set stays, as with Swift.
pub(crate) fn put_or_forget_account(
    account: &AccountName,
    record: &mut AccountRecord,
    batch: &mut Batch,
) {
    if record.n_containers == 0 && record.n_handles == 0 && !record.has_chosen_keys {
        batch.delete(key::account(account));
        return;
    }
    put_account(account, record, batch);
}

impl SigningKeys {
    pub(crate) fn apply(&mut self, update: &KeyUpdate) {
        let SigningKeys { primary, secondary, former } = self;
        for (key, change) in [(primary, &update.primary), (secondary, &update.secondary)] {
            match change {
                None => {}
                Some(KeyChange::Remove) => {
                    *key = None;
                    former.clear();
                }
                Some(KeyChange::Set(new)) => {
                    if let Some(old) = key.replace(new.clone()) {
                        former.insert(0, old);
                    }
                    former.retain(|old| old != new);
                }
            }
        }
        former.truncate(MAX_FORMER_KEYS);
    }

    /// Every key that verifies.
    pub(crate) fn all(&self) -> impl Iterator<Item = &SigningKey> {
        self.primary.iter().chain(&self.secondary).chain(&self.former)
    }
}
