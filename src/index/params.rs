//! Parameters of searches that nobody set.

use crate::types::limits::MAX_EF;

/// `m` that the numbers below were measured with.
const MEASURED_M: f64 = 16.0;

/// `ef_search` for a graph of `rows` rows with `m`, chosen for recall@`top_k` >= 0.95 with a margin.
///
/// With m 16, 100,000 sentence embeddings of 384 numbers reach recall@10 0.95 at ef 64; this gives 101. The need grows
/// with the logarithm of the rows and with `top_k`, and falls as rows have more links.
pub fn default_ef(rows: u32, top_k: usize, m: u32) -> usize {
    let doublings = (f64::from(rows.max(1_000)) / 1_000.0).log2();
    let links = (MEASURED_M / f64::from(m.max(1))).sqrt().clamp(0.75, 2.0);
    let base = (48.0 + 8.0 * doublings) * links;
    let wanted = base as usize + 2 * top_k.saturating_sub(10);
    wanted.max(top_k).min(MAX_EF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effort_grows_with_rows_and_results_and_falls_with_links() {
        assert_eq!(default_ef(100, 10, 16), 48);
        assert_eq!(default_ef(100_000, 10, 16), 101);
        assert_eq!(default_ef(1_000_000, 10, 16), 127);
        assert_eq!(default_ef(100_000, 100, 16), 281);
        assert!(default_ef(100_000, 10, 8) > default_ef(100_000, 10, 16));
        assert!(default_ef(100_000, 10, 32) < default_ef(100_000, 10, 16));
    }

    #[test]
    fn results_always_fit_and_the_limit_holds() {
        for top_k in [1, 10, 1_000, MAX_EF] {
            for m in [5, 16, 48] {
                let ef = default_ef(u32::MAX, top_k, m);
                assert!(ef >= top_k && ef <= MAX_EF, "{top_k} {m}: {ef}");
            }
        }
    }
}
