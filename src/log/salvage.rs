//! Whatever of a damaged log can still be read, and what cannot.

use std::ops::Range;
use std::path::PathBuf;

use super::files::{self, LogFile};
use super::format::{ALIGNMENT, FILE_HEADER_BYTES, FileHeader, RecordHeader};
use super::survey::{damaged_ranges, record_at};
use super::{Change, LogError, newest, payload};
use crate::storage::{DataPaths, WholeFile, file_len};
use crate::types::{Chain, Seq};

/// A part of the log that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLoss {
    /// The file.
    pub path: PathBuf,
    /// Its bytes that could not be read; empty where a whole file is missing.
    pub bytes: Range<u64>,
    /// The last change read before.
    pub after: Seq,
    /// The first change read after; `None` where the log ends.
    pub before: Option<Seq>,
    /// Why.
    pub reason: String,
}

/// Which changes a log should hold, as far as other files tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needed {
    /// Segments have everything up to this change.
    pub after: Option<Seq>,
    /// The last change.
    pub up_to: Option<Seq>,
}

/// Gives every change that can be read to `visit`, in the order of the files, and says what is lost of those that are
/// `needed`. Nothing is changed. A file that cannot be opened is a loss as well.
pub fn salvage(paths: &DataPaths, needed: Needed, visit: &mut dyn FnMut(Seq, Change)) -> Vec<LogLoss> {
    let files = match files::list(paths) {
        Ok(files) => files,
        Err(error) => {
            let (path, reason) = (paths.log_dir(), Chain(&error).to_string());
            return vec![LogLoss { path, bytes: 0..0, after: needed.after.unwrap_or_default(), before: None, reason }];
        }
    };
    let missing = missing_start(paths, &files, needed);
    let mut reading = Reading { last: None, losses: missing.into_iter().collect(), visit };
    files.iter().for_each(|file| reading.read(file));
    let end = missing_end(paths, &files, reading.last);
    reading.losses.extend(end);
    if let Some(up_to) = needed.up_to {
        let newest = files.last().map_or_else(|| paths.log_file(reading.after().next().0), |file| file.path.clone());
        reading.end(newest, needed.after, up_to);
    }
    reading.losses
}

/// What was read so far.
struct Reading<'a> {
    /// The last change that was read, or that stood before a file that is there; `None` before the first file.
    last: Option<Seq>,
    losses: Vec<LogLoss>,
    visit: &'a mut dyn FnMut(Seq, Change),
}

impl Reading<'_> {
    fn read(&mut self, file: &LogFile) {
        self.begin(file);
        let whole = match WholeFile::read(&file.path) {
            Ok(whole) => whole,
            Err(error) => return self.lose(file, 0..0, &Chain(&error).to_string()),
        };
        let bytes = &whole.bytes[..];
        let tag = match FileHeader::decode(&file.path, bytes) {
            Ok((_, tag)) => Some(tag),
            Err(error) => {
                let header = 0..bytes.len().min(FILE_HEADER_BYTES) as u64;
                let fault = whole.fault(header.clone()).map(|fault| fault.reason.clone());
                self.lose(file, header, &fault.unwrap_or_else(|| error.to_string()));
                any_tag(bytes)
            }
        };
        match tag {
            Some(tag) => self.read_records(file, &whole, tag),
            None => self.lose(file, 0..bytes.len() as u64, "no record in it can be read"),
        }
    }

    /// A file's name says which change comes first in it, also where it holds none yet.
    fn begin(&mut self, file: &LogFile) {
        let before = Seq(file.first_seq.0.saturating_sub(1));
        if self.last.is_some_and(|last| last < before) && self.is_whole() {
            self.lose(file, 0..0, "the changes before this file are missing");
        }
        self.go_on(file.first_seq);
        self.last = self.last.max(Some(before));
    }

    fn read_records(&mut self, file: &LogFile, whole: &WholeFile, tag: u32) {
        let bytes = &whole.bytes[..];
        let mut offset = FILE_HEADER_BYTES;
        while offset < bytes.len() {
            let found = record_at(bytes, offset, tag).map_err(str::to_owned).and_then(|(header, payload)| {
                let change = payload::decode(header.payload_version, header.kind, payload);
                change.map(|change| (header, change)).map_err(|error| format!("the change cannot be read: {error:?}"))
            });
            match found {
                Ok((header, change)) => {
                    if header.seq > self.after().next() && self.is_whole() {
                        let place = offset as u64..offset as u64;
                        self.lose(file, place, "the changes before this record are missing");
                    }
                    self.go_on(header.seq);
                    (self.visit)(header.seq, change);
                    self.last = self.last.max(Some(header.seq));
                    offset += header.record_bytes();
                }
                Err(reason) => {
                    // A record with a sound frame and damaged contents ends where its frame says.
                    let framed = record_at(bytes, offset, tag).map(|(header, _)| offset + header.record_bytes());
                    let ranges = || damaged_ranges(bytes, offset, tag).first().map_or(bytes.len(), |r| r.end as usize);
                    let end = framed.unwrap_or_else(|_| ranges()).max(offset + ALIGNMENT).min(bytes.len());
                    let range = offset as u64..end as u64;
                    let fault = whole.fault(range.clone()).map_or(&reason, |fault| &fault.reason);
                    self.lose(file, range, fault);
                    offset = end;
                }
            }
        }
    }

    fn after(&self) -> Seq {
        self.last.unwrap_or_default()
    }

    /// Whether nothing was lost since the last change that was read.
    fn is_whole(&self) -> bool {
        self.losses.last().is_none_or(|loss| loss.before.is_some())
    }

    fn lose(&mut self, file: &LogFile, bytes: Range<u64>, reason: &str) {
        let (path, reason) = (file.path.clone(), reason.to_owned());
        self.losses.push(LogLoss { path, bytes, after: self.after(), before: None, reason });
    }

    /// Compares the end of what was read, in the file `newest`, with the last change that should be there.
    fn end(&mut self, newest: PathBuf, needed_after: Option<Seq>, up_to: Seq) {
        let (is_whole, after) = (self.is_whole(), self.last.max(needed_after).unwrap_or_default());
        self.go_on(up_to.next());
        if is_whole && after < up_to {
            let (before, reason) = (Some(up_to.next()), "the end of the log is missing".to_owned());
            self.losses.push(LogLoss { path: newest, bytes: 0..0, after, before, reason });
        }
    }

    /// Notes where reading goes on after what was lost before.
    fn go_on(&mut self, seq: Seq) {
        for loss in self.losses.iter_mut().rev().take_while(|loss| loss.before.is_none()) {
            loss.before = Some(seq);
        }
    }
}

/// The beginning of the log, if it is not there.
fn missing_start(paths: &DataPaths, files: &[LogFile], needed: Needed) -> Option<LogLoss> {
    let after = needed.after?;
    let first = files.first().map(|file| file.first_seq);
    // Without a change that it should hold, a log need not have a file.
    let is_there = first.map_or(needed.up_to.is_some_and(|up_to| up_to <= after), |first| first <= after.next());
    if is_there {
        return None;
    }
    let reason = "a file of the log is missing".to_owned();
    Some(LogLoss { path: paths.log_file(after.next().0), bytes: 0..0, after, before: first, reason })
}

/// The end of the log as it was marked, if it is not there.
fn missing_end(paths: &DataPaths, files: &[LogFile], last: Option<Seq>) -> Option<LogLoss> {
    let loss = |path, bytes, first_seq: Seq, reason: String| {
        let after = last.unwrap_or(Seq(first_seq.0.saturating_sub(1)));
        Some(LogLoss { path, bytes, after, before: None, reason })
    };
    let durable_len = match newest::check(paths, files) {
        Ok(durable_len) => durable_len,
        Err(LogError::Missing { seq, path }) => {
            return loss(path, 0..0, seq, "the newest file of the log is missing".to_owned());
        }
        Err(error) => {
            let reason = format!("whether the log ends where it should is not known: {}", Chain(&error));
            return loss(paths.newest_log_mark(), 0..0, Seq(0), reason);
        }
    };
    // That there is no file at all was said before.
    let newest = files.last()?;
    // One whose length cannot be read could not be opened, either.
    let len = file_len(&newest.path).ok().filter(|len| *len < durable_len)?;
    loss(newest.path.clone(), len..durable_len, newest.first_seq, "the end of the file was cut off".to_owned())
}

/// The tag of a file whose own header is lost, from its first readable record.
fn any_tag(bytes: &[u8]) -> Option<u32> {
    let mut places = (FILE_HEADER_BYTES..bytes.len()).step_by(ALIGNMENT);
    places.find_map(|at| RecordHeader::decode_of_any_file(&bytes[at..])).map(|header| header.file_tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{EncodedRecord, LogIdentity, LogWriter, ReadFrom, WriterOptions, read_from};
    use crate::storage::fault::DeadSector;
    use crate::types::CollectionId;

    const IDENTITY: LogIdentity = LogIdentity { store_id: [7; 16], timeline: 1 };

    /// Two files of three changes each.
    fn write(paths: &DataPaths) {
        let from = ReadFrom { after: Seq(0), at_least: Seq(0) };
        let recovery = read_from::<LogError>(paths, IDENTITY, from, &mut |_, _| Ok(())).unwrap();
        let mut writer = LogWriter::open(paths, IDENTITY, &recovery, WriterOptions::default()).unwrap();
        for id in 1..=6 {
            let change = Change::DropCollection { id: CollectionId(id) };
            writer.append_group(&mut [EncodedRecord::new(&change).unwrap()]).unwrap();
            if id == 3 {
                writer.rotate().unwrap();
            }
        }
    }

    fn read(paths: &DataPaths) -> (Vec<u64>, Vec<LogLoss>) {
        read_up_to(paths, None)
    }

    fn read_up_to(paths: &DataPaths, up_to: Option<Seq>) -> (Vec<u64>, Vec<LogLoss>) {
        let mut seen = Vec::new();
        let losses = salvage(paths, Needed { after: Some(Seq(0)), up_to }, &mut |seq, change| {
            assert_eq!(change, Change::DropCollection { id: CollectionId(seq.0 as u32) });
            seen.push(seq.0);
        });
        (seen, losses)
    }

    fn damaged(first_seq: u64, damage: impl FnOnce(&mut Vec<u8>)) -> (Vec<u64>, Vec<LogLoss>) {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        write(&paths);
        let mut bytes = std::fs::read(paths.log_file(first_seq)).unwrap();
        damage(&mut bytes);
        std::fs::write(paths.log_file(first_seq), bytes).unwrap();
        read(&paths)
    }

    #[test]
    fn a_sound_log_loses_nothing() {
        assert_eq!(damaged(1, |_| {}), (vec![1, 2, 3, 4, 5, 6], vec![]));
    }

    #[test]
    fn a_damaged_record_alone_is_lost() {
        let (seen, losses) = damaged(1, |bytes| bytes[64 + 40 + 33] ^= 1);
        assert_eq!(seen, [1, 3, 4, 5, 6]);
        assert_eq!(
            (losses.len(), losses[0].bytes.clone(), losses[0].after, losses[0].before),
            (1, 104..144, Seq(1), Some(Seq(3)))
        );
    }

    #[test]
    fn what_a_disk_does_not_give_back_is_named_and_refused() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        let from = ReadFrom { after: Seq(0), at_least: Seq(0) };
        let recovery = read_from::<LogError>(&paths, IDENTITY, from, &mut |_, _| Ok(())).unwrap();
        let mut writer = LogWriter::open(&paths, IDENTITY, &recovery, WriterOptions::default()).unwrap();
        // Records of 40 bytes: several in each page.
        for id in 1..=300 {
            let change = Change::DropCollection { id: CollectionId(id) };
            writer.append_group(&mut [EncodedRecord::new(&change).unwrap()]).unwrap();
        }
        drop(writer);
        let file = paths.log_file(1);
        let last = std::fs::metadata(&file).unwrap().len() - 1;
        let dead = DeadSector::new(&file, 5_000..5_512);
        let (seen, losses) = read(&paths);
        assert!(seen.contains(&100) && !seen.contains(&130) && seen.contains(&205) && seen.ends_with(&[300]));
        assert!(losses.iter().all(|loss| loss.reason.contains("cannot be read")) && !losses.is_empty(), "{losses:?}");
        let refused = || read_from::<LogError>(&paths, IDENTITY, from, &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(
            refused().contains(&format!("{} is damaged at offset 4096 (the disk", file.display())),
            "{}",
            refused()
        );
        drop(dead);
        // The end is not taken for a write that a crash has torn.
        let dead = DeadSector::new(&file, last..last + 1);
        assert!(refused().contains("(the disk"), "{}", refused());
        assert_eq!(std::fs::metadata(&file).unwrap().len(), last + 1);
        drop(dead);
        assert_eq!(read(&paths), ((1..=300).collect(), vec![]));
    }

    #[test]
    fn a_lost_header_costs_no_record() {
        let (seen, losses) = damaged(4, |bytes| bytes[20] ^= 1);
        assert_eq!((seen, losses.len(), losses[0].bytes.clone()), (vec![1, 2, 3, 4, 5, 6], 1, 0..64));
    }

    #[test]
    fn a_cut_and_a_missing_file_are_named() {
        let (seen, losses) = damaged(4, |bytes| bytes.truncate(64 + 40 + 7));
        assert_eq!((seen, losses.len(), losses[0].before), (vec![1, 2, 3, 4], 1, None));
        let (seen, losses) = damaged(1, |bytes| bytes.truncate(10));
        assert_eq!((seen, losses.len()), (vec![4, 5, 6], 2));
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        write(&paths);
        let bytes = std::fs::read(paths.log_file(1)).unwrap();
        std::fs::write(paths.log_file(1), &bytes[..64 + 40]).unwrap();
        let (seen, losses) = read(&paths);
        assert_eq!(seen, [1, 4, 5, 6]);
        assert_eq!((losses.len(), losses[0].after, losses[0].before), (1, Seq(1), Some(Seq(4))));
        std::fs::write(paths.log_file(1), &bytes).unwrap();
        std::fs::remove_file(paths.log_file(4)).unwrap();
        let (seen, losses) = read(&paths);
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!((losses.len(), losses[0].path.clone(), losses[0].after), (1, paths.log_file(4), Seq(3)));
    }

    /// As in a snapshot, which has no mark of the newest file.
    #[test]
    fn an_end_that_is_missing_is_named_where_the_last_change_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        write(&paths);
        std::fs::remove_file(paths.newest_log_mark()).unwrap();
        assert_eq!(read_up_to(&paths, Some(Seq(6))), ((1..=6).collect(), vec![]));
        let bytes = std::fs::read(paths.log_file(4)).unwrap();
        // Between two records, within one, within the header, and the whole file.
        for (left, last) in [(64 + 2 * 40, 5), (64 + 2 * 40 + 7, 5), (10, 3), (0, 3)] {
            match left {
                0 => std::fs::remove_file(paths.log_file(4)).unwrap(),
                left => std::fs::write(paths.log_file(4), &bytes[..left]).unwrap(),
            }
            let (seen, losses) = read_up_to(&paths, Some(Seq(6)));
            assert_eq!(seen, (1..=last).collect::<Vec<_>>());
            let is_named = |loss: &LogLoss| (loss.after, loss.before) == (Seq(last), Some(Seq(7)));
            assert!(!losses.is_empty() && losses.iter().all(is_named), "{left}: {losses:?}");
        }
        std::fs::remove_dir_all(paths.log_dir()).unwrap();
        let needed = |after| Needed { after: Some(Seq(after)), up_to: Some(Seq(6)) };
        let losses = salvage(&paths, needed(2), &mut |_, _| {});
        assert_eq!((losses.len(), losses[0].after, losses[0].before), (1, Seq(2), Some(Seq(7))), "{losses:?}");
        assert_eq!(salvage(&paths, needed(6), &mut |_, _| {}), vec![], "all of it is in segments");
    }

    /// After a snapshot the newest file holds nothing yet.
    #[test]
    fn what_is_missing_before_an_empty_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        write(&paths);
        let from = ReadFrom { after: Seq(0), at_least: Seq(0) };
        let recovery = read_from::<LogError>(&paths, IDENTITY, from, &mut |_, _| Ok(())).unwrap();
        let mut writer = LogWriter::open(&paths, IDENTITY, &recovery, WriterOptions::default()).unwrap();
        writer.rotate().unwrap();
        writer.close().unwrap();
        drop(writer);
        assert_eq!(read(&paths), ((1..=6).collect(), vec![]));
        let bytes = std::fs::read(paths.log_file(4)).unwrap();
        for (left, seen, after) in [(bytes.len() - 40, 5, Seq(5)), (64, 3, Seq(3)), (0, 3, Seq(3))] {
            match left {
                0 => std::fs::remove_file(paths.log_file(4)).unwrap(),
                left => std::fs::write(paths.log_file(4), &bytes[..left]).unwrap(),
            }
            let (found, losses) = read(&paths);
            assert_eq!(found, (1..=seen).collect::<Vec<_>>());
            assert_eq!((losses.len(), losses[0].path.clone()), (1, paths.log_file(7)), "{losses:?}");
            assert_eq!((losses[0].after, losses[0].before), (after, Some(Seq(7))));
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_a_loss() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        write(&paths);
        std::fs::remove_file(paths.newest_log_mark()).unwrap();
        std::fs::create_dir(paths.newest_log_mark()).unwrap();
        std::fs::remove_file(paths.log_file(4)).unwrap();
        // As if it went only now.
        let files = [1, 4].map(|seq| LogFile { first_seq: Seq(seq), path: paths.log_file(seq) });
        let mut seen = Vec::new();
        let mut visit = |seq: Seq, _: Change| seen.push(seq.0);
        let mut reading = Reading { last: None, losses: Vec::new(), visit: &mut visit };
        files.iter().for_each(|file| reading.read(file));
        let (losses, last) = (std::mem::take(&mut reading.losses), reading.last);
        assert_eq!((losses.len(), losses[0].after, losses[0].before), (1, Seq(3), None), "{losses:?}");
        assert!(missing_end(&paths, &files, last).is_some_and(|loss| loss.path == paths.newest_log_mark()));
        assert_eq!(seen, [1, 2, 3]);
    }

    #[test]
    fn an_end_cut_off_between_two_records_is_named_once_the_log_was_closed() {
        for is_closed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let paths = DataPaths::new(dir.path());
            write(&paths);
            let from = ReadFrom { after: Seq(0), at_least: Seq(0) };
            let recovery = read_from::<LogError>(&paths, IDENTITY, from, &mut |_, _| Ok(())).unwrap();
            let mut writer = LogWriter::open(&paths, IDENTITY, &recovery, WriterOptions::default()).unwrap();
            let change = Change::DropCollection { id: CollectionId(7) };
            writer.append_group(&mut [EncodedRecord::new(&change).unwrap()]).unwrap();
            if is_closed {
                writer.close().unwrap();
            }
            drop(writer);
            assert_eq!(read(&paths), ((1..=7).collect(), vec![]));
            let file = paths.log_file(4);
            let bytes = std::fs::read(&file).unwrap();
            let durable = bytes.len() - 40;
            std::fs::write(&file, &bytes[..durable]).unwrap();
            let again = read_from::<LogError>(&paths, IDENTITY, from, &mut |_, _| Ok(()));
            let (seen, losses) = read(&paths);
            assert_eq!(seen, (1..=6).collect::<Vec<_>>());
            if is_closed {
                let error = again.unwrap_err().to_string();
                assert!(error.contains(&format!("{} is damaged at offset {durable}", file.display())), "{error}");
                let range = durable as u64..bytes.len() as u64;
                assert_eq!((losses.len(), losses[0].bytes.clone(), losses[0].after), (1, range, Seq(6)));
            } else {
                assert_eq!((again.unwrap().last_seq, losses), (Seq(6), vec![]));
            }
        }
    }

    #[test]
    fn no_flipped_bit_panics_or_brings_a_change_that_was_not_written() {
        let len = damaged(1, |_| {}).0.len();
        for at in 0..64 + 3 * 40 {
            let (seen, losses) = damaged(1, |bytes| bytes[at] ^= 1 << (at % 8));
            assert!(seen.len() + 1 >= len && !losses.is_empty(), "{at}: {seen:?} {losses:?}");
        }
    }
}
