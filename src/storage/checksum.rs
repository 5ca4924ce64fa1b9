//! crc32c of bytes, of the 64 KiB blocks of a file, and their lazy check when a mapped file is read.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Bytes that one block checksum covers; the last block of a file may be shorter.
pub const BLOCK_BYTES: usize = 65_536;

/// crc32c (Castagnoli) of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// crc32c of what `crc` covers followed by `bytes`.
#[inline]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

/// Bytes on disk that are not the bytes that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block at offset {offset} has checksum {got:08x}, expected {expected:08x}")]
pub struct Damage {
    /// First byte of the damaged block.
    pub offset: u64,
    /// The checksum that was written; 0 where the range asked for lies beyond the bytes.
    pub expected: u32,
    /// The checksum of the bytes as they are now; 0 where the range asked for lies beyond the bytes.
    pub got: u32,
}

/// Computes the block checksums of a stream while it is written.
#[derive(Clone, Debug, Default)]
pub struct BlockChecksums {
    finished: Vec<u32>,
    current: u32,
    current_len: usize,
}

impl BlockChecksums {
    /// Starts at the first byte of the first block.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.current_len));
            self.current = crc32c_append(self.current, now);
            self.current_len += now.len();
            if self.current_len == BLOCK_BYTES {
                self.finished.push(self.current);
                (self.current, self.current_len) = (0, 0);
            }
            bytes = later;
        }
    }

    /// One checksum a block, in order.
    pub fn finish(mut self) -> Vec<u32> {
        if self.current_len > 0 {
            self.finished.push(self.current);
        }
        self.finished
    }
}

/// Checks each block the first time something in it is read, and never again.
///
/// The bytes are an immutable mapped file, so a bit set by one thread is true for all of them, and no ordering between
/// threads is needed: at worst two threads check the same block.
#[derive(Debug)]
pub struct VerifiedBlocks {
    /// `all_verified` answers for a file that was read whole; it is the first thing that `ensure` looks at.
    all_verified: AtomicBool,
    verified: Box<[AtomicU64]>,
    left: AtomicUsize,
    expected: Box<[u32]>,
    len: usize,
}

impl VerifiedBlocks {
    /// For `len` bytes whose blocks have the checksums `expected`, one a block and in order.
    ///
    /// Returns `None` where the number of checksums does not fit `len`.
    pub fn new(expected: Vec<u32>, len: usize) -> Option<Self> {
        if expected.len() != len.div_ceil(BLOCK_BYTES) {
            return None;
        }
        let verified = (0..expected.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Some(Self {
            all_verified: AtomicBool::new(expected.is_empty()),
            verified,
            left: AtomicUsize::new(expected.len()),
            expected: expected.into(),
            len,
        })
    }

    /// Makes sure that `range` of `bytes` is what was written. `bytes`: always the same file, whole.
    ///
    /// # Errors
    /// [`Damage`] names the first block that differs; a range that reaches beyond the bytes is damage at its end.
    #[inline]
    pub fn ensure(&self, bytes: &[u8], range: Range<usize>) -> Result<(), Damage> {
        if range.end > self.len || range.start > range.end {
            return Err(Damage { offset: range.end as u64, expected: 0, got: 0 });
        }
        if self.all_verified.load(Ordering::Relaxed) || range.is_empty() {
            return Ok(());
        }
        let (first, last) = (range.start / BLOCK_BYTES, (range.end - 1) / BLOCK_BYTES);
        for block in first..=last {
            if !self.is_verified(block) {
                self.verify_block(bytes, block)?;
            }
        }
        Ok(())
    }

    /// Whether every block of `range` was checked and found good; `range` lies in the bytes.
    #[inline]
    pub fn are_verified(&self, range: Range<usize>) -> bool {
        if self.all_verified.load(Ordering::Relaxed) || range.is_empty() {
            return true;
        }
        let (first, last) = (range.start / BLOCK_BYTES, (range.end - 1) / BLOCK_BYTES);
        (first / 64..=last / 64).all(|word| {
            let from = if word == first / 64 { u64::MAX << (first % 64) } else { u64::MAX };
            let to = if word == last / 64 { u64::MAX >> (63 - last % 64) } else { u64::MAX };
            self.verified[word].load(Ordering::Relaxed) & from & to == from & to
        })
    }

    /// The blocks of `range`, which lies in the bytes, that were not checked yet: where each stands.
    pub fn unverified(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        blocks.filter(|&block| !self.is_verified(block)).map(|block| self.range_of(block))
    }

    /// Makes sure that `bytes` are what was written as the block that stands at `start`, wherever they were read from.
    ///
    /// # Errors
    /// [`Damage`] where they differ.
    pub fn verify(&self, start: usize, bytes: &[u8]) -> Result<(), Damage> {
        self.compare(start / BLOCK_BYTES, Some(bytes))
    }

    fn range_of(&self, block: usize) -> Range<usize> {
        let start = block * BLOCK_BYTES;
        start..self.len.min(start + BLOCK_BYTES)
    }

    #[inline]
    fn is_verified(&self, block: usize) -> bool {
        self.verified[block / 64].load(Ordering::Relaxed) & (1 << (block % 64)) != 0
    }

    #[cold]
    #[inline(never)]
    fn verify_block(&self, bytes: &[u8], block: usize) -> Result<(), Damage> {
        self.compare(block, bytes.get(self.range_of(block)))
    }

    /// `bytes`: the block's, where there are so many.
    fn compare(&self, block: usize, bytes: Option<&[u8]>) -> Result<(), Damage> {
        let (offset, expected) = ((block * BLOCK_BYTES) as u64, self.expected[block]);
        let got = bytes.map_or(0, crc32c);
        if bytes.is_none() || got != expected {
            return Err(Damage { offset, expected, got });
        }
        let bit = 1 << (block % 64);
        // Of two threads that verify one block only the one that sets the bit counts it.
        if self.verified[block / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
            && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.all_verified.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> (Vec<u8>, Vec<u32>) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        let mut checksums = BlockChecksums::new();
        // An odd step, so that pieces straddle block boundaries.
        bytes.chunks(10_007).for_each(|piece| checksums.update(piece));
        (bytes, checksums.finish())
    }

    #[test]
    fn crc_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn one_checksum_for_each_block() {
        for (len, blocks) in [(0, 0), (1, 1), (BLOCK_BYTES, 1), (BLOCK_BYTES + 1, 2), (5 * BLOCK_BYTES, 5)] {
            let (bytes, checksums) = sample(len);
            let expected: Vec<u32> = bytes.chunks(BLOCK_BYTES).map(crc32c).collect();
            assert_eq!((checksums.len(), &checksums), (blocks, &expected), "{len}");
        }
    }

    #[test]
    fn damage_is_found_when_its_block_is_read_and_only_then() {
        let (mut bytes, checksums) = sample(3 * BLOCK_BYTES + 100);
        let good = checksums[1];
        bytes[BLOCK_BYTES + 5] ^= 1;
        let blocks = VerifiedBlocks::new(checksums, bytes.len()).unwrap();
        assert_eq!(blocks.ensure(&bytes, 0..BLOCK_BYTES), Ok(()));
        assert_eq!(blocks.ensure(&bytes, 2 * BLOCK_BYTES..bytes.len()), Ok(()));
        let got = crc32c(&bytes[BLOCK_BYTES..2 * BLOCK_BYTES]);
        let damage = Damage { offset: BLOCK_BYTES as u64, expected: good, got };
        assert_eq!(blocks.ensure(&bytes, BLOCK_BYTES - 1..BLOCK_BYTES + 1), Err(damage));
        assert_eq!(blocks.ensure(&bytes, BLOCK_BYTES..BLOCK_BYTES + 1), Err(damage), "it stays damaged");
        assert_eq!(blocks.ensure(&bytes, 0..bytes.len()), Err(damage));
    }

    #[test]
    fn a_block_is_checked_once() {
        let (mut bytes, checksums) = sample(100 * BLOCK_BYTES);
        let blocks = VerifiedBlocks::new(checksums, bytes.len()).unwrap();
        blocks.ensure(&bytes, 0..1).unwrap();
        bytes[7] ^= 1;
        assert_eq!(blocks.ensure(&bytes, 0..10), Ok(()));
        blocks.ensure(&bytes, 0..bytes.len()).unwrap();
        assert!(blocks.all_verified.load(Ordering::Relaxed));
    }

    #[test]
    fn a_range_is_verified_once_all_of_its_blocks_are() {
        let (bytes, checksums) = sample(200 * BLOCK_BYTES);
        let blocks = VerifiedBlocks::new(checksums, bytes.len()).unwrap();
        let range = 60 * BLOCK_BYTES + 5..131 * BLOCK_BYTES - 9;
        assert!(blocks.are_verified(7..7) && !blocks.are_verified(range.clone()));
        for block in 60..131 {
            assert!(!blocks.are_verified(range.clone()), "before block {block}");
            blocks.ensure(&bytes, block * BLOCK_BYTES..block * BLOCK_BYTES + 1).unwrap();
        }
        assert!(blocks.are_verified(range) && !blocks.are_verified(59 * BLOCK_BYTES..61 * BLOCK_BYTES));
        blocks.ensure(&bytes, 0..bytes.len()).unwrap();
        assert!(blocks.are_verified(0..bytes.len()));
    }

    #[test]
    fn blocks_may_be_read_from_elsewhere() {
        let (mut bytes, checksums) = sample(2 * BLOCK_BYTES + 10);
        let blocks = VerifiedBlocks::new(checksums, bytes.len()).unwrap();
        blocks.ensure(&bytes, 0..1).unwrap();
        let left: Vec<_> = blocks.unverified(5..bytes.len()).collect();
        assert_eq!(left, [BLOCK_BYTES..2 * BLOCK_BYTES, 2 * BLOCK_BYTES..2 * BLOCK_BYTES + 10]);
        assert_eq!(blocks.unverified(5..BLOCK_BYTES).count(), 0);
        blocks.verify(left[1].start, &bytes[left[1].clone()]).unwrap();
        assert!(blocks.are_verified(left[1].clone()) && !blocks.are_verified(left[0].clone()));
        bytes[BLOCK_BYTES] ^= 1;
        let damage = blocks.verify(left[0].start, &bytes[left[0].clone()]).unwrap_err();
        assert_eq!(damage.offset, BLOCK_BYTES as u64);
        assert!(!blocks.are_verified(left[0].clone()), "damage is found again");
    }

    #[test]
    fn ranges_beyond_the_bytes_are_damage() {
        let (bytes, checksums) = sample(1_000);
        assert!(VerifiedBlocks::new(checksums.clone(), BLOCK_BYTES + 1).is_none());
        let blocks = VerifiedBlocks::new(checksums, bytes.len()).unwrap();
        assert!(blocks.ensure(&bytes, 990..1_001).is_err());
        assert!(blocks.ensure(&bytes[..500], 0..10).is_err(), "fewer bytes than promised");
        assert_eq!(blocks.ensure(&bytes, 1_000..1_000), Ok(()));
        blocks.ensure(&bytes, 0..bytes.len()).unwrap();
        assert!(blocks.ensure(&bytes, 990..1_001).is_err());
    }
}
