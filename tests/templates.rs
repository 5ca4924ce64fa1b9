//! Templates and guards in a store: what is embedded, what is not embedded again, what is kept out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pannier::embed::{Compute, InputKind, Precision};
use pannier::types::{
    FieldsTemplate, GuardAction, GuardDefinition, Metadata, Metric, NewDocument, PersonalData, Query, SearchRequest,
    TemplateDefinition, Value, Weight,
};
use pannier::{Collection, CollectionError, Database, DefinitionRequest, Options};
use tempfile::TempDir;

use crate::support::model::{SMALL_DIM, SMALL_MODEL, UNSCALED_MODEL, install_small_model, install_unscaled_model};
use crate::support::{id, name};

/// A store with the small model and without the cache of vectors.
fn open(root: &Path, models: &str) -> Database {
    open_with(root, models, Precision::default())
}

fn open_with(root: &Path, models: &str, precision: Precision) -> Database {
    let models_dir = Some(root.join(models));
    let compute = Compute { precision, ..Compute::default() };
    let options = Options { models_dir, compute, vector_cache_bytes: Some(0), ..Options::default() };
    Database::open_with(root.join("data"), options).unwrap()
}

fn store() -> (TempDir, Database) {
    let root = tempfile::tempdir().unwrap();
    install_small_model(&root.path().join("models"));
    let database = open(root.path(), "models");
    (root, database)
}

fn fields(weights: &[(&str, f64)]) -> TemplateDefinition {
    TemplateDefinition::Fields(FieldsTemplate {
        only: Vec::new(),
        exclude: vec!["updated_at".into()],
        weights: weights.iter().map(|(name, weight)| ((*name).to_owned(), Weight::of(*weight).unwrap())).collect(),
    })
}

fn collection(database: &Database, template: TemplateDefinition) -> Collection {
    let request = DefinitionRequest { model: Some(SMALL_MODEL.into()), template: Some(template), ..Default::default() };
    database.create_collection(&name("c"), &request).unwrap().collection
}

fn row(id_text: &str, fields: &[(&str, &str)]) -> NewDocument {
    let metadata: Metadata =
        fields.iter().map(|(name, value)| ((*name).to_owned(), Value::String((*value).to_owned()))).collect();
    NewDocument { id: id(id_text), text: None, metadata, vector: None, chunks: Vec::new() }
}

#[test]
fn editing_an_excluded_field_calls_no_model() {
    for sealed in [false, true] {
        let (root, database) = store();
        let rows = collection(&database, fields(&[]));
        let written = rows.upsert(vec![row("a", &[("name", "a b"), ("updated_at", "1")])]).unwrap();
        assert_eq!((written.embedded, written.cached), (1, 0));
        let before = rows.get(&id("a")).unwrap().unwrap();
        assert_eq!(before.stored.text.as_deref(), Some("name: a b."));
        if sealed {
            rows.flush().unwrap();
        }
        drop(rows);
        database.close();

        // Without an installed model, a call of it is an error.
        let database = open(root.path(), "no-models");
        let rows = database.collection(&name("c")).unwrap();
        let again = rows.upsert(vec![row("a", &[("name", "a b"), ("updated_at", "2")])]).unwrap();
        assert_eq!((again.embedded, again.cached), (0, 1), "sealed: {sealed}");
        let after = rows.get(&id("a")).unwrap().unwrap();
        assert_eq!((&after.vector, &after.stored.text), (&before.vector, &before.stored.text));
        assert_eq!(after.stored.metadata["updated_at"], Value::String("2".into()));
        assert_eq!(after.stored.created_at_ms, before.stored.created_at_ms);
        let changed = rows.upsert(vec![row("a", &[("name", "a c"), ("updated_at", "2")])]);
        assert!(matches!(changed, Err(CollectionError::Embed(_))), "{:?}", changed.is_ok());
    }
}

#[test]
fn the_same_text_of_other_parts_is_embedded_again() {
    let (_root, database) = store();
    let rows = collection(&database, fields(&[("title", 3.0)]));
    let read = |key: &str| {
        let document = rows.get(&id(key)).unwrap().unwrap();
        (document.stored.text.unwrap(), document.vector)
    };
    rows.upsert(vec![row("a", &[("name", "a"), ("title", "b")])]).unwrap();
    let (text, weighed) = read("a");
    // Of no field that has a weight.
    for key in ["a", "c"] {
        let written = rows.upsert(vec![row(key, &[("name", "a. title: b")])]).unwrap();
        assert_eq!((written.embedded, written.cached), (1, 0), "{key}");
        assert_eq!(read(key).0, text);
    }
    assert_eq!(read("a").1, read("c").1);
    assert_ne!(read("a").1, weighed);
    rows.upsert(vec![row("a", &[("name", "a"), ("title", "b")])]).unwrap();
    assert_eq!(read("a").1, weighed);
}

#[test]
fn a_model_that_changed_neither_writes_nor_searches() {
    let (root, database) = store();
    let request = DefinitionRequest { model: Some(SMALL_MODEL.into()), ..Default::default() };
    let rows = database.create_collection(&name("c"), &request).unwrap().collection;
    let document = |id_text: &str, text: &str| NewDocument::from_text(id(id_text), text);
    rows.upsert(vec![document("a", "a b")]).unwrap();
    let vector = rows.get(&id("a")).unwrap().unwrap().vector;
    drop(rows);
    database.close();

    let search = || SearchRequest::new(Query::Text("a".into()));
    let with_texts = |rows: &Collection| {
        let search_all = rows.search_all(&[search()]).map_err(|(_, error)| error);
        [rows.upsert(vec![document("b", "c")]).map(drop), rows.search(&search()).map(drop), search_all.map(drop)]
    };
    let refuses = |precision, wanted: Option<Precision>| {
        let database = open_with(root.path(), "models", precision);
        let rows = database.collection(&name("c")).unwrap();
        for (n, result) in with_texts(&rows).into_iter().enumerate() {
            let Err(CollectionError::ModelChanged { made_in, .. }) = &result else { panic!("{n}: {result:?}") };
            assert_eq!(*made_in, wanted, "{n}");
        }
        assert_eq!(rows.stats().documents, 1);
        // What needs no model goes on.
        assert_eq!(rows.search(&SearchRequest::new(Query::Vector(vector.clone()))).unwrap().hits.len(), 1);
        let same = rows.upsert(vec![document("a", "a b")]).unwrap();
        assert_eq!((same.embedded, same.cached), (0, 1));
        drop(rows);
        database.close();
    };
    refuses(Precision::Float16, Some(Precision::Float32));
    let model = root.path().join("models").join(SMALL_MODEL);
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let install = |config: String| {
        fs::write(model.join("config.json"), config).unwrap();
        fs::remove_file(model.join("pannier.lock")).unwrap();
    };
    install(config.replace("1e-12", "1e-5"));
    refuses(Precision::default(), None);

    install(config);
    let database = open(root.path(), "models");
    let rows = database.collection(&name("c")).unwrap();
    with_texts(&rows).into_iter().for_each(Result::unwrap);
    assert_eq!(rows.stats().documents, 2);
}

#[test]
fn a_given_vector_is_never_taken_for_the_texts() {
    let (_root, database) = store();
    let rows = collection(&database, fields(&[]));
    let mut given = vec![0.0; SMALL_DIM];
    given[0] = 1.0;
    let document = NewDocument { vector: Some(given.clone()), ..row("a", &[("name", "a")]) };
    assert_eq!(rows.upsert(vec![document]).unwrap().embedded, 0);
    assert_eq!(rows.get(&id("a")).unwrap().unwrap().vector, given);
    assert_eq!(rows.upsert(vec![row("a", &[("name", "a")])]).unwrap().embedded, 1);
    assert_ne!(rows.get(&id("a")).unwrap().unwrap().vector, given);
}

#[test]
fn weighted_fields_are_summed_and_embedded_again_only_when_a_part_changes() {
    let (_root, database) = store();
    let rows = collection(&database, fields(&[("name", 3.0), ("code", 0.5)]));
    let written = rows.upsert(vec![row("a", &[("code", "c d"), ("name", "a"), ("rest", "b")])]).unwrap();
    assert_eq!(written.embedded, 3, "three parts");
    let model = database.models().load(SMALL_MODEL).unwrap();
    let parts = model.embed(&["code: c d.", "name: a.", "rest: b."], InputKind::Document).unwrap().vectors;
    let sum = |i: usize| f64::from(parts[0][i]) * 0.5 + f64::from(parts[1][i]) * 3.0 + f64::from(parts[2][i]);
    let norm = (0..SMALL_DIM).map(|i| sum(i) * sum(i)).sum::<f64>().sqrt();
    let vector = rows.get(&id("a")).unwrap().unwrap().vector;
    for (i, x) in vector.iter().enumerate() {
        assert!((f64::from(*x) - sum(i) / norm).abs() < 1e-5, "component {i}");
    }
    let same = rows.upsert(vec![row("a", &[("code", "c d"), ("name", "a"), ("rest", "b"), ("updated_at", "9")])]);
    assert_eq!((same.as_ref().unwrap().embedded, same.unwrap().cached), (0, 1));
    // The same whole text, divided otherwise.
    let moved = row("a", &[("code", "c d. name: a"), ("rest", "b")]);
    assert_eq!(rows.upsert(vec![moved]).unwrap().embedded, 2);
}

#[test]
fn vectors_of_weighted_fields_have_length_1_whichever_a_document_fills() {
    let root = tempfile::tempdir().unwrap();
    install_unscaled_model(&root.path().join("models"));
    let database = open(root.path(), "models");
    let create = |text: &str, template| {
        let (model, metric) = (Some(UNSCALED_MODEL.into()), Some(Metric::Dot));
        let request = DefinitionRequest { model, metric, template: Some(template), ..Default::default() };
        database.create_collection(&name(text), &request).unwrap().collection
    };
    let norm = |rows: &Collection, text: &str| {
        let vector = rows.get(&id(text)).unwrap().unwrap().vector;
        vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
    };
    let documents = || {
        let (both, named) = (row("both", &[("name", "a"), ("rest", "b c")]), row("named", &[("name", "a")]));
        vec![both, named, row("other", &[("rest", "b c")])]
    };
    let weighted = create("weighted", fields(&[("name", 3.0)]));
    weighted.upsert(documents()).unwrap();
    for text in ["both", "named", "other"] {
        assert!((norm(&weighted, text) - 1.0).abs() < 1e-6, "{text}: {}", norm(&weighted, text));
    }
    // Without weights the model's own lengths stand.
    let plain = create("plain", fields(&[]));
    plain.upsert(documents()).unwrap();
    assert!((norm(&plain, "named") - 1.0).abs() > 0.1, "{}", norm(&plain, "named"));
}

#[test]
fn the_template_makes_the_text_that_is_stored_and_searched() {
    let (root, database) = store();
    let rows = collection(&database, TemplateDefinition::Jinja("{{name}} {{tags}}".into()));
    let mut document = row("a", &[("name", "gulls")]);
    document.metadata.insert("tags".into(), Value::Array(vec![Value::String("sea".into()), Value::Int(3)]));
    rows.upsert(vec![document.clone()]).unwrap();
    let stored = rows.get(&id("a")).unwrap().unwrap().stored;
    assert_eq!(stored.text.as_deref(), Some("gulls sea, 3"));

    // A document that was read can be written back; another text cannot.
    let back = NewDocument { text: stored.text, ..document.clone() };
    assert_eq!(rows.upsert(vec![back]).unwrap().cached, 1);
    let other = NewDocument { text: Some("mine".into()), ..document };
    assert!(matches!(rows.upsert(vec![other]), Err(CollectionError::TextIsMade { .. })));
    assert!(matches!(rows.upsert(vec![row("b", &[])]), Err(CollectionError::NothingToIndex { .. })));

    #[cfg(feature = "text")]
    {
        rows.refresh().unwrap();
        let words =
            SearchRequest { mode: pannier::types::Mode::Keyword, ..SearchRequest::new(Query::Text("sea".into())) };
        assert_eq!(rows.search(&words).unwrap().hits.len(), 1);
    }
    let near = rows.search(&SearchRequest::new(Query::Text("a".into()))).unwrap();
    assert_eq!(near.hits.len(), 1);
    drop(rows);
    database.close();
    let rows = open(root.path(), "models").collection(&name("c")).unwrap();
    assert_eq!(rows.definition().template, Some(TemplateDefinition::Jinja("{{name}} {{tags}}".into())));
}

#[test]
fn a_template_that_cannot_be_read_makes_no_collection() {
    let (_root, database) = store();
    for source in
        ["{{ a", "{% set a = 1 %}{{ a }}", "{% include 'x' %}", "{% if b %}{{ a | e }}{% endif %}", "{{ now() }}"]
    {
        let template = Some(TemplateDefinition::Jinja(source.into()));
        let request = DefinitionRequest { model: Some(SMALL_MODEL.into()), template, ..Default::default() };
        let refused = database.create_collection(&name("c"), &request).map(|created| created.created);
        assert!(matches!(refused, Err(CollectionError::TemplateDefinition { .. })), "{source}");
    }
    assert!(database.collections().is_empty());
}

fn guarded(database: &Database, text: &str, template: TemplateDefinition, action: GuardAction) -> Collection {
    let guard = GuardDefinition { action, kinds: PersonalData::ALL.into(), allow: Default::default() };
    let request = DefinitionRequest {
        model: Some(SMALL_MODEL.into()),
        template: Some(template),
        guard: Some(guard),
        ..Default::default()
    };
    database.create_collection(&name(text), &request).unwrap().collection
}

#[test]
fn personal_data_are_refused_or_marked_before_anything_is_stored() {
    let (_root, database) = store();
    let personal = || row("a", &[("name", "a"), ("note", "ask bob@example.com")]);
    let refusing = guarded(&database, "refusing", fields(&[]), GuardAction::Refuse);
    let error = refusing.upsert(vec![row("b", &[("name", "a")]), personal()]).unwrap_err().to_string();
    assert!(error.contains("\"note\"") && error.contains("email") && !error.contains("bob"), "{error}");
    assert_eq!(refusing.stats().documents, 0, "a refused request changes nothing");

    let redacting = guarded(&database, "redacting", fields(&[]), GuardAction::Redact);
    redacting.upsert(vec![personal()]).unwrap();
    let stored = redacting.get(&id("a")).unwrap().unwrap().stored;
    assert_eq!(stored.text.as_deref(), Some("name: a. note: ask [email]."));
    let wanted = BTreeMap::from([
        ("name".to_owned(), Value::String("a".into())),
        ("note".to_owned(), Value::String("ask [email]".into())),
    ]);
    assert_eq!(stored.metadata, wanted);
}

#[test]
fn personal_data_that_only_the_template_puts_together_stay_out() {
    let (_root, database) = store();
    let template = || TemplateDefinition::Jinja("{{user}}@{{host}}".into());
    let halves = || row("a", &[("user", "bob"), ("host", "example.com")]);
    let refusing = guarded(&database, "refusing", template(), GuardAction::Refuse);
    let error = refusing.upsert(vec![halves()]).unwrap_err().to_string();
    assert!(error.contains("the text that the template makes holds an email") && !error.contains("bob"), "{error}");
    assert_eq!(refusing.stats().documents, 0);

    let redacting = guarded(&database, "redacting", template(), GuardAction::Redact);
    redacting.upsert(vec![halves()]).unwrap();
    let stored = redacting.get(&id("a")).unwrap().unwrap().stored;
    assert_eq!((stored.text.as_deref(), stored.metadata), (Some("[email]"), halves().metadata));

    // Parts are embedded apart from the text.
    let weighted = guarded(&database, "weighted", fields(&[("415", 2.0)]), GuardAction::Redact);
    let inner = |name: &str, value| Value::Object(Metadata::from([(name.to_owned(), value)]));
    let mut document = row("a", &[("name", "b")]);
    document.metadata.insert("415".into(), inner("555", inner("2671", Value::String("a".into()))));
    let preview = weighted.preview(vec![document], None).unwrap().remove(0);
    assert_eq!(preview.text.as_deref(), Some("[phone]: a. name: b."));
    assert_eq!(preview.parts, [("[phone]: a.".to_owned(), 2.0), ("name: b.".to_owned(), 1.0)]);
}

#[test]
fn what_a_guard_allows_stands_in_texts_that_are_made_and_is_written_back_as_it_was_read() {
    let (_root, database) = store();
    let order = Value::Int(4_111_111_111_111_111);
    let mail = |address: &str| Value::Object(Metadata::from([("email".to_owned(), Value::String(address.into()))]));
    let metadata = Metadata::from([
        ("contacts".to_owned(), Value::Array(vec![mail("ann@example.com"), mail("bob@example.com")])),
        ("order".to_owned(), order),
    ]);
    let wanted = "contacts: email: ann@example.com, email: bob@example.com. order: 4111111111111111.";
    for (name_text, action) in [("refusing", GuardAction::Refuse), ("redacting", GuardAction::Redact)] {
        let allow = ["contacts.email", "order"].map(str::to_owned).into();
        let guard = GuardDefinition { action, kinds: PersonalData::ALL.into(), allow };
        let request = DefinitionRequest {
            model: Some(SMALL_MODEL.into()),
            template: Some(fields(&[])),
            guard: Some(guard),
            ..Default::default()
        };
        let rows = database.create_collection(&name(name_text), &request).unwrap().collection;
        rows.upsert(vec![NewDocument { metadata: metadata.clone(), ..row("a", &[]) }]).unwrap();
        let read = rows.get(&id("a")).unwrap().unwrap().stored;
        assert_eq!((read.text.as_deref(), &read.metadata), (Some(wanted), &metadata));
        rows.upsert(vec![NewDocument { text: read.text, metadata: read.metadata, ..row("a", &[]) }]).unwrap();
    }
}
