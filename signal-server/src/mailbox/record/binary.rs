//! The pieces that binary records are made of.

use jiff::Timestamp;

/// Appends a time: seconds and nanoseconds, little end first.
pub(crate) fn put_time(bytes: &mut Vec<u8>, time: Timestamp) {
    bytes.extend_from_slice(&time.as_second().to_le_bytes());
    bytes.extend_from_slice(&time.subsec_nanosecond().to_le_bytes());
}

/// Takes the fields of a record one after the other; nothing where the record ends too early.
pub(crate) struct Fields<'a> {
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(record: &'a [u8]) -> Self {
        Fields { left: record }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, left) = self.left.split_first_chunk::<N>()?;
        self.left = left;
        Some(*array)
    }

    pub(crate) fn count(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn time(&mut self) -> Option<Timestamp> {
        let seconds = i64::from_le_bytes(self.array()?);
        let nanoseconds = i32::from_le_bytes(self.array()?);
        Timestamp::new(seconds, nanoseconds).ok()
    }

    pub(crate) fn text(&mut self, length: usize) -> Option<String> {
        let (text, left) = self.left.split_at_checked(length)?;
        self.left = left;
        Some(str::from_utf8(text).ok()?.to_owned())
    }

    /// Everything that has not been taken.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.left
    }
}
