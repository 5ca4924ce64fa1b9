//! Clients that write to a store while everything that happens to its files is recorded.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use super::random::Random;
use crate::embed::Compute;
use crate::storage::fault::{Event, History};
use crate::types::{CollectionName, DocumentId, Filter, Metadata, Metric, NewDocument, Value};
use crate::{Collection, Database, DefinitionRequest, Options};

pub(super) const DIM: usize = 4;
const IDS: usize = 14;
/// Times that the store is opened, and requests of each client in between.
const OPENINGS: usize = 3;
const REQUESTS: usize = 14;

/// Groups that documents are in, by a field of their metadata.
pub(super) const GROUPS: i64 = 3;

/// What a document holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) vector: Vec<f32>,
    pub(super) text: Option<String>,
    pub(super) metadata: Metadata,
}

/// Id to what it holds.
pub(super) type Model = BTreeMap<String, Row>;

/// A client that sends one request after another to a collection of its own.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) name: CollectionName,
    /// What the collection holds after so many requests; `None` where there is none.
    pub(super) states: Vec<Option<Arc<Model>>>,
    random: Random,
    pub(super) with_text: bool,
}

/// What happened, and what the clients know of it. The mark `client << 32 | n` stands behind the answer to a client's
/// `n`th request.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) events: Vec<Event>,
    pub(super) clients: Vec<Client>,
}

pub(super) fn options() -> Options {
    Options {
        memtable_documents: Some(12),
        vector_cache_bytes: Some(0),
        compute: Compute { threads: NonZeroUsize::new(1), ..Compute::default() },
        ..Options::default()
    }
}

pub(super) fn definition() -> DefinitionRequest {
    DefinitionRequest { metric: Some(Metric::Dot), ..DefinitionRequest::vectors(DIM as u32) }
}

impl Row {
    /// The `version`th of a document; the text and the metadata tell it from every other.
    pub(super) fn new(id: &str, vector: Vec<f32>, version: usize, with_text: bool) -> Self {
        let text = with_text.then(|| format!("words of {id}, version{version}"));
        let version = Value::Int(version as i64);
        let group = Value::Int((vector.iter().sum::<f32>() as i64).rem_euclid(GROUPS));
        Self { vector, text, metadata: [("version".into(), version), ("group".into(), group)].into() }
    }

    /// The document that holds it.
    pub(super) fn document(&self, id: &str) -> NewDocument {
        let Self { vector, text, metadata } = self.clone();
        let id = DocumentId::new(id).unwrap();
        NewDocument { id, text, metadata, vector: Some(vector), chunks: Vec::new() }
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.text.as_ref().is_some_and(|text| text.split([' ', ',']).any(|other| other == word))
    }

    pub(super) fn is_in(&self, group: i64) -> bool {
        self.metadata["group"] == Value::Int(group)
    }
}

/// Matches the documents of a group.
pub(super) fn in_group(group: i64) -> Filter {
    Filter::eq("group", Value::Int(group))
}

/// Runs clients against a new store in `root`, which exists and is empty.
pub(super) fn run(root: &Path, seed: u64) -> Run {
    let mut random = Random(seed);
    let with_text = random.chance(6);
    let clients = 1 + random.below(3);
    let client = |n: usize| Client {
        name: CollectionName::new(&format!("c{n}")).unwrap(),
        states: vec![None],
        random: Random(seed ^ (n as u64 + 1) << 40),
        with_text,
    };
    let mut clients: Vec<_> = (0..clients).map(client).collect();
    let history = History::record(root);
    for _ in 0..OPENINGS {
        let database = Database::open_with(root, options()).unwrap();
        send(&database, &history, &mut clients, REQUESTS);
        database.close();
    }
    Run { events: history.events(), clients }
}

/// Sends so many requests of each client, all at once, and marks each answer.
pub(super) fn send(database: &Database, history: &History, clients: &mut [Client], requests: usize) {
    std::thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            scope.spawn(move || {
                for _ in 0..requests {
                    client.request(database);
                    history.mark((number as u64) << 32 | (client.states.len() as u64 - 1));
                    client.maintain(database);
                }
            });
        }
    });
}

impl Client {
    /// The same client as it goes on with a store in which it found `state`.
    pub(super) fn going_on(&self, state: Option<Model>, seed: u64) -> Self {
        Self { states: vec![state.map(Arc::new)], random: Random(seed), ..self.clone() }
    }

    /// One request that is acknowledged.
    fn request(&mut self, database: &Database) {
        let next = match self.states.last().unwrap().clone() {
            None => {
                database.create_collection(&self.name, &definition()).unwrap();
                Some(Arc::default())
            }
            Some(_) if self.random.chance(25) => {
                database.drop_collection(&self.name).unwrap();
                None
            }
            Some(model) => Some(Arc::new(self.write(&database.collection(&self.name).unwrap(), Model::clone(&model)))),
        };
        self.states.push(next);
    }

    fn write(&mut self, collection: &Collection, mut model: Model) -> Model {
        if self.random.chance(12) {
            let group = self.random.below(GROUPS as usize) as i64;
            collection.delete_matching(&in_group(group)).unwrap();
            model.retain(|_, row| !row.is_in(group));
            return model;
        }
        let mut ids: Vec<_> =
            (0..1 + self.random.below(5)).map(|_| format!("d{:02}", self.random.below(IDS))).collect();
        ids.sort();
        ids.dedup();
        if self.random.chance(3) {
            let wanted: Vec<_> = ids.iter().map(|id| DocumentId::new(id).unwrap()).collect();
            collection.delete(&wanted).unwrap();
            model.retain(|id, _| !ids.contains(id));
            return model;
        }
        let mut documents = Vec::new();
        for id in ids {
            let vector = (0..DIM).map(|_| self.random.below(9) as f32 - 3.5).collect();
            let row = Row::new(&id, vector, self.random.below(1_000_000), self.with_text);
            documents.push(row.document(&id));
            model.insert(id, row);
        }
        collection.upsert(documents).unwrap();
        model
    }

    /// Seals or merges now and then, which no reader may notice.
    fn maintain(&mut self, database: &Database) {
        let Ok(collection) = database.collection(&self.name) else { return };
        match self.random.below(12) {
            0 | 1 => collection.flush().unwrap(),
            2 => collection.optimise().unwrap(),
            _ => {}
        }
    }
}
