//! Archives that somebody made to do harm, or that were damaged on the way.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::header::{BLOCK_BYTES, header, padding};
use super::{pack, unpack};
use crate::manifest::StoreId;
use crate::snapshot::{Contents, Digest, Member, Sha256, Snapshot, SnapshotError, SnapshotName};
use crate::types::Seq;

/// A member as bytes: header, contents, padding.
type Part = Vec<u8>;

fn part(header: [u8; BLOCK_BYTES], bytes: &[u8]) -> Part {
    [&header[..], bytes, &[0; BLOCK_BYTES][..padding(bytes.len() as u64)]].concat()
}

fn good(path: &str, bytes: &[u8]) -> Part {
    part(header(path, bytes.len() as u64), bytes)
}

/// A member with a header of any kind.
fn strange(path: &str, kind: EntryType, bytes: &[u8]) -> Part {
    let mut header = Header::from_byte_slice(&header("FORMAT", bytes.len() as u64)).clone();
    header.as_mut_bytes()[..100].fill(0);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    if kind == EntryType::Symlink || kind == EntryType::Link {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    part(*header.as_bytes(), bytes)
}

const FILES: [(&str, &[u8]); 3] =
    [("FORMAT", b"a format"), ("MANIFEST", &[7; 700]), ("segments/1/1/1.seg", &[9; 1_300])];

fn contents() -> Contents {
    let member = |&(path, bytes): &(&str, &[u8])| Member {
        path: path.into(),
        len_bytes: bytes.len() as u64,
        digest: Digest::Bytes(Sha256::of(bytes)),
    };
    Contents { store_id: StoreId([1; 16]), timeline: 1, seq: Seq(5), members: FILES.iter().map(member).collect() }
}

/// `SNAPSHOT` and the three members, each as a part.
fn parts() -> Vec<Part> {
    let mut parts = vec![good("SNAPSHOT", &contents().encode())];
    parts.extend(FILES.iter().map(|(path, bytes)| good(path, bytes)));
    parts
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn archive(parts: &[Part]) -> Vec<u8> {
    compress(&[parts.concat(), vec![0; 2 * BLOCK_BYTES]].concat())
}

fn read(bytes: &[u8]) -> Result<(), SnapshotError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.tar.zst");
    fs::write(&file, bytes).unwrap();
    let into = dir.path().join("into");
    let result = unpack(&file, &into, &mut |_, _| {});
    let mut outside = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
    assert!(outside.all(|name| name == "a.tar.zst" || name == "into"), "something was written outside");
    result.map(drop)
}

#[track_caller]
fn refused(bytes: &[u8], member: &str, words: &str) {
    match read(bytes) {
        Err(SnapshotError::Refused { member: named, reason, .. }) => {
            assert!(named == member && reason.contains(words), "{named:?} {reason}");
        }
        other => panic!("{member:?} {words}: {other:?}"),
    }
}

#[track_caller]
fn bad(bytes: &[u8], words: &str) {
    match read(bytes) {
        Err(SnapshotError::BadArchive { reason, .. }) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{words}: {other:?}"),
    }
}

fn store_in(dir: &Path) -> Snapshot {
    for (path, bytes) in FILES {
        let path: PathBuf = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let name = SnapshotName::new("a").unwrap();
    Snapshot { name, home: dir.to_owned(), created_at_ms: 0, contents: contents() }
}

#[test]
fn what_is_packed_is_unpacked_and_is_a_plain_tar() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = store_in(&dir.path().join("home"));
    let file = dir.path().join("a.tar.zst");
    pack(&snapshot, &file, &mut |_, _| {}).unwrap();
    let tar = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
    assert_eq!(tar, [parts().concat(), vec![0; 2 * BLOCK_BYTES]].concat());
    let names: Vec<String> = tar::Archive::new(&tar[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["SNAPSHOT", "FORMAT", "MANIFEST", "segments/1/1/1.seg"]);
    let into = dir.path().join("into");
    assert_eq!(unpack(&file, &into, &mut |_, _| {}).unwrap().contents, snapshot.contents);
    for (path, bytes) in FILES {
        assert_eq!(fs::read(into.join(path)).unwrap(), bytes);
    }
    for other in ["FORMAT", "MANIFEST"].map(|name| snapshot.home.join(name)) {
        let before = fs::read(&other).unwrap();
        let packed = pack(&snapshot, &other, &mut |_, _| {});
        assert!(matches!(packed, Err(SnapshotError::FileExists { .. })) && fs::read(&other).unwrap() == before);
    }
}

#[test]
fn a_damaged_member_is_not_packed() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = store_in(&dir.path().join("home"));
    let file = dir.path().join("a.tar.zst");
    for bytes in [&b"a formaT"[..], b"a form", b"a format of more"] {
        fs::write(snapshot.home.join("FORMAT"), bytes).unwrap();
        let packed = pack(&snapshot, &file, &mut |_, _| {});
        assert!(bytes.len() > 8 || matches!(packed, Err(SnapshotError::Damaged { .. })), "{packed:?}");
        assert!(packed.is_ok() || !file.exists());
        _ = fs::remove_file(&file);
    }
}

#[test]
fn members_that_lead_elsewhere_are_refused_by_name() {
    let with = |part: Part| {
        let mut parts = parts();
        parts.insert(2, part);
        archive(&parts)
    };
    for path in ["../x", "/etc/cron.d/x", "segments/../../x", "segments\\..\\x"] {
        refused(&with(strange(path, EntryType::Regular, b"x")), path, "leads out");
    }
    for (kind, words) in [
        (EntryType::Symlink, "is a link"),
        (EntryType::Link, "is a link"),
        (EntryType::Char, "is a device"),
        (EntryType::Block, "is a device"),
        (EntryType::Fifo, "is a device"),
        (EntryType::Directory, "is a directory"),
        (EntryType::GNULongName, "of a kind"),
        (EntryType::XHeader, "of a kind"),
        (EntryType::GNUSparse, "of a kind"),
    ] {
        refused(&with(strange("MANIFEST", kind, b"")), "MANIFEST", words);
    }
    refused(&with(good("FORMAT", b"a format")), "FORMAT", "stands twice");
    refused(&with(good("log/00000000000000000001.log", b"x")), "log/00000000000000000001.log", "not listed");
    refused(&with(good("segments/1/1/1.seg", &[9; 1_300])), "segments/1/1/1.seg", "comes before MANIFEST");
    refused(&with(good("MANIFEST", &[7; 701])), "MANIFEST", "is not 700 bytes long");
    refused(&with(good("MANIFEST", &[8; 700])), "MANIFEST", "has SHA-256");
    let mut late = parts();
    late.push(good("FORMAT", b"a format"));
    refused(&archive(&late), "FORMAT", "stands twice");
    let mut setuid = parts();
    let mut header = Header::from_byte_slice(&header("FORMAT", 8)).clone();
    header.set_mode(0o4755);
    header.set_cksum();
    setuid[1] = part(*header.as_bytes(), b"a format");
    refused(&archive(&setuid), "FORMAT", "does not write");
    let mut hidden = parts();
    *hidden[1].last_mut().unwrap() = 1;
    refused(&archive(&hidden), "FORMAT", "not zero");
    refused(&archive(&parts()[1..]), "FORMAT", "where SNAPSHOT should");
    refused(&archive(&[good("SNAPSHOT", b"nonsense")]), "SNAPSHOT", "is damaged");
}

#[test]
fn cut_and_lengthened_archives_are_refused() {
    let whole = archive(&parts());
    assert!(read(&whole).is_ok());
    for len in 0..whole.len() {
        assert!(read(&whole[..len]).is_err(), "{len}");
    }
    bad(&[&whole[..], b"x"].concat(), "bytes follow the archive");
    bad(&[&whole[..], &whole[..]].concat(), "bytes follow the archive");
    bad(&compress(&[parts().concat(), vec![0; 3 * BLOCK_BYTES]].concat()), "bytes follow the last member");
    bad(&archive(&parts()[..3]), "before member \"segments/1/1/1.seg\"");
    bad(&compress(&parts().concat()), "it ends");
    bad(b"not zstd at all, and long enough to be looked at", "compression is broken");
}

#[test]
fn flipped_bits_are_refused_or_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.tar.zst");
    pack(&store_in(&dir.path().join("home")), &file, &mut |_, _| {}).unwrap();
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        // Every member is compared with its digest, so what is accepted is right.
        drop(read(&flipped));
    }
}

#[test]
fn bombs_are_refused_before_anything_is_written() {
    let mut contents = contents();
    contents.members[2].len_bytes = 1 << 40;
    bad(&archive(&[good("SNAPSHOT", &contents.encode())]), "claim to unpack to 10995");
    // Zeros by the gigabyte, in a few kilobytes.
    let listing = strange("SNAPSHOT", EntryType::Regular, &[]);
    let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    let mut block = Header::from_byte_slice(listing[..BLOCK_BYTES].try_into().unwrap()).clone();
    block.set_size(1 << 40);
    block.set_cksum();
    bomb.write_all(block.as_bytes()).unwrap();
    bomb.write_all(&vec![0; 64 << 20]).unwrap();
    refused(&bomb.finish().unwrap(), "SNAPSHOT", "longer than any");
}
