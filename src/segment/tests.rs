//! Tests of whole segments: what is written is read, damage is found, scans equal brute force.

mod apart;
mod chunks;
mod damage;
mod packed;
mod scan_bits;
mod scans;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::format::{HEADER_BYTES, Section};
use super::*;
use crate::distance::{VectorQuery, blocks_are_fast, scalar, score};
use crate::storage::{BLOCK_BYTES, RateLimit, crc32c};
use crate::types::{
    ChunkSpan, DocumentId, EmbeddingState, Ordinal, Quantization, StoredDocument, Value, VectorStorage, half, normalise,
};

/// Of [`Sample::clustered`].
const CLUSTERED_ROWS: usize = 1_500;
const CLUSTERED_DIM: usize = 128;

/// Everything that one segment is written from.
struct Sample {
    dir: tempfile::TempDir,
    spec: SegmentSpec,
    documents: Vec<StoredDocument>,
    vectors: Vec<Vec<f32>>,
    tombstones: Vec<Tombstone>,
    graph: Option<Graph>,
}

impl Sample {
    fn new(rows: usize, dim: usize, metric: Metric, quantization: Quantization) -> Self {
        let index = IndexDefinition { m: 5, ef_construction: 50, quantization, ..IndexDefinition::default() };
        let spec = SegmentSpec {
            id: SegmentId(7),
            collection: CollectionId(3),
            generation: 2,
            metric,
            dim: dim as u32,
            index,
        };
        let document = |row: usize| StoredDocument {
            id: DocumentId::new(&format!("d{row}")).unwrap(),
            text: Some("x".repeat(row % 5)),
            metadata: [("row".to_owned(), Value::Int(row as i64))].into(),
            created_at_ms: 1,
            updated_at_ms: row as i64,
            embedding: EmbeddingState::Ready,
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            spec,
            documents: (0..rows).map(document).collect(),
            vectors: vectors(rows, dim, metric, 11),
            tombstones: Vec::new(),
            graph: None,
        }
    }

    /// Vectors around a few centres, as those of texts are.
    fn clustered(metric: Metric) -> Self {
        let mut sample = Self::new(CLUSTERED_ROWS, CLUSTERED_DIM, metric, Quantization::Int8);
        let centres = vectors(12, CLUSTERED_DIM, metric, 5);
        for (row, vector) in sample.vectors.iter_mut().enumerate() {
            let centre = &centres[row * 7 % centres.len()];
            vector.iter_mut().zip(centre).for_each(|(x, centre)| *x = 0.6 * *x + centre);
            if metric == Metric::Cosine {
                normalise(vector, CLUSTERED_DIM).unwrap();
            }
        }
        sample
    }

    fn stored_as(mut self, storage: VectorStorage) -> Self {
        self.spec.index.storage = storage;
        if storage == VectorStorage::Float16 {
            self.vectors.iter_mut().flatten().for_each(|x| *x = half::widen(half::narrow(*x)));
        }
        self
    }

    fn with_tombstones(mut self) -> Self {
        let tombstone = |id, seq| Tombstone { id: DocumentId::new(id).unwrap(), seq: Seq(seq) };
        self.tombstones = vec![tombstone("b", 900), tombstone("a", 5)];
        self
    }

    /// Links each row to its nearest and to the row after it.
    fn with_graph(mut self) -> Self {
        let (rows, m) = (self.vectors.len(), self.spec.index.m as usize);
        let mut level0 = Vec::new();
        for row in 0..rows {
            let mut list: Vec<u32> = nearest(&self.vectors, &self.vectors[row], self.spec.metric)
                .into_iter()
                .filter(|&other| other as usize != row)
                .take(2 * m - 1)
                .collect();
            let after = ((row + 1) % rows) as u32;
            if after as usize != row && !list.contains(&after) {
                list.push(after);
            }
            list.resize(2 * m, NO_NEIGHBOUR);
            level0.extend(list);
        }
        let levels = if rows > 1 { 1 } else { 0 };
        let mut upper = vec![NO_NEIGHBOUR; 2 * levels * m];
        let mut upper_index = vec![0; rows + 1];
        if levels == 1 {
            // The first and the last row are on level 1 and know each other.
            upper[0] = rows as u32 - 1;
            upper[m] = 0;
            upper_index[1..].fill(1);
            upper_index[rows] = 2;
        }
        self.graph = Some(Graph {
            entry: 0,
            max_level: levels as u32,
            m: m as u32,
            level0,
            upper_index,
            upper,
            nibbles: suits_nibbles(self.spec.metric, self.spec.dim, &self.spec.index),
            calibration: Calibration::measured([0.5, 0.6, 0.7, 0.8, 0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97]),
        });
        self
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("7.seg")
    }

    fn write(&self) -> WrittenSegment {
        let frames: Vec<Vec<u8>> = self.documents.iter().map(encode_document).collect();
        let rows: Vec<RowRef<'_>> = (0..frames.len())
            .map(|row| RowRef {
                seq: Seq(10 + row as u64),
                document: &frames[row],
                vector: VectorRef::Float32(&self.vectors[row]),
                chunks: &[],
            })
            .collect();
        write_segment(&self.path(), &self.spec, &rows, &self.tombstones, self.graph.as_ref(), None).unwrap()
    }

    fn open(&self) -> Segment {
        self.write();
        Segment::open(&self.path(), &self.spec).unwrap()
    }

    fn query(&self, seed: u64) -> VectorQuery {
        let vector = vectors(1, self.spec.dim as usize, self.spec.metric, seed).remove(0);
        VectorQuery::new(self.spec.metric, vector)
    }
}

fn vectors(rows: usize, dim: usize, metric: Metric, seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut all = Vec::new();
    for _ in 0..rows {
        let mut vector: Vec<f32> = (0..dim).map(|_| random()).collect();
        vector[0] += 0.001;
        if metric == Metric::Cosine {
            normalise(&mut vector, dim).unwrap();
        }
        all.push(vector);
    }
    all
}

fn closeness(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    score(metric, if metric == Metric::L2 { -scalar::l2sq_f32(a, b) } else { scalar::dot_f32(a, b) })
}

/// Every row, nearest first.
fn nearest(vectors: &[Vec<f32>], query: &[f32], metric: Metric) -> Vec<Ordinal> {
    let mut all: Vec<Ordinal> = (0..vectors.len() as Ordinal).collect();
    let of = |row: Ordinal| closeness(metric, &vectors[row as usize], query);
    all.sort_by(|&a, &b| of(b).total_cmp(&of(a)).then(a.cmp(&b)));
    all
}

/// Fails unless `got` has the closeness of the exact answer, rank by rank: equally close rows may change places.
fn assert_nearest(
    got: &[Candidate],
    sample: &Sample,
    query: &VectorQuery,
    top_k: usize,
    live: impl Fn(Ordinal) -> bool,
) {
    let expected = nearest(&sample.vectors, query.vector(), sample.spec.metric);
    let expected: Vec<Ordinal> = expected.into_iter().filter(|&row| live(row)).take(top_k).collect();
    assert_eq!(got.len(), expected.len());
    for (candidate, &row) in got.iter().zip(&expected) {
        let of = |row: Ordinal| closeness(sample.spec.metric, &sample.vectors[row as usize], query.vector());
        assert!(live(candidate.ordinal), "row {} is not live", candidate.ordinal);
        assert!((of(candidate.ordinal) - of(row)).abs() < 1e-4, "{candidate:?} stands for row {row}");
        assert!((candidate.closeness - of(candidate.ordinal)).abs() < 1e-4, "{candidate:?}");
    }
}

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];
const QUANTIZATIONS: [Quantization; 3] = [Quantization::Int8, Quantization::None, Quantization::Binary];
const STORAGES: [VectorStorage; 2] = [VectorStorage::Float32, VectorStorage::Float16];

/// Whether this machine has the kernel for blocks of bits, without which no bits are written and no rows are packed;
/// says so where it has not. Machines of CI have it, if they are of this kind.
fn has_blocks() -> bool {
    if !blocks_are_fast() {
        let is_expected = cfg!(target_arch = "x86_64") && std::env::var_os("CI").is_some();
        assert!(!is_expected, "this machine has no AVX2");
        eprintln!("NOT TESTED: this machine has no kernel for blocks of bits");
    }
    blocks_are_fast()
}

fn samples() -> impl Iterator<Item = Sample> {
    let shapes = [(0, 3), (1, 1), (1, 384), (2, 3), (40, 1), (40, 3), (40, 384)];
    shapes.into_iter().flat_map(|(rows, dim)| {
        METRICS.into_iter().flat_map(move |metric| {
            let kinds =
                QUANTIZATIONS.into_iter().flat_map(|quantization| STORAGES.map(|storage| (quantization, storage)));
            kinds.flat_map(move |(quantization, storage)| {
                let sample = || Sample::new(rows, dim, metric, quantization).stored_as(storage);
                let scanned = sample().with_tombstones();
                let walked = (rows > 0).then(|| sample().with_graph());
                [Some(scanned), walked].into_iter().flatten()
            })
        })
    })
}

#[test]
fn what_is_written_is_read() {
    for sample in samples() {
        let written = sample.write();
        let segment = Segment::open(&sample.path(), &sample.spec).unwrap();
        assert_eq!(segment.len_bytes(), std::fs::metadata(sample.path()).unwrap().len());
        let rows = sample.vectors.len() as u32;
        let seqs = sample.tombstones.iter().map(|t| t.seq.0).chain((0..rows).map(|row| 10 + u64::from(row)));
        let (min, max) = (seqs.clone().min().unwrap_or(0), seqs.max().unwrap_or(0));
        let got = (segment.rows(), segment.has_graph(), segment.len_bytes(), segment.min_seq(), segment.max_seq());
        assert_eq!(got, (rows, sample.graph.is_some(), written.len_bytes, Seq(min), Seq(max)));
        assert_eq!((written.rows, written.tombstones), (rows, sample.tombstones.len() as u32));
        assert_eq!((segment.dim(), segment.spec()), (sample.spec.dim as usize, &sample.spec));
        for row in 0..rows {
            assert_eq!(segment.vectors(row).unwrap().to_vec(), sample.vectors[row as usize]);
            assert_eq!(segment.seq(row).unwrap(), Seq(10 + u64::from(row)));
            assert_eq!(segment.document(row).unwrap(), sample.documents[row as usize]);
            assert_eq!(segment.document_id(row).unwrap(), sample.documents[row as usize].id);
        }
        let mut tombstones = sample.tombstones.clone();
        tombstones.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(segment.tombstones().unwrap(), tombstones);
        let mut last = 0;
        segment.verify(|bytes| last = bytes).unwrap();
        assert!(last > 0 && last < segment.len_bytes());
    }
}

#[test]
fn rows_beyond_the_last_are_errors() {
    let segment = Sample::new(2, 3, Metric::L2, Quantization::Int8).open();
    assert!(matches!(segment.vectors(2), Err(SegmentError::NoSuchRow { ordinal: 2, rows: 2, .. })));
    assert!(matches!(segment.seq(2), Err(SegmentError::NoSuchRow { .. })));
    assert!(matches!(segment.document_id(u32::MAX), Err(SegmentError::NoSuchRow { .. })));
    let query = VectorQuery::new(Metric::L2, vec![0.0; 3]);
    assert!(matches!(
        segment.scan_rows(&query, 1, [0, 2], |_| true, &mut Vec::new()),
        Err(SegmentError::NoSuchRow { .. })
    ));
}

#[test]
fn another_segment_than_expected_is_refused() {
    let sample = Sample::new(1, 3, Metric::Cosine, Quantization::Int8);
    sample.write();
    let refuses = |what: &str, change: fn(&mut SegmentSpec)| {
        let mut expected = sample.spec;
        change(&mut expected);
        match Segment::open(&sample.path(), &expected) {
            Err(SegmentError::Mismatch { what: got, .. }) => assert_eq!(got, what),
            other => panic!("{other:?}"),
        }
    };
    refuses("segment id", |spec| spec.id = SegmentId(8));
    refuses("collection id", |spec| spec.collection = CollectionId(4));
    refuses("generation", |spec| spec.generation = 3);
    refuses("metric", |spec| spec.metric = Metric::Dot);
    refuses("dim", |spec| spec.dim = 4);
    refuses("index definition", |spec| spec.index.m = 6);
}

#[test]
fn sections_have_these_bytes() {
    let mut sample = Sample::new(2, 2, Metric::L2, Quantization::Int8);
    sample.vectors = vec![vec![1.0, -2.0], vec![0.5, 0.25]];
    sample.tombstones = vec![Tombstone { id: DocumentId::new("z").unwrap(), seq: Seq(4) }];
    sample.write();
    let bytes = std::fs::read(sample.path()).unwrap();
    let mut expected: Vec<u8> = [1.0f32, -2.0, 0.5, 0.25].iter().flat_map(|x| x.to_le_bytes()).collect();
    expected.resize(64, 0);
    // The scale is 127 / 2.
    expected.extend([64, (-127i8).cast_unsigned()].into_iter().chain([0; 62]));
    expected.extend([32, 16].into_iter().chain([0; 62]));
    expected.extend([10u64, 11].iter().flat_map(|seq| seq.to_le_bytes()).chain([0; 48]));
    let frames: Vec<Vec<u8>> = sample.documents.iter().map(encode_document).collect();
    let ends = [0, frames[0].len() as u64, (frames[0].len() + frames[1].len()) as u64];
    expected.extend(ends.iter().flat_map(|end| end.to_le_bytes()).chain([0; 40]));
    expected.extend(frames.concat());
    expected.resize(expected.len().next_multiple_of(64), 0);
    expected.extend(b"\x04\0\0\0\0\0\0\0\x01\0\0\0z");
    expected.resize(expected.len().next_multiple_of(64), 0);
    let covered = HEADER_BYTES + expected.len();
    assert_eq!(bytes[HEADER_BYTES..covered], expected);
    let block = crc32c(&bytes[..covered]).to_le_bytes();
    assert_eq!(bytes[covered..], [block, crc32c(&block).to_le_bytes()].concat());
}

#[test]
fn nibbles_have_these_bytes() {
    let mut sample = Sample::new(2, 65, Metric::Cosine, Quantization::Int8).with_graph();
    sample.vectors = vec![vec![1.0; 65], vec![-1.0; 65]];
    let segment = sample.open();
    let start = segment.section_start(Section::Nibbles);
    let bytes = std::fs::read(sample.path()).unwrap();
    // Of mean 0 and deviation 1: 1 is nibble 10, -1 is 5; component 64 stands in the upper half of the first byte.
    let mut expected = [vec![0xaa], vec![0x0a; 63], vec![0x55], vec![0x05; 63]].concat();
    let step = 2.0f32 * 2.6 / 15.0;
    expected.extend([-0.5 * 15.0 * step; 65].iter().chain(&[step; 65]).flat_map(|number| number.to_le_bytes()));
    assert_eq!(bytes[start..start + expected.len()], expected);
    assert_eq!(start + expected.len().next_multiple_of(64), segment.covered_bytes());
}

#[test]
fn scans_equal_brute_force() {
    for sample in samples() {
        let segment = sample.open();
        let mut out = vec![Candidate { closeness: 0.0, ordinal: 9 }];
        for seed in 1..4 {
            let query = sample.query(seed);
            for top_k in [0, 1, 10, 100] {
                let even = |row: Ordinal| row.is_multiple_of(2);
                segment.scan_exact(&query, top_k, |_| true, &mut out).unwrap();
                assert_nearest(&out, &sample, &query, top_k, |_| true);
                segment.scan_exact(&query, top_k, even, &mut out).unwrap();
                assert_nearest(&out, &sample, &query, top_k, even);
                // Of 40 rows the scan compares 40 in f32 for 10 results, so it is exact here.
                if top_k != 1 {
                    segment.scan(&query, top_k, even, &mut out).unwrap();
                    assert_nearest(&out, &sample, &query, top_k, even);
                }
                segment.scan_rows(&query, top_k, [], |_| true, &mut out).unwrap();
                assert_eq!(out, []);
            }
        }
    }
}

#[test]
fn walks_of_small_graphs_are_exact() {
    for sample in samples() {
        let segment = sample.open();
        let mut out = Vec::new();
        for seed in 1..4 {
            let query = sample.query(seed);
            for top_k in [0, 1, 10, 100] {
                let third = |row: Ordinal| row % 3 == 1;
                let options = WalkOptions { top_k, ef: 40 };
                segment.search(&query, options, |_| true, &mut out).unwrap();
                if top_k != 1 {
                    assert_nearest(&out, &sample, &query, top_k, |_| true);
                }
                segment.search(&query, options, third, &mut out).unwrap();
                assert_nearest(&out, &sample, &query, top_k, third);
                segment.search(&query, options, |_| false, &mut out).unwrap();
                assert_eq!(out, []);
            }
        }
    }
}

#[test]
#[should_panic(expected = "dim and metric of the query")]
fn a_query_of_another_dim_is_refused() {
    let segment = Sample::new(2, 3, Metric::L2, Quantization::Int8).open();
    let _ = segment.scan(&VectorQuery::new(Metric::L2, vec![0.0; 4]), 1, |_| true, &mut Vec::new());
}

#[test]
#[should_panic(expected = "vectors of row 1")]
fn a_row_of_another_dim_is_refused() {
    let mut sample = Sample::new(2, 3, Metric::L2, Quantization::Int8);
    sample.vectors[1].pop();
    sample.write();
}

#[test]
#[should_panic(expected = "the graph is broken")]
fn a_broken_graph_is_not_written() {
    let mut sample = Sample::new(3, 3, Metric::L2, Quantization::Int8).with_graph();
    sample.graph.as_mut().unwrap().level0[0] = 9;
    sample.write();
}

#[test]
fn a_cancelled_writer_leaves_nothing() {
    let sample = Sample::new(300, 384, Metric::L2, Quantization::Int8);
    let frames: Vec<Vec<u8>> = sample.documents.iter().map(encode_document).collect();
    let rows: Vec<RowRef<'_>> = (0..frames.len())
        .map(|row| RowRef {
            seq: Seq(1),
            document: &frames[row],
            vector: VectorRef::Float32(&sample.vectors[row]),
            chunks: &[],
        })
        .collect();
    let write = |cancelled: bool, limit: &RateLimit| {
        let cancel = AtomicBool::new(cancelled);
        let pace = Some(Pace { limit, cancel: &cancel });
        write_segment(&sample.path(), &sample.spec, &rows, &[], None, pace)
    };
    let limit = RateLimit::new(None);
    assert!(matches!(write(true, &limit), Err(SegmentError::Cancelled { .. })));
    assert_eq!(std::fs::read_dir(sample.dir.path()).unwrap().count(), 0);
    let before = limit.written_bytes();
    let written = write(false, &limit).unwrap();
    let table = 4 * written.len_bytes.div_ceil(BLOCK_BYTES as u64) + 4;
    assert!((written.len_bytes - table..=written.len_bytes).contains(&(limit.written_bytes() - before)));
}

#[test]
fn segments_are_shared_between_threads() {
    fn assert_shared<T: Send + Sync>() {}
    assert_shared::<Segment>();
    assert_shared::<DeadRows>();
}
