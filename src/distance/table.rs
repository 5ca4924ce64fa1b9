//! Codes of many rows that are compared with each other, as in building a graph.

use super::kernels::{CodeKernel, codes_of, prefetch, shift};
use super::query::CodeQuery;

/// Rows of int8 codes, in memory of the kind `C`, with what each comparison would compute again kept beside them.
#[derive(Clone, Debug)]
pub struct CodeTable<C> {
    codes: C,
    stride: usize,
    kernel: CodeKernel,
    shifts: Vec<i32>,
    squared_norms: Vec<i32>,
}

impl<C: AsRef<[i8]>> CodeTable<C> {
    /// `codes`: i8 within -127..=127, shape `[rows, stride]`.
    ///
    /// # Panics
    /// When `stride` is 0 or does not divide the codes.
    pub fn new(codes: C, stride: usize) -> Self {
        let all = codes.as_ref();
        assert!(stride > 0 && all.len().is_multiple_of(stride), "{} codes in rows of {stride}", all.len());
        let kernel = CodeKernel::detect();
        let shifts: Vec<i32> = all.chunks_exact(stride).map(shift).collect();
        let squared_norms =
            all.chunks_exact(stride).zip(&shifts).map(|(row, &shift)| kernel.dot(row, row, shift)).collect();
        Self { codes, stride, kernel, shifts, squared_norms }
    }

    /// The squared length of a row.
    #[inline]
    pub fn squared_norm(&self, row: u32) -> i32 {
        self.squared_norms[row as usize]
    }

    /// The squared Euclidean distance of two rows, exact.
    #[inline]
    pub fn l2sq(&self, a: u32, b: u32) -> i32 {
        let dot = self.kernel.dot(self.row(a), self.row(b), self.shifts[b as usize]);
        self.squared_norm(a) + self.squared_norm(b) - 2 * dot
    }

    /// The squared Euclidean distances of `row` to each of `others`, in their order, to `take`.
    #[inline]
    pub fn l2sq_each(&self, row: u32, others: &[u32], mut take: impl FnMut(i32)) {
        let (norm, mut at) = (self.squared_norm(row), 0);
        self.kernel.dot_rows(self.codes.as_ref(), self.row(row), self.shifts[row as usize], others, |dot| {
            take(norm + self.squared_norms[others[at] as usize] - 2 * dot);
            at += 1;
        });
    }

    /// Replaces `closeness` by that of `query`, whose codes have no padding, to each of `others`, in their order.
    #[inline]
    pub fn compare(&self, query: &CodeQuery, others: &[u32], closeness: &mut Vec<f32>) {
        query.compare(self.codes.as_ref(), others, closeness);
    }

    /// The codes of a row: i8, shape `[stride]`.
    #[inline]
    pub fn row(&self, row: u32) -> &[i8] {
        codes_of(self.codes.as_ref(), self.stride, row)
    }

    /// Asks the processor to fetch a row and its length; see [`prefetch`].
    #[inline]
    pub fn prefetch(&self, row: u32) {
        prefetch(self.row(row));
        prefetch(&self.squared_norms[row as usize..=row as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalar;
    use super::*;

    #[test]
    fn distances_are_exact() {
        for stride in [1, 5, 64, 384, 700] {
            let mut codes: Vec<i8> = (0..9 * stride).map(|i| ((i * 41 % 255) as i16 - 127) as i8).collect();
            codes[..stride].fill(-127);
            codes[stride..2 * stride].fill(127);
            let table = CodeTable::new(codes.clone(), stride);
            let row = |row: u32| &codes[row as usize * stride..(row as usize + 1) * stride];
            for a in 0..9 {
                assert_eq!(table.squared_norm(a), scalar::dot_i8(row(a), row(a)));
                let others = [8, 1, 0, 5, 1];
                let mut each = Vec::new();
                table.l2sq_each(a, &others, |distance| each.push(distance));
                for (&b, &got) in others.iter().zip(&each) {
                    let expected = scalar::l2sq_i8(row(a), row(b));
                    assert_eq!((got, table.l2sq(a, b)), (expected, expected), "rows {a} and {b} of {stride}");
                }
                table.prefetch(a);
            }
        }
    }
}
