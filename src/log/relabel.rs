//! The log of another timeline: the same records behind headers that name it.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::LogError;
use super::files::{self, LogFile};
use super::format::{FILE_HEADER_BYTES, FileHeader, LogIdentity, RECORD_HEADER_BYTES, RecordHeader};
use super::newest::{self, Mark};
use super::reader::read_whole;
use super::survey::{is_torn, record_at};
use crate::storage::{DataPaths, Publishing, ReadOnlyFile, StorageError, crc32c_append, create_dir_all, publish};
use crate::types::Seq;

/// The log files to which nothing is added any more and that hold changes after `after`, oldest first, and the last
/// change that can be in them. Files that are named here never change; trimming may remove them.
///
/// # Errors
/// [`LogError::Storage`].
pub fn closed_files(paths: &DataPaths, after: Seq) -> Result<(Vec<PathBuf>, Seq), LogError> {
    let files = files::list(paths)?;
    let last = files.last().map_or(Seq(0), |newest| Seq(newest.first_seq.0.saturating_sub(1)));
    let needed = files.windows(2).filter(|pair| pair[1].first_seq > after.next());
    Ok((needed.map(|pair| pair[0].path.clone()).collect(), last))
}

/// Copies the newest log file as far as whole records stand in it, to its place below `to`. Returns its path and its
/// last change; nothing where there is no log.
///
/// # Errors
/// [`LogError::Damaged`] when something else than an unfinished write follows them, or changes that were durable when
/// the log was last opened or closed are gone from it; [`LogError::Missing`] when the whole file is.
pub fn copy_open_end(from: &DataPaths, to: &DataPaths) -> Result<Option<(PathBuf, Seq)>, LogError> {
    let mut files = files::list(from)?;
    let durable_len = newest::check(from, &files)?;
    let Some(newest) = files.pop() else { return Ok(None) };
    let bytes = &read_whole(&newest.path)?[..];
    let Closed { header, tag, .. } = Closed::new(&newest.path, bytes)?;
    let (mut offset, mut next) = (FILE_HEADER_BYTES, header.first_seq);
    while offset < bytes.len() {
        let Ok((record, _)) = record_at(bytes, offset, tag) else { break };
        if record.seq >= Seq::END {
            return Err(damaged(&newest.path, offset, bytes.len(), "a record has the wrong seq"));
        }
        (offset, next) = (offset + record.record_bytes(), record.seq.next());
    }
    if offset < bytes.len() && !is_torn(bytes, offset, tag, next) {
        return Err(damaged(&newest.path, offset, bytes.len(), "a record cannot be read"));
    }
    newest::check_len(&newest.path, offset as u64, durable_len)?;
    create_dir_all(&to.log_dir())?;
    publish(&to.log_file(newest.first_seq.0), &bytes[..offset])?;
    Ok(Some((newest.path, Seq(next.0.saturating_sub(1)))))
}

/// The newest timeline of this store that the headers of the log's files name. Files that cannot be read are passed
/// over.
pub fn newest_timeline(paths: &DataPaths, store_id: [u8; 16]) -> Option<u32> {
    let timeline = |file: LogFile| {
        let mut bytes = [0; FILE_HEADER_BYTES];
        ReadOnlyFile::open(&file.path).and_then(|opened| opened.read_exact_at(0, &mut bytes)).ok()?;
        let (header, _) = FileHeader::decode(&file.path, &bytes).ok()?;
        (header.identity.store_id == store_id).then_some(header.identity.timeline)
    };
    files::list(paths).ok()?.into_iter().filter_map(timeline).max()
}

/// Checks that a log which belongs to `identity` can be restored: that it holds every change after `after` up to
/// `last_seq`, where it ends, and that each record's checksums are right.
///
/// # Errors
/// A [`LogError`] that names the file that is not sound.
pub fn check(paths: &DataPaths, identity: LogIdentity, after: Seq, last_seq: Seq) -> Result<(), LogError> {
    let mut first = last_seq.next();
    each_file(paths, identity, last_seq, &mut |file| {
        first = first.min(file.header.first_seq);
        file.each_record(&mut |_, _| Ok(()))
    })?;
    let needed = after.next();
    if first > needed {
        return Err(LogError::Missing { seq: needed, path: paths.log_file(needed.0) });
    }
    Ok(())
}

/// Writes the log of `from`, which belongs to `identity` and ends with change `last_seq`, as the log of `to` in
/// `timeline`. A log without records becomes one whose next change follows `last_seq`.
///
/// # Errors
/// A [`LogError`] that names the file that is not sound; what was written so far stays.
pub fn relabel(
    from: &DataPaths,
    identity: LogIdentity,
    to: &DataPaths,
    timeline: u32,
    last_seq: Seq,
) -> Result<(), LogError> {
    create_dir_all(&to.log_dir())?;
    let identity_of_new = LogIdentity { timeline, ..identity };
    let (mut previous, mut newest) = ((0, 0), None);
    each_file(from, identity, last_seq, &mut |file| {
        let header = FileHeader {
            identity: identity_of_new,
            first_seq: file.header.first_seq,
            previous_len: previous.0,
            previous_crc: previous.1,
        };
        let (crc, after) = write_file(&file, &to.log_file(header.first_seq.0), &header)?;
        previous = (file.bytes.len() as u64, crc);
        newest = Some(Mark { first_seq: header.first_seq, len: previous.0 });
        Ok(after)
    })?;
    let mark = match newest {
        Some(mark) => mark,
        None => {
            let identity = identity_of_new;
            let header = FileHeader { identity, first_seq: last_seq.next(), previous_len: 0, previous_crc: 0 };
            publish(&to.log_file(header.first_seq.0), &header.encode())?;
            Mark { first_seq: header.first_seq, len: FILE_HEADER_BYTES as u64 }
        }
    };
    Ok(newest::mark(to, mark)?)
}

/// A file to which nothing is added any more.
pub(super) struct Closed<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    header: FileHeader,
    tag: u32,
}

/// Takes the frame of a record, and its payload with the padding.
pub(super) type Visit<'a> = dyn FnMut(RecordHeader, &[u8]) -> Result<(), LogError> + 'a;

impl<'a> Closed<'a> {
    /// Takes the bytes of the file `path`, whose header must be sound.
    ///
    /// # Errors
    /// [`LogError::BadHeader`], [`LogError::Unsupported`].
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self, LogError> {
        let (header, tag) = FileHeader::decode(path, bytes)?;
        if !(Seq(1)..Seq::END).contains(&header.first_seq) {
            let reason = format!("its header says that it begins with change {}", header.first_seq);
            return Err(LogError::BadHeader { path: path.to_owned(), reason });
        }
        Ok(Self { path, bytes, header, tag })
    }

    /// Gives each record to `visit`, and returns the change that follows.
    ///
    /// # Errors
    /// [`LogError::Damaged`], or what `visit` returned.
    pub(super) fn each_record(&self, visit: &mut Visit<'_>) -> Result<Seq, LogError> {
        let Self { path, bytes, tag, .. } = *self;
        let (mut offset, mut next) = (FILE_HEADER_BYTES, self.header.first_seq);
        while offset < bytes.len() {
            let (record, _) = record_at(bytes, offset, tag)
                .and_then(|found| match found.0.seq == next && next < Seq::END {
                    true => Ok(found),
                    false => Err("a record has the wrong seq"),
                })
                .map_err(|reason| damaged(path, offset, bytes.len(), reason))?;
            let end = offset + record.record_bytes();
            visit(record, &bytes[offset + RECORD_HEADER_BYTES..end])?;
            (offset, next) = (end, next.next());
        }
        Ok(next)
    }
}

/// Gives the files of a log that belongs to `identity` and ends with `last_seq` to `visit`, which returns the change
/// that follows each.
fn each_file(
    paths: &DataPaths,
    identity: LogIdentity,
    last_seq: Seq,
    visit: &mut dyn FnMut(Closed<'_>) -> Result<Seq, LogError>,
) -> Result<(), LogError> {
    let mut next = None;
    for file in files::list(paths)? {
        let bytes = read_whole(&file.path)?;
        let closed = Closed::new(&file.path, &bytes)?;
        let header = &closed.header;
        let expected = next.unwrap_or(header.first_seq);
        if header.identity != identity || header.first_seq != file.first_seq || file.first_seq != expected {
            let reason = format!("it is not the file of this log that begins with change {expected}");
            return Err(LogError::BadHeader { path: file.path.clone(), reason });
        }
        next = Some(visit(closed)?);
    }
    match next {
        Some(next) if next != last_seq.next() => Err(LogError::Missing { seq: next, path: paths.log_file(next.0) }),
        _ => Ok(()),
    }
}

/// Writes one file and returns its checksum and the change that follows it.
fn write_file(file: &Closed<'_>, target: &Path, header: &FileHeader) -> Result<(u32, Seq), LogError> {
    let mut out = Publishing::create(target)?;
    let mut crc = 0;
    let mut write = |bytes: &[u8]| {
        crc = crc32c_append(crc, bytes);
        out.write_all(bytes).map_err(|e| StorageError::io(target, "write", e))
    };
    write(&header.encode())?;
    let next = file.each_record(&mut |record, payload| {
        write(&RecordHeader { file_tag: header.tag(), ..record }.encode())?;
        Ok(write(payload)?)
    })?;
    out.commit()?;
    Ok((crc, next))
}

fn damaged(path: &Path, offset: usize, end: usize, reason: &'static str) -> LogError {
    let range = offset as u64..end as u64;
    LogError::Damaged { path: path.to_owned(), offset: range.start, reason, ranges: vec![range] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Change, EncodedRecord, LogWriter, ReadFrom, WriterOptions, read_from};
    use crate::storage::fault::DeadSector;
    use crate::types::CollectionId;

    const OLD: LogIdentity = LogIdentity { store_id: [7; 16], timeline: 1 };
    const FROM_START: ReadFrom = ReadFrom { after: Seq(0), at_least: Seq(0) };

    fn changes(paths: &DataPaths, identity: LogIdentity) -> Result<Vec<(Seq, Change)>, LogError> {
        let mut seen = Vec::new();
        read_from::<LogError>(paths, identity, FROM_START, &mut |seq, change| {
            seen.push((seq, change));
            Ok(())
        })?;
        Ok(seen)
    }

    /// Two closed files of two records each, in two groups, and an empty newest one.
    fn write(paths: &DataPaths) {
        let recovery = read_from::<LogError>(paths, OLD, FROM_START, &mut |_, _| Ok(())).unwrap();
        let mut writer = LogWriter::open(paths, OLD, &recovery, WriterOptions::default()).unwrap();
        for id in 0..2 {
            let record = |id| EncodedRecord::new(&Change::DropCollection { id: CollectionId(id) }).unwrap();
            writer.append_group(&mut [record(id), record(10 + id)]).unwrap();
            writer.rotate().unwrap();
        }
    }

    #[test]
    fn the_same_changes_are_read_in_the_new_timeline_and_only_there() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (DataPaths::new(dir.path().join("old")), DataPaths::new(dir.path().join("new")));
        write(&old);
        let (closed, last) = closed_files(&old, Seq(0)).unwrap();
        assert_eq!((closed.len(), last), (2, Seq(4)));
        assert_eq!(closed_files(&old, Seq(2)).unwrap().0, closed[1..], "what segments have is not needed");
        assert_eq!(closed_files(&old, Seq(3)).unwrap().0, closed[1..]);
        assert_eq!(closed_files(&old, Seq(4)).unwrap().0, closed[2..]);
        relabel(&old, OLD, &new, 2, Seq(4)).unwrap();
        let identity = LogIdentity { timeline: 2, ..OLD };
        assert_eq!(changes(&new, identity).unwrap(), changes(&old, OLD).unwrap());
        assert!(matches!(changes(&new, OLD), Err(LogError::Foreign { .. })));
    }

    #[test]
    fn what_could_not_be_restored_is_found_without_writing() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (DataPaths::new(dir.path().join("old")), DataPaths::new(dir.path().join("new")));
        check(&new, OLD, Seq(4), Seq(4)).unwrap();
        let refused = check(&new, OLD, Seq(3), Seq(4)).unwrap_err();
        assert!(matches!(refused, LogError::Missing { seq: Seq(4), .. }), "{refused}");
        write(&old);
        check(&old, OLD, Seq(0), Seq(4)).unwrap();
        let refused = check(&old, OLD, Seq(0), Seq(5)).unwrap_err();
        assert!(matches!(refused, LogError::Missing { seq: Seq(5), .. }), "{refused}");
        let refused = check(&old, LogIdentity { timeline: 2, ..OLD }, Seq(0), Seq(4)).unwrap_err();
        assert!(matches!(refused, LogError::BadHeader { .. }), "{refused}");
        assert_eq!((newest_timeline(&old, [7; 16]), newest_timeline(&old, [8; 16])), (Some(1), None));
        let whole = std::fs::read(old.log_file(1)).unwrap();
        let mut bytes = whole.clone();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(old.log_file(1), bytes).unwrap();
        let refused = check(&old, OLD, Seq(0), Seq(4)).unwrap_err();
        assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
        std::fs::remove_file(old.log_file(1)).unwrap();
        check(&old, OLD, Seq(2), Seq(4)).unwrap();
        let refused = check(&old, OLD, Seq(1), Seq(4)).unwrap_err();
        assert!(matches!(refused, LogError::Missing { seq: Seq(2), .. }), "{refused}");
    }

    #[test]
    fn what_the_disk_does_not_give_back_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (DataPaths::new(dir.path().join("old")), DataPaths::new(dir.path().join("new")));
        write(&old);
        for file in [old.log_file(3), old.log_file(5)] {
            let dead = DeadSector::new(&file, 20..21);
            let copied = copy_open_end(&old, &new).map(drop);
            let refused = [check(&old, OLD, Seq(0), Seq(4)), relabel(&old, OLD, &new, 2, Seq(4))];
            let is_newest = file == old.log_file(5);
            for refused in refused.into_iter().chain(is_newest.then_some(copied)) {
                let error = refused.unwrap_err();
                assert!(matches!(&error, LogError::Damaged { path, .. } if *path == file), "{error}");
            }
            assert_eq!(newest_timeline(&old, [7; 16]), Some(1), "the others tell");
            drop(dead);
            std::fs::remove_dir_all(new.root()).unwrap();
        }
    }

    #[test]
    fn a_log_whose_changes_have_no_next_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for first in [0, Seq::END.0 - 1, Seq::END.0, u64::MAX] {
            let paths = DataPaths::new(dir.path().join(first.to_string()));
            std::fs::create_dir_all(paths.log_dir()).unwrap();
            let header = FileHeader { identity: OLD, first_seq: Seq(first), previous_len: 0, previous_crc: 0 };
            let mut bytes = header.encode().to_vec();
            for seq in [first, first.saturating_add(1)] {
                let record = RecordHeader {
                    payload_len: 0,
                    payload_crc: crate::storage::crc32c(&[]),
                    seq: Seq(seq),
                    file_tag: header.tag(),
                    group_index: 0,
                    kind: 2,
                    payload_version: 1,
                };
                bytes.extend(record.encode());
            }
            std::fs::write(paths.log_file(first), bytes).unwrap();
            let new = DataPaths::new(paths.root().join("new"));
            let last = Seq(Seq::END.0 - 1);
            let refused = [check(&paths, OLD, Seq(0), last), relabel(&paths, OLD, &new, 2, last)];
            for refused in refused.into_iter().chain([copy_open_end(&paths, &new).map(drop)]) {
                let error = refused.unwrap_err();
                assert!(matches!(&error, LogError::BadHeader { .. } | LogError::Damaged { .. }), "{first}: {error}");
            }
        }
    }

    #[test]
    fn a_log_without_records_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (DataPaths::new(dir.path().join("old")), DataPaths::new(dir.path().join("new")));
        assert_eq!(closed_files(&old, Seq(0)).unwrap(), (Vec::new(), Seq(0)));
        relabel(&old, OLD, &new, 5, Seq(9)).unwrap();
        let identity = LogIdentity { timeline: 5, ..OLD };
        let from = ReadFrom { after: Seq(9), at_least: Seq(9) };
        let recovery = read_from::<LogError>(&new, identity, from, &mut |_, _| Ok(())).unwrap();
        assert_eq!(recovery.last_seq, Seq(9));
    }

    #[test]
    fn an_end_that_is_gone_is_not_copied_as_a_shorter_one() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (DataPaths::new(dir.path().join("old")), DataPaths::new(dir.path().join("new")));
        let recovery = read_from::<LogError>(&old, OLD, FROM_START, &mut |_, _| Ok(())).unwrap();
        let mut writer = LogWriter::open(&old, OLD, &recovery, WriterOptions::default()).unwrap();
        let record = |id| EncodedRecord::new(&Change::DropCollection { id: CollectionId(id) }).unwrap();
        writer.append_group(&mut [record(1)]).unwrap();
        let first = std::fs::metadata(old.log_file(1)).unwrap().len();
        writer.append_group(&mut [record(2)]).unwrap();
        writer.close().unwrap();
        assert_eq!(copy_open_end(&old, &new).unwrap(), Some((old.log_file(1), Seq(2))));
        let whole = std::fs::read(old.log_file(1)).unwrap();
        for len in [first as usize, first as usize + 9] {
            std::fs::write(old.log_file(1), &whole[..len]).unwrap();
            let refused = copy_open_end(&old, &new).unwrap_err();
            assert!(matches!(refused, LogError::Damaged { offset, .. } if offset == first), "{refused}");
        }
        std::fs::remove_file(old.log_file(1)).unwrap();
        let refused = copy_open_end(&old, &new).unwrap_err();
        assert!(matches!(refused, LogError::Missing { seq: Seq(1), .. }), "{refused}");
    }

    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (DataPaths::new(dir.path().join("old")), DataPaths::new(dir.path().join("new")));
        write(&old);
        let relabelled = |last| relabel(&old, OLD, &new, 2, Seq(last));
        assert!(matches!(relabelled(5), Err(LogError::Missing { seq: Seq(5), .. })));
        let path = old.log_file(3);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 9;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(relabelled(4), Err(LogError::Damaged { .. })));
        std::fs::remove_file(old.log_file(1)).unwrap();
        std::fs::write(old.log_file(1), b"short").unwrap();
        assert!(matches!(relabelled(4), Err(LogError::BadHeader { .. })));
    }
}
