//! Builds the graph of a segment with hnsw_rs and takes it out as flat arrays.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use hnsw_rs::anndists::dist::Distance;
use hnsw_rs::hnsw::{Hnsw, Neighbour, Point};
use rayon::prelude::*;

use super::{IndexError, repair};
use crate::distance::{dot_f32, dot_i8, l2sq_f32, l2sq_i8};
use crate::segment::{Graph, MAX_LEVEL, NO_NEIGHBOUR, Quantizer};
use crate::types::{IndexDefinition, Metric, Ordinal, Quantization};

/// Rows that are inserted one after the other, so that the first rows of a graph find each other.
const SERIAL_ROWS: usize = 256;
/// Rows inserted between two looks at the cancel flag.
const CHUNK_ROWS: usize = 1_024;

/// How a graph is built.
pub struct BuildOptions<'a> {
    /// Threads that insert; `None` uses every core. One thread makes the same graph every time.
    pub threads: Option<NonZeroUsize>,
    /// Called now and then with the rows inserted so far.
    pub progress: &'a (dyn Fn(usize) + Sync),
    /// Once true, the work stops soon.
    pub cancel: &'a AtomicBool,
}

/// Builds the graph over `rows`: f32, shape `[rows, dim]`, at least one, finite, of length 1 where the metric is cosine.
///
/// Every row can be reached from every other on level 0. Memory while building is about 1 KiB a row beside the vectors,
/// which are not copied; with int8 quantization their codes are.
///
/// # Errors
/// [`IndexError::Cancelled`], [`IndexError::Threads`].
///
/// # Panics
/// When there is no row, or more than 2^30.
pub fn build_graph(
    rows: &[&[f32]],
    metric: Metric,
    index: &IndexDefinition,
    options: &BuildOptions<'_>,
) -> Result<Graph, IndexError> {
    assert!((1..1 << 30).contains(&rows.len()), "{} rows", rows.len());
    let points = Points::new(rows, metric, index.quantization);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads.map_or(0, NonZeroUsize::get))
        .thread_name(|number| format!("build-{number}"))
        .build()
        .map_err(|source| IndexError::Threads { source })?;
    let (m, ef_construction) = (index.m as usize, index.ef_construction as usize);
    let distance = |a: Ordinal, b: Ordinal| points.distance(a, b);
    let built = Hnsw::new(m, rows.len(), MAX_LEVEL as usize + 1, ef_construction, RowDistance(&points));
    insert_all(&built, rows.len(), &pool, options)?;
    let (graph, repaired) = pool.install(|| {
        let mut graph = export(&built, rows.len(), index.m);
        // Its parts point at each other, so it takes itself apart in parallel.
        drop(built);
        let repaired = repair::connect(&mut graph, distance);
        (graph, repaired)
    });
    tracing::debug!(rows = rows.len(), levels = graph.max_level, repaired, "graph built");
    Ok(graph)
}

/// The distances that decide the links: never negative, and proper metrics squared.
///
/// The graph is built on what its walks will read: codes, where there are any. Dot products are no distances, and links
/// chosen by them all lead to the longest vectors. One more dimension, sqrt(longest^2 - length^2), makes all rows
/// equally long; then the nearest to a query, which has 0 there, is the one of the largest dot product (Bachrach et al.
/// 2014).
struct Points<'a> {
    rows: &'a [&'a [f32]],
    /// i8, shape `[rows, dim]`, or empty.
    codes: Vec<i8>,
    dim: usize,
    /// The added dimension of each row, or empty.
    added: Vec<f32>,
}

impl<'a> Points<'a> {
    fn new(rows: &'a [&'a [f32]], metric: Metric, quantization: Quantization) -> Self {
        let dim = rows[0].len();
        let mut points = Self { rows, codes: Vec::new(), dim, added: Vec::new() };
        if quantization == Quantization::Int8 {
            let quantizer = Quantizer::fit(rows.len(), dim, |row| rows[row]);
            points.codes = vec![0; rows.len() * dim];
            for (row, codes) in rows.iter().zip(points.codes.chunks_exact_mut(dim)) {
                quantizer.encode(row, codes);
            }
        }
        if metric == Metric::Dot {
            let norms: Vec<f32> = (0..rows.len() as Ordinal).map(|row| points.squared_norm(row)).collect();
            let longest = norms.iter().copied().fold(0.0, f32::max);
            points.added = norms.into_iter().map(|norm| (longest - norm).max(0.0).sqrt()).collect();
        }
        points
    }

    fn squared_norm(&self, row: Ordinal) -> f32 {
        if self.codes.is_empty() {
            let vector = self.rows[row as usize];
            dot_f32(vector, vector)
        } else {
            dot_i8(self.row_codes(row), self.row_codes(row)) as f32
        }
    }

    #[inline]
    fn distance(&self, a: Ordinal, b: Ordinal) -> f32 {
        let squared = if self.codes.is_empty() {
            l2sq_f32(self.rows[a as usize], self.rows[b as usize])
        } else {
            l2sq_i8(self.row_codes(a), self.row_codes(b)) as f32
        };
        match (self.added.get(a as usize), self.added.get(b as usize)) {
            (Some(x), Some(y)) => squared + (x - y) * (x - y),
            _ => squared,
        }
    }

    #[inline]
    fn row_codes(&self, row: Ordinal) -> &[i8] {
        &self.codes[row as usize * self.dim..(row as usize + 1) * self.dim]
    }
}

/// Lets hnsw_rs hold ordinals, not vectors.
struct RowDistance<'a>(&'a Points<'a>);

impl Distance<Ordinal> for RowDistance<'_> {
    #[inline]
    fn eval(&self, a: &[Ordinal], b: &[Ordinal]) -> f32 {
        self.0.distance(a[0], b[0])
    }
}

type Built<'a> = Hnsw<'a, Ordinal, RowDistance<'a>>;

fn insert_all(
    built: &Built<'_>,
    rows: usize,
    pool: &rayon::ThreadPool,
    options: &BuildOptions<'_>,
) -> Result<(), IndexError> {
    let insert = |row: usize| built.insert_slice((&[row as Ordinal], row));
    let serial = SERIAL_ROWS.min(rows);
    (0..serial).for_each(insert);
    for start in (serial..rows).step_by(CHUNK_ROWS) {
        if options.cancel.load(Ordering::Relaxed) {
            return Err(IndexError::Cancelled);
        }
        (options.progress)(start);
        let end = rows.min(start + CHUNK_ROWS);
        pool.install(|| (start..end).into_par_iter().for_each(insert));
    }
    (options.progress)(rows);
    Ok(())
}

/// The graph of a finished hnsw_rs index, as flat arrays.
fn export(built: &Built<'_>, rows: usize, m: u32) -> Graph {
    let (m, m0) = (m as usize, 2 * m as usize);
    let indexation = built.get_point_indexation();
    let max_level = u32::from(indexation.get_max_level_observed());
    let mut levels = vec![0u32; rows];
    let mut entry = 0;
    for level in 0..=max_level {
        for point in indexation.get_layer_iterator(level as usize) {
            levels[point.get_origin_id()] = level;
            if level == max_level {
                entry = point.get_origin_id() as Ordinal;
            }
        }
    }
    let mut upper_index = Vec::with_capacity(rows + 1);
    let mut lists = 0;
    upper_index.push(0);
    upper_index.extend(levels.iter().map(|level| {
        lists += level;
        lists
    }));
    let mut level0 = vec![NO_NEIGHBOUR; rows * m0];
    let mut upper = vec![NO_NEIGHBOUR; lists as usize * m];
    for level in 0..=max_level {
        for point in indexation.get_layer_iterator(level as usize) {
            let row = point.get_origin_id();
            export_point(&point, &mut level0[row * m0..(row + 1) * m0], &mut upper[upper_index[row] as usize * m..], m);
        }
    }
    Graph { entry, max_level, m: m as u32, level0, upper_index, upper }
}

/// `upper`: the point's lists from level 1 on, and others behind them.
fn export_point(point: &Point<'_, Ordinal>, level0: &mut [u32], upper: &mut [u32], m: usize) {
    let row = point.get_origin_id();
    let neighbourhood = point.get_neighborhood_id();
    fill(level0, row, &neighbourhood[0], 0);
    let upper_levels = usize::from(point.get_point_id().0);
    for (level, list) in (1..=upper_levels).zip(upper.chunks_exact_mut(m)) {
        fill(list, row, &neighbourhood[level], level);
    }
}

/// Copies the nearest neighbours that are on the level, each once, and not the row itself. hnsw_rs sorts them by
/// distance, and on a level that was empty it links the entry point from a lower one.
fn fill(list: &mut [u32], row: usize, neighbours: &[Neighbour], level: usize) {
    let mut used = 0;
    for neighbour in neighbours {
        let ordinal = neighbour.d_id as Ordinal;
        let is_on_level = usize::from(neighbour.p_id.0) >= level;
        if used < list.len() && is_on_level && neighbour.d_id != row && !list[..used].contains(&ordinal) {
            list[used] = ordinal;
            used += 1;
        }
    }
}
