//! Whether a store holds what its clients were told.

use std::path::Path;
use std::sync::Arc;

use super::workload::{Client, DIM, GROUPS, Model, Row, definition, in_group, options};
use crate::collection::ListRequest;
use crate::types::{Chain, CollectionName, Document, DocumentId, Mode, Query, SearchRequest};
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
        let after = Row::new("after", vec![1.0; DIM], 0, client.with_text);
        collection.upsert(vec![after.document("after")]).map_err(text)?;
        model.insert("after".into(), after);
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
    let near = Query::Vector(vec![1.0, -2.0, 0.5, 3.0]);
    let searched = SearchRequest { exact: true, top_k: 100, ..SearchRequest::new(near) };
    let agree = |what: &str, request: &SearchRequest, wanted: &dyn Fn(&Row) -> bool| {
        let found = search(&collection, request)?;
        let wanted: Vec<_> = listed.iter().filter(|(_, row)| wanted(row)).map(|(id, _)| id.clone()).collect();
        match found == wanted {
            true => Ok(()),
            false => Err(format!("{name} lists {listed:?} and finds {found:?} {what}")),
        }
    };
    agree("near a vector", &searched, &|_| true)?;
    for group in 0..GROUPS {
        let filtered = SearchRequest { filter: Some(in_group(group)), ..searched.clone() };
        agree(&format!("in group {group}"), &filtered, &|row| row.is_in(group))?;
    }
    if let Some(words) = listed.values().find_map(|row| row.text.clone())
        && cfg!(feature = "text")
    {
        let version = words.rsplit(' ').next().unwrap_or_default();
        for word in ["words", version] {
            let by_word =
                SearchRequest { mode: Mode::Keyword, refresh: true, ..SearchRequest::new(Query::Text(word.into())) };
            let by_word = SearchRequest { top_k: 100, ..by_word };
            agree(&format!("by {word}"), &by_word, &|row| row.has(word))?;
        }
    }
    if collection.stats().documents != listed.len() as u64 {
        return Err(format!("{name} lists {listed:?} and counts {}", collection.stats().documents));
    }
    for (id, row) in &listed {
        let got = collection.get(&DocumentId::new(id).unwrap()).map_err(text)?;
        if got.map(row_of).as_ref() != Some(row) {
            return Err(format!("{name} lists {id} as {row:?} and does not get it so"));
        }
    }
    Ok(Some(listed))
}

fn list(collection: &Collection) -> Result<Model, String> {
    let page = collection.list(&ListRequest { limit: 100, ..ListRequest::default() }).map_err(text)?;
    Ok(page.documents.into_iter().map(|document| (document.stored.id.as_str().to_owned(), row_of(document))).collect())
}

fn row_of(document: Document) -> Row {
    Row { vector: document.vector, text: document.stored.text, metadata: document.stored.metadata }
}

/// The ids it finds, in order.
fn search(collection: &Collection, request: &SearchRequest) -> Result<Vec<String>, String> {
    let hits = collection.search(request).map_err(text)?.hits;
    let mut ids: Vec<_> = hits.iter().map(|hit| hit.id.as_str().to_owned()).collect();
    ids.sort();
    Ok(ids)
}

pub(super) fn text(error: impl std::error::Error) -> String {
    Chain(&error).to_string()
}
