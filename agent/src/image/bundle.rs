//! An image in pieces, and the same as an archive that every engine loads.
//!
//! Docker before version 25 loads one kind of archive only, that of `docker save`; Podman loads
//! it too. So whatever the agent fetched itself, from a registry or out of an OCI layout, is handed
//! to the engine as such an archive: `manifest.json`, the configuration, the layers as they came.
//! The engine unpacks compressed layers and compares each with the configuration's `diff_ids`.
//! The archive is never on the disk: it is read out of the pieces while the engine takes it.

use std::collections::BTreeSet;
use std::io::{self, SeekFrom};
use std::path::PathBuf;

use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::json;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::fetch::digest::Digest;

/// What is handed to the engine at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Tar's unit.
const BLOCK_BYTES: u64 = 512;

/// Bytes for the engine, piece by piece.
pub(crate) type Archive = BoxStream<'static, io::Result<Vec<u8>>>;

/// A part of a file: a layer that was downloaded, or one inside an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) n_bytes: u64,
}

/// An image whose every piece was checked against its digest.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<(Digest, Extent)>,
}

impl Bundle {
    /// What the engine will call the image: the digest of its configuration.
    pub(crate) fn id(&self) -> Digest {
        Digest::sha256(&self.config)
    }

    /// The archive, with the image under a name.
    pub(crate) fn into_archive(self, name: &str) -> Archive {
        let config_name = format!("{}.json", self.id().hex());
        let layer_name = |digest: &Digest| format!("{}/layer.tar", digest.hex());
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": [name],
            "Layers": self.layers.iter().map(|(digest, _)| layer_name(digest)).collect::<Vec<_>>(),
        }]);
        let manifest = manifest.to_string().into_bytes();
        let mut pieces = member("manifest.json", manifest);
        pieces.extend(member(&config_name, self.config));
        let mut written = BTreeSet::new();
        for (digest, extent) in self.layers {
            // The same layer may be in an image twice; the archive names it twice and has it once.
            if written.insert(digest.clone()) {
                let padding = padding(extent.n_bytes);
                pieces.push(Piece::Bytes(header(&layer_name(&digest), extent.n_bytes)));
                pieces.push(Piece::Extent(extent));
                pieces.push(Piece::Bytes(padding));
            }
        }
        // Two empty blocks end an archive.
        pieces.push(Piece::Bytes(vec![0; 2 * BLOCK_BYTES as usize]));
        stream::iter(pieces).flat_map(Piece::read).boxed()
    }
}

/// A whole file as it is.
pub(crate) fn whole_file(path: PathBuf, n_bytes: u64) -> Archive {
    Piece::Extent(Extent { path, offset: 0, n_bytes }).read()
}

enum Piece {
    Bytes(Vec<u8>),
    Extent(Extent),
}

impl Piece {
    fn read(self) -> Archive {
        match self {
            Piece::Bytes(bytes) => stream::once(async move { Ok(bytes) }).boxed(),
            Piece::Extent(extent) => {
                stream::try_unfold(Reading::Not(extent), |reading| reading.next()).boxed()
            }
        }
    }
}

enum Reading {
    Not(Extent),
    Open { file: File, n_left: u64 },
}

impl Reading {
    async fn next(self) -> io::Result<Option<(Vec<u8>, Reading)>> {
        let (mut file, n_left) = match self {
            Reading::Not(extent) => {
                let mut file = File::open(&extent.path).await?;
                file.seek(SeekFrom::Start(extent.offset)).await?;
                (file, extent.n_bytes)
            }
            Reading::Open { file, n_left } => (file, n_left),
        };
        if n_left == 0 {
            return Ok(None);
        }
        let n_wanted = usize::try_from(n_left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let mut bytes = vec![0; n_wanted];
        let n_read = file.read(&mut bytes).await?;
        if n_read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(n_read);
        Ok(Some((bytes, Reading::Open { file, n_left: n_left - n_read as u64 })))
    }
}

fn member(name: &str, content: Vec<u8>) -> Vec<Piece> {
    let n_bytes = content.len() as u64;
    let padding = padding(n_bytes);
    vec![Piece::Bytes(header(name, n_bytes)), Piece::Bytes(content), Piece::Bytes(padding)]
}

/// Names have at most 138 characters, so they fit into a header of the oldest kind or GNU's.
fn header(name: &str, n_bytes: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    // A name that does not fit is left empty, and the engine says that it misses it.
    drop(header.set_path(name));
    header.set_size(n_bytes);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn padding(n_bytes: u64) -> Vec<u8> {
    let n_over = n_bytes % BLOCK_BYTES;
    if n_over == 0 { Vec::new() } else { vec![0; (BLOCK_BYTES - n_over) as usize] }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn the_archive_is_a_tar_with_every_piece() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("layers");
        let n_large = 3 * CHUNK_BYTES + 7;
        std::fs::write(&path, [b"skipped".to_vec(), vec![b'a'; n_large], vec![b'b'; 512]].concat())
            .unwrap();
        let extent = |offset, n_bytes| Extent { path: path.clone(), offset, n_bytes };
        let (large, small) = (Digest::sha256(b"large"), Digest::sha256(b"small"));
        let bundle = Bundle {
            config: b"{}".to_vec(),
            layers: vec![
                (large.clone(), extent(7, n_large as u64)),
                (small.clone(), extent(7 + n_large as u64, 512)),
                (large.clone(), extent(7, n_large as u64)),
            ],
        };
        let id = bundle.id();
        let chunks: Vec<io::Result<Vec<u8>>> = bundle.into_archive("web:1").collect().await;
        let tar: Vec<u8> = chunks.into_iter().flat_map(Result::unwrap).collect();

        let mut archive = tar::Archive::new(&tar[..]);
        let members: Vec<(String, Vec<u8>)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect();
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let layer = |digest: &Digest| format!("{}/layer.tar", digest.hex());
        let config = format!("{}.json", id.hex());
        assert_eq!(names, ["manifest.json", &config, &layer(&large), &layer(&small)]);
        assert_eq!(members[2].1, vec![b'a'; n_large]);
        assert_eq!(members[3].1, vec![b'b'; 512]);
        let manifest: serde_json::Value = serde_json::from_slice(&members[0].1).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["web:1"]));
        assert_eq!(manifest[0]["Layers"].as_array().map(Vec::len), Some(3));
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive");
        std::fs::write(&path, b"0123456789").unwrap();
        let chunks: Vec<_> = whole_file(path.clone(), 10).collect().await;
        assert_eq!(chunks.len(), 1);
        let chunks: Vec<_> = whole_file(path, 11).collect().await;
        assert!(chunks.last().is_some_and(Result::is_err));
    }
}
