//! How many documents pass a filter, at one moment.
//!
//! Whether a row passes never changes, as rows do not; whether it lives does. So the rows that pass are found beside
//! writes, and while none is applied the living ones among them are counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::index::{LiveSegment, Memtable, View};
use crate::types::{Filter, Ordinal, RowSet, SegmentId};

use super::{Collection, CollectionError};

/// Passes over new changes while writes go on. Each leaves less for the last pass, which holds writers up.
const LOOKS: usize = 3;

impl Collection {
    /// How many documents pass a filter, or all without one: exact, at one moment, with every write that was answered
    /// before the call.
    ///
    /// # Errors
    /// [`CollectionError`] for the filter, and when a segment is damaged.
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64, CollectionError> {
        self.check_exists()?;
        self.frame().check_filter(filter)?;
        let Some(filter) = filter else { return Ok(self.state.read_still(|view| view.live_documents())) };
        let mut passing = PassingRows::default();
        for _ in 0..LOOKS {
            passing.look(self, &self.state.view(), filter)?;
        }
        self.state.read_still(|view| {
            passing.look(self, view, filter)?;
            Ok(passing.living(view))
        })
    }
}

/// The rows that pass, but for some that were dead when they were met.
#[derive(Default)]
struct PassingRows {
    segments: HashMap<SegmentId, RowSet>,
    memtables: Vec<OfMemtable>,
}

struct OfMemtable {
    memtable: Arc<Memtable>,
    /// Rows before this one were looked at.
    looked_at: Ordinal,
    passing: Vec<Ordinal>,
}

impl PassingRows {
    /// Looks at what of a view was not there before.
    fn look(&mut self, collection: &Collection, view: &View, filter: &Filter) -> Result<(), CollectionError> {
        self.segments.retain(|&id, _| view.segment(id).is_some());
        for live in &view.segments {
            if let Entry::Vacant(new) = self.segments.entry(live.id) {
                new.insert(of_segment(collection, live, filter)?);
            }
        }
        self.memtables.retain(|known| view.memtables().any(|memtable| Arc::ptr_eq(memtable, &known.memtable)));
        for memtable in view.memtables() {
            let at = self.memtables.iter().position(|known| Arc::ptr_eq(memtable, &known.memtable));
            let at = at.unwrap_or_else(|| {
                self.memtables.push(OfMemtable { memtable: memtable.clone(), looked_at: 0, passing: Vec::new() });
                self.memtables.len() - 1
            });
            self.memtables[at].look(filter);
        }
        Ok(())
    }

    /// Those of them that live. Exact where the view was looked at and no change is applied meanwhile.
    fn living(&self, view: &View) -> u64 {
        let of_segment = |live: &Arc<LiveSegment>| {
            let mut rows = self.segments.get(&live.id).cloned().unwrap_or_default();
            live.dead.take_out_of(&mut rows);
            u64::from(rows.count())
        };
        let of_memtable = |of: &OfMemtable| of.passing.iter().filter(|&&row| !of.memtable.is_dead(row)).count() as u64;
        view.segments.iter().map(of_segment).sum::<u64>() + self.memtables.iter().map(of_memtable).sum::<u64>()
    }
}

impl OfMemtable {
    fn look(&mut self, filter: &Filter) {
        let end = self.memtable.rows();
        let passes = |&row: &Ordinal| {
            let document = self.memtable.row(row).map(|row| &row.document);
            !self.memtable.is_dead(row) && document.is_some_and(|document| filter.matches(&document.metadata))
        };
        self.passing.extend((self.looked_at..end).filter(passes));
        self.looked_at = end;
    }
}

/// Those of a segment. What the field index leaves open is decided on the documents, where they live.
fn of_segment(collection: &Collection, live: &Arc<LiveSegment>, filter: &Filter) -> Result<RowSet, CollectionError> {
    let rows = collection.select(live, filter)?.rows;
    let mut passing = rows.certain().clone();
    if !rows.is_exact() {
        for row in rows.undecided().iter().filter(|&row| !live.dead.is_dead(row)) {
            if filter.matches(&live.segment.metadata(row)?) {
                passing.insert(row);
            }
        }
    }
    Ok(passing)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::types::{CollectionName, Condition, DocumentId, Metadata, NewDocument, Value};
    use crate::{Database, DefinitionRequest};

    const DOCUMENTS: usize = 120;

    fn document(n: usize, state: &str) -> NewDocument {
        let metadata: Metadata =
            [("state".to_owned(), Value::String(state.to_owned())), ("n".to_owned(), Value::Int(n as i64))].into();
        let id = DocumentId::new(&format!("d{n:03}")).unwrap();
        NewDocument { metadata, vector: Some(vec![1.0, n as f32]), ..NewDocument::from_text(id, state) }
    }

    fn with_old() -> (tempfile::TempDir, Database, Collection) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("c").unwrap();
        let collection = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        collection.upsert((0..DOCUMENTS).map(|n| document(n, "old")).collect()).unwrap();
        (directory, database, collection)
    }

    fn old() -> Filter {
        Filter::eq("state", Value::String("old".to_owned()))
    }

    fn below(n: i64) -> Filter {
        Filter::Field { path: "n".to_owned(), condition: Condition::Lt(Value::Int(n)) }
    }

    #[test]
    fn what_was_replaced_or_deleted_is_not_counted_wherever_it_stands() {
        let (_directory, _database, collection) = with_old();
        let count = |filter: &Filter| collection.count(Some(filter)).unwrap();
        let mut left = DOCUMENTS as u64;
        for step in 0..3 {
            // In the memtable first, then in one segment, then in several.
            collection.upsert((10 * step..10 * step + 5).map(|n| document(n, "new")).collect()).unwrap();
            collection.delete(&[document(10 * step + 5, "old").id]).unwrap();
            left -= 1;
            let replaced = 6 * (step as u64 + 1);
            assert_eq!((count(&old()), collection.count(None).unwrap()), (DOCUMENTS as u64 - replaced, left));
            assert_eq!((count(&Filter::And(vec![])), count(&Filter::Or(vec![]))), (left, 0));
            assert_eq!(count(&Filter::And(vec![old(), below(10)])), 4, "of ten one is gone and five are new");
            collection.flush().unwrap();
            assert_eq!(count(&old()), DOCUMENTS as u64 - replaced);
        }
        collection.optimise().unwrap();
        assert_eq!((count(&old()), count(&below(DOCUMENTS as i64))), (DOCUMENTS as u64 - 18, left));
    }

    #[test]
    fn a_document_that_is_replaced_meanwhile_counts_once() {
        let (_directory, _database, collection) = with_old();
        let done = AtomicBool::new(false);
        let counts = thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..12 {
                    let state = if round % 2 == 0 { "new" } else { "old" };
                    for n in (0..DOCUMENTS).step_by(10) {
                        collection.upsert((n..n + 10).map(|n| document(n, state)).collect()).unwrap();
                    }
                    if round % 3 == 0 {
                        collection.flush().unwrap();
                    }
                }
                done.store(true, Ordering::Release);
            });
            let mut counts = 0;
            while !done.load(Ordering::Acquire) || counts == 0 {
                // All of a request change together, so what is old is a number of tens.
                assert_eq!(collection.count(Some(&below(DOCUMENTS as i64))).unwrap(), DOCUMENTS as u64);
                assert_eq!(collection.count(Some(&old())).unwrap() % 10, 0);
                counts += 1;
            }
            counts
        });
        assert!(counts > 0);
        assert_eq!(collection.count(Some(&old())).unwrap(), DOCUMENTS as u64);
    }
}
