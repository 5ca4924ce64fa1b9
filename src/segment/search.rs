//! Searches of one segment: the graph walk, the scan over codes and the exact scan.

use super::error::SegmentError;
use super::filtered_walk::{FilteredOptions, FilteredStats, walk_filtered};
use super::format::{GraphHeader, Section};
use super::graph::{level0_range, upper_range};
use super::pool::Candidate;
use super::quantize::{Quantizer, stride};
use super::reader::{SectionView, Segment, VectorsView, row_range};
use super::scratch::{Scratch, with_scratch};
use super::walk::{Links, Rows, SearchStats, WalkOptions, walk};
use crate::distance::{CodeQuery, VectorQuery, prefetch};
use crate::types::Ordinal;

/// Rows that a scan compares at once, while as many are fetched.
const SCAN_BATCH: usize = 8;
/// Rows between the one compared and the one that the memory is asked for: enough for its latency, and few enough for
/// the misses that a core can hold in flight.
const ROWS_AHEAD: usize = 4;

/// Standard deviations of rounding that a candidate is allowed to seem too far: one in 30,000 is farther.
const ROUNDING_ERRORS: f32 = 4.0;

/// Candidates of codes that are compared again in f32 for `top_k` results. 30 to 40 for 10 lose nothing that counts on
/// embeddings of sentences.
fn over_fetch(top_k: usize) -> usize {
    3 * top_k + 10
}

impl Segment {
    /// Finds the `top_k` nearest rows for which `live` holds, approximately: by the graph, or by [`Segment::scan`] where
    /// the segment has none.
    ///
    /// `query`: of the segment's metric and dim. `out` is replaced by the candidates, nearest first, ties by ascending
    /// ordinal, compared in f32. Rows that are not live are walked through and not returned; as long as `top_k` live
    /// rows exist, as many are returned.
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
        self.check_query(query);
        out.clear();
        if options.top_k == 0 {
            return Ok(SearchStats::default());
        }
        if self.has_bits() {
            return self.search_bits(graph, query, options, live, out);
        }
        let links = self.links(graph);
        let ef = options.ef.max(options.top_k);
        with_scratch(|scratch| match self.quantizer() {
            Some(quantizer) => {
                let rows = self.code_rows(quantizer, query, scratch);
                let result = walk(&links, &rows, ef, live, scratch);
                let floor = rows.rescoring_floor(options.top_k, scratch);
                scratch.codes = rows.query.into_codes();
                let stats = result?;
                Ok(SearchStats {
                    rescored: self.rescore(query, options.top_k, over_fetch(options.top_k), floor, scratch, out)?,
                    ..stats
                })
            }
            None => {
                let stats = walk(&links, &self.full_rows(query), ef, live, scratch)?;
                out.extend(scratch.pool.nearest(usize::MAX));
                finish(out, options.top_k);
                Ok(stats)
            }
        })
    }

    /// Finds the `top_k` nearest rows for which `passes` holds, approximately, by walking from passing row to passing
    /// row. `seeds`: some passing rows, spread over the segment. `out` as for [`Segment::search`]; fewer than `top_k` are
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
        passes: impl Fn(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<Option<FilteredStats>, SegmentError> {
        let Some(graph) = self.header.graph else { return Ok(None) };
        self.check_query(query);
        seeds.iter().try_for_each(|&seed| self.check_row(seed))?;
        out.clear();
        if self.has_bits() {
            return self.search_bits_filtered(graph, query, options, seeds, &passes, out).map(Some);
        }
        let links = self.links(graph);
        with_scratch(|scratch| match self.quantizer() {
            Some(quantizer) => {
                let rows = self.code_rows(quantizer, query, scratch);
                let walked = walk_filtered(&links, &rows, options, seeds, &passes, scratch);
                let floor = rows.rescoring_floor(options.top_k, scratch);
                scratch.codes = rows.query.into_codes();
                let FilteredStats { mut stats, finished } = walked?;
                if finished {
                    stats.rescored =
                        self.rescore(query, options.top_k, over_fetch(options.top_k), floor, scratch, out)?;
                }
                Ok(Some(FilteredStats { stats, finished }))
            }
            None => {
                let rows = self.full_rows(query);
                let walked = walk_filtered(&links, &rows, options, seeds, &passes, scratch)?;
                out.extend(scratch.pool.nearest(usize::MAX));
                finish(out, options.top_k);
                Ok(Some(walked))
            }
        })
    }

    /// Compares every row for which `live` holds, by codes first and the best in f32; see [`Segment::scan_rows`].
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
        mut live: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        self.scan_rows(query, top_k, (0..self.rows()).filter(|&row| live(row)), |_| true, out)
    }

    /// Compares the rows `ordinals` by their codes and the best of them again in f32. Nearly exact: a row is lost only
    /// where its code makes it look worse than three times `top_k` others. Exact in a segment without codes.
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
        self.check_query(query);
        out.clear();
        if top_k == 0 {
            return Ok(SearchStats::default());
        }
        if self.has_bits() {
            return self.scan_bits(query, top_k, ordinals, admit, out);
        }
        let Some(quantizer) = self.quantizer() else { return self.scan_rows_exact(query, top_k, ordinals, admit, out) };
        with_scratch(|scratch| {
            let rows = self.code_rows(quantizer, query, scratch);
            let result = self.compare_all(&rows, over_fetch(top_k), ordinals, admit, scratch);
            let floor = rows.rescoring_floor(top_k, scratch);
            scratch.codes = rows.query.into_codes();
            let stats = result?;
            Ok(SearchStats { rescored: self.rescore(query, top_k, over_fetch(top_k), floor, scratch, out)?, ..stats })
        })
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
        self.scan_rows_exact(query, top_k, (0..self.rows()).filter(|&row| live(row)), |_| true, out)
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
        self.check_query(query);
        out.clear();
        if top_k == 0 {
            return Ok(SearchStats::default());
        }
        with_scratch(|scratch| {
            let stats = self.compare_all(&self.full_rows(query), top_k, ordinals, admit, scratch)?;
            out.extend(scratch.pool.nearest(top_k));
            Ok(stats)
        })
    }

    /// Leaves the `capacity` nearest of `ordinals` that are admitted in the scratch's pool.
    pub(super) fn compare_all(
        &self,
        rows: &impl Rows<Error = SegmentError>,
        capacity: usize,
        ordinals: impl IntoIterator<Item = Ordinal>,
        mut admit: impl FnMut(Ordinal) -> bool,
        scratch: &mut Scratch,
    ) -> Result<SearchStats, SegmentError> {
        let mut stats = SearchStats::default();
        let mut ordinals = ordinals.into_iter();
        scratch.pool.reset(capacity);
        self.next_batch(rows, &mut ordinals, &mut scratch.batch)?;
        while !scratch.batch.is_empty() {
            // The rows to come are fetched while these are compared.
            self.next_batch(rows, &mut ordinals, &mut scratch.through)?;
            stats.compared += scratch.batch.len() as u64;
            rows.compare(&scratch.batch, &mut scratch.closeness)?;
            for (&ordinal, &closeness) in scratch.batch.iter().zip(&scratch.closeness) {
                if scratch.pool.admits(closeness) && admit(ordinal) {
                    scratch.pool.insert(Candidate { closeness, ordinal });
                }
            }
            std::mem::swap(&mut scratch.batch, &mut scratch.through);
        }
        Ok(stats)
    }

    /// Replaces `batch` by the next of `ordinals`, and asks the memory for their rows.
    fn next_batch(
        &self,
        rows: &impl Rows<Error = SegmentError>,
        ordinals: &mut impl Iterator<Item = Ordinal>,
        batch: &mut Vec<Ordinal>,
    ) -> Result<(), SegmentError> {
        batch.clear();
        for ordinal in ordinals.take(SCAN_BATCH) {
            self.check_row(ordinal)?;
            rows.prefetch(ordinal);
            batch.push(ordinal);
        }
        Ok(())
    }

    /// Compares the `candidates` best of the scratch's pool, none below `floor`, again by their vectors. Returns how many.
    pub(super) fn rescore(
        &self,
        query: &VectorQuery,
        top_k: usize,
        candidates: usize,
        floor: f32,
        scratch: &Scratch,
        out: &mut Vec<Candidate>,
    ) -> Result<u64, SegmentError> {
        let rows = self.full_rows(query);
        let best = || scratch.pool.nearest(candidates).take_while(|candidate| candidate.closeness >= floor);
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

    fn code_rows(&self, quantizer: Quantizer, query: &VectorQuery, scratch: &mut Scratch) -> CodeRows<'_> {
        let query = quantizer.query(query, std::mem::take(&mut scratch.codes));
        CodeRows { codes: self.section(Section::Codes), query, stride: stride(self.header.spec.dim) }
    }

    fn full_rows<'a>(&'a self, query: &'a VectorQuery) -> FullRows<'a> {
        FullRows { vectors: self.vectors(), query, dim: self.dim() }
    }

    pub(super) fn links(&self, graph: GraphHeader) -> StoredLinks<'_> {
        StoredLinks {
            segment: self,
            graph,
            m: self.spec().index.m,
            level0: self.section(Section::Level0),
            upper_index: self.section(Section::UpperIndex),
            upper: self.section(Section::Upper),
        }
    }

    fn check_query(&self, query: &VectorQuery) {
        let spec = &self.header.spec;
        assert_eq!((query.vector().len(), query.metric()), (self.dim(), spec.metric), "dim and metric of the query");
    }
}

/// Nearest first, ties by ascending ordinal, at most `top_k`.
fn finish(out: &mut Vec<Candidate>, top_k: usize) {
    out.sort_unstable_by(|a, b| b.closeness.total_cmp(&a.closeness).then(a.ordinal.cmp(&b.ordinal)));
    out.truncate(top_k);
}

/// The rows of a segment as codes.
struct CodeRows<'a> {
    codes: SectionView<'a, i8>,
    query: CodeQuery,
    stride: usize,
}

impl CodeRows<'_> {
    /// The least closeness by codes that may still be among the `top_k` in f32, as far as the pool tells.
    fn rescoring_floor(&self, top_k: usize, scratch: &Scratch) -> f32 {
        let last = scratch.pool.nearest(top_k).last().filter(|_| scratch.pool.nearest(top_k + 1).len() > top_k);
        let Some(last) = last else { return f32::NEG_INFINITY };
        let row = self.codes.unchecked(row_range(last.ordinal, self.stride));
        // Both of two candidates that are compared may err, in opposite directions.
        last.closeness - ROUNDING_ERRORS * std::f32::consts::SQRT_2 * self.query.rounding_error(row)
    }
}

impl Rows for CodeRows<'_> {
    type Error = SegmentError;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        prefetch(self.codes.unchecked(row_range(ordinal, self.stride)));
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, SegmentError> {
        Ok(self.query.closeness(self.codes.get(row_range(ordinal, self.stride))?) as f32)
    }

    #[inline]
    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), SegmentError> {
        if !self.codes.is_verified() {
            for &ordinal in ordinals {
                self.codes.get(row_range(ordinal, self.stride))?;
            }
        }
        self.query.compare(self.codes.all_unchecked(), ordinals, closeness);
        Ok(())
    }
}

/// The rows of a segment as vectors.
struct FullRows<'a> {
    vectors: VectorsView<'a>,
    query: &'a VectorQuery,
    dim: usize,
}

impl Rows for FullRows<'_> {
    type Error = SegmentError;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        self.vectors.unchecked(row_range(ordinal, self.dim)).prefetch();
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, SegmentError> {
        Ok(self.query.closeness_of(self.vectors.get(row_range(ordinal, self.dim))?))
    }
}

/// The graph of a segment, checked list by list as it is walked.
pub(super) struct StoredLinks<'a> {
    segment: &'a Segment,
    graph: GraphHeader,
    m: u32,
    level0: SectionView<'a, u32>,
    upper_index: SectionView<'a, u32>,
    upper: SectionView<'a, u32>,
}

impl StoredLinks<'_> {
    /// Number of the list of a row on an upper level.
    fn upper_list(&self, ordinal: Ordinal, level: u32) -> Result<u32, SegmentError> {
        let index = ordinal as usize;
        let lists = self.upper_index.get(index..index + 2)?;
        let list = lists[0].checked_add(level - 1).filter(|&list| list < lists[1]);
        match list {
            Some(list) if lists[1] <= self.graph.upper_lists => Ok(list),
            _ => {
                let reason = format!("row {ordinal} is linked on level {level}, where it has no list");
                Err(self.segment.damaged(Section::UpperIndex, 4 * index, reason))
            }
        }
    }
}

impl Links for StoredLinks<'_> {
    type Error = SegmentError;

    fn rows(&self) -> u32 {
        self.segment.rows()
    }

    fn entry(&self) -> Ordinal {
        self.graph.entry
    }

    fn max_level(&self) -> u32 {
        self.graph.max_level
    }

    #[inline]
    fn list(&self, ordinal: Ordinal, level: u32) -> Result<&[u32], SegmentError> {
        if level == 0 {
            return self.level0.get(level0_range(self.m, ordinal));
        }
        self.upper.get(upper_range(self.m, self.upper_list(ordinal, level)?))
    }

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        prefetch(self.level0.unchecked(level0_range(self.m, ordinal)));
    }

    #[cold]
    fn out_of_range(&self, ordinal: Ordinal, level: u32, neighbour: u32) -> SegmentError {
        let rows = self.segment.rows();
        let reason = format!("row {ordinal} is linked on level {level} to row {neighbour} of {rows}");
        self.segment.damaged(Section::Level0, 4 * level0_range(self.m, ordinal).start, reason)
    }
}
