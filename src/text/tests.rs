//! Tests of a keyword index as a whole: what is found, what is forgotten, what is made anew.

use std::fs;
use std::path::{Path, PathBuf};

use super::index::Opened;
use super::{Origin, TextIndex, Words};
use crate::types::{CollectionId, DocumentId, Language, Seq};

const ORIGIN: Origin =
    Origin { store_id: [7; 16], timeline: 1, collection: CollectionId(3), language: Language::English };

fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

fn open(path: &Path) -> Opened {
    TextIndex::open(path, ORIGIN).unwrap()
}

/// Ids and seqs of what has one of the words, best first.
fn found(index: &TextIndex, query: &str) -> Vec<(String, u64)> {
    let hits = index.search(&Words::of(Language::English, query)).hits(0, 100).unwrap();
    assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
    hits.into_iter().map(|hit| (hit.id.as_str().to_owned(), hit.seq.0)).collect()
}

fn made(path: &Path) -> TextIndex {
    let index = open(path).index;
    let mut writer = index.writer().unwrap();
    writer.upsert(&id("a"), Seq(1), "a red tent").unwrap();
    writer.upsert(&id("b"), Seq(1), "a blue tent and a red boat").unwrap();
    writer.upsert(&id("c"), Seq(2), "boats").unwrap();
    writer.commit(Seq(2)).unwrap();
    writer.close().unwrap();
    index
}

#[test]
fn every_depth_has_the_first_of_equals_by_id() {
    const TEXTS: [&str; 4] = ["red tent", "red red tent boat", "a kite, a tent and a boat", "blue boat"];
    let root = tempfile::tempdir().unwrap();
    let index = open(&root.path().join("1")).index;
    let mut writer = index.writer().unwrap();
    for at in 0..400_u64 {
        writer.upsert(&id(&format!("d{:03}", at * 7 % 400)), Seq(at), TEXTS[at as usize * 13 % 4]).unwrap();
        if at % 90 == 0 {
            writer.commit(Seq(at)).unwrap();
        }
    }
    (0..40).for_each(|at| writer.delete(&id(&format!("d{:03}", at * 10))));
    writer.commit(Seq(400)).unwrap();
    for query in ["tent", "red boat", "a red tent and a boat, a kite"] {
        let search = index.search(&Words::of(Language::English, query));
        let all = search.hits(0, 1_000).unwrap();
        assert!(all.len() >= 180 && all.len() < 361, "{query}: {}", all.len());
        assert!(all.is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.id < b.id)), "{query}");
        for depth in [1, 2, 10, 89, 100, all.len() - 1, all.len()] {
            assert_eq!(search.hits(0, depth).unwrap(), all[..depth], "{query} {depth}");
            assert_eq!(search.hits(depth, 50).unwrap(), all[depth..(depth + 50).min(all.len())], "{query} {depth}");
        }
        // By their ids the same are found, deleted ones and ids of nothing not among them.
        let ids: Vec<DocumentId> = (0..500).step_by(3).map(|at| id(&format!("d{at:03}"))).collect();
        let mut among = search.hits_among(&ids.iter().collect::<Vec<_>>()).unwrap();
        among.sort_by(|a, b| a.id.cmp(&b.id));
        let mut wanted: Vec<_> = all.iter().filter(|hit| ids.contains(&hit.id)).cloned().collect();
        wanted.sort_by(|a, b| a.id.cmp(&b.id));
        assert!(among.len() > 50, "{query}");
        assert_eq!(among, wanted, "{query}");
    }
}

#[test]
fn no_best_hit_is_passed_over_where_texts_of_files_differ_in_length() {
    let root = tempfile::tempdir().unwrap();
    let index = open(&root.path().join("1")).index;
    let mut writer = index.writer().unwrap();
    let mut seed = 1_u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) % bound
    };
    for at in 0..1_500 {
        let text = format!("{}{}", "tent ".repeat(1 + below(5) as usize), "other ".repeat(below(60) as usize));
        writer.upsert(&id(&format!("short{at}")), Seq(1), &text).unwrap();
    }
    writer.commit(Seq(1)).unwrap();
    for at in 0..300 {
        let text = format!("{}{}", "tent ".repeat(below(3) as usize), "another ".repeat(2_000));
        writer.upsert(&id(&format!("long{at}")), Seq(2), &text).unwrap();
    }
    writer.commit(Seq(2)).unwrap();
    for query in ["tent", "tent other", "another tent"] {
        let search = index.search(&Words::of(Language::English, query));
        let all = search.hits(0, 2_000).unwrap();
        assert!(all.len() > 1_500, "{}", all.len());
        for depth in 1..120 {
            assert_eq!(search.hits(0, depth).unwrap(), all[..depth], "{query} {depth}");
        }
    }
}

#[test]
fn what_is_committed_is_found_and_what_is_replaced_is_not() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("1");
    let index = made(&path);
    assert_eq!(found(&index, "tent boat"), [("b".to_owned(), 1), ("c".to_owned(), 2), ("a".to_owned(), 1)]);
    let mut writer = index.writer().unwrap();
    writer.upsert(&id("b"), Seq(3), "a green kite").unwrap();
    writer.delete(&id("c"));
    assert_eq!(found(&index, "boat").len(), 2, "nothing is visible before a commit");
    let before = index.search(&Words::of(Language::English, "boat"));
    writer.commit(Seq(4)).unwrap();
    assert_eq!(found(&index, "boat kites"), [("b".to_owned(), 3)]);
    assert_eq!(before.hits(1, 5).unwrap().len(), 1, "a search stays at its moment");
    drop(writer);
    let again = open(&path);
    assert_eq!((again.applied, again.reason), (Seq(4), None));
    assert_eq!(found(&again.index, "tent kite").len(), 2);
    let mut all = Vec::new();
    again
        .index
        .for_each::<super::TextError>(|id, seq| {
            all.push((id.as_str().to_owned(), seq.0));
            Ok(())
        })
        .unwrap();
    all.sort();
    assert_eq!(all, [("a".to_owned(), 1), ("b".to_owned(), 3)]);
}

#[test]
fn a_writer_that_is_dropped_leaves_no_trace() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("1");
    let index = made(&path);
    let mut writer = index.writer().unwrap();
    writer.upsert(&id("a"), Seq(9), "a lamp").unwrap();
    drop(writer);
    assert_eq!(open(&path).applied, Seq(2));
    assert_eq!(found(&index, "lamp"), []);
}

#[test]
fn another_origin_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("1");
    drop(made(&path));
    for origin in [Origin { timeline: 2, ..ORIGIN }, Origin { language: Language::None, ..ORIGIN }, ORIGIN] {
        let opened = TextIndex::open(&path, origin).unwrap();
        assert!(opened.reason.is_some_and(|reason| reason.contains("something else") || reason.contains("never")));
        assert_eq!((opened.applied, opened.index.documents()), (Seq(0), 0));
        opened.index.writer().unwrap().commit(Seq(5)).unwrap();
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files
}

#[test]
fn damage_anywhere_is_noticed_when_it_is_opened() {
    let root = tempfile::tempdir().unwrap();
    let (good, bad) = (root.path().join("good"), root.path().join("bad"));
    drop(made(&good));
    let (mut anew, mut unharmed) = (0, 0);
    for file in files(&good) {
        let len = fs::metadata(&file).unwrap().len() as usize;
        for at in [0, len / 3, len / 2, len.saturating_sub(1)] {
            for cut in [false, true] {
                _ = fs::remove_dir_all(&bad);
                fs::create_dir(&bad).unwrap();
                for file in files(&good) {
                    fs::copy(&file, bad.join(file.file_name().unwrap())).unwrap();
                }
                let damaged = bad.join(file.file_name().unwrap());
                let mut bytes = fs::read(&damaged).unwrap();
                match bytes.get_mut(at) {
                    Some(_) if cut => bytes.truncate(at),
                    Some(byte) => *byte ^= 0x11,
                    None => {}
                }
                fs::write(&damaged, bytes).unwrap();
                let opened = open(&bad);
                if opened.reason.is_some() {
                    assert_eq!((opened.applied, opened.index.documents()), (Seq(0), 0));
                    anew += 1;
                } else {
                    assert_eq!((opened.applied, found(&opened.index, "tent boat").len()), (Seq(2), 3), "{damaged:?}");
                    unharmed += 1;
                }
            }
        }
    }
    assert!(anew > 20, "{anew} made anew, {unharmed} unharmed");
}

#[test]
fn files_that_changed_places_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("1");
    let index = made(&path);
    let mut writer = index.writer().unwrap();
    writer.upsert(&id("z"), Seq(9), "a lamp").unwrap();
    writer.commit(Seq(9)).unwrap();
    drop((writer, index));
    let all = files(&path);
    let mut swapped = 0;
    for (at, one) in all.iter().enumerate() {
        for other in all[at + 1..].iter().filter(|other| fs::read(other).unwrap() != fs::read(one).unwrap()) {
            let bad = root.path().join("bad");
            _ = fs::remove_dir_all(&bad);
            fs::create_dir(&bad).unwrap();
            for file in &all {
                let from = if file == one {
                    other
                } else if file == other {
                    one
                } else {
                    file
                };
                fs::copy(from, bad.join(file.file_name().unwrap())).unwrap();
            }
            let opened = open(&bad);
            let is_lock = |file: &PathBuf| file.extension().is_some_and(|e| e == "lock");
            let is_used = !is_lock(one) || !is_lock(other);
            let words = found(&opened.index, "lamp").len();
            assert!(opened.reason.is_some() || !is_used || words == 1, "{one:?} {other:?}");
            swapped += usize::from(opened.reason.is_some());
        }
    }
    assert!(swapped > 5, "{swapped}");
}

#[test]
fn a_missing_file_is_noticed_too() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("1");
    drop(made(&path));
    let segment = files(&path).into_iter().find(|file| file.extension().is_some_and(|e| e == "term")).unwrap();
    fs::remove_file(segment).unwrap();
    let opened = open(&path);
    assert!(opened.reason.is_some());
    fs::remove_dir_all(&path).unwrap();
    assert!(open(&path).reason.is_none(), "there was none before");
}
