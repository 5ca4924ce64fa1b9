use std::path::Path;

use super::resolve::Resolved;
use super::*;
use crate::meta::{Identity, Opened};
use crate::types::{Condition, Filter, GeoPoint, RowSet, Value};

const IDENTITY: Identity = Identity { store_id: [7; 16], timeline: 1 };
const COLLECTION: CollectionId = CollectionId(3);
const SEGMENT: SegmentId = SegmentId(9);

fn open(path: &Path) -> MetaIndex {
    match MetaIndex::open(path, IDENTITY).unwrap() {
        Opened::Usable(index) | Opened::Fresh(index, _) => index,
    }
}

fn put(index: &MetaIndex, segment: SegmentId, documents: &[Metadata], declared: &[(&str, FieldType)]) {
    let declared = declared.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    let mut metadata = |row: Ordinal| Ok(documents[row as usize].clone());
    let rows = documents.len() as u32;
    let source = SegmentFields { collection: COLLECTION, segment, rows, declared: &declared, metadata: &mut metadata };
    index.index_fields(source).unwrap();
}

/// As [`MetaIndex::fields_match`] of documents whose collection declares nothing.
fn matches(index: &MetaIndex, documents: &[Metadata]) -> Option<bool> {
    let mut metadata = |row: Ordinal| Ok(documents[row as usize].clone());
    let rows = documents.len() as u32;
    let declared = BTreeMap::new();
    let source =
        SegmentFields { collection: COLLECTION, segment: SEGMENT, rows, declared: &declared, metadata: &mut metadata };
    index.fields_match(source).unwrap()
}

#[test]
fn postings_are_held_against_documents() {
    let mut random = Random(5);
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let mut documents: Vec<Metadata> = (0..400).map(|_| random.metadata(2)).collect();
    documents[7].insert("a".to_owned(), Value::Int(1));
    assert_eq!(matches(&index, &documents), None, "nothing is indexed yet");
    put(&index, SEGMENT, &documents, &[]);
    assert_eq!(matches(&index, &documents), Some(true));
    assert_eq!(matches(&index, &documents[..399]), Some(false), "other rows");
    let mut others = documents.clone();
    others[7].insert("a".to_owned(), Value::Int(2));
    assert_eq!(matches(&index, &others), Some(false), "another value");
    others[7].remove("a");
    assert_eq!(matches(&index, &others), Some(false), "a value too many");
    // Whatever is lost, or stands where it does not belong.
    for kind in [TABLE, POSTINGS] {
        let blocks: Vec<_> =
            index.db().scan_prefix(segment_key(kind, COLLECTION, SEGMENT)).map(Result::unwrap).collect();
        assert!(!blocks.is_empty());
        for (key, value) in blocks {
            index.db().remove(&key).unwrap();
            assert_eq!(matches(&index, &documents), Some(false), "{key:?} is missing");
            let mut bad = value.to_vec();
            bad[0] ^= 1;
            index.db().insert(&key, bad).unwrap();
            assert_eq!(matches(&index, &documents), Some(false), "{key:?} is damaged");
            index.db().insert(&key, value).unwrap();
        }
    }
    let stray = field_key(COLLECTION, SEGMENT, 0, 999);
    index.db().insert(stray, b"a block").unwrap();
    assert_eq!(matches(&index, &documents), Some(false), "a field too many");
}

/// Of too many fields the same ones are taken, whoever makes the postings.
#[test]
fn postings_of_too_many_dotted_fields_are_made_again_alike() {
    let directory = tempfile::tempdir().unwrap();
    let index = open(directory.path());
    let documents: [Metadata; 1] = [(0..300).map(|n| (format!("http.field{n:03}"), Value::Int(n))).collect()];
    put(&index, SEGMENT, &documents, &[]);
    for _ in 0..10 {
        assert_eq!(matches(&index, &documents), Some(true));
    }
}

fn resolve(index: &MetaIndex, rows: usize, filter: &Filter) -> Resolved {
    index.resolve(COLLECTION, SEGMENT, rows as u32, filter)
}

/// Numbers that look random and are the same in every run: SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    fn scalar(&mut self) -> Value {
        let big = 1i64 << 53;
        match self.below(6) {
            0 => Value::Null,
            1 => Value::Bool(self.below(2) == 0),
            2 => Value::Int(self.pick(&[-2, -1, 0, 1, 2, big, big + 1, i64::MIN, i64::MAX])),
            3 => Value::Float(self.pick(&[-1.5, -0.0, 0.5, 1.0, 2.0, big as f64, 1e300])),
            4 => Value::String(self.pick(&["", "a", "ab", "abc", "b", "я", "яб"]).to_owned()),
            _ => Value::String(self.pick(&["x", "y"]).repeat(60 + self.below(9) as usize)),
        }
    }

    fn point(&mut self) -> Value {
        let lat = self.pick(&[0.0, 0.004, 0.02, 1.0, 59.91, -90.0]);
        let lon = self.pick(&[0.0, 0.003, 0.011, 179.999, -179.999, 10.75]);
        Value::Object([("lat".to_owned(), Value::Float(lat)), ("lon".to_owned(), Value::Float(lon))].into())
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 7 } else { 10 }) {
            0..=5 => self.scalar(),
            6 => self.point(),
            7 | 8 => Value::Array((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            _ => Value::Object(self.metadata(depth - 1)),
        }
    }

    fn metadata(&mut self, depth: usize) -> Metadata {
        let fields = self.below(4);
        (0..fields).map(|_| (self.pick(&["a", "b", "a.b", "lat"]).to_owned(), self.value(depth))).collect()
    }

    fn condition(&mut self) -> Condition {
        let values = |random: &mut Self| (0..random.below(4)).map(|_| random.value(1)).collect();
        match self.below(13) {
            0 | 1 => Condition::Eq(self.value(1)),
            2 => Condition::Ne(self.value(1)),
            3 => Condition::Gt(self.value(1)),
            4 => Condition::Gte(self.value(0)),
            5 => Condition::Lt(self.value(0)),
            6 => Condition::Lte(self.value(1)),
            7 => Condition::In(values(self)),
            8 => Condition::Nin(values(self)),
            9 => Condition::Exists(self.below(2) == 0),
            10 => Condition::Prefix(self.pick(&["", "a", "ab", "x", "я", "xxxx"]).to_owned()),
            11 => Condition::Contains(self.value(1)),
            _ => Condition::GeoRadius {
                center: GeoPoint::of(&self.point()).unwrap(),
                meters: self.pick(&[0.0, 300.0, 1_300.0, 150_000.0, 3e7]),
            },
        }
    }

    fn filter(&mut self, depth: usize) -> Filter {
        let parts = |random: &mut Self| (0..random.below(4)).map(|_| random.filter(depth - 1)).collect();
        match self.below(if depth == 0 { 5 } else { 8 }) {
            5 => Filter::And(parts(self)),
            6 => Filter::Or(parts(self)),
            7 => Filter::Not(Box::new(self.filter(depth - 1))),
            _ => {
                let path = self.pick(&["a", "b", "a.b", "b.a", "a.a.b", "lat", "a.lat", "nowhere"]).to_owned();
                Filter::Field { path, condition: self.condition() }
            }
        }
    }
}

#[test]
fn the_index_never_contradicts_the_documents() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir.path().join("meta"));
    let (mut decided, mut undecided) = (0, 0);
    for seed in 0..60 {
        let mut random = Random(seed);
        let documents: Vec<_> = (0..random.below(90)).map(|_| random.metadata(2)).collect();
        put(&index, SEGMENT, &documents, &[("a", FieldType::Keyword)]);
        for _ in 0..60 {
            let filter = random.filter(2);
            let bounds = resolve(&index, documents.len(), &filter).bounds;
            for (row, document) in documents.iter().enumerate() {
                let (row, passes) = (row as u32, filter.matches(document));
                assert!(!bounds.certain().contains(row) || passes, "seed {seed}, row {row}: {filter:?} {document:?}");
                assert!(bounds.possible().contains(row) || !passes, "seed {seed}, row {row}: {filter:?} {document:?}");
            }
            undecided += bounds.undecided().count();
            decided += documents.len() as u32 - bounds.undecided().count();
        }
    }
    assert!(undecided > 0 && decided > 10 * undecided, "{decided} decided, {undecided} not");
}

#[test]
fn scalar_conditions_are_decided_without_documents() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir.path().join("meta"));
    let documents: Vec<Metadata> = (0..100i64)
        .map(|n| [("n".to_owned(), Value::Int(n)), ("word".to_owned(), Value::String(format!("w{}", n % 7)))].into())
        .collect();
    put(&index, SEGMENT, &documents, &[]);
    let cases = [
        (Condition::Gte(Value::Float(89.5)), "n", 10),
        (Condition::Ne(Value::Int(3)), "n", 99),
        (Condition::In(vec![Value::String("w1".into()), Value::String("w2".into())]), "word", 29),
        (Condition::Prefix("w".into()), "word", 100),
        (Condition::Exists(false), "word", 0),
        (Condition::Exists(false), "missing", 100),
    ];
    for (condition, path, count) in cases {
        let filter = Filter::Field { path: path.into(), condition };
        for _ in 0..2 {
            let resolved = resolve(&index, 100, &filter);
            assert!(resolved.bounds.is_exact() && resolved.undecided_fields.is_empty(), "{filter:?}");
            assert_eq!(resolved.bounds.certain().count(), count, "{filter:?}");
        }
    }
}

#[test]
fn pages_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir.path().join("meta"));
    let document = |n: u32| [("n".to_owned(), Value::Int(i64::from(n % 70_000)))].into();
    let documents: Vec<Metadata> = (0..PAGE_ROWS + 20_000).map(document).collect();
    put(&index, SEGMENT, &documents, &[]);
    let filter = Filter::eq("n", Value::Int(3));
    let found = resolve(&index, documents.len(), &filter).bounds;
    assert_eq!(found.certain().iter().collect::<Vec<_>>(), [3, 70_003]);
    let range = Filter::Field { path: "n".into(), condition: Condition::Lt(Value::Int(5_000)) };
    assert_eq!(resolve(&index, documents.len(), &range).bounds.certain().count(), 10_000);
}

#[test]
fn postings_stay_over_a_reopening_and_go_with_their_segment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let document: Metadata = [("a".to_owned(), Value::Int(1))].into();
    let mut index = open(&path);
    put(&index, SEGMENT, std::slice::from_ref(&document), &[]);
    put(&index, SegmentId(10), &[document], &[]);
    index.close(IDENTITY).unwrap();
    let index = open(&path);
    assert!(index.has_fields(COLLECTION, SEGMENT) && index.has_fields(COLLECTION, SegmentId(10)));
    let filter = Filter::eq("a", Value::Int(1));
    assert_eq!(resolve(&index, 1, &filter).bounds.certain(), &RowSet::full(1));
    index.forget_fields(COLLECTION, &[SEGMENT]).unwrap();
    assert_eq!(resolve(&index, 1, &filter).undecided_fields, ["a"]);
    assert!(!resolve(&index, 1, &filter).damaged);
    index.keep_fields_of(&BTreeSet::new()).unwrap();
    assert!(!index.has_fields(COLLECTION, SegmentId(10)));
    assert_eq!(index.db().len(), 0);
}

#[test]
fn postings_that_go_with_their_segment_are_not_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir.path().join("meta"));
    let documents: Vec<Metadata> =
        (0..500i64).map(|n| [("word".to_owned(), Value::String(format!("word {n:04}")))].into()).collect();
    for _ in 0..100 {
        put(&index, SEGMENT, &documents, &[]);
        let reached = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                reached.wait();
                index.forget_fields(COLLECTION, &[SEGMENT]).unwrap();
            });
            reached.wait();
            for n in 0.. {
                let filter = Filter::eq("word", Value::String(format!("word {n:04}")));
                assert!(!resolve(&index, documents.len(), &filter).damaged, "{n}");
                if !index.has_fields(COLLECTION, SEGMENT) {
                    break;
                }
            }
        });
    }
}

#[test]
fn damaged_and_lost_postings_are_noticed_and_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir.path().join("meta"));
    let documents: Vec<Metadata> =
        (0..2_000i64).map(|n| [("word".to_owned(), Value::String(format!("word {n:04}")))].into()).collect();
    let rows = documents.len();
    let filter = Filter::eq("word", Value::String("word 1000".into()));
    put(&index, SEGMENT, &documents, &[]);
    let keys: Vec<_> = index.db().scan_prefix([POSTINGS]).keys().map(Result::unwrap).collect();
    assert!(keys.len() > 4, "{}", keys.len());
    let table = index.db().scan_prefix([TABLE]).keys().next().unwrap().unwrap();
    let mut noticed = 0;
    for key in keys.into_iter().chain([table]) {
        for lost in [true, false] {
            put(&index, SEGMENT, &documents, &[]);
            let old = index.db().remove(&key).unwrap().unwrap();
            if !lost {
                let mut bad = old.to_vec();
                let middle = bad.len() / 2;
                bad[middle] ^= 1;
                index.db().insert(&key, bad).unwrap();
            }
            let resolved = resolve(&index, rows, &filter);
            assert!(resolved.bounds.possible().contains(1_000), "{key:?}");
            if resolved.damaged {
                noticed += 1;
                assert!(!index.has_fields(COLLECTION, SEGMENT));
            } else {
                assert_eq!(resolved.bounds.certain().iter().collect::<Vec<_>>(), [1_000], "{key:?}");
            }
        }
    }
    // The first block, the one with the term, and the table.
    assert_eq!(noticed, 6);
}

#[test]
fn what_a_prefix_or_a_path_holds_confuses_no_filters() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir.path().join("meta"));
    let length = "\u{9}\0\0\0\0\0\0\0";
    let odd = "\u{1}\0\0\0\0\0\0\0a";
    let text = |text: &str| Value::String(text.to_owned());
    let documents: Vec<Metadata> =
        vec![[("a".to_owned(), text(&format!("x{length}")))].into(), [(odd.to_owned(), text("x"))].into()];
    put(&index, SEGMENT, &documents, &[]);
    let prefix =
        |path: &str, start: &str| Filter::Field { path: path.into(), condition: Condition::Prefix(start.into()) };
    for (row, filter) in [(0, prefix("a", &format!("x{length}"))), (1, prefix(odd, "x"))] {
        assert_eq!(resolve(&index, 2, &filter).bounds.possible().iter().collect::<Vec<_>>(), [row], "{filter:?}");
    }
}
