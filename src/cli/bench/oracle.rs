//! The brute-force oracle: every query against every vector in f64, and whether a search's answer equals it.

/// How far a score may be from the oracle's: the engine sums f32 products.
const SCORE_TOLERANCE: f64 = 1e-5;
/// Documents whose cosines differ by less may stand in either order.
const TIE: f64 = 1e-6;

/// Cosines of a few queries to all rows, gathered row by row.
#[derive(Clone, Debug)]
pub(super) struct Oracle {
    queries: Vec<Vec<f64>>,
    /// f64, shape `[queries, rows]`.
    cosines: Vec<Vec<f64>>,
}

impl Oracle {
    /// `queries`: f32, shape `[count, dim]`, none of them zero.
    pub fn new(queries: &[Vec<f32>]) -> Self {
        Self { queries: queries.iter().map(|query| unit(query)).collect(), cosines: vec![Vec::new(); queries.len()] }
    }

    /// Takes the next row.
    pub fn push(&mut self, row: &[f32]) {
        let row = unit(row);
        for (query, cosines) in self.queries.iter().zip(&mut self.cosines) {
            cosines.push(query.iter().zip(&row).map(|(a, b)| a * b).sum());
        }
    }

    /// Checks the answer to one query: as many hits as there can be, each row once, each score right, each rank held by
    /// a row that belongs there. `hits`: rows and scores, nearest first. Returns the largest difference of a score.
    ///
    /// # Errors
    /// A sentence that names the rank and both sides.
    pub fn check(&self, query: usize, hits: &[(usize, f32)], top_k: usize) -> Result<f64, String> {
        let cosines = &self.cosines[query];
        let wanted = top_k.min(cosines.len());
        if hits.len() != wanted {
            return Err(format!("query {query}: {} hits, the oracle has {wanted}", hits.len()));
        }
        let mut best = cosines.clone();
        best.sort_unstable_by(|a, b| b.total_cmp(a));
        let mut worst: f64 = 0.0;
        for (rank, (&(row, score), &ideal)) in hits.iter().zip(&best).enumerate() {
            let Some(&cosine) = cosines.get(row) else {
                return Err(format!("query {query}, rank {rank}: there is no row {row}"));
            };
            if hits[..rank].iter().any(|&(earlier, _)| earlier == row) {
                return Err(format!("query {query}, rank {rank}: row {row} comes twice"));
            }
            let difference = (f64::from(score) - cosine).abs();
            if difference.is_nan() || difference > SCORE_TOLERANCE {
                return Err(format!("query {query}, rank {rank}: row {row} has score {score}, its cosine is {cosine}"));
            }
            if (cosine - ideal).abs() > TIE {
                return Err(format!(
                    "query {query}, rank {rank}: row {row} has cosine {cosine}, the oracle's has {ideal}"
                ));
            }
            worst = worst.max(difference);
        }
        Ok(worst)
    }
}

fn unit(vector: &[f32]) -> Vec<f64> {
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    vector.iter().map(|&x| f64::from(x) / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oracle() -> Oracle {
        let mut oracle = Oracle::new(&[vec![1.0, 0.0]]);
        for row in [[0.0, 1.0], [1.0, 0.0], [0.6, 0.8], [0.6, 0.8]] {
            oracle.push(&row);
        }
        oracle
    }

    #[test]
    fn a_right_answer_passes_with_ties_in_either_order() {
        let right = [(1, 1.0), (2, 0.6), (3, 0.6), (0, 0.0)];
        assert!(oracle().check(0, &right, 10).unwrap() < 1e-6);
        assert!(oracle().check(0, &right[..2], 2).is_ok());
        assert!(oracle().check(0, &[(1, 1.0), (3, 0.6), (2, 0.6)], 3).is_ok());
    }

    #[test]
    fn each_kind_of_wrong_answer_fails() {
        let wrong: [(&[(usize, f32)], usize, &str); 6] = [
            (&[(1, 1.0)], 2, "1 hits"),
            (&[(1, 1.0), (0, 0.0)], 2, "rank 1"),
            (&[(1, 1.0), (2, 0.61)], 2, "score 0.61"),
            (&[(1, 1.0), (1, 1.0)], 2, "twice"),
            (&[(1, f32::NAN)], 1, "score NaN"),
            (&[(9, 1.0)], 1, "no row 9"),
        ];
        for (hits, top_k, part) in wrong {
            let error = oracle().check(0, hits, top_k).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
