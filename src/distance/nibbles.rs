//! Queries of int8 codes against rows of four bits a component, two components to a byte.
//!
//! A row is cut into blocks of 128 components, 64 bytes each: byte i of a block holds component i in its lower half and
//! component 64 + i in its upper half. So a kernel takes each half of a register apart with one mask.

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Bytes of a block: a SIMD register and a cache line.
const BLOCK_BYTES: usize = 64;
/// Components of a block.
pub const NIBBLE_BLOCK: usize = 2 * BLOCK_BYTES;

/// The implementation that this machine runs fastest. Those with instructions of their own are made only by `detect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::is_available() {
                return Self::Vnni;
            }
            if avx2::is_available() {
                return Self::Avx2;
            }
        }
        Self::Scalar
    }
}

/// A query prepared for many rows.
#[derive(Clone, Debug)]
pub struct NibbleQuery {
    /// Two for each byte of a row.
    codes: Vec<i8>,
    kernel: Kernel,
}

impl NibbleQuery {
    /// `codes`: i8, a whole number of blocks of components, zeros beyond the last.
    ///
    /// # Panics
    /// When it is no whole number of blocks.
    pub fn new(codes: Vec<i8>) -> Self {
        assert!(codes.len().is_multiple_of(NIBBLE_BLOCK), "{} codes", codes.len());
        Self { codes, kernel: Kernel::detect() }
    }

    /// Bytes of a row.
    #[inline]
    pub fn stride(&self) -> usize {
        self.codes.len() / 2
    }

    /// Replaces `closeness` by the dot product with each of `rows`, in their order. `codes`: u8, shape
    /// `[rows, stride]`.
    ///
    /// # Panics
    /// When a row lies beyond `codes`.
    #[inline]
    pub fn compare(&self, codes: &[u8], rows: &[u32], closeness: &mut Vec<f32>) {
        closeness.clear();
        let take = |dot: i32| closeness.push(dot as f32);
        match self.kernel {
            Kernel::Scalar => {
                rows.iter().map(|&row| dot(row_of(codes, self.stride(), row), &self.codes)).for_each(take)
            }
            // SAFETY: `detect` made these variants, and `new` saw to whole blocks.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => unsafe { avx2::dot_nibble_rows(codes, &self.codes, rows, take) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => unsafe { avx512::dot_nibble_rows(codes, &self.codes, rows, take) },
        }
    }

    /// The dot product with one row. `row`: u8, shape `[stride]`.
    ///
    /// # Panics
    /// When `row` has another length.
    #[inline]
    pub fn closeness(&self, row: &[u8]) -> f32 {
        assert_eq!(row.len(), self.stride());
        match self.kernel {
            Kernel::Scalar => dot(row, &self.codes) as f32,
            // SAFETY: as in `compare`; the length was just checked.
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => unsafe { avx2::dot_nibbles(row, &self.codes) as f32 },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => unsafe { avx512::dot_nibbles(row, &self.codes) as f32 },
        }
    }

    /// The standard deviation of what rounding rows to sixteen steps does to a dot product, the same for every row:
    /// each component errs by 1 / sqrt(12) of a step.
    pub fn rounding_error(&self) -> f32 {
        // Whole numbers can be added in any order, and so many at once. Codes are too few to overflow i64.
        let squared: i64 = self.codes.iter().map(|&code| i64::from(i32::from(code) * i32::from(code))).sum();
        (squared as f32 / 12.0).sqrt()
    }

    /// The codes, for their memory to be used again.
    pub fn into_codes(self) -> Vec<i8> {
        self.codes
    }
}

/// The bytes of a row among those of all rows, `stride` each.
#[inline]
pub(super) fn row_of(codes: &[u8], stride: usize, row: u32) -> &[u8] {
    &codes[row as usize * stride..(row as usize + 1) * stride]
}

/// The dot product of a row and a query of twice as many codes: what the kernels of a machine must give.
fn dot(row: &[u8], query: &[i8]) -> i32 {
    let blocks = row.chunks_exact(BLOCK_BYTES).zip(query.chunks_exact(NIBBLE_BLOCK));
    blocks
        .map(|(row, query)| {
            let (lower, upper) = query.split_at(BLOCK_BYTES);
            let pairs = row.iter().zip(lower.iter().zip(upper));
            pairs
                .map(|(&byte, (&lower, &upper))| {
                    i32::from(byte & 15) * i32::from(lower) + i32::from(byte >> 4) * i32::from(upper)
                })
                .sum::<i32>()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_agree_with_scalar() {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut kernels = vec![Kernel::Scalar, Kernel::detect()];
        #[cfg(target_arch = "x86_64")]
        if avx2::is_available() {
            kernels.push(Kernel::Avx2);
        }
        for blocks in [1usize, 2, 3, 5, 8, 32] {
            let mut state = blocks as u64;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            let mut rows: Vec<u8> = (0..9 * blocks * BLOCK_BYTES).map(|_| next()).collect();
            rows[..blocks * BLOCK_BYTES].fill(0xff);
            let random: Vec<i8> = (0..blocks * NIBBLE_BLOCK).map(|_| next() as i8).collect();
            for codes in [random, vec![-128; blocks * NIBBLE_BLOCK], vec![127; blocks * NIBBLE_BLOCK]] {
                let wanted =
                    [3, 0, 8, 7, 7, 1, 2].map(|row| dot(row_of(&rows, blocks * BLOCK_BYTES, row), &codes) as f32);
                for &kernel in &kernels {
                    let query = NibbleQuery { codes: codes.clone(), kernel };
                    let mut got = vec![1.0];
                    query.compare(&rows, &[3, 0, 8, 7, 7, 1, 2], &mut got);
                    assert_eq!(got, wanted, "{kernel:?}, {blocks} blocks");
                    assert_eq!(query.closeness(row_of(&rows, query.stride(), 3)), wanted[0]);
                }
            }
        }
    }

    #[test]
    fn halves_of_bytes_are_components_64_apart() {
        let mut row = [0u8; BLOCK_BYTES];
        row[5] = 0x93;
        let mut query = [0i8; NIBBLE_BLOCK];
        (query[5], query[69]) = (10, -1);
        assert_eq!(dot(&row, &query), 3 * 10 - 9);
    }

    #[test]
    #[should_panic(expected = "100 codes")]
    fn part_of_a_block_is_refused() {
        NibbleQuery::new(vec![0; 100]);
    }
}
