//! Keyword search against a plain model: random histories with reopening, with the index taken away, and with damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pannier::types::{Filter, Fusion, Language, Mode, NewDocument, Query, SearchRequest, Value};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::histories::{self, Doomed, Suite};
use crate::support::{Random, comes_true, document, id, name};

const DIM: usize = 3;
const GROUPS: u64 = 3;
const WORDS: [&str; 12] =
    ["tent", "boat", "lamp", "kite", "wing", "plane", "river", "stone", "stove", "rope", "sail", "fire"];

#[derive(Clone, Copy)]
struct Words;

type World = histories::World<Words>;

impl Suite for Words {
    /// Words, and group; a document without words has no text.
    type Entry = (Vec<&'static str>, i64);
    const IDS: u64 = 30;

    fn open(&self, path: &Path) -> (Database, Collection) {
        let options = Options { memtable_documents: Some(15), ..Options::default() };
        let database = Database::open_with(path, options).unwrap();
        let request = DefinitionRequest { language: Some(Language::English), ..DefinitionRequest::vectors(DIM as u32) };
        let collection = database.create_collection(&name("things"), &request).unwrap().collection;
        (database, collection)
    }

    fn entry(&self, random: &mut Random) -> Self::Entry {
        ((0..random.below(6)).map(|_| word(random)).collect(), random.below(GROUPS) as i64)
    }

    fn document(&self, key: &str, (words, group): &Self::Entry) -> NewDocument {
        // Every other word in another form: the analyzer brings them together.
        let form = |(n, word): (usize, &&str)| if n % 2 == 0 { format!("{word}s") } else { word.to_uppercase() };
        let forms: Vec<String> = words.iter().enumerate().map(form).collect();
        let text = (!forms.is_empty()).then(|| forms.join(", "));
        NewDocument { text, ..document(key, &[1.0, *group as f32, 0.5], *group) }
    }

    fn doomed(world: &mut World) -> Doomed<Self::Entry> {
        histories::of_one_group(&mut world.random, GROUPS)
    }

    fn check(world: &mut World) {
        world.collection().refresh().unwrap();
        check_found(world, true);
    }

    /// Searches before the index has followed, loses it, or damages a byte of it.
    fn other(world: &mut World, which: u16) {
        match which % 4 {
            0 | 1 => check_found(world, false),
            2 => world.reopen(|path, _| _ = fs::remove_dir_all(path.join("text"))),
            _ => world.reopen(|path, random| damage(&path.join("text"), random)),
        }
    }
}

fn damage(index: &Path, random: &mut Random) {
    let files = files(index);
    if files.is_empty() {
        return;
    }
    let file = &files[random.below(files.len() as u64) as usize];
    let mut bytes = fs::read(file).unwrap();
    if !bytes.is_empty() {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 0x24;
        fs::write(file, bytes).unwrap();
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn word(random: &mut Random) -> &'static str {
    WORDS[random.below(WORDS.len() as u64) as usize]
}

/// `complete`: whether every match must be found. What is found must match in any case.
fn check_found(world: &mut World, complete: bool) {
    let query = [word(&mut world.random), word(&mut world.random)];
    for group in [None, Some(world.random.below(3) as i64)] {
        let mut wanted: Vec<_> = world
            .model
            .iter()
            .filter(|(_, (words, g))| query.iter().any(|q| words.contains(q)) && group.is_none_or(|group| *g == group))
            .map(|(key, _)| key.clone())
            .collect();
        let request = SearchRequest {
            mode: Mode::Keyword,
            top_k: 100,
            filter: group.map(|group| Filter::eq("group", Value::Int(group))),
            highlight: true,
            ..SearchRequest::new(Query::Text(query.join(" ")))
        };
        let hits = world.collection().search(&request).unwrap().hits;
        assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
        for hit in &hits {
            let marked = hit.highlights.as_ref().unwrap().concat();
            assert!(marked.contains("<mark>") && hit.score > 0.0, "{hit:?}");
        }
        let mut found: Vec<_> = hits.iter().map(|hit| hit.id.as_str().to_owned()).collect();
        found.sort();
        if complete {
            assert_eq!(found, wanted, "{query:?} in group {group:?}");
        } else {
            wanted.retain(|key| found.contains(key));
            assert_eq!(found, wanted, "{query:?} found what does not match");
        }
        let few = world.collection().search(&SearchRequest { top_k: 3, ..request }).unwrap().hits;
        assert!(!complete || few.len() == found.len().min(3), "{} of {}", few.len(), found.len());
    }
}

#[test]
fn random_histories_match_the_model() {
    histories::run(&Words, 30, 1);
}

fn keyword(text: &str) -> SearchRequest {
    SearchRequest { mode: Mode::Keyword, ..SearchRequest::new(Query::Text(text.into())) }
}

fn ids(collection: &Collection, request: &SearchRequest) -> Vec<String> {
    collection.search(request).unwrap().hits.iter().map(|hit| hit.id.as_str().to_owned()).collect()
}

fn with_text(key: &str, text: &str) -> NewDocument {
    NewDocument { text: Some(text.into()), ..document(key, &[1.0, 2.0, 3.0], 0) }
}

#[test]
fn the_few_that_pass_a_filter_are_found_behind_many_that_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    let request = DefinitionRequest { language: Some(Language::English), ..DefinitionRequest::vectors(DIM as u32) };
    let things = database.create_collection(&name("things"), &request).unwrap().collection;
    let in_group =
        |n: i64| NewDocument { text: Some("a tent".into()), ..document(&format!("{n:04}"), &[1.0; DIM], n / 100) };
    things.upsert((0..900).map(in_group).collect()).unwrap();
    let last = SearchRequest { filter: Some(Filter::eq("group", Value::Int(8))), top_k: 200, ..keyword("tent") };
    let check = |wanted: i64| {
        things.refresh().unwrap();
        let wanted: Vec<String> = (wanted..900).map(|n| format!("{n:04}")).collect();
        assert_eq!(ids(&things, &last), wanted);
        assert_eq!(ids(&things, &SearchRequest { top_k: 5, ..last.clone() }), wanted[..5]);
    };
    check(800);
    things.flush().unwrap();
    check(800);
    // Versions that no longer pass, and rows that no longer live.
    things.upsert((800..850).map(|n| NewDocument { metadata: Default::default(), ..in_group(n) }).collect()).unwrap();
    things.delete(&[id("0850")]).unwrap();
    check(851);
}

#[test]
fn words_are_found_without_asking_for_a_refresh() {
    let directory = tempfile::tempdir().unwrap();
    let (_database, things) = Words.open(directory.path());
    things.upsert(vec![with_text("a", "a lighthouse")]).unwrap();
    assert!(comes_true(|| !ids(&things, &keyword("lighthouses")).is_empty()), "the index never followed");
}

#[test]
fn a_document_that_is_rewritten_all_the_time_stays_found() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    let things =
        database.create_collection(&name("things"), &DefinitionRequest::vectors(DIM as u32)).unwrap().collection;
    things.upsert(vec![with_text("a", "a tent")]).unwrap();
    things.refresh().unwrap();
    // Sooner than the index has read it, mostly.
    for n in 0..50 {
        things.upsert(vec![with_text("a", &format!("{n} tents"))]).unwrap();
        let hits = things.search(&SearchRequest { highlight: true, ..keyword("tent") }).unwrap().hits;
        let marked: Vec<_> = hits.iter().map(|hit| hit.highlights.as_ref().unwrap().concat()).collect();
        assert_eq!(marked, [format!("{n} <mark>tents</mark>")]);
    }
    things.upsert(vec![with_text("a", "a boat")]).unwrap();
    assert_eq!(ids(&things, &keyword("tent")), Vec::<String>::new());
}

#[test]
fn a_collection_that_is_written_to_without_a_pause_holds_up_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    let create =
        |text| database.create_collection(&name(text), &DefinitionRequest::vectors(DIM as u32)).unwrap().collection;
    let (busy, open, dropped, unopened) = (create("busy"), create("open"), create("dropped"), create("unopened"));
    for collection in [&busy, &open, &dropped] {
        collection.upsert(vec![with_text("first", "lighthouse")]).unwrap();
        collection.refresh().unwrap();
    }
    // Of the numbers that collections have had, the third.
    let directory_of_dropped = directory.path().join("text/3");
    assert!(directory_of_dropped.exists());
    let stop = AtomicBool::new(false);
    let write = |writer: usize| {
        let mut batch = 0;
        while !stop.load(Ordering::Relaxed) {
            let documents = (0..20).map(|n| with_text(&format!("{writer}-{}", (batch * 20 + n) % 3_000), "stone"));
            busy.upsert(documents.collect()).unwrap();
            batch += 1;
        }
    };
    let found = std::thread::scope(|scope| {
        (0..3).for_each(|writer| {
            _ = scope.spawn({
                let write = &write;
                move || write(writer)
            })
        });
        let busy_with_it = comes_true(|| busy.stats().documents > 500);
        let write_late = |collection: &Collection| collection.upsert(vec![with_text("late", "harbour")]).is_ok();
        let written = write_late(&open) && write_late(&unopened) && database.drop_collection(&name("dropped")).is_ok();
        let hit = |collection: &Collection| {
            comes_true(|| collection.search(&keyword("harbour")).is_ok_and(|found| found.hits.len() == 1))
        };
        let found = [busy_with_it, written, hit(&open), hit(&unopened), comes_true(|| !directory_of_dropped.exists())];
        // First of all: a panic would wait for the writers.
        stop.store(true, Ordering::Relaxed);
        found
    });
    assert_eq!(found, [true; 5], "busy, written, found where it was open and where not, and removed");
}

#[test]
fn an_index_taken_away_from_a_running_store_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let (_database, things) = Words.open(directory.path());
    things.upsert(vec![with_text("a", "a tent"), with_text("b", "a boat")]).unwrap();
    things.refresh().unwrap();
    fs::remove_dir_all(directory.path().join("text")).unwrap();
    things.upsert(vec![with_text("c", "a tent and a boat")]).unwrap();
    things.delete(&[id("b")]).unwrap();
    let answers = || things.refresh().is_ok() && things.search(&keyword("tent")).is_ok();
    assert!(comes_true(answers), "the index was never made again");
    let mut found = ids(&things, &keyword("tent boat"));
    found.sort();
    assert_eq!(found, ["a", "c"]);
}

#[test]
fn documents_that_cannot_be_read_are_counted_and_the_others_are_found() {
    const DOCUMENTS: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options { memtable_documents: Some(1_000), ..Options::default() };
        let database = Database::open_with(directory.path(), options).unwrap();
        let request = DefinitionRequest { language: Some(Language::English), ..DefinitionRequest::vectors(DIM as u32) };
        let things = database.create_collection(&name("things"), &request).unwrap().collection;
        (database, things)
    };
    {
        let (_database, things) = open();
        let text = |n: u64| format!("a tent, number{n} {}", "of many ".repeat(120));
        things.upsert((0..DOCUMENTS).map(|n| with_text(&format!("{n:03}"), &text(n))).collect()).unwrap();
        things.flush().unwrap();
    }
    let segments = files(&directory.path().join("segments"));
    let segment = segments.iter().find(|file| file.extension().is_some_and(|e| e == "seg")).unwrap();
    let mut bytes = fs::read(segment).unwrap();
    let at = bytes.windows(9).position(|window| window == b"number100").unwrap();
    bytes[at] ^= 1;
    fs::write(segment, bytes).unwrap();
    fs::remove_dir_all(directory.path().join("text")).unwrap();
    let seen = || {
        let (_database, things) = open();
        things.refresh().unwrap();
        assert_eq!(
            (ids(&things, &keyword("number0")), ids(&things, &keyword("number100"))),
            (vec!["000".into()], vec![])
        );
        let found = ids(&things, &SearchRequest { top_k: 1_000, ..keyword("tent") }).len() as u64;
        let keywords = things.stats().keywords.unwrap();
        assert_eq!((keywords.documents, keywords.documents + keywords.unreadable), (found, DOCUMENTS));
        // What is written later is found, too.
        things.upsert(vec![with_text("000", "number0")]).unwrap();
        things.upsert(vec![with_text("000", &format!("number0, a tent {}", found))]).unwrap();
        things.refresh().unwrap();
        keywords.unreadable
    };
    let unreadable = seen();
    assert!((1..DOCUMENTS / 2).contains(&unreadable), "the documents of one block: {unreadable}");
    assert_eq!(seen(), unreadable, "the index is not made again");
}

#[test]
fn a_collection_without_texts_has_no_index() {
    let directory = tempfile::tempdir().unwrap();
    let (database, things) = Words.open(directory.path());
    things.upsert(vec![NewDocument { text: None, ..document("a", &[1.0, 0.0, 0.0], 0) }]).unwrap();
    things.refresh().unwrap();
    assert_eq!((ids(&things, &keyword("anything")), things.stats().keywords), (Vec::new(), None));
    assert!(!directory.path().join("text").exists());
    things.upsert(vec![with_text("b", "a kite")]).unwrap();
    things.refresh().unwrap();
    assert_eq!(ids(&things, &keyword("kites")), ["b"]);
    let stats = things.stats();
    let keywords = stats.keywords.unwrap();
    assert_eq!((keywords.applied_seq, keywords.documents, keywords.waiting), (stats.last_seq, 1, 0));
    database.drop_collection(&name("things")).unwrap();
    drop(things);
    drop(database);
    drop(Words.open(directory.path()));
    assert!(files(&directory.path().join("text")).is_empty(), "a dropped collection's index goes with it");
}

#[test]
fn an_index_of_another_store_is_not_believed() {
    let root = tempfile::tempdir().unwrap();
    let (mine, other) = (root.path().join("mine"), root.path().join("other"));
    for (path, text) in [(&mine, "a tent"), (&other, "a boat")] {
        let (_database, things) = Words.open(path);
        things.upsert(vec![with_text("a", text)]).unwrap();
        things.refresh().unwrap();
    }
    fs::remove_dir_all(mine.join("text")).unwrap();
    fs::rename(other.join("text"), mine.join("text")).unwrap();
    let (_database, things) = Words.open(&mine);
    assert_eq!(ids(&things, &keyword("tent")), ["a"]);
    assert_eq!(ids(&things, &keyword("boat")), Vec::<String>::new());
}

#[test]
fn an_older_index_of_the_same_store_catches_up() {
    let root = tempfile::tempdir().unwrap();
    let (path, kept) = (root.path().join("db"), root.path().join("kept"));
    {
        let (_database, things) = Words.open(&path);
        things.upsert((0..40).map(|n| with_text(&format!("{n:02}"), "an old tent")).collect()).unwrap();
        things.refresh().unwrap();
    }
    let copy = |from: &Path, to: &Path| {
        _ = fs::remove_dir_all(to);
        for file in files(from) {
            let target = to.join(file.strip_prefix(from).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(&file, target).unwrap();
        }
    };
    copy(&path.join("text"), &kept);
    {
        let (_database, things) = Words.open(&path);
        things.delete(&(0..10).map(|n| id(&format!("{n:02}"))).collect::<Vec<_>>()).unwrap();
        things.upsert((10..20).map(|n| with_text(&format!("{n:02}"), "a new kite")).collect()).unwrap();
        // The merge leaves no trace of what was deleted.
        things.optimise().unwrap();
    }
    copy(&kept, &path.join("text"));
    let (_database, things) = Words.open(&path);
    things.refresh().unwrap();
    let all = |text: &str| ids(&things, &SearchRequest { top_k: 100, ..keyword(text) }).len();
    assert_eq!((all("tent"), all("kite")), (20, 10));
    assert_eq!(things.stats().keywords.unwrap().documents, 30);
}

#[test]
fn hybrid_finds_what_either_finds() {
    let directory = tempfile::tempdir().unwrap();
    let (_database, things) = Words.open(directory.path());
    let with =
        |key: &str, text: &str, vector: [f32; 3]| NewDocument { text: Some(text.into()), ..document(key, &vector, 0) };
    things
        .upsert(vec![
            with("near", "nothing of note", [1.0, 0.0, 0.0]),
            with("both", "a tent", [0.9, 0.1, 0.0]),
            with("words", "tent tent tent", [0.0, 0.0, 1.0]),
            with("far", "a boat", [0.1, 1.0, 0.0]),
        ])
        .unwrap();
    let query = || Query::TextAndVector { text: "tents".into(), vector: vec![1.0, 0.0, 0.0] };
    for fusion in [Fusion::ReciprocalRank, Fusion::Weighted { alpha: 0.5 }] {
        let request =
            SearchRequest { mode: Mode::Hybrid(fusion), refresh: true, top_k: 3, ..SearchRequest::new(query()) };
        let mut found = ids(&things, &request);
        assert_eq!(found[0], "both", "{fusion:?}");
        found.sort();
        assert_eq!(found, ["both", "near", "words"], "{fusion:?}");
    }
    let weighted = |alpha| {
        let mode = Mode::Hybrid(Fusion::Weighted { alpha });
        ids(&things, &SearchRequest { mode, ..SearchRequest::new(query()) })[0].clone()
    };
    assert_eq!((weighted(1.0), weighted(0.0)), ("near".into(), "words".into()));
}

/// More documents have one score by words than are fused: which of them are among these must not decide.
#[test]
fn hybrid_takes_equals_by_words_as_equals() {
    const DOCUMENTS: usize = 300;
    let directory = tempfile::tempdir().unwrap();
    let (_database, things) = Words.open(directory.path());
    let with = |n: usize| {
        let text = if n == DOCUMENTS / 2 { "a red tent, and then a red tent with pegs" } else { "a red tent" };
        let vector = [1.0, (DOCUMENTS - 1 - n) as f32 / 50.0, 0.0];
        NewDocument { text: Some(text.into()), ..document(&format!("d{n:03}"), &vector, (n % 2) as i64) }
    };
    things.upsert((0..DOCUMENTS).map(with).collect()).unwrap();
    let query = || Query::TextAndVector { text: "pegs or a tent".into(), vector: vec![1.0, 0.0, 0.0] };
    for fusion in [Fusion::ReciprocalRank, Fusion::Weighted { alpha: 0.5 }] {
        let request = SearchRequest { mode: Mode::Hybrid(fusion), refresh: true, ..SearchRequest::new(query()) };
        let found = ids(&things, &request);
        let nearest: Vec<String> = (0..10).map(|n| format!("d{:03}", DOCUMENTS - 1 - n)).collect();
        // The one with most of the words is far by vector.
        let equals: Vec<_> = found.iter().filter(|id| **id != "d150").cloned().collect();
        assert_eq!(equals, nearest[..equals.len()], "{fusion:?}: {found:?}");
        assert!(equals.len() >= 9, "{fusion:?}: {found:?}");
    }
}
