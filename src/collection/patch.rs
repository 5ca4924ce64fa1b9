//! Patches: parts of documents are changed, and what they become is worked out of what stands there when nothing else
//! is written.

use crate::types::limits::MAX_PATCHED_BYTES;
use crate::types::{ChunkSpan, DocumentId, DocumentPatch, Edit, EmbeddingState, IfSeq, NewDocument, Seq};
use crate::types::{StoredDocument, merge_patch, metadata_memory};

use super::prepare::Prepared;
use super::vectors::{DocumentVectors, Known, Made, all_of};
use super::write::{check_ids, check_if_seq, logged};
use super::{Collection, CollectionError, Frame, now_ms};

/// So often texts are embedded again because other writes have changed what they are made of meanwhile.
pub const MAX_DRAFTS: usize = 10;

/// What patches did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// Documents changed.
    pub updated: usize,
    /// The change that wrote them.
    pub seq: Seq,
    /// Texts, or chunks of them, embedded by the model.
    pub embedded: usize,
    /// Texts, or chunks, whose vector was known already, those of texts that stayed among them.
    pub cached: usize,
    /// Documents whose text is longer than the model reads, of those that were embedded.
    pub truncated: Vec<DocumentId>,
}

/// A document that is patched, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Original {
    /// The document.
    pub document: StoredDocument,
    /// The change that wrote it.
    pub seq: Seq,
    /// As stored.
    pub vectors: DocumentVectors,
}

/// What patches make of documents as they stood at one moment.
pub struct Draft {
    /// In the order of the patches, as are all others.
    pub originals: Vec<Original>,
    /// The new documents.
    pub prepared: Vec<Prepared>,
    /// Their vectors.
    pub made: Made,
}

impl Original {
    /// Memory that it takes, about, in bytes.
    fn bytes(&self) -> usize {
        let (StoredDocument { id, text, metadata, .. }, vectors) = (&self.document, &self.vectors);
        let names = id.as_str().len() + text.as_ref().map_or(0, String::len);
        names + metadata_memory(metadata) + size_of_val(&*vectors.numbers) + size_of_val(&*vectors.chunks)
    }
}

impl Updated {
    /// Of so many documents with vectors that were made so.
    pub(crate) fn of(updated: usize, seq: Seq, made: &Made) -> Self {
        let Made { embedded, cached, ref truncated, .. } = *made;
        Self { updated, seq, embedded, cached, truncated: truncated.clone() }
    }
}

impl Frame<'_> {
    /// Refuses patches that no document takes.
    ///
    /// # Errors
    /// [`CollectionError::TooManyDocuments`], [`CollectionError::DuplicateId`], [`CollectionError::EmptyPatch`].
    pub fn check_patches(&self, patches: &[DocumentPatch]) -> Result<(), CollectionError> {
        check_ids(patches.iter().map(|patch| &patch.id))?;
        match patches.iter().find(|patch| patch.is_empty()) {
            Some(patch) => Err(CollectionError::EmptyPatch { id: patch.id.clone() }),
            None => Ok(()),
        }
    }

    /// Takes one document for each patch, as they are read, up to the first that is not there or stands at another seq
    /// than the patch expects, or with which they take too much.
    ///
    /// # Errors
    /// [`CollectionError::DocumentNotFound`], [`CollectionError::SeqConflict`], [`CollectionError::TooLong`], and those
    /// of `originals`.
    pub fn take_originals(
        &self,
        patches: &[DocumentPatch],
        originals: impl IntoIterator<Item = Result<Option<Original>, CollectionError>>,
    ) -> Result<Vec<Original>, CollectionError> {
        let mut bytes = 0;
        let check = |(patch, original): (&DocumentPatch, Result<Option<Original>, CollectionError>)| {
            let id = patch.id.clone();
            let Some(original) = original? else {
                return Err(CollectionError::DocumentNotFound { name: self.name().clone(), id });
            };
            let expected: IfSeq = patch.if_seq.map(|seq| (id, seq)).into_iter().collect();
            check_if_seq(&expected, &patch.id, original.seq)?;
            bytes += original.bytes();
            if bytes > MAX_PATCHED_BYTES {
                let what = "all that one request patches, in memory (send fewer documents at once),".to_owned();
                return Err(CollectionError::TooLong { what, got: bytes, max: MAX_PATCHED_BYTES });
            }
            Ok(original)
        };
        patches.iter().zip(originals).map(check).collect()
    }

    /// Works patches out, and embeds what changes. `originals`: as [`Frame::take_originals`] returns them.
    ///
    /// # Errors
    /// As of an upsert of the whole documents.
    pub fn draft(&self, patches: &[DocumentPatch], originals: Vec<Original>) -> Result<Draft, CollectionError> {
        let (prepared, known) = self.merge(patches, &originals)?;
        let made = self.make_vectors(&prepared, known)?;
        Ok(Draft { originals, prepared, made })
    }

    /// Works patches out again where other documents stand there than in an earlier draft, without the model: `None`
    /// where it is needed, since another text has to be embedded than before.
    ///
    /// # Errors
    /// As [`Frame::draft`].
    pub fn draft_again(
        &self,
        patches: &[DocumentPatch],
        originals: Vec<Original>,
        earlier: &Draft,
    ) -> Result<Option<Draft>, CollectionError> {
        let (prepared, mut known) = self.merge(patches, &originals)?;
        let before = earlier.prepared.iter().zip(&earlier.made.vectors);
        for ((new, known), (old, vectors)) in prepared.iter().zip(&mut known).zip(before) {
            if known.is_some() || !new.wants_vector() {
                continue;
            }
            if !old.wants_vector() || old.document.text != new.document.text || old.parts != new.parts {
                return Ok(None);
            }
            *known = Some(vectors.clone());
        }
        let Made { vectors, .. } = self.make_vectors(&prepared, known)?;
        let Made { embedded, cached, ref truncated, .. } = earlier.made;
        let made = Made { vectors, embedded, cached, truncated: truncated.clone() };
        Ok(Some(Draft { originals, prepared, made }))
    }

    /// The whole documents that patches make, and the vectors that they keep.
    fn merge(
        &self,
        patches: &[DocumentPatch],
        originals: &[Original],
    ) -> Result<(Vec<Prepared>, Vec<Option<Known>>), CollectionError> {
        let mut documents = patches
            .iter()
            .zip(originals)
            .map(|(patch, original)| self.merge_one(patch, original))
            .collect::<Result<Vec<_>, _>>()?;
        self.check_documents(&documents)?;
        // What stays was checked when it was written, and is taken from the original as it is.
        for ((document, patch), original) in documents.iter_mut().zip(patches).zip(originals) {
            if keeps_own_vectors(patch, original) {
                document.vector = Some(Vec::new());
            }
        }
        let prepared = self.prepare_documents(documents)?;
        let known = prepared.iter().zip(patches).zip(originals).map(|((new, patch), original)| {
            if keeps_own_vectors(patch, original) {
                return own_vectors(original, new).map(|vectors| Some((vectors, EmbeddingState::Ready)));
            }
            let is_same = new.wants_vector() && self.is_same_text(&original.document, new)?;
            Ok(is_same.then(|| (original.vectors.clone(), EmbeddingState::Embedded)))
        });
        let known = known.collect::<Result<_, _>>()?;
        Ok((prepared, known))
    }

    fn merge_one(&self, patch: &DocumentPatch, original: &Original) -> Result<NewDocument, CollectionError> {
        let StoredDocument { id, text, metadata, .. } = &original.document;
        let mut metadata = metadata.clone();
        merge_patch(&mut metadata, patch.metadata.clone());
        let is_made = self.definition().template.is_some();
        let text = match &patch.text {
            Edit::Set(text) => Some(text.clone()),
            Edit::Remove if is_made => return Err(CollectionError::TextIsMade { id: id.clone() }),
            Edit::Remove => None,
            // The template makes it of the new metadata.
            Edit::Keep if is_made => None,
            Edit::Keep => text.clone(),
        };
        let vector = match &patch.vector {
            Edit::Set(vector) => Some(vector.clone()),
            Edit::Keep | Edit::Remove => None,
        };
        Ok(NewDocument { id: id.clone(), text, metadata, vector, chunks: Vec::new() })
    }
}

/// Whether a document goes on with vectors that came with it.
fn keeps_own_vectors(patch: &DocumentPatch, original: &Original) -> bool {
    patch.vector == Edit::Keep && original.document.embedding != EmbeddingState::Embedded
}

/// A document's own vectors beside a text that may have changed: one vector is of all of it, as before.
///
/// # Errors
/// [`CollectionError::Chunks`] where chunks have places in another text.
fn own_vectors(original: &Original, new: &Prepared) -> Result<DocumentVectors, CollectionError> {
    let (old, mut vectors) = (&original.document, original.vectors.clone());
    if old.text == new.document.text {
        return Ok(vectors);
    }
    let span_of = |text: Option<&str>| text.map_or(ChunkSpan::NOWHERE, all_of);
    match vectors.chunks.as_mut_slice() {
        [span] if *span == span_of(old.text.as_deref()) => *span = span_of(new.document.text.as_deref()),
        spans if spans.iter().any(|span| span.place().is_some()) => {
            let detail = "its chunks came with places in the text, which changes; send \"vector\": null to have the new \
                          text split, a \"vector\" for all of it, or the whole document with new \"chunks\"";
            return Err(CollectionError::Chunks { id: old.id.clone(), detail: detail.to_owned() });
        }
        _ => {}
    }
    Ok(vectors)
}

impl Collection {
    /// Changes parts of documents, all or none of them: what a patch does not name stays, whatever others write
    /// meanwhile. On return the changes are durable and every later read sees them.
    ///
    /// # Errors
    /// [`CollectionError`], as of an upsert of the whole documents, and [`CollectionError::DocumentNotFound`],
    /// [`CollectionError::SeqConflict`], [`CollectionError::Overtaken`]; a refused request changes nothing.
    pub fn patch(&self, patches: &[DocumentPatch]) -> Result<Updated, CollectionError> {
        self.check_exists()?;
        let frame = self.frame();
        frame.check_patches(patches)?;
        let Some(first) = patches.first() else {
            return Ok(Updated::of(0, self.state.last_seq(), &Made::default()));
        };
        for _ in 0..MAX_DRAFTS {
            let draft = frame.draft(patches, self.originals(patches, Vec::new())?)?;
            if let Some(updated) = self.commit_draft(patches, draft)? {
                return Ok(updated);
            }
        }
        Err(CollectionError::Overtaken { id: first.id.clone() })
    }

    /// Writes what patches make of what stands there, when no other change can come between. `None` where that has a
    /// text to be embedded that the draft has not.
    fn commit_draft(&self, patches: &[DocumentPatch], mut draft: Draft) -> Result<Option<Updated>, CollectionError> {
        self.state.wait_for_room()?;
        let _committing = self.state.commit_alone();
        let drafted: Vec<Seq> = draft.originals.iter().map(|original| original.seq).collect();
        let originals = self.originals(patches, std::mem::take(&mut draft.originals))?;
        let draft = if originals.iter().map(|original| original.seq).eq(drafted) {
            Draft { originals, ..draft }
        } else {
            match self.frame().draft_again(patches, originals, &draft)? {
                Some(draft) => draft,
                None => return Ok(None),
            }
        };
        let Draft { originals, prepared, mut made } = draft;
        let now = now_ms();
        let written = prepared.into_iter().zip(std::mem::take(&mut made.vectors)).zip(&originals);
        let documents =
            written.map(|((new, vectors), old)| logged(new, vectors, old.document.created_at_ms, now)).collect();
        let seq = self.commit_upsert(documents)?;
        Ok(Some(Updated::of(originals.len(), seq, &made)))
    }

    /// Reads the documents of patches. `before`: what was read of them earlier, if anything, in the same order; a
    /// document whose seq is the same is the same, and is not read again.
    fn originals(&self, patches: &[DocumentPatch], before: Vec<Original>) -> Result<Vec<Original>, CollectionError> {
        let mut before = before.into_iter();
        let read = |patch: &DocumentPatch| -> Result<_, CollectionError> {
            let before = before.next();
            let Some(place) = self.find(&patch.id)? else { return Ok(None) };
            let seq = place.seq()?;
            if let Some(same) = before.filter(|before| before.seq == seq) {
                return Ok(Some(same));
            }
            let vectors = DocumentVectors { numbers: place.vectors()?.to_vec(), chunks: place.chunks()? };
            Ok(Some(Original { document: place.document()?, seq, vectors }))
        };
        self.frame().take_originals(patches, patches.iter().map(read))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::collection::ChunkRequest;
    use crate::types::{Chunk, CollectionName, Document, Metadata, Value};
    use crate::{Database, DefinitionRequest};

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    fn metadata(fields: &[(&str, Value)]) -> Metadata {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn patch(key: &str, fields: &[(&str, Value)]) -> DocumentPatch {
        DocumentPatch { metadata: metadata(fields), ..DocumentPatch::new(id(key)) }
    }

    fn document(key: &str, n: i64) -> NewDocument {
        let metadata = metadata(&[("n", Value::Int(n))]);
        NewDocument { metadata, vector: Some(vec![1.0, n as f32]), ..NewDocument::from_text(id(key), key) }
    }

    fn open(directory: &tempfile::TempDir) -> (Database, Collection) {
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("c").unwrap();
        let collection = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        (database, collection)
    }

    fn get(collection: &Collection, key: &str) -> Document {
        collection.get(&id(key)).unwrap().unwrap()
    }

    #[test]
    fn what_is_not_named_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        collection.upsert(vec![document("a", 1), document("b", 2)]).unwrap();
        let before = get(&collection, "a");
        let updated = collection.patch(&[patch("a", &[("m", Value::Bool(true))])]).unwrap();
        let counts = (updated.updated, updated.embedded, updated.cached);
        assert_eq!((counts, updated.truncated), ((1, 0, 0), vec![]));
        let after = get(&collection, "a");
        assert_eq!(after.stored.metadata, metadata(&[("m", Value::Bool(true)), ("n", Value::Int(1))]));
        assert_eq!((&after.vector, &after.stored.text), (&before.vector, &before.stored.text));
        assert_eq!((after.stored.created_at_ms, after.seq), (before.stored.created_at_ms, updated.seq));
        assert_eq!(after.stored.embedding, EmbeddingState::Ready);

        let edited = DocumentPatch { text: Edit::Set("x".into()), ..patch("a", &[("n", Value::Null)]) };
        collection.patch(&[edited]).unwrap();
        let edited = get(&collection, "a");
        assert_eq!((edited.stored.text.as_deref(), &edited.vector), (Some("x"), &before.vector));
        assert_eq!(edited.stored.metadata, metadata(&[("m", Value::Bool(true))]));
        let turned =
            DocumentPatch { text: Edit::Remove, vector: Edit::Set(vec![0.0, 2.0]), ..DocumentPatch::new(id("a")) };
        collection.patch(&[turned]).unwrap();
        assert_eq!((get(&collection, "a").stored.text, get(&collection, "a").vector), (None, vec![0.0, 1.0]));
        assert_eq!(get(&collection, "b").seq, before.seq);
        assert_eq!(collection.stats().documents, 2);
    }

    #[test]
    fn a_refused_request_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        collection.upsert(vec![document("a", 1), document("b", 2)]).unwrap();
        let (seq, good) = (get(&collection, "a").seq, patch("a", &[("m", Value::Int(1))]));
        let with = |bad: DocumentPatch| collection.patch(&[good.clone(), bad]).unwrap_err();
        let missing = with(patch("nobody", &[("m", Value::Int(1))]));
        let is_missing = matches!(&missing, CollectionError::DocumentNotFound { id, .. } if id.as_str() == "nobody");
        assert!(is_missing, "{missing}");
        let empty = with(DocumentPatch { if_seq: Some(seq), ..DocumentPatch::new(id("b")) });
        assert!(matches!(empty, CollectionError::EmptyPatch { .. }), "{empty}");
        let twice = with(patch("a", &[("m", Value::Int(2))]));
        assert!(matches!(twice, CollectionError::DuplicateId { .. }), "{twice}");
        let late = with(DocumentPatch { if_seq: Some(Seq(7_000)), ..patch("b", &[("m", Value::Int(1))]) });
        let is_late = matches!(&late, CollectionError::SeqConflict { stands, .. } if *stands == seq);
        assert!(is_late, "{late}");
        assert!(late.to_string().contains("\"b\" at seq 7000, and it stands at seq"), "{late}");
        let long = with(DocumentPatch { vector: Edit::Set(vec![1.0]), ..DocumentPatch::new(id("b")) });
        assert!(matches!(long, CollectionError::DocumentVector { .. }), "{long}");
        let bare = with(DocumentPatch { vector: Edit::Remove, ..DocumentPatch::new(id("b")) });
        assert!(matches!(bare, CollectionError::NoModel { .. }), "{bare}");
        let bare = with(DocumentPatch { text: Edit::Remove, vector: Edit::Remove, ..DocumentPatch::new(id("b")) });
        assert!(matches!(bare, CollectionError::NothingToIndex { .. }), "{bare}");
        let large = with(patch("b", &[("m", Value::String("x".repeat(1 << 20)))]));
        assert!(matches!(large, CollectionError::TooLong { .. }), "{large}");
        assert_eq!((get(&collection, "a").seq, get(&collection, "b").seq), (seq, seq));
        assert_eq!(collection.patch(&[]).unwrap().updated, 0);
    }

    #[test]
    fn patches_of_one_document_at_the_same_time_all_take_effect() {
        const THREADS: usize = 8;
        const PATCHES: usize = 25;
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        collection.upsert(vec![document("a", 1)]).unwrap();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let collection = &collection;
                scope.spawn(move || {
                    for n in 0..PATCHES {
                        let field = format!("{thread}.{n}");
                        collection.patch(&[patch("a", &[(&field, Value::Int(n as i64))])]).unwrap();
                    }
                });
            }
        });
        assert_eq!(get(&collection, "a").stored.metadata.len(), 1 + THREADS * PATCHES);
    }

    #[test]
    fn a_write_waits_for_few_of_the_patches_that_follow_each_other_without_a_pause() {
        const PATCHES: usize = 1_000;
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        collection.upsert(vec![document("a", 1), document("b", 1)]).unwrap();
        let (patched, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let waited_for = thread::scope(|scope| {
            let patching = ["a", "b"].map(|key| {
                let (collection, patched, done) = (&collection, &patched, &done);
                scope.spawn(move || {
                    for n in (0..PATCHES).take_while(|_| !done.load(Ordering::SeqCst)) {
                        collection.patch(&[patch(key, &[("m", Value::Int(n as i64))])]).unwrap();
                        patched.fetch_add(1, Ordering::SeqCst);
                    }
                })
            });
            while patched.load(Ordering::SeqCst) < 10 && !patching.iter().any(thread::ScopedJoinHandle::is_finished) {
                thread::yield_now();
            }
            collection.upsert(vec![document("c", 1)]).unwrap();
            done.store(true, Ordering::SeqCst);
            patched.load(Ordering::SeqCst)
        });
        assert!(waited_for < 2 * PATCHES - 10, "it waited for {waited_for} patches");
    }

    #[test]
    fn documents_that_take_too_much_together_are_refused_before_all_are_read() {
        const DOCUMENTS: usize = 65;
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        let keys: Vec<String> = (0..DOCUMENTS).map(|n| format!("{n:02}")).collect();
        let long = |key: &String| NewDocument { text: Some("x".repeat(1 << 20)), ..document(key, 1) };
        for part in keys.chunks(40) {
            collection.upsert(part.iter().map(long).collect()).unwrap();
        }
        let seqs = || keys.iter().map(|key| get(&collection, key).seq).collect::<Vec<_>>();
        let before = seqs();
        let mut patches: Vec<_> = keys.iter().map(|key| patch(key, &[("m", Value::Int(1))])).collect();
        // As far as it is not read, nobody knows that it is not there.
        patches.push(patch("nobody", &[("m", Value::Int(1))]));
        match collection.patch(&patches) {
            Err(CollectionError::TooLong { got, max, .. }) => {
                assert!(max == MAX_PATCHED_BYTES && got > max && got < max + (2 << 20), "{got}");
            }
            result => panic!("{result:?}"),
        }
        assert_eq!(seqs(), before);
        patches.truncate(DOCUMENTS - 2);
        assert_eq!(collection.patch(&patches).unwrap().updated, DOCUMENTS - 2);
    }

    #[test]
    fn a_draft_reads_again_what_was_replaced_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        collection.upsert(vec![document("a", 1), document("b", 1)]).unwrap();
        let patches = [patch("a", &[("m", Value::Int(1))]), patch("b", &[("m", Value::Int(1))])];
        let mut before = collection.originals(&patches, Vec::new()).unwrap();
        collection.upsert(vec![document("b", 2)]).unwrap();
        // Both as they were never written, so that it shows whence they come.
        before.iter_mut().for_each(|original| original.document.text = Some("before".into()));
        let now = collection.originals(&patches, before).unwrap();
        let texts: Vec<_> = now.iter().map(|original| original.document.text.as_deref()).collect();
        assert_eq!(texts, [Some("before"), Some("b")]);
    }

    #[test]
    fn a_draft_of_what_was_replaced_is_worked_out_again() {
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        collection.upsert(vec![document("a", 1)]).unwrap();
        let patches = [patch("a", &[("m", Value::Int(1))])];
        let draft = |patches: &[DocumentPatch]| {
            collection.frame().draft(patches, collection.originals(patches, Vec::new()).unwrap()).unwrap()
        };
        let overtaken = draft(&patches);
        collection.upsert(vec![document("a", 5)]).unwrap();
        assert!(collection.commit_draft(&patches, overtaken).unwrap().is_some());
        let both = metadata(&[("m", Value::Int(1)), ("n", Value::Int(5))]);
        assert_eq!((get(&collection, "a").stored.metadata, get(&collection, "a").seq), (both, Seq(4)));

        let overtaken = draft(&patches);
        collection.delete(&[id("a")]).unwrap();
        let gone = collection.commit_draft(&patches, overtaken).unwrap_err();
        assert!(matches!(gone, CollectionError::DocumentNotFound { .. }), "{gone}");
        collection.upsert(vec![document("a", 6)]).unwrap();
        let expecting = [DocumentPatch { if_seq: Some(get(&collection, "a").seq), ..patches[0].clone() }];
        let overtaken = draft(&expecting);
        collection.upsert(vec![document("a", 7)]).unwrap();
        let late = collection.commit_draft(&expecting, overtaken).unwrap_err();
        assert!(matches!(late, CollectionError::SeqConflict { .. }), "{late}");
        assert_eq!(get(&collection, "a").stored.metadata, metadata(&[("n", Value::Int(7))]));
    }

    #[test]
    fn an_upsert_goes_by_the_seq_that_it_expects() {
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        let at = |key: &str, seq: u64| IfSeq::from([(id(key), Seq(seq))]);
        let first = collection.upsert_if(vec![document("a", 1)], &at("a", 0)).unwrap().seq;
        for (expected, key) in [(0, "a"), (first.0 + 1, "a"), (first.0, "b")] {
            let both = vec![document("a", 2), document("b", 2)];
            let refused = collection.upsert_if(both, &at(key, expected)).unwrap_err();
            assert!(matches!(refused, CollectionError::SeqConflict { .. }), "{expected}: {refused}");
        }
        assert_eq!((get(&collection, "a").seq, collection.stats().documents), (first, 1));
        let second = collection.upsert_if(vec![document("a", 2), document("b", 2)], &at("a", first.0)).unwrap().seq;
        assert_eq!((get(&collection, "a").seq, get(&collection, "b").seq), (second, second));
        // What is gone may be made anew.
        collection.delete(&[id("a")]).unwrap();
        collection.upsert_if(vec![document("a", 3)], &at("a", 0)).unwrap();
    }

    #[test]
    fn of_writers_that_expect_the_same_one_wins() {
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 20;
        let directory = tempfile::tempdir().unwrap();
        let (_database, collection) = open(&directory);
        let count = |key: &str| match get(&collection, key).stored.metadata["n"] {
            Value::Int(n) => n,
            _ => panic!("it is no number"),
        };
        let made = thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (collection, count) = (&collection, &count);
                    scope.spawn(move || {
                        let new = IfSeq::from([(id("a"), Seq(0))]);
                        let made = collection.upsert_if(vec![document("a", 0)], &new).is_ok();
                        for _ in 0..ROUNDS {
                            // Half of them patch, the others replace.
                            loop {
                                let seq = get(collection, "a").seq;
                                let n = count("a") + 1;
                                let written = match thread % 2 {
                                    0 => {
                                        let counted = patch("a", &[("n", Value::Int(n))]);
                                        collection.patch(&[DocumentPatch { if_seq: Some(seq), ..counted }]).map(drop)
                                    }
                                    _ => {
                                        let expected = IfSeq::from([(id("a"), seq)]);
                                        collection.upsert_if(vec![document("a", n)], &expected).map(drop)
                                    }
                                };
                                match written {
                                    Ok(()) => break,
                                    Err(CollectionError::SeqConflict { .. }) => {}
                                    Err(other) => panic!("{other}"),
                                }
                            }
                        }
                        made
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).filter(|made| *made).count()
        });
        assert_eq!((made, count("a")), (1, (THREADS * ROUNDS) as i64));
    }

    #[test]
    fn a_document_keeps_its_seq_through_segments_and_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let (database, collection) = open(&directory);
        collection.upsert(vec![document("a", 1)]).unwrap();
        let seq = collection.patch(&[patch("a", &[("m", Value::Int(1))])]).unwrap().seq;
        collection.upsert(vec![document("b", 1)]).unwrap();
        collection.flush().unwrap();
        collection.upsert(vec![document("c", 1)]).unwrap();
        collection.optimise().unwrap();
        assert_eq!(get(&collection, "a").seq, seq);
        drop(collection);
        database.close();
        let (_database, collection) = open(&directory);
        let back = get(&collection, "a");
        assert_eq!((back.seq, back.stored.metadata.len()), (seq, 2));
        let next = DocumentPatch { if_seq: Some(seq), ..patch("a", &[("m", Value::Int(2))]) };
        assert!(collection.patch(std::slice::from_ref(&next)).unwrap().seq > seq);
        let refused = collection.patch(&[next]).unwrap_err();
        assert!(matches!(refused, CollectionError::SeqConflict { .. }), "{refused}");
    }

    #[test]
    fn chunks_of_ones_own_stay_with_the_text_that_they_have_places_in() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let chunks = Some(ChunkRequest::default());
        let request = DefinitionRequest { chunks, ..DefinitionRequest::vectors(2) };
        let name = CollectionName::new("c").unwrap();
        let collection = database.create_collection(&name, &request).unwrap().collection;
        let chunk = |span: Option<(u32, u32)>, vector: [f32; 2]| Chunk {
            span: span.map(|(start, end)| ChunkSpan { start, end }),
            vector: vector.to_vec(),
        };
        let placed = vec![chunk(Some((0, 2)), [1.0, 0.0]), chunk(Some((2, 4)), [0.0, 1.0])];
        let unplaced = vec![chunk(None, [1.0, 0.0]), chunk(None, [0.0, 1.0])];
        let of = |key: &str, chunks: Vec<Chunk>| NewDocument { chunks, ..NewDocument::from_text(id(key), "text") };
        let one = of("one", vec![chunk(None, [1.0, 0.0])]);
        collection.upsert(vec![of("placed", placed), of("unplaced", unplaced), one, document("whole", 0)]).unwrap();
        for key in ["placed", "unplaced", "one", "whole"] {
            let before = get(&collection, key).chunks;
            collection.patch(&[patch(key, &[("m", Value::Int(1))])]).unwrap();
            assert_eq!(get(&collection, key).chunks, before, "{key}");
            let longer = DocumentPatch { text: Edit::Set("another text".into()), ..DocumentPatch::new(id(key)) };
            match (key, collection.patch(&[longer])) {
                ("placed", Err(refused)) => {
                    assert!(matches!(refused, CollectionError::Chunks { .. }), "{refused}");
                    assert_eq!(get(&collection, key).stored.text.as_deref(), Some("text"));
                }
                ("unplaced" | "one", Ok(_)) => assert_eq!(get(&collection, key).chunks, before),
                ("whole", Ok(_)) => assert_eq!(get(&collection, key).chunks, [chunk(Some((0, 12)), [1.0, 0.0])]),
                (_, result) => panic!("{key}: {result:?}"),
            }
        }
    }
}
