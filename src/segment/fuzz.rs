//! The reader of segments and of dead rows over any bytes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{DeadRows, Segment, SegmentSpec};
use crate::storage::{self, BLOCK_BYTES, crc32c};
use crate::types::{CollectionId, IndexDefinition, Metric, Quantization, SegmentId, VectorStorage};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file of one block, with its checksums put right, so that what they protect is read too.
pub fn segment(bytes: &[u8]) {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let name = format!("pannier-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = dir.join(name);
    let mut mended = bytes.to_vec();
    if (8..BLOCK_BYTES + 8).contains(&mended.len()) {
        let covered = mended.len() - 8;
        let crc = crc32c(&mended[..covered]).to_le_bytes();
        mended[covered..covered + 4].copy_from_slice(&crc);
        mended[covered + 4..].copy_from_slice(&crc32c(&crc).to_le_bytes());
    }
    if storage::replace(&path, &mended).is_ok() {
        read_all(&path, &mended);
        _ = storage::remove_file(&path);
    }
}

fn read_all(path: &Path, bytes: &[u8]) {
    let u32_at = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let metric = [Metric::Cosine, Metric::Dot, Metric::L2][u32_at(48) as usize % 3];
    let kind = |shift: u32, kinds: usize| (u32_at(48) >> shift & 0xff) as usize % kinds;
    let quantization = [Quantization::None, Quantization::Int8, Quantization::Binary][kind(8, 3)];
    let storage = [VectorStorage::Float32, VectorStorage::Float16][kind(16, 2)];
    let spec = SegmentSpec {
        id: SegmentId(u64::from(u32_at(24)) | u64::from(u32_at(28)) << 32),
        collection: CollectionId(u32_at(32)),
        generation: u32_at(36),
        metric,
        dim: u32_at(44),
        index: IndexDefinition { m: u32_at(52), ef_construction: u32_at(56), quantization, storage },
    };
    _ = DeadRows::read(path, spec.id, u32_at(32));
    let Ok(segment) = Segment::open(path, &spec) else { return };
    _ = segment.verify(|_| {});
    _ = segment.tombstones();
    _ = segment.sound_graph();
    for row in 0..segment.rows().min(64) {
        _ = segment.document(row);
        _ = segment.vectors(row);
        _ = segment.seq(row);
    }
}
