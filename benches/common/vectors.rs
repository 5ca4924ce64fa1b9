//! Seeded unit vectors around a hundred centres, the same in every run.

const CENTRES: usize = 100;
const SPREAD: f64 = 0.6;

/// f32, shape `[rows, dim]`, L2 norm 1. All seeds share their centres, so that rows of one are queries to another.
pub fn clustered(rows: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut state = 0;
    let centres: Vec<Vec<f64>> = (0..CENTRES).map(|_| (0..dim).map(|_| normal(&mut state)).collect()).collect();
    let mut state = seed;
    let row = |_| {
        let centre = &centres[(unit(&mut state) * CENTRES as f64) as usize];
        let row: Vec<f64> = centre.iter().map(|x| x + SPREAD * normal(&mut state)).collect();
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.into_iter().map(|x| (x / norm) as f32).collect()
    };
    (0..rows).map(row).collect()
}

/// In [0, 1), by SplitMix64 (Steele, Lea & Flood 2014).
fn unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Of the standard normal distribution (Box & Muller 1958).
fn normal(state: &mut u64) -> f64 {
    (-2.0 * (1.0 - unit(state)).ln()).sqrt() * (std::f64::consts::TAU * unit(state)).cos()
}
