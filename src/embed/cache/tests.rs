//! The cache against damage, fullness, restarts and threads, and embedding through it.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use super::format::{HEADER_BYTES, Header, PART_NUMBERS, RECORD_BYTES, Record};
use super::table::WAYS;
use super::{Key, Known, VectorCache, embed_through};
use crate::embed::{EmbedError, Embeddings};
use crate::storage::fault::{Faults, Operation, Then};

const DIM: usize = 384;
const MIB: u64 = 1 << 20;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("cache/vectors.cache")
    }

    fn open(&self, max_bytes: u64) -> VectorCache {
        VectorCache::new(self.path(), Some(max_bytes)).unwrap()
    }
}

fn key(n: usize) -> Key {
    Key::new("print", "", &n.to_string())
}

fn known(n: usize, dim: usize) -> Known {
    let vector = (0..dim).map(|i| (n * 31 + i) as f32 / 7.0).collect();
    Known { vector, tokens: n % 256, truncated: n.is_multiple_of(3) }
}

#[test]
fn the_bytes_are_as_documented() {
    let header = Header::of_size(4_096 + 64 + 2 * 8 * (8 + 1_600)).unwrap();
    assert_eq!((header.slots, header.table_end()), (16, 64 + 128));
    assert_eq!((header.tag_offset(2), header.record_offset(2)), (80, 4_096 + 3_200));
    let bytes = header.encode();
    assert_eq!(bytes[..28], *b"PANNVCAC\x01\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x40\x06\0\0");
    assert_eq!(bytes[28..60], [0; 32]);
    assert_eq!(Header::decode(&bytes), Some(header));

    let (key, known) = (Key([7; 32]), Known { vector: vec![1.5; 400], tokens: 258, truncated: true });
    let bytes = Record::encode(&key, 1, &known, &known.vector[PART_NUMBERS..]);
    assert_eq!(bytes.len(), 1_600);
    assert_eq!(bytes[4..16], [0x90, 1, 0, 0, 2, 1, 0, 0, 1, 0, 1, 0]);
    assert_eq!((&bytes[16..48], &bytes[48..64]), ([7; 32].as_slice(), [0; 16].as_slice()));
    assert_eq!(bytes[64..68], 1.5f32.to_le_bytes());
    assert!(bytes[64 + 16 * 4..].iter().all(|byte| *byte == 0));
    let record = Record::decode(&bytes).unwrap();
    assert_eq!((record.key, record.dim, record.part, record.tokens, record.truncated), (key, 400, 1, 258, true));
    assert_eq!((record.numbers[15], record.numbers[16]), (1.5, 0.0));
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    let header = Header::of_size(MIB).unwrap().encode();
    let record = Record::encode(&key(1), 0, &known(1, DIM), &known(1, DIM).vector);
    assert_eq!(Record::decode(&[0; RECORD_BYTES]), None);
    for len in 0..HEADER_BYTES {
        assert_eq!(Header::decode(&header[..len]), None);
    }
    for len in 0..RECORD_BYTES {
        assert_eq!(Record::decode(&record[..len]), None);
    }
    for bit in 0..HEADER_BYTES * 8 {
        let mut bytes = header;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Header::decode(&bytes), None, "{bit}");
    }
    for bit in 0..RECORD_BYTES * 8 {
        let mut bytes = record;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Record::decode(&bytes), None, "{bit}");
    }
}

#[test]
fn keys_differ_where_anything_does() {
    let keys = [
        Key::new("a", "", "x"),
        Key::new("b", "", "x"),
        Key::new("a", "p", "x"),
        Key::new("a", "", "px"),
        Key::new("a", "", "y"),
        Key::new("", "a", "x"),
    ];
    for (n, key) in keys.iter().enumerate() {
        assert!(keys[..n].iter().all(|other| other != key), "{n}");
    }
}

#[test]
fn vectors_of_every_length_come_back_also_after_a_restart() {
    let place = Place::new();
    let dims = [1, 3, DIM, DIM + 1, 768, 1_024, 4_096];
    let cache = place.open(4 * MIB);
    for (n, dim) in dims.into_iter().enumerate() {
        assert_eq!(cache.get(&key(n), dim), None);
        cache.put(&key(n), &known(n, dim));
    }
    for cache in [cache, place.open(4 * MIB)] {
        for (n, dim) in dims.into_iter().enumerate() {
            assert_eq!(cache.get(&key(n), dim), Some(known(n, dim)), "{dim}");
            assert_eq!(cache.get(&key(n), dim + 1), None, "another length");
        }
        assert_eq!(cache.get(&key(99), DIM), None);
    }
}

#[test]
fn the_file_stays_within_its_bound_and_nearly_all_of_it_is_used() {
    let place = Place::new();
    let cache = place.open(2 * MIB);
    let slots = Header::of_size(2 * MIB).unwrap().slots;
    let found = |count: usize| (0..count).filter(|&n| cache.get(&key(n), DIM).is_some()).count();
    let almost = slots * 3 / 4;
    (0..almost).for_each(|n| cache.put(&key(n), &known(n, DIM)));
    assert_eq!(found(almost), almost, "three quarters full, and nothing was replaced");
    (almost..4 * slots).for_each(|n| cache.put(&key(n), &known(n, DIM)));
    let kept = found(4 * slots);
    assert!(kept <= slots && kept > slots * 9 / 10, "{kept} of {slots}");
    assert!(found(almost) > slots / 100, "a share of the oldest stays");
    assert!(fs::metadata(place.path()).unwrap().len() <= 2 * MIB);
}

#[test]
fn damage_is_a_text_that_is_not_known() {
    let place = Place::new();
    let write = || {
        let cache = place.open(MIB);
        (0..20).for_each(|n| cache.put(&key(n), &known(n, DIM)));
    };
    write();
    let good = fs::read(place.path()).unwrap();
    let mut lost = 0;
    for at in (0..good.len()).step_by(997).chain(0..HEADER_BYTES) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(place.path(), bytes).unwrap();
        let cache = place.open(MIB);
        for n in 0..20 {
            match cache.get(&key(n), DIM) {
                Some(found) => assert_eq!(found, known(n, DIM)),
                None => lost += 1,
            }
        }
    }
    assert!(lost > 20, "{lost}");
    for len in (0..good.len()).step_by(good.len() / 50) {
        fs::write(place.path(), &good[..len]).unwrap();
        let cache = place.open(MIB);
        assert!((0..20).all(|n| cache.get(&key(n), DIM).is_none_or(|found| found == known(n, DIM))));
        cache.put(&key(3), &known(3, DIM));
        assert_eq!(cache.get(&key(3), DIM), Some(known(3, DIM)));
    }
    fs::remove_file(place.path()).unwrap();
    write();
    assert_eq!(place.open(MIB).get(&key(7), DIM), Some(known(7, DIM)));
}

#[test]
fn another_size_begins_anew_and_none_removes_the_file() {
    let place = Place::new();
    place.open(MIB).put(&key(1), &known(1, DIM));
    assert_eq!(place.open(2 * MIB).get(&key(1), DIM), None);
    assert!(place.path().exists());
    assert!(VectorCache::new(place.path(), Some(0)).is_none());
    assert!(!place.path().exists());
    assert!(VectorCache::new(place.path(), Some(0)).is_none());
}

#[test]
fn without_a_size_a_file_keeps_its_own() {
    for size in [MIB, 300 * MIB] {
        let place = Place::new();
        place.open(size).put(&key(1), &known(1, DIM));
        let cache = VectorCache::new(place.path(), None).unwrap();
        assert_eq!(cache.get(&key(1), DIM), Some(known(1, DIM)));
        cache.put(&key(2), &known(2, DIM));
        assert_eq!(place.open(size).get(&key(2), DIM), Some(known(2, DIM)), "also for who asks for that size");
    }
    let place = Place::new();
    VectorCache::new(place.path(), None).unwrap().put(&key(1), &known(1, DIM));
    assert_eq!(place.open(256 * MIB).get(&key(1), DIM), Some(known(1, DIM)), "a new file has 256 MiB");
}

#[test]
fn no_size_takes_more_memory_than_a_tebibytes_tags() {
    let most = Header::of_size(1 << 40).unwrap();
    assert_eq!(Header::of_size(u64::MAX), Some(most));
    assert_eq!(Header::decode(&most.encode()), Some(most));
    for slots in [most.slots + WAYS, usize::MAX / WAYS * WAYS, 0, 7] {
        assert_eq!(Header::decode(&Header { slots }.encode()), None, "{slots}");
    }
    assert!(super::table::Table::new(usize::MAX / 8).is_none());
}

#[test]
fn a_disk_that_fails_costs_the_cache_and_nothing_else() {
    let place = Place::new();
    let cache = place.open(MIB);
    cache.put(&key(1), &known(1, DIM));
    let faults = Faults::arm_only(place.dir.path(), Operation::Write, 0, Then::Crash);
    cache.put(&key(2), &known(2, DIM));
    cache.put(&key(3), &known(3, DIM));
    assert_eq!(faults.seen().len(), 1, "it is not tried again");
    assert_eq!((cache.get(&key(1), DIM), cache.get(&key(2), DIM)), (Some(known(1, DIM)), None));
    let unusable = VectorCache::new(place.dir.path().to_owned(), Some(MIB)).unwrap();
    unusable.put(&key(1), &known(1, DIM));
    assert_eq!(unusable.get(&key(1), DIM), None);
}

#[test]
fn threads_that_replace_each_others_vectors_never_read_a_mixture() {
    let place = Place::new();
    // One set of slots, which all keys share.
    let cache = place.open(4_096 + 64 + (WAYS * (8 + RECORD_BYTES)) as u64);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..500 {
                    let n = (round * 7 + thread) % 64;
                    cache.put(&key(n), &known(n, DIM));
                    let other = (round * 5 + thread) % 64;
                    assert!(cache.get(&key(other), DIM).is_none_or(|found| found == known(other, DIM)));
                }
            });
        }
    });
}

/// Embeds texts by a model that writes down what it is asked.
fn embed(cache: &VectorCache, texts: &[&str], asked: &RefCell<Vec<String>>) -> Result<Embeddings, EmbedError> {
    let compute = |texts: &[&str]| {
        asked.borrow_mut().extend(texts.iter().map(|text| (*text).to_owned()));
        if let Some(index) = texts.iter().position(|text| *text == "bad") {
            return Err(EmbedError::NoTokens { index });
        }
        Ok(Embeddings {
            vectors: texts.iter().map(|text| vec![text.len() as f32; 4]).collect(),
            token_counts: texts.iter().map(|text| text.len()).collect(),
            truncated: texts.iter().map(|text| text.len() > 3).collect(),
            cached: 0,
        })
    };
    embed_through(cache, |text| Key::new("f", "", text), 4, texts, compute)
}

#[test]
fn the_model_is_asked_for_new_texts_only() {
    let place = Place::new();
    let cache = place.open(MIB);
    let asked = RefCell::new(Vec::new());
    let first = embed(&cache, &["a", "bb", "cccc"], &asked).unwrap();
    assert_eq!((first.cached, asked.take().len()), (0, 3));
    let mixed = embed(&cache, &["cccc", "new", "a"], &asked).unwrap();
    assert_eq!((mixed.cached, asked.take()), (2, vec!["new".to_owned()]));
    assert_eq!(mixed.vectors, [vec![4.0; 4], vec![3.0; 4], vec![1.0; 4]]);
    assert_eq!((mixed.token_counts, mixed.truncated), (vec![4, 3, 1], vec![true, false, false]));
    let cache = place.open(MIB);
    let again = embed(&cache, &["a", "bb", "cccc"], &asked).unwrap();
    assert_eq!((again.cached, asked.take()), (3, Vec::new()), "also in the next process");
    assert_eq!(Embeddings { cached: 0, ..again }, first);
}

#[test]
fn what_was_embedded_before_a_failure_is_kept() {
    let place = Place::new();
    let cache = place.open(MIB);
    let asked = RefCell::new(Vec::new());
    let long: Vec<String> = (0..5).map(|at| at.to_string().repeat(30 << 10)).collect();
    let mut texts: Vec<&str> = long.iter().map(String::as_str).collect();
    texts.push("bad");
    let error = embed(&cache, &texts, &asked).unwrap_err();
    assert!(matches!(error, EmbedError::NoTokens { index: 5 }), "{error}");
    assert_eq!(asked.take().len(), 6);
    let again = embed(&cache, &texts[..5], &asked).unwrap();
    assert_eq!((again.cached, asked.take(), again.vectors.len()), (4, vec![long[4].clone()], 5), "two at a time");
}

#[test]
fn errors_name_the_text_among_all() {
    let place = Place::new();
    let cache = place.open(MIB);
    let asked = RefCell::new(Vec::new());
    embed(&cache, &["a"], &asked).unwrap();
    let error = embed(&cache, &["a", "b", "a", "bad"], &asked).unwrap_err();
    assert!(matches!(error, EmbedError::NoTokens { index: 3 }), "{error}");
}
