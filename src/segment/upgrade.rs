//! Segment files of version 1 as version 2, and back.
//!
//! Version 1 had no calibration where version 2 has one, and rounded codes in another way. So the header says another
//! version, the codes are made again from the vectors, and the checksums follow.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{SegmentError, check_beginning, u32_at};
use super::format::{CALIBRATION, HEADER_BYTES, HEADER_CHECKSUM, Header, Layout, MAGIC, Section};
use super::quantize::{Quantizer, stride};
use super::reader::read_checksums;
use crate::storage::{BlockChecksums, StorageError, crc32c, publish, read_file};

const OLD: u32 = 1;
const NEW: u32 = 2;

/// The format version that a segment file says it has.
///
/// # Errors
/// [`SegmentError::BadMagic`], [`SegmentError::Damaged`], [`SegmentError::Storage`].
pub fn file_version(path: &Path) -> Result<u32, SegmentError> {
    let fail = |e| StorageError::io(path, "read", e);
    let mut bytes = [0; MAGIC.len() + 4];
    let mut file = File::open(path).map_err(fail)?;
    let mut read = 0;
    while read < bytes.len() {
        match file.read(&mut bytes[read..]).map_err(fail)? {
            0 => break,
            more => read += more,
        }
    }
    check_beginning(path, &bytes[..read], bytes.len(), &MAGIC, 0..=u32::MAX)?;
    Ok(u32_at(&bytes, MAGIC.len()))
}

/// Writes a file of version 1 again as version 2, without a calibration. It is read whole into memory.
///
/// # Errors
/// [`SegmentError::Damaged`] when any block of it is; the file is then as it was.
pub fn upgrade(path: &Path) -> Result<(), SegmentError> {
    rewrite(path, OLD, NEW)
}

/// Writes a file of version 2 again as version 1: its calibration is lost.
///
/// # Errors
/// As [`upgrade`].
pub fn downgrade(path: &Path) -> Result<(), SegmentError> {
    rewrite(path, NEW, OLD)
}

fn rewrite(path: &Path, from: u32, to: u32) -> Result<(), SegmentError> {
    let original = read(path)?;
    check_beginning(path, &original, HEADER_BYTES, &MAGIC, from..=from)?;
    let (expected, got) = (u32_at(&original, HEADER_CHECKSUM), crc32c(&original[..HEADER_CHECKSUM]));
    if expected != got {
        let reason = format!("the header has checksum {got:08x}, expected {expected:08x}");
        return Err(SegmentError::damaged(path, 0, reason));
    }
    let mut bytes = original.clone();
    // Only version 2 can be decoded, and its header is that of version 1 but for the number and the calibration.
    stamp(&mut bytes, NEW);
    let (header, layout) = Header::decode(path, &bytes)?;
    let blocks = read_checksums(path, &original, &layout)?;
    blocks.ensure(&original, 0..layout.checksums as usize).map_err(|damage| SegmentError::block(path, damage))?;
    encode_codes(&mut bytes, &header, &layout);
    if to == OLD {
        bytes[CALIBRATION..HEADER_CHECKSUM].fill(0);
        stamp(&mut bytes, OLD);
    }
    let covered = layout.checksums as usize;
    let mut checksums = BlockChecksums::new();
    checksums.update(&bytes[..covered]);
    let mut table: Vec<u8> = checksums.finish().iter().flat_map(|checksum| checksum.to_le_bytes()).collect();
    table.extend(crc32c(&table).to_le_bytes());
    bytes[covered..].copy_from_slice(&table);
    Ok(publish(path, &bytes)?)
}

fn read(path: &Path) -> Result<Vec<u8>, SegmentError> {
    let missing = || StorageError::io(path, "read", std::io::ErrorKind::NotFound.into());
    Ok(read_file(path)?.ok_or_else(missing)?)
}

fn stamp(bytes: &mut [u8], version: u32) {
    bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&version.to_le_bytes());
    let checksum = crc32c(&bytes[..HEADER_CHECKSUM]);
    bytes[HEADER_CHECKSUM..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

fn encode_codes(bytes: &mut [u8], header: &Header, layout: &Layout) {
    let Some(scale) = header.scale else { return };
    let quantizer = Quantizer::with_scale(scale);
    let (vectors, codes) = (layout.section(Section::Vectors), layout.section(Section::Codes));
    let (dim, wide) = (header.spec.dim as usize, stride(header.spec.dim));
    let (mut vector, mut encoded) = (vec![0.0; dim], vec![0i8; wide]);
    for row in 0..header.rows as usize {
        let at = vectors.start as usize + row * 4 * dim;
        for (number, four) in vector.iter_mut().zip(bytes[at..at + 4 * dim].chunks_exact(4)) {
            *number = f32::from_bits(u32_at(four, 0));
        }
        quantizer.encode(&vector, &mut encoded);
        let at = codes.start as usize + row * wide;
        bytes[at..at + wide].iter_mut().zip(&encoded).for_each(|(byte, code)| *byte = code.cast_unsigned());
    }
}
