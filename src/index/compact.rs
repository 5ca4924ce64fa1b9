//! Writing segments: a memtable sealed, several segments merged.
//!
//! Rows stand in ascending order of id, so that ties in a search and the pages of a listing come in the same order
//! everywhere.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::distance::VectorRef;
use crate::segment::{
    Pace, RowRef, Segment, SegmentError, SegmentSpec, Tombstone, WrittenSegment, encode_document, fitting,
    write_segment,
};
use crate::storage::RateLimit;
use crate::types::{DocumentId, GraphBuilder, Ordinal, Seq};

use super::IndexError;
use super::build::{BuildOptions, Start, build_graph};
use super::memtable::{MemEntry, Memtable};
use super::plan_merge;
use super::view::{LiveSegment, Relocation};

/// A memtable as a segment.
pub struct Sealed {
    /// The file; `None` where nothing was left to write.
    pub written: Option<WrittenSegment>,
    /// By row of the segment: the row of the memtable.
    pub sources: Vec<Ordinal>,
    /// What it deletes.
    pub tombstones: Vec<(DocumentId, Seq)>,
}

/// Writes a memtable's live rows and tombstones to `path`, without a graph.
///
/// `older_segments`: whether the collection has segments in which a deleted id may stand; without any, tombstones have
/// nothing to hide and are left out.
///
/// # Errors
/// [`IndexError`] when the file cannot be written.
pub fn seal(memtable: &Memtable, path: &Path, spec: &SegmentSpec, older_segments: bool) -> Result<Sealed, IndexError> {
    let mut sources = Vec::new();
    let mut frames = Vec::new();
    let mut tombstones = Vec::new();
    for (id, entry) in memtable.all() {
        match entry {
            MemEntry::Row(ordinal) if !memtable.is_dead(ordinal) => {
                let row = memtable.row(ordinal).expect("an entry names a published row");
                frames.push(encode_document(&row.document));
                sources.push(ordinal);
            }
            MemEntry::Tombstone(seq) if older_segments => tombstones.push((id, seq)),
            MemEntry::Row(_) | MemEntry::Tombstone(_) => {}
        }
    }
    if sources.is_empty() && tombstones.is_empty() {
        return Ok(Sealed { written: None, sources, tombstones });
    }
    let rows: Vec<RowRef<'_>> = sources
        .iter()
        .zip(&frames)
        .map(|(&ordinal, frame)| {
            let row = memtable.row(ordinal).expect("checked above");
            RowRef { seq: row.seq, document: frame, vector: VectorRef::Float32(&row.vector), chunks: &row.chunks }
        })
        .collect();
    let written = write_segment(path, spec, &rows, &as_tombstones(&tombstones), None, None)?;
    Ok(Sealed { written: Some(written), sources, tombstones })
}

/// Several segments as one.
pub struct Merged {
    /// The file; `None` where nothing was left to write.
    pub written: Option<WrittenSegment>,
    /// By input, in the order given: where its rows went.
    pub relocations: Vec<Relocation>,
    /// What it deletes.
    pub tombstones: Vec<(DocumentId, Seq)>,
}

/// What a merge needs to know beside its inputs.
pub struct MergeOptions<'a> {
    /// Whether the result gets a graph.
    pub with_graph: bool,
    /// The oldest change in a segment that is not merged: tombstones older than it hide nothing any more.
    pub oldest_elsewhere: Option<Seq>,
    /// What builds the graph.
    pub builder: GraphBuilder,
    /// Threads to build the graph with; `None` for all cores.
    pub threads: Option<NonZeroUsize>,
    /// How fast it is written.
    pub rate: &'a RateLimit,
    /// Set to give up: the merge ends with [`IndexError::Cancelled`].
    pub cancel: &'a AtomicBool,
}

/// Writes the live rows of `inputs` to `path`.
///
/// # Errors
/// [`IndexError`] when an input is damaged, the file cannot be written, or the merge was cancelled.
pub fn merge(
    inputs: &[Arc<LiveSegment>],
    path: &Path,
    spec: &SegmentSpec,
    options: &MergeOptions<'_>,
) -> Result<Merged, IndexError> {
    let (order, relocations) = plan_rows(inputs, spec)?;
    let tombstones = merge_tombstones(inputs, options.oldest_elsewhere)?;
    if order.is_empty() && tombstones.is_empty() {
        return Ok(Merged { written: None, relocations, tombstones });
    }
    let chunks = order
        .iter()
        .map(|&(input, ordinal)| inputs[input].segment.chunks(ordinal))
        .collect::<Result<Vec<_>, SegmentError>>()?;
    let rows = order
        .iter()
        .zip(&chunks)
        .map(|(&(input, ordinal), chunks)| {
            let segment = &inputs[input].segment;
            let (document, vector) = (segment.document_frame(ordinal)?, segment.vectors(ordinal)?);
            Ok(RowRef { seq: segment.seq(ordinal)?, document, vector, chunks })
        })
        .collect::<Result<Vec<_>, IndexError>>()?;
    let vectors: Vec<VectorRef<'_>> = rows.iter().flat_map(|row| row.vector.each(spec.dim as usize)).collect();
    let spec = &if options.with_graph { fitting(spec, &vectors) } else { *spec };
    let progress = |done: usize| tracing::debug!(done, vectors = vectors.len(), "building a graph");
    let graph = match options.with_graph && !rows.is_empty() {
        true => {
            let MergeOptions { builder, threads, cancel, .. } = *options;
            let build = BuildOptions { builder, threads, progress: &progress, cancel };
            let start = start_from(inputs, &relocations, &rows)?;
            Some(build_graph(&vectors, spec.metric, &spec.index, start, &build)?)
        }
        false => None,
    };
    let pace = Pace { limit: options.rate, cancel: options.cancel };
    let written = match write_segment(path, spec, &rows, &as_tombstones(&tombstones), graph.as_ref(), Some(pace)) {
        Err(SegmentError::Cancelled { .. }) => return Err(IndexError::Cancelled),
        other => other?,
    };
    Ok(Merged { written: Some(written), relocations, tombstones })
}

/// The graph of one input, to insert the rows of the others into: that takes less time than building a new one.
fn start_from<'a>(
    inputs: &'a [Arc<LiveSegment>],
    relocations: &[Relocation],
    rows: &[RowRef<'_>],
) -> Result<Option<Start<'a>>, IndexError> {
    let candidates: Vec<_> = inputs.iter().map(|live| live.as_candidate()).collect();
    let Some(input) = plan_merge::start(&candidates) else { return Ok(None) };
    let graph = match inputs[input].segment.sound_graph() {
        // What is damaged is links alone: they can be made again of the rows, and what is merged is sound.
        Err(error @ SegmentError::Damaged { .. }) => {
            tracing::warn!(%error, "a damaged graph is not taken over; a new one is built of the rows");
            return Ok(None);
        }
        graph => graph?,
    };
    let Some(graph) = graph else { return Ok(None) };
    Ok(Some(Start { graph, rows: moved_vectors(&inputs[input].segment, &relocations[input], rows)? }))
}

/// By vector of a segment: where it stands among those of `rows`, which took its rows over.
fn moved_vectors(
    segment: &Segment,
    relocation: &Relocation,
    rows: &[RowRef<'_>],
) -> Result<Vec<Option<Ordinal>>, IndexError> {
    let mut firsts: Vec<Ordinal> = Vec::with_capacity(rows.len());
    let mut vectors = 0;
    for row in rows {
        firsts.push(vectors);
        vectors += row.chunks.len().max(1) as Ordinal;
    }
    let mut moved = Vec::with_capacity(segment.vector_count() as usize);
    for (old, &new) in relocation.ordinals.iter().enumerate() {
        let count = segment.vectors_of(old as Ordinal)?.len() as Ordinal;
        let first = (new != Relocation::LEFT_OUT).then(|| firsts[new as usize]);
        moved.extend((0..count).map(|chunk| first.map(|first| first + chunk)));
    }
    Ok(moved)
}

/// A row to be written: which input, and its row there.
type Source = (usize, Ordinal);

/// The live rows of all inputs by ascending id, and for each input where its rows go.
fn plan_rows(inputs: &[Arc<LiveSegment>], spec: &SegmentSpec) -> Result<(Vec<Source>, Vec<Relocation>), IndexError> {
    let mut order = Vec::new();
    for (input, live) in inputs.iter().enumerate() {
        for ordinal in (0..live.segment.rows()).filter(|&o| !live.dead.is_dead(o)) {
            order.push((live.segment.document_id(ordinal)?, input, ordinal));
        }
    }
    order.sort_unstable();
    let left_out = |live: &Arc<LiveSegment>| Relocation {
        into: spec.id,
        ordinals: vec![Relocation::LEFT_OUT; live.segment.rows() as usize],
    };
    let mut relocations: Vec<_> = inputs.iter().map(left_out).collect();
    for (row, (_, input, ordinal)) in order.iter().enumerate() {
        relocations[*input].ordinals[*ordinal as usize] = row as Ordinal;
    }
    Ok((order.into_iter().map(|(_, input, ordinal)| (input, ordinal)).collect(), relocations))
}

/// The youngest tombstone of each id, less those that no older row is left for.
fn merge_tombstones(
    inputs: &[Arc<LiveSegment>],
    oldest_elsewhere: Option<Seq>,
) -> Result<Vec<(DocumentId, Seq)>, IndexError> {
    let mut youngest: BTreeMap<DocumentId, Seq> = BTreeMap::new();
    for live in inputs {
        for Tombstone { id, seq } in live.segment.tombstones()? {
            let kept = youngest.entry(id).or_insert(seq);
            *kept = seq.max(*kept);
        }
    }
    youngest.retain(|_, seq| oldest_elsewhere.is_some_and(|oldest| oldest < *seq));
    Ok(youngest.into_iter().collect())
}

fn as_tombstones(pairs: &[(DocumentId, Seq)]) -> Vec<Tombstone> {
    pairs.iter().map(|(id, seq)| Tombstone { id: id.clone(), seq: *seq }).collect()
}
