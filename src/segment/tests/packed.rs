//! Rows that are packed: searches among them find what scans of the same rows find.

use super::CLUSTERED_DIM as DIM;
use super::CLUSTERED_ROWS as ROWS;
use super::*;

/// Every other row.
fn half() -> Vec<Ordinal> {
    (0..ROWS as Ordinal).step_by(2).collect()
}

/// The rows packed, unless this machine packs none.
fn pack(segment: &Segment, rows: &[Ordinal]) -> Option<PackedRows> {
    if !has_blocks() {
        assert!(segment.pack(rows).unwrap().is_none());
        return None;
    }
    Some(segment.pack(rows).unwrap().expect("bits suit these vectors"))
}

#[test]
fn packed_rows_are_searched_as_well_as_by_a_scan() {
    for metric in METRICS {
        for storage in STORAGES {
            let sample = Sample::clustered(metric).stored_as(storage);
            for segment in [sample.open(), Segment::open_mapping(&sample.path(), 0).unwrap()] {
                let Some(packed) = pack(&segment, &half()) else { return };
                let (mut out, mut found, mut wanted) = (Vec::new(), 0, 0);
                // Near rows that are packed and near others.
                for row in (0..ROWS).step_by(61) {
                    let other = &sample.vectors[(row + 9) % ROWS];
                    let vector = sample.vectors[row].iter().zip(other).map(|(a, b)| (a + 0.3 * b) / 1.3).collect();
                    let query = VectorQuery::new(metric, vector);
                    for (top_k, share) in [(1, 2), (10, 2), (10, 4), (25, 2)] {
                        let live = |row: Ordinal| row.is_multiple_of(share);
                        let stats = segment.scan_packed(&packed, &query, top_k, live, &mut out).unwrap();
                        assert_eq!(stats.compared, ROWS as u64 / 2);
                        let nearest = nearest(&sample.vectors, query.vector(), metric);
                        let nearest: Vec<Ordinal> = nearest.into_iter().filter(|&row| live(row)).take(top_k).collect();
                        assert_eq!(out.len(), top_k);
                        assert!(out.iter().all(|candidate| live(candidate.ordinal)));
                        assert!(out.is_sorted_by(|a, b| a.closeness >= b.closeness));
                        found += out.iter().filter(|candidate| nearest.contains(&candidate.ordinal)).count();
                        wanted += top_k;
                    }
                }
                let share = found as f64 / wanted as f64;
                assert!(share >= 0.985, "{metric:?}, {storage:?}: {share} of {} candidates", packed.over_fetch);
            }
        }
    }
}

#[test]
fn every_packed_row_can_be_found_by_its_own_vector() {
    let sample = Sample::clustered(Metric::Cosine);
    let segment = sample.open();
    let Some(packed) = pack(&segment, &half()) else { return };
    let mut out = Vec::new();
    for row in half() {
        let query = VectorQuery::new(Metric::Cosine, sample.vectors[row as usize].clone());
        segment.scan_packed(&packed, &query, 1, |_| true, &mut out).unwrap();
        assert_eq!(out[0].ordinal, row);
        segment.scan_packed(&packed, &query, 1, |other| other != row, &mut out).unwrap();
        assert_ne!(out[0].ordinal, row);
    }
}

#[test]
fn as_many_are_found_as_are_packed_live_and_asked_for() {
    let sample = Sample::clustered(Metric::L2);
    let segment = sample.open();
    let (query, mut out) = (sample.query(3), Vec::new());
    for rows in [half(), (100..1_033).collect::<Vec<Ordinal>>()] {
        let Some(packed) = pack(&segment, &rows) else { return };
        assert_eq!(packed.bytes(), PackedRows::bytes_for(rows.len() as u32, DIM));
        assert!(packed.bytes() > rows.len() * (DIM / 8 + 12));
        for live in [0..0, 200..201, 150..300, 0..ROWS as Ordinal] {
            for top_k in [0, 1, 10, 100, 2_000] {
                segment.scan_packed(&packed, &query, top_k, |row| live.contains(&row), &mut out).unwrap();
                let there = rows.iter().filter(|row| live.contains(row)).count();
                assert_eq!(out.len(), there.min(top_k));
                let is_one = |found: &Candidate| live.contains(&found.ordinal) && rows.contains(&found.ordinal);
                assert!(out.iter().all(is_one));
            }
        }
    }
}

#[test]
fn rows_are_not_packed_where_bits_say_too_little() {
    let rows = half();
    let segment = Sample::clustered(Metric::Cosine).open();
    assert!(segment.pack(&[]).unwrap().is_none());
    // Too few to leave any out.
    assert!(segment.pack(&rows[..60]).unwrap().is_none());
    for quantization in [Quantization::Binary, Quantization::None] {
        let segment = Sample::new(ROWS, DIM, Metric::L2, quantization).open();
        assert!(!segment.packs() && segment.pack(&rows).unwrap().is_none());
    }
    let short = Sample::new(ROWS, 100, Metric::L2, Quantization::Int8).open();
    assert!(!short.packs() && short.pack(&rows).unwrap().is_none());
    // Two groups on either side of the center: signs tell which, and no more, since all rows have the same sizes
    // elsewhere.
    let mut opposite = Sample::new(ROWS, DIM, Metric::L2, Quantization::Int8);
    for (row, vector) in opposite.vectors.iter_mut().enumerate() {
        let side = if row % 4 < 2 { 1.0 } else { -1.0 };
        let order = vector.clone();
        let mut places: Vec<usize> = (0..DIM).collect();
        places.sort_by(|&a, &b| order[a].total_cmp(&order[b]));
        places.iter().enumerate().for_each(|(rank, &at)| vector[at] = side * (1.0 + rank as f32 / DIM as f32));
    }
    assert!(opposite.open().pack(&rows).unwrap().is_none());
}

#[test]
fn rows_that_are_not_there_and_damaged_ones_are_not_packed() {
    if !has_blocks() {
        return;
    }
    let sample = Sample::clustered(Metric::Cosine);
    let segment = sample.open();
    let beyond = [half(), vec![ROWS as Ordinal]].concat();
    assert!(matches!(segment.pack(&beyond), Err(SegmentError::NoSuchRow { .. })));
    let start = segment.section_start(Section::Vectors);
    let bytes = std::fs::read(sample.path()).unwrap();
    super::damage::overwrite(&sample.path(), start + 100, bytes[start + 100] ^ 1);
    let damaged = Segment::open(&sample.path(), &sample.spec).unwrap();
    assert!(matches!(damaged.pack(&half()), Err(SegmentError::Damaged { .. })));
}
