//! Rows of several vectors.

use super::*;

/// Four rows of one to three of the sample's seven vectors.
fn write_chunks(sample: &Sample) {
    let counts = [1, 3, 2, 1];
    let frames: Vec<Vec<u8>> = sample.documents.iter().map(encode_document).collect();
    let mut first = 0;
    let parts = counts.map(|count| {
        let vectors = sample.vectors[first..first + count].concat();
        let spans: Vec<_> = (first..first + count).map(|n| ChunkSpan { start: n as u32, end: n as u32 + 2 }).collect();
        first += count;
        (vectors, if count == 2 { spans } else { vec![ChunkSpan::NOWHERE; count] })
    });
    let row = |row: usize| {
        // A row without chunks beside others with them.
        let chunks: &[ChunkSpan] = if row == 0 { &[] } else { &parts[row].1 };
        RowRef { seq: Seq(10 + row as u64), document: &frames[row], vector: VectorRef::Float32(&parts[row].0), chunks }
    };
    let rows: Vec<RowRef<'_>> = (0..4).map(row).collect();
    write_segment(&sample.path(), &sample.spec, &rows, &[], sample.graph.as_ref(), None).unwrap();
}

#[test]
fn rows_of_several_vectors_are_read_again() {
    for quantization in QUANTIZATIONS {
        let sample = Sample::new(7, 3, Metric::Dot, quantization).with_graph();
        write_chunks(&sample);
        let segment = Segment::open(&sample.path(), &sample.spec).unwrap();
        segment.verify(|_| {}).unwrap();
        assert_eq!((segment.rows(), segment.vector_count()), (4, 7));
        assert_eq!(segment.owners().unwrap().unwrap(), [0, 1, 1, 1, 2, 2, 3]);
        assert_eq!(segment.vectors(1).unwrap().to_vec(), sample.vectors[1..4].concat());
        assert_eq!(segment.vectors_of(2).unwrap(), 4..6);
        assert_eq!(segment.chunks(2).unwrap(), [ChunkSpan { start: 4, end: 6 }, ChunkSpan { start: 5, end: 7 }]);
        assert_eq!(segment.chunks(0).unwrap(), [ChunkSpan::NOWHERE]);
        assert_eq!(segment.document(3).unwrap(), sample.documents[3]);
        assert!(matches!(segment.vectors(4), Err(SegmentError::NoSuchRow { ordinal: 4, rows: 4, .. })));
        let query = sample.query(5);
        let mut found = Vec::new();
        segment.search(&query, WalkOptions { top_k: 7, ef: 7 }, |_| true, &mut found).unwrap();
        assert_nearest(&found, &sample, &query, 7, |_| true);
        segment.scan_exact(&query, 3, |vector| vector != 2, &mut found).unwrap();
        assert_nearest(&found, &sample, &query, 3, |vector| vector != 2);
    }
}

#[test]
fn owners_out_of_order_are_refused() {
    let sample = Sample::new(7, 3, Metric::Dot, Quantization::Int8);
    for (at, owner) in [(0, 1), (1, 0), (3, 3), (6, 4), (6, 2), (6, u32::MAX)] {
        write_chunks(&sample);
        let mut bytes = std::fs::read(sample.path()).unwrap();
        let start = Segment::open(&sample.path(), &sample.spec).unwrap().section_start(Section::Chunks) + 4 * at;
        bytes[start..start + 4].copy_from_slice(&u32::to_le_bytes(owner));
        std::fs::write(sample.path(), &bytes).unwrap();
        assert!(matches!(Segment::open(&sample.path(), &sample.spec), Err(SegmentError::Damaged { .. })), "a checksum");
        // Under right checksums: the file is one block.
        let table = bytes.len() - 8;
        let block = crc32c(&bytes[..table]);
        bytes[table..table + 4].copy_from_slice(&block.to_le_bytes());
        let of_table = crc32c(&bytes[table..table + 4]);
        bytes[table + 4..].copy_from_slice(&of_table.to_le_bytes());
        std::fs::write(sample.path(), &bytes).unwrap();
        let opened = Segment::open(&sample.path(), &sample.spec);
        if (at, owner) == (1, 0) {
            // Another row's vector, which nothing contradicts.
            assert_eq!(opened.unwrap().vectors_of(0).unwrap(), 0..2);
        } else {
            assert!(matches!(opened, Err(SegmentError::Damaged { .. })), "{at} {owner}: {opened:?}");
        }
    }
}
