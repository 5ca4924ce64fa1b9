//! A file of `sources/`: what is kept of a source, framed by a version and a checksum.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

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
pub(super) fn encode(kept: &RawValue) -> Result<Vec<u8>, serde_json::Error> {
    let crc = format!("{:08x}", crc32c(kept.get().as_bytes()));
    serde_json::to_vec(&json!({ FRAME: VERSION, "crc32c": crc, "kept": kept.get() }))
}

/// The frame of a file. The values are not looked into, which would take many times their text.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "pannier_source")]
    version: Option<u64>,
    crc32c: Option<String>,
    #[serde(borrow)]
    kept: Option<&'a RawValue>,
}

/// The object that a file keeps, or what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<Box<RawValue>, String> {
    let file = object(bytes)?;
    let Frame { version, crc32c: expected, kept } = serde_json::from_str(file.get()).map_err(no_object)?;
    if version.is_none() && expected.is_none() {
        return Ok(file.to_owned());
    }
    match version {
        Some(VERSION) => {}
        Some(other) => return Err(format!("it is of version {other}, and this program reads {VERSION}")),
        None => return Err("it names no version".to_owned()),
    }
    let kept: String = serde_json::from_str(kept.ok_or("nothing is kept in it")?.get()).map_err(no_object)?;
    let (got, expected) = (format!("{:08x}", crc32c(kept.as_bytes())), expected.as_deref().unwrap_or("none"));
    if got != expected {
        return Err(format!("its checksum is {got}, expected {expected}"));
    }
    object(kept.as_bytes()).map(ToOwned::to_owned)
}

/// The text of an object.
fn object(bytes: &[u8]) -> Result<&RawValue, String> {
    let value: &RawValue = serde_json::from_slice(bytes).map_err(no_object)?;
    if value.get().starts_with('{') { Ok(value) } else { Err("it is no JSON object".to_owned()) }
}

fn no_object(error: serde_json::Error) -> String {
    format!("it is no JSON object: {error}")
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

    const KEPT: &str = r#"{"cursor":"2024","runs":3}"#;

    fn kept() -> Box<RawValue> {
        RawValue::from_string(KEPT.to_owned()).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<String, String> {
        decode(bytes).map(|kept| kept.get().to_owned())
    }

    #[test]
    fn what_is_kept_comes_back_and_damage_does_not() {
        let bytes = encode(&kept()).unwrap();
        assert_eq!(read(&bytes).as_deref(), Ok(KEPT));
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "{len}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(!read(&flipped).is_ok_and(|read| read != KEPT), "byte {at} bit {bit}");
            }
        }
        // As files were before they had a frame.
        assert_eq!(read(KEPT.as_bytes()).as_deref(), Ok(KEPT));
        assert!(read(br#"{"pannier_source":3,"crc32c":"0","kept":"{}"}"#).unwrap_err().contains("version 3"));
        for no_object in ["[]", "[2,null,null]", "3", "", "{"] {
            assert!(read(no_object.as_bytes()).unwrap_err().contains("no JSON object"), "{no_object}");
        }
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
