//! Which archive an image was loaded from.
//!
//! An image that is there under its name is not loaded again, but a document may name another archive
//! for the same name: the image that is there is then not the one that is meant. So for every image
//! that came out of an archive a file in the state directory has the archive's mark: its digest where
//! the document has one, else its place. While an image is loaded its file is empty, so that a crash
//! in between makes the next run load it again. An image without a file was put there by somebody
//! else, baked into the instance's image for example, and is taken as it is.
//!
//! A file has digests for its name and content: a URL may be a credential.

use std::io;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::fetch::digest::Digest;
use crate::plan::{ArchiveLocation, ImageReference, ImageSource};

/// A mark is one digest.
const MAX_MARK_BYTES: u64 = 256;

/// What Swift's signatures are made of: the same archive has another one in every document.
const SIGNATURE_PREFIX: &str = "temp_url_";

/// The files.
#[derive(Debug)]
pub(super) struct Origins {
    directory: PathBuf,
}

impl Origins {
    pub(super) fn new(directory: PathBuf) -> Origins {
        Origins { directory }
    }

    /// Whether the image that is there came out of another archive than the document's.
    pub(super) fn is_other(
        &self,
        image: &ImageReference,
        source: &ImageSource,
    ) -> io::Result<bool> {
        let Some(mark) = mark(source) else { return Ok(false) };
        let found = durable::read(&self.path(image), MAX_MARK_BYTES)?;
        Ok(found.is_some_and(|found| found != mark.as_bytes()))
    }

    /// Before the image changes.
    pub(super) fn begin(&self, image: &ImageReference, source: &ImageSource) -> io::Result<()> {
        match mark(source) {
            None if self.directory.exists() => durable::remove(&self.path(image)),
            None => Ok(()),
            Some(_) => {
                durable::create_directory(&self.directory)?;
                durable::write(&self.path(image), b"")
            }
        }
    }

    /// After the engine has it.
    pub(super) fn end(&self, image: &ImageReference, source: &ImageSource) -> io::Result<()> {
        let Some(mark) = mark(source) else { return Ok(()) };
        durable::write(&self.path(image), mark.as_bytes())
    }

    fn path(&self, image: &ImageReference) -> PathBuf {
        self.directory.join(Digest::sha256(image.to_string().as_bytes()).hex())
    }
}

/// None: it is no archive.
fn mark(source: &ImageSource) -> Option<String> {
    let ImageSource::Archive { location, sha256 } = source else { return None };
    if let Some(sha256) = sha256 {
        return Some(sha256.to_ascii_lowercase());
    }
    Some(format!("place:{}", Digest::sha256(place(location).as_bytes()).hex()))
}

fn place(location: &ArchiveLocation) -> String {
    match location {
        ArchiveLocation::Path(path) => in_words("path", path),
        ArchiveLocation::Volume { selector, path } => {
            in_words(&format!("volume {selector:?}"), path)
        }
        ArchiveLocation::Url(url) => {
            let mut unsigned = url.clone();
            let kept = url.query_pairs().filter(|(key, _)| !key.starts_with(SIGNATURE_PREFIX));
            unsigned.query_pairs_mut().clear().extend_pairs(kept);
            format!("url {unsigned}")
        }
        ArchiveLocation::Glance { image } => format!("glance {image}"),
    }
}

fn in_words(kind: &str, path: &Path) -> String {
    format!("{kind} {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(url: &str, sha256: Option<&str>) -> ImageSource {
        let location = ArchiveLocation::Url(url.parse().unwrap());
        ImageSource::Archive { location, sha256: sha256.map(str::to_owned) }
    }

    #[test]
    fn another_archive_is_another_origin() {
        let first = archive("https://a.example/web.tar", Some("aa"));
        let check = |loaded: &ImageSource, wanted: &ImageSource, expect: bool| {
            let directory = tempfile::tempdir().unwrap();
            let origins = Origins::new(directory.path().join("archives"));
            let image = ImageReference::parse("web:1").unwrap();
            assert!(!origins.is_other(&image, wanted).unwrap(), "nothing was loaded yet");
            origins.begin(&image, loaded).unwrap();
            assert_eq!(origins.is_other(&image, loaded).unwrap(), *loaded != ImageSource::Registry);
            origins.end(&image, loaded).unwrap();
            assert!(!origins.is_other(&image, loaded).unwrap(), "it is the same");
            assert_eq!(origins.is_other(&image, wanted).unwrap(), expect, "{loaded:?} {wanted:?}");
            let other_image = ImageReference::parse("web:2").unwrap();
            assert!(!origins.is_other(&other_image, wanted).unwrap());
        };
        check(&first, &archive("https://a.example/web.tar", Some("bb")), true);
        check(&first, &archive("https://b.example/moved.tar", Some("AA")), false);
        check(&first, &archive("https://a.example/web.tar", None), true);
        check(&first, &ImageSource::Registry, false);
        check(&ImageSource::Registry, &first, false);

        let unpinned = archive("https://a.example/web.tar?v=1&temp_url_sig=1", None);
        let signed_anew = archive("https://a.example/web.tar?v=1&temp_url_sig=2", None);
        check(&unpinned, &signed_anew, false);
        check(&unpinned, &archive("https://a.example/web.tar?v=2&temp_url_sig=1", None), true);
        check(&unpinned, &archive("https://a.example/new.tar?v=1", None), true);
        let path = ArchiveLocation::Path("/srv/web.tar".into());
        check(&unpinned, &ImageSource::Archive { location: path, sha256: None }, true);
    }

    #[test]
    fn a_pull_forgets_the_archive() {
        let directory = tempfile::tempdir().unwrap();
        let origins = Origins::new(directory.path().join("archives"));
        let image = ImageReference::parse("web:1").unwrap();
        let source = archive("https://a.example/web.tar", Some("aa"));
        origins.begin(&image, &source).unwrap();
        origins.end(&image, &source).unwrap();
        origins.begin(&image, &ImageSource::Registry).unwrap();
        let other = archive("https://a.example/web.tar", Some("bb"));
        assert!(!origins.is_other(&image, &other).unwrap());
    }
}
