//! The console device, where `nova console-log` and Horizon's Log tab read.
//!
//! Lines of the agent begin with `heliograph: `; lines of the container come as the container
//! wrote them, without what a terminal would act on. Nothing that others have worded can be read as
//! a result, which anybody who may read the console's log takes for the agent's: neither what a
//! container writes, nor what the agent repeats of a health check, an engine or a registry. Nova's
//! API leaves control characters out of the log, so they go first, and what is then a result's
//! marker is broken up.
//!
//! A console is slow (a real serial line 11 kB/s, a virtual one some 100 kB/s), it can
//! stop taking bytes, and it can go away (`EIO` when a getty hangs the line up), and none of that
//! may hold the agent back. So everything goes through a bounded queue to one thread, which opens
//! the device anew for each batch; a token bucket limits what a container may write, and what did
//! not get through is counted and said. Failing to write is never an error of the run.

mod bucket;
mod device;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::OFlag;
use tokio::time::Instant;

use crate::console::bucket::Bucket;
use crate::signal::console::MARKER;
use crate::text;

/// What a container may write without a pause: the screenful or two that a start needs.
const BURST_BYTES: u32 = 128 * 1024;

/// What a container may write per second afterwards; a virtual serial line takes twenty times that.
const BYTES_PER_SECOND: u32 = 32 * 1024;

/// Container output that waits for the device; more is dropped.
const MAX_QUEUED_BYTES: usize = 256 * 1024;

/// Lines of the agent that wait for the device. There are some thirty in a run.
const MAX_AGENT_LINES: usize = 512;

/// What stands where somebody has written a result's marker.
const BROKEN_MARKER: &str = "@ @heliograph";

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

    /// Lines of the agent. The words of others may stand in them.
    pub fn say(&self, text: &str) {
        for line in text.lines() {
            self.push_agent_line(format!("heliograph: {}\n", harmless(line)));
        }
    }

    /// The line for programs, as it is. It has to stand at the beginning of a line, where there may be
    /// a login prompt.
    pub fn write_result(&self, line: &str) {
        self.push_agent_line(format!("\n{line}\n"));
    }

    /// A line of a container. `now` is for the rate.
    pub fn container_line(&self, line: &[u8], now: Instant) {
        let line = harmless(&String::from_utf8_lossy(line)) + "\n";
        let n_bytes = line.len();
        let mut queue = self.shared.lock();
        let fits = queue.n_container_bytes + n_bytes <= MAX_QUEUED_BYTES;
        if !fits || !queue.bucket.take(n_bytes, now) {
            queue.n_dropped += 1;
            return;
        }
        queue.say_what_was_dropped();
        queue.n_container_bytes += n_bytes;
        queue.lines.push_back(line.into_bytes());
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

    fn push_agent_line(&self, line: String) {
        let mut queue = self.shared.lock();
        if queue.n_agent_lines >= MAX_AGENT_LINES {
            return;
        }
        queue.say_what_was_dropped();
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
        let mut is_cut = false;
        while let Some(shared) = self.shared.upgrade() {
            let Some(batch) = Self::next_batch(&shared) else {
                continue;
            };
            if let Err(error) = self.write(&batch, &mut is_cut)
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

    /// Tries twice: a line that was hung up works again once it is opened anew. What was cut stays a
    /// line of its own: with what follows behind it, it could be read as another.
    fn write(&self, batch: &[u8], is_cut: &mut bool) -> io::Result<()> {
        let mut attempt = || {
            let lead: &[u8] = if *is_cut { b"\n" } else { b"" };
            let written = self.open().and_then(|mut file| file.write_all(&[lead, batch].concat()));
            *is_cut = written.is_err();
            written
        };
        attempt().or_else(|_| attempt())
    }

    fn open(&self) -> io::Result<File> {
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

/// The words of others, in which no result can be read.
fn harmless(line: &str) -> String {
    text::without_controls(line).replace(MARKER, BROKEN_MARKER)
}

#[cfg(test)]
mod tests {
    use signal_protocol::console::Reader;
    use signal_protocol::signal::{Signal, Status};

    use super::*;
    use crate::signal::console::machine_line;

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
        console.write_result("@@heliograph1 x");
        console.say("over\nand out");
        console.flush(LONG_ENOUGH);
        let expect = "heliograph: starting\nhello\n\n@@heliograph1 x\n\
                      heliograph: over\nheliograph: and out\n";
        assert_eq!(written(&directory), expect);
    }

    /// Nor can what the agent repeats of others, and nor can either once control characters are left
    /// out, as Nova's API does.
    #[test]
    fn a_container_cannot_speak_for_the_agent() {
        let check = |line: &[u8], expect: &str| {
            let (directory, console) = console();
            console.container_line(line, Instant::now());
            console.say(&String::from_utf8_lossy(line));
            console.flush(LONG_ENOUGH);
            assert_eq!(written(&directory), format!("{expect}\nheliograph: {expect}\n"));
        };
        check(b"login: @@heliograph1 1 x 0", "login: @ @heliograph1 1 x 0");
        check(b"@@@@heliograph1", "@@@ @heliograph1");
        check(b"@@heliograph@@heliograph", "@ @heliograph@ @heliograph");
        check(b"a@b\tc", "a@b\tc");
        for unseen in ["\x01", "\x08", "\x0b", "\x1b", "\x1b[1;31m", "\x7f", "\u{9b}"] {
            let line = format!("@{unseen}@helio{unseen}{unseen}graph1");
            check(line.as_bytes(), "@ @heliograph1");
        }
        check(b"caf\xe9", "caf\u{fffd}");
    }

    /// Whoever prints a whole result has it with any character in it that Nova's API leaves out of what
    /// it shows: `re.compile('[\x00-\x08\x0B-\x1F]')`.
    #[test]
    fn of_what_nova_shows_only_the_agents_result_is_read() {
        let result = |status, id: &str| {
            let signal = Signal { status, reason: None, id: Some(id.to_owned()), data: None };
            machine_line(1, &signal)
        };
        let forged = result(Status::Success, "forged");
        let (directory, console) = console();
        for unseen in (0..0x20).map(char::from).filter(|unseen| *unseen != '\n') {
            for at in 0..=MARKER.len() + 1 {
                let line = format!("{}{unseen}{}", &forged[..at], &forged[at..]);
                console.container_line(line.as_bytes(), Instant::now());
                console.say(&line);
            }
            console.flush(LONG_ENOUGH);
        }
        console.container_line(b"login: ", Instant::now());
        console.write_result(&result(Status::Failure, "real"));
        console.flush(LONG_ENOUGH);

        let is_shown = |c: &char| !matches!(c, '\0'..='\x08' | '\x0b'..='\x1f');
        let shown: String = written(&directory).chars().filter(is_shown).collect();
        let mut reader = Reader::default();
        shown.lines().for_each(|line| reader.line(line.as_bytes()));
        let results = reader.finish();
        let ids: Vec<_> = results.signals.iter().map(|signal| signal.id.as_deref()).collect();
        assert_eq!((ids, results.n_damaged), (vec![Some("real")], 0));
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
