use std::io::Write;

use serde_json::json;

use super::*;

/// A tar of names and contents.
fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn open_bytes(bytes: &[u8], wanted: &str) -> Result<Opened, ArchiveError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    std::fs::write(&path, bytes).unwrap();
    let wanted = ImageReference::parse(wanted).unwrap();
    let platform = Platform::of(Some("linux/amd64"));
    open(&path, &wanted, &platform, &directory.path().join("unpacked"))
}

fn saved(images: &[(&str, Option<&str>)]) -> Vec<u8> {
    let manifest: Vec<_> = images
        .iter()
        .map(|(config, name)| json!({"Config": config, "RepoTags": name.map(|name| [name]), "Layers": ["layer.tar"]}))
        .collect();
    let manifest = json!(manifest).to_string();
    let mut members = vec![("manifest.json", manifest.as_bytes()), ("layer.tar", b"layer")];
    members.extend(images.iter().map(|(config, _)| (*config, config.as_bytes())));
    tar_of(&members)
}

fn id_of(opened: Result<Opened, ArchiveError>) -> Result<Digest, String> {
    match opened {
        Ok(Opened::Docker { id, .. }) => Ok(id),
        Ok(Opened::Oci { bundle, .. }) => Ok(bundle.id()),
        Err(error) => Err(crate::error::chain(&error)),
    }
}

#[test]
fn an_archive_of_docker_save_has_the_image_of_the_name_or_its_only_one() {
    let check = |images: &[(&str, Option<&str>)], wanted: &str, expect: Option<&str>| {
        let tar = saved(images);
        for bytes in [tar.clone(), gzip(&tar)] {
            let id = id_of(open_bytes(&bytes, wanted)).ok();
            let expect = expect.map(|config| Digest::sha256(config.as_bytes()));
            assert_eq!(id, expect, "{wanted} {images:?}");
        }
    };
    check(&[("a.json", None)], "web:1", Some("a.json"));
    check(&[("a.json", Some("other:1"))], "web:1", Some("a.json"));
    let two = [("a.json", Some("web:1")), ("b.json", Some("docker.io/library/web:2"))];
    check(&two, "web:1", Some("a.json"));
    check(&two, "web:2", Some("b.json"));
    check(&two, "web", None);
    check(&[], "web", None);
}

/// An OCI layout with one image per platform, below a nested index.
fn layout(damage: Option<&str>) -> Vec<u8> {
    let mut blobs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |kind: &str, content: Vec<u8>| {
        let digest = Digest::sha256(&content);
        let size = content.len();
        let name = format!("blobs/sha256/{}", digest.hex());
        let content = if damage == Some(kind) { b"damaged".to_vec() } else { content };
        blobs.push((name, content));
        json!({"digest": digest.to_string(), "size": size})
    };
    let mut variants = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let config = add("config", json!({"architecture": architecture}).to_string().into_bytes());
        let layer = add("layer", gzip(architecture.as_bytes()));
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let mut variant = add("manifest", manifest.to_string().into_bytes());
        variant["platform"] = json!({"os": "linux", "architecture": architecture});
        variants.push(variant);
    }
    let nested = json!({"schemaVersion": 2, "manifests": variants}).to_string().into_bytes();
    let mut nested = add("index", nested);
    nested["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    let index = json!({"schemaVersion": 2, "manifests": [nested]}).to_string();
    let mut members: Vec<(&str, &[u8])> = vec![
        ("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}"),
        ("./index.json", index.as_bytes()),
    ];
    members.extend(blobs.iter().map(|(name, content)| (name.as_str(), content.as_slice())));
    tar_of(&members)
}

#[test]
fn an_oci_layout_has_the_variant_of_the_platform() {
    let opened = open_bytes(&layout(None), "web:1").unwrap();
    let Opened::Oci { bundle, .. } = opened else { panic!("{opened:?}") };
    assert_eq!(bundle.config, json!({"architecture": "amd64"}).to_string().into_bytes());
    assert_eq!(bundle.layers.len(), 1);
    assert_eq!(bundle.layers[0].0, Digest::sha256(&gzip(b"amd64")));
}

#[test]
fn an_oci_layout_may_be_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    tar::Archive::new(&layout(None)[..]).unpack(directory.path()).unwrap();
    let wanted = ImageReference::parse("web:1").unwrap();
    let scratch = directory.path().join("unpacked");
    let opened = open(directory.path(), &wanted, &Platform::of(Some("linux/arm64")), &scratch);
    let expect = Digest::sha256(json!({"architecture": "arm64"}).to_string().as_bytes());
    assert_eq!(id_of(opened), Ok(expect));
}

#[test]
fn what_does_not_have_its_digest_is_not_loaded() {
    for damage in ["config", "layer", "manifest", "index"] {
        let error = id_of(open_bytes(&layout(Some(damage)), "web:1")).unwrap_err();
        assert!(error.contains("does not have the digest"), "{damage}: {error}");
    }
}

#[test]
fn what_cannot_be_loaded_is_said() {
    let check = |bytes: &[u8], expect: &str| {
        let error = id_of(open_bytes(bytes, "web:1")).unwrap_err();
        assert!(error.contains(expect), "{error} instead of {expect}");
    };
    check(b"\x28\xb5\x2f\xfd....", "compressed with zstd");
    check(b"\xfd7zXZ\0....", "compressed with xz");
    check(b"BZh9....", "compressed with bzip2");
    check(b"\x1f\x8bnot gzip", "cannot be read");
    check(b"", "neither");
    check(b"#!/bin/sh\necho no archive\n", "neither");
    check(&vec![b'x'; 4096], "neither");
    check(&tar_of(&[("etc/passwd", b"root")]), "neither");
    check(&tar_of(&[("manifest.json", b"{}")]), "manifest.json in it cannot be understood");
    let missing =
        json!([{"Config": "a.json", "RepoTags": null, "Layers": ["gone.tar"]}]).to_string();
    let missing = tar_of(&[("manifest.json", missing.as_bytes()), ("a.json", b"{}")]);
    check(&missing, "gone.tar is missing");
    check(&tar_of(&[("index.json", b"{\"schemaVersion\": 2}")]), "manifest cannot be used");
    let two = [("a.json", Some("one:1")), ("b.json", Some("two:1"))];
    check(&saved(&two), "no image web:1; it has one:1, two:1");
}

#[test]
fn names_are_compared_as_engines_do() {
    let check = |wanted: &str, name: &str, expect: bool| {
        let wanted = ImageReference::parse(wanted).unwrap();
        assert_eq!(is_named(&wanted, name), expect, "{wanted} {name}");
    };
    check("web:1", "web:1", true);
    check("web", "web:latest", true);
    check("web:1", "docker.io/library/web:1", true);
    check("web:1", "1", true);
    check("web", "latest", true);
    check("r.example/web:1", "web:1", false);
    check("web:1", "web:2", false);
    check("web:1", "not a name", false);
}
