//! Reading a file from a file system image without mounting it.
//!
//! Config drives are ISO 9660 or FAT, a few kilobytes of files, and read once. Mounting one needs
//! root and a kernel that has the file system, which minimal and micro-VM kernels have not; it puts
//! a foreign image before the kernel's parsers, and shows it to every other program. Two readers of
//! a few hundred lines do without all that, and are tested and fuzzed on plain files. They read
//! names and contents and nothing else: no links, no permissions, no times.

mod fat;
mod iso9660;

use std::io::{self, Read, Seek, SeekFrom};

use crate::datasource::volume::fat::Fat;
use crate::datasource::volume::iso9660::Iso9660;

/// A directory with more bytes than this is no drive for two files; reading on would cost memory.
const MAX_DIRECTORY_BYTES: u64 = 1024 * 1024;

/// An opened file system.
#[derive(Debug)]
pub struct Volume<R> {
    image: Image<R>,
    file_system: FileSystem,
    label: String,
}

#[derive(Debug)]
enum FileSystem {
    Iso9660(Iso9660),
    Fat(Fat),
}

/// Why a file cannot be read from a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("reading the device failed")]
    Read(#[source] io::Error),
    #[error("the file system is damaged: {0}")]
    Damaged(&'static str),
    #[error("the file is larger than {} KiB", max_bytes / 1024)]
    TooLarge { max_bytes: u64 },
}

impl<R: Read + Seek> Volume<R> {
    /// None: neither file system is on the image. A device that cannot be read has none either:
    /// an empty CD-ROM drive gives an error.
    pub fn open(image: R) -> Option<Volume<R>> {
        let mut image = Image { image };
        if let Some((iso, label)) = Iso9660::open(&mut image) {
            return Some(Volume { image, file_system: FileSystem::Iso9660(iso), label });
        }
        let (fat, label) = Fat::open(&mut image)?;
        Some(Volume { image, file_system: FileSystem::Fat(fat), label })
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// The content of a file, or None if there is no such file. Names are compared without regard
    /// to case, because FAT and plain ISO 9660 keep none.
    pub fn read_file(
        &mut self,
        path: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, VolumeError> {
        match &self.file_system {
            FileSystem::Iso9660(iso) => iso.read_file(&mut self.image, path, max_bytes),
            FileSystem::Fat(fat) => fat.read_file(&mut self.image, path, max_bytes),
        }
    }
}

/// The bytes of an image, by position.
#[derive(Debug)]
struct Image<R> {
    image: R,
}

impl<R: Read + Seek> Image<R> {
    /// Exactly so many bytes. The caller has bounded the number.
    fn read_at(&mut self, offset: u64, n_bytes: u64) -> Result<Vec<u8>, VolumeError> {
        self.image.seek(SeekFrom::Start(offset)).map_err(VolumeError::Read)?;
        // Grows with what is there, not with what a damaged size promises.
        let mut bytes = Vec::new();
        (&mut self.image).take(n_bytes).read_to_end(&mut bytes).map_err(VolumeError::Read)?;
        if (bytes.len() as u64) < n_bytes {
            return Err(VolumeError::Damaged("it ends before its data"));
        }
        Ok(bytes)
    }
}

/// A file or directory as a directory names it.
#[derive(Debug)]
struct Item {
    name: String,
    is_directory: bool,
    /// A block or a cluster.
    start: u32,
    n_bytes: u32,
}

/// The item of a name in a directory.
fn find(items: Vec<Item>, name: &str) -> Option<Item> {
    items.into_iter().find(|item| item.name.eq_ignore_ascii_case(name))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// The text of a label without the blanks that fill it up.
fn label_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches([' ', '\0']).to_owned()
}
