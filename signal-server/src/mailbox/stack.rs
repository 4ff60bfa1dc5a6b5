//! What is known of the signals of a stack.
//!
//! Heat counts signals and says `1 of 3 received`; it does not know who the other two are. Whoever makes
//! the stack does, and may say so in the metadata of a container whose name begins with the stack's. The
//! marks of received ids, which are kept so that a repeated signal changes nothing, tell who has signalled,
//! also after Heat has read the signals and removed them.

use crate::mailbox::container::PAGE;
use crate::mailbox::error::MailboxError;
use crate::mailbox::limits::{MAX_EXPECTED, MAX_SHOWN_HANDLES, MAX_SHOWN_SENDERS};
use crate::mailbox::record::{ContainerRecord, HeadRecord, Number, decode, read_mark};
use crate::mailbox::{ContainerAddress, Sender, Shared, StackHandle, StackRecord, key};
use crate::store::KeyKind;

impl Shared {
    pub(crate) async fn stack(
        &self,
        address: &ContainerAddress,
    ) -> Result<StackRecord, MailboxError> {
        let (_, container) = self.existing_container(address).await?;
        Ok(StackRecord {
            created_at: container.created_at,
            handles: self.stack_handles(container.number).await?,
            expected: self.expected(address).await?,
        })
    }

    async fn stack_handles(&self, container: Number) -> Result<Vec<StackHandle>, MailboxError> {
        let prefix = key::under(KeyKind::Mailbox, container);
        let mut handles = Vec::new();
        for (head_key, bytes) in self.scan(&prefix, None, MAX_SHOWN_HANDLES).await? {
            let name = head_key.after(&prefix).unwrap_or_default();
            let head: HeadRecord = decode(KeyKind::Mailbox, &bytes)?;
            handles.push(StackHandle {
                name: String::from_utf8_lossy(name).into_owned(),
                created_at: head.created_at,
                n_received: head.next_signal.saturating_sub(1),
                n_pending: head.n_pending,
                senders: self.senders(head.number).await?,
            });
        }
        Ok(handles)
    }

    async fn senders(&self, mailbox: Number) -> Result<Vec<Sender>, MailboxError> {
        let prefix = key::under(KeyKind::Seen, mailbox);
        let marks = self.scan(&prefix, None, MAX_SHOWN_SENDERS).await?;
        let marks = marks.iter().filter_map(|(_, mark)| read_mark(mark));
        let mut senders: Vec<Sender> =
            marks.map(|(id, received_at)| Sender { id, received_at }).collect();
        senders.sort_by(|one, other| {
            one.received_at.cmp(&other.received_at).then_with(|| one.id.cmp(&other.id))
        });
        Ok(senders)
    }

    /// What this container and those whose names begin with its name expect.
    async fn expected(&self, address: &ContainerAddress) -> Result<Vec<String>, MailboxError> {
        let mut expected: Vec<String> = Vec::new();
        for (_, bytes) in self.scan(&key::container(address), None, PAGE).await? {
            let record: ContainerRecord = decode(KeyKind::Container, &bytes)?;
            for name in record.expected {
                if !expected.contains(&name) && expected.len() < MAX_EXPECTED {
                    expected.push(name);
                }
            }
        }
        Ok(expected)
    }
}
