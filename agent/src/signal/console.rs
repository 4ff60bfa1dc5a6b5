//! The result on the console: a line for people, and a line for programs.
//!
//! The console log is what the cloud's API shows when nothing else of an instance can be reached,
//! so the result is always written there, however it is signalled as well. The line for programs is
//!
//! ```text
//! @@heliograph1 <seq> <json in base64url> <crc32 of that base64url, 8 hex digits>
//! ```
//!
//! It holds `status`, `id` and `reason`, never `data`. It is at most 800 bytes long, because
//! consoles interleave and cut long lines: the reason is shortened until it fits, and the checksum
//! tells a line that was damaged nevertheless. `seq` counts the results of one run, from 1.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use signal_protocol::signal::{Signal, Status};

use crate::text;

/// The longest line for programs.
const MAX_LINE_BYTES: usize = 800;

/// What such a line begins with. A container's output may not contain it.
pub const MARKER: &str = "@@heliograph";

/// The longest line for people; a reason may hold log lines, which follow on lines of their own.
const MAX_SUMMARY_BYTES: usize = 400;

/// The line for people, without the console's own prefix: the status and the reason's first line.
pub fn summary(signal: &Signal) -> String {
    let status = match signal.status {
        Status::Success => "SUCCESS",
        Status::Failure => "FAILURE",
    };
    let reason = signal.reason.as_deref().and_then(|reason| reason.lines().next());
    text::shorten(&format!("{status} {}", reason.unwrap_or_default()), MAX_SUMMARY_BYTES)
}

/// The line for programs.
pub fn machine_line(seq: u32, signal: &Signal) -> String {
    let reason = signal.reason.as_deref().unwrap_or_default();
    let mut max_reason_bytes = reason.len();
    loop {
        let json = serde_json::json!({
            "status": signal.status,
            "id": signal.id.as_deref().map(|id| text::shorten(id, 200)),
            "reason": text::shorten(reason, max_reason_bytes),
        });
        let encoded = URL_SAFE_NO_PAD.encode(json.to_string());
        let line = format!("{MARKER}1 {seq} {encoded} {:08x}", crc32(encoded.as_bytes()));
        if line.len() <= MAX_LINE_BYTES || max_reason_bytes == 0 {
            return line;
        }
        max_reason_bytes = max_reason_bytes.min(MAX_LINE_BYTES) * 3 / 4;
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(id: &str, reason: &str) -> Signal {
        Signal {
            status: Status::Failure,
            reason: Some(reason.to_owned()),
            id: Some(id.to_owned()),
            data: None,
        }
    }

    #[test]
    fn the_line_for_programs_can_be_read_back() {
        let line = machine_line(1, &signal("i-1/main/0123", "exit code 3"));
        let parts: Vec<&str> = line.split(' ').collect();
        assert_eq!((parts[0], parts[1], parts.len()), ("@@heliograph1", "1", 4));
        assert_eq!(parts[3], format!("{:08x}", crc32(parts[2].as_bytes())));
        let json: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[2]).unwrap()).unwrap();
        let expect = serde_json::json!(
            {"status": "FAILURE", "id": "i-1/main/0123", "reason": "exit code 3"});
        assert_eq!(json, expect);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the usual CRC-32");
    }

    #[test]
    fn the_line_for_programs_is_bounded() {
        for reason in ["x".repeat(100_000), "\"\u{1}\\".repeat(10_000), "ä".repeat(5_000)] {
            let line = machine_line(u32::MAX, &signal(&"\"".repeat(1024), &reason));
            assert!(line.len() <= MAX_LINE_BYTES, "{}", line.len());
        }
    }

    #[test]
    fn the_line_for_people_is_one_line() {
        let line = summary(&signal("1", "watch: exit code 3\nlast output:\nout"));
        assert_eq!(line, "FAILURE watch: exit code 3");
    }
}
