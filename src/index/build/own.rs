//! The own builder: rows are inserted in batches, each searched for in the graph as it was before its batch.
//!
//! Within a batch rows only read the graph, so threads need no locks; then the links of the batch are set, ordered by
//! row. The graph therefore depends on the rows and nothing else (the batch insertion of ParlayANN, Manohar et al.
//! 2024).

use rayon::prelude::*;

use super::BuildOptions;
use super::growing::Growing;
use super::nibble_rows::NibbleTable;
use super::points::{Points, SeenFrom};
use super::resume::resume;
use super::select::{Near, in_order, select, select_among};
use crate::index::IndexError;
use crate::segment::{Candidate, Graph, GraphView, Links, MAX_LEVEL, Rows, nearest_on_level, step_on_level};
use crate::types::{IndexDefinition, Ordinal};

/// A batch has one row for so many that are inserted: rows of one batch do not see each other, and so few lose nothing.
const INSERTED_PER_BATCH_ROW: usize = 50;
/// Where a graph is taken over, a batch has at most one row for so many that are to be inserted: what is new may be of
/// one kind, and lie far from all that is there.
const NEW_PER_BATCH_ROW: usize = INSERTED_PER_BATCH_ROW / 2;
/// Rows inserted between two looks at the cancel flag, at most.
const MAX_BATCH_ROWS: usize = 16_384;
/// Smaller batches are not worth sharing between threads.
const MIN_SHARED_ROWS: usize = 16;
/// The level whose rows stand for regions of the graph.
const REGION_LEVEL: u32 = 2;
/// Decides the levels and the order of insertion.
const SEED: u64 = 0x0070_616e_6e69_6572;

/// A graph that other rows are inserted into, instead of starting from none.
pub struct Start<'a> {
    /// A sound graph of the same `m`.
    pub graph: GraphView<'a>,
    /// By row of that graph: the same row among those of the new one, or `None` where it is left out.
    pub rows: Vec<Option<Ordinal>>,
}

/// Builds the graph over `points` on the threads of the current rayon pool. `nibbles`: theirs, where the neighbours of
/// a row are to be looked for by these.
pub(super) fn build(
    points: &Points<'_>,
    nibbles: Option<&NibbleTable>,
    index: &IndexDefinition,
    start: Option<Start<'_>>,
    options: &BuildOptions<'_>,
) -> Result<Graph, IndexError> {
    let m = index.m as usize;
    let search = NeighbourSearch { points, nibbles, ef: index.ef_construction as usize };
    let mut random = Random(SEED);
    let mut levels: Vec<u32> = (0..points.rows()).map(|_| random.level(m)).collect();
    let (mut growing, waiting, largest) = match start.filter(|start| start.rows.iter().any(Option::is_some)) {
        None => {
            let order = random.shuffled(0..points.rows() as Ordinal);
            let (&first, rest) = order.split_first().expect("there is a row");
            (Growing::new(&levels, m, first), rest.to_vec(), MAX_BATCH_ROWS)
        }
        Some(start) => {
            let growing = resume(points, &start, &mut levels, m);
            let mut waits = vec![true; points.rows()];
            start.rows.iter().flatten().for_each(|&row| waits[row as usize] = false);
            let waiting = random.shuffled((0..points.rows() as Ordinal).filter(|&row| waits[row as usize]));
            let largest = waiting.len().div_ceil(NEW_PER_BATCH_ROW).clamp(1, MAX_BATCH_ROWS);
            (growing, waiting, largest)
        }
    };
    let mut inserted = points.rows() - waiting.len();
    let mut waiting = waiting.as_slice();
    while !waiting.is_empty() {
        options.go_on()?;
        (options.progress)(inserted);
        let size = (inserted / INSERTED_PER_BATCH_ROW).clamp(1, largest).min(waiting.len());
        let (batch, rest) = waiting.split_at(size);
        insert(&mut growing, &search, batch);
        inserted += size;
        waiting = rest;
    }
    (options.progress)(inserted);
    Ok(growing.finish(points))
}

/// A link to set: `row` leads to `near.row` on `level`.
#[derive(Clone, Copy)]
struct Link {
    row: Ordinal,
    level: u32,
    near: Near,
}

fn insert(growing: &mut Growing, search: &NeighbourSearch<'_>, batch: &[Ordinal]) {
    let is_small = batch.len() < MIN_SHARED_ROWS;
    let points = search.points;
    let arrive = |&row: &Ordinal| arrive(growing, points, row);
    let find = |arrival: &Arrival| search.links_of(growing, arrival);
    let links: Vec<Vec<Link>> = if is_small {
        batch.iter().map(arrive).map(|arrival| find(&arrival)).collect()
    } else {
        let mut arrivals: Vec<Arrival> = batch.par_iter().map(arrive).collect();
        arrivals.par_sort_unstable_by_key(|arrival| (arrival.region, arrival.start.ordinal, arrival.row));
        arrivals.par_iter().with_min_len(MIN_SHARED_ROWS).map(find).collect()
    };
    let mut back = Vec::new();
    for links in &links {
        for list in links.chunk_by(|a, b| a.level == b.level) {
            growing.set(list[0].row, list[0].level, list.iter().map(|link| link.near.row));
        }
        let reversed = |link: &Link| Link { row: link.near.row, near: Near { row: link.row, ..link.near }, ..*link };
        back.extend(links.iter().map(reversed));
    }
    back.par_sort_unstable_by_key(|link| (link.level, link.row, link.near.row));
    let lists: Vec<&[Link]> = back.chunk_by(|a, b| (a.level, a.row) == (b.level, b.row)).collect();
    let extend = |new: &&[Link]| extended(growing, points, new);
    let extended: Vec<Vec<Ordinal>> = match is_small {
        true => lists.iter().map(extend).collect(),
        false => lists.par_iter().with_min_len(MIN_SHARED_ROWS).map(extend).collect(),
    };
    for (new, list) in lists.iter().zip(extended) {
        growing.set(new[0].row, new[0].level, list.into_iter());
    }
    batch.iter().for_each(|&row| growing.raise_entry(row));
}

/// A row that is to be inserted, and where single steps on the levels above its own lead.
struct Arrival {
    row: Ordinal,
    start: Candidate,
    /// Where they had led on level 2. Rows of one region are inserted one after the other, since they read the same
    /// parts of the graph, which then are in the processor's cache.
    region: Ordinal,
}

fn arrive(growing: &Growing, points: &Points<'_>, row: Ordinal) -> Arrival {
    let seen = SeenFrom { points, row };
    let entry = growing.entry();
    let mut start = Candidate { closeness: -points.distance(row, entry), ordinal: entry };
    let mut region = entry;
    for level in (growing.levels(row) + 1..=growing.top()).rev() {
        let Ok(nearer) = step_on_level(growing, &seen, level, start);
        start = nearer;
        if level == REGION_LEVEL {
            region = start.ordinal;
        }
    }
    Arrival { row, start, region }
}

/// How the neighbours of a row that is to be inserted are found.
struct NeighbourSearch<'a> {
    points: &'a Points<'a>,
    /// What walks on level 0 read, where nearly all comparisons are made: half the memory of codes, which then compare
    /// what was found again.
    nibbles: Option<&'a NibbleTable>,
    ef: usize,
}

impl NeighbourSearch<'_> {
    /// The links of a row that is to be inserted, from its highest level down.
    fn links_of(&self, growing: &Growing, arrival: &Arrival) -> Vec<Link> {
        let &Arrival { row, mut start, .. } = arrival;
        let seen = SeenFrom { points: self.points, row };
        let top = growing.levels(row);
        let (mut links, mut found, mut candidates) = (Vec::new(), Vec::new(), Vec::new());
        for level in (0..=top.min(growing.top())).rev() {
            match self.nibbles.filter(|_| level == 0) {
                Some(table) => candidates = self.near_by_nibbles(table, growing, row, start),
                None => {
                    let Ok(()) = nearest_on_level(growing, &seen, level, start, self.ef, &mut found);
                    start = found[0];
                    candidates.clear();
                    candidates.extend(found.iter().map(|near| Near { distance: -near.closeness, row: near.ordinal }));
                }
            }
            let chosen = select(self.points, &candidates, growing.new_neighbours());
            links.extend(chosen.into_iter().map(|near| Link { row, level, near }));
        }
        links
    }

    /// The nearest on level 0, nearest first.
    fn near_by_nibbles(&self, table: &NibbleTable, growing: &Growing, row: Ordinal, start: Candidate) -> Vec<Near> {
        let seen = table.searched_for(&self.points.vector(row).in_full());
        let Ok(closeness) = seen.closeness(start.ordinal);
        let (start, mut found) = (Candidate { closeness, ..start }, Vec::new());
        let Ok(()) = nearest_on_level(growing, &seen, 0, start, self.ef, &mut found);
        let rows: Vec<Ordinal> = found.iter().map(|near| near.ordinal).collect();
        in_order(self.points, row, &rows)
    }
}

/// The list of a row with new neighbours, cut back to the best where it has no room for them.
fn extended(growing: &Growing, points: &Points<'_>, new: &[Link]) -> Vec<Ordinal> {
    let Link { row, level, .. } = new[0];
    let list = growing.neighbours(row, level);
    let all: Vec<Ordinal> = list.iter().copied().chain(new.iter().map(|link| link.near.row)).collect();
    if all.len() <= growing.places(level) {
        return all;
    }
    let chosen = select_among(points, row, &all, growing.most_neighbours(level));
    chosen.into_iter().map(|near| near.row).collect()
}

/// splitmix64 (Steele, Lea & Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// How many levels a row gets above level 0: one row in `m` has one, one in `m` squared two.
    fn level(&mut self, m: usize) -> u32 {
        let uniform = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        ((-uniform.ln() / (m as f64).ln()) as u32).min(MAX_LEVEL)
    }

    /// Fisher & Yates.
    fn shuffled(&mut self, rows: impl Iterator<Item = Ordinal>) -> Vec<Ordinal> {
        let mut rows: Vec<Ordinal> = rows.collect();
        for last in (1..rows.len()).rev() {
            rows.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
        rows
    }
}
