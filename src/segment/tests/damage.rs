//! Damage is found, with and without right checksums.

use super::*;

/// Everything a reader can ask, as text: errors where there are some.
fn answers(path: &Path, sample: &Sample) -> Vec<Result<String, SegmentError>> {
    let segment = match Segment::open(path, &sample.spec) {
        Ok(segment) => segment,
        Err(error) => return vec![Err(error)],
    };
    let mut answers = Vec::new();
    let query = sample.query(3);
    let mut out = Vec::new();
    for row in 0..segment.rows() {
        answers.push(segment.vectors(row).map(|vector| format!("{vector:?}")));
        answers.push(segment.seq(row).map(|seq| seq.to_string()));
        answers.push(segment.document(row).map(|document| format!("{document:?}")));
        answers.push(segment.document_id(row).map(|id| id.to_string()));
    }
    answers.push(segment.tombstones().map(|tombstones| format!("{tombstones:?}")));
    let options = WalkOptions { top_k: 3, ef: 10 };
    answers.push(segment.search(&query, options, |_| true, &mut out).map(|_| format!("{out:?}")));
    answers.push(segment.scan(&query, 3, |_| true, &mut out).map(|_| format!("{out:?}")));
    answers.push(segment.scan_exact(&query, 3, |row| row != 1, &mut out).map(|_| format!("{out:?}")));
    answers
}

/// Changes one byte of a file where it is: replacing whole files is slow on some file systems.
pub(super) fn overwrite(path: &Path, at: usize, byte: u8) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte]).unwrap();
}

#[test]
fn every_bit_flip_is_found() {
    for sample in [
        Sample::new(3, 3, Metric::Cosine, Quantization::Int8).with_tombstones().with_graph(),
        Sample::new(2, 2, Metric::L2, Quantization::None).with_tombstones().with_graph(),
        Sample::new(3, 3, Metric::Cosine, Quantization::Binary).stored_as(VectorStorage::Float16).with_graph(),
        Sample::new(0, 2, Metric::Dot, Quantization::Int8).with_tombstones(),
        Sample::new(2, 65, Metric::Cosine, Quantization::Int8).with_graph(),
        Sample::new(3, 2, Metric::L2, Quantization::Int8).with_graph(),
    ] {
        sample.write();
        let sound: Vec<String> = answers(&sample.path(), &sample).into_iter().map(Result::unwrap).collect();
        let bytes = std::fs::read(sample.path()).unwrap();
        let path = sample.path();
        for bit in 0..bytes.len() * 8 {
            overwrite(&path, bit / 8, bytes[bit / 8] ^ 1 << (bit % 8));
            let answers = answers(&path, &sample);
            for (answer, sound) in answers.iter().zip(&sound) {
                assert!(
                    answer.as_ref().is_ok_and(|answer| answer == sound) || answer.is_err(),
                    "bit {bit}: {answer:?}"
                );
            }
            let verified = Segment::open(&path, &sample.spec).and_then(|segment| segment.verify(|_| ()));
            assert!(verified.is_err(), "bit {bit} was not found");
            overwrite(&path, bit / 8, bytes[bit / 8]);
        }
    }
}

/// What a search of a larger segment left in this thread's memory is not taken for what the damaged one holds.
#[test]
fn damage_where_a_walk_begins_is_an_error_after_any_search() {
    for (metric, dim) in [(Metric::L2, 8), (Metric::Cosine, 8), (Metric::Cosine, 65)] {
        let large = Sample::new(500, dim, metric, Quantization::Int8).with_graph();
        let large_segment = large.open();
        let small = Sample::new(40, dim, metric, Quantization::Int8).with_graph();
        let segment = small.open();
        let section = match segment.nibble_quantizer().unwrap() {
            Some(_) => Section::Nibbles,
            None => Section::Codes,
        };
        let at = segment.section_range(section).start;
        drop(segment);
        let byte = std::fs::read(small.path()).unwrap()[at];
        overwrite(&small.path(), at, byte ^ 1);
        let segment = Segment::open(&small.path(), &small.spec).unwrap();
        let (query, options, mut out) = (small.query(3), WalkOptions { top_k: 10, ef: 40 }, Vec::new());
        large_segment.search(&large.query(3), options, |_| true, &mut out).unwrap();
        let error = segment.search(&query, options, |_| true, &mut out).unwrap_err();
        assert!(error.to_string().contains(&small.path().display().to_string()), "{metric:?} {dim}: {error}");
    }
}

#[test]
fn every_truncation_and_addition_is_found() {
    let sample = Sample::new(3, 3, Metric::Cosine, Quantization::Int8).with_tombstones().with_graph();
    sample.write();
    let path = sample.path();
    let file = File::options().write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len + 1).unwrap();
    assert!(matches!(Segment::open(&path, &sample.spec), Err(SegmentError::Damaged { .. })));
    file.set_len(len).unwrap();
    assert!(Segment::open(&path, &sample.spec).is_ok());
    for len in (0..len).rev() {
        file.set_len(len).unwrap();
        assert!(Segment::open(&path, &sample.spec).is_err(), "{len}");
    }
    assert!(matches!(Segment::open(Path::new("/no/such.seg"), &sample.spec), Err(SegmentError::Storage(_))));
}

/// Changes the file of `sample` and makes its checksums right again.
pub(super) fn change(sample: &Sample, change: impl FnOnce(&Segment, &mut [u8])) -> PathBuf {
    let segment = sample.open();
    let mut bytes = std::fs::read(sample.path()).unwrap();
    change(&segment, &mut bytes);
    let covered = segment.covered_bytes();
    let (content, table) = bytes.split_at_mut(covered);
    let mut checksums: Vec<u8> = content.chunks(BLOCK_BYTES).flat_map(|block| crc32c(block).to_le_bytes()).collect();
    checksums.extend(crc32c(&checksums).to_le_bytes());
    table.copy_from_slice(&checksums);
    let path = sample.dir.path().join("changed.seg");
    std::fs::write(&path, &bytes).unwrap();
    path
}

fn set_u32(bytes: &mut [u8], segment: &Segment, section: Section, index: usize, to: u32) {
    let at = segment.section_start(section) + 4 * index;
    bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
}

#[test]
fn a_broken_graph_under_right_checksums_is_an_error_and_no_panic() {
    let sample = Sample::new(40, 3, Metric::Cosine, Quantization::Int8).with_graph();
    let search = |path: &Path| {
        let segment = Segment::open(path, &sample.spec).unwrap();
        assert!(matches!(segment.verify(|_| ()), Err(SegmentError::Damaged { .. })));
        segment.search(&sample.query(3), WalkOptions { top_k: 40, ef: 40 }, |_| true, &mut Vec::new())
    };
    let is_damaged = |path: &Path| assert!(matches!(search(path), Err(SegmentError::Damaged { .. })));
    is_damaged(&change(&sample, |segment, bytes| set_u32(bytes, segment, Section::Level0, 10, 40)));
    is_damaged(&change(&sample, |segment, bytes| set_u32(bytes, segment, Section::Upper, 0, 1 << 31)));
    // Row 0 is linked on level 1 to row 20, which is only on level 0.
    is_damaged(&change(&sample, |segment, bytes| set_u32(bytes, segment, Section::Upper, 0, 20)));
    is_damaged(&change(&sample, |segment, bytes| set_u32(bytes, segment, Section::UpperIndex, 1, u32::MAX)));
    is_damaged(&change(&sample, |segment, bytes| set_u32(bytes, segment, Section::UpperIndex, 0, 7)));
    // A row that links to itself is harmless to a search, and found by verify.
    let own = change(&sample, |segment, bytes| set_u32(bytes, segment, Section::Level0, 10, 1));
    assert!(search(&own).is_ok());
}

#[test]
fn contradictions_under_right_checksums_are_found_by_verify() {
    let sample = Sample::new(40, 3, Metric::Cosine, Quantization::Int8).with_tombstones();
    for (section, byte, to) in [
        (Section::Vectors, 3, 0x7f),
        (Section::Codes, 1, 0x11),
        (Section::Codes, 63, 1),
        (Section::Seqs, 7, 1),
        (Section::DocumentOffsets, 0, 1),
        (Section::DocumentOffsets, 9, 0xff),
        (Section::Documents, 0, 2),
        (Section::Tombstones, 12, b'c'),
        (Section::Tombstones, 8, 0xff),
    ] {
        let path = change(&sample, |segment, bytes| bytes[segment.section_start(section) + byte] = to);
        let segment = Segment::open(&path, &sample.spec).unwrap();
        assert!(matches!(segment.verify(|_| ()), Err(SegmentError::Damaged { .. })), "{section:?} {byte}");
    }
    let walked = Sample::new(40, 65, Metric::Cosine, Quantization::Int8).with_graph();
    // A nibble, one beyond the components, a low and a step.
    for (byte, to) in [(3, 0xee), (1, 0xf0), (40 * 64 + 3, 0x11), (40 * 64 + 4 * 65 + 3, 0xff)] {
        let path = change(&walked, |segment, bytes| bytes[segment.section_start(Section::Nibbles) + byte] = to);
        let segment = Segment::open(&path, &walked.spec).unwrap();
        assert!(matches!(segment.verify(|_| ()), Err(SegmentError::Damaged { .. })), "nibbles {byte}");
    }
    let path = change(&sample, |segment, bytes| bytes[segment.section_start(Section::Codes) - 1] = 1);
    assert!(Segment::open(&path, &sample.spec).unwrap().verify(|_| ()).is_err(), "padding");
}
