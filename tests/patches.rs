//! Patches in a store with a model: what is embedded again, what stays, what is kept out, what a restore leaves.

use std::collections::BTreeMap;
use std::path::Path;

use pannier::collection::ChunkRequest;
use pannier::embed::InputKind;
use pannier::snapshot::{self, SnapshotName, Source};
use pannier::types::{
    DocumentPatch, Edit, FieldsTemplate, GuardAction, GuardDefinition, Metadata, NewDocument, PersonalData, Seq,
    TemplateDefinition, Value,
};
use pannier::{Collection, CollectionError, Database, DefinitionRequest, Options};
use tempfile::TempDir;

use crate::support::model::{SMALL_DIM, SMALL_MODEL, install_small_model};
use crate::support::{id, name};

/// A store without the cache of vectors.
fn open(root: &Path, models: &str) -> Database {
    let options = Options { models_dir: Some(root.join(models)), vector_cache_bytes: Some(0), ..Options::default() };
    Database::open_with(root.join("data"), options).unwrap()
}

fn store(request: DefinitionRequest) -> (TempDir, Database, Collection) {
    let root = tempfile::tempdir().unwrap();
    install_small_model(&root.path().join("models"));
    let database = open(root.path(), "models");
    let request = DefinitionRequest { model: Some(SMALL_MODEL.into()), ..request };
    let rows = database.create_collection(&name("c"), &request).unwrap().collection;
    (root, database, rows)
}

fn template(exclude: &str) -> DefinitionRequest {
    let fields = FieldsTemplate { only: Vec::new(), exclude: vec![exclude.to_owned()], weights: BTreeMap::new() };
    DefinitionRequest { template: Some(TemplateDefinition::Fields(fields)), ..Default::default() }
}

fn strings(fields: &[(&str, &str)]) -> Metadata {
    fields.iter().map(|(name, value)| ((*name).to_owned(), Value::String((*value).to_owned()))).collect()
}

fn row(key: &str, fields: &[(&str, &str)]) -> NewDocument {
    NewDocument { id: id(key), text: None, metadata: strings(fields), vector: None, chunks: Vec::new() }
}

fn patch(key: &str, fields: &[(&str, &str)]) -> DocumentPatch {
    DocumentPatch { metadata: strings(fields), ..DocumentPatch::new(id(key)) }
}

/// What was embedded by the model, and what was known.
#[track_caller]
fn patched(rows: &Collection, patch: DocumentPatch) -> (usize, usize) {
    let updated = rows.patch(&[patch]).unwrap();
    (updated.embedded, updated.cached)
}

#[test]
fn a_text_is_embedded_again_where_it_changes() {
    let (root, database, rows) = store(DefinitionRequest::default());
    rows.upsert(vec![NewDocument::from_text(id("a"), "a b"), NewDocument::from_text(id("b"), "c")]).unwrap();
    let before = rows.get(&id("a")).unwrap().unwrap();
    assert_eq!(patched(&rows, patch("a", &[("m", "1")])), (0, 1));
    let text = |text: &str| DocumentPatch { text: Edit::Set(text.to_owned()), ..DocumentPatch::new(id("a")) };
    assert_eq!(patched(&rows, text("a b")), (0, 1), "it is the same");
    assert_eq!(rows.get(&id("a")).unwrap().unwrap().vector, before.vector);
    assert_eq!(patched(&rows, text("c")), (1, 0));
    let of = |key: &str| rows.get(&id(key)).unwrap().unwrap();
    assert_eq!(of("a").vector, of("b").vector);
    assert_eq!(
        (of("a").stored.metadata, of("a").stored.created_at_ms),
        (strings(&[("m", "1")]), { before.stored.created_at_ms })
    );
    let bare = DocumentPatch { text: Edit::Remove, ..DocumentPatch::new(id("a")) };
    let refused = rows.patch(&[bare]).unwrap_err();
    assert!(matches!(refused, CollectionError::NothingToIndex { .. }), "{refused}");

    // An own vector stays until it is named.
    let mut own = vec![0.0; SMALL_DIM];
    own[0] = 1.0;
    let owning = DocumentPatch { vector: Edit::Set(own.clone()), ..DocumentPatch::new(id("a")) };
    assert_eq!(patched(&rows, owning), (0, 0));
    assert_eq!(patched(&rows, text("a d")), (0, 0));
    assert_eq!((of("a").vector, of("a").stored.text.as_deref()), (own, Some("a d")));
    let disowning = DocumentPatch { vector: Edit::Remove, ..text("c") };
    assert_eq!(patched(&rows, disowning), (1, 0));
    assert_eq!(of("a").vector, of("b").vector);
    let again = DocumentPatch { vector: Edit::Remove, ..DocumentPatch::new(id("a")) };
    assert_eq!(patched(&rows, again), (0, 1), "it is the model's already");
    let vector = of("a").vector;
    drop(rows);
    database.close();

    // Without an installed model, a call of it is an error.
    let database = open(root.path(), "no-models");
    let rows = database.collection(&name("c")).unwrap();
    let back = rows.get(&id("a")).unwrap().unwrap();
    assert_eq!((&back.vector, &back.stored.metadata), (&vector, &strings(&[("m", "1")])));
    rows.flush().unwrap();
    assert_eq!(patched(&rows, patch("a", &[("m", "2")])), (0, 1), "of a segment, too");
    let refused = rows.patch(&[text("new")]).unwrap_err();
    assert!(matches!(refused, CollectionError::Embed(_)), "{refused}");
    assert_eq!(rows.get(&id("a")).unwrap().unwrap().vector, vector);
}

#[test]
fn a_made_text_is_embedded_again_where_its_fields_change() {
    let (_root, database, rows) = store(template("views"));
    rows.upsert(vec![row("a", &[("name", "a b"), ("views", "1")])]).unwrap();
    assert_eq!(patched(&rows, patch("a", &[("views", "2")])), (0, 1));
    assert_eq!(patched(&rows, patch("a", &[("name", "a c")])), (1, 0));
    let a = rows.get(&id("a")).unwrap().unwrap();
    assert_eq!(a.stored.text.as_deref(), Some("name: a c."));
    assert_eq!(a.stored.metadata, strings(&[("name", "a c"), ("views", "2")]));
    let model = database.models().load(SMALL_MODEL).unwrap();
    let wanted = model.embed(&["name: a c."], InputKind::Document).unwrap().vectors.remove(0);
    assert!(a.vector.iter().zip(&wanted).all(|(x, y)| (x - y).abs() < 1e-6));
    for text in [Edit::Set("mine".to_owned()), Edit::Remove] {
        let refused = rows.patch(&[DocumentPatch { text, ..DocumentPatch::new(id("a")) }]).unwrap_err();
        assert!(matches!(refused, CollectionError::TextIsMade { .. }), "{refused}");
    }
    // An own vector stays beside a text that is made anew.
    let own = DocumentPatch { vector: Edit::Set(a.vector.clone()), ..patch("a", &[("name", "d")]) };
    assert_eq!(patched(&rows, own), (0, 0));
    assert_eq!(patched(&rows, patch("a", &[("name", "d d")])), (0, 0));
    let a = rows.get(&id("a")).unwrap().unwrap();
    assert_eq!(a.stored.text.as_deref(), Some("name: d d."));
}

#[test]
fn patches_whose_text_is_made_of_all_of_them_are_none_of_them_lost() {
    const THREADS: usize = 3;
    const PATCHES: usize = 4;
    let (_root, database, rows) = store(template("views"));
    rows.upsert(vec![row("a", &[("name", "a")])]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let rows = &rows;
            scope.spawn(move || {
                for n in 0..PATCHES {
                    let patch = patch("a", &[(&format!("f{thread}{n}"), "b")]);
                    // Overtaken ten times: as a client, it tries again.
                    while let Err(refused) = rows.patch(std::slice::from_ref(&patch)) {
                        assert!(matches!(refused, CollectionError::Overtaken { .. }), "{refused}");
                    }
                }
            });
        }
    });
    let a = rows.get(&id("a")).unwrap().unwrap();
    assert_eq!(a.stored.metadata.len(), 1 + THREADS * PATCHES);
    let text = a.stored.text.unwrap();
    assert!((0..THREADS).all(|thread| text.contains(&format!("f{thread}3: b."))), "{text}");
    let model = database.models().load(SMALL_MODEL).unwrap();
    let wanted = model.embed(&[text.as_str()], InputKind::Document).unwrap().vectors.remove(0);
    assert!(a.vector.iter().zip(&wanted).all(|(x, y)| (x - y).abs() < 1e-6), "the vector is that of the last text");
}

#[test]
fn chunks_are_made_again_of_a_new_text() {
    let chunks = Some(ChunkRequest { max_tokens: Some(8), overlap_tokens: Some(2) });
    let (_root, _database, rows) = store(DefinitionRequest { chunks, ..Default::default() });
    let (long, other) = ("a b c d, a b c d. c c c c a a a b b", "d d d d, a a a a. b b b b c c c c d d");
    rows.upsert(vec![NewDocument::from_text(id("a"), long), NewDocument::from_text(id("b"), other)]).unwrap();
    let of = |key: &str| rows.get(&id(key)).unwrap().unwrap().chunks;
    let before = of("a");
    assert!(before.len() >= 3, "{}", before.len());
    assert_eq!(patched(&rows, patch("a", &[("m", "1")])), (0, 1));
    assert_eq!(of("a"), before);
    let rewritten = DocumentPatch { text: Edit::Set(other.to_owned()), ..DocumentPatch::new(id("a")) };
    let (embedded, cached) = patched(&rows, rewritten);
    assert_eq!((of("a"), embedded + cached), (of("b"), of("b").len()));
}

#[test]
fn what_an_upsert_keeps_out_a_patch_does_not_bring_in() {
    let guard =
        |action| GuardDefinition { action, kinds: [PersonalData::Email].into(), allow: ["contact".to_owned()].into() };
    let request = DefinitionRequest { guard: Some(guard(GuardAction::Refuse)), ..template("views") };
    let (_root, database, rows) = store(request);
    rows.upsert(vec![row("a", &[("name", "a")])]).unwrap();
    let seq = rows.get(&id("a")).unwrap().unwrap().seq;
    let refused = rows.patch(&[patch("a", &[("name", "bob@example.com")])]).unwrap_err();
    assert!(matches!(refused, CollectionError::Guard { .. }), "{refused}");
    assert_eq!(rows.get(&id("a")).unwrap().unwrap().seq, seq);
    rows.patch(&[patch("a", &[("contact", "bob@example.com")])]).unwrap();

    let request = DefinitionRequest {
        model: Some(SMALL_MODEL.into()),
        guard: Some(guard(GuardAction::Redact)),
        ..Default::default()
    };
    let rows = database.create_collection(&name("marked"), &request).unwrap().collection;
    rows.upsert(vec![NewDocument::from_text(id("a"), "to ann@example.com")]).unwrap();
    assert_eq!(patched(&rows, patch("a", &[("from", "bob@example.com")])), (0, 1));
    let a = rows.get(&id("a")).unwrap().unwrap().stored;
    assert_eq!((a.text.as_deref(), a.metadata), (Some("to [email]"), strings(&[("from", "[email]")])));
}

#[test]
fn a_document_keeps_its_seq_in_a_snapshot_and_a_restore() {
    let (root, database, rows) = store(DefinitionRequest::default());
    rows.upsert(vec![NewDocument::from_text(id("a"), "a"), NewDocument::from_text(id("b"), "b")]).unwrap();
    let seq = rows.patch(&[patch("a", &[("m", "1")])]).unwrap().seq;
    let snapshot = SnapshotName::new("s").unwrap();
    snapshot::create(&database, Some(snapshot.clone())).unwrap();
    let lost = rows.patch(&[patch("a", &[("m", "2")])]).unwrap().seq;
    drop(rows);
    database.close();
    let data = root.path().join("data");
    snapshot::restore(&data, &Source::Snapshot(snapshot), &mut |_, _| {}).unwrap();
    let database = open(root.path(), "models");
    let rows = database.collection(&name("c")).unwrap();
    assert_eq!(rows.get(&id("a")).unwrap().unwrap().seq, seq);
    let expecting = |seq: Seq| DocumentPatch { if_seq: Some(seq), ..patch("a", &[("m", "3")]) };
    let refused = rows.patch(&[expecting(lost)]).unwrap_err();
    assert!(matches!(refused, CollectionError::SeqConflict { .. }), "{refused}");
    rows.patch(&[expecting(seq)]).unwrap();
}
