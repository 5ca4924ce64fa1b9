//! Patches and expected seqs where several processes write one table.

use std::thread;

use pannier::CollectionError;
use pannier::backend::AnyCollection;
use pannier::types::{Document, DocumentPatch, Edit, IfSeq, Seq, Value};

use super::{Sidecar, not_on_backend};
use crate::support::postgres::{Version, database, server};
use crate::support::{document, id};

fn patch(key: &str, field: &str, n: i64) -> DocumentPatch {
    DocumentPatch { metadata: [(field.to_owned(), Value::Int(n))].into(), ..DocumentPatch::new(id(key)) }
}

fn get(collection: &AnyCollection, key: &str) -> Document {
    collection.get(&id(key)).unwrap().unwrap()
}

/// Tries again where other transactions were in the way three times in a row, as clients do.
fn patient<T>(mut write: impl FnMut() -> Result<T, CollectionError>) -> Result<T, CollectionError> {
    loop {
        match write() {
            Err(CollectionError::Backend { fault: pannier::collection::BackendFault::Busy, .. }) => {}
            done => return done,
        }
    }
}

fn no_patch_of_two_processes_is_lost_on(version: Version) {
    const PATCHES: i64 = 25;
    let postgres = server(version).database();
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    let (a, b) = (one.create(), two.create());
    a.upsert(vec![document("x", &[1.0, 0.0, 0.0], 1), document("y", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let before = get(&a, "x");
    thread::scope(|scope| {
        for (writer, collection) in [&a, &a, &b, &b].into_iter().enumerate() {
            scope.spawn(move || {
                for n in 0..PATCHES {
                    let field = format!("{writer}-{n}");
                    // Named in both orders.
                    let mut both = [patch("x", &field, n), patch("y", &field, n)];
                    if writer % 2 == 1 {
                        both.reverse();
                    }
                    patient(|| collection.patch(&both)).unwrap();
                }
            });
        }
    });
    for key in ["x", "y"] {
        assert_eq!(get(&b, key).stored.metadata.len() as i64, 1 + 4 * PATCHES, "{key}");
    }
    let after = get(&a, "x");
    assert_eq!((&after.vector, &after.stored.text), (&before.vector, &before.stored.text));
    assert_eq!(after.stored.created_at_ms, before.stored.created_at_ms);
    assert!(after.seq > before.seq);
}

#[test]
fn no_patch_of_two_processes_is_lost() {
    no_patch_of_two_processes_is_lost_on(Version::V16);
    no_patch_of_two_processes_is_lost_on(Version::V18);
}

#[test]
fn of_processes_that_expect_the_same_seq_one_wins() {
    const ROUNDS: i64 = 15;
    let postgres = database();
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    let (a, b) = (one.create(), two.create());
    let made = thread::scope(|scope| {
        let writers: Vec<_> = [(&a, 0), (&b, 1), (&a, 2), (&b, 3)]
            .into_iter()
            .map(|(collection, writer)| {
                scope.spawn(move || {
                    let expecting = |seq| IfSeq::from([(id("x"), seq)]);
                    let new = vec![document("x", &[1.0, 0.0, 0.0], 0)];
                    let made = match patient(|| collection.upsert_if(new.clone(), &expecting(Seq(0)))) {
                        Ok(_) => true,
                        Err(CollectionError::SeqConflict { .. }) => false,
                        Err(other) => panic!("{other}"),
                    };
                    for _ in 0..ROUNDS {
                        loop {
                            let read = get(collection, "x");
                            let Some(Value::Int(n)) = read.stored.metadata.get("group") else { panic!("no group") };
                            let next = n + 1;
                            let written = match writer {
                                0 | 1 => {
                                    let counted = patch("x", "group", next);
                                    let counted = [DocumentPatch { if_seq: Some(read.seq), ..counted }];
                                    patient(|| collection.patch(&counted)).map(drop)
                                }
                                _ => {
                                    let next = vec![document("x", &[1.0, 0.0, 0.0], next)];
                                    let expecting = expecting(read.seq);
                                    patient(|| collection.upsert_if(next.clone(), &expecting)).map(drop)
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
    assert_eq!((made, &get(&a, "x").stored.metadata["group"]), (1, &Value::Int(4 * ROUNDS)));
}

#[test]
fn a_document_keeps_its_seq_and_a_refused_write_changes_nothing() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let a = one.create();
    a.upsert(vec![document("x", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let seq = a.patch(&[patch("x", "m", 1)]).unwrap().seq;
    a.upsert(vec![document("y", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let one = one.again();
    let a = one.create();
    assert_eq!(get(&a, "x").seq, seq);
    let expecting = |key: &str, seq: Seq| IfSeq::from([(id(key), seq)]);
    for (key, expected) in [("x", Seq(0)), ("y", seq), ("z", seq)] {
        let all = ["w", "x", "y", "z"].map(|key| document(key, &[0.0, 1.0, 0.0], 9)).to_vec();
        let refused = a.upsert_if(all, &expecting(key, expected)).unwrap_err();
        let is_it = matches!(&refused, CollectionError::SeqConflict { id, .. } if id.as_str() == key);
        assert!(is_it, "{key}: {refused}");
    }
    let late = DocumentPatch { if_seq: Some(seq), ..patch("y", "m", 2) };
    let refused = a.patch(&[patch("x", "m", 2), late]).unwrap_err();
    assert!(matches!(refused, CollectionError::SeqConflict { .. }), "{refused}");
    let refused = a.patch(&[patch("x", "m", 2), patch("nobody", "m", 2)]).unwrap_err();
    assert!(matches!(refused, CollectionError::DocumentNotFound { .. }), "{refused}");
    let nul = DocumentPatch { text: Edit::Set("a\0b".into()), ..DocumentPatch::new(id("x")) };
    assert!(not_on_backend(a.patch(&[nul])).contains("\"x\""));
    assert_eq!((a.stats().unwrap().documents, get(&a, "x").seq), (2, seq));
    assert_eq!(get(&a, "x").stored.metadata["m"], Value::Int(1));
    assert!(a.upsert_if(vec![document("x", &[0.0, 1.0, 0.0], 3)], &expecting("x", seq)).unwrap().seq > seq);
}

#[test]
fn a_patch_keeps_what_others_changed_by_sql() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let a = one.create();
    a.upsert(vec![document("x", &[1.0, 0.0, 0.0], 1)]).unwrap();
    postgres.run("update pannier.shared set metadata = metadata || '{\"theirs\": 7}' where id = 'x'");
    a.patch(&[patch("x", "ours", 8)]).unwrap();
    let metadata = get(&a, "x").stored.metadata;
    assert_eq!((&metadata["theirs"], &metadata["ours"], metadata.len()), (&Value::Int(7), &Value::Int(8), 3));
    // Numbers of more digits than are read here.
    let (long, rate) = ("12345678901234567890", "0.12345678901234567890");
    postgres.run(&format!(
        "update pannier.shared set metadata = '{{\"n\": {long}, \"in\": {{\"rate\": {rate}, \"gone\": 1}}}}' where id = 'x'"
    ));
    let inner = [("gone".to_owned(), Value::Null), ("new".to_owned(), Value::Int(1))].into();
    let nested =
        DocumentPatch { metadata: [("in".to_owned(), Value::Object(inner))].into(), ..DocumentPatch::new(id("x")) };
    a.patch(&[nested]).unwrap();
    a.patch(&[patch("x", "ours", 9)]).unwrap();
    assert_eq!(
        postgres.value("select metadata::text from pannier.shared where id = 'x'"),
        format!("{{\"n\": {long}, \"in\": {{\"new\": 1, \"rate\": {rate}}}, \"ours\": 9}}")
    );
}

#[test]
fn documents_that_take_too_much_together_are_not_patched() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let a = one.create();
    let keys: Vec<String> = (0..65).map(|n| format!("{n:02}")).collect();
    a.upsert(keys.iter().map(|key| document(key, &[1.0, 0.0, 0.0], 1)).collect()).unwrap();
    postgres.run("update pannier.shared set content = repeat('x ', 1 << 19)");
    let patches: Vec<_> = keys.iter().map(|key| patch(key, "m", 1)).collect();
    let refused = a.patch(&patches).unwrap_err();
    assert!(matches!(refused, CollectionError::TooLong { .. }), "{refused}");
    assert_eq!(get(&a, "00").stored.metadata.len(), 1);
    assert_eq!(a.patch(&patches[..40]).unwrap().updated, 40);
    assert_eq!(get(&a, "39").stored.metadata.len(), 2);
}
