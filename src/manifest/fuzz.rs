//! The readers of `FORMAT` and `MANIFEST` over any bytes.

use std::path::Path;

use super::format::{HEADER_BYTES, decode_format, decode_manifest, encode_manifest};
use crate::storage::crc32c;

/// Both files, as they are and with their checksums put right. What can be read is written back as the same manifest.
/// Whether the bytes, as they are, are one of them.
pub fn manifest(bytes: &[u8]) -> bool {
    let path = Path::new("fuzz");
    let is_one = decode_format(path, bytes).is_ok() || decode_manifest(path, bytes).is_ok();
    let mut mended = bytes.to_vec();
    if mended.len() < HEADER_BYTES + 4 {
        return is_one;
    }
    let crc = crc32c(&mended[..HEADER_BYTES - 4]);
    mended[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let end = mended.len() - 4;
    let crc = crc32c(&mended[..end]);
    mended[end..].copy_from_slice(&crc.to_le_bytes());
    if let Ok(manifest) = decode_manifest(path, &mended) {
        let again = encode_manifest(&manifest).expect("what was read can be written");
        assert_eq!(decode_manifest(path, &again).ok().as_ref(), Some(&manifest));
        _ = manifest.next();
    }
    is_one
}
