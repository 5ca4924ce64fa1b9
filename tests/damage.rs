//! Damaged files: named and refused, or made again; never a panic, never a silent difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use pannier::types::{Filter, Mode, Query, SearchRequest, Value};
use pannier::{Database, DefinitionRequest, Options};

use crate::support::{Random, document, id, name, number_from};

const DOCUMENTS: u64 = 60;

fn options() -> Options {
    Options { memtable_documents: Some(20), ..Options::default() }
}

/// A store of two segments, one with a graph, and a log.
fn make(path: &Path) {
    make_of(path, 4);
}

/// The same, of vectors of so many numbers.
fn make_of(path: &Path, dim: u32) {
    let database = Database::open_with(path, options()).unwrap();
    let things = database.create_collection(&name("things"), &DefinitionRequest::vectors(dim)).unwrap().collection;
    let mut random = Random(7);
    for n in 0..DOCUMENTS {
        let vector = random.whole_vector(dim as usize);
        things.upsert(vec![document(&format!("d{n:02}"), &vector, (n % 3) as i64)]).unwrap();
        if n == 30 {
            things.optimise().unwrap();
        }
        if n == 50 {
            things.delete(&[id("d07"), id("d45")]).unwrap();
            things.flush().unwrap();
        }
    }
    things.refresh().unwrap();
}

/// Everything the store answers: each document, searches by a vector, a filter's documents, and those that have a word.
fn read(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let database = Database::open_with(path, options())?;
    let things = database.collection(&name("things"))?;
    let mut seen = vec![format!("{} documents", things.stats().documents)];
    for n in 0..DOCUMENTS {
        let found = things.get(&id(&format!("d{n:02}")))?;
        seen.push(format!("{:?}", found.map(|d| (d.vector, d.stored.text, d.stored.metadata, d.seq))));
    }
    let query = Query::Vector(Random(8).whole_vector(things.definition().dim as usize));
    for exact in [true, false] {
        for filter in [None, Some(group_of_one())] {
            let request = SearchRequest { exact, filter, top_k: 100, ..SearchRequest::new(query.clone()) };
            let hits = things.search(&request)?.hits;
            seen.push(format!("{:?}", hits.iter().map(|h| (h.id.as_str(), h.score)).collect::<Vec<_>>()));
        }
    }
    seen.push(format!("{} of a group", things.count(Some(&group_of_one()))?));
    things.refresh()?;
    for word in ["text", "d12", "d45"] {
        let query = Query::Text(word.to_owned());
        let request = SearchRequest { mode: Mode::Keyword, top_k: 100, ..SearchRequest::new(query) };
        // Scores count documents that are deleted until tantivy merges, so an index that was made again has others.
        let ids: BTreeSet<_> = things.search(&request)?.hits.into_iter().map(|hit| hit.id).collect();
        seen.push(format!("{word}: {ids:?}"));
    }
    Ok(seen)
}

fn group_of_one() -> Filter {
    Filter::eq("group", Value::Int(1))
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
    found.sort();
}

/// A store's files by relative path.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read_files(root: &Path) -> Files {
    // A store that is open may take a file away meanwhile, such as a temporary one: then all are read again.
    let read = || {
        let mut all = Vec::new();
        files(root, &mut all);
        let read = |file: PathBuf| Ok((file.strip_prefix(root).unwrap().to_owned(), fs::read(&file)?));
        all.into_iter().map(read).collect::<std::io::Result<Files>>()
    };
    let mut tries = std::iter::repeat_with(read).take(1_000);
    tries.find(|read| !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)).unwrap().unwrap()
}

fn write_files(root: &Path, files: &Files) {
    _ = fs::remove_dir_all(root);
    for (path, bytes) in files {
        let target = root.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

/// What a file is for, by its place.
fn kind(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    match (first, path.extension().and_then(|e| e.to_str())) {
        ("segments", Some(extension)) => extension.to_owned(),
        ("meta.sled", _) if path.ends_with("CHECK") => "CHECK".to_owned(),
        _ => first.to_owned(),
    }
}

/// Damages one file, or swaps two of a kind. Returns what was done and the names of the files that differ now.
fn damage(files: &mut Files, random: &mut Random) -> (String, Vec<PathBuf>) {
    let kinds: BTreeSet<_> = files.keys().map(|path| kind(path)).collect();
    let chosen = kinds.iter().nth(random.below(kinds.len() as u64) as usize).unwrap().clone();
    let of_kind: Vec<_> = files.keys().filter(|path| kind(path) == chosen).cloned().collect();
    let path = of_kind[random.below(of_kind.len() as u64) as usize].clone();
    let mut bytes = files[&path].clone();
    let at = |random: &mut Random, len: usize| random.below(len.max(1) as u64) as usize;
    let place = at(random, bytes.len());
    let what = match random.below(10) {
        0 => {
            files.remove(&path);
            return (format!("deletion of {}", path.display()), vec![path]);
        }
        1 if of_kind.len() > 1 => {
            let other = of_kind[random.below(of_kind.len() as u64) as usize].clone();
            let others = files[&other].clone();
            files.insert(other.clone(), bytes);
            files.insert(path.clone(), others);
            return (format!("swap of {} and {}", path.display(), other.display()), vec![path, other]);
        }
        2 | 3 => {
            bytes.truncate(place);
            format!("truncation at {place}")
        }
        4 => {
            let end = bytes.len().min(place + 1 + at(random, 512));
            bytes[place.min(end)..end].fill(0);
            format!("zeros at {place}..{end}")
        }
        5 => {
            let from = at(random, bytes.len());
            let len = (bytes.len() - place.max(from)).min(256);
            for n in 0..len {
                bytes.swap(place + n, from + n);
            }
            format!("swap of {len} bytes at {place} and {from}")
        }
        6 => {
            let count = 1 + at(random, 64);
            bytes.extend((0..count).map(|_| random.next() as u8));
            format!("{count} bytes more")
        }
        _ if bytes.is_empty() => "nothing".to_owned(),
        _ => {
            let bit = random.below(8);
            bytes[place] ^= 1 << bit;
            format!("flip of bit {bit} at {place}")
        }
    };
    let what = format!("{what} of {}", path.display());
    files.insert(path.clone(), bytes);
    (what, vec![path])
}

/// How a damaged store behaved.
#[derive(Default)]
struct Outcomes {
    refused: u64,
    mended: u64,
}

/// Damages files of copies at random, and holds what is read then against the truth. `PANNIER_TEST_MUTATIONS` is the
/// number. The store was closed, so nothing in it can be taken for a torn write.
#[test]
fn damage_is_named_or_mended_and_never_served() {
    const THREADS: u64 = 6;
    let wanted = number_from("PANNIER_TEST_MUTATIONS", 240);
    let seed = number_from("PANNIER_TEST_SEED", 11);
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good");
    // Of so many numbers that the graph is walked on nibbles.
    make_of(&good, 128);
    let truth = read(&good).unwrap();
    let files = read_files(&good);
    let kinds: BTreeSet<_> = files.keys().map(|path| kind(path)).collect();
    for needed in ["FORMAT", "MANIFEST", "LOCK", "log", "NEWEST", "seg", "dead", "meta.sled", "CHECK", "text"] {
        assert!(kinds.contains(needed), "{needed} is not among {kinds:?}");
    }
    let outcomes = Mutex::new(Outcomes::default());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (files, truth, outcomes, directory) = (&files, &truth, &outcomes, directory.path());
            scope.spawn(move || {
                let bad = directory.join(format!("bad{thread}"));
                for number in (thread..wanted).step_by(THREADS as usize) {
                    let mut files = files.clone();
                    let (what, names) = damage(&mut files, &mut Random(seed << 32 | number));
                    write_files(&bad, &files);
                    judge(&bad, truth, &format!("{number}: {what}"), &names, outcomes);
                }
            });
        }
    });
    let Outcomes { refused, mended } = outcomes.into_inner().unwrap();
    println!("{wanted} mutations: {refused} refused by name, {mended} without a difference");
    assert!(refused > 0 && mended > 0);
}

fn judge(bad: &Path, truth: &[String], what: &str, names: &[PathBuf], outcomes: &Mutex<Outcomes>) {
    let seen = read(bad);
    let mut outcomes = outcomes.lock().unwrap();
    match seen {
        Ok(seen) if seen == truth => outcomes.mended += 1,
        Ok(_) => panic!("{what} went unnoticed"),
        Err(error) => {
            let text = with_causes(&*error);
            // Without FORMAT it is no store; without the newest log file it is the next one that is missed.
            let named = names.iter().any(|name| text.contains(name.file_name().unwrap().to_str().unwrap()));
            let is_missing = names.iter().any(|name| !bad.join(name).exists());
            assert!(named || is_missing && text.contains(bad.to_str().unwrap()), "{what}: {text}");
            outcomes.refused += 1;
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Cut, or filled with zeros, from each byte of the last group on. Where the store was killed, everything before that
/// group is there, and it starts; where it was closed, the group had been durable and is missed.
#[test]
fn a_torn_or_zeroed_tail_costs_the_last_group_alone() {
    let step = number_from("PANNIER_TEST_TAIL_STEP", 29) as usize;
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good"), directory.path().join("bad"));
    make(&good);
    let mut newest = Vec::new();
    files(&good.join("log"), &mut newest);
    let log = newest.pop().unwrap();
    let before = fs::metadata(&log).unwrap().len() as usize;
    let without = read(&good).unwrap();
    let killed = {
        let database = Database::open_with(&good, options()).unwrap();
        let last = ["x1", "x2", "x3"].map(|id| document(id, &[1.0, 2.0, 3.0, 4.0], 0));
        database.collection(&name("things")).unwrap().upsert(last.to_vec()).unwrap();
        read_files(&good)
    };
    let closed = read_files(&good);
    let log = log.strip_prefix(&good).unwrap();
    let after = killed[log].len();
    assert!(after > before + 100 && closed[log] == killed[log]);
    for at in (before..after).step_by(step) {
        for zeros in [false, true] {
            let mut files = killed.clone();
            let bytes = files.get_mut(log).unwrap();
            if zeros {
                bytes[at..].fill(0)
            } else {
                bytes.truncate(at)
            };
            // Padding is zero already.
            let differs = files[log] != killed[log];
            if differs {
                let mut damaged = closed.clone();
                damaged.insert(log.to_owned(), files[log].clone());
                write_files(&bad, &damaged);
                let error = Database::open_with(&bad, options()).err().expect("durable changes are gone");
                let text = with_causes(&error);
                assert!(text.contains(&format!("{} is damaged at offset {before}", bad.join(log).display())), "{text}");
                assert_eq!(read_files(&bad)[log], damaged[log], "{at} {zeros}");
            }
            write_files(&bad, &files);
            let torn_bytes = Database::open_with(&bad, options()).unwrap().recovered().torn_bytes;
            let expected = files[log].len() - before;
            assert_eq!(torn_bytes, if differs { expected as u64 } else { 0 }, "{at} {zeros}");
            let seen = read(&bad).unwrap();
            if differs {
                assert_eq!(seen, without, "{at} {zeros}");
            }
        }
    }
}

/// Without its newest file the log would read like a shorter one: the file is missed by its name.
#[test]
fn a_log_without_its_newest_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good"), directory.path().join("bad"));
    make(&good);
    let all = read_files(&good);
    let logs: Vec<_> = all.keys().filter(|path| kind(path) == "log").cloned().collect();
    for left in 0..logs.len() {
        let mut files = all.clone();
        logs[left..].iter().for_each(|log| _ = files.remove(log));
        write_files(&bad, &files);
        let error = Database::open_with(&bad, options()).err().expect("changes are missing");
        let text = with_causes(&error);
        assert!(text.contains(".log is missing"), "{text}");
        assert_eq!(read_files(&bad).get(Path::new("NEWEST")), all.get(Path::new("NEWEST")));
    }
    // The mark alone is made again.
    let mut files = all.clone();
    let mark = files.remove(Path::new("NEWEST")).unwrap();
    write_files(&bad, &files);
    assert_eq!(read(&bad).unwrap(), read(&good).unwrap());
    assert_eq!(read_files(&bad)[Path::new("NEWEST")], mark);
}

/// A version that does not exist yet, in each kind of file that is not derived, with right checksums.
#[test]
fn a_newer_format_is_refused_and_nothing_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good"), directory.path().join("bad"));
    make(&good);
    let good_files = read_files(&good);
    let mut kinds = BTreeSet::new();
    for (path, bytes) in &good_files {
        let kind = kind(path);
        let Some(header_crc_at) = [("FORMAT", 36), ("MANIFEST", 84), ("log", 60), ("seg", 0), ("dead", 0)]
            .iter()
            .find_map(|(name, at)| (*name == kind).then_some(*at))
        else {
            continue;
        };
        let mut bytes = bytes.clone();
        bytes[8..12].copy_from_slice(&99u32.to_le_bytes());
        if header_crc_at > 0 {
            let crc = crc32c::crc32c(&bytes[..header_crc_at]);
            bytes[header_crc_at..header_crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        }
        let end = bytes.len() - 4;
        if kind == "MANIFEST" || kind == "dead" {
            let crc = crc32c::crc32c(&bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
        let mut files = good_files.clone();
        files.insert(path.clone(), bytes);
        write_files(&bad, &files);
        let error = Database::open_with(&bad, options()).err().unwrap_or_else(|| panic!("{kind} 99 was opened"));
        let text = with_causes(&error);
        assert!(text.contains("99") && text.contains(path.file_name().unwrap().to_str().unwrap()), "{kind}: {text}");
        let mut left = read_files(&bad);
        // Whoever tried to open the store stands in LOCK, and that the index is in use in CHECK: both are not the
        // store's.
        for path in ["LOCK", "meta.sled/CHECK"] {
            left.remove(Path::new(path));
            files.remove(Path::new(path));
        }
        let is_index = |path: &PathBuf| path.starts_with("meta.sled") || path.starts_with("text");
        left.retain(|path, _| !is_index(path));
        files.retain(|path, _| !is_index(path));
        assert_eq!(left, files, "{kind}");
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

/// `PANNIER_TEST_REBUILD_DOCUMENTS` documents in segments, and no index of them.
#[test]
fn a_missing_document_index_is_made_again_from_many_documents() {
    let count = number_from("PANNIER_TEST_REBUILD_DOCUMENTS", 4_000);
    let directory = tempfile::tempdir().unwrap();
    let numbered = |n: u64| document(&format!("d{n:07}"), &Random(n).whole_vector(8), (n % 7) as i64);
    {
        let database = Database::open(directory.path()).unwrap();
        let things = database.create_collection(&name("things"), &DefinitionRequest::vectors(8)).unwrap().collection;
        for from in (0..count).step_by(1_000) {
            things.upsert((from..count.min(from + 1_000)).map(numbered).collect()).unwrap();
        }
        things.flush().unwrap();
    }
    fs::remove_dir_all(directory.path().join("meta.sled")).unwrap();
    let began = Instant::now();
    let database = Database::open(directory.path()).unwrap();
    println!("{count} documents: opened without an index in {:?}", began.elapsed());
    assert!(database.recovered().index_rebuilt.is_some());
    let things = database.collection(&name("things")).unwrap();
    assert_eq!(things.stats().documents, count);
    for n in (0..count).step_by(97) {
        let found = things.get(&id(&format!("d{n:07}"))).unwrap().unwrap();
        assert_eq!(found.stored.metadata["group"], Value::Int((n % 7) as i64));
    }
}

#[test]
fn the_document_index_is_made_again_when_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let truth = read(directory.path()).unwrap();
    fs::remove_dir_all(directory.path().join("meta.sled")).unwrap();
    assert_eq!(read(directory.path()).unwrap(), truth);
}

/// An older manifest beside the files of a newer one: refused, and nothing that the newer one names is removed.
#[test]
fn a_manifest_of_another_time_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good"), directory.path().join("bad"));
    make(&good);
    let older = fs::read(good.join("MANIFEST")).unwrap();
    {
        let things = Database::open_with(&good, options()).unwrap().collection(&name("things")).unwrap();
        things.upsert(vec![document("d00", &[1.0, 1.0, 1.0, 1.0], 0)]).unwrap();
        things.optimise().unwrap();
    }
    let truth = read(&good).unwrap();
    let all = read_files(&good);
    let mut files = all.clone();
    files.insert("MANIFEST".into(), older);
    write_files(&bad, &files);
    let error = Database::open_with(&bad, options()).err().expect("the log has been trimmed since");
    let text = with_causes(&error);
    assert!(["MANIFEST", ".seg", ".log"].iter().any(|file| text.contains(file)), "{text}");
    let left = read_files(&bad);
    assert!(all.keys().filter(|path| path.starts_with("segments")).all(|path| left.get(path) == all.get(path)));
    fs::write(bad.join("MANIFEST"), &all[Path::new("MANIFEST")]).unwrap();
    assert_eq!(read(&bad).unwrap(), truth);
}

/// The list of dead rows is written again, so that snapshots have one.
#[test]
fn a_missing_list_of_dead_rows_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let truth = read(directory.path()).unwrap();
    let lists = || read_files(directory.path()).into_keys().filter(|path| kind(path) == "dead").collect::<Vec<_>>();
    let before = lists();
    assert!(!before.is_empty());
    before.iter().for_each(|path| fs::remove_file(directory.path().join(path)).unwrap());
    assert_eq!(read(directory.path()).unwrap(), truth);
    assert!(!lists().is_empty() && lists().iter().all(|path| !before.contains(path)));
    let database = Database::open(directory.path()).unwrap();
    assert_eq!(database.verify(&mut |_, _| {}).unwrap().problems, Vec::<String>::new());
    pannier::snapshot::create(&database, None).unwrap();
}

/// All of it, also before anything was sealed: the store is not taken for a new one.
#[test]
fn a_store_without_its_log_is_refused() {
    for sealed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        {
            let database = Database::open(directory.path()).unwrap();
            let request = DefinitionRequest::vectors(4);
            let things = database.create_collection(&name("things"), &request).unwrap().collection;
            things.upsert(vec![document("a", &[1.0, 2.0, 3.0, 4.0], 0)]).unwrap();
            if sealed {
                things.flush().unwrap();
            }
        }
        fs::remove_dir_all(directory.path().join("log")).unwrap();
        let text = with_causes(&Database::open(directory.path()).err().expect("its changes are gone"));
        assert!(text.contains(".log is missing"), "{text}");
    }
}

/// What was read once is read again: the disk is asked, not what the process remembers.
#[test]
fn damage_between_two_verifications_is_found() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let database = Database::open_with(directory.path(), options()).unwrap();
    database.collection(&name("things")).unwrap().settle().unwrap();
    let problems = || database.verify(&mut |_, _| {}).unwrap().problems;
    assert_eq!(problems(), Vec::<String>::new());
    let mut all = Vec::new();
    files(&directory.path().join("segments"), &mut all);
    let segment = all.iter().find(|file| file.extension().is_some_and(|e| e == "seg")).unwrap();
    let middle = fs::metadata(segment).unwrap().len() / 2;
    let mut file = fs::File::options().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[!byte[0]]).unwrap();
    let found = problems();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(segment.file_name().unwrap().to_str().unwrap()), "{found:?}");
}

#[test]
fn a_missing_segment_is_named() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let mut all = Vec::new();
    files(&directory.path().join("segments"), &mut all);
    let segment = all.iter().find(|file| file.extension().is_some_and(|e| e == "seg")).unwrap();
    fs::remove_file(segment).unwrap();
    let error = Database::open(directory.path()).err().expect("a store without its segment is refused");
    let text = with_causes(&error);
    assert!(text.contains(segment.file_name().unwrap().to_str().unwrap()), "{text}");
}

#[test]
fn a_second_opening_is_refused_with_the_holder() {
    let directory = tempfile::tempdir().unwrap();
    let first = Database::open(directory.path()).unwrap();
    let error = Database::open(directory.path()).err().expect("one process holds a directory");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(first);
    Database::open(directory.path()).unwrap();
}
