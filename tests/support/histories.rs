//! Random histories: steps that a store and a plain model of it take together, closed, copied and put back in between.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use pannier::snapshot::{self, SnapshotName, Source};
use pannier::types::{Filter, NewDocument, Value};
use pannier::{Collection, Database};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Random, id, number_from};

/// What happens to a store. What a suite's steps are about comes from the history's seed.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes up to so many documents in one request.
    Upsert(u8),
    /// Deletes up to so many ids, of which some are there.
    Delete(u8),
    /// Deletes what passes a filter.
    DeleteMatching,
    Flush,
    Optimise,
    Reopen,
    /// Takes a snapshot of the open store.
    Snapshot,
    /// Puts one of the snapshots in the place of the store.
    Restore,
    /// See [`Suite::other`].
    Other(u16),
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..20u8).prop_map(Step::Upsert),
        4 => (1..6u8).prop_map(Step::Delete),
        1 => Just(Step::DeleteMatching),
        2 => Just(Step::Flush),
        1 => Just(Step::Optimise),
        2 => Just(Step::Reopen),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Restore),
        2 => any::<u16>().prop_map(Step::Other),
        4 => Just(Step::Check),
    ]
}

/// What a store must hold, by id.
pub type Model<E> = BTreeMap<String, E>;

/// A filter, and which entries pass it.
pub type Doomed<E> = (Filter, Box<dyn Fn(&E) -> bool>);

/// Whatever is of one of so many groups, where an entry ends with its group.
pub fn of_one_group<T>(random: &mut Random, groups: u64) -> Doomed<(T, i64)> {
    let group = random.below(groups) as i64;
    (Filter::eq("group", Value::Int(group)), Box::new(move |(_, of)| *of == group))
}

/// One kind of collection, and what is asked of it.
pub trait Suite: Sized {
    /// What the model knows of a document.
    type Entry: Clone + Debug;
    /// Ids that documents have: few, so that they are replaced and deleted.
    const IDS: u64;

    /// Opens the store with its one collection, which is made where it is not there.
    fn open(&self, path: &Path) -> (Database, Collection);

    /// Any document.
    fn entry(&self, random: &mut Random) -> Self::Entry;

    /// The document to write.
    fn document(&self, key: &str, entry: &Self::Entry) -> NewDocument;

    /// What is to be deleted.
    fn doomed(world: &mut World<Self>) -> Doomed<Self::Entry>;

    /// Asks the store whatever it can be asked, and compares the answers with the model's.
    fn check(world: &mut World<Self>);

    /// A step that other suites do not have; nothing, unless a suite has some.
    fn other(_world: &mut World<Self>, _which: u16) {}
}

/// A store and its model.
pub struct World<S: Suite> {
    pub suite: S,
    pub model: Model<S::Entry>,
    pub random: Random,
    path: PathBuf,
    open: Option<(Database, Collection)>,
    snapshots: Vec<(SnapshotName, Model<S::Entry>)>,
}

impl<S: Suite> World<S> {
    /// A new store in an empty directory.
    pub fn new(suite: S, path: &Path, seed: u64) -> Self {
        let open = Some(suite.open(path));
        let (path, random) = (path.to_owned(), Random(seed));
        Self { suite, model: Model::new(), random, path, open, snapshots: Vec::new() }
    }

    pub fn collection(&self) -> &Collection {
        &self.open.as_ref().unwrap().1
    }

    fn database(&self) -> &Database {
        &self.open.as_ref().unwrap().0
    }

    pub fn key(&mut self) -> String {
        format!("doc-{:02}", self.random.below(S::IDS))
    }

    pub fn run(&mut self, step: &Step) {
        match *step {
            Step::Upsert(count) => self.upsert(count),
            Step::Delete(count) => self.delete(count),
            Step::DeleteMatching => {
                let (filter, passes) = S::doomed(self);
                let before = self.model.len();
                self.model.retain(|_, entry| !passes(entry));
                let deleted = self.collection().delete_matching(&filter).unwrap();
                assert_eq!(deleted.deleted, before - self.model.len(), "{filter:?}");
            }
            Step::Flush => self.collection().flush().unwrap(),
            Step::Optimise => self.collection().optimise().unwrap(),
            Step::Reopen => self.reopen(|_, _| {}),
            Step::Snapshot => {
                let name = SnapshotName::new(&format!("number-{}", self.snapshots.len())).unwrap();
                snapshot::create(self.database(), Some(name.clone())).unwrap();
                self.snapshots.push((name, self.model.clone()));
            }
            Step::Restore => self.restore(),
            Step::Other(which) => S::other(self, which),
            Step::Check => S::check(self),
        }
    }

    fn upsert(&mut self, count: u8) {
        let batch: Model<S::Entry> = (0..count).map(|_| (self.key(), self.suite.entry(&mut self.random))).collect();
        let documents = batch.iter().map(|(key, entry)| self.suite.document(key, entry)).collect();
        assert_eq!(self.collection().upsert(documents).unwrap().upserted, batch.len());
        self.model.extend(batch);
    }

    fn delete(&mut self, count: u8) {
        let keys: Vec<_> = (0..count).map(|_| self.key()).collect();
        let before = self.model.len();
        keys.iter().for_each(|key| _ = self.model.remove(key));
        let ids: Vec<_> = keys.iter().map(|key| id(key)).collect();
        assert_eq!(self.collection().delete(&ids).unwrap().deleted, before - self.model.len());
    }

    /// Closes the store, lets `between` have its directory, opens it again.
    pub fn reopen(&mut self, between: impl FnOnce(&Path, &mut Random)) {
        self.open = None;
        between(&self.path, &mut self.random);
        self.open = Some(self.suite.open(&self.path));
    }

    fn restore(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let (name, model) = self.snapshots[self.random.below(self.snapshots.len() as u64) as usize].clone();
        self.reopen(|path, _| {
            // What the last one replaced would be in the way.
            snapshot::discard_replaced(path).unwrap();
            snapshot::restore(path, &Source::Snapshot(name), &mut |_, _| {}).unwrap();
        });
        self.model = model;
        // Or it stays, and stores are opened beside it.
        if self.random.below(2) == 0 {
            snapshot::discard_replaced(&self.path).unwrap();
        }
    }

    /// Every stored byte is as it was written, and every view says what the documents say, as far as no merge goes on.
    fn verify(&self) {
        let report = self.database().verify(&mut |_, _| {}).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
}

/// Runs `PANNIER_TEST_HISTORIES` histories, or `default`, on `threads` threads, each with seeds of its own.
pub fn run<S: Suite + Clone + Send>(suite: &S, default: u64, threads: u64) {
    let cases = number_from("PANNIER_TEST_HISTORIES", default).div_ceil(threads) as u32;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let suite = suite.clone();
            scope.spawn(move || run_some(&suite, cases));
        }
    });
}

fn run_some<S: Suite + Clone>(suite: &S, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let histories = (any::<u64>(), prop::collection::vec(step(), 1..25));
    let run = |(seed, steps): (u64, Vec<Step>)| {
        let directory = tempfile::tempdir().unwrap();
        let mut world = World::new(suite.clone(), directory.path(), seed);
        let end = [Step::Check, Step::Reopen, Step::Check];
        steps.iter().chain(&end).for_each(|step| world.run(step));
        world.verify();
        Ok(())
    };
    TestRunner::new(config).run(&histories, run).unwrap();
}
