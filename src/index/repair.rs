//! Makes every row of a graph reachable, and a place to walk on from.
//!
//! Builders drop a row's farthest links when its list is full. That cuts off outliers among near-duplicates: no effort
//! of a search would find them. Here level 0 becomes strongly connected. As few links as possible are exchanged.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use super::IndexError;
use crate::segment::{Graph, NO_NEIGHBOUR};
use crate::types::Ordinal;

/// Stands for "no row" in the trees below.
const NONE: u32 = u32::MAX;
/// Candidates for the other end of a missing link.
const EF: usize = 64;

/// Mends level 0 of `graph`, whose lists are sound. `distance`: between two rows. `stays`: whether the link at a place
/// of level 0 is exchanged only where nothing else can be. Returns how many links were set.
///
/// # Errors
/// [`IndexError::Cancelled`] soon after `cancel` is true.
pub(super) fn connect(
    graph: &mut Graph,
    distance: impl Fn(Ordinal, Ordinal) -> f32,
    stays: impl Fn(usize) -> bool,
    cancel: &AtomicBool,
) -> Result<usize, IndexError> {
    let rows = graph.upper_index.len() - 1;
    let (parent, copies) = (Vec::new(), HashMap::new());
    let mut repair = Repair { rows, distance, stays, cancel, links: 0, parent, copies, graph };
    repair.reach_every_row()?;
    repair.return_from_every_row()?;
    Ok(repair.links)
}

struct Repair<'a, D, S> {
    graph: &'a mut Graph,
    rows: usize,
    distance: D,
    stays: S,
    cancel: &'a AtomicBool,
    links: usize,
    /// The tree of a search from the entry point: the row from which each was first met. Its links are never exchanged.
    parent: Vec<Ordinal>,
    /// By row: its copies that were linked here, oldest first, without the first of them that have no place left.
    copies: HashMap<Ordinal, VecDeque<Ordinal>>,
}

impl<D: Fn(Ordinal, Ordinal) -> f32, S: Fn(usize) -> bool> Repair<'_, D, S> {
    fn reach_every_row(&mut self) -> Result<(), IndexError> {
        self.parent = vec![NONE; self.rows];
        self.reach_from(self.graph.entry, self.graph.entry);
        for row in 0..self.rows as Ordinal {
            if self.parent[row as usize] != NONE {
                continue;
            }
            self.go_on()?;
            let near = self.nearest(row, |other| self.parent[other as usize] != NONE);
            let equal = near.first().copied().filter(|&nearest| (self.distance)(row, nearest) == 0.0);
            // Copies of a row go below each other: no list leads to more than a few of thousands, and the lists that
            // walks come by would in the end lead to nothing else, then those of rows that lie anywhere.
            let below = equal.and_then(|equal| self.place_below_copies(equal));
            // The tree has fewer links than the reached rows have places, so some reached row has one.
            let mut reached = (0..self.rows as Ordinal).filter(|&other| self.parent[other as usize] != NONE);
            let place = |from: Ordinal| Some((from, self.place_outside_tree(from)?));
            let place = below.or_else(|| near.into_iter().find_map(place)).or_else(|| reached.find_map(place));
            let (from, at) = place.expect("fewer tree links than places");
            self.graph.level0[at] = row;
            self.links += 1;
            self.reach_from(row, from);
            if let Some(equal) = equal {
                self.copies.entry(equal).or_default().push_back(row);
            }
        }
        Ok(())
    }

    /// A place of a copy of `row` that was linked here, with that copy. One that has none now never has.
    fn place_below_copies(&mut self, row: Ordinal) -> Option<(Ordinal, usize)> {
        loop {
            let &copy = self.copies.get(&row)?.front()?;
            if let Some(at) = self.place_outside_tree(copy) {
                return Some((copy, at));
            }
            self.copies.get_mut(&row)?.pop_front();
        }
    }

    fn go_on(&self) -> Result<(), IndexError> {
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(IndexError::Cancelled),
            false => Ok(()),
        }
    }

    /// Adds to the tree what can be reached from `row`, which was met from `from`.
    fn reach_from(&mut self, row: Ordinal, from: Ordinal) {
        self.parent[row as usize] = from;
        let mut queue = VecDeque::from([row]);
        while let Some(row) = queue.pop_front() {
            for &neighbour in self.graph.view().neighbours(row) {
                if self.parent[neighbour as usize] == NONE {
                    self.parent[neighbour as usize] = row;
                    queue.push_back(neighbour);
                }
            }
        }
    }

    /// Walks begin below the entry point, so every row must lead back to it.
    fn return_from_every_row(&mut self) -> Result<(), IndexError> {
        let incoming = Incoming::new(self.graph);
        let mut returns = vec![false; self.rows];
        incoming.mark(self.graph.entry, &mut returns);
        for row in 0..self.rows as Ordinal {
            if returns[row as usize] {
                continue;
            }
            self.go_on()?;
            // A row whose links all belong to the tree leads to a leaf of it, which has none: the leaf is mended.
            let Some(at) = self.place_outside_tree(row) else { continue };
            let to = self.nearest(row, |other| returns[other as usize]).first().copied().unwrap_or(self.graph.entry);
            self.graph.level0[at] = to;
            self.links += 1;
            incoming.mark(row, &mut returns);
        }
        Ok(())
    }

    /// Rows that `live` takes near `row`, nearest first: those that a search for `row` meets, so that a link from one
    /// of them makes such a search find it.
    fn nearest(&self, row: Ordinal, live: impl FnMut(Ordinal) -> bool) -> Vec<Ordinal> {
        self.graph.view().nearest(EF, |other| -(self.distance)(row, other), live)
    }

    /// Where in `level0` a link from `row` can be set without cutting the tree: a free place, or that of its farthest
    /// link that can go.
    fn place_outside_tree(&self, row: Ordinal) -> Option<usize> {
        let m0 = 2 * self.graph.m as usize;
        let start = row as usize * m0;
        let list = &self.graph.level0[start..start + m0];
        if let Some(free) = list.iter().position(|&neighbour| neighbour == NO_NEIGHBOUR) {
            return Some(start + free);
        }
        let outside = list.iter().enumerate().filter(|&(_, &to)| self.parent[to as usize] != row);
        let ranked = outside.map(|(at, &to)| (!(self.stays)(start + at), (self.distance)(row, to), start + at));
        ranked.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(.., place)| place)
    }
}

/// The links of level 0 backwards. Links that are exchanged later may be missing or stale here: only rows that did not
/// lead back exchange links, and they do afterwards, so that neither matters.
struct Incoming {
    starts: Vec<usize>,
    from: Vec<Ordinal>,
}

impl Incoming {
    fn new(graph: &Graph) -> Self {
        let view = graph.view();
        let mut starts = vec![0; view.rows() as usize + 1];
        for row in 0..view.rows() {
            for &to in view.neighbours(row) {
                starts[to as usize + 1] += 1;
            }
        }
        for row in 1..starts.len() {
            starts[row] += starts[row - 1];
        }
        let mut ends = starts.clone();
        let mut from = vec![0; starts[starts.len() - 1]];
        for row in 0..view.rows() {
            for &to in view.neighbours(row) {
                from[ends[to as usize]] = row;
                ends[to as usize] += 1;
            }
        }
        Self { starts, from }
    }

    /// Marks `row` and every row that leads to it.
    fn mark(&self, row: Ordinal, marked: &mut [bool]) {
        marked[row as usize] = true;
        let mut queue = vec![row];
        while let Some(row) = queue.pop() {
            for &from in &self.from[self.starts[row as usize]..self.starts[row as usize + 1]] {
                if !std::mem::replace(&mut marked[from as usize], true) {
                    queue.push(from);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Calibration;

    static NEVER: AtomicBool = AtomicBool::new(false);

    /// Rows on a line, linked as told.
    fn graph(rows: usize, m: u32, links: &[(u32, u32)]) -> Graph {
        let m0 = 2 * m as usize;
        let mut level0 = vec![NO_NEIGHBOUR; rows * m0];
        for &(from, to) in links {
            let list = &mut level0[from as usize * m0..(from as usize + 1) * m0];
            let free = list.iter().position(|&n| n == NO_NEIGHBOUR).unwrap();
            list[free] = to;
        }
        Graph {
            entry: 0,
            max_level: 0,
            m,
            level0,
            upper_index: vec![0; rows + 1],
            upper: Vec::new(),
            nibbles: false,
            calibration: Calibration::default(),
        }
    }

    fn reached(graph: &Graph, from: u32) -> usize {
        let view = graph.view();
        let mut seen = vec![false; view.rows() as usize];
        seen[from as usize] = true;
        let mut queue = vec![from];
        while let Some(row) = queue.pop() {
            for &to in view.neighbours(row) {
                if !std::mem::replace(&mut seen[to as usize], true) {
                    queue.push(to);
                }
            }
        }
        seen.into_iter().filter(|&seen| seen).count()
    }

    fn assert_connected(graph: &mut Graph) -> usize {
        let links = connect(graph, |a, b| (a as f32 - b as f32).abs(), |_| false, &NEVER).unwrap();
        for row in 0..graph.view().rows() {
            assert_eq!(reached(graph, row), graph.view().rows() as usize, "from {row}: {graph:?}");
        }
        links
    }

    #[test]
    fn a_connected_graph_is_left_alone() {
        let mut ring = graph(3, 1, &[(0, 1), (1, 2), (2, 0)]);
        let before = ring.clone();
        assert_eq!(assert_connected(&mut ring), 0);
        assert_eq!(ring, before);
        assert_eq!(assert_connected(&mut graph(1, 1, &[])), 0);
    }

    #[test]
    fn lost_rows_are_linked_from_the_nearest() {
        let mut graph = graph(5, 1, &[(0, 1), (1, 0), (1, 2), (2, 1), (3, 2), (4, 3)]);
        assert_connected(&mut graph);
        assert!(graph.view().neighbours(2).contains(&3) && graph.view().neighbours(3).contains(&4));
    }

    #[test]
    fn dead_ends_lead_back() {
        assert_connected(&mut graph(6, 1, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]));
    }

    #[test]
    fn full_lists_exchange_links_without_losing_rows() {
        // Two cliques whose lists are full, and rows that nobody links.
        let mut links = Vec::new();
        for clique in [0..4u32, 4..8] {
            for from in clique.clone() {
                links.extend(clique.clone().filter(|&to| to != from).map(|to| (from, to)));
            }
        }
        let mut cliques = graph(10, 2, &links);
        cliques.level0.chunks_exact_mut(4).take(8).enumerate().for_each(|(row, list)| {
            list[3] = if row < 4 { (row as u32 + 1) % 4 } else { 4 + (row as u32 - 3) % 4 };
        });
        assert_connected(&mut cliques);
    }

    #[test]
    fn copies_take_no_places_of_other_rows() {
        // A line whose lists are full, and copies of its last row that nobody links: more than the nearest have places.
        const LINE: u32 = 20;
        let there = (0..LINE).map(|row| (row, row + 1));
        let back = (1..=LINE).map(|row| (row, row - 1));
        let links: Vec<(u32, u32)> = there.chain(back).collect();
        let mut line = graph(400, 1, &links);
        let before = line.level0.clone();
        let at = |row: u32| row.min(LINE) as f32;
        let links = connect(&mut line, |a, b| (at(a) - at(b)).abs(), |_| false, &NEVER).unwrap();
        assert!(links >= 379, "{links}");
        for row in 0..400 {
            assert_eq!(reached(&line, row), 400, "from {row}: {line:?}");
        }
        let others = 2 * LINE as usize;
        assert_eq!(line.level0[..others], before[..others]);
    }

    #[test]
    fn connecting_can_be_called_off() {
        let mut lost = graph(3, 1, &[(0, 1), (1, 0)]);
        let called_off = connect(&mut lost, |a, b| (a as f32 - b as f32).abs(), |_| false, &AtomicBool::new(true));
        assert!(matches!(called_off, Err(IndexError::Cancelled)), "{called_off:?}");
    }

    #[test]
    fn random_graphs_become_connected() {
        for seed in 1..60u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut next = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % below) as u32
            };
            let rows = 2 + next(40);
            let mut random = graph(rows as usize, 1, &[]);
            for row in 0..rows {
                for at in 0..next(3) {
                    let to = next(u64::from(rows));
                    if to != row {
                        random.level0[(2 * row + at) as usize] = to;
                    }
                }
                let list = &mut random.level0[2 * row as usize..2 * row as usize + 2];
                list.sort_unstable();
            }
            assert_connected(&mut random);
        }
    }
}
