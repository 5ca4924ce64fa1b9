//! Takes up a finished graph, without the rows that are left out, so that other rows can be inserted into it.

use rayon::prelude::*;

use super::growing::Growing;
use super::own::Start;
use super::points::Points;
use super::select::select_among;
use crate::segment::GraphView;
use crate::types::Ordinal;

/// The graph of `start` over its rows among the new ones, of which there is at least one; `levels` become theirs.
///
/// A row that loses neighbours gets the neighbours of the lost ones to choose from, so that paths through them stay
/// (the consolidation of FreshDiskANN, Singh et al. 2021).
pub(super) fn resume(points: &Points<'_>, start: &Start<'_>, levels: &mut [u32], m: usize) -> Growing {
    let graph = start.graph;
    let kept = || (0..graph.rows()).filter_map(|old| Some((old, start.rows[old as usize]?)));
    kept().for_each(|(old, new)| levels[new as usize] = graph.levels(old));
    let entry = start.rows[graph.entry as usize].or_else(|| {
        let highest = kept().max_by_key(|&(old, new)| (graph.levels(old), std::cmp::Reverse(new)));
        highest.map(|(_, new)| new)
    });
    let mut growing = Growing::new(levels, m, entry.expect("some row is kept"));
    let lists: Vec<(Ordinal, u32, Vec<Ordinal>)> = (0..graph.rows())
        .into_par_iter()
        .filter_map(|old| Some((old, start.rows[old as usize]?)))
        .flat_map_iter(|(old, new)| (0..=graph.levels(old)).map(move |level| (old, new, level)))
        .map(|(old, new, level)| (new, level, list_of(points, &graph, &start.rows, old, level)))
        .collect();
    for (row, level, list) in lists {
        growing.set(row, level, list.into_iter());
    }
    growing
}

/// The new rows that the old row `old` leads to.
fn list_of(
    points: &Points<'_>,
    graph: &GraphView<'_>,
    rows: &[Option<Ordinal>],
    old: Ordinal,
    level: u32,
) -> Vec<Ordinal> {
    let neighbours = graph.neighbours_on(old, level);
    let mut list: Vec<Ordinal> = neighbours.iter().filter_map(|&neighbour| rows[neighbour as usize]).collect();
    let Some(row) = rows[old as usize].filter(|_| list.len() < neighbours.len()) else { return list };
    for &lost in neighbours.iter().filter(|&&neighbour| rows[neighbour as usize].is_none()) {
        let beyond = graph.neighbours_on(lost, level).iter().filter_map(|&next| rows[next as usize]);
        list.extend(beyond.filter(|&next| next != row));
    }
    list.sort_unstable();
    list.dedup();
    select_among(points, row, &list, neighbours.len()).into_iter().map(|near| near.row).collect()
}
