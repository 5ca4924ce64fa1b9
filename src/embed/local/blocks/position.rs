//! How attention learns where tokens stand, for encoders that do not add it to their embeddings.

use crate::embed::local::kernels::{RelativeBias, Rows};

/// What a model's attention knows of positions.
#[derive(Debug)]
pub(in crate::embed::local) enum Position {
    /// Nothing: the embeddings hold a vector for each position.
    InEmbeddings,
    /// Queries and keys are rotated.
    Rotary(Rotary),
    /// Scores get a bias that depends on head and distance.
    Relative(RelativeBias),
}

/// Rotary position embedding over halves of a head: number `k` is paired with number `k + head_width / 2`
/// (Su et al. 2021, in the arrangement of GPT-NeoX).
#[derive(Debug)]
pub(in crate::embed::local) struct Rotary {
    /// Cosines then sines of each position, shape `[positions, 2, head_width / 2]`.
    angles: Vec<f32>,
    half: usize,
}

impl Rotary {
    /// Angles `position / base^(2 k / head_width)` for the positions below `positions`.
    pub(in crate::embed::local) fn new(positions: usize, head_width: usize, base: f64) -> Self {
        let half = head_width / 2;
        let mut angles = Vec::with_capacity(positions * 2 * half);
        for position in 0..positions {
            let angle = |k: usize| position as f64 / base.powf(2.0 * k as f64 / head_width as f64);
            angles.extend((0..half).map(|k| angle(k).cos() as f32));
            angles.extend((0..half).map(|k| angle(k).sin() as f32));
        }
        Self { angles, half }
    }

    /// Rotates queries and keys of whole sequences in place; `qkv` as [`super::Attention`] lays it out.
    pub(in crate::embed::local) fn apply(&self, qkv: &mut Rows, lengths: &[usize]) {
        let rotated = qkv.width() / 3 * 2;
        let mut row = 0;
        for &length in lengths {
            for angles in self.angles.chunks_exact(2 * self.half).take(length) {
                let (cosines, sines) = angles.split_at(self.half);
                for head in qkv.row_mut(row)[..rotated].chunks_exact_mut(2 * self.half) {
                    let (low, high) = head.split_at_mut(self.half);
                    for (((low, high), cosine), sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
                        (*low, *high) = (*low * cosine - *high * sine, *high * cosine + *low * sine);
                    }
                }
                row += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_rotated_vectors_depend_on_the_distance_alone() {
        let rotary = Rotary::new(9, 4, 10_000.0);
        let mut qkv = Rows::new(12);
        qkv.set_count(9);
        for i in 0..9 {
            qkv.row_mut(i).copy_from_slice(&[0.3, -0.2, 0.9, 0.5, 0.1, 0.7, -0.4, 0.6, 1.0, 2.0, 3.0, 4.0]);
        }
        rotary.apply(&mut qkv, &[9]);
        let score = |q: usize, k: usize| -> f32 { (0..4).map(|i| qkv.row(q)[i] * qkv.row(k)[4 + i]).sum() };
        for distance in 0..4 {
            for query in 0..4 {
                assert!((score(query, query + distance) - score(4, 4 + distance)).abs() < 1e-5);
            }
        }
        assert!((score(0, 1) - score(0, 2)).abs() > 1e-3);
        assert_eq!(qkv.row(8)[8..], [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(qkv.row(0)[..4], [0.3, -0.2, 0.9, 0.5]);
    }
}
