//! One search over a view: each segment as the plan says, the memtables by a scan, merged into one top_k.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::distance::VectorQuery;
use crate::segment::{Candidate, SegmentError};
use crate::types::{ChunkSpan, DocumentId, Filter, Metadata, Metric, Ordinal, Seq, StoredDocument, check_vector};

use super::IndexError;
use super::memtable::{MemRow, Memtable};
use super::one_segment::{SegmentOutcome, SegmentQuery, search_segment};
use super::view::{LiveSegment, View};

/// What to look for in a view.
pub struct IndexQuery<'a> {
    /// f32, shape `[dim]`, normalised where the metric is cosine.
    pub vector: &'a [f32],
    /// How closeness is measured.
    pub metric: Metric,
    /// Most neighbours to return.
    pub top_k: usize,
    /// Leaves rows out.
    pub filter: Option<&'a Filter>,
    /// How to search each segment of the view, in their order.
    pub segments: &'a [SegmentQuery],
}

/// What a search found, and how.
pub struct Found {
    /// Nearest first, ties by ascending id.
    pub neighbours: Vec<Neighbour>,
    /// By segment of the view.
    pub segments: Vec<SegmentOutcome>,
}

/// Where a neighbour stands; holds it there for as long as needed.
#[derive(Clone)]
pub enum Place {
    /// In a memtable.
    Memory(Arc<Memtable>, Ordinal),
    /// In a segment.
    Sealed(Arc<LiveSegment>, Ordinal),
    /// Neither: it was read from a database elsewhere.
    #[cfg(feature = "postgres")]
    Elsewhere(Arc<MemRow>),
}

impl Place {
    /// The document standing there.
    ///
    /// # Errors
    /// [`SegmentError`] when its bytes are damaged.
    pub fn document(&self) -> Result<StoredDocument, SegmentError> {
        match self {
            Place::Memory(memtable, ordinal) => Ok(published(memtable, *ordinal).document.clone()),
            Place::Sealed(live, ordinal) => live.segment.document(*ordinal),
            #[cfg(feature = "postgres")]
            Place::Elsewhere(row) => Ok(row.document.clone()),
        }
    }

    /// The document's metadata, without the rest of it.
    ///
    /// # Errors
    /// [`SegmentError`] when its bytes are damaged.
    pub fn metadata(&self) -> Result<Cow<'_, Metadata>, SegmentError> {
        Ok(match self {
            Place::Memory(memtable, ordinal) => Cow::Borrowed(&published(memtable, *ordinal).document.metadata),
            Place::Sealed(live, ordinal) => Cow::Owned(live.segment.metadata(*ordinal)?),
            #[cfg(feature = "postgres")]
            Place::Elsewhere(row) => Cow::Borrowed(&row.document.metadata),
        })
    }

    /// Its vectors, f32, shape `[dim]`, or `[chunks, dim]` where it has chunks.
    ///
    /// # Errors
    /// [`SegmentError`] when its bytes are damaged.
    pub fn vectors(&self) -> Result<Cow<'_, [f32]>, SegmentError> {
        match self {
            Place::Memory(memtable, ordinal) => Ok(Cow::Borrowed(&published(memtable, *ordinal).vector)),
            Place::Sealed(live, ordinal) => Ok(live.segment.vectors(*ordinal)?.in_full()),
            #[cfg(feature = "postgres")]
            Place::Elsewhere(row) => Ok(Cow::Borrowed(&row.vector)),
        }
    }

    /// Where its chunks stand in its text; none in a collection without chunks.
    ///
    /// # Errors
    /// [`SegmentError`] when its bytes are damaged.
    pub fn chunks(&self) -> Result<Vec<ChunkSpan>, SegmentError> {
        match self {
            Place::Memory(memtable, ordinal) => Ok(published(memtable, *ordinal).chunks.to_vec()),
            Place::Sealed(live, ordinal) => live.segment.chunks(*ordinal),
            #[cfg(feature = "postgres")]
            Place::Elsewhere(row) => Ok(row.chunks.to_vec()),
        }
    }

    /// The vector that stands for all of it, f32, shape `[dim]`; see [`whole_vector`].
    ///
    /// # Errors
    /// [`SegmentError`] when its bytes are damaged.
    pub fn vector(&self, dim: usize) -> Result<Vec<f32>, SegmentError> {
        Ok(whole_vector(&self.vectors()?, dim))
    }

    /// The change that wrote it.
    ///
    /// # Errors
    /// [`SegmentError`] when its bytes are damaged.
    pub fn seq(&self) -> Result<Seq, SegmentError> {
        match self {
            Place::Memory(memtable, ordinal) => Ok(published(memtable, *ordinal).seq),
            Place::Sealed(live, ordinal) => live.segment.seq(*ordinal),
            #[cfg(feature = "postgres")]
            Place::Elsewhere(row) => Ok(row.seq),
        }
    }

    /// Whether both are the same row.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Place::Memory(a, row), Place::Memory(b, other)) => Arc::ptr_eq(a, b) && row == other,
            (Place::Sealed(a, row), Place::Sealed(b, other)) => a.id == b.id && row == other,
            _ => false,
        }
    }

    fn id(&self) -> Result<DocumentId, SegmentError> {
        match self {
            Place::Memory(memtable, ordinal) => Ok(published(memtable, *ordinal).document.id.clone()),
            Place::Sealed(live, ordinal) => live.segment.document_id(*ordinal),
            #[cfg(feature = "postgres")]
            Place::Elsewhere(row) => Ok(row.document.id.clone()),
        }
    }
}

/// The vector that stands for a document of several: their mean, or the first where they cancel each other out.
/// `vectors`: f32, shape `[vectors, dim]`; empty gives nothing.
pub fn whole_vector(vectors: &[f32], dim: usize) -> Vec<f32> {
    if vectors.len() <= dim {
        return vectors.to_vec();
    }
    let mut sum = vec![0.0_f64; dim];
    for vector in vectors.chunks_exact(dim) {
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let count = (vectors.len() / dim) as f64;
    let mean: Vec<f32> = sum.into_iter().map(|x| (x / count) as f32).collect();
    if check_vector(&mean, dim).is_ok() { mean } else { vectors[..dim].to_vec() }
}

fn published(memtable: &Memtable, ordinal: Ordinal) -> &MemRow {
    memtable.row(ordinal).expect("a place names a published row, and rows are never taken back")
}

/// One document found.
pub struct Neighbour {
    /// See [`crate::distance::score`].
    pub score: f32,
    /// The document.
    pub id: DocumentId,
    /// Where it stands.
    pub place: Place,
}

/// Finds the nearest documents: nearest first, ties by ascending id, at most `top_k`.
///
/// Older places are searched before younger ones. A document on its way from one to the other is then seen at least
/// once, and of two versions the younger is kept.
///
/// # Errors
/// [`IndexError`] when a segment is damaged.
pub fn search(view: &View, query: &IndexQuery<'_>) -> Result<Found, IndexError> {
    assert_eq!(view.segments.len(), query.segments.len(), "every segment of the view has its part of the plan");
    let mut found: Vec<(f32, Place)> = Vec::with_capacity(query.top_k);
    let mut outcomes = Vec::with_capacity(query.segments.len());
    let vector = VectorQuery::new(query.metric, query.vector.to_vec());
    let (mut candidates, mut places) = (Vec::<Candidate>::with_capacity(4 * query.top_k), 0);
    for (live, part) in view.segments.iter().zip(query.segments) {
        candidates.clear();
        outcomes.push(search_segment(live, query, part, &vector, &mut candidates)?);
        live.segment.prefetch_documents(candidates.iter().map(|candidate| candidate.ordinal));
        places += usize::from(!candidates.is_empty());
        found.extend(candidates.iter().map(|c| (c.closeness, Place::Sealed(live.clone(), c.ordinal))));
    }
    for memtable in view.frozen.iter().chain([&view.active]) {
        let rows = memtable.search(&vector, query.filter, query.top_k);
        places += usize::from(!rows.is_empty());
        found.extend(rows.into_iter().map(|(score, row)| (score, Place::Memory(memtable.clone(), row))));
    }
    Ok(Found { neighbours: merge(found, places, query.top_k)?, segments: outcomes })
}

/// Puts what a search found together with what places that came meanwhile hold ([`View::since`]): nearest first, at
/// most `top_k`, and of two versions of one document the younger.
///
/// # Errors
/// [`IndexError`] when a segment is damaged.
pub fn join(found: Vec<Neighbour>, since: Vec<Neighbour>, top_k: usize) -> Result<Vec<Neighbour>, IndexError> {
    let both = found.into_iter().chain(since).map(|neighbour| (neighbour.score, neighbour.place)).collect();
    merge(both, 2, top_k)
}

/// Puts what the places found into one order; of two versions of one document, the younger stays.
fn merge(found: Vec<(f32, Place)>, places: usize, top_k: usize) -> Result<Vec<Neighbour>, IndexError> {
    if places <= 1 {
        // One place holds one version of each document. A loop, as collected results do not tell how many there are.
        let mut neighbours = Vec::with_capacity(found.len());
        for (score, place) in found {
            neighbours.push(Neighbour { score, id: place.id()?, place });
        }
        return Ok(in_order(neighbours, top_k));
    }
    let mut youngest: HashMap<DocumentId, (Seq, f32, Place)> = HashMap::with_capacity(found.len());
    for (score, place) in found {
        let (id, seq) = (place.id()?, place.seq()?);
        match youngest.get(&id) {
            Some((kept, ..)) if *kept >= seq => {}
            _ => _ = youngest.insert(id, (seq, score, place)),
        }
    }
    let neighbour = |(id, (_, score, place))| Neighbour { score, id, place };
    Ok(in_order(youngest.into_iter().map(neighbour).collect(), top_k))
}

fn in_order(mut neighbours: Vec<Neighbour>, top_k: usize) -> Vec<Neighbour> {
    neighbours.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
    neighbours.truncate(top_k);
    neighbours
}
