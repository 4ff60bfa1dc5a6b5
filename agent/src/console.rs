//! The console device, where `nova console-log` and Horizon's Log tab read.
//!
//! Lines of the agent begin with `heliograph: `; lines of the container come as the container
//! wrote them. A console is slow (a real serial line 11 kB/s, a virtual one some 100 kB/s), it can
//! stop taking bytes, and it can go away (`EIO` when a getty hangs the line up), and none of that
//! may hold the agent back. So everything goes through a bounded queue to one thread, which opens
//! the device anew for each batch; a token bucket limits what a container may write, and what did
//! not get through is counted and said. Failing to write is never an error of the run.

mod bucket;
mod device;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::time::Instant;

use crate::console::bucket::Bucket;
use crate::signal::console::MARKER;

/// What a container may write without a pause: the screenful or two that a start needs.
const BURST_BYTES: u32 = 128 * 1024;

/// What a container may write per second afterwards; a virtual serial line takes twenty times that.
const BYTES_PER_SECOND: u32 = 32 * 1024;

/// Container output that waits for the device; more is dropped.
const MAX_QUEUED_BYTES: usize = 256 * 1024;

/// Lines of the agent that wait for the device. There are some thirty in a run.
const MAX_AGENT_LINES: usize = 512;

/// A console to write to. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct Console {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when there is something to write, and when everything has been written.
    changed: Condvar,
}

#[derive(Debug)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    n_container_bytes: usize,
    n_agent_lines: usize,
    n_dropped: u64,
    bucket: Bucket,
    is_writing: bool,
}

impl Console {
    /// The device is opened for each batch of lines, so it need not exist yet. A regular file is
    /// created.
    pub fn new(path: &Path) -> Console {
        let queue = Queue {
            lines: VecDeque::new(),
            n_container_bytes: 0,
            n_agent_lines: 0,
            n_dropped: 0,
            bucket: Bucket::new(BURST_BYTES, BYTES_PER_SECOND),
            is_writing: false,
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        let writer = Writer { path: device::shown(path), shared: Arc::downgrade(&shared) };
        let spawned = std::thread::Builder::new().name("console".to_owned()).spawn(|| writer.run());
        if let Err(error) = spawned {
            tracing::error!(%error, "console is not written: no thread for it");
        }
        Console { shared }
    }

    /// A line of the agent.
    pub fn say(&self, line: &str) {
        self.push_agent_line(format!("heliograph: {line}"));
    }

    /// A line for programs, as it is.
    pub fn write_line(&self, line: &str) {
        self.push_agent_line(line.to_owned());
    }

    /// A line of a container. `now` is for the rate.
    pub fn container_line(&self, line: &[u8], now: Instant) {
        let mut queue = self.shared.lock();
        let n_bytes = line.len() + 1;
        let fits = queue.n_container_bytes + n_bytes <= MAX_QUEUED_BYTES;
        if !fits || !queue.bucket.take(n_bytes, now) {
            queue.n_dropped += 1;
            return;
        }
        queue.say_what_was_dropped();
        queue.n_container_bytes += n_bytes;
        queue.lines.push_back(without_marker(line));
        self.shared.changed.notify_all();
    }

    /// Waits until everything is written, but not longer than `limit`: the device may be stuck.
    pub fn flush(&self, limit: Duration) {
        let mut queue = self.shared.lock();
        queue.say_what_was_dropped();
        self.shared.changed.notify_all();
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        drop(self.shared.changed.wait_timeout_while(queue, limit, is_busy));
    }

    fn push_agent_line(&self, mut line: String) {
        let mut queue = self.shared.lock();
        if queue.n_agent_lines >= MAX_AGENT_LINES {
            return;
        }
        queue.say_what_was_dropped();
        line.push('\n');
        queue.n_agent_lines += 1;
        queue.lines.push_back(line.into_bytes());
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A panic elsewhere does not spoil a queue of lines.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn say_what_was_dropped(&mut self) {
        let n_dropped = std::mem::take(&mut self.n_dropped);
        if n_dropped > 0 {
            let note = format!(
                "heliograph: {n_dropped} lines of container output are not shown here, they came too fast\n"
            );
            self.lines.push_back(note.into_bytes());
        }
    }
}

/// The thread that writes. It ends when the last console of its kind is gone.
struct Writer {
    path: PathBuf,
    shared: std::sync::Weak<Shared>,
}

impl Writer {
    /// How often the thread looks whether it is still needed.
    const IDLE_CHECK: Duration = Duration::from_secs(1);

    fn run(self) {
        let mut has_complained = false;
        while let Some(shared) = self.shared.upgrade() {
            let Some(batch) = Self::next_batch(&shared) else {
                continue;
            };
            if let Err(error) = self.write(&batch)
                && !std::mem::replace(&mut has_complained, true)
            {
                tracing::warn!(path = %self.path.display(), %error, "console cannot be written");
            }
            shared.lock().is_writing = false;
            shared.changed.notify_all();
        }
    }

    fn next_batch(shared: &Shared) -> Option<Vec<u8>> {
        let is_empty = |queue: &mut Queue| queue.lines.is_empty();
        let waited = shared.changed.wait_timeout_while(shared.lock(), Self::IDLE_CHECK, is_empty);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if queue.lines.is_empty() {
            return None;
        }
        queue.is_writing = true;
        queue.n_container_bytes = 0;
        queue.n_agent_lines = 0;
        Some(std::mem::take(&mut queue.lines).into_iter().flatten().collect())
    }

    /// Tries twice: a line that was hung up works again once it is opened anew.
    fn write(&self, batch: &[u8]) -> std::io::Result<()> {
        self.open()?.write_all(batch).or_else(|_| self.open()?.write_all(batch))
    }

    fn open(&self) -> std::io::Result<File> {
        let is_device = self.path.starts_with("/dev");
        OpenOptions::new()
            .append(true)
            // A device that is missing must not become a file in /dev.
            .create(!is_device)
            .mode(0o600)
            .custom_flags((OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits())
            .open(&self.path)
    }
}

/// A container must not be able to write a result in the agent's name.
fn without_marker(line: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(line.len() + 1);
    for (at, byte) in line.iter().enumerate() {
        if line[at..].starts_with(MARKER.as_bytes()) {
            written.extend_from_slice(b"@ ");
        } else {
            written.push(*byte);
        }
    }
    written.push(b'\n');
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_ENOUGH: Duration = Duration::from_secs(10);

    fn console() -> (tempfile::TempDir, Console) {
        let directory = tempfile::tempdir().unwrap();
        let console = Console::new(&directory.path().join("console"));
        (directory, console)
    }

    fn written(directory: &tempfile::TempDir) -> String {
        std::fs::read_to_string(directory.path().join("console")).unwrap()
    }

    #[test]
    fn lines_arrive_in_order() {
        let (directory, console) = console();
        console.say("starting");
        console.container_line(b"hello", Instant::now());
        console.write_line("@@heliograph1 x");
        console.flush(LONG_ENOUGH);
        assert_eq!(written(&directory), "heliograph: starting\nhello\n@@heliograph1 x\n");
    }

    #[test]
    fn a_container_cannot_speak_for_the_agent() {
        let check = |line: &str, expect: &str| {
            assert_eq!(without_marker(line.as_bytes()), format!("{expect}\n").into_bytes());
        };
        check("login: @@heliograph1 1 x 0", "login: @ @heliograph1 1 x 0");
        check("@@@@heliograph1", "@@@ @heliograph1");
        check("a@b", "a@b");
    }

    #[test]
    fn a_chatty_container_is_cut_and_that_is_said() {
        let (directory, console) = console();
        let now = Instant::now();
        for _ in 0..10_000 {
            console.container_line(&[b'x'; 99], now);
        }
        console.say("the agent is heard all the same");
        console.flush(LONG_ENOUGH);

        let text = written(&directory);
        let n_shown = text.lines().filter(|line| line.starts_with("xxx")).count();
        assert_eq!(n_shown, BURST_BYTES as usize / 100);
        let note = format!("heliograph: {} lines of container output are", 10_000 - n_shown);
        assert!(text.contains(&note), "{note}");
        assert!(text.ends_with("heliograph: the agent is heard all the same\n"));
    }

    #[test]
    fn a_console_that_takes_nothing_holds_nobody_back() {
        // A pipe without a reader: opening it for writing blocks.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let console = Console::new(&path);
        for _ in 0..100_000 {
            console.say("x");
            console.container_line(b"y", Instant::now());
        }
        console.flush(Duration::from_millis(10));
        let queue = console.shared.lock();
        assert!(queue.lines.len() <= MAX_AGENT_LINES + MAX_QUEUED_BYTES / 2 + 2);
    }
}
