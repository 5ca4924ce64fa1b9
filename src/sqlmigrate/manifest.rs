//! The description of a copy of tables, with a sum of itself.

use std::path::Path;

use serde_json::Value;

use super::MigrateError;
use super::files::checksum;
use crate::storage::{StorageError, publish};

/// Written last: a directory without it is not a snapshot.
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const VERSION: u64 = 1;
/// Stands between what is summed and its sum.
const SUM: &str = ",\"sha256\":\"";

/// Writes an object, and the sum of its text as its last key.
///
/// # Errors
/// [`StorageError`].
pub(super) fn write(dir: &Path, manifest: &Value) -> Result<(), StorageError> {
    let text = manifest.to_string();
    let text = text.strip_suffix('}').unwrap_or(&text);
    publish(&dir.join(MANIFEST), format!("{text}{SUM}{}\"}}", checksum(text)).as_bytes())
}

/// Reads it. The oldest have no sum.
///
/// # Errors
/// [`MigrateError::Snapshot`] where it is damaged or of another version, [`MigrateError::Io`].
pub(super) fn read(dir: &Path) -> Result<Value, MigrateError> {
    let wrong = |reason: String| MigrateError::Snapshot { path: dir.to_owned(), reason };
    let path = dir.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|source| MigrateError::Io { path, source })?;
    let manifest: Value = serde_json::from_slice(&text).map_err(|error| wrong(format!("{MANIFEST}: {error}")))?;
    if let Some(sum) = manifest.get("sha256") {
        let text = String::from_utf8_lossy(&text);
        let summed = text.rsplit_once(SUM).map(|(summed, _)| checksum(summed));
        if summed.as_deref() != sum.as_str() {
            return Err(wrong(format!("{MANIFEST} is damaged, or was edited: its sha256 is another than it says")));
        }
    }
    if manifest["version"].as_u64() != Some(VERSION) {
        return Err(wrong(format!("its version is {}, supported is {VERSION}", manifest["version"])));
    }
    if !manifest["tables"].is_array() {
        return Err(wrong(format!("{MANIFEST} is damaged: it names no tables")));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_changed_bit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MANIFEST);
        let manifest = json!({"version": VERSION, "tables": [{"name": "a", "sha256": "0"}]});
        write(dir.path(), &manifest).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let read_back = read(dir.path()).unwrap();
        assert_eq!(read_back["tables"], manifest["tables"]);
        let key = String::from_utf8_lossy(&whole).rfind("sha256").unwrap();
        for byte in 0..whole.len() {
            // Without its key there is no sum, but everything else is as it was.
            if (key..key + "sha256".len()).contains(&byte) {
                continue;
            }
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert!(read(dir.path()).is_err(), "byte {byte} was changed");
        }
        std::fs::write(&path, manifest.to_string()).unwrap();
        assert!(read(dir.path()).is_ok(), "the oldest have no sum");
        std::fs::write(&path, json!({"version": VERSION}).to_string()).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("names no tables"));
    }
}
