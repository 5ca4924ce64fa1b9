//! Large segments answer as others do, and what is read of them seldom does not stay in memory.

use super::*;

fn open_large(sample: &Sample) -> Segment {
    sample.write();
    Segment::open_mapping(&sample.path(), 0).unwrap()
}

#[test]
fn large_segments_answer_as_others_do() {
    for sample in samples().filter(|sample| !sample.vectors.is_empty()) {
        let (large, query) = (open_large(&sample), sample.query(9));
        assert!(large.apart.is_some());
        let (top_k, mut found) = (7.min(sample.vectors.len()), Vec::new());
        // Twice: the first answer checks what it reads.
        for _ in 0..2 {
            large.search(&query, WalkOptions { top_k, ef: 40 }, |_| true, &mut found).unwrap();
            assert_nearest(&found, &sample, &query, top_k, |_| true);
            large.scan(&query, top_k, |row| row != 1, &mut found).unwrap();
            assert_nearest(&found, &sample, &query, top_k.min(live(&sample)), |row| row != 1);
            large.scan_exact(&query, top_k, |row| row != 1, &mut found).unwrap();
            assert_nearest(&found, &sample, &query, top_k.min(live(&sample)), |row| row != 1);
        }
        large.verify(|_| ()).unwrap();
        for (row, vector) in (0..).zip(&sample.vectors) {
            assert_eq!(&large.vectors(row).unwrap().to_vec(), vector);
        }
    }
}

/// Rows of a sample but row 1.
fn live(sample: &Sample) -> usize {
    (0..sample.vectors.len()).filter(|&row| row != 1).count()
}

#[test]
fn a_damaged_vector_of_a_large_segment_is_found_where_it_is_read() {
    let sample = Sample::new(40, 65, Metric::Cosine, Quantization::Int8).with_graph();
    let start = open_large(&sample).section_start(Section::Vectors);
    let mut bytes = std::fs::read(sample.path()).unwrap();
    bytes[start + 17] ^= 1;
    std::fs::write(sample.path(), &bytes).unwrap();
    let damaged = Segment::open_mapping(&sample.path(), 0).unwrap();
    let found = damaged.search(&sample.query(3), WalkOptions { top_k: 40, ef: 40 }, |_| true, &mut Vec::new());
    assert!(matches!(found, Err(SegmentError::Damaged { .. })), "{found:?}");
}

#[test]
fn only_many_vectors_make_a_segment_large() {
    let sample = Sample::new(40, 65, Metric::Cosine, Quantization::Int8);
    assert!(sample.open().apart.is_none());
    let bytes = 40 * 65 * 4;
    let is_large = |most_mapped| Segment::open_mapping(&sample.path(), most_mapped).unwrap().apart.is_some();
    assert!(is_large(bytes - 1) && !is_large(bytes));
}

/// KiB of the file `path` that are mapped into this process and present.
#[cfg(target_os = "linux")]
fn resident_kib(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_ours, mut sum) = (false, 0);
    for line in maps.lines() {
        match line.split_whitespace().next() {
            Some("Rss:") if is_ours => sum += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap(),
            // The first line of a map begins with its addresses.
            Some(word) if !word.ends_with(':') => is_ours = line.ends_with(path.to_str().unwrap()),
            _ => {}
        }
    }
    sum
}

#[cfg(target_os = "linux")]
#[test]
fn searches_of_a_large_segment_keep_no_vectors_in_memory() {
    let (rows, dim) = (4_000, 512);
    let sample = Sample::new(rows, dim, Metric::Dot, Quantization::Int8);
    sample.write();
    let vectors_kib = (rows * dim * 4 / 1024) as u64;
    let after = |most_mapped: u64, search: &dyn Fn(&Segment, &VectorQuery, &mut Vec<Candidate>)| {
        let segment = Segment::open_mapping(&sample.path(), most_mapped).unwrap();
        let mut found = Vec::new();
        (0..200).for_each(|seed| search(&segment, &sample.query(seed), &mut found));
        assert_eq!(found.len(), 10);
        resident_kib(&sample.path())
    };
    let scan = |segment: &Segment, query: &VectorQuery, found: &mut Vec<Candidate>| {
        segment.scan(query, 10, |_| true, found).unwrap();
    };
    let scan_exactly = |segment: &Segment, query: &VectorQuery, found: &mut Vec<Candidate>| {
        segment.scan_exact(query, 10, |row| row % 40 == 0, found).unwrap();
    };
    let (mapped, apart) = (after(u64::MAX, &scan), after(0, &scan));
    assert!(mapped > vectors_kib, "{mapped} KiB");
    assert!(apart < vectors_kib * 3 / 10, "{apart} KiB of codes and links, beside {vectors_kib} KiB of vectors");
    let (mapped, apart) = (after(u64::MAX, &scan_exactly), after(0, &scan_exactly));
    assert!(mapped > vectors_kib / 2 && apart < vectors_kib / 20, "{mapped} and {apart} KiB");
}

#[cfg(target_os = "linux")]
#[test]
fn vectors_that_walks_read_stay_mapped() {
    let (rows, dim) = (1_000, 512);
    let kept = |quantization| {
        let sample = Sample::new(rows, dim, Metric::Dot, quantization);
        sample.write();
        let segment = Segment::open_mapping(&sample.path(), 0).unwrap();
        let mut found = Vec::new();
        segment.scan(&sample.query(1), 10, |_| true, &mut found).unwrap();
        segment.release();
        resident_kib(&sample.path())
    };
    let vectors_kib = (rows * dim * 4 / 1024) as u64;
    let (vectors, codes) = (kept(Quantization::None), kept(Quantization::Int8));
    assert!(vectors > vectors_kib * 9 / 10 && codes < vectors_kib / 2, "{vectors} and {codes} of {vectors_kib} KiB");
}
