//! The one header that each member has, and what is wrong with another.

use std::collections::BTreeMap;

use tar::{EntryType, Header};

/// Bytes of a header, and what contents are padded to.
pub(super) const BLOCK_BYTES: usize = 512;

/// The header of a member: a regular file of nobody's, from the beginning of time.
pub(super) fn header(path: &str, len_bytes: u64) -> [u8; BLOCK_BYTES] {
    let mut header = Header::new_ustar();
    header.set_path(path).expect("a store's paths are short and relative");
    header.set_size(len_bytes);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    *header.as_bytes()
}

/// Zeros after contents of this length.
pub(super) fn padding(len_bytes: u64) -> usize {
    (len_bytes.next_multiple_of(BLOCK_BYTES as u64) - len_bytes) as usize
}

/// The name that a header gives, and its length.
pub(super) fn name_and_size(block: &[u8; BLOCK_BYTES]) -> (String, Option<u64>) {
    let header = Header::from_byte_slice(block);
    (String::from_utf8_lossy(&header.path_bytes()).into_owned(), header.entry_size().ok())
}

/// Why a header is not the one that was expected. `lengths`: of every member that may come, by path; `done`: how many
/// came before, in the order of paths.
pub(super) fn fault(
    block: &[u8; BLOCK_BYTES],
    expected: Option<&str>,
    lengths: &BTreeMap<&str, u64>,
    done: impl Fn(&str) -> bool,
) -> (String, String) {
    let header = Header::from_byte_slice(block);
    let (name, size) = name_and_size(block);
    let reason = match header.entry_type() {
        EntryType::Symlink | EntryType::Link => "is a link".to_owned(),
        EntryType::Char | EntryType::Block | EntryType::Fifo => "is a device".to_owned(),
        EntryType::Directory => "is a directory".to_owned(),
        EntryType::Regular => {
            let leaves = name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..");
            match lengths.get(name.as_str()) {
                _ if leaves => "leads out of the snapshot".to_owned(),
                None => "is not listed in SNAPSHOT".to_owned(),
                Some(_) if done(&name) => "stands twice".to_owned(),
                Some(_) if expected.is_some_and(|expected| expected != name) => {
                    format!("comes before {}, which SNAPSHOT lists first", expected.unwrap_or_default())
                }
                Some(&len) if size != Some(len) => format!("is not {len} bytes long, as SNAPSHOT says"),
                Some(_) => "has a header that this program does not write".to_owned(),
            }
        }
        _ => "is of a kind that no snapshot has".to_owned(),
    };
    (name, reason)
}
