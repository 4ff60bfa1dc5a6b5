//! Signatures made by the real python-swiftclient verify here, and ours equal them. The script
//! beside the data makes it anew.

use serde::Deserialize;
use signal_protocol::tempurl::{self, Digest, TempUrl};

#[derive(Deserialize)]
struct Document {
    expires: u64,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    key: String,
    path: String,
    method: String,
    digest: String,
    prefix: bool,
    query: String,
}

fn document() -> Document {
    serde_json::from_str(include_str!("vectors/tempurl.json")).expect("the vectors are JSON")
}

#[test]
fn signatures_of_swiftclient_verify() {
    let Document { expires, vectors } = document();
    assert!(vectors.len() > 200, "{} vectors", vectors.len());
    for vector in vectors {
        let temp_url = TempUrl::from_query(&vector.query).expect("valid").expect("present");
        assert_eq!(temp_url.expires, expires, "{}", vector.query);
        assert_eq!(temp_url.prefix.is_some(), vector.prefix, "{}", vector.query);
        let verdict = temp_url.verify(&vector.method, &vector.path, [&vector.key], expires);
        assert_eq!(verdict, Ok(()), "{} {}", vector.method, vector.query);
        let longer = format!("{}x", vector.path);
        let verdict = temp_url.verify(&vector.method, &longer, [&vector.key], expires);
        assert_eq!(verdict.is_ok(), vector.prefix, "{} {}", vector.method, vector.query);
    }
}

#[test]
fn our_signatures_are_those_of_swiftclient() {
    let Document { expires, vectors } = document();
    for vector in vectors.iter().filter(|vector| !vector.prefix) {
        let digest = match vector.digest.as_str() {
            "sha1" => Digest::Sha1,
            "sha256" => Digest::Sha256,
            _ => Digest::Sha512,
        };
        let ours =
            tempurl::sign(digest, vector.key.as_bytes(), &vector.method, expires, &vector.path);
        let theirs = TempUrl::from_query(&vector.query).expect("valid").expect("present");
        assert_eq!(ours, theirs.signature, "{}", vector.query);
    }
}
