//! Biases of attention scores by head and distance.

/// A bias for each head and each distance between two tokens.
#[derive(Debug)]
pub(crate) struct RelativeBias {
    /// Shape `[heads, distances]`, keys that stand furthest behind their query last, then [`PADDING`] numbers that are
    /// read and never used.
    values: Vec<f32>,
    /// Longest sequence.
    reach: usize,
    heads: usize,
}

/// What a register may read beyond the last distance.
const PADDING: usize = 32;

impl RelativeBias {
    /// `of(head, distance)` for every distance `key position - query position` within sequences of up to `reach`
    /// tokens.
    ///
    /// # Panics
    /// If `reach` is 0.
    pub(crate) fn new(heads: usize, reach: usize, of: impl Fn(usize, isize) -> f32) -> Self {
        assert!(reach > 0, "reach={reach}");
        let distances = 2 * reach - 1;
        let biases = (0..heads * distances).map(|i| of(i / distances, reach as isize - 1 - (i % distances) as isize));
        Self { values: biases.chain([0.0; PADDING]).collect(), reach, heads }
    }

    /// Longest sequence.
    pub(super) fn reach(&self) -> usize {
        self.reach
    }

    /// Number of heads.
    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    /// The bias of `head` for a query and a key at one position. That of a query `n` tokens later stands `n` numbers
    /// later, that of a query before it earlier; all of the table may be read through the pointer.
    ///
    /// # Panics
    /// If there is no such head.
    pub(super) fn at_distance_0(&self, head: usize) -> *const f32 {
        assert!(head < self.heads, "head={head} heads={}", self.heads);
        self.values.as_ptr().wrapping_add(head * (2 * self.reach - 1) + self.reach - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_stands_at_its_distance() {
        let bias = RelativeBias::new(2, 4, |head, distance| head as f32 * 100.0 + distance as f32);
        for head in 0..2 {
            let origin = 7 * head + 3;
            assert!(std::ptr::eq(bias.at_distance_0(head), &bias.values[origin]));
            for distance in -3..=3isize {
                let at = origin.checked_add_signed(-distance).unwrap();
                assert_eq!(bias.values[at], head as f32 * 100.0 + distance as f32);
            }
        }
    }
}
