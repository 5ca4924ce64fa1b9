//! Names of collections where the list of those in databases and the store do not agree, or the list cannot be read.

use pannier::backend::AnyCollection;
use pannier::collection::BackendFault;
use pannier::{Database, DefinitionRequest};

use super::{Sidecar, fault};
use crate::support::postgres::database;
use crate::support::{document, id, name};

#[test]
fn a_damaged_list_of_collections_stops_no_other_and_no_name_of_it_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let database = Database::open(&data).unwrap();
    database.create_collection(&name("l"), &DefinitionRequest::vectors(3)).unwrap();
    database.close();
    std::fs::write(data.join("backends.json"), b"{").unwrap();
    let one = Sidecar::over(directory);
    let local = one.collections.create_local(&name("l"), &DefinitionRequest::vectors(3)).unwrap();
    assert!(!local.created);
    local.collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    for refused in [
        fault(one.collections.get(&name("c"))),
        fault(one.collections.create_local(&name("c"), &DefinitionRequest::vectors(3))),
    ] {
        let (kind, detail) = refused;
        assert_eq!(kind, BackendFault::Failed);
        assert!(detail.contains("backends.json"), "{detail}");
    }
    assert_eq!(one.database.collections().len(), 1);
}

#[test]
fn a_name_that_the_store_has_too_is_told_and_neither_is_hidden_nor_dropped() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    one.create().upsert(vec![document("theirs", &[1.0, 0.0, 0.0], 1)]).unwrap();
    // As a restored snapshot brings it back.
    let local = one.database.create_collection(&name("c"), &DefinitionRequest::vectors(3)).unwrap().collection;
    local.upsert(vec![document("ours", &[1.0, 0.0, 0.0], 1)]).unwrap();
    drop(local);
    let one = one.again();
    for refused in [
        fault(one.collections.get(&name("c"))),
        fault(one.collections.create_local(&name("c"), &DefinitionRequest::vectors(3))),
        fault(one.collections.drop_collection(&name("c"), false)),
    ] {
        let (kind, detail) = refused;
        assert_eq!(kind, BackendFault::Conflict);
        assert!(detail.contains("pannier.shared") && detail.contains("keep_table=true"), "{detail}");
    }
    assert_eq!(one.collections.all().len(), 1);
    one.collections.drop_collection(&name("c"), true).unwrap();
    let collection = one.collections.get(&name("c")).unwrap();
    assert!(matches!(collection, AnyCollection::Local(_)), "{:?}", collection.placement());
    assert!(collection.get(&id("ours")).unwrap().is_some());
    assert_eq!(postgres.value("select id from pannier.shared"), "theirs");
    // And once the store's is gone, the table can be taken over again.
    one.collections.drop_collection(&name("c"), false).unwrap();
    assert!(one.create().get(&id("theirs")).unwrap().is_some());
}
