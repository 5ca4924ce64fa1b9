//! Whether sled's files can be trusted: the `CHECK` file beside them. Layout: `docs/formats/meta.md`.
//!
//! While the index is in use, `CHECK` names the running operating system; after a clean close, it holds a checksum over
//! every file of sled's.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::storage::{self, ReadOnlyFile, StorageError};
use crate::types::Chain;

use super::Identity;

const MAGIC: &[u8; 8] = b"PANNMETA";
const VERSION: u32 = 2;
const STATE_OPEN: u32 = 1;
const STATE_CLOSED: u32 = 2;
/// Magic, version, state, store id, timeline, proof, crc32c.
const LEN: usize = 8 + 4 + 4 + 16 + 4 + 16 + 4;
/// Bytes of a file that are read at once.
const CALL_BYTES: u64 = 1 << 20;
/// Where Linux tells one start of the system from another; other systems have none, and after a crash the index is
/// made again there.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The directory that sled owns: the one of the highest number. A thread of sled's that was left behind knows the one
/// before it by its path, makes that again, and writes into it.
pub fn sled_dir(path: &Path) -> Result<PathBuf, StorageError> {
    Ok(numbered(path, newest(path)?))
}

fn numbered(path: &Path, number: u64) -> PathBuf {
    path.join(format!("db-{number}"))
}

/// The highest number of a directory of sled's; 0 where there is none.
fn newest(path: &Path) -> Result<u64, StorageError> {
    let number = |entry: PathBuf| entry.file_name()?.to_str()?.strip_prefix("db-")?.parse().ok();
    Ok(storage::list_entries(path)?.into_iter().filter_map(number).max().unwrap_or(0))
}

fn check_file(path: &Path) -> PathBuf {
    path.join("CHECK")
}

/// The state written into `CHECK`, with its proof.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    state: u32,
    proof: [u8; 16],
}

fn encode(identity: Identity, mark: Mark) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&mark.state.to_le_bytes());
    bytes[16..32].copy_from_slice(&identity.store_id);
    bytes[32..36].copy_from_slice(&identity.timeline.to_le_bytes());
    bytes[36..52].copy_from_slice(&mark.proof);
    let crc = storage::crc32c(&bytes[..52]);
    bytes[52..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Says why the files cannot be trusted, or nothing where they can.
pub fn check(path: &Path, identity: Identity) -> Result<(), String> {
    let file = check_file(path);
    let bytes = match storage::read_file(&file) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(format!("{} is missing", file.display())),
        Err(error) => return Err(error.to_string()),
    };
    let mark = match bytes.get(12) == Some(&(STATE_CLOSED as u8)) {
        true => Some(contents(path).map_err(|error| Chain(&error).to_string())?),
        false => boot_id().map(|proof| Mark { state: STATE_OPEN, proof }),
    };
    if mark.is_some_and(|mark| encode(identity, mark)[..] == bytes[..]) {
        return Ok(());
    }
    Err(format!("{} does not vouch for the files beside it", file.display()))
}

/// Writes that the index is in use.
pub fn write_open(path: &Path, identity: Identity) -> Result<(), StorageError> {
    // Without a boot id nothing will equal this proof, so that the index is made again after a crash.
    let proof = boot_id().unwrap_or([0xff; 16]);
    storage::publish(&check_file(path), &encode(identity, Mark { state: STATE_OPEN, proof }))
}

/// Writes that the index was closed, with the checksum of its files.
pub fn write_closed(path: &Path, identity: Identity) -> Result<(), StorageError> {
    storage::publish(&check_file(path), &encode(identity, contents(path)?))
}

/// Removes sled's files and `CHECK`, and leaves an empty directory for sled, of another name.
pub fn discard(path: &Path) -> Result<(), StorageError> {
    let next = numbered(path, newest(path)?.saturating_add(1));
    // First, so that it vouches for no part of the files.
    storage::remove_file(&check_file(path))?;
    match storage::remove_dir_all(path) {
        // Whoever was left behind has made a file meanwhile; nobody reads it.
        Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::DirectoryNotEmpty => {}
        removed => removed?,
    }
    storage::create_dir_all(&next)
}

fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string(BOOT_ID).ok()?;
    let hex: String = text.trim().chars().filter(|c| *c != '-').collect();
    Some(u128::from_str_radix(&hex, 16).ok()?.to_be_bytes())
}

/// Length and crc32c over the names, lengths and bytes of all files below sled's directory. They are read by calls:
/// what the disk does not give back is an error then, and no end of the process.
fn contents(path: &Path) -> Result<Mark, StorageError> {
    let files = storage::list_files_below(&sled_dir(path)?)?;
    let (mut total, mut crc, mut memory) = (0u64, 0u32, Vec::new());
    for file in files {
        let name = file.strip_prefix(path).unwrap_or(&file);
        // Nobody has it open: sled's last handle is gone.
        let opened = ReadOnlyFile::open(&file)?;
        let len = opened.len_bytes()?;
        crc = storage::crc32c_append(crc, name.as_os_str().as_encoded_bytes());
        for start in (0..len).step_by(CALL_BYTES as usize) {
            memory.resize(CALL_BYTES.min(len - start) as usize, 0);
            opened.read_exact_at(start, &mut memory)?;
            crc = storage::crc32c_append(crc, &memory);
        }
        total += len;
        crc = storage::crc32c_append(crc, &total.to_le_bytes());
    }
    let mut proof = [0; 16];
    proof[..8].copy_from_slice(&total.to_le_bytes());
    proof[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(Mark { state: STATE_CLOSED, proof })
}
