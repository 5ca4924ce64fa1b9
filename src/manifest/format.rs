//! Byte layout of `FORMAT` and `MANIFEST`: docs/formats/manifest.md.

use std::path::Path;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};

use super::{CollectionEntry, Manifest, ManifestError, SegmentEntry, StoreId};
use crate::storage::{Fields, crc32c};
use crate::types::{CollectionId, CollectionName, Definition, DefinitionV1, DefinitionV2, SegmentId, Seq};

pub(super) const FORMAT_MAGIC: [u8; 8] = *b"PANNRFMT";
pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const FORMAT_BYTES: usize = 40;
pub(super) const MANIFEST_MAGIC: [u8; 8] = *b"PANNRMAN";
pub(super) const MANIFEST_VERSION: u32 = 3;
/// The oldest version that is read: its definitions know no keyword search.
const OLDEST_MANIFEST_VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 88;
pub(super) const SEGMENT_BYTES: usize = 56;
const FLAGS: u32 = 0;
const CRC_BYTES: usize = 4;

/// Longest definition that is written, in bytes. One has some kilobytes, and had what fits a record of the log before
/// all its parts were bounded.
const MAX_DEFINITION_BYTES: usize = 64 << 20;
/// Bounds what a length that was read may allocate. A list of short names takes three times its encoded size in memory,
/// so this refuses nothing that was written.
const DECODE_LIMIT_BYTES: usize = 8 * MAX_DEFINITION_BYTES;

const fn config() -> Configuration<LittleEndian, Fixint, Limit<DECODE_LIMIT_BYTES>> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<DECODE_LIMIT_BYTES>()
}

pub(super) fn encode_format(store_id: StoreId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FORMAT_BYTES);
    bytes.extend(FORMAT_MAGIC);
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend(FLAGS.to_le_bytes());
    bytes.extend(store_id.0);
    bytes.extend((FORMAT_BYTES as u32).to_le_bytes());
    bytes.extend(crc32c(&bytes).to_le_bytes());
    bytes
}

pub(super) fn decode_format(path: &Path, bytes: &[u8]) -> Result<StoreId, ManifestError> {
    let file = Source { path };
    file.check_len(bytes, FORMAT_BYTES)?;
    if bytes.len() > FORMAT_BYTES {
        return Err(file.damaged(FORMAT_BYTES, format!("{} bytes are left over", bytes.len() - FORMAT_BYTES)));
    }
    file.check_frame(bytes, FORMAT_MAGIC)?;
    let mut fields = Fields::new(&bytes[FORMAT_MAGIC.len()..]);
    let short = || file.damaged(bytes.len(), "the file ends too early");
    file.check_known("format version", fields.u32().ok_or_else(short)?, FORMAT_VERSION)?;
    file.check_known("flags", fields.u32().ok_or_else(short)?, FLAGS)?;
    let store_id = StoreId(fields.array().ok_or_else(short)?);
    file.check_known("header length", fields.u32().ok_or_else(short)?, FORMAT_BYTES as u32)?;
    Ok(store_id)
}

/// Encodes a manifest that [`Manifest::check`] has passed.
pub(super) fn encode_manifest(manifest: &Manifest) -> Result<Vec<u8>, ManifestError> {
    let mut body = Vec::new();
    for collection in &manifest.collections {
        encode_collection(collection, &mut body)?;
    }
    let file_len = HEADER_BYTES + body.len() + CRC_BYTES;
    let mut bytes = Vec::with_capacity(file_len);
    bytes.extend(MANIFEST_MAGIC);
    bytes.extend(MANIFEST_VERSION.to_le_bytes());
    bytes.extend(FLAGS.to_le_bytes());
    bytes.extend(manifest.store_id.0);
    bytes.extend(manifest.timeline.to_le_bytes());
    bytes.extend((HEADER_BYTES as u32).to_le_bytes());
    bytes.extend(manifest.version.to_le_bytes());
    bytes.extend(manifest.log_start.0.to_le_bytes());
    bytes.extend(manifest.next_collection_id.to_le_bytes());
    bytes.extend(count(manifest.collections.len())?.to_le_bytes());
    bytes.extend(manifest.next_segment_id.to_le_bytes());
    bytes.extend((file_len as u64).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(crc32c(&bytes).to_le_bytes());
    bytes.extend(body);
    bytes.extend(crc32c(&bytes).to_le_bytes());
    Ok(bytes)
}

fn encode_collection(collection: &CollectionEntry, out: &mut Vec<u8>) -> Result<(), ManifestError> {
    let definition = bincode::encode_to_vec(&collection.definition, config())
        .map_err(|e| ManifestError::Invalid { reason: e.to_string() })?;
    if definition.len() > MAX_DEFINITION_BYTES {
        let (name, len) = (&collection.name, definition.len());
        let reason = format!("the definition of {name} has {len} bytes, and {MAX_DEFINITION_BYTES} can be read again");
        return Err(ManifestError::Invalid { reason });
    }
    let name = collection.name.as_str().as_bytes();
    out.extend(collection.id.0.to_le_bytes());
    out.extend(collection.generation.to_le_bytes());
    out.extend(collection.created_at_ms.to_le_bytes());
    out.extend(collection.created_seq.0.to_le_bytes());
    out.extend(collection.sealed_seq.0.to_le_bytes());
    out.extend(count(collection.segments.len())?.to_le_bytes());
    out.extend(count(name.len())?.to_le_bytes());
    out.extend(count(definition.len())?.to_le_bytes());
    out.extend(name);
    out.extend(definition);
    collection.segments.iter().for_each(|segment| encode_segment(segment, out));
    Ok(())
}

fn encode_segment(segment: &SegmentEntry, out: &mut Vec<u8>) {
    out.extend(segment.id.0.to_le_bytes());
    out.extend(segment.rows.to_le_bytes());
    out.extend(segment.tombstones.to_le_bytes());
    out.extend(segment.min_seq.0.to_le_bytes());
    out.extend(segment.max_seq.0.to_le_bytes());
    out.extend(segment.len_bytes.to_le_bytes());
    out.extend(segment.dead_version.to_le_bytes());
    out.extend(segment.dead_rows.to_le_bytes());
    out.extend([u8::from(segment.has_graph), 0, 0, 0]);
}

fn count(len: usize) -> Result<u32, ManifestError> {
    u32::try_from(len).map_err(|_| ManifestError::Invalid { reason: format!("{len} is too many to count") })
}

pub(super) fn decode_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let file = Source { path };
    file.check_len(bytes, HEADER_BYTES)?;
    file.check_frame(&bytes[..HEADER_BYTES], MANIFEST_MAGIC)?;
    let short = || file.damaged(bytes.len(), "the file ends too early");
    let Header { manifest: header, version, collections, file_len } = decode_header(&file, bytes)?.ok_or_else(short)?;
    if file_len != bytes.len() as u64 {
        return Err(file.damaged(72, format!("the file has {} bytes, expected {file_len}", bytes.len())));
    }
    let body_end = bytes.len().checked_sub(CRC_BYTES).filter(|&end| end >= HEADER_BYTES).ok_or_else(short)?;
    file.check_crc(bytes)?;
    let mut manifest = header;
    let mut fields = Fields::new(&bytes[..body_end]);
    fields.bytes(HEADER_BYTES).ok_or_else(short)?;
    for _ in 0..collections {
        let at = fields.position();
        let collection = decode_collection(&mut fields, version)
            .ok_or_else(|| file.damaged(at, "the collection that begins here cannot be read"))?;
        manifest.collections.push(collection);
    }
    if !fields.remaining().is_empty() {
        let left = fields.remaining().len();
        return Err(file.damaged(fields.position(), format!("{left} bytes are left over")));
    }
    manifest.check().map_err(|reason| file.damaged(HEADER_BYTES, reason))?;
    Ok(manifest)
}

/// The version that a manifest says it has; 0 where its bytes end before.
pub(super) fn stored_version(bytes: &[u8]) -> u32 {
    let mut fields = Fields::new(bytes);
    fields.bytes(MANIFEST_MAGIC.len()).and_then(|_| fields.u32()).unwrap_or(0)
}

/// What the first bytes of a manifest say.
struct Header {
    /// Without its collections.
    manifest: Manifest,
    /// Of the format.
    version: u32,
    /// How many follow.
    collections: u32,
    /// The length that the file should have.
    file_len: u64,
}

fn decode_header(file: &Source, bytes: &[u8]) -> Result<Option<Header>, ManifestError> {
    let mut fields = Fields::new(&bytes[MANIFEST_MAGIC.len()..HEADER_BYTES]);
    let read = |fields: &mut Fields| {
        let (version, flags) = (fields.u32()?, fields.u32()?);
        let (store_id, timeline) = (StoreId(fields.array()?), fields.u32()?);
        let header_len = fields.u32()?;
        let mut manifest = Manifest::first(store_id);
        manifest.timeline = timeline;
        manifest.version = fields.u64()?;
        manifest.log_start = Seq(fields.u64()?);
        manifest.next_collection_id = fields.u32()?;
        let collections = fields.u32()?;
        manifest.next_segment_id = fields.u64()?;
        let (file_len, padding) = (fields.u64()?, fields.u32()?);
        Some((flags, header_len, padding, Header { manifest, version, collections, file_len }))
    };
    let Some((flags, header_len, padding, header)) = read(&mut fields) else { return Ok(None) };
    if !(OLDEST_MANIFEST_VERSION..=MANIFEST_VERSION).contains(&header.version) {
        file.check_known("format version", header.version, MANIFEST_VERSION)?;
    }
    file.check_known("flags", flags, FLAGS)?;
    file.check_known("header length", header_len, HEADER_BYTES as u32)?;
    if padding != 0 {
        return Err(file.damaged(80, "the padding is not zero"));
    }
    Ok(Some(header))
}

fn decode_collection(fields: &mut Fields, version: u32) -> Option<CollectionEntry> {
    let (id, generation) = (CollectionId(fields.u32()?), fields.u32()?);
    let created_at_ms = fields.i64()?;
    let (created_seq, sealed_seq) = (Seq(fields.u64()?), Seq(fields.u64()?));
    let (segment_count, name_len, definition_len) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let name = std::str::from_utf8(fields.bytes(name_len as usize)?).ok()?;
    let name = CollectionName::new(name).ok()?;
    let definition_bytes = fields.bytes(definition_len as usize)?;
    let (definition, used): (Definition, usize) = match version {
        1 => decode_definition::<DefinitionV1>(definition_bytes)?,
        2 => decode_definition::<DefinitionV2>(definition_bytes)?,
        _ => decode_definition::<Definition>(definition_bytes)?,
    };
    if used != definition_bytes.len() {
        return None;
    }
    let mut segment_bytes = Fields::new(fields.bytes((segment_count as usize).checked_mul(SEGMENT_BYTES)?)?);
    let segments = (0..segment_count).map(|_| decode_segment(&mut segment_bytes)).collect::<Option<Vec<_>>>()?;
    Some(CollectionEntry { id, name, definition, created_at_ms, created_seq, generation, sealed_seq, segments })
}

/// A definition in the form that a version has it in, and its length in bytes.
fn decode_definition<D: bincode::Decode<()> + Into<Definition>>(bytes: &[u8]) -> Option<(Definition, usize)> {
    let (definition, used) = bincode::decode_from_slice::<D, _>(bytes, config()).ok()?;
    Some((definition.into(), used))
}

fn decode_segment(fields: &mut Fields) -> Option<SegmentEntry> {
    let (id, rows, tombstones) = (SegmentId(fields.u64()?), fields.u32()?, fields.u32()?);
    let (min_seq, max_seq) = (Seq(fields.u64()?), Seq(fields.u64()?));
    let (len_bytes, dead_version, dead_rows) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let has_graph = match fields.array()? {
        [flag @ (0 | 1), 0, 0, 0] => flag == 1,
        _ => return None,
    };
    Some(SegmentEntry { id, rows, tombstones, min_seq, max_seq, len_bytes, has_graph, dead_version, dead_rows })
}

/// The file that bytes came from, for errors.
struct Source<'a> {
    path: &'a Path,
}

impl Source<'_> {
    fn damaged(&self, offset: usize, reason: impl Into<String>) -> ManifestError {
        ManifestError::Damaged { path: self.path.to_owned(), offset: offset as u64, reason: reason.into() }
    }

    fn check_len(&self, bytes: &[u8], at_least: usize) -> Result<(), ManifestError> {
        if bytes.len() < at_least {
            return Err(self.damaged(bytes.len(), format!("the file ends within its first {at_least} bytes")));
        }
        Ok(())
    }

    /// Checks the magic at the start of `bytes` and the checksum at their end.
    fn check_frame(&self, bytes: &[u8], magic: [u8; 8]) -> Result<(), ManifestError> {
        if !bytes.starts_with(&magic) {
            return Err(self.damaged(0, format!("it does not begin with {}", magic.escape_ascii())));
        }
        self.check_crc(bytes)
    }

    /// Checks the crc32c that ends `bytes` and covers all before it.
    fn check_crc(&self, bytes: &[u8]) -> Result<(), ManifestError> {
        let at = bytes.len().saturating_sub(CRC_BYTES);
        let mut fields = Fields::new(bytes);
        let crcs = fields.bytes(at).and_then(|_| fields.crc_of_all_before());
        match crcs {
            Some((expected, got)) if expected == got => Ok(()),
            Some((expected, got)) => {
                Err(self.damaged(at, format!("the bytes before have checksum {got:08x}, expected {expected:08x}")))
            }
            None => Err(self.damaged(at, "the checksum is missing")),
        }
    }

    fn check_known(&self, what: &'static str, found: u32, supported: u32) -> Result<(), ManifestError> {
        if found != supported {
            return Err(ManifestError::Unsupported { path: self.path.to_owned(), what, found, supported });
        }
        Ok(())
    }
}
