//! User data, from its bytes to the plan.

#![no_main]

use heliograph_agent::plan::Plan;
use heliograph_agent::userdata;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = userdata::signal_target_of(bytes);
    exercise(bytes);
    // Most bytes are no user data; let them be a document too.
    exercise(&[b"#docker\n", bytes].concat());
});

fn exercise(bytes: &[u8]) {
    match userdata::load(bytes) {
        Ok(document) => {
            let plan = Plan::new(&document, std::path::Path::new("/state"));
            assert_eq!(plan.containers.len(), document.services.len());
            assert!(plan.to_json().is_object());
        }
        Err(error) => {
            assert!(!error.code().is_empty());
            // It is signalled and logged on one line.
            assert!(error.to_string().len() < 4096, "a long message: {error}");
            assert!(!error.to_string().contains('\n'), "a message of several lines: {error}");
        }
    }
}
