//! The file systems of drives.

#![no_main]

use std::io::Cursor;

use heliograph_agent::datasource::volume::Volume;
use libfuzzer_sys::fuzz_target;

const MAX_FILE_BYTES: u64 = 1024 * 1024;

fuzz_target!(|image: &[u8]| {
    let Some(mut volume) = Volume::open(Cursor::new(image)) else { return };
    assert!(!volume.label().contains('\0') || volume.label().len() < 64);
    for path in ["openstack/latest/meta_data.json", "openstack/latest/user_data", "user-data", ""] {
        if let Ok(Some(file)) = volume.read_file(path, MAX_FILE_BYTES) {
            assert!(file.len() as u64 <= MAX_FILE_BYTES);
        }
    }
});
