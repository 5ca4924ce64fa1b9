//! The lock file beside a model's files: what each of them was when it was last hashed.
//!
//! Text, one line a file after the header: `sha256 size_bytes modified_ns path`, or `absent path` of one that the model
//! may have and did not. A file whose size and time of change are still those recorded is not hashed again; where the
//! registry has no hash, the recorded one is what the file must match for ever. Version 1 had no lines of absent files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::EmbedError;
use crate::storage::publish;

/// The lock file's name in the model's directory.
pub(super) const LOCK_FILE: &str = "pannier.lock";
const HEADER: &str = "pannier model lock 2";
const HEADER_1: &str = "pannier model lock 1";
const ABSENT: &str = "absent ";
const READ_BYTES: usize = 1 << 20;

/// What a file was when it was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// In hexadecimal.
    pub sha256: String,
    pub stamp: Stamp,
}

/// What changes when a file does, as far as the file system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub size_bytes: u64,
    /// Nanoseconds since the Unix epoch; 0 where the file system does not say.
    pub modified_ns: u128,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { size_bytes: metadata.len(), modified_ns: modified.map_or(0, |since| since.as_nanos()) }
    }
}

/// Records by the file's path, relative to the model's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lock {
    pub records: BTreeMap<String, Record>,
    /// Files that were not there when the others were first hashed.
    pub absent: BTreeSet<String>,
}

impl Lock {
    /// Reads a model directory's lock; an absent one is empty.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`] where the file is something else; [`EmbedError::Io`].
    pub(super) fn read(dir: &Path) -> Result<Self, EmbedError> {
        let path = dir.join(LOCK_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|reason| EmbedError::malformed(path, reason)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(EmbedError::malformed(path, e)),
            Err(e) => Err(EmbedError::io(&path, "read", e)),
        }
    }

    /// Replaces the directory's lock.
    ///
    /// # Errors
    /// [`EmbedError::Io`].
    pub(super) fn write(&self, dir: &Path) -> Result<(), EmbedError> {
        Ok(publish(&dir.join(LOCK_FILE), self.format().as_bytes())?)
    }

    fn format(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (path, Record { sha256, stamp }) in &self.records {
            text.push_str(&format!("{sha256} {} {} {path}\n", stamp.size_bytes, stamp.modified_ns));
        }
        self.absent.iter().for_each(|path| text.push_str(&format!("{ABSENT}{path}\n")));
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.split_terminator('\n');
        let is_ours = lines.next().is_some_and(|header| [HEADER, HEADER_1].contains(&header));
        if !is_ours || !text.ends_with('\n') {
            return Err(format!("it is not a lock file that begins with \"{HEADER}\" and ends with a newline"));
        }
        let mut lock = Self::default();
        for line in lines {
            if let Some(path) = line.strip_prefix(ABSENT).filter(|path| !path.is_empty()) {
                lock.absent.insert(path.to_owned());
                continue;
            }
            let (path, record) = parse_line(line).ok_or_else(|| format!("line {line:?} is not understood"))?;
            lock.records.insert(path, record);
        }
        Ok(lock)
    }
}

fn parse_line(line: &str) -> Option<(String, Record)> {
    let mut parts = line.splitn(4, ' ');
    let sha256 = parts.next().filter(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let size_bytes = parts.next()?.parse().ok()?;
    let modified_ns = parts.next()?.parse().ok()?;
    let path = parts.next().filter(|path| !path.is_empty())?;
    Some((path.to_owned(), Record { sha256: sha256.to_owned(), stamp: Stamp { size_bytes, modified_ns } }))
}

/// Hashes a file; the stamp is taken before its bytes are read, so that a change meanwhile shows later.
///
/// # Errors
/// [`EmbedError::Io`].
pub(super) fn hash_file(path: &Path) -> Result<Record, EmbedError> {
    let read = |e| EmbedError::io(path, "read", e);
    let mut file = File::open(path).map_err(read)?;
    let stamp = Stamp::of(&file.metadata().map_err(read)?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => return Ok(Record { sha256: hex(&hash.finalize()), stamp }),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Lock {
        let record = |byte: char, size_bytes| Record {
            sha256: byte.to_string().repeat(64),
            stamp: Stamp { size_bytes, modified_ns: 1_700_000_000_123_456_789 },
        };
        let records = [("1_Pooling/config.json", record('a', 190)), ("a name with spaces", record('0', 0))];
        let records = records.into_iter().map(|(path, record)| (path.to_owned(), record)).collect();
        Lock { records, absent: ["an optional file".to_owned()].into() }
    }

    #[test]
    fn the_text_is_as_documented_and_reads_back() {
        let text = example().format();
        let a = "a".repeat(64);
        assert!(
            text.starts_with(&format!("pannier model lock 2\n{a} 190 1700000000123456789 1_Pooling/config.json\n")),
            "{text}"
        );
        assert!(text.ends_with(" a name with spaces\nabsent an optional file\n"), "{text}");
        assert_eq!(Lock::parse(&text).unwrap(), example());
        let first = text.replace("lock 2", "lock 1").replace("absent an optional file\n", "");
        assert_eq!(Lock::parse(&first).unwrap(), Lock { absent: BTreeSet::new(), ..example() });
    }

    #[test]
    fn every_truncation_is_refused_or_a_shorter_lock() {
        let text = example().format();
        for len in 0..text.len() {
            if let Ok(lock) = Lock::parse(&text[..len]) {
                assert!(text[..len].ends_with('\n'), "{len}");
                assert!(lock.records.iter().all(|(path, record)| example().records.get(path) == Some(record)), "{len}");
                assert!(lock.absent.is_subset(&example().absent), "{len}");
            }
        }
        assert!(Lock::parse("pannier model lock 3\n").is_err());
    }

    #[test]
    fn hashes_are_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let record = hash_file(&path).unwrap();
        assert_eq!(record.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(record.stamp.size_bytes, 3);
    }
}
