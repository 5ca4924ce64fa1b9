//! A file's way from a source to its name: counted, hashed, and only then published.

use std::fs;
use std::io::{Read, Write};

use sha2::{Digest, Sha256};

use super::{Opened, SourceError};
use crate::embed::files::ModelFile;
use crate::embed::lock_file::{hash_file, hex};
use crate::embed::store::Place;
use crate::embed::{EmbedError, PullProgress};
use crate::storage::{Publishing, create_dir_all, remove_temporaries};

/// Longest file of a model of which the registry does not know the length.
const MAX_FILE_BYTES: u64 = 16 << 30;
const COPY_BYTES: usize = 1 << 20;
/// What of a file is compared with what is expected.
const HASH: &str = "its sha256";

/// Whether the file stands under its name already and is what it must be, as far as anybody knows.
pub(super) fn is_there(place: &Place, file: &ModelFile, expected: Option<&str>) -> Result<bool, SourceError> {
    let path = place.path(file);
    match (fs::metadata(&path), file.digest) {
        (Err(_), _) => return Ok(false),
        (Ok(metadata), Some(digest)) if metadata.len() != digest.size_bytes => return Ok(false),
        _ => {}
    }
    Ok(expected.is_none_or(|expected| hash_file(&path).is_ok_and(|record| record.sha256 == expected)))
}

/// Copies an open file to its place if it is what it must be.
pub(super) fn land(
    place: &Place,
    file: &ModelFile,
    expected: Option<&str>,
    mut opened: Opened,
    source: &str,
    progress: &mut dyn FnMut(PullProgress),
) -> Result<(), SourceError> {
    let size_bytes = file.digest.map_or(opened.size_bytes, |digest| digest.size_bytes);
    let mismatch = |what, expected: String, got: String| {
        let recorded = file.digest.is_none() && what == HASH;
        SourceError::Mismatch { path: file.path.clone(), what, expected, got, recorded }
    };
    if opened.size_bytes != size_bytes {
        return Err(mismatch("its length", size_bytes.to_string(), opened.size_bytes.to_string()));
    }
    if size_bytes > MAX_FILE_BYTES {
        return Err(SourceError::Failed(format!("{} has {size_bytes} bytes, more than any model", file.path)));
    }
    let path = place.path(file);
    let dir = path.parent().unwrap_or(&place.dir);
    create_dir_all(dir).map_err(EmbedError::from)?;
    // The pull's lock is held: nobody else publishes here.
    remove_temporaries(dir).map_err(EmbedError::from)?;
    let mut publishing = Publishing::create(&path).map_err(EmbedError::from)?;
    let mut report = |done_bytes| {
        let (source, file) = (source.to_owned(), file.path.clone());
        progress(PullProgress { source, file, done_bytes, total_bytes: Some(size_bytes) });
    };
    let mut hash = Sha256::new();
    let mut done_bytes = 0;
    let mut buffer = vec![0; COPY_BYTES];
    // One byte more than there may be, so that a longer file shows.
    let mut reader = opened.reader.by_ref().take(size_bytes + 1);
    loop {
        let count = reader.read(&mut buffer).map_err(|e| SourceError::Failed(format!("reading {}: {e}", file.path)))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        publishing.write_all(&buffer[..count]).map_err(|e| EmbedError::io(&path, "write", e))?;
        done_bytes += count as u64;
        if !opened.downloaded {
            report(done_bytes);
        }
    }
    if done_bytes != size_bytes {
        return Err(mismatch("its length", size_bytes.to_string(), done_bytes.to_string()));
    }
    let got = hex(&hash.finalize());
    match expected {
        Some(expected) if expected != got => Err(mismatch(HASH, expected.to_owned(), got)),
        _ => Ok(publishing.commit().map_err(EmbedError::from)?),
    }
}
