//! Whatever of a damaged log can still be read, and what cannot.

use std::ops::Range;
use std::path::PathBuf;

use super::files::{self, LogFile};
use super::format::{ALIGNMENT, FILE_HEADER_BYTES, FileHeader, RecordHeader};
use super::survey::{damaged_ranges, record_at};
use super::{Change, LogError, newest, payload};
use crate::storage::{DataPaths, Mapped};
use crate::types::Seq;

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

/// Gives every change that can be read to `visit`, in the order of the files, and says what is lost. Nothing is
/// changed. `needed_after`: the change up to which segments have everything, where that is known.
///
/// # Errors
/// [`LogError::Storage`] when a file cannot be opened or mapped.
pub fn salvage(
    paths: &DataPaths,
    needed_after: Option<Seq>,
    visit: &mut dyn FnMut(Seq, Change),
) -> Result<Vec<LogLoss>, LogError> {
    let mut last: Option<Seq> = None;
    let files = files::list(paths)?;
    let mut losses: Vec<LogLoss> =
        needed_after.and_then(|after| missing_start(paths, &files, after)).into_iter().collect();
    for file in &files {
        let mapped = Mapped::open(&file.path)?;
        let bytes = mapped.bytes();
        let seen = last.unwrap_or(Seq(file.first_seq.0.saturating_sub(1)));
        let loss = |bytes, after, reason: &str| LogLoss {
            path: file.path.clone(),
            bytes,
            after,
            before: None,
            reason: reason.to_owned(),
        };
        let tag = match FileHeader::decode(&file.path, bytes) {
            Ok((_, tag)) => Some(tag),
            Err(error) => {
                let end = bytes.len().min(FILE_HEADER_BYTES) as u64;
                losses.push(loss(0..end, seen, &error.to_string()));
                any_tag(bytes)
            }
        };
        let Some(tag) = tag else {
            losses.push(loss(0..bytes.len() as u64, seen, "no record in it can be read"));
            continue;
        };
        let mut offset = FILE_HEADER_BYTES;
        while offset < bytes.len() {
            let found = record_at(bytes, offset, tag).map_err(str::to_owned).and_then(|(header, payload)| {
                let change = payload::decode(header.payload_version, header.kind, payload);
                change.map(|change| (header, change)).map_err(|error| format!("the change cannot be read: {error:?}"))
            });
            let after = last.unwrap_or(seen);
            match found {
                Ok((header, change)) => {
                    if header.seq > after.next() && losses.last().is_none_or(|loss| loss.before.is_some()) {
                        losses.push(loss(
                            offset as u64..offset as u64,
                            after,
                            "the changes before this record are missing",
                        ));
                    }
                    close(&mut losses, header.seq);
                    visit(header.seq, change);
                    last = Some(header.seq.max(after));
                    offset += header.record_bytes();
                }
                Err(reason) => {
                    // A record whose frame is sound and whose contents are not ends where its frame says.
                    let framed = record_at(bytes, offset, tag).map(|(header, _)| offset + header.record_bytes());
                    let ranges = || damaged_ranges(bytes, offset, tag).first().map_or(bytes.len(), |r| r.end as usize);
                    let end = framed.unwrap_or_else(|_| ranges()).max(offset + ALIGNMENT).min(bytes.len());
                    losses.push(loss(offset as u64..end as u64, after, &reason));
                    offset = end;
                }
            }
        }
    }
    losses.extend(missing_end(paths, &files, last)?);
    Ok(losses)
}

/// The beginning of the log after `after`, if it is not there.
fn missing_start(paths: &DataPaths, files: &[LogFile], after: Seq) -> Option<LogLoss> {
    let first = files.first().map(|file| file.first_seq);
    if first.is_some_and(|first| first <= after.next()) {
        return None;
    }
    let reason = "a file of the log is missing".to_owned();
    Some(LogLoss { path: paths.log_file(after.next().0), bytes: 0..0, after, before: first, reason })
}

/// The end of the log as it was marked, if it is not there.
fn missing_end(paths: &DataPaths, files: &[LogFile], last: Option<Seq>) -> Result<Option<LogLoss>, LogError> {
    let (path, bytes, first_seq, reason) = match newest::check(paths, files) {
        Err(LogError::Missing { seq, path }) => (path, 0..0, seq, "the newest file of the log is missing"),
        Err(error) => return Err(error),
        Ok(durable_len) => {
            // That there is no file at all was said before.
            let Some(newest) = files.last() else { return Ok(None) };
            let len = Mapped::open(&newest.path)?.bytes().len() as u64;
            if len >= durable_len {
                return Ok(None);
            }
            (newest.path.clone(), len..durable_len, newest.first_seq, "the end of the file was cut off")
        }
    };
    let after = last.unwrap_or(Seq(first_seq.0.saturating_sub(1)));
    Ok(Some(LogLoss { path, bytes, after, before: None, reason: reason.to_owned() }))
}

/// Notes where reading goes on after what was lost before.
fn close(losses: &mut [LogLoss], seq: Seq) {
    for loss in losses.iter_mut().rev().take_while(|loss| loss.before.is_none()) {
        loss.before = Some(seq);
    }
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
        let mut seen = Vec::new();
        let losses = salvage(paths, Some(Seq(0)), &mut |seq, change| {
            assert_eq!(change, Change::DropCollection { id: CollectionId(seq.0 as u32) });
            seen.push(seq.0);
        });
        (seen, losses.unwrap())
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
