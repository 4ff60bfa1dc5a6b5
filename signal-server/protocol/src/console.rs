//! Results in the text of a console.
//!
//! Where an instance reaches nothing at all, what it wrote on its console is all there is, and the
//! cloud's API shows it. The agent's line for programs is
//!
//! ```text
//! @@heliograph1 <seq> <json in base64url> <crc32 of that base64url, 8 hex digits>
//! ```
//!
//! and holds `status`, `id` and `reason`. Consoles interleave, cut and repeat: the kernel may write into
//! a line or behind it, and each boot may write its own. So a line counts only if its checksum is right,
//! what stands behind that does not matter, and of several results with one id the last is taken.
//!
//! A result stands at the beginning of its line, which is what the agent begins it with. What others
//! write behind a prefix, as the kernel and most programs do, is not the agent's, whatever it says.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::signal::Signal;

/// What a line for programs has in it, before the number of its version.
const MARKER: &str = "@@heliograph1 ";

/// What a console says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// One for each id, in the order of their first appearance.
    pub signals: Vec<Signal>,
    /// Lines that were meant to be results and cannot be read.
    pub n_damaged: usize,
}

/// Reads results line after line, so that a log of any length can be read.
#[derive(Debug, Default)]
pub struct Reader {
    results: Results,
}

impl Reader {
    /// Takes the next line from its beginning on, with or without its end.
    pub fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        match line.strip_prefix(MARKER).and_then(parse) {
            Some(signal) => self.add(signal),
            None if line.contains(MARKER) => self.results.n_damaged += 1,
            None => {}
        }
    }

    pub fn finish(self) -> Results {
        self.results
    }

    fn add(&mut self, signal: Signal) {
        let signals = &mut self.results.signals;
        match signals.iter_mut().find(|known| known.id == signal.id) {
            Some(known) => *known = signal,
            None => signals.push(signal),
        }
    }
}

/// What follows the marker: number, JSON, checksum, and whatever else got onto the line.
fn parse(rest: &str) -> Option<Signal> {
    let mut words = rest.split_ascii_whitespace();
    let _seq: u32 = words.next()?.parse().ok()?;
    let encoded = words.next()?;
    let checksum = u32::from_str_radix(words.next()?.get(..8)?, 16).ok()?;
    if checksum != crc32fast::hash(encoded.as_bytes()) {
        return None;
    }
    Signal::parse(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u32, json: &str) -> String {
        let encoded = URL_SAFE_NO_PAD.encode(json);
        format!("{MARKER}{seq} {encoded} {:08x}", crc32fast::hash(encoded.as_bytes()))
    }

    fn read(text: &str) -> Results {
        let mut reader = Reader::default();
        text.as_bytes().split(|byte| *byte == b'\n').for_each(|line| reader.line(line));
        reader.finish()
    }

    #[test]
    fn results_are_found_among_everything_else() {
        let good = line(1, r#"{"status": "FAILURE", "id": "i/main/1", "reason": "exit code 3"}"#);
        let check = |text: &str, n_signals: usize, n_damaged: usize| {
            let results = read(text);
            assert_eq!(
                (results.signals.len(), results.n_damaged),
                (n_signals, n_damaged),
                "{text}"
            );
        };
        check(&good, 1, 0);
        check(&format!("[    2.1] boot\r\nvm login: \r\n{good}\r\nmore"), 1, 0);
        check(&format!("vm login: {good}"), 0, 1);
        check(&format!("heliograph: FAILURE watch: it wrote: {good}"), 0, 1);
        check(&format!("{good}[  12.0] docker0: port 1"), 1, 0);
        check(&format!("{good}\n{good}\n"), 1, 0);
        check(&good.replace("@@heliograph1 1", "@ @heliograph1 1"), 0, 0);
        check("@@heliograph1 not a result", 0, 1);
        check(&good.replace("@@heliograph1 1 ", "@@heliograph1 x "), 0, 1);
        check(&good[..good.len() - 4], 0, 1);
        check(&good.replacen("eyJ", "eyK", 1), 0, 1);
        check(&line(1, "{\"status\": \"MAYBE\"}"), 0, 1);
        check("", 0, 0);
    }

    #[test]
    fn of_one_id_the_last_result_counts() {
        let first = line(1, r#"{"status": "FAILURE", "id": "a", "reason": "no engine"}"#);
        let other = line(1, r#"{"status": "SUCCESS", "id": "b", "reason": "ok"}"#);
        let last = line(2, r#"{"status": "SUCCESS", "id": "a", "reason": "ok"}"#);
        let results = read(&format!("{first}\n{other}\n{last}"));
        let reasons: Vec<_> =
            results.signals.iter().map(|signal| signal.reason.as_deref()).collect();
        assert_eq!(reasons, [Some("ok"), Some("ok")]);
        assert_eq!(results.signals[0].id.as_deref(), Some("a"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_on_a_console_is_trouble(bytes: Vec<u8>) {
            let mut reader = Reader::default();
            reader.line(&bytes);
            reader.line(&[MARKER.as_bytes(), &bytes].concat());
            proptest::prop_assert!(reader.finish().signals.is_empty());
        }
    }
}
