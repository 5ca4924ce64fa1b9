//! The header's bytes.

use super::*;

fn header() -> Header {
    Header {
        spec: SegmentSpec {
            id: SegmentId(0x0102_0304_0506_0708),
            collection: CollectionId(9),
            generation: 2,
            metric: Metric::L2,
            dim: 3,
            index: IndexDefinition { m: 5, ef_construction: 100, ..IndexDefinition::default() },
        },
        rows: 2,
        vectors: 2,
        has_chunks: false,
        scale: Some(2.0),
        min_seq: Seq(4),
        max_seq: Seq(7),
        tombstones: 1,
        graph: Some(GraphHeader {
            entry: 1,
            max_level: 1,
            upper_lists: 1,
            calibration: Calibration([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x1234]),
        }),
        has_nibbles: false,
        has_bits: false,
        documents_bytes: 100,
        tombstones_bytes: 13,
    }
}

fn with_nibbles() -> Header {
    let mut header = Header { has_nibbles: true, ..header() };
    (header.spec.metric, header.spec.dim) = (Metric::Cosine, 65);
    header
}

/// The header followed by zeros up to the length it states.
fn file(header: &Header) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    bytes.resize(header.layout().file_len as usize, 0);
    bytes
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c(&bytes[..HEADER_CHECKSUM]);
    bytes[HEADER_CHECKSUM..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn headers_have_these_bytes() {
    let mut expected = b"PANNSEGM\x02\0\0\0\x03\0\0\0".to_vec();
    expected.extend(1288u64.to_le_bytes());
    expected.extend([8, 7, 6, 5, 4, 3, 2, 1]);
    expected.extend([9, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    expected.extend([2, 1, 0, 0, 5, 0, 0, 0, 100, 0, 0, 0]);
    expected.extend(2.0f32.to_le_bytes());
    expected.extend(4u64.to_le_bytes());
    expected.extend(7u64.to_le_bytes());
    expected.extend([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    let sections: [(u64, u64); 9] =
        [(512, 24), (576, 128), (704, 80), (832, 12), (896, 20), (960, 16), (1024, 24), (1088, 100), (1216, 13)];
    for (kind, (offset, len)) in (1u64..).zip(sections) {
        for number in [kind, offset, len] {
            expected.extend(number.to_le_bytes());
        }
    }
    expected.extend((1..12u16).chain([0x1234]).flat_map(u16::to_le_bytes));
    expected.resize(508, 0);
    expected.extend(0xf5c5_8b1du32.to_le_bytes());
    assert_eq!(header().encode().as_slice(), expected);
    let layout = header().layout();
    assert_eq!((layout.checksums, layout.file_len, layout.blocks()), (1280, 1288, 1));
}

#[test]
fn round_trips() {
    let small = Header { graph: None, rows: 0, vectors: 0, min_seq: Seq(0), ..header() };
    let mut plain = Header { scale: None, ..header() };
    plain.spec.index.quantization = Quantization::None;
    let mut half = header();
    half.spec.index.storage = VectorStorage::Float16;
    let mut bits = Header { scale: None, ..header() };
    bits.spec.index.quantization = Quantization::Binary;
    let both = Header { vectors: 9, has_chunks: true, ..with_nibbles() };
    let mut all_there_is = Header { vectors: 99, has_chunks: true, ..with_bits() };
    all_there_is.spec.index.storage = VectorStorage::Float16;
    let plain = [(header(), 2), (small, 2), (plain, 2)];
    let all = [(half, 3), (bits, 3), (with_nibbles(), 3), (with_chunks(), 3), (both, 3)];
    let newest = [(with_bits(), 4), (all_there_is, 4)];
    for (header, version) in plain.into_iter().chain(all).chain(newest) {
        assert_eq!(u32_at(&header.encode(), 8), version);
        let (back, layout) = Header::decode(Path::new("a"), &file(&header)).unwrap();
        assert_eq!((back, layout), (header.clone(), header.layout()));
    }
}

fn with_bits() -> Header {
    let mut header = Header { has_bits: true, graph: None, ..header() };
    header.spec.dim = 128;
    header
}

#[test]
fn bits_for_scans_stand_last_and_make_version_4() {
    let (header, bytes) = (with_bits(), with_bits().encode());
    assert_eq!((u32_at(&bytes, 8), u32_at(&bytes, 12)), (4, 17));
    let bits = header.layout().section(Section::Bits);
    // The center, then one block of 32 times 16 bytes of signs and 8 of numbers.
    assert_eq!((u64_at(&bytes, 388), u64_at(&bytes, 396), u64_at(&bytes, 404)), (12, bits.start, 4 * 128 + 32 * 24));
    assert_eq!(header.layout().checksums, bits.end);
    assert!(bytes[336..388].iter().chain(&bytes[412..508]).all(|&byte| byte == 0));
}

#[test]
fn bits_stand_beside_codes_of_enough_components_and_no_graph() {
    let refused = |change: fn(&mut Header)| {
        let mut header = with_bits();
        change(&mut header);
        match Header::decode(Path::new("a"), &file(&header)) {
            Err(SegmentError::Damaged { offset: 12, .. }) => {}
            other => panic!("{other:?}"),
        }
    };
    refused(|header| header.spec.dim = 127);
    refused(|header| header.graph = self::header().graph);
    refused(|header| (header.spec.index.quantization, header.scale) = (Quantization::Binary, None));
    refused(|header| (header.spec.index.quantization, header.scale) = (Quantization::None, None));
}

fn with_chunks() -> Header {
    Header { vectors: 3, has_chunks: true, ..header() }
}

#[test]
fn chunks_make_more_vectors_than_rows_and_version_3() {
    let (header, bytes) = (with_chunks(), with_chunks().encode());
    assert_eq!((u32_at(&bytes, 8), u32_at(&bytes, 12), u32_at(&bytes, 40)), (3, 11, 2));
    let chunks = header.layout().section(Section::Chunks);
    assert_eq!((u64_at(&bytes, 360), u64_at(&bytes, 368), u64_at(&bytes, 376)), (11, chunks.start, 36));
    assert_eq!(u32_at(&bytes, 384), 3);
    assert!(bytes[336..360].iter().chain(&bytes[388..508]).all(|&byte| byte == 0));
    assert_eq!(header.layout().checksums, chunks.end.next_multiple_of(64));
    let lengths = [Section::Vectors, Section::Codes, Section::Level0, Section::UpperIndex, Section::Seqs]
        .map(|section| header.layout().section(section))
        .map(|range| range.end - range.start);
    assert_eq!(lengths, [36, 192, 120, 16, 16]);
}

#[test]
fn nibbles_stand_last_and_make_version_3() {
    let (header, bytes) = (with_nibbles(), with_nibbles().encode());
    assert_eq!((u32_at(&bytes, 8), u32_at(&bytes, 12)), (3, 7));
    let nibbles = header.layout().section(Section::Nibbles);
    assert_eq!((u64_at(&bytes, 336), u64_at(&bytes, 344), u64_at(&bytes, 352)), (10, nibbles.start, 2 * 64 + 8 * 65));
    assert_eq!(header.layout().checksums, nibbles.end.next_multiple_of(64));
    assert!(bytes[360..508].iter().all(|&byte| byte == 0));
}

#[test]
fn every_truncation_and_bit_flip_is_an_error() {
    every_truncation_and_bit_flip_is_an_error_in(&file(&header()));
    every_truncation_and_bit_flip_is_an_error_in(&file(&with_nibbles()));
    every_truncation_and_bit_flip_is_an_error_in(&file(&with_chunks()));
    every_truncation_and_bit_flip_is_an_error_in(&file(&with_bits()));
}

fn every_truncation_and_bit_flip_is_an_error_in(bytes: &[u8]) {
    for len in 0..bytes.len() {
        assert!(Header::decode(Path::new("a"), &bytes[..len]).is_err(), "{len}");
    }
    for bit in 0..HEADER_BYTES * 8 {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(Path::new("a"), &flipped).is_err(), "bit {bit}");
        // Wrong content under a right checksum must never panic.
        let _ = Header::decode(Path::new("a"), &with_checksum(flipped));
    }
}

#[test]
fn what_is_unknown_is_named() {
    let change = |at: usize, to: u8| {
        let mut bytes = file(&header());
        bytes[at] = to;
        Header::decode(Path::new("a"), &with_checksum(bytes)).unwrap_err()
    };
    assert!(matches!(change(0, b'X'), SegmentError::BadMagic { .. }));
    assert!(matches!(change(8, 1), SegmentError::UnsupportedVersion { found: 1, supported: 4, .. }));
    assert!(matches!(change(8, 5), SegmentError::UnsupportedVersion { found: 5, supported: 4, .. }));
    assert!(matches!(change(8, 3), SegmentError::Damaged { offset: 8, .. }), "version 2 says all of it");
    assert!(matches!(change(8, 4), SegmentError::Damaged { offset: 8, .. }), "version 2 says all of it");
    assert!(matches!(change(12, 35), SegmentError::UnsupportedFlags { found: 35, supported: 31, .. }));
    assert!(matches!(change(12, 19), SegmentError::Damaged { offset: 12, .. }), "three components have no bits");
    assert!(matches!(change(12, 7), SegmentError::Damaged { offset: 12, .. }), "distances are not walked on nibbles");
    assert!(matches!(change(48, 3), SegmentError::Damaged { offset: 48, .. }));
    assert!(matches!(change(45, 0xff), SegmentError::Damaged { offset: 44, .. }));
    assert!(matches!(change(49, 3), SegmentError::Damaged { offset: 49, .. }));
    assert!(matches!(change(50, 1), SegmentError::Damaged { offset: 8, .. }), "version 2 has no half precision");
    assert!(matches!(change(50, 2), SegmentError::Damaged { offset: 50, .. }));
    assert!(matches!(change(51, 1), SegmentError::Damaged { offset: 51, .. }));
    assert!(matches!(change(84, 2), SegmentError::Damaged { offset: 84, .. }));
    assert!(matches!(change(104, 1), SegmentError::Damaged { offset: 104, .. }));
    assert!(matches!(change(312, 9), SegmentError::Damaged { offset: 312, .. }));
}
