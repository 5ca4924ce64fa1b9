use super::*;
use crate::storage::fault::DeadSector;
use crate::storage::refused_threads;

const IDENTITY: Identity = Identity { store_id: [7; 16], timeline: 1 };
const COLLECTION: CollectionId = CollectionId(3);

fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

fn open(path: &Path) -> (MetaIndex, bool) {
    match MetaIndex::open(path, IDENTITY).unwrap() {
        Opened::Usable(index) => (index, true),
        Opened::Fresh(index, _) => (index, false),
    }
}

fn put(index: &MetaIndex, segment: u64, rows: &[(&str, u64)], tombstones: &[(&str, u64)]) {
    let mut rows = rows.iter().enumerate().map(|(n, (name, seq))| Ok((id(name), n as u32, Seq(*seq))));
    let tombstones: Vec<_> = tombstones.iter().map(|(name, seq)| (id(name), Seq(*seq))).collect();
    let change =
        SegmentChange { collection: COLLECTION, segment: SegmentId(segment), rows: &mut rows, tombstones: &tombstones };
    index.index_segment(change).unwrap();
}

fn at(index: &MetaIndex, name: &str) -> Option<(u64, u32)> {
    index.locate(COLLECTION, &id(name)).unwrap().map(|l| (l.segment.0, l.ordinal))
}

#[test]
fn a_row_beside_an_older_tombstone_of_its_id_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(dir.path());
    // Made anew from an old segment and one that was merged of a deletion and of what was written after it.
    put(&index, 1, &[("a", 3), ("b", 4)], &[]);
    put(&index, 5, &[("a", 9)], &[("a", 7), ("b", 8)]);
    assert_eq!((at(&index, "a"), at(&index, "b")), (Some((5, 0)), None));
}

#[test]
fn an_index_that_the_disk_does_not_give_back_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut index, _) = open(dir.path());
    put(&index, 1, &[("a", 3)], &[]);
    index.close(IDENTITY).unwrap();
    let file = crate::storage::list_files_below(&fingerprint::sled_dir(dir.path()).unwrap()).unwrap().remove(0);
    let dead = DeadSector::new(&file, 0..1);
    let Opened::Fresh(index, reason) = MetaIndex::open(dir.path(), IDENTITY).unwrap() else {
        panic!("what cannot be read was trusted")
    };
    assert!(reason.contains(file.to_str().unwrap()), "{reason}");
    assert_eq!(at(&index, "a"), None);
    drop(dead);
}

#[test]
fn the_youngest_row_wins_whatever_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("meta"));
    put(&index, 2, &[("a", 9)], &[]);
    put(&index, 1, &[("a", 3), ("b", 4)], &[]);
    assert_eq!((at(&index, "a"), at(&index, "b")), (Some((2, 0)), Some((1, 1))));
    put(&index, 3, &[("b", 4)], &[("a", 8)]);
    assert_eq!((at(&index, "a"), at(&index, "b")), (Some((2, 0)), Some((3, 0))), "a merge moves a row of the same seq");
    put(&index, 4, &[], &[("a", 10)]);
    assert_eq!(at(&index, "a"), None);
    let markers: Vec<u64> = index.indexed_segments().unwrap().iter().map(|(_, s)| s.0).collect();
    assert_eq!(markers, [1, 2, 3, 4]);
}

#[test]
fn pages_run_in_order_of_id_within_the_collection() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("meta"));
    put(&index, 1, &[("a", 1), ("b", 1), ("c", 1)], &[]);
    let names = |after: Option<&str>, limit| -> Vec<String> {
        let after = after.map(id);
        let page = index.page(COLLECTION, after.as_ref(), limit).unwrap();
        page.into_iter().map(|(id, _)| id.as_str().to_owned()).collect()
    };
    assert_eq!(names(None, 2), ["a", "b"]);
    assert_eq!(names(Some("a"), 9), ["b", "c"]);
    assert!(index.page(CollectionId(2), None, 9).unwrap().is_empty());
    index.drop_collection(COLLECTION).unwrap();
    assert!(names(None, 9).is_empty() && index.indexed_segments().unwrap().is_empty());
}

#[test]
fn retiring_forgets_only_what_points_at_the_retired() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("meta"));
    put(&index, 1, &[("gone", 1), ("moved", 2)], &[]);
    put(&index, 2, &[("moved", 2)], &[]);
    index.retire(COLLECTION, &[SegmentId(1)], &[id("gone"), id("moved")]).unwrap();
    assert_eq!((at(&index, "gone"), at(&index, "moved")), (None, Some((2, 0))));
    assert_eq!(index.indexed_segments().unwrap().len(), 1);
}

#[test]
fn a_cleanly_closed_index_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let (mut index, usable) = open(&path);
    assert!(!usable);
    put(&index, 1, &[("a", 1)], &[]);
    index.close(IDENTITY).unwrap();
    let (index, usable) = open(&path);
    assert!(usable);
    assert_eq!(at(&index, "a"), Some((1, 0)));
}

#[test]
fn an_index_that_is_given_up_keeps_its_first_cause() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(&dir.path().join("meta"));
    put(&index, 1, &[("a", 1)], &[]);
    index.panics.store(true, Ordering::Release);
    let error = index.locate(COLLECTION, &id("a")).unwrap_err().to_string();
    assert!(error.contains("a test wants sled to panic"), "{error}");
    index.distrust("a later cause".to_owned());
    let error = index.locate(COLLECTION, &id("a")).unwrap_err().to_string();
    assert!(error.contains("a test wants sled to panic") && !error.contains("later"), "{error}");
}

#[test]
fn another_store_or_a_changed_byte_starts_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let close = |mut index: MetaIndex| index.close(IDENTITY).unwrap();
    close(open(&path).0);
    let other = Identity { timeline: 2, ..IDENTITY };
    match MetaIndex::open(&path, other).unwrap() {
        Opened::Fresh(..) => {}
        Opened::Usable(_) => panic!("an index of another timeline was trusted"),
    }
    fingerprint::discard(&path).unwrap();
    let (index, _) = open(&path);
    put(&index, 1, &[("a", 1)], &[]);
    close(index);
    let db = fingerprint::sled_dir(&path).unwrap().join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&db, bytes).unwrap();
    let (index, usable) = open(&path);
    assert!(!usable && at(&index, "a").is_none());
}

#[test]
fn every_flipped_bit_of_the_check_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    open(&path).0.close(IDENTITY).unwrap();
    let file = path.join("CHECK");
    let good = std::fs::read(&file).unwrap();
    assert_eq!(fingerprint::check(&path, IDENTITY), Ok(()));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, bad).unwrap();
        assert!(fingerprint::check(&path, IDENTITY).is_err(), "bit {bit}");
    }
}

/// A pipe that nobody writes to: whoever opens it for reading waits for ever.
#[cfg(unix)]
#[test]
fn an_index_that_hangs_on_opening_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let (index, _) = open(&path);
    put(&index, 1, &[("a", 1)], &[]);
    drop(index);
    let before = fingerprint::sled_dir(&path).unwrap();
    let configuration = before.join("conf");
    std::fs::remove_file(&configuration).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&configuration).status().unwrap().success());
    let opened = MetaIndex::open_within(&path, IDENTITY, Duration::from_millis(500)).unwrap();
    let Opened::Fresh(mut index, reason) = opened else { panic!("it was trusted") };
    assert!(reason.contains("did not open within"), "{reason}");
    put(&index, 1, &[("a", 1)], &[]);
    assert_eq!(at(&index, "a"), Some((1, 0)));
    // As sled does it, by its path, where it goes on after all.
    let late = |name: &str| {
        std::fs::create_dir_all(&before).unwrap();
        std::fs::write(before.join(name), "of another index").unwrap();
    };
    late("snap.00000000FFFFFFFF");
    assert_ne!(fingerprint::sled_dir(&path).unwrap(), before);
    index.close(IDENTITY).unwrap();
    late("snap.00000000FFFFFFFE");
    let (index, usable) = open(&path);
    assert!(usable, "what was written late is no part of it");
    assert_eq!(at(&index, "a"), Some((1, 0)));
}

#[test]
fn every_index_that_is_begun_has_a_directory_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let mut index = open(&path).0;
    for _ in 0..3 {
        let before = fingerprint::sled_dir(&path).unwrap();
        index = index.make_again(IDENTITY).unwrap();
        let now = fingerprint::sled_dir(&path).unwrap();
        assert!(now != before && now.join("db").exists(), "{} {}", before.display(), now.display());
    }
    // As an earlier version left it.
    index.close(IDENTITY).unwrap();
    std::fs::rename(fingerprint::sled_dir(&path).unwrap(), path.join("db")).unwrap();
    assert!(!open(&path).1);
    assert!(!path.join("db").exists());
}

#[test]
fn an_index_is_kept_where_no_thread_can_open_it() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = open(dir.path());
    put(&index, 1, &[("a", 1)], &[]);
    drop(index);
    refused_threads::after(0);
    let opened = MetaIndex::open(dir.path(), IDENTITY);
    refused_threads::after(usize::MAX);
    assert!(matches!(opened, Err(MetaError::Storage(_))), "it was opened");
    let (index, trusted) = open(dir.path());
    assert!(trusted);
    assert_eq!(at(&index, "a"), Some((1, 0)));
}
