//! Bits that scans of segments without a graph read beside the codes.

use super::CLUSTERED_DIM as DIM;
use super::CLUSTERED_ROWS as ROWS;
use super::*;

#[test]
fn scans_by_bits_find_what_is_nearest() {
    if !has_blocks() {
        return;
    }
    for metric in METRICS {
        for storage in STORAGES {
            let sample = Sample::clustered(metric).stored_as(storage);
            let segment = sample.open();
            assert!(segment.scans_in_blocks(200) && !segment.scans_in_blocks(100), "{metric:?}");
            assert_eq!(file_version(&sample.path()).unwrap(), 4);
            segment.verify(|_| {}).unwrap();
            let (mut out, mut found, mut wanted) = (Vec::new(), 0, 0);
            for row in (0..ROWS).step_by(97) {
                // A little off a row, in length too.
                let other = &sample.vectors[(row + 9) % ROWS];
                let vector = sample.vectors[row].iter().zip(other).map(|(a, b)| a + 0.3 * b).collect();
                let query = VectorQuery::new(metric, vector);
                for (top_k, share) in [(1, 1), (10, 1), (10, 2)] {
                    let live = |row: Ordinal| row.is_multiple_of(share);
                    let stats = segment.scan(&query, top_k, live, &mut out).unwrap();
                    assert_eq!(stats.compared, ROWS as u64);
                    assert!(stats.rescored < 50, "{stats:?}");
                    let nearest = nearest(&sample.vectors, query.vector(), metric).into_iter().filter(|&row| live(row));
                    let nearest: Vec<Ordinal> = nearest.take(top_k).collect();
                    assert_eq!(out.len(), top_k);
                    assert!(out.iter().all(|candidate| live(candidate.ordinal)));
                    found += out.iter().filter(|candidate| nearest.contains(&candidate.ordinal)).count();
                    wanted += top_k;
                }
            }
            assert!(found as f64 >= 0.99 * wanted as f64, "{metric:?}: {found} of {wanted}");
        }
    }
}

#[test]
fn every_row_can_be_found_by_its_own_vector() {
    let sample = Sample::clustered(Metric::Cosine);
    let segment = sample.open();
    let mut out = Vec::new();
    for row in 0..ROWS {
        let query = VectorQuery::new(Metric::Cosine, sample.vectors[row].clone());
        segment.scan(&query, 1, |_| true, &mut out).unwrap();
        assert_eq!(out[0].ordinal as usize, row);
        segment.scan(&query, 1, |other| other as usize != row, &mut out).unwrap();
        assert_ne!(out[0].ordinal as usize, row);
    }
}

#[test]
fn as_many_are_found_as_live_and_are_asked_for() {
    let sample = Sample::clustered(Metric::Cosine);
    let segment = sample.open();
    let (query, mut out) = (sample.query(3), Vec::new());
    for live in [0..0, 3..4, 100..290, 0..ROWS as Ordinal] {
        for top_k in [0, 1, 10, 150, 400, 2_000] {
            segment.scan(&query, top_k, |row| live.contains(&row), &mut out).unwrap();
            assert_eq!(out.len(), live.len().min(top_k));
            assert!(out.iter().all(|candidate| live.contains(&candidate.ordinal)));
        }
    }
    let mut asked = 0;
    let live = |row: Ordinal| {
        asked += 1;
        !row.is_multiple_of(5)
    };
    segment.scan(&query, 1, live, &mut out).unwrap();
    assert_nearest(&out, &sample, &query, 1, |row| !row.is_multiple_of(5));
    assert!(asked < ROWS, "only of near rows is asked whether they live");
}

#[test]
fn bits_are_left_out_where_they_say_too_little() {
    let mut few = Sample::clustered(Metric::L2);
    few.vectors.truncate(1_000);
    few.documents.truncate(1_000);
    let short = Sample::new(ROWS, 127, Metric::L2, Quantization::Int8);
    let binary = Sample::new(ROWS, DIM, Metric::L2, Quantization::Binary);
    // Two components tell rows apart, of which signs only tell the quarter, and the signs of all others nothing.
    let mut on_a_circle = Sample::new(ROWS, DIM, Metric::L2, Quantization::Int8);
    for (row, vector) in on_a_circle.vectors.iter_mut().enumerate() {
        vector.iter_mut().for_each(|x| *x *= 0.001);
        (vector[1], vector[0]) = (row as f32).sin_cos();
    }
    for sample in [few, short, binary, on_a_circle] {
        let segment = sample.open();
        assert!(!segment.scans_in_blocks(ROWS as u32), "{:?}", sample.spec);
        assert!(file_version(&sample.path()).unwrap() < 4);
    }
}

#[test]
fn equal_vectors_have_bits_and_are_all_found() {
    if !has_blocks() {
        return;
    }
    let mut sample = Sample::new(ROWS, DIM, Metric::Cosine, Quantization::Int8);
    let one = sample.vectors[0].clone();
    sample.vectors.fill(one);
    let segment = sample.open();
    assert!(segment.header.has_bits);
    let (query, mut out) = (sample.query(4), Vec::new());
    for top_k in [10, 400, 2_000] {
        segment.scan(&query, top_k, |_| true, &mut out).unwrap();
        assert_eq!(out.len(), top_k.min(ROWS));
    }
}

#[test]
fn bits_have_these_bytes() {
    if !has_blocks() {
        return;
    }
    let sample = Sample::clustered(Metric::Dot);
    let bytes = std::fs::read(sample.open().path()).unwrap();
    let section = Segment::open(&sample.path(), &sample.spec).unwrap().section_range(Section::Bits);
    // The center, and 47 blocks of 32 times 16 bytes of signs and two numbers.
    assert_eq!(section.len(), 4 * DIM + 47 * 32 * (16 + 8));
    let mean = |at: usize| sample.vectors.iter().map(|vector| f64::from(vector[at])).sum::<f64>() / ROWS as f64;
    let center: Vec<f32> = (0..DIM).map(|at| mean(at) as f32).collect();
    let f32_at = |at: usize| f32::from_le_bytes(bytes[section.start + at..section.start + at + 4].try_into().unwrap());
    assert!((0..DIM).all(|at| (f32_at(4 * at) - center[at]).abs() < 1e-6));
    for row in [0usize, 1, 31, 32, 1_499] {
        let block = 4 * DIM + row / 32 * 32 * 24;
        let o: Vec<f32> = sample.vectors[row].iter().enumerate().map(|(at, x)| x - f32_at(4 * at)).collect();
        for (at, o) in o.iter().enumerate() {
            let byte = bytes[section.start + block + at / 8 * 32 + row % 32];
            assert_eq!(byte >> (at % 8) & 1 == 1, *o > 0.0, "row {row}, component {at}");
        }
        let factor = o.iter().map(|o| o * o).sum::<f32>() / o.iter().map(|o| o.abs()).sum::<f32>();
        assert!((f32_at(block + 32 * 16 + 4 * (row % 32)) - factor).abs() < 1e-4);
        let offset: f32 = o.iter().zip(&center).map(|(o, c)| o * c).sum();
        assert!((f32_at(block + 32 * 20 + 4 * (row % 32)) - offset).abs() < 1e-3);
    }
    // 1,500 rows leave 4 of the last block empty.
    let last = section.end - 32 * 24;
    assert!((28..32).all(|row| (0..16).all(|position| bytes[last + 32 * position + row] == 0)));
    assert!(bytes[last + 32 * 16 + 4 * 28..last + 32 * 20].iter().all(|&byte| byte == 0));
}

#[test]
fn damage_to_bits_is_found() {
    if !has_blocks() {
        return;
    }
    let sample = Sample::clustered(Metric::Cosine);
    let section = sample.open().section_range(Section::Bits);
    let (path, query) = (sample.path(), sample.query(2));
    let bytes = std::fs::read(&path).unwrap();
    for at in section.clone().step_by(997).chain([section.end - 1]) {
        super::damage::overwrite(&path, at, bytes[at] ^ 4);
        let segment = Segment::open(&path, &sample.spec).unwrap();
        let found = segment.scan(&query, 10, |_| true, &mut Vec::new());
        assert!(matches!(found, Err(SegmentError::Damaged { .. })), "byte {at}: {found:?}");
        super::damage::overwrite(&path, at, bytes[at]);
    }
    // Under right checksums: the center, a sign, a factor, what stands for a row that is not there.
    for at in [0, 512 + 40, 512 + 32 * 16 + 5, section.len() - 1] {
        let path = super::damage::change(&sample, |_, bytes| bytes[section.start + at] ^= 1);
        let segment = Segment::open(&path, &sample.spec).unwrap();
        let verified = segment.verify(|_| ());
        assert!(matches!(verified, Err(SegmentError::Damaged { .. })), "byte {at}: {verified:?}");
    }
}
