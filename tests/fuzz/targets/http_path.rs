//! What an instance's request carries: the path, and the signal in the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use signal_protocol::path::SwiftPath;
use signal_protocol::signal::Signal;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        exercise_path(text);
        exercise_path(&format!("/v1/{text}"));
    }
    exercise_signal(bytes);
});

/// A path that is read, written and read again is the same path.
fn exercise_path(text: &str) {
    match SwiftPath::parse(text) {
        Ok(path) => {
            let encoded: String =
                path.decoded().bytes().map(|byte| format!("%{byte:02X}")).collect();
            // The slashes between the names may be encoded as well: a proxy on the way does that.
            assert_eq!(SwiftPath::parse(&encoded).ok(), Some(path), "{text:?}");
        }
        Err(error) => assert!(!error.code().is_empty()),
    }
}

/// A signal that is read, written and read again is the same signal.
fn exercise_signal(bytes: &[u8]) {
    match Signal::parse(bytes) {
        Ok(signal) => {
            let written = signal.to_json();
            let again = Signal::parse(written.as_bytes());
            assert_eq!(again.map(|again| again.to_json()).ok(), Some(written));
        }
        Err(error) => assert!(!error.code().is_empty()),
    }
}
