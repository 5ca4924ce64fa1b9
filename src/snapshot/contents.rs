//! What a snapshot holds: the file `SNAPSHOT`, docs/formats/snapshot.md.

use std::fmt::{self, Write};
use std::path::Path;

use crate::manifest::StoreId;
use crate::migrate::JOURNAL_FILE;
use crate::segment::{Segment, SegmentError};
use crate::storage::DataPaths;
use crate::types::Seq;

use super::{Sha256, SnapshotError};

const VERSION: u32 = 1;
/// Before a digest that is of block checksums.
const BLOCKS: &str = "blocks:";
/// Longest `SNAPSHOT` that is read: a member takes about 130 bytes, and half a million of them fit.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// Everything that decides the state of a store, of one moment. Equal contents are the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The store it was taken of.
    pub store_id: StoreId,
    /// The store's timeline.
    pub timeline: u32,
    /// The last change in it.
    pub seq: Seq,
    /// Its files, by path.
    pub members: Vec<Member>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Path below the snapshot, with `/`.
    pub path: String,
    /// Length in bytes.
    pub len_bytes: u64,
    /// What its bytes are compared with.
    pub digest: Digest,
}

/// What a member's bytes are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256 of the bytes.
    Bytes(Sha256),
    /// Of a segment: SHA-256 of its block checksums, which stand for its bytes. It takes no time, so a gigabyte can be
    /// linked in a moment. Archives, which leave the machine, have [`Digest::Bytes`] only.
    Blocks(Sha256),
}

impl Digest {
    /// Of a store's file: of a segment's block checksums, unless it is of an earlier format.
    ///
    /// # Errors
    /// [`SnapshotError::Storage`] when it cannot be read, [`SnapshotError::Segment`] when it is a segment that cannot
    /// be opened: a digest would be that of the damage.
    pub(super) fn of_file(path: &Path) -> Result<(u64, Self), SnapshotError> {
        if path.extension().is_some_and(|extension| extension == "seg") {
            match Segment::open_any_by_calls(path) {
                Ok(segment) => return Ok((segment.len_bytes(), Self::Blocks(Sha256::of(segment.checksum_bytes())))),
                Err(SegmentError::UnsupportedVersion { found, supported, .. }) if found < supported => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (len_bytes, sha256) = Sha256::of_file(path)?;
        Ok((len_bytes, Self::Bytes(sha256)))
    }

    /// Reads a file and says what is wrong with its bytes.
    pub(super) fn check(self, path: &Path, len_bytes: u64) -> Result<(), String> {
        let wrong_len = |len: u64| Err(format!("it has {len} bytes, expected {len_bytes}"));
        let wrong = |got: Sha256, expected: Sha256| Err(format!("it has SHA-256 {got}, expected {expected}"));
        match self {
            Self::Bytes(expected) => match Sha256::of_file(path).map_err(|error| with_cause(&error))? {
                (len, _) if len != len_bytes => wrong_len(len),
                (_, got) if got != expected => wrong(got, expected),
                _ => Ok(()),
            },
            Self::Blocks(expected) => {
                let segment = Segment::open_any_by_calls(path).map_err(|error| with_cause(&error))?;
                let got = Sha256::of(segment.checksum_bytes());
                match segment.len_bytes() {
                    len if len != len_bytes => wrong_len(len),
                    _ if got != expected => wrong(got, expected),
                    _ => segment.verify_blocks(&mut |_| {}).map_err(|error| with_cause(&error)),
                }
            }
        }
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(sha256) => write!(f, "{sha256}"),
            Self::Blocks(sha256) => write!(f, "{BLOCKS}{sha256}"),
        }
    }
}

impl Contents {
    /// Bytes of all members.
    pub fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.len_bytes).sum()
    }

    /// Writes the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!(
            "pannier snapshot {VERSION}\nstore {}\ntimeline {}\nseq {}\nmembers {}\n",
            self.store_id,
            self.timeline,
            self.seq,
            self.members.len()
        );
        for member in &self.members {
            let written = writeln!(text, "{} {} {}", member.digest, member.len_bytes, member.path);
            written.expect("a string takes any text");
        }
        let digest = Sha256::of(text.as_bytes());
        text.push_str(&format!("end {digest}\n"));
        text.into_bytes()
    }

    /// Digest of the file: it names the state.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.encode())
    }

    /// Reads the file. Only what [`Contents::encode`] writes is accepted: whatever differs is damage.
    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |reason: &str| SnapshotError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let version = text.lines().next().and_then(|line| line.strip_prefix("pannier snapshot "));
        let version: u32 =
            version.and_then(|v| v.parse().ok()).ok_or_else(|| damaged("it does not begin as a snapshot does"))?;
        if version != VERSION {
            return Err(SnapshotError::Unsupported { path: path.to_owned(), found: version, supported: VERSION });
        }
        let end = text.len().checked_sub("end ".len() + 64 + 1).filter(|&at| text.is_char_boundary(at));
        let (body, end) = text.split_at(end.ok_or_else(|| damaged("it is cut"))?);
        if end != format!("end {}\n", Sha256::of(body.as_bytes())) {
            return Err(damaged("its digest does not fit"));
        }
        let contents = Self::parse(body).ok_or_else(|| damaged("a line is not what it should be"))?;
        match contents.encode() == bytes && contents.is_sound() {
            true => Ok(contents),
            false => Err(damaged("it contradicts itself")),
        }
    }

    fn parse(body: &str) -> Option<Self> {
        let mut lines = body.lines().skip(1);
        let store_id = u128::from_str_radix(lines.next()?.strip_prefix("store ")?, 16).ok()?;
        let timeline = lines.next()?.strip_prefix("timeline ")?.parse().ok()?;
        let seq = Seq(lines.next()?.strip_prefix("seq ")?.parse().ok()?);
        let count: usize = lines.next()?.strip_prefix("members ")?.parse().ok()?;
        let members: Vec<Member> = lines.map(parse_member).collect::<Option<_>>()?;
        (members.len() == count).then_some(Self { store_id: StoreId(store_id.to_be_bytes()), timeline, seq, members })
    }

    /// Members in ascending order, each a file that a store has, and those that every store has among them.
    fn is_sound(&self) -> bool {
        self.members.is_sorted_by(|a, b| a.path < b.path)
            && self.members.iter().all(|member| is_store_file(&member.path))
            && ["FORMAT", "MANIFEST"].iter().all(|name| self.members.iter().any(|member| member.path == *name))
            && self.members.iter().try_fold(0u64, |sum, member| sum.checked_add(member.len_bytes)).is_some()
            && self.timeline >= 1
            && self.seq.0 < 1 << 63
    }
}

fn parse_member(line: &str) -> Option<Member> {
    let (digest, rest) = line.split_once(' ')?;
    let (len, path) = rest.split_once(' ')?;
    let digest = match digest.strip_prefix(BLOCKS) {
        Some(blocks) => Digest::Blocks(Sha256::from_hex(blocks)?),
        None => Digest::Bytes(Sha256::from_hex(digest)?),
    };
    Some(Member { path: path.to_owned(), len_bytes: len.parse().ok()?, digest })
}

/// Whether a path below a snapshot is one that a store's own file can have, in the one spelling that we write.
pub(super) fn is_store_file(path: &str) -> bool {
    let paths = DataPaths::new("");
    let same = |expected: std::path::PathBuf| expected.to_str() == Some(path);
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["FORMAT" | "MANIFEST" | JOURNAL_FILE] => true,
        ["log", file] => {
            file.strip_suffix(".log").and_then(|seq| seq.parse().ok()).is_some_and(|s| same(paths.log_file(s)))
        }
        ["segments", collection, generation, file] => {
            let (Ok(collection), Ok(generation)) = (collection.parse(), generation.parse()) else { return false };
            match file.split('.').collect::<Vec<_>>()[..] {
                [id, "seg"] => id.parse().is_ok_and(|id| same(paths.segment_file(collection, generation, id))),
                [id, version, "dead"] => match (id.parse(), version.parse()) {
                    (Ok(id), Ok(version)) => same(paths.dead_file(collection, generation, id, version)),
                    _ => false,
                },
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Contents {
        let member = |path: &str, len_bytes| {
            let sha256 = Sha256::of(path.as_bytes());
            let digest = if path.ends_with(".seg") { Digest::Blocks(sha256) } else { Digest::Bytes(sha256) };
            Member { path: path.into(), len_bytes, digest }
        };
        Contents {
            store_id: StoreId(*b"0123456789abcdef"),
            timeline: 2,
            seq: Seq(17),
            members: vec![
                member("FORMAT", 40),
                member("MANIFEST", 300),
                member("log/00000000000000000009.log", 64),
                member("segments/1/1/3.2.dead", 52),
                member("segments/1/1/3.seg", 1_000),
            ],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Contents, SnapshotError> {
        Contents::decode(Path::new("SNAPSHOT"), bytes)
    }

    #[test]
    fn the_file_is_this_text() {
        let text = String::from_utf8(sample().encode()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["pannier snapshot 1", "store 30313233343536373839616263646566"]);
        assert_eq!(lines[2..5], ["timeline 2", "seq 17", "members 5"]);
        assert_eq!(lines[5], format!("{} 40 FORMAT", Sha256::of(b"FORMAT")));
        assert_eq!(lines[9], format!("blocks:{} 1000 segments/1/1/3.seg", Sha256::of(b"segments/1/1/3.seg")));
        assert_eq!(lines[10], format!("end {}", Sha256::of(&text.as_bytes()[..text.find("end ").unwrap()])));
        assert_eq!((decode(text.as_bytes()).unwrap(), sample().bytes()), (sample(), 1_456));
    }

    #[test]
    fn every_truncation_and_bit_flip_is_an_error() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_right_digest_does_not_let_a_wrong_path_in() {
        for path in [
            "../x",
            "/etc/passwd",
            "segments/1/1/../3.seg",
            "log/9.log",
            "segments/01/1/3.seg",
            "LOCK",
            "segments/1/1/3.seg/",
        ] {
            assert!(!is_store_file(path), "{path}");
            let mut contents = sample();
            contents.members.push(Member { path: path.into(), len_bytes: 1, digest: Digest::Bytes(Sha256([0; 32])) });
            contents.members.sort_by(|a, b| a.path.cmp(&b.path));
            assert!(decode(&contents.encode()).is_err(), "{path}");
        }
        let mut twice = sample();
        twice.members.push(twice.members[4].clone());
        assert!(decode(&twice.encode()).is_err());
        let mut without = sample();
        without.members.remove(1);
        assert!(decode(&without.encode()).is_err());
    }

    #[test]
    fn a_newer_version_is_named() {
        let text = String::from_utf8(sample().encode()).unwrap().replace("snapshot 1", "snapshot 2");
        assert!(matches!(decode(text.as_bytes()), Err(SnapshotError::Unsupported { found: 2, .. })));
    }
}
