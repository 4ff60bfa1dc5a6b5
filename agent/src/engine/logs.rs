//! A container's output as the Engine API streams it.
//!
//! Without a terminal each piece has an eight-byte header: one byte for the stream (1 standard
//! output, 2 standard error), three zero bytes, and the length, big-endian. With a terminal the
//! bytes come as they are. Followed logs are asked for with timestamps, because only they tell
//! where to go on when the stream has ended; Docker's have nanoseconds, Podman's whole seconds.

/// A longer line is cut. The console is for people, and a line feed may never come.
pub const MAX_LINE_BYTES: usize = 2048;

/// Room for a line and the timestamp before it.
const MAX_STAMPED_LINE_BYTES: usize = MAX_LINE_BYTES + 40;

const HEADER_BYTES: usize = 8;

/// Which part of the log to read. Both are bounded in bytes, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRange {
    First,
    LastLines(u32),
}

impl LogRange {
    /// How much of the log is kept in memory: enough for the longest reason and output.
    pub const MAX_BYTES: usize = 64 * 1024;
}

/// Where to begin to read or to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogStart {
    Beginning,
    /// Only what is written from now on.
    NewOnly,
    /// So many of the last lines, and what is written from now on.
    LastLines(u32),
    /// Everything from this timestamp on, lines of that very moment included.
    Since(jiff::Timestamp),
}

/// One line that a container wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    pub at: Option<jiff::Timestamp>,
    /// Without the line feed.
    pub text: &'a [u8],
}

/// Takes the stream apart into pieces of standard output and standard error.
#[derive(Debug, Default)]
pub(crate) struct Demultiplexer {
    header: Vec<u8>,
    n_left: usize,
    piece: Piece,
}

/// Where a piece of output belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// 0 for standard output, 1 for standard error.
    pub(crate) stream: usize,
    /// It begins with a timestamp, if timestamps were asked for.
    pub(crate) begins_message: bool,
}

impl Demultiplexer {
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut on_piece: impl FnMut(Piece, &[u8])) {
        while !bytes.is_empty() {
            if self.n_left == 0 {
                let n_missing = (HEADER_BYTES - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..n_missing]);
                bytes = &bytes[n_missing..];
                if self.header.len() == HEADER_BYTES {
                    let length = [self.header[4], self.header[5], self.header[6], self.header[7]];
                    self.n_left = u32::from_be_bytes(length) as usize;
                    let stream = usize::from(self.header[0] == 2);
                    self.piece = Piece { stream, begins_message: true };
                    self.header.clear();
                }
                continue;
            }
            let n_taken = self.n_left.min(bytes.len());
            on_piece(self.piece, &bytes[..n_taken]);
            self.piece.begins_message = false;
            self.n_left -= n_taken;
            bytes = &bytes[n_taken..];
        }
    }
}

/// Collects pieces into lines.
///
/// Engines keep a long line, or one that was written in parts, as several messages. Each of them
/// comes with a timestamp, of which only the first is wanted.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    is_skipping_stamp: bool,
}

impl Lines {
    /// The next piece begins a message of the engine.
    pub(crate) fn begin_message(&mut self) {
        self.is_skipping_stamp = !self.line.is_empty();
    }

    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        on_line: &mut (dyn for<'l> FnMut(LogLine<'l>) + Send),
    ) {
        if self.is_skipping_stamp {
            let Some(space) = bytes.iter().position(|byte| *byte == b' ') else {
                return;
            };
            bytes = &bytes[space + 1..];
            self.is_skipping_stamp = false;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_STAMPED_LINE_BYTES - self.line.len();
            let text = piece.strip_suffix(b"\n");
            let content = text.unwrap_or(piece);
            self.line.extend_from_slice(&content[..content.len().min(room)]);
            if text.is_some() {
                on_line(stamped(&self.line));
                self.line.clear();
            }
        }
    }

    /// The end of the stream: a line without a line feed is a line.
    pub(crate) fn finish(&mut self, on_line: &mut (dyn for<'l> FnMut(LogLine<'l>) + Send)) {
        if !self.line.is_empty() {
            on_line(stamped(&self.line));
            self.line.clear();
        }
    }
}

fn stamped(line: &[u8]) -> LogLine<'_> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let space = line.iter().position(|byte| *byte == b' ');
    let (stamp, text) =
        space.map_or((line, &line[line.len()..]), |at| (&line[..at], &line[at + 1..]));
    let at = std::str::from_utf8(stamp).ok().and_then(|stamp| stamp.parse().ok());
    let text = if at.is_some() { text } else { line };
    LogLine { at, text: &text[..text.len().min(MAX_LINE_BYTES)] }
}

/// Keeps the beginning or the end of a log.
#[derive(Debug)]
pub(crate) struct Excerpt {
    range: LogRange,
    bytes: Vec<u8>,
}

impl Excerpt {
    pub(crate) fn new(range: LogRange) -> Excerpt {
        Excerpt { range, bytes: Vec::new() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        match self.range {
            LogRange::First => {
                let room = LogRange::MAX_BYTES - self.bytes.len();
                self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            LogRange::LastLines(_) => {
                self.bytes.extend_from_slice(bytes);
                let excess = self.bytes.len().saturating_sub(LogRange::MAX_BYTES);
                self.bytes.drain(..excess);
            }
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.range == LogRange::First && self.bytes.len() == LogRange::MAX_BYTES
    }

    pub(crate) fn into_text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text);
        frame
    }

    fn lines_of(stream: &[u8], cut: usize) -> Vec<(Option<String>, String)> {
        let mut seen = Vec::new();
        let mut on_line = |line: LogLine<'_>| {
            let at = line.at.map(|at| at.to_string());
            seen.push((at, String::from_utf8_lossy(line.text).into_owned()));
        };
        let mut demultiplexer = Demultiplexer::default();
        let mut lines = [Lines::default(), Lines::default()];
        for part in [&stream[..cut], &stream[cut..]] {
            demultiplexer.feed(part, |piece, bytes| {
                if piece.begins_message {
                    lines[piece.stream].begin_message();
                }
                lines[piece.stream].feed(bytes, &mut on_line);
            });
        }
        for lines in &mut lines {
            lines.finish(&mut on_line);
        }
        seen
    }

    #[test]
    fn frames_become_lines_however_they_are_cut() {
        let mut stream = frame(1, b"2026-11-21T09:03:25.834261368Z out\n");
        stream.extend(frame(2, b"2026-11-21T09:03:26Z err\r\n"));
        stream.extend(frame(2, b"2026-11-21T09:03:26Z in "));
        stream.extend(frame(1, b"2026-11-21T09:03:27Z between\n"));
        stream.extend(frame(2, b"2026-11-21T09:03:27Z parts\n"));
        stream.extend(frame(1, b"2026-11-21T09:03:27Z no line feed"));
        let expect = [
            (Some("2026-11-21T09:03:25.834261368Z".to_owned()), "out".to_owned()),
            (Some("2026-11-21T09:03:26Z".to_owned()), "err".to_owned()),
            (Some("2026-11-21T09:03:27Z".to_owned()), "between".to_owned()),
            (Some("2026-11-21T09:03:26Z".to_owned()), "in parts".to_owned()),
            (Some("2026-11-21T09:03:27Z".to_owned()), "no line feed".to_owned()),
        ];
        for cut in 0..stream.len() {
            assert_eq!(lines_of(&stream, cut), expect, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_is_stamped_or_not() {
        let check = |line: &str, expect: (bool, &str)| {
            let read = stamped(line.as_bytes());
            assert_eq!((read.at.is_some(), std::str::from_utf8(read.text).unwrap()), expect);
        };
        check("2026-11-21T09:03:25Z text with spaces", (true, "text with spaces"));
        check("2026-11-21T10:03:25.5+01:00 text", (true, "text"));
        check("2026-11-21T09:03:25Z ", (true, ""));
        check("no stamp", (false, "no stamp"));
        check("", (false, ""));
    }

    #[test]
    fn lines_and_excerpts_are_bounded() {
        let mut longest = 0;
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.feed(&[b'x'; 1000], &mut |_| panic!("no line has ended"));
        }
        lines.feed(b"\n", &mut |line| longest = line.text.len());
        assert_eq!(longest, MAX_LINE_BYTES);

        for range in [LogRange::First, LogRange::LastLines(5)] {
            let mut excerpt = Excerpt::new(range);
            for n in 0..100 {
                excerpt.push(&[n; 1024]);
            }
            assert_eq!(excerpt.bytes.len(), LogRange::MAX_BYTES);
            let expect = if range == LogRange::First { 0 } else { 36 };
            assert_eq!(excerpt.bytes[0], expect, "{range:?}");
        }
    }
}
