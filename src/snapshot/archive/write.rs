//! Writing an archive.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use rayon::prelude::*;
use zstd::stream::write::Encoder;

use crate::manifest::SNAPSHOT_FILE;
use crate::storage::{Publishing, StorageError};

use super::super::digest::Hashing;
use super::super::{Contents, Digest, Member, Sha256, Snapshot, SnapshotError};
use super::header::{BLOCK_BYTES, header, padding};

/// zstd's default. A higher one costs much time for vectors, which hardly compress.
const LEVEL: i32 = 3;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the members.
    pub bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
}

/// Writes a snapshot as an archive at `file`, over what stands there. Every member is checked on the way. `progress`
/// gets the bytes done and the bytes in all.
///
/// # Errors
/// [`SnapshotError::Damaged`] when a member is not what the snapshot says, [`SnapshotError::Storage`]; what stood at
/// `file` is then still there.
pub fn pack(snapshot: &Snapshot, file: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Packed, SnapshotError> {
    let fail = |e| SnapshotError::from(StorageError::io(file, "write", e));
    if file.symlink_metadata().is_ok() {
        return Err(SnapshotError::FileExists { path: file.to_owned() });
    }
    let mut out = Encoder::new(Publishing::create_outside(file)?, LEVEL).map_err(fail)?;
    out.include_checksum(true).map_err(fail)?;
    let contents = in_full(snapshot)?;
    let listing = contents.encode();
    let total = contents.bytes();
    write_header(&mut out, SNAPSHOT_FILE, listing.len() as u64).map_err(fail)?;
    out.write_all(&listing).and_then(|()| pad(&mut out, listing.len() as u64)).map_err(fail)?;
    let mut done = 0;
    for member in &contents.members {
        write_header(&mut out, &member.path, member.len_bytes).map_err(fail)?;
        copy_member(snapshot, member, &mut out, file)?;
        pad(&mut out, member.len_bytes).map_err(fail)?;
        done += member.len_bytes;
        progress(done, total);
    }
    out.write_all(&[0; 2 * BLOCK_BYTES]).map_err(fail)?;
    let mut publishing = out.finish().map_err(fail)?;
    publishing.flush().map_err(fail)?;
    let archive_bytes = publishing.position();
    publishing.commit()?;
    Ok(Packed { bytes: total, archive_bytes })
}

fn write_header(out: &mut impl Write, path: &str, len_bytes: u64) -> io::Result<()> {
    out.write_all(&header(path, len_bytes))
}

fn pad(out: &mut impl Write, len_bytes: u64) -> io::Result<()> {
    out.write_all(&[0; BLOCK_BYTES][..padding(len_bytes)])
}

fn copy_member(
    snapshot: &Snapshot,
    member: &Member,
    out: &mut impl Write,
    archive: &Path,
) -> Result<(), SnapshotError> {
    let path = snapshot.home.join(&member.path);
    let file = File::open(&path).map_err(|e| StorageError::io(&path, "open", e))?;
    let mut hashing = Hashing::new(out);
    // No more than the header promises, or the next header would stand in the wrong place.
    io::copy(&mut file.take(member.len_bytes), &mut hashing).map_err(|e| StorageError::io(archive, "write", e))?;
    let (len, sha256) = hashing.finish();
    match len == member.len_bytes && Digest::Bytes(sha256) == member.digest {
        true => Ok(()),
        false => {
            let reason = format!("it has {len} bytes and SHA-256 {sha256}, expected {}", member.digest);
            Err(SnapshotError::Damaged { path, reason })
        }
    }
}

/// The contents with a digest of the bytes of every member. What had another was checked against that.
fn in_full(snapshot: &Snapshot) -> Result<Contents, SnapshotError> {
    let of_bytes = |member: &Member| {
        let path = snapshot.home.join(&member.path);
        if matches!(member.digest, Digest::Bytes(_)) {
            return Ok(member.clone());
        }
        if let Err(reason) = member.digest.check(&path, member.len_bytes) {
            return Err(SnapshotError::Damaged { path, reason });
        }
        let (len_bytes, sha256) = Sha256::of_file(&path)?;
        Ok(Member { path: member.path.clone(), len_bytes, digest: Digest::Bytes(sha256) })
    };
    let members = snapshot.contents.members.par_iter().map(of_bytes).collect::<Result<_, _>>()?;
    Ok(Contents { members, ..snapshot.contents.clone() })
}
