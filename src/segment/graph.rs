//! The HNSW graph as flat arrays, in memory and as a segment stores it.

use std::convert::Infallible;
use std::ops::Range;

use super::calibration::Calibration;
use super::scratch::with_scratch;
use super::walk::{Links, Rows, walk};
use crate::distance::prefetch;
use crate::types::Ordinal;

/// Fills a neighbour list after its last neighbour.
pub const NO_NEIGHBOUR: u32 = u32::MAX;
/// Highest level a row can have; one row in m^15 would have more.
pub const MAX_LEVEL: u32 = 15;

/// A graph over the rows of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// Where every search begins; a row with `max_level` levels.
    pub entry: Ordinal,
    /// Levels of the entry point above level 0.
    pub max_level: u32,
    /// Neighbours a row keeps on the upper levels; twice as many on level 0.
    pub m: u32,
    /// Shape `[rows, 2 * m]`: neighbours of each row, then [`NO_NEIGHBOUR`].
    pub level0: Vec<u32>,
    /// Shape `[rows + 1]`: the lists of row r are `upper_index[r]..upper_index[r + 1]` of `upper`, level 1 first.
    pub upper_index: Vec<u32>,
    /// Shape `[lists, m]`: neighbours on the upper levels, then [`NO_NEIGHBOUR`].
    pub upper: Vec<u32>,
    /// Whether walks read nibbles: see [`super::suits_nibbles`].
    pub nibbles: bool,
    /// The recall that walks reach.
    pub calibration: Calibration,
}

impl Graph {
    /// The graph as borrowed arrays.
    pub fn view(&self) -> GraphView<'_> {
        GraphView {
            entry: self.entry,
            max_level: self.max_level,
            m: self.m,
            level0: &self.level0,
            upper_index: &self.upper_index,
            upper: &self.upper,
        }
    }
}

/// A graph whose arrays lie elsewhere, such as in a mapped file.
#[derive(Clone, Copy, Debug)]
pub struct GraphView<'a> {
    /// As [`Graph::entry`].
    pub entry: Ordinal,
    /// As [`Graph::max_level`].
    pub max_level: u32,
    /// As [`Graph::m`].
    pub m: u32,
    /// As [`Graph::level0`].
    pub level0: &'a [u32],
    /// As [`Graph::upper_index`].
    pub upper_index: &'a [u32],
    /// As [`Graph::upper`].
    pub upper: &'a [u32],
}

/// Where a graph breaks its invariants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GraphFault {
    pub(super) array: GraphArray,
    /// Index of the first wrong number of the array.
    pub(super) index: usize,
    pub(super) reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GraphArray {
    Level0,
    UpperIndex,
    Upper,
}

impl<'a> GraphView<'a> {
    /// Rows of the graph.
    pub fn rows(&self) -> u32 {
        (self.upper_index.len() - 1) as u32
    }

    /// The neighbours of `row` on level 0, without the filling.
    pub fn neighbours(&self, row: Ordinal) -> &'a [u32] {
        used(&self.level0[level0_range(self.m, row)])
    }

    /// The neighbours of `row`, which is on the level, without the filling.
    pub fn neighbours_on(&self, row: Ordinal, level: u32) -> &'a [u32] {
        match level {
            0 => self.neighbours(row),
            _ => used(&self.upper[upper_range(self.m, self.upper_index[row as usize] + level - 1)]),
        }
    }

    /// Levels that `row` has above level 0.
    pub fn levels(&self, row: Ordinal) -> u32 {
        self.upper_index[row as usize + 1] - self.upper_index[row as usize]
    }

    /// Walks to the `ef` nearest rows for which `live` holds, approximately: nearest first. The graph must be sound.
    pub fn nearest(
        &self,
        ef: usize,
        closeness: impl Fn(Ordinal) -> f32,
        live: impl FnMut(Ordinal) -> bool,
    ) -> Vec<Ordinal> {
        with_scratch(|scratch| {
            let Ok(_) = walk(self, &Measured(closeness), ef, live, scratch);
            scratch.pool.nearest(ef).map(|candidate| candidate.ordinal).collect()
        })
    }

    /// Checks every list and every level; what the arrays hold is not trusted, their lengths are.
    pub(super) fn check(&self) -> Result<(), GraphFault> {
        self.check_index()?;
        let rows = self.rows();
        for row in 0..rows {
            let range = level0_range(self.m, row);
            self.check_list(&self.level0[range.clone()], row, 0).map_err(|(at, reason)| GraphFault {
                array: GraphArray::Level0,
                index: range.start + at,
                reason,
            })?;
            for level in 1..=self.levels(row) {
                let list = self.upper_index[row as usize] + level - 1;
                let range = upper_range(self.m, list);
                self.check_list(&self.upper[range.clone()], row, level).map_err(|(at, reason)| GraphFault {
                    array: GraphArray::Upper,
                    index: range.start + at,
                    reason,
                })?;
            }
        }
        Ok(())
    }

    fn check_index(&self) -> Result<(), GraphFault> {
        let lists = self.upper.len() / self.m as usize;
        let fault = |index, reason| Err(GraphFault { array: GraphArray::UpperIndex, index, reason });
        if self.upper_index[0] != 0 {
            return fault(0, "the upper index does not begin with 0");
        }
        for (row, pair) in self.upper_index.windows(2).enumerate() {
            if pair[1] < pair[0] || pair[1] as usize > lists {
                return fault(row + 1, "the upper index falls, or leaves the upper levels");
            }
            if pair[1] - pair[0] > self.max_level {
                return fault(row + 1, "a row has more levels than the entry point");
            }
        }
        if self.upper_index[self.upper_index.len() - 1] as usize != lists {
            return fault(self.upper_index.len() - 1, "the upper index does not end at the last list");
        }
        if self.levels(self.entry) != self.max_level {
            return fault(self.entry as usize + 1, "the entry point is not on the highest level");
        }
        Ok(())
    }

    fn check_list(&self, list: &[u32], row: Ordinal, level: u32) -> Result<(), (usize, &'static str)> {
        let neighbours = used(list);
        for (at, &neighbour) in neighbours.iter().enumerate() {
            if neighbour >= self.rows() {
                return Err((at, "a neighbour is no row"));
            }
            if neighbour == row {
                return Err((at, "a row is its own neighbour"));
            }
            if level > 0 && self.levels(neighbour) < level {
                return Err((at, "a neighbour is not on the list's level"));
            }
        }
        match list[neighbours.len()..].iter().position(|&filling| filling != NO_NEIGHBOUR) {
            None => Ok(()),
            Some(at) => Err((neighbours.len() + at, "a neighbour stands behind the filling")),
        }
    }

    /// Rows that can be reached from the entry point on level 0. The graph must be sound.
    pub(super) fn reachable(&self) -> u32 {
        let mut seen = vec![false; self.rows() as usize];
        seen[self.entry as usize] = true;
        let mut queue = vec![self.entry];
        let mut count = 0;
        while let Some(row) = queue.pop() {
            count += 1;
            for &neighbour in self.neighbours(row) {
                if !std::mem::replace(&mut seen[neighbour as usize], true) {
                    queue.push(neighbour);
                }
            }
        }
        count
    }
}

impl Links for GraphView<'_> {
    type Error = Infallible;

    fn rows(&self) -> u32 {
        GraphView::rows(self)
    }

    fn entry(&self) -> Ordinal {
        self.entry
    }

    fn max_level(&self) -> u32 {
        self.max_level
    }

    fn list(&self, ordinal: Ordinal, level: u32) -> Result<&[u32], Infallible> {
        if level == 0 {
            return Ok(&self.level0[level0_range(self.m, ordinal)]);
        }
        Ok(&self.upper[upper_range(self.m, self.upper_index[ordinal as usize] + level - 1)])
    }

    fn prefetch(&self, ordinal: Ordinal) {
        prefetch(&self.level0[level0_range(self.m, ordinal)]);
    }

    fn out_of_range(&self, ordinal: Ordinal, level: u32, neighbour: u32) -> Infallible {
        panic!("row {ordinal} is linked on level {level} to row {neighbour} of {}", self.rows());
    }
}

/// Rows whose closeness a function tells.
struct Measured<F>(F);

impl<F: Fn(Ordinal) -> f32> Rows for Measured<F> {
    type Error = Infallible;

    fn prefetch(&self, _: Ordinal) {}

    fn closeness(&self, ordinal: Ordinal) -> Result<f32, Infallible> {
        Ok((self.0)(ordinal))
    }
}

/// The neighbours of a list, without the filling.
#[inline]
pub(super) fn used(list: &[u32]) -> &[u32] {
    let len = list.iter().position(|&neighbour| neighbour == NO_NEIGHBOUR).unwrap_or(list.len());
    &list[..len]
}

/// Where the list of `row` stands in `level0`.
#[inline]
pub(super) fn level0_range(m: u32, row: Ordinal) -> Range<usize> {
    let m0 = 2 * m as usize;
    row as usize * m0..(row as usize + 1) * m0
}

/// Where list number `list` stands in `upper`.
#[inline]
pub(super) fn upper_range(m: u32, list: u32) -> Range<usize> {
    list as usize * m as usize..(list as usize + 1) * m as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let mut level0 = vec![NO_NEIGHBOUR; 3 * 10];
        level0[0] = 1;
        level0[10] = 2;
        level0[20] = 0;
        let mut upper = vec![NO_NEIGHBOUR; 2 * 5];
        upper[0] = 2;
        upper[5] = 0;
        Graph {
            entry: 0,
            max_level: 1,
            m: 5,
            level0,
            upper_index: vec![0, 1, 1, 2],
            upper,
            nibbles: false,
            calibration: Calibration::default(),
        }
    }

    fn fault(change: impl FnOnce(&mut Graph)) -> (GraphArray, usize) {
        let mut graph = graph();
        change(&mut graph);
        let fault = graph.view().check().unwrap_err();
        (fault.array, fault.index)
    }

    #[test]
    fn a_sound_graph_passes() {
        let graph = graph();
        assert_eq!(graph.view().check(), Ok(()));
        assert_eq!(graph.view().reachable(), 3);
        assert_eq!(graph.view().levels(2), 1);
        assert_eq!(graph.view().neighbours(1), [2]);
    }

    #[test]
    fn every_broken_invariant_is_found() {
        assert_eq!(fault(|g| g.level0[10] = 3), (GraphArray::Level0, 10));
        assert_eq!(fault(|g| g.level0[10] = 1), (GraphArray::Level0, 10));
        assert_eq!(fault(|g| g.level0[12] = 2), (GraphArray::Level0, 12));
        assert_eq!(fault(|g| g.upper[5] = 1), (GraphArray::Upper, 5));
        assert_eq!(fault(|g| g.upper_index[0] = 1), (GraphArray::UpperIndex, 0));
        assert_eq!(fault(|g| g.upper_index[2] = 0), (GraphArray::UpperIndex, 2));
        assert_eq!(fault(|g| g.upper_index[3] = 1), (GraphArray::UpperIndex, 3));
        assert_eq!(fault(|g| g.upper_index[1] = u32::MAX), (GraphArray::UpperIndex, 1));
        assert_eq!(fault(|g| g.entry = 1), (GraphArray::UpperIndex, 2));
        assert_eq!(fault(|g| g.max_level = 0), (GraphArray::UpperIndex, 1));
    }

    #[test]
    fn lost_rows_are_counted() {
        let mut graph = graph();
        graph.level0[10] = NO_NEIGHBOUR;
        assert_eq!(graph.view().reachable(), 2);
    }
}
