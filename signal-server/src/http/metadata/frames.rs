//! Frames that wait for the others of their message.
//!
//! They wait in memory: a relay that restarts forgets them, and an agent that does not hear that its
//! message is complete sends every frame again. What waits is bounded for each instance, in all, and in
//! time; a message of one frame, which is nearly every one, does not wait.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signal_protocol::frame::{Assembly, Frame, FrameError, MAX_MESSAGE_BYTES, MessageId};
use tokio::time::Instant;

use crate::instance::InstanceId;

/// How many unfinished messages one instance may have: an agent sends one after the other, and goes on
/// with the next when one cannot be finished.
pub(crate) const MAX_MESSAGES_PER_INSTANCE: usize = 4;

/// How many unfinished messages there may be: a region's instances that boot at once.
pub(crate) const MAX_MESSAGES: usize = 10_000;

/// How many bytes may wait in all.
pub(crate) const MAX_WAITING_BYTES: usize = 64 << 20;

/// How long a message waits for its next frame. An agent that is told to wait waits a minute.
pub(crate) const MAX_SILENCE: Duration = Duration::from_secs(180);

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It waits for others.
    Waits,
    /// It was the last one; this is the message.
    Whole(Vec<u8>),
    /// There is no room at present.
    Full,
}

/// All that waits.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    messages: Mutex<HashMap<(InstanceId, MessageId), Entry>>,
}

#[derive(Debug)]
struct Entry {
    assembly: Assembly,
    n_bytes: usize,
    touched: Instant,
}

impl Waiting {
    /// Adds a frame to its message. A frame of another message with the same number takes its place:
    /// an agent never uses a number twice, so what was there is of an agent that lost its memory.
    pub(crate) fn add(&self, instance: InstanceId, frame: Frame) -> Result<Added, FrameError> {
        if frame.of == 1 {
            let mut assembly = Assembly::begin(&frame);
            return Ok(assembly.add(frame)?.map_or(Added::Waits, Added::Whole));
        }
        let key = (instance, frame.message);
        let mut messages = self.messages();
        let now = Instant::now();
        messages.retain(|_, entry| now.duration_since(entry.touched) < MAX_SILENCE);
        let is_new = !messages.contains_key(&key);
        if is_new && !make_room(&mut messages, instance, frame.length) {
            return Ok(Added::Full);
        }
        let entry = messages.entry(key).or_insert_with(|| Entry {
            assembly: Assembly::begin(&frame),
            n_bytes: frame.length.min(MAX_MESSAGE_BYTES),
            touched: now,
        });
        entry.touched = now;
        match entry.assembly.add(frame.clone()) {
            Ok(None) => Ok(Added::Waits),
            Ok(Some(message)) => {
                // It stays until the message has been taken in: the last frame may be repeated.
                Ok(Added::Whole(message))
            }
            Err(FrameError::OtherMessage) if !is_new => {
                let mut assembly = Assembly::begin(&frame);
                entry.n_bytes = frame.length;
                let added = assembly.add(frame)?;
                entry.assembly = assembly;
                Ok(added.map_or(Added::Waits, Added::Whole))
            }
            Err(error) => {
                messages.remove(&key);
                Err(error)
            }
        }
    }

    /// Forgets a message that has been taken in or refused.
    pub(crate) fn forget(&self, instance: InstanceId, message: MessageId) {
        self.messages().remove(&(instance, message));
    }

    fn messages(&self) -> MutexGuard<'_, HashMap<(InstanceId, MessageId), Entry>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for a new message. An instance with too many loses its oldest; others lose nothing for
/// its sake.
fn make_room(
    messages: &mut HashMap<(InstanceId, MessageId), Entry>,
    instance: InstanceId,
    n_bytes: usize,
) -> bool {
    let own = messages.iter().filter(|((owner, _), _)| *owner == instance);
    let (n_own, oldest) = own.fold((0, None), |(n, oldest), (key, entry)| match oldest {
        Some((_, touched)) if touched <= entry.touched => (n + 1, oldest),
        _ => (n + 1, Some((*key, entry.touched))),
    });
    if n_own >= MAX_MESSAGES_PER_INSTANCE
        && let Some((key, _)) = oldest
    {
        messages.remove(&key);
    }
    let waiting: usize = messages.values().map(|entry| entry.n_bytes).sum();
    messages.len() < MAX_MESSAGES && waiting + n_bytes <= MAX_WAITING_BYTES
}

#[cfg(test)]
mod tests {
    use signal_protocol::frame::{BootId, split};

    use super::*;

    fn id(number: u32) -> MessageId {
        MessageId { boot: BootId::from_random(1), seq: number }
    }

    fn instance(number: u32) -> InstanceId {
        let text = format!("7b1d3c0e-1111-4222-8333-4444{number:08x}");
        InstanceId::parse(&text).expect("a UUID")
    }

    fn frames(number: u32, length: usize) -> Vec<Frame> {
        split(id(number), &vec![b'x'; length]).expect("not too large")
    }

    #[test]
    fn a_message_of_one_frame_does_not_wait() {
        let waiting = Waiting::default();
        let frame = frames(1, 100).remove(0);
        assert_eq!(waiting.add(instance(1), frame), Ok(Added::Whole(vec![b'x'; 100])));
        assert!(waiting.messages().is_empty());
    }

    #[test]
    fn frames_of_two_instances_do_not_mix() {
        let waiting = Waiting::default();
        let frames = frames(1, 3_000);
        assert_eq!(waiting.add(instance(1), frames[0].clone()), Ok(Added::Waits));
        assert_eq!(waiting.add(instance(2), frames[1].clone()), Ok(Added::Waits));
        let whole = Ok(Added::Whole(vec![b'x'; 3_000]));
        assert_eq!(waiting.add(instance(1), frames[1].clone()), whole);
        // A repetition of the last frame says the same until the message has been taken in.
        assert_eq!(waiting.add(instance(1), frames[1].clone()), whole);
        waiting.forget(instance(1), id(1));
        assert_eq!(waiting.add(instance(1), frames[1].clone()), Ok(Added::Waits));
    }

    #[test]
    fn a_number_that_is_used_anew_begins_anew() {
        let waiting = Waiting::default();
        assert_eq!(waiting.add(instance(1), frames(1, 4_000)[0].clone()), Ok(Added::Waits));
        let other = frames(1, 3_000);
        assert_eq!(waiting.add(instance(1), other[0].clone()), Ok(Added::Waits));
        let whole = Ok(Added::Whole(vec![b'x'; 3_000]));
        assert_eq!(waiting.add(instance(1), other[1].clone()), whole);
    }

    #[test]
    fn an_instance_with_too_many_loses_its_oldest() {
        let waiting = Waiting::default();
        for number in 0..=u32::try_from(MAX_MESSAGES_PER_INSTANCE).expect("few") {
            let first = frames(number, 3_000).remove(0);
            assert_eq!(waiting.add(instance(1), first), Ok(Added::Waits));
        }
        assert_eq!(waiting.messages().len(), MAX_MESSAGES_PER_INSTANCE);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_number() {
        let waiting = Waiting::default();
        let n_largest = MAX_WAITING_BYTES / MAX_MESSAGE_BYTES;
        for number in 0..=u32::try_from(n_largest).expect("few") {
            let first = frames(1, MAX_MESSAGE_BYTES).remove(0);
            let is_full = usize::try_from(number).expect("few") >= n_largest;
            let expect = if is_full { Added::Full } else { Added::Waits };
            assert_eq!(waiting.add(instance(number), first), Ok(expect), "{number}");
        }
        let waiting = Waiting::default();
        let first = frames(1, 1_801).remove(0);
        let mut messages = waiting.messages();
        for number in 0..u32::try_from(MAX_MESSAGES).expect("few") {
            let assembly = Assembly::begin(&first);
            let entry = Entry { assembly, n_bytes: 0, touched: Instant::now() };
            messages.insert((instance(number), id(1)), entry);
        }
        assert!(!make_room(&mut messages, instance(u32::MAX), 1_801));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_not_continued_is_forgotten() {
        let waiting = Waiting::default();
        let old = frames(1, 3_000);
        assert_eq!(waiting.add(instance(1), old[0].clone()), Ok(Added::Waits));
        tokio::time::advance(MAX_SILENCE).await;
        assert_eq!(waiting.add(instance(1), old[1].clone()), Ok(Added::Waits));
        assert_eq!(waiting.messages().len(), 1);
    }
}
