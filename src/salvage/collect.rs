//! What the readable parts of a store say together: collections, and for each id its youngest version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::log::{self, Change, LogLoss, LoggedDocument, Needed};
use crate::manifest::{Manifest, is_snapshot};
use crate::segment::Segment;
use crate::snapshot::{Contents, read_contents};
use crate::storage::DataPaths;
use crate::types::{
    Chain, CollectionId, CollectionName, Definition, DocumentId, IndexDefinition, Metric, Ordinal, Seq,
};

use super::SalvageError;
use super::segments;

/// A damaged store, read.
#[derive(Default)]
pub(super) struct Wreck {
    pub(super) collections: BTreeMap<CollectionId, Finding>,
    /// Those that could be opened.
    pub(super) segments: Vec<Segment>,
    pub(super) losses: Vec<String>,
}

/// A collection.
pub(super) struct Finding {
    pub(super) name: CollectionName,
    /// Whether the name is the collection's own, and the definition too.
    pub(super) is_named: bool,
    pub(super) definition: Definition,
    pub(super) created_at_ms: i64,
    /// Changes up to here are in its segments, and the log's say nothing new, unless a part of the segments is lost.
    pub(super) sealed_seq: Seq,
    /// Whether something of its segments cannot be read.
    pub(super) lost_rows: bool,
    pub(super) documents: BTreeMap<DocumentId, Version>,
}

/// The youngest that is known of an id.
pub(super) struct Version {
    pub(super) seq: Seq,
    /// `None` where it was deleted.
    pub(super) source: Option<Source>,
}

/// Where a version stands.
pub(super) enum Source {
    Row { segment: usize, ordinal: Ordinal },
    Log(Arc<LoggedDocument>),
}

impl Wreck {
    /// Documents that are to be written.
    pub(super) fn documents(&self) -> u64 {
        let of = |finding: &Finding| finding.documents.values().filter(|version| version.source.is_some()).count();
        self.collections.values().map(of).sum::<usize>() as u64
    }

    pub(super) fn lose(&mut self, what: impl Into<String>) {
        self.losses.push(what.into());
    }
}

impl Finding {
    /// Whether a change of the log may say what the segments do not.
    fn wants(&self, seq: Seq) -> bool {
        seq > self.sealed_seq || self.lost_rows
    }

    /// The metric of a collection of which the log alone has documents, and why. Under cosine vectors were given length
    /// 1 before they were logged, and others would be compared wrongly.
    fn guess_metric(&self) -> (Metric, &'static str) {
        let logged = self.documents.values().filter_map(|version| match &version.source {
            Some(Source::Log(document)) => Some(document),
            Some(Source::Row { .. }) | None => None,
        });
        let mut vectors = logged.flat_map(|document| document.vector.chunks(self.definition.dim as usize));
        match vectors.all(is_of_length_1) {
            true => (Metric::Cosine, "all of its vectors have length 1"),
            false => (Metric::L2, "its vectors are not all of length 1"),
        }
    }

    /// Takes a version in, if it is younger than what is known.
    pub(super) fn note(&mut self, id: DocumentId, seq: Seq, source: Option<Source>) {
        match self.documents.get(&id) {
            Some(known) if known.seq >= seq => {}
            _ => _ = self.documents.insert(id, Version { seq, source }),
        }
    }
}

fn is_of_length_1(vector: &[f32]) -> bool {
    let squares: f64 = vector.iter().map(|&number| f64::from(number).powi(2)).sum();
    (squares.sqrt() - 1.0).abs() < 1e-3
}

/// Reads everything that can be read.
pub(super) fn collect(paths: &DataPaths) -> Result<Wreck, SalvageError> {
    let mut wreck = Wreck::default();
    let manifest = match Manifest::read(paths) {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            wreck.lose(format!(
                "the manifest cannot be read ({error}): every segment file counts, so documents whose deletion only the \
                 manifest's order of segments knew may return"
            ));
            None
        }
    };
    for entry in manifest.iter().flat_map(|manifest| &manifest.collections) {
        let finding = Finding {
            name: entry.name.clone(),
            is_named: true,
            definition: entry.definition.clone(),
            created_at_ms: entry.created_at_ms,
            sealed_seq: entry.sealed_seq,
            lost_rows: false,
            documents: BTreeMap::new(),
        };
        wreck.collections.insert(entry.id, finding);
    }
    let contents = contents(paths, &mut wreck);
    match &manifest {
        Some(manifest) => segments::read_named(paths, manifest, &mut wreck),
        None => segments::read_found(paths, &mut wreck)?,
    }
    if let (None, Some(contents)) = (&manifest, &contents) {
        segments::name_missing(paths, contents, &mut wreck);
    }
    let known = manifest.as_ref().map_or(0, |manifest| manifest.next_collection_id);
    let after = manifest.map(|manifest| manifest.log_start).or_else(|| contents.as_ref().map(log_start));
    let needed = Needed { after, up_to: contents.map(|contents| contents.seq) };
    read_log(paths, known, needed, &mut wreck);
    Ok(wreck)
}

/// What a snapshot should hold. Of a store nothing says it.
fn contents(paths: &DataPaths, wreck: &mut Wreck) -> Option<Contents> {
    if !is_snapshot(paths) {
        return None;
    }
    match read_contents(paths.root()) {
        Ok(contents) => Some(contents),
        Err(error) => {
            wreck.lose(format!("whether all of the snapshot is there is not known: {}", Chain(&error)));
            None
        }
    }
}

/// The change before the first one of a snapshot's log.
fn log_start(contents: &Contents) -> Seq {
    let logs = contents.members.iter().filter_map(|member| member.path.strip_prefix("log/")?.strip_suffix(".log"));
    let first = logs.filter_map(|first| first.parse::<u64>().ok()).min();
    first.map_or(contents.seq, |first| Seq(first.saturating_sub(1)))
}

/// `known`: collections of lower numbers that are not there were dropped.
fn read_log(paths: &DataPaths, known: u32, needed: Needed, wreck: &mut Wreck) {
    let mut collections = std::mem::take(&mut wreck.collections);
    let mut anew = BTreeSet::new();
    let losses = log::salvage(paths, needed, &mut |seq, change| {
        anew.extend(name_anew(&mut collections, known, &change));
        apply(&mut collections, known, seq, change);
    });
    for (id, finding) in collections.iter_mut().filter(|(_, finding)| !finding.is_named) {
        let mut loss =
            format!("name and settings of a collection are lost; what can be read of it is in {}", finding.name);
        if anew.contains(id) {
            let (metric, why) = finding.guess_metric();
            finding.definition.metric = metric;
            loss.push_str(&format!(", which compares by {} since {why}", metric_name(metric)));
        }
        wreck.lose(loss);
    }
    wreck.collections = collections;
    wreck.losses.extend(losses.iter().map(sentence));
}

/// Makes a collection for documents whose own was created by a change that is lost, and returns its number.
fn name_anew(collections: &mut BTreeMap<CollectionId, Finding>, known: u32, change: &Change) -> Option<CollectionId> {
    let Change::Upsert { collection, documents } = change else { return None };
    if collection.0 < known || collections.contains_key(collection) {
        return None;
    }
    // One that waits for its vector does not say how long it is.
    let mut dims = documents.iter().map(|d| d.vector.len() / d.chunks.len().max(1));
    let dim = dims.find(|&dim| dim > 0)?;
    // Its metric is guessed once all of its documents are known.
    let unnamed = segments::unnamed(*collection, dim as u32, Metric::L2, IndexDefinition::default());
    collections.insert(*collection, unnamed);
    Some(*collection)
}

/// As definitions write it.
fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "cosine",
        Metric::Dot => "dot",
        Metric::L2 => "l2",
    }
}

fn apply(collections: &mut BTreeMap<CollectionId, Finding>, known: u32, seq: Seq, change: Change) {
    match change {
        Change::CreateCollection { id, .. } if id.0 < known => {}
        Change::CreateCollection { id, name, definition, created_at_ms } => {
            let found = collections.entry(id).or_insert_with(|| Finding {
                name: name.clone(),
                is_named: true,
                definition: definition.clone(),
                created_at_ms,
                sealed_seq: Seq(0),
                lost_rows: false,
                documents: BTreeMap::new(),
            });
            // What a segment alone could say of its collection was less.
            (found.name, found.definition, found.created_at_ms) = (name, definition, created_at_ms);
            found.is_named = true;
        }
        Change::DropCollection { id } => _ = collections.remove(&id),
        Change::Upsert { collection, documents } => {
            let Some(finding) = collections.get_mut(&collection).filter(|f| f.wants(seq)) else { return };
            for document in documents {
                finding.note(document.document.id.clone(), seq, Some(Source::Log(Arc::new(document))));
            }
        }
        Change::Delete { collection, ids } => {
            let Some(finding) = collections.get_mut(&collection).filter(|f| f.wants(seq)) else { return };
            ids.into_iter().for_each(|id| finding.note(id, seq, None));
        }
    }
}

fn sentence(loss: &LogLoss) -> String {
    let LogLoss { path, bytes, after, before, reason } = loss;
    let (path, lost) = (path.display(), bytes.end - bytes.start);
    match before {
        Some(before) if before.0 <= after.0 + 1 => {
            format!(
                "{path}: {lost} bytes at offset {} cannot be read ({reason}); no change was lost with them",
                bytes.start
            )
        }
        Some(before) => format!(
            "{path}: the changes {} to {} are lost, {lost} bytes at offset {} ({reason}); what they wrote is missing, and \
             what they deleted may be there",
            after.next(),
            before.0 - 1,
            bytes.start,
        ),
        None => format!(
            "{path}: {lost} bytes at offset {} cannot be read ({reason}); changes after {after} are lost, unless it is a \
             write that was never answered",
            bytes.start
        ),
    }
}
