//! Whether a store holds what its clients were told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::workload::{Client, DIM, Model, definition, document, options};
use crate::collection::ListRequest;
use crate::types::{Chain, CollectionName, DocumentId, Query, SearchRequest};
use crate::{Collection, CollectionError, Database};

/// What a collection may hold, one of them.
pub(super) type Allowed<'a> = Vec<&'a Option<Arc<Model>>>;

/// What may be there after `acknowledged` requests of each client: their outcome, or that of the request which was
/// under way too, as a whole.
pub(super) fn allowed<'a>(clients: &'a [Client], acknowledged: &[usize]) -> Vec<Allowed<'a>> {
    let both = |(client, &done): (&'a Client, &usize)| client.states.iter().skip(done).take(2).collect();
    clients.iter().zip(acknowledged).map(both).collect()
}

/// Opens the store, compares, and with `go_on` writes, opens it again and compares once more.
pub(super) fn check(root: &Path, clients: &[Client], allowed: &[Allowed<'_>], go_on: bool) -> Result<(), String> {
    let database = open(root)?;
    let mut found = Vec::new();
    for (client, allowed) in clients.iter().zip(allowed) {
        let name = &client.name;
        let state = read(&database, name)?;
        if !allowed.iter().any(|allowed| allowed.as_deref() == state.as_ref()) {
            return Err(format!("collection {name} is {state:?}, allowed are {allowed:?}"));
        }
        found.push(state);
    }
    if !go_on {
        return Ok(());
    }
    for (client, state) in clients.iter().zip(&mut found) {
        let collection = database.create_collection(&client.name, &definition()).map_err(text)?.collection;
        let model = state.get_or_insert_default();
        if let Some(first) = model.keys().next().cloned() {
            collection.delete(&[DocumentId::new(&first).unwrap()]).map_err(text)?;
            model.remove(&first);
        }
        collection.upsert(vec![document("after", &[1.0; DIM], false)]).map_err(text)?;
        model.insert("after".into(), vec![1.0; DIM]);
    }
    drop(database);
    let database = open(root)?;
    for (client, expected) in clients.iter().zip(&found) {
        let state = read(&database, &client.name)?;
        if state != *expected {
            return Err(format!("after going on, {} is {state:?}, expected {expected:?}", client.name));
        }
    }
    Ok(())
}

fn open(root: &Path) -> Result<Database, String> {
    Database::open_with(root, options()).map_err(text)
}

/// Everything a collection answers, where its answers agree.
pub(super) fn read(database: &Database, name: &CollectionName) -> Result<Option<Model>, String> {
    let collection = match database.collection(name) {
        Ok(collection) => collection,
        Err(CollectionError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(text(error)),
    };
    let listed = list(&collection)?;
    let searched = search(&collection)?;
    if collection.stats().documents != listed.len() as u64 || searched != listed.keys().cloned().collect::<Vec<_>>() {
        return Err(format!("{name} lists {listed:?} and finds {searched:?}"));
    }
    for (id, vector) in &listed {
        let got = collection.get(&DocumentId::new(id).unwrap()).map_err(text)?;
        if got.map(|document| document.vector).as_ref() != Some(vector) {
            return Err(format!("{name} lists {id} and does not get it"));
        }
    }
    Ok(Some(listed))
}

fn list(collection: &Collection) -> Result<Model, String> {
    let page = collection.list(&ListRequest { limit: 100, ..ListRequest::default() }).map_err(text)?;
    let documents =
        page.documents.into_iter().map(|document| (document.stored.id.as_str().to_owned(), document.vector));
    Ok(documents.collect::<BTreeMap<_, _>>())
}

fn search(collection: &Collection) -> Result<Vec<String>, String> {
    let query = Query::Vector(vec![1.0, -2.0, 0.5, 3.0]);
    let request = SearchRequest { exact: true, top_k: 100, ..SearchRequest::new(query) };
    let hits = collection.search(&request).map_err(text)?.hits;
    let mut ids: Vec<_> = hits.iter().map(|hit| hit.id.as_str().to_owned()).collect();
    ids.sort();
    Ok(ids)
}

pub(super) fn text(error: impl std::error::Error) -> String {
    Chain(&error).to_string()
}
