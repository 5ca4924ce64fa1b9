//! Tests of the log as a whole, and what they share.

mod commit;
mod recovery;
mod shuttled;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::{
    Change, EncodedRecord, LogError, LogIdentity, LogWriter, LoggedDocument, ReadFrom, WriterOptions, files, read_from,
    reader::Recovery,
};
use crate::storage::DataPaths;
use crate::types::{
    CollectionId, CollectionName, Definition, DocumentId, EmbeddingState, FieldType, IndexDefinition, Metric, Seq,
    StoredDocument, TextDefinition, Value,
};

const IDENTITY: LogIdentity = LogIdentity { store_id: *b"0123456789abcdef", timeline: 1 };
const EVERYTHING: ReadFrom = ReadFrom { after: Seq(0), at_least: Seq(0) };

/// A data directory that goes away with it.
struct Store {
    _root: tempfile::TempDir,
    paths: DataPaths,
}

fn document(id: &str, vector: &[f32]) -> LoggedDocument {
    let metadata = BTreeMap::from([("k".to_owned(), Value::Int(-2))]);
    let document = StoredDocument {
        id: DocumentId::new(id).unwrap(),
        text: Some("текст".into()),
        metadata,
        created_at_ms: 1,
        updated_at_ms: 2,
        embedding: if vector.is_empty() { EmbeddingState::Pending } else { EmbeddingState::Ready },
    };
    LoggedDocument { document, vector: vector.to_vec(), chunks: Vec::new() }
}

/// The `number`th change of a varied history; equal numbers give equal changes.
fn change(number: u32) -> Change {
    let collection = CollectionId(1);
    match number % 4 {
        0 => Change::CreateCollection {
            id: CollectionId(number),
            name: CollectionName::new("docs").unwrap(),
            definition: Definition {
                dim: 3,
                metric: Metric::L2,
                embedding: None,
                index: IndexDefinition::default(),
                fields: BTreeMap::from([("k".into(), FieldType::Number)]),
                text: TextDefinition::default(),
                template: None,
                guard: None,
                chunks: None,
            },
            created_at_ms: i64::from(number),
        },
        1 => Change::Upsert {
            collection,
            documents: vec![document(&number.to_string(), &[1.0, -0.0, f32::MIN_POSITIVE]), document("p", &[])],
        },
        2 => Change::Delete { collection, ids: vec![DocumentId::new(&format!("d{number}")).unwrap()] },
        _ => Change::DropCollection { id: CollectionId(number) },
    }
}

fn changes(count: u32) -> Vec<Change> {
    (1..=count).map(change).collect()
}

impl Store {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(root: tempfile::TempDir) -> Self {
        let paths = DataPaths::new(root.path());
        Self { _root: root, paths }
    }

    /// A log of the changes 1 to the sum of `groups`, one group for each number, in files of about `file_bytes`.
    fn with_groups(groups: &[u32], file_bytes: u64) -> Self {
        let store = Self::new();
        let mut writer = store.writer(WriterOptions { file_bytes }).unwrap();
        let mut number = 0;
        for &count in groups {
            let mut records: Vec<_> =
                (number + 1..=number + count).map(|n| EncodedRecord::new(&change(n)).unwrap()).collect();
            writer.append_group(&mut records).unwrap();
            number += count;
        }
        assert_eq!(writer.position().last_seq, Seq(u64::from(number)));
        store
    }

    fn read(&self, from: ReadFrom) -> Result<(Recovery, Vec<Change>), LogError> {
        let mut seen = Vec::new();
        let mut next = from.after.next();
        let recovery = read_from(&self.paths, IDENTITY, from, &mut |seq, change| {
            assert!(seq == next || seen.is_empty(), "{seq} after {next}");
            next = seq.next();
            seen.push(change);
            Ok::<(), LogError>(())
        })?;
        assert_eq!(recovery.changes, seen.len() as u64);
        Ok((recovery, seen))
    }

    fn writer(&self, options: WriterOptions) -> Result<LogWriter, LogError> {
        let (recovery, _) = self.read(EVERYTHING)?;
        LogWriter::open(&self.paths, IDENTITY, &recovery, options)
    }

    fn files(&self) -> Vec<PathBuf> {
        files::list(&self.paths).unwrap().into_iter().map(|file| file.path).collect()
    }

    /// Every file with its bytes.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.files().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}
