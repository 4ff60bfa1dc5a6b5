//! What is on a block device: a file system that may be mounted, nothing, or something else.
//!
//! ext2 to ext4 have the number 0xef53 at byte 1080, and say by their features which of the three
//! they are; XFS begins with `XFSB`. See the kernel's fs/ext4/ext4.h and fs/xfs/libxfs/xfs_format.h.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Every mark of a file system, of a partition table, of LVM and of encryption is in the first
/// mebibyte; the second copy of a GPT and the marks of RAID and ZFS are in the last.
const LOOKED_AT_BYTES: u64 = 1024 * 1024;

const EXT_MAGIC_AT: usize = 1024 + 0x38;
const EXT_MAGIC: [u8; 2] = [0x53, 0xef];

/// `s_feature_compat`, `s_feature_incompat` and `s_feature_ro_compat`.
const EXT_FEATURES_AT: usize = 1024 + 0x5c;
const EXT_HAS_JOURNAL: u32 = 0x4;
/// Extents, 64 bits and flexible block groups: what ext3 does not have.
const EXT4_FEATURES: u32 = 0x40 | 0x80 | 0x200;

const XFS_MAGIC: &[u8] = b"XFSB";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The kernel's name for it.
    FileSystem(&'static str),
    Nothing,
    Other,
}

pub(crate) fn look(device: &Path) -> io::Result<Content> {
    content(&mut File::open(device)?)
}

fn content(device: &mut (impl Read + Seek)) -> io::Result<Content> {
    let first = read(device, SeekFrom::Start(0))?;
    if first.starts_with(XFS_MAGIC) {
        return Ok(Content::FileSystem("xfs"));
    }
    if first.get(EXT_MAGIC_AT..EXT_MAGIC_AT + 2) == Some(&EXT_MAGIC) {
        return Ok(Content::FileSystem(ext(&first)));
    }
    let size = device.seek(SeekFrom::End(0))?;
    let last = read(device, SeekFrom::Start(size.saturating_sub(LOOKED_AT_BYTES)))?;
    let is_blank = size > 0 && first.iter().chain(&last).all(|byte| *byte == 0);
    Ok(if is_blank { Content::Nothing } else { Content::Other })
}

fn ext(first: &[u8]) -> &'static str {
    let word = |at: usize| {
        let bytes = first.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    if word(EXT_FEATURES_AT + 4) & EXT4_FEATURES != 0 {
        return "ext4";
    }
    if word(EXT_FEATURES_AT) & EXT_HAS_JOURNAL != 0 { "ext3" } else { "ext2" }
}

fn read(device: &mut (impl Read + Seek), at: SeekFrom) -> io::Result<Vec<u8>> {
    device.seek(at)?;
    let mut bytes = Vec::new();
    device.take(LOOKED_AT_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::process::Command;

    use super::*;

    const SIZE: usize = 16 * 1024 * 1024;

    fn check(change: impl Fn(&mut [u8]), expect: Content) {
        let mut bytes = vec![0; SIZE];
        change(&mut bytes);
        assert_eq!(content(&mut Cursor::new(bytes)).unwrap(), expect);
    }

    #[test]
    fn only_zeros_are_nothing() {
        check(|_| {}, Content::Nothing);
        // A boot sector, LVM, ISO 9660, btrfs, and a byte of nobody knows what.
        for at in [510, 512, 32 * 1024 + 1, 64 * 1024 + 64, 1024 * 1024 - 1] {
            check(|bytes| bytes[at] = 1, Content::Other);
        }
        // The second copy of a GPT, RAID with its mark at the end, ZFS.
        for at in [SIZE - 512, SIZE - 64 * 1024, SIZE - 256 * 1024] {
            check(|bytes| bytes[at] = 1, Content::Other);
        }
        assert_eq!(content(&mut Cursor::new(vec![])).unwrap(), Content::Other);
    }

    #[test]
    fn what_the_programs_made_is_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (program, expect) in
            [("mkfs.ext2", "ext2"), ("mkfs.ext3", "ext3"), ("mkfs.ext4", "ext4")]
        {
            std::fs::write(file.path(), vec![0; SIZE]).unwrap();
            let made = Command::new(program).args(["-q", "-F"]).arg(file.path()).status().unwrap();
            assert!(made.success(), "{program}");
            assert_eq!(look(file.path()).unwrap(), Content::FileSystem(expect));
        }
        check(|bytes| bytes[..4].copy_from_slice(b"XFSB"), Content::FileSystem("xfs"));
    }
}
