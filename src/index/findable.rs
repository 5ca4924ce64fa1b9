//! Makes every row of a graph findable: a walk of the default effort for its own vector finds it.
//!
//! Builders choose links by distances between rows, and drop the farthest when a list is full. Among near-duplicates,
//! whose codes are nearly one, no link may be left that leads to an outlier, and a walk ends as soon as its pool is
//! full of rows that are equally far. Here every row is searched for as searches of the finished segment will, and rows
//! that these miss are linked from where they end.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::IndexError;
use super::params::least_ef;
use super::repair::connect;
use crate::segment::{CALIBRATED_EF, Graph, NO_NEIGHBOUR, Rows, walk_without};
use crate::types::Ordinal;

/// Links that a row gets each time that it was looked for and not found.
const NEW_LINKS: usize = 6;
/// Links to rows that more than so many others lead to go first.
const MANY_LINKS: u32 = 8;
/// Rows that a search ended with and that a link is set from, if their lists have a place for it.
const ENDS: usize = 64;
/// Times in a row that all rows are searched for and no fewer are lost than before, until more effort is asked for.
const PATIENCE: u32 = 4;
/// Times that all rows are searched for at most.
const MAX_ROUNDS: usize = 40;
/// Searches that one task makes, so that threads share work in pieces worth sharing.
const MIN_SEARCHES: usize = 64;

/// Mends level 0 of `graph`, which is strongly connected and stays so. Where links alone do not suffice, the
/// calibration becomes one that asks for more effort. `seen`: the rows as a search for the vector of one of them sees
/// them. `distance`: between two rows. Returns for how many rows links were set.
///
/// Searches in parallel on the threads of the current rayon pool; the result does not depend on their number.
///
/// # Errors
/// [`IndexError::Cancelled`] soon after `cancel` is true.
pub(super) fn mend<R: Rows<Error = Infallible>>(
    graph: &mut Graph,
    seen: impl Fn(Ordinal) -> R + Sync,
    distance: impl Fn(Ordinal, Ordinal) -> f32,
    cancel: &AtomicBool,
) -> Result<usize, IndexError> {
    let (mut set, mut mended, mut rounds) = (HashSet::new(), 0, 0);
    let order = side_by_side(graph);
    loop {
        let (ef, mut least_lost, mut rounds_left) = (least_ef(graph), usize::MAX, PATIENCE);
        while rounds_left > 0 {
            let lost = lost_rows(graph, ef, &order, &seen, cancel);
            if cancel.load(Ordering::Relaxed) {
                return Err(IndexError::Cancelled);
            }
            rounds += 1;
            if lost.is_empty() || rounds == MAX_ROUNDS {
                return Ok(mended);
            }
            rounds_left = if lost.len() < least_lost { PATIENCE } else { rounds_left - 1 };
            least_lost = least_lost.min(lost.len());
            let mut lists = Lists::new(graph, &mut set);
            lost.iter().for_each(|lost| lists.link(lost));
            mended += lost.len();
            mended += connect(graph, &distance, |place| set.contains(&place), cancel)?;
        }
        // The walks meet too few rows: their lists have no place for links to every row that only they lead to. A
        // larger `ef` meets more.
        if !ask_for_more(graph) {
            return Ok(mended);
        }
    }
}

/// Raises the default effort of searches; returns false where none greater was measured.
fn ask_for_more(graph: &mut Graph) -> bool {
    let ef = least_ef(graph);
    for more in CALIBRATED_EF.into_iter().filter(|&more| more > ef) {
        graph.calibration = graph.calibration.only_from(more);
        if least_ef(graph) > ef {
            return true;
        }
    }
    false
}

/// A row that is not found, and where the search for it ended.
struct Lost {
    row: Ordinal,
    ends: Vec<Ordinal>,
}

/// All rows, each beside one that it is linked with as far as can be: searches for them, made in this order, read what
/// the ones before have brought to the processor's caches.
fn side_by_side(graph: &Graph) -> Vec<Ordinal> {
    let view = graph.view();
    let (mut order, mut met) = (Vec::with_capacity(view.rows() as usize), vec![false; view.rows() as usize]);
    let mut waiting: Vec<Ordinal> = (0..view.rows()).chain([graph.entry]).collect();
    while let Some(row) = waiting.pop() {
        if !std::mem::replace(&mut met[row as usize], true) {
            order.push(row);
            // The first of a list is most often the nearest, and comes next.
            waiting.extend(view.neighbours(row).iter().rev().filter(|&&neighbour| !met[neighbour as usize]));
        }
    }
    order
}

/// The rows of `order`, which are all, that are not found, in ascending order; some of them where it was cancelled.
fn lost_rows<R: Rows<Error = Infallible>>(
    graph: &Graph,
    ef: usize,
    order: &[Ordinal],
    seen: &(impl Fn(Ordinal) -> R + Sync),
    cancel: &AtomicBool,
) -> Vec<Lost> {
    let view = graph.view();
    let mut lost: Vec<Lost> = order
        .par_iter()
        .with_min_len(MIN_SEARCHES)
        .filter(|_| !cancel.load(Ordering::Relaxed))
        .filter_map(|&row| {
            let Ok(met) = walk_without(&view, &seen(row), ef, row);
            met.map(|met| Lost { row, ends: met.iter().take(ENDS).map(|near| near.ordinal).collect() })
        })
        .collect();
    lost.sort_unstable_by_key(|lost| lost.row);
    lost
}

/// The lists of level 0, and which of their links must stay.
struct Lists<'a> {
    graph: &'a mut Graph,
    /// Places of links set here.
    set: &'a mut HashSet<usize>,
    /// By row: links that lead to it.
    links_to: Vec<u32>,
}

impl<'a> Lists<'a> {
    fn new(graph: &'a mut Graph, set: &'a mut HashSet<usize>) -> Self {
        let mut links_to = vec![0u32; graph.upper_index.len() - 1];
        let used = graph.level0.iter().filter(|&&to| to != NO_NEIGHBOUR);
        used.for_each(|&to| links_to[to as usize] += 1);
        Self { graph, set, links_to }
    }

    /// Links a row from the first rows that the search for it ended with and that have a place. Where links set here
    /// take up all places, it gets one from the row that another has most links of.
    fn link(&mut self, lost: &Lost) {
        let mut links = 0;
        for &from in &lost.ends {
            let Some(place) = self.place(from, |place| !self.set.contains(&place)) else { continue };
            links += usize::from(self.set_link(from, place, lost.row));
            if links == NEW_LINKS {
                return;
            }
        }
        if links == 0 {
            let places = lost.ends.iter().filter_map(|&from| Some((from, self.place(from, |_| true)?)));
            let best = places.max_by_key(|&(_, place)| self.links_beside(place));
            if let Some((from, place)) = best {
                self.set_link(from, place, lost.row);
            }
        }
    }

    /// Returns whether the link is new.
    fn set_link(&mut self, from: Ordinal, place: usize, to: Ordinal) -> bool {
        if from == to || self.graph.view().neighbours(from).contains(&to) {
            return false;
        }
        if let Some(count) = self.links_to.get_mut(self.graph.level0[place] as usize) {
            *count -= 1;
        }
        self.links_to[to as usize] += 1;
        self.graph.level0[place] = to;
        self.set.insert(place);
        true
    }

    /// Links that lead where the one at a place does; none where the place is free.
    fn links_beside(&self, place: usize) -> u32 {
        self.links_to.get(self.graph.level0[place] as usize).copied().unwrap_or(0)
    }

    /// Where in `level0` a link from `row` can be set: a free place, or that of a link that `can_go` and is missed
    /// least. Many links lead to the same row, and best a neighbour that stays leads to it too.
    fn place(&self, row: Ordinal, can_go: impl Fn(usize) -> bool) -> Option<usize> {
        let view = self.graph.view();
        let m0 = 2 * self.graph.m as usize;
        let start = row as usize * m0;
        let list = &self.graph.level0[start..start + m0];
        if let Some(free) = list.iter().position(|&neighbour| neighbour == NO_NEIGHBOUR) {
            return Some(start + free);
        }
        let detour = |to: Ordinal| list.iter().any(|&by| view.neighbours(by).contains(&to));
        let places = (start..start + m0).filter(|&place| self.links_beside(place) > 1 && can_go(place));
        let ranked = places.map(|place| {
            let links = self.links_beside(place);
            (links > MANY_LINKS, detour(self.graph.level0[place]), links, place)
        });
        ranked.max().map(|(.., place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Calibration;

    const CROWD: u32 = 300;
    static NEVER: AtomicBool = AtomicBool::new(false);

    /// 300 rows crowd at the beginning of a line, each linked to those beside it; one far row is linked from the last
    /// of them only, which a walk from the first does not meet before its pool is full.
    fn line(calibration: Calibration) -> Graph {
        let mut level0 = vec![NO_NEIGHBOUR; (CROWD as usize + 1) * 4];
        for (row, list) in (0..=CROWD).zip(level0.chunks_exact_mut(4)) {
            let beside = [row.checked_sub(1), (row < CROWD).then_some(row + 1)];
            beside.into_iter().flatten().zip(list).for_each(|(to, place)| *place = to);
        }
        let upper_index = vec![0; CROWD as usize + 2];
        Graph { entry: 0, max_level: 0, m: 2, level0, upper_index, upper: Vec::new(), nibbles: false, calibration }
    }

    fn distance(a: Ordinal, b: Ordinal) -> f32 {
        let at = |row: Ordinal| if row == CROWD { 1e6 } else { (row % 7) as f32 };
        if a == b { 0.0 } else { (at(a) - at(b)).abs().max(1.0) }
    }

    struct Seen(Ordinal);

    impl Rows for Seen {
        type Error = Infallible;

        fn prefetch(&self, _: Ordinal) {}

        fn closeness(&self, ordinal: Ordinal) -> Result<f32, Infallible> {
            Ok(-distance(self.0, ordinal))
        }
    }

    #[test]
    fn rows_that_walks_miss_are_linked_from_where_these_end() {
        let mut line = line(Calibration::measured([1.0; CALIBRATED_EF.len()]));
        let finds = |graph: &Graph| walk_without(&graph.view(), &Seen(CROWD), least_ef(graph), CROWD) == Ok(None);
        assert!(!finds(&line));
        let before = line.level0.clone();
        assert!(mend(&mut line, Seen, distance, &NEVER).unwrap() > 0);
        assert!(finds(&line) && lost_rows(&line, least_ef(&line), &side_by_side(&line), &Seen, &NEVER).is_empty());
        let mended = line.clone();
        assert_eq!(mend(&mut line, Seen, distance, &NEVER).unwrap(), 0, "what is whole stays as it is");
        assert!(line == mended && line.level0 != before);
        let cancelled = mend(&mut line, Seen, distance, &AtomicBool::new(true));
        assert!(matches!(cancelled, Err(IndexError::Cancelled)));
    }

    #[test]
    fn rows_are_searched_for_once_each_and_mostly_after_a_neighbour() {
        let line = line(Calibration::default());
        let order = side_by_side(&line);
        let linked = order.windows(2).filter(|pair| line.view().neighbours(pair[0]).contains(&pair[1])).count();
        assert!(order[0] == line.entry && 2 * linked > order.len(), "{linked} of {order:?}");
        let mut rows = order;
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..line.view().rows()));
    }

    #[test]
    fn more_effort_is_asked_for_while_there_is_more() {
        let mut line = line(Calibration::measured([1.0; CALIBRATED_EF.len()]));
        let mut efforts = vec![least_ef(&line)];
        while ask_for_more(&mut line) {
            efforts.push(least_ef(&line));
        }
        assert!(efforts.is_sorted_by(|a, b| a < b) && efforts.len() <= CALIBRATED_EF.len(), "{efforts:?}");
        assert!(efforts[0] == 10 && efforts[efforts.len() - 1] > 256);
        let mut unmeasured = self::line(Calibration::default());
        assert!(!ask_for_more(&mut unmeasured));
    }
}
