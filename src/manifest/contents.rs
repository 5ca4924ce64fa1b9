//! What a manifest says, and the rules that hold within it.

use std::collections::HashSet;
use std::fmt;

use crate::types::{CollectionId, CollectionName, Definition, SegmentId, Seq};

/// A store's random id. It ties log, manifest and copies to one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The state of a store between two changes of its files.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// One more at each publish; the first is 1.
    pub version: u64,
    /// As in `FORMAT`.
    pub store_id: StoreId,
    /// Which history of this store; the first is 1, and a restored snapshot begins another.
    pub timeline: u32,
    /// Changes up to here are in segments: the log may begin after it.
    pub log_start: Seq,
    /// The id of the next collection; ids are never used twice.
    pub next_collection_id: u32,
    /// The id of the next segment; ids are never used twice.
    pub next_segment_id: u64,
    /// The collections that have segments or were created before `log_start`, in any order.
    pub collections: Vec<CollectionEntry>,
}

/// One collection.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionEntry {
    /// Its number.
    pub id: CollectionId,
    /// Its name, unique.
    pub name: CollectionName,
    /// What it is.
    pub definition: Definition,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// The change that created it.
    pub created_seq: Seq,
    /// Which generation of vectors its segments hold.
    pub generation: u32,
    /// This collection's changes up to here are in its segments.
    pub sealed_seq: Seq,
    /// Its live segments.
    pub segments: Vec<SegmentEntry>,
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its number, which is its file's name.
    pub id: SegmentId,
    /// Documents in it, dead ones included.
    pub rows: u32,
    /// Deletions that it carries for older segments.
    pub tombstones: u32,
    /// Its oldest change.
    pub min_seq: Seq,
    /// Its newest change.
    pub max_seq: Seq,
    /// Bytes of its file.
    pub len_bytes: u64,
    /// Whether it has a graph; one without is scanned.
    pub has_graph: bool,
    /// Version of its `.dead` file, which is in the file's name; 0 for none.
    pub dead_version: u64,
    /// Rows that no longer count.
    pub dead_rows: u32,
}

impl Manifest {
    /// The manifest of a new store.
    pub(super) fn first(store_id: StoreId) -> Self {
        Self {
            version: 1,
            store_id,
            timeline: 1,
            log_start: Seq(0),
            next_collection_id: 1,
            next_segment_id: 1,
            collections: Vec::new(),
        }
    }

    /// The highest seq that the manifest names: a log that ends before it is not this store's whole log.
    pub fn max_seq(&self) -> Seq {
        let of_collection = |collection: &CollectionEntry| {
            let segments = collection.segments.iter().map(|segment| segment.max_seq).max();
            collection.created_seq.max(collection.sealed_seq).max(segments.unwrap_or_default())
        };
        self.collections.iter().map(of_collection).max().unwrap_or_default().max(self.log_start)
    }

    /// Checks the rules that the format states. The error says which one is broken.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.version == 0 || self.timeline == 0 {
            return Err(format!("version {} and timeline {} begin at 1", self.version, self.timeline));
        }
        if self.max_seq() >= Seq::END {
            return Err(format!("change {} is beyond the last possible one", self.max_seq()));
        }
        let dead_versions = self.collections.iter().flat_map(|collection| &collection.segments).map(|s| s.dead_version);
        // Each is counted on from here.
        let counted = [self.version, self.next_segment_id].into_iter().chain(dead_versions);
        if let Some(number) = counted.into_iter().find(|&number| number >= Seq::END.0) {
            return Err(format!("number {number} is beyond the last possible one"));
        }
        if self.next_collection_id > CollectionId::END.0 {
            return Err(format!("collection id {} is beyond the last possible one", self.next_collection_id));
        }
        let (mut ids, mut names, mut segment_ids) = (HashSet::new(), HashSet::new(), HashSet::new());
        for collection in &self.collections {
            let id = collection.id;
            if id.0 >= self.next_collection_id || !ids.insert(id) {
                return Err(format!("collection id {id} is used twice or not below {}", self.next_collection_id));
            }
            if !names.insert(&collection.name) {
                return Err(format!("collection name {} is used twice", collection.name));
            }
            collection.definition.check().map_err(|e| format!("collection {}: {e}", collection.name))?;
            for segment in &collection.segments {
                if segment.id.0 >= self.next_segment_id || !segment_ids.insert(segment.id) {
                    return Err(format!(
                        "segment id {} is used twice or not below {}",
                        segment.id, self.next_segment_id
                    ));
                }
                if segment.min_seq > segment.max_seq {
                    return Err(format!("segment {} begins after its end", segment.id));
                }
            }
        }
        Ok(())
    }
}
