//! Every level against sums in f64, and the promise that a row's result does not depend on the rows beside it.

use std::ops::Range;

use super::*;
use crate::embed::tests::small::random;

fn rows_of(width: usize, data: &[f32]) -> Rows {
    let mut rows = Rows::new(width);
    rows.set_count(data.len() / width);
    for (i, from) in data.chunks_exact(width).enumerate() {
        rows.row_mut(i).copy_from_slice(from);
    }
    rows
}

fn every_level(check: impl Fn(Kernels)) {
    for level in CpuLevel::available() {
        check(Kernels::new(level).unwrap());
    }
}

fn packed(
    kernels: Kernels,
    precision: Precision,
    [columns, depth]: [usize; 2],
    w: &[f32],
    bias: &[f32],
) -> PackedMatrix {
    let mut packed = kernels.packed_matrix(columns, depth, precision, &Arena::default());
    // In two parts, the second of which begins within a panel.
    let at = columns / 3;
    packed.fill(0, &w[..at * depth], &bias[..at], 1.0);
    packed.fill(at, &w[at * depth..], &bias[at..], 1.0);
    packed
}

fn product(kernels: Kernels, x: &Rows, packed: &PackedMatrix, epilogue: Epilogue) -> Vec<f32> {
    let mut out = Rows::new(packed.columns());
    kernels.matmul(x, packed, epilogue, &mut Scratch::default(), &mut out);
    (0..x.count()).flat_map(|i| out.row(i).to_vec()).collect()
}

/// Products in f64 with their bias.
fn products_of(x: &[f32], w: &[f32], bias: &[f32], depth: usize) -> Vec<f64> {
    let mut products = Vec::new();
    for row in x.chunks_exact(depth) {
        for (column, b) in w.chunks_exact(depth).zip(bias) {
            let sum: f64 = row.iter().zip(column).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            products.push(sum + f64::from(*b));
        }
    }
    products
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(g) - w).abs() <= tolerance * w.abs().max(1.0), "{what}[{i}]: {g} against {w}");
    }
}

/// erf in f64 by its series; beyond 5 it is 1 to 12 digits.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    (sum * 2.0 / std::f64::consts::PI.sqrt()).clamp(-1.0, 1.0)
}

#[test]
fn matmul_agrees_with_f64_sums_for_every_epilogue() {
    every_level(|kernels| {
        // 768 products need two blocks; 29 rows end in a partial tile.
        for (count, depth, columns) in [(29, 32, 64), (1, 768, 32), (14, 416, 96)] {
            let (x, w) = (random(1, count * depth), random(2, columns * depth));
            let (bias, residual) = (random(3, columns), random(4, count * columns));
            let packed = packed(kernels, Precision::Float32, [columns, depth], &w, &bias);
            let want = products_of(&x, &w, &bias, depth);
            let rows = rows_of(depth, &x);
            let what = format!("{:?} {count}x{depth}x{columns}", kernels.level());
            let run = |epilogue: Epilogue| product(kernels, &rows, &packed, epilogue);
            assert_close(&run(Epilogue::Bias), &want, 2e-5, &what);
            let activated: Vec<f64> = want.iter().map(|&x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))).collect();
            assert_close(&run(Epilogue::BiasGelu), &activated, 2e-5, &what);
            let added: Vec<f64> = want.iter().zip(&residual).map(|(a, b)| a + f64::from(*b)).collect();
            assert_close(&run(Epilogue::BiasResidual(&rows_of(columns, &residual))), &added, 2e-5, &what);
            let gated: Vec<f64> =
                want.iter().zip(&residual).map(|(a, b)| a / (1.0 + (-a).exp()) * f64::from(*b)).collect();
            assert_close(&run(Epilogue::BiasSiluTimes(&rows_of(columns, &residual))), &gated, 2e-5, &what);
        }
    });
}

#[test]
fn matmul_of_a_row_does_not_depend_on_the_rows_beside_it_nor_on_threads() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    every_level(|kernels| {
        // Wide enough for threads to share it, in every precision.
        let (count, depth, columns) = (33, 416, 640);
        let x = random(5, count * depth);
        let (w, bias) = (random(6, columns * depth), random(7, columns));
        for precision in Precision::ALL {
            let packed = packed(kernels, precision, [columns, depth], &w, &bias);
            let all = product(kernels, &rows_of(depth, &x), &packed, Epilogue::BiasGelu);
            for (i, row) in x.chunks_exact(depth).enumerate().step_by(5) {
                let one = product(kernels, &rows_of(depth, row), &packed, Epilogue::BiasGelu);
                assert_eq!(one, all[i * columns..][..columns], "{:?} {precision:?} row {i}", kernels.level());
            }
            let mut scratch = Scratch { helpers: 2, ..Scratch::default() };
            assert_eq!(scratch.shares(&packed), 3, "{precision:?}");
            let mut shared = Rows::new(columns);
            pool.install(|| {
                kernels.matmul(&rows_of(depth, &x), &packed, Epilogue::BiasGelu, &mut scratch, &mut shared);
            });
            for i in 0..count {
                assert_eq!(
                    shared.row(i),
                    &all[i * columns..][..columns],
                    "{:?} {precision:?} row {i}",
                    kernels.level()
                );
            }
        }
    });
}

#[test]
fn half_precision_rounds_the_weights_alone() {
    every_level(|kernels| {
        let (count, depth, columns) = (17, 768, 64);
        let (x, w, bias) = (random(1, count * depth), random(2, columns * depth), random(3, columns));
        let rounded: Vec<f32> = w.iter().map(|w| half::widen(half::narrow(*w))).collect();
        let packed = packed(kernels, Precision::Float16, [columns, depth], &w, &bias);
        let got = product(kernels, &rows_of(depth, &x), &packed, Epilogue::Bias);
        assert_close(&got, &products_of(&x, &rounded, &bias, depth), 2e-5, &format!("{:?}", kernels.level()));
    });
}

#[test]
fn int8_sums_are_those_of_the_codes() {
    // The last block of 800 products is shorter.
    int8_sums(800, 96);
    int8_sums(1056, 96);
}

fn int8_sums(depth: usize, block: usize) {
    let (count, columns) = (31, 96);
    let mut x = random(1, count * depth);
    // Rows of zeros, of one sign, and with a large number among small ones.
    x[..depth].fill(0.0);
    x[depth..2 * depth].iter_mut().for_each(|x| *x = x.abs() + 0.5);
    x[2 * depth] = -40.0;
    let (mut w, bias) = (random(2, columns * depth), random(3, columns));
    // Codes at the ends of their ranges, whose products are the largest that there are.
    x[3 * depth..4 * depth].fill(-1.0);
    w[..depth].fill(-0.5);
    w[depth..2 * depth].fill(0.5);
    // Blocks of both sides, as whole numbers and what one of them stands for.
    let activations = |block: &[f32]| -> (Vec<f64>, f64) {
        let low = block.iter().fold(0f32, |low, x| low.min(*x));
        let high = block.iter().fold(0f32, |high, x| high.max(*x));
        let scale = ((high - low) * (1.0 / 255.0)).max(f32::MIN_POSITIVE);
        let zero = (-low * (1.0 / scale)).round_ties_even();
        let code = |x: &f32| ((x * (1.0 / scale)).round_ties_even() + zero).clamp(0.0, 255.0) - zero;
        (block.iter().map(|x| f64::from(code(x))).collect(), f64::from(scale))
    };
    let weights = |block: &[f32]| -> (Vec<f64>, f64) {
        let step = block.iter().fold(0f32, |largest, w| largest.max(w.abs())) / 127.0;
        (block.iter().map(|w| f64::from((w * (1.0 / step)).round_ties_even())).collect(), f64::from(step))
    };
    let mut want = Vec::new();
    for row in x.chunks_exact(depth) {
        for (column, b) in w.chunks_exact(depth).zip(&bias) {
            let mut total = f64::from(*b);
            for (row, column) in row.chunks(block).zip(column.chunks(block)) {
                let ((row, scale), (column, step)) = (activations(row), weights(column));
                total += row.iter().zip(column).map(|(a, b)| a * b).sum::<f64>() * scale * step;
            }
            want.push(total);
        }
    }
    let rows = rows_of(depth, &x);
    every_level(|kernels| {
        let packed = packed(kernels, Precision::Int8, [columns, depth], &w, &bias);
        let got = product(kernels, &rows, &packed, Epilogue::Bias);
        // Sums are exact; what follows is rounded to f32.
        assert_close(&got, &want, 1e-5, &format!("{:?}", kernels.level()));
        assert_eq!(got[..columns], bias, "{:?}", kernels.level());
    });
}

#[test]
fn gelu_and_exp_hold_over_their_whole_range() {
    every_level(|kernels| {
        let xs: Vec<f32> = (-320..320).map(|i| i as f32 / 32.0).chain([-1e30, -1e4, 1e4, 1e30, 0.0, -0.0]).collect();
        let mut rows = Rows::new(32);
        rows.set_count(xs.len());
        for (i, x) in xs.iter().enumerate() {
            rows.row_mut(i).fill(0.0);
            rows.row_mut(i)[0] = *x;
        }
        let weights: Vec<f32> = (0..32 * 32).map(|i| if i / 32 == i % 32 { 1.0 } else { 0.0 }).collect();
        let identity = packed(kernels, Precision::Float32, [32, 32], &weights, &[0.0; 32]);
        let out = product(kernels, &rows, &identity, Epilogue::BiasGelu);
        for (i, &x) in xs.iter().enumerate() {
            let wide = f64::from(x);
            let want = 0.5 * wide * (1.0 + erf(wide / 2f64.sqrt()));
            let got = f64::from(out[i * 32]);
            assert!(
                (got - want).abs() <= 5e-7 * want.abs().max(1.0),
                "{:?} gelu({x}) = {got}, not {want}",
                kernels.level()
            );
        }
    });
}

#[test]
fn layer_norm_agrees_with_f64() {
    every_level(|kernels| {
        let (count, width) = (5, 96);
        let (x, weight, bias) = (random(8, count * width), random(9, width), random(10, width));
        let mut rows = rows_of(width, &x);
        kernels.layer_norm(&mut rows, &weight, &bias, 1e-12);
        for (i, row) in x.chunks_exact(width).enumerate() {
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
            let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
            let want: Vec<f64> = (0..width)
                .map(|k| (f64::from(row[k]) - mean) / variance.sqrt() * f64::from(weight[k]) + f64::from(bias[k]))
                .collect();
            assert_close(rows.row(i), &want, 1e-5, &format!("{:?} row {i}", kernels.level()));
        }
    });
}

#[test]
fn attention_agrees_with_f64_for_every_tail() {
    every_level(|kernels| {
        for head_width in [32, 64] {
            let (heads, lengths) = (2, [1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 47, 70]);
            let (hidden, tokens) = (heads * head_width, lengths.iter().sum::<usize>());
            let data = random(11, tokens * 3 * hidden);
            let qkv = rows_of(3 * hidden, &data);
            let by_distance = |head: usize, distance: isize| (distance as f32 / 9.0).sin() * (1.0 + head as f32);
            let bias = RelativeBias::new(heads, 70, by_distance);
            for biased in [false, true] {
                let (mut out, mut scratch) = (Rows::new(hidden), Scratch::default());
                kernels.attention(&qkv, &lengths, heads, biased.then_some(&bias), &mut scratch, &mut out);
                let mut from = 0;
                for count in lengths {
                    for row in from..from + count {
                        let add = |head, distance| if biased { by_distance(head, distance) } else { 0.0 };
                        let want = attend(&qkv, from..from + count, row, heads, head_width, add);
                        let what = format!("{:?} {head_width} of {count} row {row} {biased}", kernels.level());
                        assert_close(out.row(row), &want, 1e-5, &what);
                    }
                    from += count;
                }
            }
        }
    });
}

/// Attention of token `row` among `tokens` in f64; `bias` of head and distance is added to the scores.
fn attend(
    qkv: &Rows,
    tokens: Range<usize>,
    row: usize,
    heads: usize,
    width: usize,
    bias: impl Fn(usize, isize) -> f32,
) -> Vec<f64> {
    let hidden = heads * width;
    let mut result = Vec::new();
    for head in 0..heads {
        let part = |token: usize, which: usize| &qkv.row(token)[which * hidden + head * width..][..width];
        let product = |t| part(row, 0).iter().zip(part(t, 1)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let added = |t| f64::from(bias(head, t as isize - row as isize));
        let scores: Vec<f64> = tokens.clone().map(|t| product(t) + added(t)).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        for k in 0..width {
            let sum: f64 = tokens.clone().zip(&weights).map(|(t, weight)| weight * f64::from(part(t, 2)[k])).sum();
            result.push(sum / total);
        }
    }
    result
}

#[test]
fn what_is_no_number_stays_none() {
    every_level(|kernels| {
        let (heads, width, count) = (2, 32, 5);
        let hidden = heads * width;
        let mut data = random(12, count * 3 * hidden);
        // In the first head the first token's score of itself is infinite.
        data[..width].fill(1e30);
        data[hidden..hidden + width].fill(1e30);
        let (mut out, mut scratch) = (Rows::new(hidden), Scratch::default());
        kernels.attention(&rows_of(3 * hidden, &data), &[count], heads, None, &mut scratch, &mut out);
        let (first, second) = out.row(0).split_at(width);
        let level = kernels.level();
        assert!(first.iter().all(|x| x.is_nan()) && second.iter().all(|x| x.is_finite()), "{level:?} {first:?}");
        // Each lane of a register has met numbers again behind them.
        let (w, bias) = (random(13, hidden * hidden), random(14, hidden));
        for precision in Precision::ALL {
            let packed = packed(kernels, precision, [hidden, hidden], &w, &bias);
            let product = product(kernels, &out, &packed, Epilogue::Bias);
            let (first, others) = product.split_at(hidden);
            assert!(first.iter().all(|x| x.is_nan()), "{level:?} {precision:?} {first:?}");
            assert!(others.iter().all(|x| x.is_finite()), "{level:?} {precision:?} {others:?}");
        }
    });
}

#[test]
fn tiles_follow_each_other_and_are_of_about_one_height() {
    for most in [4, 6, 14] {
        assert_eq!(tile::heights(0, most).count(), 0);
        for count in 1..100 {
            let tiles: Vec<(usize, usize)> = tile::heights(count, most).collect();
            assert_eq!(tiles.len(), count.div_ceil(most), "{count} of {most}");
            let end = tiles.iter().fold(0, |end, &(from, rows)| {
                assert_eq!(from, end, "{tiles:?}");
                end + rows
            });
            assert_eq!(end, count, "{tiles:?}");
            let rows = |&(_, rows): &(usize, usize)| rows;
            let (least, largest) = (tiles.iter().map(rows).min().unwrap(), tiles.iter().map(rows).max().unwrap());
            assert!(largest <= most && largest - least <= 1, "{tiles:?}");
        }
    }
}

#[test]
fn levels_are_found_by_name() {
    for level in CpuLevel::ALL {
        assert_eq!(CpuLevel::from_name(level.name()), Some(level));
    }
    assert_eq!(CpuLevel::from_name("AVX-9"), None);
    assert!(CpuLevel::available().contains(&CpuLevel::fastest()));
}
