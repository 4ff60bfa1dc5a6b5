//! TempURLs: the query, and the signature over method, path and time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use signal_protocol::tempurl::{Digest, TempUrl, sign};

const KEY: &[u8] = b"key";
const PATH: &str = "/v1/AUTH_a/c/object";
const NOW: u64 = 1_700_000_000;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(Some(temp_url)) = TempUrl::from_query(&text) {
        for method in ["GET", "HEAD", "PUT"] {
            // Nobody guesses a signature; a prefix signature is one over another text.
            let opened = temp_url.verify(method, PATH, [KEY, b"other"], NOW);
            assert!(opened.is_err(), "opened without the key");
            let _ = temp_url.verify(method, &text, [KEY], NOW);
        }
    }
    let (path, _) = text.split_once('?').unwrap_or((&text, ""));
    for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha512] {
        let signature = sign(digest, KEY, "PUT", NOW, path);
        let temp_url = TempUrl { signature, expires: NOW, prefix: None };
        assert!(temp_url.verify("PUT", path, [b"other".as_slice(), KEY], NOW).is_ok());
        assert!(temp_url.verify("HEAD", path, [KEY], NOW).is_ok());
        assert!(temp_url.verify("GET", path, [KEY], NOW).is_err());
        assert!(temp_url.verify("PUT", path, [KEY], NOW + 1).is_err());
        assert!(temp_url.verify("PUT", path, [b"other"], NOW).is_err());
    }
});
