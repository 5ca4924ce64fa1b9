//! Searches of one segment: the graph walk, the scan and the exact scan.
//!
//! A first pass finds candidates by the shortest form that the segment has of its rows; the best of them are compared
//! again by longer ones, and what is returned always by its vector. The rows that are compared and returned are
//! vectors: where the segment has chunks, [`Segment::owners`] says whose.

use super::bits::BitQuantizer;
use super::error::SegmentError;
use super::filtered_walk::{FilteredOptions, FilteredStats, walk_filtered};
use super::nibbles::NibbleQuantizer;
use super::pool::Candidate;
use super::quantize::Quantizer;
use super::reader::Segment;
use super::scan::{Keep, scan};
use super::scan_bits::bit_over_fetch;
use super::scratch::{Scratch, with_scratch};
use super::stored::StoredLinks;
use super::walk::{Rows, SearchStats, WalkOptions, walk};
use crate::distance::{VectorQuery, blocks_are_fast};
use crate::types::{Ordinal, RowSet};

/// Rows between the one compared and the one that the memory is asked for: enough for its latency, and few enough for
/// the misses that a core can hold in flight.
const ROWS_AHEAD: usize = 4;

/// Candidates of codes that are compared again in f32 for `top_k` results. 30 to 40 for 10 lose nothing that counts on
/// embeddings of sentences.
fn over_fetch(top_k: usize) -> usize {
    3 * top_k + 10
}

/// Candidates of nibbles that are compared again by codes for `top_k` results.
fn nibble_over_fetch(top_k: usize) -> usize {
    6 * top_k + 40
}

/// Up to this many candidates of nibbles are compared in f32 at once: reading codes first would leave out too few of
/// them to be worth it.
fn few(top_k: usize) -> usize {
    top_k + top_k.div_ceil(2) + 1
}

/// What rows are compared by at first.
enum By<'a> {
    Nibbles(&'a NibbleQuantizer, Quantizer),
    Codes(Quantizer),
    Bits(&'a BitQuantizer),
    Vectors,
}

/// What leaves candidates in the scratch's pool.
trait FirstPass {
    /// What it tells of how it went.
    type Done;

    /// Whether it chooses from all rows, so that it can keep as many as may count.
    const FROM_ALL: bool = false;

    /// `keep`: candidates wanted, where they are chosen from all.
    fn run<R: Rows<Error = SegmentError>>(
        self,
        rows: &R,
        keep: Keep,
        scratch: &mut Scratch,
    ) -> Result<Self::Done, SegmentError>;
}

impl Segment {
    /// Finds the `top_k` nearest rows for which `live` holds, approximately: by the graph, or by [`Segment::scan`]
    /// where the segment has none.
    ///
    /// `query`: of the segment's metric and dim. `out` is replaced by the candidates, nearest first, ties by ascending
    /// ordinal, compared in f32: their closeness is the [score](crate::distance::score). Rows that are not live are
    /// walked through and not returned; as long as `top_k` live rows exist, as many are returned.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] when a byte that is read is not what was written.
    ///
    /// # Panics
    /// When the query has another dim.
    pub fn search(
        &self,
        query: &VectorQuery,
        options: WalkOptions,
        live: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        let Some(graph) = self.header.graph else { return self.scan(query, options.top_k, live, out) };
        if options.top_k == 0 {
            out.clear();
            return Ok(SearchStats::default());
        }
        let pass = Walk { links: self.links(graph), ef: options.ef.max(options.top_k), live };
        let (stats, rescored) = self.answer(self.shortest(query)?, query, options.top_k, pass, out)?;
        Ok(SearchStats { rescored, ..stats })
    }

    /// Finds the `top_k` nearest of the `passing` rows, approximately, by walking from passing row to passing
    /// row. `seeds`: some of them, spread over the segment. `out` as for [`Segment::search`]; fewer than `top_k` are
    /// found where the walk does not reach more. `None` where the segment has no graph.
    ///
    /// # Errors
    /// As [`Segment::search`].
    ///
    /// # Panics
    /// When the query has another dim.
    pub fn search_filtered(
        &self,
        query: &VectorQuery,
        options: FilteredOptions,
        seeds: &[Ordinal],
        passing: &RowSet,
        out: &mut Vec<Candidate>,
    ) -> Result<Option<FilteredStats>, SegmentError> {
        let Some(graph) = self.header.graph else { return Ok(None) };
        seeds.iter().try_for_each(|&seed| self.check_vector(seed))?;
        let pass = FilteredWalk { links: self.links(graph), options, seeds, passing };
        let (mut done, rescored) = self.answer(self.shortest(query)?, query, options.top_k, pass, out)?;
        done.stats.rescored = rescored;
        Ok(Some(done))
    }

    /// Compares every row by the shortest form that the segment has of it, and the best for which `live` holds again in
    /// f32: where it has no graph, by bits. Otherwise as [`Segment::scan_rows`].
    ///
    /// # Errors
    /// As [`Segment::search`].
    ///
    /// # Panics
    /// When the query has another dim.
    pub fn scan(
        &self,
        query: &VectorQuery,
        top_k: usize,
        live: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        let keep = bit_over_fetch(top_k);
        let is_worth_it = top_k > 0 && keep < self.vector_count() as usize && blocks_are_fast() && !self.clips(query);
        let Some(bits) = self.scan_bits()?.filter(|_| is_worth_it) else {
            return self.scan_rows(query, top_k, 0..self.vector_count(), live, out);
        };
        self.check_query(query);
        let near = self.sift(bits, query, keep, live)?;
        let stats = self.scan_rows(query, top_k, near, |_| true, out)?;
        Ok(SearchStats { compared: u64::from(self.vector_count()), ..stats })
    }

    /// Whether the codes end before `query` does; see [`Quantizer::clips`].
    pub(super) fn clips(&self, query: &VectorQuery) -> bool {
        self.quantizer().is_some_and(|codes| codes.clips(query))
    }

    pub(super) fn check_query(&self, query: &VectorQuery) {
        let metric = self.header.spec.metric;
        assert_eq!((query.vector().len(), query.metric()), (self.dim(), metric), "dim and metric of the query");
    }

    /// Compares the rows `ordinals` by the shortest form that the segment has of them, and the best of them again in
    /// f32. Nearly exact: a row is lost only where rounding moved it by more than four standard deviations by int8
    /// codes, three by nibbles, however near to each other the rows are; by binary codes more are. Exact in a segment
    /// without codes, and for a query that its codes clip.
    ///
    /// `admit` is asked of the rows that are near enough to count, and leaves the others out: what it costs is paid for
    /// few rows.
    ///
    /// `out` is replaced by the `top_k` nearest, nearest first, ties by ascending ordinal where `ordinals` ascend.
    ///
    /// # Errors
    /// As [`Segment::search`]; [`SegmentError::NoSuchRow`] for an ordinal beyond the rows.
    ///
    /// # Panics
    /// When the query has another dim.
    pub fn scan_rows(
        &self,
        query: &VectorQuery,
        top_k: usize,
        ordinals: impl IntoIterator<Item = Ordinal>,
        admit: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        self.scan_by(self.shortest(query)?, query, top_k, ordinals, admit, out)
    }

    /// Compares every row for which `live` holds in f32: exact. See [`Segment::scan_rows_exact`].
    ///
    /// # Errors
    /// As [`Segment::search`].
    ///
    /// # Panics
    /// When the query has another dim.
    pub fn scan_exact(
        &self,
        query: &VectorQuery,
        top_k: usize,
        mut live: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        self.scan_rows_exact(query, top_k, (0..self.vector_count()).filter(|&row| live(row)), |_| true, out)
    }

    /// Compares the rows `ordinals` in f32: exact. `admit` and `out` as for
    /// [`Segment::scan_rows`].
    ///
    /// # Errors
    /// As [`Segment::scan_rows`].
    ///
    /// # Panics
    /// When the query has another dim.
    pub fn scan_rows_exact(
        &self,
        query: &VectorQuery,
        top_k: usize,
        ordinals: impl IntoIterator<Item = Ordinal>,
        admit: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        self.scan_by(By::Vectors, query, top_k, ordinals, admit, out)
    }

    #[expect(clippy::too_many_arguments, reason = "what is looked for, where, and by what")]
    fn scan_by(
        &self,
        by: By<'_>,
        query: &VectorQuery,
        top_k: usize,
        ordinals: impl IntoIterator<Item = Ordinal>,
        admit: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        if top_k == 0 {
            out.clear();
            return Ok(SearchStats::default());
        }
        let pass = Scan { segment: self, ordinals: ordinals.into_iter(), admit };
        let is_exact = matches!(by, By::Vectors);
        let answer = self.answer(by, query, top_k, pass, out);
        if is_exact {
            self.release();
        }
        let (stats, rescored) = answer?;
        Ok(SearchStats { rescored, ..stats })
    }

    /// The shortest form that the segment has of its rows and that tells what is near `query`.
    fn shortest(&self, query: &VectorQuery) -> Result<By<'_>, SegmentError> {
        if self.clips(query) {
            return Ok(By::Vectors);
        }
        if let Some(bits) = self.bit_quantizer()? {
            return Ok(By::Bits(bits));
        }
        Ok(match (self.nibble_quantizer()?, self.quantizer()) {
            (Some(nibbles), Some(codes)) => By::Nibbles(nibbles, codes),
            (None, Some(codes)) => By::Codes(codes),
            (_, None) => By::Vectors,
        })
    }

    /// Replaces `out` by the `top_k` nearest of what a first pass finds. Returns what that tells, and how many
    /// candidates were compared in f32 after it.
    fn answer<P: FirstPass>(
        &self,
        by: By<'_>,
        query: &VectorQuery,
        top_k: usize,
        pass: P,
        out: &mut Vec<Candidate>,
    ) -> Result<(P::Done, u64), SegmentError> {
        self.check_query(query);
        out.clear();
        let keep = |least: usize| Keep { wanted: top_k, least };
        with_scratch(|scratch| match by {
            By::Nibbles(nibbles, codes) => {
                let rows = self.nibble_rows(nibbles, query, scratch);
                let done = pass.run(&rows, keep(nibble_over_fetch(top_k)), scratch)?;
                let floor = rows.floor(top_k, scratch);
                scratch.nibbles = rows.query.into_codes();
                Ok((done, self.refine(codes, query, top_k, floor, P::FROM_ALL, scratch, out)?))
            }
            By::Codes(codes) => {
                let rows = self.code_rows(codes, query, scratch);
                let done = pass.run(&rows, keep(over_fetch(top_k)), scratch)?;
                let floor = rows.floor(top_k, scratch);
                scratch.codes = rows.query.into_codes();
                let candidates = if P::FROM_ALL { usize::MAX } else { over_fetch(top_k) };
                Ok((done, self.rescore(query, top_k, candidates, floor, scratch, out)?))
            }
            By::Bits(bits) => {
                // A walk keeps as many as were measured to suffice, and all are compared.
                let done = pass.run(&self.bit_rows(bits, query), keep(bit_over_fetch(top_k)), scratch)?;
                // Bits err by more than the candidates are apart: no bound on the error would spare any of them.
                Ok((done, self.rescore(query, top_k, usize::MAX, f32::NEG_INFINITY, scratch, out)?))
            }
            By::Vectors => {
                let done = pass.run(&self.full_rows(query), keep(top_k), scratch)?;
                out.extend(scratch.pool.nearest(usize::MAX));
                finish(out, top_k);
                Ok((done, 0))
            }
        })
    }

    /// Compares the best of the scratch's pool, none below `floor`, again: by codes, where that saves reading vectors,
    /// and the best of these in f32. Returns how many in f32. `from_all`: the pool holds all that may count, and none
    /// of it is left out but by what rounding allows.
    #[expect(clippy::too_many_arguments, reason = "the state of one pass")]
    fn refine(
        &self,
        codes: Quantizer,
        query: &VectorQuery,
        top_k: usize,
        floor: f32,
        from_all: bool,
        scratch: &mut Scratch,
        out: &mut Vec<Candidate>,
    ) -> Result<u64, SegmentError> {
        let most = |candidates: usize| if from_all { usize::MAX } else { candidates };
        if self.apart.is_some() {
            // Codes are not kept in memory for what they would spare.
            return self.rescore(query, top_k, most(nibble_over_fetch(top_k)), floor, scratch, out);
        }
        let best = scratch.pool.nearest(most(nibble_over_fetch(top_k)));
        scratch.batch.clear();
        scratch.batch.extend(best.take_while(|candidate| candidate.closeness >= floor).map(|near| near.ordinal));
        if scratch.batch.len() <= few(top_k) {
            return self.rescore(query, top_k, over_fetch(top_k), floor, scratch, out);
        }
        let kept = most(over_fetch(top_k)).min(scratch.batch.len());
        let rows = self.code_rows(codes, query, scratch);
        scratch.batch.iter().for_each(|&ordinal| rows.prefetch(ordinal));
        let compared = rows.compare(&scratch.batch, &mut scratch.closeness);
        scratch.sieve.reset(kept);
        if compared.is_ok() {
            for (&ordinal, &closeness) in scratch.batch.iter().zip(&scratch.closeness) {
                if scratch.sieve.admits(closeness) {
                    scratch.sieve.insert(Candidate { closeness, ordinal });
                }
            }
        }
        scratch.pool.fill(kept, scratch.sieve.nearest_in_order());
        let floor = rows.floor(top_k, scratch);
        scratch.codes = rows.query.into_codes();
        compared?;
        self.rescore(query, top_k, kept, floor, scratch, out)
    }

    /// Compares the `candidates` best of the scratch's pool, none below `floor`, again by their vectors. Returns how
    /// many.
    #[expect(clippy::too_many_arguments, reason = "the state of one pass")]
    fn rescore(
        &self,
        query: &VectorQuery,
        top_k: usize,
        candidates: usize,
        floor: f32,
        scratch: &mut Scratch,
        out: &mut Vec<Candidate>,
    ) -> Result<u64, SegmentError> {
        let best = || scratch.pool.nearest(candidates).take_while(|candidate| candidate.closeness >= floor);
        if let Some(file) = &self.apart {
            for candidate in best() {
                let vector = self.read_vector(file, candidate.ordinal, &mut scratch.row)?;
                out.push(Candidate { closeness: query.score_of(vector), ..candidate });
            }
            let rescored = out.len() as u64;
            finish(out, top_k);
            return Ok(rescored);
        }
        let rows = self.full_rows(query);
        best().take(ROWS_AHEAD).for_each(|candidate| rows.prefetch(candidate.ordinal));
        let mut ahead = best().skip(ROWS_AHEAD);
        for candidate in best() {
            if let Some(ahead) = ahead.next() {
                rows.prefetch(ahead.ordinal);
            }
            let closeness = rows.closeness(candidate.ordinal)?;
            out.push(Candidate { closeness, ..candidate });
        }
        let rescored = out.len() as u64;
        finish(out, top_k);
        Ok(rescored)
    }
}

/// Nearest first, ties by ascending ordinal, at most `top_k`.
fn finish(out: &mut Vec<Candidate>, top_k: usize) {
    out.sort_unstable_by(|a, b| b.closeness.total_cmp(&a.closeness).then(a.ordinal.cmp(&b.ordinal)));
    out.truncate(top_k);
}

/// See [`walk`].
struct Walk<'a, F> {
    links: StoredLinks<'a>,
    ef: usize,
    live: F,
}

impl<F: FnMut(Ordinal) -> bool> FirstPass for Walk<'_, F> {
    type Done = SearchStats;

    fn run<R: Rows<Error = SegmentError>>(
        self,
        rows: &R,
        _: Keep,
        scratch: &mut Scratch,
    ) -> Result<SearchStats, SegmentError> {
        walk(&self.links, rows, self.ef, self.live, scratch)
    }
}

/// See [`walk_filtered`].
struct FilteredWalk<'a> {
    links: StoredLinks<'a>,
    options: FilteredOptions,
    seeds: &'a [Ordinal],
    passing: &'a RowSet,
}

impl FirstPass for FilteredWalk<'_> {
    type Done = FilteredStats;

    fn run<R: Rows<Error = SegmentError>>(
        self,
        rows: &R,
        _: Keep,
        scratch: &mut Scratch,
    ) -> Result<FilteredStats, SegmentError> {
        let walked = walk_filtered(&self.links, rows, self.options, self.seeds, self.passing, scratch)?;
        if !walked.finished {
            // What an unfinished walk met is not the nearest.
            scratch.pool.reset(1);
        }
        Ok(walked)
    }
}

/// See [`scan`].
struct Scan<'a, I, F> {
    segment: &'a Segment,
    ordinals: I,
    admit: F,
}

impl<I: Iterator<Item = Ordinal>, F: FnMut(Ordinal) -> bool> FirstPass for Scan<'_, I, F> {
    type Done = SearchStats;

    const FROM_ALL: bool = true;

    fn run<R: Rows<Error = SegmentError>>(
        self,
        rows: &R,
        keep: Keep,
        scratch: &mut Scratch,
    ) -> Result<SearchStats, SegmentError> {
        scan(rows, keep, self.ordinals, |ordinal| self.segment.check_vector(ordinal), self.admit, scratch)
    }
}
