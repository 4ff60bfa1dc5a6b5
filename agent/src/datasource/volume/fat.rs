//! FAT12, FAT16 and FAT32 with long file names, after Microsoft's "FAT: General Overview of On-Disk
//! Format".
//!
//! A boot sector gives the sizes. A table of clusters follows, in which each entry names the next
//! cluster of a file, and then the data. Which of the three it is follows from the number of
//! clusters and from nothing else. On FAT12 and FAT16 the root directory stands before the data; on
//! FAT32 it is a file like every directory.

use std::io::{Read, Seek};

use crate::datasource::volume::{
    Image, Item, MAX_DIRECTORY_BYTES, VolumeError, find, label_text, u16_at, u32_at,
};

const ENTRY_BYTES: usize = 32;

/// The sizes of one file system.
#[derive(Debug)]
pub(super) struct Fat {
    width: Width,
    table_offset: u64,
    root: Root,
    data_offset: u64,
    cluster_bytes: u64,
    n_clusters: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Width {
    Bits12,
    Bits16,
    Bits32,
}

#[derive(Clone, Copy, Debug)]
enum Root {
    Area { offset: u64, n_bytes: u64 },
    Cluster(u32),
}

impl Fat {
    /// The volume and its label, if this is one.
    pub(super) fn open<R: Read + Seek>(image: &mut Image<R>) -> Option<(Fat, String)> {
        let sector = image.read_at(0, 512).ok()?;
        if sector[510..512] != [0x55, 0xaa] {
            return None;
        }
        let sector_bytes = u64::from(u16_at(&sector, 11)?);
        let cluster_sectors = u64::from(sector[13]);
        let is_valid = matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
            && cluster_sectors.is_power_of_two()
            && sector[16] > 0;
        if !is_valid {
            return None;
        }
        let either = |small: u16, large: u32| if small == 0 { large } else { small.into() };
        let table_sectors = u64::from(either(u16_at(&sector, 22)?, u32_at(&sector, 36)?));
        let total_sectors = u64::from(either(u16_at(&sector, 19)?, u32_at(&sector, 32)?));
        let root_bytes = u64::from(u16_at(&sector, 17)?) * ENTRY_BYTES as u64;
        let table_start = u64::from(u16_at(&sector, 14)?);
        let root_start = table_start + u64::from(sector[16]) * table_sectors;
        let data_start = root_start + root_bytes.div_ceil(sector_bytes);
        let n_clusters = total_sectors.checked_sub(data_start)? / cluster_sectors;
        let n_clusters = u32::try_from(n_clusters).ok()?;
        let width = match n_clusters {
            0..4085 => Width::Bits12,
            4085..65525 => Width::Bits16,
            _ => Width::Bits32,
        };
        let (root, label) = match width {
            Width::Bits32 => (Root::Cluster(u32_at(&sector, 44)?), &sector[71..82]),
            _ => {
                let offset = root_start * sector_bytes;
                (Root::Area { offset, n_bytes: root_bytes }, &sector[43..54])
            }
        };
        let fat = Fat {
            width,
            table_offset: table_start * sector_bytes,
            root,
            data_offset: data_start * sector_bytes,
            cluster_bytes: cluster_sectors * sector_bytes,
            n_clusters,
        };
        Some((fat, label_text(label)))
    }

    pub(super) fn read_file<R: Read + Seek>(
        &self,
        image: &mut Image<R>,
        path: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, VolumeError> {
        let mut directory = match self.root {
            Root::Area { offset, n_bytes } => image.read_at(offset, n_bytes)?,
            Root::Cluster(cluster) => self.read_chain(image, cluster, MAX_DIRECTORY_BYTES, None)?,
        };
        let mut components = path.split('/').peekable();
        while let Some(name) = components.next() {
            let Some(item) = find(read_directory(&directory), name) else { return Ok(None) };
            let is_last = components.peek().is_none();
            match (item.is_directory, is_last) {
                (true, false) => {
                    directory = self.read_chain(image, item.start, MAX_DIRECTORY_BYTES, None)?;
                }
                (false, true) => {
                    let size = Some(item.n_bytes);
                    return self.read_chain(image, item.start, max_bytes, size).map(Some);
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The clusters from one on: so many bytes, or for a directory all of them.
    fn read_chain<R: Read + Seek>(
        &self,
        image: &mut Image<R>,
        first: u32,
        max_bytes: u64,
        size: Option<u32>,
    ) -> Result<Vec<u8>, VolumeError> {
        if size.is_some_and(|size| u64::from(size) > max_bytes) {
            return Err(VolumeError::TooLarge { max_bytes });
        }
        let wanted = size.map_or(u64::MAX, u64::from);
        let mut bytes: Vec<u8> = Vec::new();
        let mut cluster = Some(first);
        // A chain that runs in a circle ends at the limit.
        while let Some(number) = cluster.filter(|_| (bytes.len() as u64) < wanted) {
            if size.is_none() && bytes.len() as u64 >= max_bytes {
                return Err(VolumeError::Damaged("a directory is too large"));
            }
            let n_bytes = self.cluster_bytes.min(wanted - bytes.len() as u64);
            let offset = self.cluster_offset(number)?;
            bytes.extend(image.read_at(offset, n_bytes)?);
            cluster = self.next_cluster(image, number)?;
        }
        if size.is_some() && (bytes.len() as u64) < wanted {
            return Err(VolumeError::Damaged("a file ends before its size"));
        }
        Ok(bytes)
    }

    /// The first cluster has the number 2.
    fn cluster_offset(&self, cluster: u32) -> Result<u64, VolumeError> {
        let index = cluster.checked_sub(2).filter(|index| *index < self.n_clusters);
        let index = index.ok_or(VolumeError::Damaged("a cluster is outside the volume"))?;
        Ok(self.data_offset + u64::from(index) * self.cluster_bytes)
    }

    /// None at the end of the chain.
    fn next_cluster<R: Read + Seek>(
        &self,
        image: &mut Image<R>,
        cluster: u32,
    ) -> Result<Option<u32>, VolumeError> {
        let cluster_position = u64::from(cluster);
        let (position, n_bytes) = match self.width {
            Width::Bits12 => (cluster_position + cluster_position / 2, 2),
            Width::Bits16 => (cluster_position * 2, 2),
            Width::Bits32 => (cluster_position * 4, 4),
        };
        let entry = image.read_at(self.table_offset + position, n_bytes)?;
        let entry = entry.iter().rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        let (next, end) = match self.width {
            Width::Bits12 if cluster % 2 == 1 => (entry >> 4, 0xff8),
            Width::Bits12 => (entry & 0xfff, 0xff8),
            Width::Bits16 => (entry, 0xfff8),
            // The upper four bits are reserved.
            Width::Bits32 => (entry & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((next < end).then_some(next))
    }
}

/// The files and directories of a directory.
fn read_directory(bytes: &[u8]) -> Vec<Item> {
    const DELETED: u8 = 0xe5;
    const LABEL: u8 = 0x08;
    const DIRECTORY: u8 = 0x10;
    const LONG_NAME: u8 = 0x0f;
    let mut items = Vec::new();
    let mut long_name = LongName::default();
    for entry in bytes.chunks_exact(ENTRY_BYTES) {
        let attributes = entry[11];
        match entry[0] {
            0 => break,
            DELETED => long_name = LongName::default(),
            _ if attributes & 0x3f == LONG_NAME => long_name.push(entry),
            _ => {
                let long_name = std::mem::take(&mut long_name);
                if attributes & LABEL != 0 {
                    continue;
                }
                let high = u32::from(u16_at(entry, 20).unwrap_or_default());
                let low = u32::from(u16_at(entry, 26).unwrap_or_default());
                items.push(Item {
                    name: long_name.name_of(entry).unwrap_or_else(|| short_name(entry)),
                    is_directory: attributes & DIRECTORY != 0,
                    start: high << 16 | low,
                    n_bytes: u32_at(entry, 28).unwrap_or_default(),
                });
            }
        }
    }
    items
}

/// The entries before a short one that hold its long name, last part first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    checksum: u8,
}

impl LongName {
    fn push(&mut self, entry: &[u8]) {
        const LAST_PART: u8 = 0x40;
        // Twenty parts hold the longest name.
        if entry[0] & LAST_PART != 0 || self.checksum != entry[13] || self.units.len() > 260 {
            *self = LongName { units: Vec::new(), checksum: entry[13] };
        }
        let part =
            [1..11, 14..26, 28..32].into_iter().flat_map(|range| entry[range].chunks_exact(2));
        let mut units: Vec<u16> = part.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        units.append(&mut self.units);
        self.units = units;
    }

    /// The name, if it belongs to this short entry: a program that knows no long names leaves the
    /// old one standing.
    fn name_of(&self, short: &[u8]) -> Option<String> {
        let checksum =
            short[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.units.is_empty() || checksum != self.checksum {
            return None;
        }
        let units = self.units.iter().copied().take_while(|unit| !matches!(unit, 0 | 0xffff));
        Some(char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect())
    }
}

fn short_name(entry: &[u8]) -> String {
    let (base, extension) = (label_text(&entry[..8]), label_text(&entry[8..11]));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}
