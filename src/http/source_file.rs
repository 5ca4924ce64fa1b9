//! A file of `sources/`: what is kept of a source, framed by a version and a checksum.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::storage::{crc32c, read_file};
use crate::types::CollectionName;

/// The directory below the data directory.
pub(super) const DIRECTORY: &str = "sources";
/// The form of the files. Those of the first had no frame: they are what is kept, and are still read.
const VERSION: u64 = 2;
/// The member of the frame that holds the version.
const FRAME: &str = "pannier_source";

/// The file of a source. A source's name has the form of a collection's, so it is safe in a path.
pub(super) fn path(data: &Path, name: &CollectionName) -> PathBuf {
    data.join(DIRECTORY).join(format!("{name}.json"))
}

/// The bytes of a file. What is kept stands in the frame as a text, so that the checksum is of exactly its bytes.
pub(super) fn encode(kept: &Map<String, Value>) -> Result<Vec<u8>, serde_json::Error> {
    let text = serde_json::to_string(kept)?;
    let crc = format!("{:08x}", crc32c(text.as_bytes()));
    serde_json::to_vec(&json!({ FRAME: VERSION, "crc32c": crc, "kept": text }))
}

/// What a file keeps, or what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let object = |bytes| serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON object: {error}"));
    let frame: Map<String, Value> = object(bytes)?;
    if !frame.contains_key(FRAME) && !frame.contains_key("crc32c") {
        return Ok(frame);
    }
    let text = |key: &str| frame.get(key).and_then(Value::as_str);
    match frame.get(FRAME).and_then(Value::as_u64) {
        Some(VERSION) => {}
        Some(other) => return Err(format!("it is of version {other}, and this program reads {VERSION}")),
        None => return Err("it names no version".to_owned()),
    }
    let kept = text("kept").ok_or("nothing is kept in it")?;
    let (got, expected) = (format!("{:08x}", crc32c(kept.as_bytes())), text("crc32c").unwrap_or("none"));
    if got != expected {
        return Err(format!("its checksum is {got}, expected {expected}"));
    }
    object(kept.as_bytes())
}

/// Says that a file is damaged, and what to do.
pub(super) fn damaged(path: &Path, reason: &str) -> String {
    format!("{}: {reason}; remove the file, and the next import reads its source from the start", path.display())
}

/// What is wrong with the files of a data directory.
pub(crate) fn check_sources(data: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(data.join(DIRECTORY)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let problem = |file: &PathBuf| match read_file(file) {
        Ok(Some(bytes)) => decode(&bytes).err().map(|reason| damaged(file, &reason)),
        Ok(None) => None,
        Err(error) => Some(error.to_string()),
    };
    files.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{create_dir_all, publish};

    fn kept() -> Map<String, Value> {
        [("cursor".to_owned(), json!("2024")), ("runs".to_owned(), json!(3))].into_iter().collect()
    }

    #[test]
    fn what_is_kept_comes_back_and_damage_does_not() {
        let bytes = encode(&kept()).unwrap();
        assert_eq!(decode(&bytes), Ok(kept()));
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(!decode(&flipped).is_ok_and(|read| read != kept()), "byte {at} bit {bit}");
            }
        }
        // As files were before they had a frame.
        assert_eq!(decode(br#"{"cursor":"2024","runs":3}"#), Ok(kept()));
        assert!(decode(br#"{"pannier_source":3,"crc32c":"0","kept":"{}"}"#).unwrap_err().contains("version 3"));
    }

    #[test]
    fn a_damaged_file_is_named_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        assert!(check_sources(root.path()).is_empty());
        create_dir_all(&root.path().join(DIRECTORY)).unwrap();
        let file = |name: &str| path(root.path(), &CollectionName::new(name).unwrap());
        publish(&file("good"), &encode(&kept()).unwrap()).unwrap();
        publish(&file("bad"), b"{\"cursor\":").unwrap();
        let found = check_sources(root.path());
        assert!(found.len() == 1 && found[0].contains("bad.json") && found[0].contains("remove the file"), "{found:?}");
    }
}
