//! The reference builder: hnsw_rs makes the graph, which is taken out as flat arrays.

use hnsw_rs::anndists::dist::Distance;
use hnsw_rs::hnsw::{Hnsw, Neighbour, Point};
use rayon::prelude::*;

use super::BuildOptions;
use super::points::Points;
use crate::index::IndexError;
use crate::segment::{Calibration, Graph, MAX_LEVEL, NO_NEIGHBOUR};
use crate::types::{IndexDefinition, Ordinal};

/// Rows that are inserted one after the other, so that the first rows of a graph find each other.
const SERIAL_ROWS: usize = 256;
/// Rows inserted between two looks at the cancel flag.
const CHUNK_ROWS: usize = 1_024;

/// Builds the graph over `points` on the threads of `pool`. Memory while building is about 1 KiB a row.
pub(super) fn build(
    points: &Points<'_>,
    index: &IndexDefinition,
    pool: &rayon::ThreadPool,
    options: &BuildOptions<'_>,
) -> Result<Graph, IndexError> {
    let (m, ef_construction) = (index.m as usize, index.ef_construction as usize);
    let built = Hnsw::new(m, points.rows(), MAX_LEVEL as usize + 1, ef_construction, RowDistance(points));
    insert_all(&built, points.rows(), pool, options)?;
    let graph = export(&built, points.rows(), index.m);
    // Its parts point at each other, so it takes itself apart in parallel.
    pool.install(|| drop(built));
    Ok(graph)
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
        options.go_on()?;
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
    Graph {
        entry,
        max_level,
        m: m as u32,
        level0,
        upper_index,
        upper,
        nibbles: false,
        calibration: Calibration::default(),
    }
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
