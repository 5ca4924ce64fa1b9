//! One search over a view: each segment by its graph or by a scan, the memtables by a scan, merged into one top_k.

use std::collections::HashMap;
use std::sync::Arc;

use crate::distance::VectorQuery;
use crate::segment::{Candidate, SegmentError, WalkOptions};
use crate::types::{DocumentId, Filter, Metric, Ordinal, Plan, Seq, StoredDocument};

use super::IndexError;
use super::memtable::Memtable;
use super::params::{WANTED_RECALL, ef_for};
use super::top_k::TopK;
use super::view::{LiveSegment, View};

/// Rows looked at to estimate which share of a segment passes a filter.
const FILTER_SAMPLE: u32 = 256;
/// A filter that passes a smaller share than this is answered by a scan of what passes: a graph walk would have to
/// expand more than ten nodes for each one it may return.
const WALK_SHARE: f64 = 0.1;

/// What to look for in a view.
pub struct IndexQuery<'a> {
    /// f32, shape `[dim]`, normalised where the metric is cosine.
    pub vector: &'a [f32],
    /// How closeness is measured.
    pub metric: Metric,
    /// Most neighbours to return.
    pub top_k: usize,
    /// Compare with every row, in f32.
    pub exact: bool,
    /// Candidates kept in a graph walk; `None` takes the least that reaches [`WANTED_RECALL`], as measured.
    pub ef_search: Option<usize>,
    /// Leaves rows out.
    pub filter: Option<&'a Filter>,
}

/// Where a neighbour stands; holds it there for as long as needed.
#[derive(Clone)]
pub enum Place {
    /// In a memtable.
    Memory(Arc<Memtable>, Ordinal),
    /// In a segment.
    Sealed(Arc<LiveSegment>, Ordinal),
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
        }
    }

    /// Its vector, f32, shape `[dim]`.
    ///
    /// # Errors
    /// [`SegmentError`] when its bytes are damaged.
    pub fn vector(&self) -> Result<Vec<f32>, SegmentError> {
        match self {
            Place::Memory(memtable, ordinal) => Ok(published(memtable, *ordinal).vector.to_vec()),
            Place::Sealed(live, ordinal) => Ok(live.segment.vector(*ordinal)?.to_vec()),
        }
    }

    /// The change that wrote it.
    ///
    /// # Errors
    /// [`SegmentError`] when its bytes are damaged.
    pub fn seq(&self) -> Result<Seq, SegmentError> {
        match self {
            Place::Memory(memtable, ordinal) => Ok(published(memtable, *ordinal).seq),
            Place::Sealed(live, ordinal) => live.segment.seq(*ordinal),
        }
    }

    fn id(&self) -> Result<DocumentId, SegmentError> {
        match self {
            Place::Memory(memtable, ordinal) => Ok(published(memtable, *ordinal).document.id.clone()),
            Place::Sealed(live, ordinal) => live.segment.document_id(*ordinal),
        }
    }
}

fn published(memtable: &Memtable, ordinal: Ordinal) -> &super::memtable::MemRow {
    memtable.row(ordinal).expect("a place names a published row, and rows are never taken back")
}

/// One document found.
pub struct Neighbour {
    /// Rises with closeness; see [`crate::distance::score`].
    pub closeness: f32,
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
pub fn search(view: &View, query: &IndexQuery<'_>) -> Result<(Vec<Neighbour>, Plan), IndexError> {
    let mut found: Vec<(f32, Place)> = Vec::new();
    let mut plan = Plan::Exact;
    let vector = VectorQuery::new(query.metric, query.vector.to_vec());
    let (mut candidates, mut places) = (Vec::new(), 0);
    for live in &view.segments {
        candidates.clear();
        if search_segment(live, query, &vector, &mut candidates)? == Plan::Graph {
            plan = Plan::Graph;
        }
        places += usize::from(!candidates.is_empty());
        found.extend(candidates.iter().map(|c| (c.closeness, Place::Sealed(live.clone(), c.ordinal))));
    }
    for memtable in view.frozen.iter().chain([&view.active]) {
        let mut top = TopK::new(query.top_k);
        memtable.search(&vector, query.filter, |closeness, ordinal| {
            if top.admits(closeness) {
                let id = &published(memtable, ordinal).document.id;
                top.push(closeness, (id.clone(), ordinal));
            }
        });
        let before = found.len();
        found.extend(top.into_sorted().into_iter().map(|r| (r.closeness, Place::Memory(memtable.clone(), r.item.1))));
        places += usize::from(found.len() > before);
    }
    Ok((merge(found, places, query.top_k)?, plan))
}

/// Puts what the places found into one order; of two versions of one document, the younger stays.
fn merge(found: Vec<(f32, Place)>, places: usize, top_k: usize) -> Result<Vec<Neighbour>, IndexError> {
    if places <= 1 {
        // One place holds one version of each document.
        let neighbour = |(closeness, place): (f32, Place)| Ok(Neighbour { closeness, id: place.id()?, place });
        return Ok(in_order(found.into_iter().map(neighbour).collect::<Result<_, IndexError>>()?, top_k));
    }
    let mut youngest: HashMap<DocumentId, (Seq, f32, Place)> = HashMap::with_capacity(found.len());
    for (closeness, place) in found {
        let (id, seq) = (place.id()?, place.seq()?);
        match youngest.get(&id) {
            Some((kept, ..)) if *kept >= seq => {}
            _ => _ = youngest.insert(id, (seq, closeness, place)),
        }
    }
    let neighbour = |(id, (_, closeness, place))| Neighbour { closeness, id, place };
    Ok(in_order(youngest.into_iter().map(neighbour).collect(), top_k))
}

fn in_order(mut neighbours: Vec<Neighbour>, top_k: usize) -> Vec<Neighbour> {
    neighbours.sort_by(|a, b| b.closeness.total_cmp(&a.closeness).then_with(|| a.id.cmp(&b.id)));
    neighbours.truncate(top_k);
    neighbours
}

fn search_segment(
    live: &LiveSegment,
    query: &IndexQuery<'_>,
    vector: &VectorQuery,
    out: &mut Vec<Candidate>,
) -> Result<Plan, IndexError> {
    let segment = &live.segment;
    let mut damage = None;
    let passes = |ordinal: Ordinal| match row_passes(live, query.filter, ordinal) {
        Ok(passes) => passes,
        Err(error) => {
            damage.get_or_insert(error);
            false
        }
    };
    let walk = !query.exact && segment.has_graph() && share_passing(live, query.filter)? >= WALK_SHARE;
    if walk {
        let ef = query.ef_search.unwrap_or_else(|| ef_for(segment, query.top_k, WANTED_RECALL)).max(query.top_k);
        segment.search(vector, WalkOptions { top_k: query.top_k, ef }, passes, out)?;
    } else if query.exact {
        segment.scan_exact(vector, query.top_k, passes, out)?;
    } else {
        segment.scan(vector, query.top_k, passes, out)?;
    }
    match damage {
        Some(error) => Err(error.into()),
        None if walk => Ok(Plan::Graph),
        None => Ok(Plan::Exact),
    }
}

fn row_passes(live: &LiveSegment, filter: Option<&Filter>, ordinal: Ordinal) -> Result<bool, SegmentError> {
    if live.dead.is_dead(ordinal) {
        return Ok(false);
    }
    match filter {
        Some(filter) => Ok(filter.matches(&live.segment.document(ordinal)?.metadata)),
        None => Ok(true),
    }
}

/// Which share of a segment's rows passes, from rows at even distances.
fn share_passing(live: &LiveSegment, filter: Option<&Filter>) -> Result<f64, SegmentError> {
    let rows = live.segment.rows();
    if filter.is_none() || rows == 0 {
        return Ok(1.0);
    }
    let step = rows.div_ceil(FILTER_SAMPLE) as usize;
    let (mut passed, mut looked_at) = (0, 0);
    for ordinal in (0..rows).step_by(step) {
        looked_at += 1;
        passed += u32::from(row_passes(live, filter, ordinal)?);
    }
    Ok(f64::from(passed) / f64::from(looked_at))
}
