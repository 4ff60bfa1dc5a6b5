//! Image archives: those of `docker save`, and OCI layouts as a directory or as a tar.
//!
//! An archive is looked through before the engine gets it: what it holds, under which names, and
//! whether every piece that a digest names has that digest. An archive of `docker save` is then
//! given to the engine as it is; an OCI layout is put together anew (see `bundle`), because older
//! engines do not load one. The archive may be compressed with gzip.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use crate::fetch::digest::Digest;
use crate::fetch::digest_of_reader;
use crate::image::bundle::{Bundle, Extent};
use crate::image::manifest::{
    self, Descriptor, MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES, Manifest, ManifestError, Platform,
};
use crate::plan::ImageReference;

/// The largest archive, unpacked from gzip or not: images of machine-learning people have 20 GiB.
pub(crate) const MAX_ARCHIVE_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// An image has a handful of files per layer; this is the index's memory, not the archive's size.
const MAX_MEMBERS: usize = 10_000;

/// A configuration has the image's history and environment.
pub(crate) const MAX_CONFIG_BYTES: u64 = 8 * 1024 * 1024;

/// What an archive turned out to be.
#[derive(Debug)]
pub(crate) enum Opened {
    /// `docker save`'s: to be loaded as it is. It has an image of this id.
    Docker { file: PathBuf, n_bytes: u64, id: Digest },
    /// An OCI layout's image, with the digest that its index names it by.
    Oci { bundle: Bundle, digest: Digest },
}

/// Why an archive cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("archive cannot be read")]
    Read(#[source] io::Error),
    #[error("it is compressed with {0}, which is not supported: use gzip or none")]
    Compression(&'static str),
    #[error("it is neither an archive of `docker save` nor an OCI layout")]
    Unknown,
    #[error("it is larger than {MAX_ARCHIVE_BYTES} bytes, or has too many members")]
    TooLarge,
    #[error("{name} is missing in it")]
    Missing { name: String },
    #[error("{name} in it is too large")]
    MemberTooLarge { name: String },
    #[error("{name} in it cannot be understood")]
    Parse { name: &'static str, source: serde_json::Error },
    #[error("{name} in it does not have the digest that it is named by")]
    Damaged { name: String },
    #[error("it has no image {wanted}; it has {available}")]
    NoSuchImage { wanted: String, available: String },
    #[error("its manifest cannot be used")]
    Manifest(#[source] ManifestError),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Looks through the archive for the image. `scratch` is where an archive is unpacked to if it is
/// compressed. Reads all of it, so it belongs on a thread of its own.
pub(crate) fn open(
    path: &Path,
    wanted: &ImageReference,
    platform: &Platform,
    scratch: &Path,
) -> Result<Opened, ArchiveError> {
    let members = if path.is_dir() {
        Members::Directory(path.to_owned())
    } else {
        let path = decompressed(path, scratch)?;
        let extents = index(&path)?;
        Members::Tar { path, extents }
    };
    if let Members::Tar { path, extents } = &members
        && extents.contains_key("manifest.json")
    {
        let id = saved_image(&members, wanted)?;
        let n_bytes = std::fs::metadata(path).map_err(ArchiveError::Read)?.len();
        return Ok(Opened::Docker { file: path.clone(), n_bytes, id });
    }
    if members.find("index.json")?.is_none() {
        return Err(ArchiveError::Unknown);
    }
    layout_image(&members, wanted, platform)
}

/// The path of the archive without compression.
fn decompressed(path: &Path, scratch: &Path) -> Result<PathBuf, ArchiveError> {
    let mut file = File::open(path).map_err(ArchiveError::Read)?;
    let mut magic = Vec::new();
    (&mut file).take(6).read_to_end(&mut magic).map_err(ArchiveError::Read)?;
    match magic.as_slice() {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(ArchiveError::Compression("zstd")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(ArchiveError::Compression("xz")),
        [b'B', b'Z', b'h', ..] => return Err(ArchiveError::Compression("bzip2")),
        [0x1f, 0x8b, ..] => {}
        _ => return Ok(path.to_owned()),
    }
    file.rewind().map_err(ArchiveError::Read)?;
    let mut unpacked = MultiGzDecoder::new(file).take(MAX_ARCHIVE_BYTES + 1);
    let mut to = File::create(scratch).map_err(ArchiveError::Read)?;
    let n_bytes = io::copy(&mut unpacked, &mut to).map_err(ArchiveError::Read)?;
    if n_bytes > MAX_ARCHIVE_BYTES {
        return Err(ArchiveError::TooLarge);
    }
    Ok(scratch.to_owned())
}

/// Where in the archive each file is. Links are followed one step, as `docker save` makes them for
/// a layer that several images share.
fn index(path: &Path) -> Result<BTreeMap<String, Extent>, ArchiveError> {
    let file = File::open(path).map_err(ArchiveError::Read)?;
    let mut archive = tar::Archive::new(file);
    let mut extents = BTreeMap::new();
    let mut links = Vec::new();
    for entry in archive.entries_with_seek().map_err(ArchiveError::Read)? {
        // What is no tar fails at its first header.
        let entry = entry.map_err(|_| ArchiveError::Unknown)?;
        let name = entry.path().map_err(ArchiveError::Read)?;
        let name = plain_name(&name.to_string_lossy());
        if extents.len() + links.len() >= MAX_MEMBERS {
            return Err(ArchiveError::TooLarge);
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let offset = entry.raw_file_position();
                let extent = Extent { path: path.to_owned(), offset, n_bytes: entry.size() };
                extents.insert(name, extent);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let target = entry.link_name().map_err(ArchiveError::Read)?.unwrap_or_default();
                links.push((name, plain_name(&target.to_string_lossy())));
            }
            _ => {}
        }
    }
    for (name, target) in links {
        // `../ID/layer.tar`, seen from the link's own folder, is `ID/layer.tar`.
        if let Some(extent) = extents.get(target.trim_start_matches("../")).cloned() {
            extents.insert(name, extent);
        }
    }
    Ok(extents)
}

fn plain_name(name: &str) -> String {
    name.trim_start_matches("./").trim_end_matches('/').to_owned()
}

/// The files of an archive, by name.
enum Members {
    Directory(PathBuf),
    Tar { path: PathBuf, extents: BTreeMap<String, Extent> },
}

impl Members {
    fn find(&self, name: &str) -> Result<Option<Extent>, ArchiveError> {
        match self {
            Members::Tar { extents, .. } => Ok(extents.get(name).cloned()),
            Members::Directory(root) => {
                let path = root.join(name);
                match std::fs::metadata(&path) {
                    Ok(file) => Ok(Some(Extent { path, offset: 0, n_bytes: file.len() })),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(ArchiveError::Read(error)),
                }
            }
        }
    }

    fn get(&self, name: &str) -> Result<Extent, ArchiveError> {
        self.find(name)?.ok_or_else(|| ArchiveError::Missing { name: name.to_owned() })
    }

    fn read(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, ArchiveError> {
        let extent = self.get(name)?;
        if extent.n_bytes > max_bytes {
            return Err(ArchiveError::MemberTooLarge { name: name.to_owned() });
        }
        let mut content = Vec::new();
        let mut file = File::open(&extent.path).map_err(ArchiveError::Read)?;
        file.seek(SeekFrom::Start(extent.offset)).map_err(ArchiveError::Read)?;
        file.take(extent.n_bytes).read_to_end(&mut content).map_err(ArchiveError::Read)?;
        Ok(content)
    }

    /// A small blob of an OCI layout, checked.
    fn blob(&self, what: &Descriptor, max_bytes: u64) -> Result<Vec<u8>, ArchiveError> {
        let digest = what.digest().map_err(ArchiveError::Manifest)?;
        let name = blob_name(&digest);
        let content = self.read(&name, max_bytes)?;
        if digest.of(&content) != digest {
            return Err(ArchiveError::Damaged { name });
        }
        Ok(content)
    }

    /// A large blob of an OCI layout, checked where it is.
    fn large_blob(&self, what: &Descriptor) -> Result<(Digest, Extent), ArchiveError> {
        let digest = what.digest().map_err(ArchiveError::Manifest)?;
        let name = blob_name(&digest);
        let extent = self.get(&name)?;
        if digest_of(&extent, &digest).map_err(ArchiveError::Read)? != digest {
            return Err(ArchiveError::Damaged { name });
        }
        Ok((digest, extent))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn digest_of(extent: &Extent, like: &Digest) -> io::Result<Digest> {
    let mut file = File::open(&extent.path)?;
    file.seek(SeekFrom::Start(extent.offset))?;
    digest_of_reader(file.take(extent.n_bytes), like)
}

/// The id of the image in an archive of `docker save`.
fn saved_image(members: &Members, wanted: &ImageReference) -> Result<Digest, ArchiveError> {
    let manifest = members.read("manifest.json", MAX_MANIFEST_BYTES)?;
    let images: Vec<Saved> = serde_json::from_slice(&manifest)
        .map_err(|source| ArchiveError::Parse { name: "manifest.json", source })?;
    let names = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let named = images.iter().find(|image| names(image).iter().any(|name| is_named(wanted, name)));
    let only = match images.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    let image = named.or(only).ok_or_else(|| {
        let available: Vec<String> = images.iter().flat_map(names).collect();
        no_such_image(wanted, &available)
    })?;
    for layer in &image.layers {
        members.get(&plain_name(layer))?;
    }
    let config = members.read(&plain_name(&image.config), MAX_CONFIG_BYTES)?;
    Ok(Digest::sha256(&config))
}

fn layout_image(
    members: &Members,
    wanted: &ImageReference,
    platform: &Platform,
) -> Result<Opened, ArchiveError> {
    let index = members.read("index.json", MAX_MANIFEST_BYTES)?;
    let Manifest::Index(images) = Manifest::parse(&index).map_err(ArchiveError::Manifest)? else {
        return Err(ArchiveError::Unknown);
    };
    let named = images.iter().find(|image| image.name().is_some_and(|name| is_named(wanted, name)));
    let mut chosen = match (named, images.as_slice()) {
        (Some(named), _) => named.clone(),
        (None, [only]) => only.clone(),
        // Several without the name: variants of one image for several platforms, or several images.
        (None, several) if several.iter().all(|image| image.name().is_none()) => {
            manifest::choose(several, platform).map_err(ArchiveError::Manifest)?.clone()
        }
        (None, several) => {
            let available: Vec<String> =
                several.iter().filter_map(|image| image.name().map(str::to_owned)).collect();
            return Err(no_such_image(wanted, &available));
        }
    };
    let digest = chosen.digest().map_err(ArchiveError::Manifest)?;
    for _ in 0..MAX_INDEX_DEPTH {
        let bytes = members.blob(&chosen, MAX_MANIFEST_BYTES)?;
        match Manifest::parse(&bytes).map_err(ArchiveError::Manifest)? {
            Manifest::Index(variants) => {
                let variant = manifest::choose(&variants, platform);
                chosen = variant.map_err(ArchiveError::Manifest)?.clone();
            }
            Manifest::Image { config, layers } => {
                let config = members.blob(&config, MAX_CONFIG_BYTES)?;
                let layers = layers.iter().map(|layer| members.large_blob(layer));
                let layers = layers.collect::<Result<_, ArchiveError>>()?;
                return Ok(Opened::Oci { bundle: Bundle { config, layers }, digest });
            }
        }
    }
    Err(ArchiveError::Manifest(ManifestError::Kind("an index leads to an index, and so on")))
}

/// Whether a name in an archive is the one in the document. An OCI layout often has only the tag.
fn is_named(wanted: &ImageReference, name: &str) -> bool {
    let tag = wanted.tag.as_deref().unwrap_or("latest");
    if name == tag {
        return true;
    }
    let with_default_tag = |image: &ImageReference| {
        // `docker.io/library/web` and `web` are the same image.
        let registry = image.registry.as_deref().unwrap_or("docker.io");
        let repository = image.repository.trim_start_matches("library/");
        format!("{registry}/{repository}:{}", image.tag.as_deref().unwrap_or("latest"))
    };
    let parsed = ImageReference::parse(name);
    parsed.is_ok_and(|named| with_default_tag(&named) == with_default_tag(wanted))
}

fn no_such_image(wanted: &ImageReference, available: &[String]) -> ArchiveError {
    let available = match available {
        [] => "none with a name".to_owned(),
        names => crate::text::clean(&names.join(", "), 300),
    };
    ArchiveError::NoSuchImage { wanted: wanted.to_string(), available }
}

#[cfg(test)]
mod tests;
