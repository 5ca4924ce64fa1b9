//! Which segments to merge, when, and whose graph is taken over: pure functions of their sizes.
//!
//! A sealed memtable becomes a segment without a graph, which is scanned. When such segments hold
//! [`GRAPH_ROWS`] rows together they are merged, with every graph segment that is not larger than what is being merged
//! (the logarithmic method: a row is merged again O(log n) times), and the result gets a graph.

use crate::types::SegmentId;

/// Rows in segments without a graph that start a merge which builds one. Scanning as many int8 codes takes less than
/// half a millisecond.
pub const GRAPH_ROWS: u64 = 8_192;
/// A segment of which more than this share of rows is dead is written again; so are small ones where this share of all
/// rows is dead.
const DEAD_SHARE: f64 = 0.3;
/// Segments of fewer rows are not written again for their dead rows alone.
const REWRITE_ROWS: u64 = 1_024;
/// More scanned segments than this are merged even though they are small.
const MAX_SCANNED: usize = 8;

/// A graph is taken over where it holds at least this share of the merged rows.
const MIN_START_SHARE: f64 = 0.1;
/// A graph is taken over where at least this share of its rows is alive: mending more would cost links of quality.
const MIN_LIVE_SHARE: f64 = 0.8;

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The segment.
    pub id: SegmentId,
    /// Rows in it.
    pub rows: u64,
    /// Of them dead.
    pub dead: u64,
    /// Whether it has a graph.
    pub has_graph: bool,
}

impl Candidate {
    fn live(&self) -> u64 {
        self.rows - self.dead
    }
}

/// A merge to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergePlan {
    /// The segments to merge, by ascending number.
    pub inputs: Vec<SegmentId>,
    /// Whether the result gets a graph.
    pub with_graph: bool,
}

/// The next merge, if one is due.
pub fn due(candidates: &[Candidate]) -> Option<MergePlan> {
    let scanned: Vec<_> = candidates.iter().filter(|c| !c.has_graph).copied().collect();
    let scanned_rows: u64 = scanned.iter().map(Candidate::live).sum();
    if scanned_rows >= GRAPH_ROWS {
        return Some(plan(with_smaller_graphs(scanned, candidates), true));
    }
    if scanned.len() > MAX_SCANNED {
        return Some(plan(scanned, false));
    }
    let mostly_dead = |c: &&Candidate| {
        c.dead == c.rows && c.rows > 0 || c.rows >= REWRITE_ROWS && c.dead as f64 > DEAD_SHARE * c.rows as f64
    };
    if let Some(rewritten) = candidates.iter().find(mostly_dead) {
        return Some(plan(vec![*rewritten], rewritten.has_graph && rewritten.live() >= GRAPH_ROWS));
    }
    let (rows, dead) = candidates.iter().fold((0, 0), |(rows, dead), c| (rows + c.rows, dead + c.dead));
    // Each too small to be written again alone, and together what a small store is mostly made of.
    let is_small = |c: &&Candidate| c.dead > 0 && (!c.has_graph || c.rows < REWRITE_ROWS);
    let small: Vec<_> = candidates.iter().filter(is_small).copied().collect();
    (dead as f64 > DEAD_SHARE * rows as f64 && !small.is_empty()).then(|| plan(small, false))
}

/// Everything into one segment with a graph, if that is not how it stands already.
pub fn full(candidates: &[Candidate]) -> Option<MergePlan> {
    match candidates {
        [] => None,
        [only] if only.has_graph && only.dead == 0 => None,
        all => Some(plan(all.to_vec(), true)),
    }
}

/// The place of the input whose graph is taken over, for the rows of the others to be inserted into it: the largest
/// that is worth it.
pub fn start(inputs: &[Candidate]) -> Option<usize> {
    let merged: u64 = inputs.iter().map(Candidate::live).sum();
    let is_worth_it = |c: &Candidate| {
        let live = c.live() as f64;
        c.has_graph && live >= MIN_START_SHARE * merged as f64 && live >= MIN_LIVE_SHARE * c.rows as f64
    };
    (0..inputs.len()).filter(|&at| is_worth_it(&inputs[at])).max_by_key(|&at| inputs[at].live())
}

fn with_smaller_graphs(mut chosen: Vec<Candidate>, candidates: &[Candidate]) -> Vec<Candidate> {
    let mut graphs: Vec<_> = candidates.iter().filter(|c| c.has_graph).copied().collect();
    graphs.sort_by_key(Candidate::live);
    let mut rows: u64 = chosen.iter().map(Candidate::live).sum();
    for graph in graphs {
        if graph.live() > rows {
            break;
        }
        rows += graph.live();
        chosen.push(graph);
    }
    chosen
}

fn plan(chosen: Vec<Candidate>, with_graph: bool) -> MergePlan {
    let mut inputs: Vec<_> = chosen.into_iter().map(|c| c.id).collect();
    inputs.sort();
    MergePlan { inputs, with_graph }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u64, rows: u64, dead: u64, has_graph: bool) -> Candidate {
        Candidate { id: SegmentId(id), rows, dead, has_graph }
    }

    fn ids(plan: &MergePlan) -> Vec<u64> {
        plan.inputs.iter().map(|s| s.0).collect()
    }

    #[test]
    fn few_small_segments_are_left_alone() {
        assert_eq!(due(&[]), None);
        assert_eq!(due(&[candidate(1, 100_000, 10, true), candidate(2, 500, 0, false)]), None);
    }

    #[test]
    fn enough_scanned_rows_take_the_smaller_graphs_along() {
        let plan = due(&[
            candidate(1, 100_000, 0, true),
            candidate(2, 9_000, 0, true),
            candidate(3, 6_000, 0, false),
            candidate(4, 6_000, 0, false),
        ]);
        let plan = plan.unwrap();
        assert_eq!((ids(&plan), plan.with_graph), (vec![2, 3, 4], true));
    }

    #[test]
    fn each_row_is_merged_a_logarithmic_number_of_times() {
        let mut segments: Vec<Candidate> = Vec::new();
        let (mut next, mut merged_rows) = (1, 0);
        let sealed = 128;
        for _ in 0..sealed {
            segments.push(candidate(next, GRAPH_ROWS, 0, false));
            next += 1;
            while let Some(plan) = due(&segments) {
                let (chosen, rest): (Vec<_>, Vec<_>) = segments.into_iter().partition(|c| plan.inputs.contains(&c.id));
                let rows = chosen.iter().map(|c| c.rows).sum();
                merged_rows += rows;
                segments = rest;
                segments.push(candidate(next, rows, 0, plan.with_graph));
                next += 1;
            }
        }
        assert!(merged_rows <= GRAPH_ROWS * sealed * 8, "{merged_rows}");
        assert!(segments.len() <= 8, "{}", segments.len());
    }

    #[test]
    fn dead_rows_are_written_out() {
        assert_eq!(due(&[candidate(1, 2_000, 700, false)]).map(|p| ids(&p)), Some(vec![1]));
        assert_eq!(due(&[candidate(1, 3, 3, false)]).map(|p| p.with_graph), Some(false));
        assert_eq!(due(&[candidate(1, 2_000, 500, false)]), None);
        let small = [candidate(1, 700, 600, false), candidate(2, 700, 0, false), candidate(3, 500, 100, false)];
        assert_eq!(due(&small).map(|p| ids(&p)), Some(vec![1, 3]), "more than a share of all rows is dead");
        assert_eq!(due(&[candidate(1, 700, 600, false), candidate(2, 9_000, 0, true)]), None);
        let with_graph = [candidate(1, 1_000, 900, true), candidate(2, 700, 0, false)];
        assert_eq!(
            due(&with_graph).map(|p| (ids(&p), p.with_graph)),
            Some((vec![1], false)),
            "a small one has a graph"
        );
    }

    #[test]
    fn the_largest_graph_is_taken_over_unless_it_is_small_or_mostly_dead() {
        let rest = candidate(1, 80_000, 0, false);
        assert_eq!(start(&[rest, candidate(2, 10_000, 0, true), candidate(3, 17_000, 0, true)]), Some(2));
        assert_eq!(start(&[candidate(3, 17_000, 0, true), rest, candidate(2, 16_000, 0, true)]), Some(0));
        assert_eq!(start(&[rest, candidate(2, 20_000, 5_000, true), candidate(3, 14_000, 0, true)]), Some(2));
        assert_eq!(start(&[rest, candidate(2, 8_000, 0, true)]), None);
        assert_eq!(start(&[rest]), None);
    }

    #[test]
    fn full_ends_in_one_clean_graph() {
        assert_eq!(full(&[]), None);
        assert_eq!(full(&[candidate(1, 10, 0, true)]), None);
        assert_eq!(full(&[candidate(1, 10, 1, true)]).map(|p| ids(&p)), Some(vec![1]));
    }
}
