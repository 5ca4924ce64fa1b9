//! The readers of snapshots and their archives over any bytes.

use std::path::Path;

use super::header::{BLOCK_BYTES, header, padding};
use super::read::{Input, read_members};
use crate::manifest::SNAPSHOT_FILE;
use crate::snapshot::Sha256;
use crate::snapshot::contents::Contents;

/// Fast enough for a fuzzer.
const LEVEL: i32 = 1;

/// The bytes as a list of contents, as an archive, as a tar that was compressed well, and as a list whose digest is
/// right with members behind it. A list that can be read is written as the same bytes. Whether the bytes are one of
/// these.
pub fn snapshot(bytes: &[u8]) -> bool {
    let is_whole =
        [contents(bytes), archive(bytes), archive(&zstd::encode_all(bytes, LEVEL).expect("memory takes any bytes"))];

    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (list, members) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let list = [list, format!("end {}\n", Sha256::of(list)).as_bytes()].concat();
    contents(&list);
    let len = list.len() as u64;
    let tar = [&header(SNAPSHOT_FILE, len)[..], &list, &[0; BLOCK_BYTES][..padding(len)], members].concat();
    let with_members = archive(&zstd::encode_all(&tar[..], LEVEL).expect("memory takes any bytes"));
    with_members || is_whole.contains(&true)
}

fn contents(bytes: &[u8]) -> bool {
    let Ok(contents) = Contents::decode(Path::new("fuzz"), bytes) else { return false };
    assert_eq!(contents.encode(), bytes, "there is one way to write a list");
    true
}

fn archive(bytes: &[u8]) -> bool {
    let Ok(input) = Input::new(Path::new("fuzz"), bytes) else { return false };
    let Ok(contents) = read_members(input, bytes.len() as u64, None, &mut |_, _| {}) else { return false };
    assert!(contents.members.is_sorted_by(|a, b| a.path < b.path));
    true
}
