//! ISO 9660 (ECMA-119) with the two extensions that keep real file names.
//!
//! Volume descriptors of one sector each stand from sector 16 on. The primary one points to a tree
//! of directories whose names are `USER_DAT.;1`; a supplementary one with Joliet's escape sequence
//! points to a second tree over the same files with names in UCS-2. Rock Ridge instead puts `NM`
//! entries behind the names of the first tree (SUSP 1.12 §5, RRIP §4.1.4). Joliet is taken where it
//! is there, else Rock Ridge's names, else the plain ones without `;1` and without a final dot.

use std::io::{Read, Seek};

use crate::datasource::volume::{
    Image, Item, MAX_DIRECTORY_BYTES, VolumeError, find, label_text, u16_at, u32_at,
};

const SECTOR_BYTES: u64 = 2048;
const FIRST_DESCRIPTOR: u64 = 16;

/// Discs in the wild have up to four.
const MAX_DESCRIPTORS: u64 = 16;

/// One tree of directories.
#[derive(Debug)]
pub(super) struct Iso9660 {
    block_bytes: u64,
    root: Record,
    is_joliet: bool,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    start: u32,
    n_bytes: u32,
}

impl Iso9660 {
    /// The volume and its label, if this is one.
    pub(super) fn open<R: Read + Seek>(image: &mut Image<R>) -> Option<(Iso9660, String)> {
        let mut primary: Option<(Iso9660, String)> = None;
        let mut joliet: Option<Iso9660> = None;
        for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
            let Ok(sector) = image.read_at(number * SECTOR_BYTES, SECTOR_BYTES) else { break };
            if &sector[1..6] != b"CD001" {
                break;
            }
            match sector[0] {
                1 if primary.is_none() => {
                    primary = Some((read_descriptor(&sector, false)?, label_text(&sector[40..72])));
                }
                // UCS-2 level 1, 2 and 3.
                2 if matches!(&sector[88..91], b"%/@" | b"%/C" | b"%/E") => {
                    joliet = read_descriptor(&sector, true);
                }
                255 => break,
                _ => {}
            }
        }
        let (primary, label) = primary?;
        Some((joliet.unwrap_or(primary), label))
    }

    pub(super) fn read_file<R: Read + Seek>(
        &self,
        image: &mut Image<R>,
        path: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, VolumeError> {
        let mut directory = self.root;
        let mut components = path.split('/').peekable();
        while let Some(name) = components.next() {
            let items = self.read_directory(image, directory)?;
            let Some(item) = find(items, name) else { return Ok(None) };
            let record = Record { start: item.start, n_bytes: item.n_bytes };
            let is_last = components.peek().is_none();
            match (item.is_directory, is_last) {
                (true, false) => directory = record,
                (false, true) if u64::from(record.n_bytes) > max_bytes => {
                    return Err(VolumeError::TooLarge { max_bytes });
                }
                (false, true) => return self.read_extent(image, record).map(Some),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn read_extent<R: Read + Seek>(
        &self,
        image: &mut Image<R>,
        record: Record,
    ) -> Result<Vec<u8>, VolumeError> {
        image.read_at(u64::from(record.start) * self.block_bytes, record.n_bytes.into())
    }

    fn read_directory<R: Read + Seek>(
        &self,
        image: &mut Image<R>,
        record: Record,
    ) -> Result<Vec<Item>, VolumeError> {
        if u64::from(record.n_bytes) > MAX_DIRECTORY_BYTES {
            return Err(VolumeError::Damaged("a directory is too large"));
        }
        let bytes = self.read_extent(image, record)?;
        let mut items = Vec::new();
        // A record never crosses a sector's end; the rest of the sector is zero.
        for sector in bytes.chunks(usize::try_from(SECTOR_BYTES).unwrap_or(usize::MAX)) {
            let mut rest = sector;
            while let Some(&length) = rest.first().filter(|length| **length > 0) {
                let Some((record, tail)) = rest.split_at_checked(length.into()) else {
                    return Err(VolumeError::Damaged("a directory record is cut off"));
                };
                rest = tail;
                items.extend(self.read_record(record)?);
            }
        }
        Ok(items)
    }

    /// None for the directory itself and its parent.
    fn read_record(&self, record: &[u8]) -> Result<Option<Item>, VolumeError> {
        const DIRECTORY: u8 = 0x02;
        const MORE_EXTENTS: u8 = 0x80;
        let damaged = || VolumeError::Damaged("a directory record is malformed");
        let (start, n_bytes) = read_extent_fields(record).ok_or_else(damaged)?;
        let flags = *record.get(25).ok_or_else(damaged)?;
        let name_bytes = usize::from(*record.get(32).ok_or_else(damaged)?);
        let name = record.get(33..33 + name_bytes).ok_or_else(damaged)?;
        if matches!(name, b"\0" | b"\x01") {
            return Ok(None);
        }
        if flags & MORE_EXTENTS != 0 {
            // Only files over 4 GiB have several; no file of ours is one.
            return Ok(None);
        }
        // The name is padded to an even position.
        let system_use = record.get(33 + name_bytes + (name_bytes + 1) % 2..).unwrap_or_default();
        let name = match self.is_joliet {
            true => joliet_name(name),
            false => rock_ridge_name(system_use).unwrap_or_else(|| plain_name(name)),
        };
        Ok(Some(Item { name, is_directory: flags & DIRECTORY != 0, start, n_bytes }))
    }
}

fn read_descriptor(sector: &[u8], is_joliet: bool) -> Option<Iso9660> {
    let block_bytes = u16_at(sector, 128)?;
    if !matches!(block_bytes, 512 | 1024 | 2048) {
        return None;
    }
    let (start, n_bytes) = read_extent_fields(sector.get(156..190)?)?;
    let root = Record { start, n_bytes };
    Some(Iso9660 { block_bytes: block_bytes.into(), root, is_joliet })
}

/// The first block behind the extended attributes, and the size.
fn read_extent_fields(record: &[u8]) -> Option<(u32, u32)> {
    let n_attribute_blocks = u32::from(*record.get(1)?);
    let start = u32_at(record, 2)?.checked_add(n_attribute_blocks)?;
    Some((start, u32_at(record, 10)?))
}

fn plain_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let name = name.split(';').next().unwrap_or_default();
    name.strip_suffix('.').unwrap_or(name).to_owned()
}

fn joliet_name(name: &[u8]) -> String {
    let units = name.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
    let name: String = char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect();
    plain_name(name.as_bytes())
}

/// The pieces of all `NM` entries. Continuation areas are not followed: only names of more than
/// about 180 characters need one.
fn rock_ridge_name(mut system_use: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    while let Some((&[first, second, length, _version], _)) = system_use.split_first_chunk::<4>() {
        let Some((entry, rest)) = system_use.split_at_checked(length.into()) else { break };
        if length < 4 {
            break;
        }
        if (first, second) == (b'N', b'M') {
            name.extend_from_slice(entry.get(5..).unwrap_or_default());
        }
        system_use = rest;
    }
    (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
}
