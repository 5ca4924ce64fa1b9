//! The rows of segments whose blocks can be read.

use std::collections::BTreeMap;

use crate::collection::{check_named, read_dead};
use crate::manifest::{CollectionEntry, Manifest, SegmentEntry};
use crate::segment::{DeadRows, Segment, SegmentError, SegmentSpec};
use crate::snapshot::Contents;
use crate::storage::{DataPaths, list_files_below};
use crate::types::{
    Chain, CollectionId, CollectionName, Definition, IndexDefinition, Metric, Ordinal, SegmentId, Seq, TextDefinition,
};

use super::SalvageError;
use super::collect::{Finding, Source, Wreck};

/// Reads the segments that the manifest names.
pub(super) fn read_named(paths: &DataPaths, manifest: &Manifest, wreck: &mut Wreck) {
    for entry in &manifest.collections {
        for segment in &entry.segments {
            let path = paths.segment_file(entry.id.0, entry.generation, segment.id.0);
            let opened = Segment::open_by_calls(&path, &spec_of(entry, segment));
            // Rows of another moment, as of the time before a restore, would be mixed with those of this one.
            match opened.and_then(|opened| check_named(&opened, segment).map(|()| opened)) {
                Ok(opened) => {
                    let path = paths.dead_file(entry.id.0, entry.generation, segment.id.0, segment.dead_version);
                    read_rows(wreck, opened, (segment.dead_version > 0).then(|| read_dead(&path, segment)));
                }
                Err(error) => {
                    let alive = segment.rows.saturating_sub(segment.dead_rows);
                    let deletions = match segment.tombstones {
                        0 => String::new(),
                        count => format!("; {count} deletions went with it, and what they deleted may return"),
                    };
                    wreck.lose(format!(
                        "a segment of {} with {alive} documents is lost, but for those that the log still has: \
                         {}{deletions}",
                        entry.name,
                        Chain(&error)
                    ));
                    if let Some(finding) = wreck.collections.get_mut(&entry.id) {
                        finding.lost_rows = true;
                    }
                }
            }
        }
    }
}

fn spec_of(entry: &CollectionEntry, segment: &SegmentEntry) -> SegmentSpec {
    SegmentSpec {
        id: segment.id,
        collection: entry.id,
        generation: entry.generation,
        metric: entry.definition.metric,
        dim: entry.definition.dim,
        index: entry.definition.index,
    }
}

/// Without a manifest: reads every segment file, with the youngest list of dead rows beside it.
pub(super) fn read_found(paths: &DataPaths, wreck: &mut Wreck) -> Result<(), SalvageError> {
    let files = list_files_below(&paths.segments_dir())?;
    let mut dead = BTreeMap::new();
    for file in &files {
        let Some(name) = file.file_name().and_then(|name| name.to_str()) else { continue };
        if let [id, version, "dead"] = name.split('.').collect::<Vec<_>>()[..]
            && let (Ok(id), Ok(version)) = (id.parse::<u64>(), version.parse::<u64>())
        {
            let youngest = dead.entry(id).or_insert((version, file.clone()));
            if youngest.0 < version {
                *youngest = (version, file.clone());
            }
        }
    }
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "seg")) {
        match Segment::open_any_by_calls(file) {
            Ok(opened) => {
                let spec = *opened.spec();
                wreck
                    .collections
                    .entry(spec.collection)
                    .or_insert_with(|| unnamed(spec.collection, spec.dim, spec.metric, spec.index));
                let beside = dead.get(&spec.id.0).map(|(_, path)| DeadRows::read(path, spec.id, opened.rows()));
                read_rows(wreck, opened, beside);
            }
            Err(error) => wreck.lose(format!("a segment is lost: {}", Chain(&error))),
        }
    }
    Ok(())
}

/// Names what a snapshot should hold of segments and does not, where no manifest names it.
pub(super) fn name_missing(paths: &DataPaths, contents: &Contents, wreck: &mut Wreck) {
    for member in &contents.members {
        let path = paths.root().join(&member.path);
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.exists() => {}
            Some("seg") => wreck.lose(format!("a segment is lost: {} is missing", path.display())),
            Some("dead") => wreck.lose(lost_list(&format!("{} is missing", path.display()))),
            _ => {}
        }
    }
}

/// A collection of which only documents are known.
pub(super) fn unnamed(id: CollectionId, dim: u32, metric: Metric, index: IndexDefinition) -> Finding {
    let CollectionId(number) = id;
    let name = CollectionName::new(&format!("salvaged-{number}")).expect("a number makes a sound name");
    let definition = Definition {
        dim,
        metric,
        embedding: None,
        index,
        fields: BTreeMap::new(),
        text: TextDefinition::default(),
        template: None,
        guard: None,
        chunks: None,
    };
    let (created_at_ms, sealed_seq, documents) = (0, Seq(0), BTreeMap::new());
    Finding { name, is_named: false, definition, created_at_ms, sealed_seq, lost_rows: false, documents }
}

/// `dead`: the list of dead rows, where there should be one.
fn read_rows(wreck: &mut Wreck, mut segment: Segment, dead: Option<Result<DeadRows, SegmentError>>) {
    let spec = *segment.spec();
    let index = wreck.segments.len();
    let none = DeadRows::new(segment.rows());
    let mut is_dead_lost = false;
    let dead = match dead {
        None => none,
        Some(Ok(dead)) => dead,
        Some(Err(error)) => {
            wreck.lose(lost_list(&Chain(&error).to_string()));
            is_dead_lost = true;
            none
        }
    };
    let mut losses = Vec::new();
    let Some(finding) = wreck.collections.get_mut(&spec.collection) else { return };
    match segment.tombstones() {
        Ok(tombstones) => tombstones.into_iter().for_each(|tombstone| finding.note(tombstone.id, tombstone.seq, None)),
        Err(error) => losses.push(format!("deletions are lost, and what they deleted may return: {error}")),
    }
    let mut lost = Lost::default();
    for ordinal in (0..segment.rows()).filter(|&ordinal| !dead.is_dead(ordinal)) {
        let read = segment.document(ordinal).and_then(|document| {
            segment.vectors(ordinal)?;
            segment.chunks(ordinal)?;
            Ok((document.id, segment.seq(ordinal)?))
        });
        match read {
            Ok((id, seq)) => finding.note(id, seq, Some(Source::Row { segment: index, ordinal })),
            Err(error) => lost.add(ordinal, &error.to_string()),
        }
    }
    losses.extend(lost.sentence(&finding.name, spec.id, segment.rows()));
    finding.lost_rows |= is_dead_lost || !losses.is_empty();
    // There may be more segments than files that a process can hold open.
    segment.close_file();
    wreck.segments.push(segment);
    wreck.losses.extend(losses);
}

fn lost_list(reason: &str) -> String {
    format!("a list of dead rows is lost ({reason}): documents return whose replacement or deletion is lost too")
}

/// Rows that could not be read.
#[derive(Default)]
struct Lost {
    rows: u32,
    first: Ordinal,
    reason: String,
}

impl Lost {
    fn add(&mut self, ordinal: Ordinal, reason: &str) {
        if self.rows == 0 {
            (self.first, self.reason) = (ordinal, reason.to_owned());
        }
        self.rows += 1;
    }

    fn sentence(&self, collection: &CollectionName, segment: SegmentId, rows: u32) -> Option<String> {
        let Self { rows: lost, first, reason } = self;
        (*lost > 0).then(|| {
            format!(
                "{lost} of {rows} documents in segment {segment} of {collection} are lost, but for those that the log \
                 still has, the first in row {first}: {reason}"
            )
        })
    }
}
