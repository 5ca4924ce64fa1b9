//! Reads the log back in order, checks all of it, and cuts a torn tail.

use std::ops::Range;
use std::path::Path;

use super::files::{self, LogFile};
use super::format::{FILE_HEADER_BYTES, FILE_VERSION, FileHeader, LogIdentity, PAYLOAD_VERSION, RecordHeader};
use super::newest;
use super::payload::{self, PayloadError};
use super::survey::{damaged_ranges, is_torn, record_at};
use super::{Change, LogError};
use crate::storage::{AppendFile, DataPaths, WholeFile, crc32c};
use crate::types::Seq;

/// What is asked of the log, and what the rest of the store has seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFrom {
    /// Changes after this one are visited; older ones are checked, and may be gone.
    pub after: Seq,
    /// The highest seq that any other file names; a log that ends before it is refused, not taken for a short one.
    pub at_least: Seq,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Seq of the last change.
    pub last_seq: Seq,
    /// Changes visited.
    pub changes: u64,
    /// Bytes that a crash had left at the end and that were cut; no write in them was ever answered.
    pub torn_bytes: u64,
    /// Log files.
    pub files: usize,
    /// Their bytes, after the cut.
    pub len_bytes: u64,
    /// Where writing goes on; `None` for a log without files.
    pub end: Option<LogEnd>,
}

/// The end of the newest file, as the writer needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEnd {
    pub(super) first_seq: Seq,
    pub(super) tag: u32,
    pub(super) len: u64,
    /// crc32c of the whole file.
    pub(super) crc: u32,
    /// Where the last group begins; `len` where there is none.
    pub(super) last_group: u64,
}

/// Reads the log of the store `identity` and gives each change after `from.after` to `visit`, in order.
///
/// All of it is checked, also what is not visited. One file is in memory at a time: a map of one on a disk that fails
/// would end the process without a word. Call it under the directory's lock and before a [`super::LogWriter`] is
/// opened.
///
/// # Errors
/// A [`LogError`] that names the file and the offset, or what `visit` returned; no file was changed then.
pub fn read_from<E: From<LogError>>(
    paths: &DataPaths,
    identity: LogIdentity,
    from: ReadFrom,
    visit: &mut dyn FnMut(Seq, Change) -> Result<(), E>,
) -> Result<Recovery, E> {
    let files = files::list(paths)?;
    let durable_len = newest::check(paths, &files)?;
    let first_needed = from.after.next();
    if files.first().map_or(from.after.max(from.at_least) > Seq(0), |file| file.first_seq > first_needed) {
        return Err(LogError::Missing { seq: first_needed, path: paths.log_file(first_needed.0) }.into());
    }
    let mut recovery = Recovery { files: files.len(), ..Recovery::default() };
    let mut previous: Option<&LogFile> = None;
    let mut torn = None;
    for (index, file) in files.iter().enumerate() {
        let whole = read_whole(&file.path)?;
        let bytes = &whole[..];
        let header = check_header(file, bytes, identity, previous.zip(recovery.end.as_ref()))?;
        if previous.is_none() {
            recovery.last_seq = Seq(file.first_seq.0 - 1);
        } else if file.first_seq != recovery.last_seq.next() {
            let reason = format!("it follows change {}", recovery.last_seq);
            return Err(LogError::BadHeader { path: file.path.clone(), reason }.into());
        }
        let mut records = Records { file: &file.path, bytes, tag: header.1, last_group: None };
        let end = records.read(&mut recovery, from.after, visit)?;
        if end < bytes.len() {
            records.check_torn(end, recovery.last_seq.next(), index + 1 == files.len())?;
            torn = Some(end as u64);
            recovery.torn_bytes = (bytes.len() - end) as u64;
        }
        recovery.len_bytes += end as u64;
        recovery.end = Some(LogEnd {
            first_seq: file.first_seq,
            tag: header.1,
            len: end as u64,
            crc: crc32c(&bytes[..end]),
            last_group: records.last_group.unwrap_or(end) as u64,
        });
        previous = Some(file);
    }
    let Some(newest) = files.last() else { return Ok(recovery) };
    if recovery.last_seq < from.at_least {
        let (path, last_seq, seen) = (newest.path.clone(), recovery.last_seq, from.at_least);
        return Err(LogError::CutShort { path, last_seq, seen }.into());
    }
    let len = recovery.end.as_ref().map_or(0, |end| end.len);
    newest::check_len(&newest.path, len, durable_len)?;
    if let Some(len) = torn {
        AppendFile::open(&newest.path).and_then(|mut file| file.truncate(len)).map_err(LogError::from)?;
        let torn_bytes = recovery.torn_bytes;
        tracing::warn!(path = %newest.path.display(), torn_bytes, "cut an unfinished write from the end of the log");
    }
    Ok(recovery)
}

/// A file, all of which can be read.
///
/// # Errors
/// [`LogError::Damaged`] with what cannot be read: no tail that a crash has torn, which may be cut.
pub(super) fn read_whole(path: &Path) -> Result<Vec<u8>, LogError> {
    let WholeFile { bytes, unreadable } = WholeFile::read(path)?;
    let Some(first) = unreadable.first() else { return Ok(bytes) };
    let (offset, reason) = (first.bytes.start, "the disk does not give it back");
    let ranges = unreadable.into_iter().map(|part| part.bytes).collect();
    Err(LogError::Damaged { path: path.to_owned(), offset, reason, ranges })
}

/// Checks that a file is whose it should be and follows the one before it. Returns its header and tag.
fn check_header(
    file: &LogFile,
    bytes: &[u8],
    identity: LogIdentity,
    previous: Option<(&LogFile, &LogEnd)>,
) -> Result<(FileHeader, u32), LogError> {
    let path = || file.path.clone();
    let (header, tag) = FileHeader::decode(&file.path, bytes)?;
    if header.identity.store_id != identity.store_id {
        let hex = |id: [u8; 16]| format!("{:032x}", u128::from_be_bytes(id));
        let (found, expected) = (hex(header.identity.store_id), hex(identity.store_id));
        return Err(LogError::Foreign { path: path(), what: "store", found, expected });
    }
    if header.identity.timeline != identity.timeline {
        let (found, expected) = (header.identity.timeline.to_string(), identity.timeline.to_string());
        return Err(LogError::Foreign { path: path(), what: "timeline", found, expected });
    }
    if header.first_seq != file.first_seq || !(Seq(1)..Seq::END).contains(&header.first_seq) {
        let reason = format!("its header says that it begins with change {}", header.first_seq);
        return Err(LogError::BadHeader { path: path(), reason });
    }
    if let Some((earlier, end)) = previous
        && (header.previous_len, header.previous_crc) != (end.len, end.crc)
    {
        return Err(LogError::BrokenChain {
            path: path(),
            previous: earlier.path.clone(),
            expected_len: header.previous_len,
            expected_crc: header.previous_crc,
            got_len: end.len,
            got_crc: end.crc,
        });
    }
    Ok((header, tag))
}

/// The records of one file.
struct Records<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    tag: u32,
    /// Where the last group begins.
    last_group: Option<usize>,
}

impl Records<'_> {
    /// Reads records until the end or the first that cannot be read; returns its offset.
    fn read<E: From<LogError>>(
        &mut self,
        recovery: &mut Recovery,
        after: Seq,
        visit: &mut dyn FnMut(Seq, Change) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut offset = FILE_HEADER_BYTES;
        while offset < self.bytes.len() {
            let Ok((header, payload)) = record_at(self.bytes, offset, self.tag) else { break };
            if header.seq != recovery.last_seq.next() {
                return Err(self.damaged(offset, "a record has the wrong seq").into());
            }
            if header.group_index == 0 || self.last_group.is_none() {
                self.last_group = Some(offset);
            }
            if header.seq > after {
                visit(header.seq, decode_record(self.file, offset, &header, payload)?)?;
                recovery.changes += 1;
            }
            recovery.last_seq = header.seq;
            offset += header.record_bytes();
        }
        Ok(offset)
    }

    /// Decides whether the bytes from `offset` on may be cut.
    fn check_torn(&self, offset: usize, expected: Seq, newest: bool) -> Result<(), LogError> {
        if newest && is_torn(self.bytes, offset, self.tag, expected) {
            return Ok(());
        }
        let reason = record_at(self.bytes, offset, self.tag).err().unwrap_or("a record has the wrong seq");
        Err(self.damaged(offset, reason))
    }

    fn damaged(&self, offset: usize, reason: &'static str) -> LogError {
        let mut ranges: Vec<Range<u64>> = damaged_ranges(self.bytes, offset, self.tag);
        if ranges.is_empty() {
            // Readable and yet wrong: the record's place is all there is to name.
            ranges.push(offset as u64..self.bytes.len() as u64);
        }
        LogError::Damaged { path: self.file.to_owned(), offset: offset as u64, reason, ranges }
    }
}

/// The change of a record whose checksums are right.
///
/// # Errors
/// [`LogError::Unsupported`], [`LogError::Malformed`].
pub(super) fn decode_record(
    path: &Path,
    offset: usize,
    header: &RecordHeader,
    payload: &[u8],
) -> Result<Change, LogError> {
    let path = path.to_owned();
    payload::decode(header.payload_version, header.kind, payload).map_err(|error| match error {
        PayloadError::Version(found) => LogError::Unsupported {
            path,
            what: "payload version",
            found: u32::from(found),
            supported: u32::from(PAYLOAD_VERSION),
        },
        PayloadError::Kind(found) => {
            let reason = format!("its kind is {found}, log format version {FILE_VERSION} has none such");
            LogError::Malformed { path, offset: offset as u64, seq: header.seq, reason }
        }
        PayloadError::Malformed(reason) => LogError::Malformed { path, offset: offset as u64, seq: header.seq, reason },
    })
}
