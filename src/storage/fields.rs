//! Little-endian fields of hand-framed bytes, read without panics.

use super::checksum::crc32c;

/// Reads fields one after another. Every read answers `None` where the bytes end too early.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    /// Begins at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Offset of the next field.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes after the last field read.
    pub fn remaining(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// Passes over whatever `count` bytes hold and returns them.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.remaining().get(..count)?;
        self.position += count;
        Some(bytes)
    }

    /// A field of exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A checksum field, as `(expected, got)`: what stands here, and the crc32c of every byte before it.
    pub fn crc_of_all_before(&mut self) -> Option<(u32, u32)> {
        let got = crc32c(&self.bytes[..self.position]);
        self.u32().map(|expected| (expected, got))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_stops_at_the_end() {
        let bytes = [1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0xff];
        let mut fields = Fields::new(&bytes);
        assert_eq!((fields.u8(), fields.u16(), fields.u32(), fields.u64()), (Some(1), Some(2), Some(3), Some(4)));
        assert_eq!((fields.position(), fields.u16(), fields.remaining()), (15, None, [0xff].as_slice()));
        assert_eq!(
            (fields.bytes(1), fields.bytes(0), fields.u8()),
            (Some([0xff].as_slice()), Some([].as_slice()), None)
        );
        assert_eq!(fields.bytes(usize::MAX), None);
    }

    #[test]
    fn a_checksum_covers_what_stands_before_it() {
        let mut bytes = b"123456789".to_vec();
        bytes.extend(0xe306_9283_u32.to_le_bytes());
        let mut fields = Fields::new(&bytes);
        fields.bytes(9).unwrap();
        assert_eq!(fields.crc_of_all_before(), Some((0xe306_9283, 0xe306_9283)));
    }
}
