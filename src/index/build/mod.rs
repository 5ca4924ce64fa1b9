//! Builds the graph of a segment. The own builder makes every graph, unless `Options::graph_builder` or `bench search
//! --builder` choose hnsw_rs, the reference that tests hold it to.

mod calibrate;
mod calibrate_bits;
mod growing;
mod nibble_rows;
mod own;
mod points;
mod reference;
mod resume;
mod sample;
mod select;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use super::params::is_reached;
use super::{IndexError, findable, repair};
use crate::distance::VectorRef;
use crate::segment::{Graph, suits_nibbles};
use crate::storage::give_way;
use crate::types::{GraphBuilder, IndexDefinition, Metric, Ordinal, Quantization};

use calibrate_bits::BitTable;
use nibble_rows::NibbleTable;
pub use own::Start;
use points::Points;

/// How a graph is built.
pub struct BuildOptions<'a> {
    /// What builds it.
    pub builder: GraphBuilder,
    /// Threads that insert; `None` uses every core. The own builder makes the same graph with any number of them, the
    /// reference builder only with one.
    pub threads: Option<NonZeroUsize>,
    /// Called now and then with the rows inserted so far.
    pub progress: &'a (dyn Fn(usize) + Sync),
    /// Once true, the work stops soon.
    pub cancel: &'a AtomicBool,
}

impl BuildOptions<'_> {
    /// # Errors
    /// [`IndexError::Cancelled`] once the work is to stop.
    fn go_on(&self) -> Result<(), IndexError> {
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(IndexError::Cancelled),
            false => Ok(()),
        }
    }
}

/// Builds the graph over `rows`: shape `[rows, dim]`, at least one, finite, of length 1 where the metric is cosine.
///
/// Every row can be reached from every other on level 0. A walk of the default effort for a row's own vector finds it,
/// unless what it finds is as near. The own builder goes on from `start` where there is one, and
/// needs about 400 bytes a row beside the vectors, which are not copied; with quantization their int8 codes are, and
/// their nibbles where these suit them, and without it those in half precision are widened.
///
/// # Errors
/// [`IndexError::Cancelled`], [`IndexError::Threads`].
///
/// # Panics
/// When there is no row, or more than 2^30.
pub fn build_graph(
    rows: &[VectorRef<'_>],
    metric: Metric,
    index: &IndexDefinition,
    start: Option<Start<'_>>,
    options: &BuildOptions<'_>,
) -> Result<Graph, IndexError> {
    assert!((1..1 << 30).contains(&rows.len()), "{} rows", rows.len());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads.map_or(0, NonZeroUsize::get))
        .thread_name(|number| format!("build-{number}"))
        // Who searches or writes meanwhile comes first.
        .start_handler(|_| give_way())
        .build()
        .map_err(|source| IndexError::Threads { source })?;
    let points = pool.install(|| Points::new(rows, metric, index.quantization));
    let nibbles =
        suits_nibbles(metric, rows[0].dim() as u32, index).then(|| pool.install(|| NibbleTable::new(&points)));
    let nibbles = nibbles.filter(|table| !table.clips());
    let mut graph = match options.builder {
        GraphBuilder::Own => pool.install(|| {
            let finding = nibbles.as_ref().filter(|table| table.finds_neighbours(&points));
            own::build(&points, finding, index, start, options)
        })?,
        GraphBuilder::HnswRs => reference::build(&points, index, &pool, options)?,
    };
    let distance = |a: Ordinal, b: Ordinal| points.distance(a, b);
    let bits = (index.quantization == Quantization::Binary).then(|| pool.install(|| BitTable::new(rows, metric)));
    let measure = |graph: &mut Graph| {
        match &bits {
            Some(table) => {
                graph.calibration = calibrate_bits::calibrate(rows, metric, graph, table, options.cancel);
            }
            None => {
                (graph.calibration, graph.nibbles) =
                    calibrate::calibrate(&points, graph, nibbles.as_ref(), options.cancel);
            }
        }
        options.go_on()
    };
    let mend = |graph: &mut Graph| match (&bits, nibbles.as_ref().filter(|_| graph.nibbles)) {
        (Some(table), _) => {
            let seen = |row: Ordinal| table.searched_for(&rows[row as usize].in_full());
            findable::mend(graph, seen, distance, options.cancel)
        }
        (None, Some(table)) => {
            let seen = |row: Ordinal| table.searched_for(&points.vector(row).in_full());
            findable::mend(graph, seen, distance, options.cancel)
        }
        (None, None) => {
            let seen = |row: Ordinal| points.searched_for(points.vector(row).to_vec());
            findable::mend(graph, seen, distance, options.cancel)
        }
    };
    let (connected, mended) = pool.install(|| -> Result<(usize, usize), IndexError> {
        options.go_on()?;
        let connected = repair::connect(&mut graph, distance, |_| false, options.cancel)?;
        measure(&mut graph)?;
        let suffices = is_reached(&graph.calibration);
        let mut mended = mend(&mut graph)?;
        if mended > 0 && !suffices {
            // The links set for rows that could not be found may be what questions lacked, too.
            let before = (graph.calibration, graph.nibbles);
            measure(&mut graph)?;
            match is_reached(&graph.calibration) {
                true => mended += mend(&mut graph)?,
                // Rows are found with the effort that was measured before.
                false => (graph.calibration, graph.nibbles) = before,
            }
        }
        Ok((connected, mended))
    })?;
    tracing::debug!(rows = rows.len(), levels = graph.max_level, connected, mended, "graph built");
    Ok(graph)
}
