//! A graph that rows are being inserted into: its lists on level 0 have room to spare.

use std::convert::Infallible;

use rayon::prelude::*;

use super::points::Points;
use super::select::select_among;
use crate::distance::prefetch;
use crate::segment::{Calibration, Graph, Links, NO_NEIGHBOUR};
use crate::storage::{Arena, Piece};
use crate::types::Ordinal;

/// Places of a list on level 0 beyond those it will have: a full list is cut back to the best, and with room to spare
/// that happens once in several new links instead of with each.
const SPARE_PLACES: usize = 8;

/// The lists of all rows, of which some are inserted. Others are empty, and nothing leads to them.
pub(super) struct Growing {
    m: usize,
    entry: Ordinal,
    max_level: u32,
    upper_index: Vec<u32>,
    level0: Piece<u32>,
    upper: Vec<u32>,
}

impl Growing {
    /// Lists for rows of these levels, all empty; `entry` is the first row to be inserted.
    pub(super) fn new(levels: &[u32], m: usize, entry: Ordinal) -> Self {
        let mut upper_index = Vec::with_capacity(levels.len() + 1);
        let mut lists = 0;
        upper_index.push(0);
        upper_index.extend(levels.iter().map(|level| {
            lists += level;
            lists
        }));
        let mut level0 = Arena::default().zeroed(levels.len() * (2 * m + SPARE_PLACES));
        level0.as_mut_slice().fill(NO_NEIGHBOUR);
        Self {
            m,
            entry,
            max_level: levels[entry as usize],
            upper_index,
            level0,
            upper: vec![NO_NEIGHBOUR; lists as usize * m],
        }
    }

    /// Levels that a row has above level 0.
    pub(super) fn levels(&self, row: Ordinal) -> u32 {
        self.upper_index[row as usize + 1] - self.upper_index[row as usize]
    }

    /// The highest level that has an inserted row.
    pub(super) fn top(&self) -> u32 {
        self.max_level
    }

    /// Neighbours that a row chooses on each level when it is inserted; others come with the rows that choose it.
    pub(super) fn new_neighbours(&self) -> usize {
        self.m
    }

    /// Neighbours that a list of a level has at most when the graph is finished.
    pub(super) fn most_neighbours(&self, level: u32) -> usize {
        if level == 0 { 2 * self.m } else { self.m }
    }

    /// Places in a list of a level.
    pub(super) fn places(&self, level: u32) -> usize {
        if level == 0 { 2 * self.m + SPARE_PLACES } else { self.m }
    }

    /// The neighbours of a row, which is on the level.
    pub(super) fn neighbours(&self, row: Ordinal, level: u32) -> &[Ordinal] {
        let list = self.places_of(row, level);
        let used = list.iter().position(|&neighbour| neighbour == NO_NEIGHBOUR).unwrap_or(list.len());
        &list[..used]
    }

    /// Sets the neighbours of a row, which is on the level; no more than its places.
    pub(super) fn set(&mut self, row: Ordinal, level: u32, neighbours: impl Iterator<Item = Ordinal>) {
        let (start, places) = (self.start(row, level), self.places(level));
        let lists = if level == 0 { self.level0.as_mut_slice() } else { &mut self.upper };
        let (list, mut used) = (&mut lists[start..start + places], 0);
        for neighbour in neighbours {
            list[used] = neighbour;
            used += 1;
        }
        list[used..].fill(NO_NEIGHBOUR);
    }

    /// Lets walks begin at `row` where it has more levels than where they began before.
    pub(super) fn raise_entry(&mut self, row: Ordinal) {
        if self.levels(row) > self.max_level {
            (self.entry, self.max_level) = (row, self.levels(row));
        }
    }

    /// The finished graph: lists on level 0 cut back to the best.
    pub(super) fn finish(self, points: &Points<'_>) -> Graph {
        let m0 = self.most_neighbours(0);
        let mut level0 = vec![NO_NEIGHBOUR; points.rows() * m0];
        level0.par_chunks_exact_mut(m0).enumerate().for_each(|(row, list)| {
            let row = row as Ordinal;
            let neighbours = self.neighbours(row, 0);
            if neighbours.len() <= m0 {
                list[..neighbours.len()].copy_from_slice(neighbours);
                return;
            }
            for (place, near) in list.iter_mut().zip(select_among(points, row, neighbours, m0)) {
                *place = near.row;
            }
        });
        let Self { m, entry, max_level, upper_index, upper, .. } = self;
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

    fn places_of(&self, row: Ordinal, level: u32) -> &[u32] {
        let start = self.start(row, level);
        let lists = if level == 0 { self.level0.as_slice() } else { &self.upper };
        &lists[start..start + self.places(level)]
    }

    fn start(&self, row: Ordinal, level: u32) -> usize {
        match level {
            0 => row as usize * self.places(0),
            _ => (self.upper_index[row as usize] + level - 1) as usize * self.m,
        }
    }
}

impl Links for Growing {
    type Error = Infallible;

    fn rows(&self) -> u32 {
        (self.upper_index.len() - 1) as u32
    }

    fn entry(&self) -> Ordinal {
        self.entry
    }

    fn max_level(&self) -> u32 {
        self.max_level
    }

    #[inline]
    fn list(&self, ordinal: Ordinal, level: u32) -> Result<&[u32], Infallible> {
        Ok(self.places_of(ordinal, level))
    }

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        prefetch(self.places_of(ordinal, 0));
    }

    fn out_of_range(&self, ordinal: Ordinal, level: u32, neighbour: u32) -> Infallible {
        panic!("row {ordinal} is linked on level {level} to row {neighbour} of {}", self.rows());
    }
}
