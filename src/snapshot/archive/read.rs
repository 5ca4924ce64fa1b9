//! Reading an archive that anybody may have made.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use jiff::Timestamp;
use zstd::stream::read::Decoder;

use crate::manifest::SNAPSHOT_FILE;
use crate::storage::{Publishing, StorageError, create_dir_all, disk_free, publish};

use super::super::contents::MAX_BYTES;
use super::super::digest::Hashing;
use super::super::list::CREATED_FILE;
use super::super::{Contents, Digest, Member, Snapshot, SnapshotError, SnapshotName};
use super::header::{BLOCK_BYTES, fault, header, name_and_size, padding};

/// zstd's own limit for streams: 128 MiB of memory for its window.
const MAX_WINDOW_LOG: u32 = 27;
/// An archive unpacks to at most so many times its own bytes. Documents reach 20, zeros reach 30,000.
const MAX_RATIO: u64 = 2_000;
/// Small archives may exceed the ratio by so much.
const RATIO_SLACK_BYTES: u64 = 1 << 20;
const COPY_BYTES: u64 = 1 << 20;

/// Unpacks an archive into the new directory `into`, as a snapshot. `progress` gets the bytes done and the bytes in
/// all.
///
/// # Errors
/// [`SnapshotError::Refused`] and [`SnapshotError::BadArchive`] for whatever [`super::pack`] would not have written;
/// [`SnapshotError::NoRoom`]; [`SnapshotError::Storage`]. What was unpacked so far stays for the caller to remove.
pub fn unpack(archive: &Path, into: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Snapshot, SnapshotError> {
    create_dir_all(into)?;
    let contents = read_all(archive, Some(into), progress)?;
    publish(&into.join(SNAPSHOT_FILE), &contents.encode())?;
    let created_at_ms = Timestamp::now().as_millisecond();
    publish(&into.join(CREATED_FILE), format!("{created_at_ms}\n").as_bytes())?;
    let name = SnapshotName::new("archive").expect("the name is a constant");
    Ok(Snapshot { name, home: into.to_owned(), created_at_ms, contents })
}

/// Reads an archive as [`unpack`] does, and writes nothing.
///
/// # Errors
/// As [`unpack`].
pub fn check(archive: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Contents, SnapshotError> {
    read_all(archive, None, progress)
}

fn read_all(
    archive: &Path,
    into: Option<&Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Contents, SnapshotError> {
    let file = File::open(archive).map_err(|e| StorageError::io(archive, "open", e))?;
    let archive_bytes = file.metadata().map_err(|e| StorageError::io(archive, "read the length of", e))?.len();
    read_members(Input::new(archive, file)?, archive_bytes, into, progress)
}

/// Reads an archive of so many bytes, whatever it comes from.
pub(super) fn read_members<R: Read>(
    mut input: Input<'_, R>,
    archive_bytes: u64,
    into: Option<&Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Contents, SnapshotError> {
    let archive = input.path;
    let contents = input.contents()?;
    check_size(archive, archive_bytes, into, contents.bytes())?;
    let lengths: BTreeMap<&str, u64> = contents.members.iter().map(|m| (m.path.as_str(), m.len_bytes)).collect();
    let mut done = 0;
    for member in &contents.members {
        let block = input.block(&member.path)?;
        if block != header(&member.path, member.len_bytes) {
            return Err(input.refused(&block, Some(&member.path), &lengths));
        }
        input.member(member, into)?;
        done += member.len_bytes;
        progress(done, contents.bytes());
    }
    input.end(&lengths)?;
    drop(lengths);
    Ok(contents)
}

fn check_size(archive: &Path, archive_bytes: u64, into: Option<&Path>, needed: u64) -> Result<(), SnapshotError> {
    if needed > archive_bytes.saturating_mul(MAX_RATIO).saturating_add(RATIO_SLACK_BYTES) {
        let reason = format!("{archive_bytes} bytes claim to unpack to {needed}, more than {MAX_RATIO} times as many");
        return Err(SnapshotError::BadArchive { path: archive.to_owned(), reason });
    }
    let free = into.map(disk_free).transpose()?.unwrap_or(u64::MAX);
    if needed > free {
        return Err(SnapshotError::NoRoom { path: archive.to_owned(), needed, free });
    }
    Ok(())
}

/// An archive's bytes, unpacked as they are asked for.
pub(super) struct Input<'a, R: Read> {
    path: &'a Path,
    stream: Decoder<'static, BufReader<R>>,
    /// The member read last: members come in ascending order.
    last: String,
}

impl<'a, R: Read> Input<'a, R> {
    pub(super) fn new(path: &'a Path, file: R) -> Result<Self, SnapshotError> {
        let fail = |e| SnapshotError::from(StorageError::io(path, "read", e));
        let mut stream = Decoder::with_buffer(BufReader::new(file)).map_err(fail)?.single_frame();
        stream.window_log_max(MAX_WINDOW_LOG).map_err(fail)?;
        Ok(Self { path, stream, last: String::new() })
    }

    fn bad(&self, reason: impl Into<String>) -> SnapshotError {
        SnapshotError::BadArchive { path: self.path.to_owned(), reason: reason.into() }
    }

    fn refuse(&self, member: &str, reason: impl Into<String>) -> SnapshotError {
        SnapshotError::Refused { path: self.path.to_owned(), member: member.to_owned(), reason: reason.into() }
    }

    fn refused(
        &self,
        block: &[u8; BLOCK_BYTES],
        expected: Option<&str>,
        lengths: &BTreeMap<&str, u64>,
    ) -> SnapshotError {
        if block == &[0; BLOCK_BYTES] {
            return self.bad(format!("it ends before member {:?}", expected.unwrap_or_default()));
        }
        let done = |name: &str| !self.last.is_empty() && name <= self.last.as_str();
        let (member, reason) = fault(block, expected, lengths, done);
        self.refuse(&member, reason)
    }

    fn fill(&mut self, bytes: &mut [u8], member: &str) -> Result<(), SnapshotError> {
        self.stream.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.bad(format!("it ends within or before member {member:?}")),
            _ => self.bad(format!("its compression is broken within or before member {member:?}: {error}")),
        })
    }

    fn block(&mut self, member: &str) -> Result<[u8; BLOCK_BYTES], SnapshotError> {
        let mut block = [0; BLOCK_BYTES];
        self.fill(&mut block, member)?;
        Ok(block)
    }

    fn padding(&mut self, member: &str, len_bytes: u64) -> Result<(), SnapshotError> {
        let mut zeros = [0; BLOCK_BYTES];
        let zeros = &mut zeros[..padding(len_bytes)];
        self.fill(zeros, member)?;
        match zeros.iter().all(|&byte| byte == 0) {
            true => Ok(()),
            false => Err(self.refuse(member, "is followed by bytes that are not zero")),
        }
    }

    /// The first member, which lists the others.
    fn contents(&mut self) -> Result<Contents, SnapshotError> {
        let block = self.block(SNAPSHOT_FILE)?;
        let (name, size) = name_and_size(&block);
        let Some(len_bytes) = size.filter(|&size| size <= MAX_BYTES && block == header(SNAPSHOT_FILE, size)) else {
            return Err(match name == SNAPSHOT_FILE {
                true => self
                    .refuse(&name, "is longer than any snapshot's, or has a header that this program does not write"),
                false => self.refuse(&name, "stands where SNAPSHOT should"),
            });
        };
        let mut bytes = vec![0; len_bytes as usize];
        self.fill(&mut bytes, SNAPSHOT_FILE)?;
        self.padding(SNAPSHOT_FILE, len_bytes)?;
        Contents::decode(&self.path.join(SNAPSHOT_FILE), &bytes).map_err(|error| match error {
            SnapshotError::Damaged { reason, .. } => self.refuse(SNAPSHOT_FILE, format!("is damaged: {reason}")),
            other => other,
        })
    }

    /// Reads a member's bytes, and writes them to their place where there is one.
    fn member(&mut self, member: &Member, into: Option<&Path>) -> Result<(), SnapshotError> {
        match into {
            None => self.copy_member(member, &mut io::sink(), Path::new(&member.path))?,
            Some(into) => {
                let target = into.join(&member.path);
                create_dir_all(target.parent().unwrap_or(into))?;
                let mut publishing = Publishing::create(&target)?;
                self.copy_member(member, &mut publishing, &target)?;
                publishing.commit()?;
            }
        }
        self.last.clone_from(&member.path);
        Ok(())
    }

    fn copy_member(&mut self, member: &Member, out: &mut impl Write, target: &Path) -> Result<(), SnapshotError> {
        let mut hashing = Hashing::new(out);
        let mut left = member.len_bytes;
        let mut buffer = vec![0; left.min(COPY_BYTES) as usize];
        while left > 0 {
            let part = &mut buffer[..left.min(COPY_BYTES) as usize];
            self.fill(part, &member.path)?;
            hashing.write_all(part).map_err(|e| StorageError::io(target, "write", e))?;
            left -= part.len() as u64;
        }
        let (_, sha256) = hashing.finish();
        if Digest::Bytes(sha256) != member.digest {
            return Err(self.refuse(&member.path, format!("has SHA-256 {sha256}, SNAPSHOT says {}", member.digest)));
        }
        self.padding(&member.path, member.len_bytes)
    }

    /// Two blocks of zeros, the frame's end, the file's end.
    fn end(mut self, lengths: &BTreeMap<&str, u64>) -> Result<(), SnapshotError> {
        for _ in 0..2 {
            let block = self.block("after the last")?;
            if block != [0; BLOCK_BYTES] {
                return Err(self.refused(&block, None, lengths));
            }
        }
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(self.bad("bytes follow the last member")),
            Err(error) => return Err(self.bad(format!("its compression is broken at the end: {error}"))),
        }
        let path = self.path;
        let mut rest = self.stream.finish();
        match rest.fill_buf().map_err(|e| StorageError::io(path, "read", e))? {
            [] => Ok(()),
            _ => {
                Err(SnapshotError::BadArchive { path: path.to_owned(), reason: "bytes follow the archive".to_owned() })
            }
        }
    }
}
