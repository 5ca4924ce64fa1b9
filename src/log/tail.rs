//! Reads the log while it is written: the changes of one collection after a cursor, in bounded steps.

use super::by_calls::ByCalls;
use super::files::{self, LogFile};
use super::format::{FILE_HEADER_BYTES, FileHeader, LogIdentity, RECORD_HEADER_BYTES};
use super::reader::decode_record;
use super::{Change, LogError, payload};
use crate::storage::{DataPaths, crc32c, crc32c_append};
use crate::types::{CollectionId, Seq};

/// Bytes of log that one step looks through at most, whoever's they are.
const MAX_SCANNED_BYTES: usize = 64 << 20;

/// A place in the log that moves forward.
#[derive(Debug)]
pub struct LogTail {
    paths: DataPaths,
    identity: LogIdentity,
    collection: CollectionId,
    after: Seq,
    /// The file and the offset of the record after `after`, once known.
    place: Option<Place>,
    /// [`LogTail::digest`], once known.
    digest: Option<u32>,
}

#[derive(Debug)]
struct Place {
    file: LogFile,
    offset: usize,
    /// crc32c of the file up to the offset; `None` behind its header.
    crc: Option<u32>,
}

/// What one step read.
#[derive(Debug, PartialEq)]
pub enum TailStep {
    /// The collection's changes, in order; the cursor stands at `up_to` now, which may be far beyond the last of them.
    Changes {
        /// Each with its seq.
        changes: Vec<(Seq, Change)>,
        /// Every change up to here was looked at.
        up_to: Seq,
    },
    /// The log no longer has the change after the cursor.
    Gone,
}

impl LogTail {
    /// Begins behind the change `after`.
    pub fn new(paths: DataPaths, identity: LogIdentity, collection: CollectionId, after: Seq) -> Self {
        Self { paths, identity, collection, after, place: None, digest: None }
    }

    /// Tells histories apart that have the same seqs: the crc32c of the file that holds the change at the cursor, up to
    /// its end. A file's header holds that of the file before it, so it covers every change since the log began.
    ///
    /// `None` where the log no longer has that change, nor the one after it.
    ///
    /// # Errors
    /// [`LogError`] when a file is damaged or cannot be read.
    pub fn digest(&mut self) -> Result<Option<u32>, LogError> {
        if self.digest.is_none() {
            self.digest = self.find_digest()?;
        }
        Ok(self.digest)
    }

    fn find_digest(&self) -> Result<Option<u32>, LogError> {
        let files = files::list(&self.paths)?;
        if let Some(next) = files.iter().find(|file| file.first_seq == self.after.next()) {
            let mut opened = ByCalls::open(&next.path)?;
            let (header, _) = FileHeader::decode(&next.path, opened.header()?)?;
            return Ok((header.previous_len > 0 || self.after == Seq(0)).then_some(header.previous_crc));
        }
        let Some(file) = files.into_iter().rev().find(|file| file.first_seq <= self.after) else { return Ok(None) };
        let mut opened = ByCalls::open(&file.path)?;
        let header = opened.header()?;
        let (tag, mut crc) = (self.check_header(&file, header)?, crc32c(header));
        let mut offset = FILE_HEADER_BYTES;
        while offset < opened.len() {
            let Ok((header, record)) = opened.record(offset, tag)? else { break };
            (offset, crc) = (offset + record.len(), crc32c_append(crc, record));
            if header.seq == self.after {
                return Ok(Some(crc));
            }
        }
        Ok(None)
    }

    /// Reads on, up to the change `durable` and about `max_bytes` of the collection's changes. `durable` must have been
    /// synced and applied: what stands behind it may be half written.
    ///
    /// # Errors
    /// [`LogError`] when a file is damaged or cannot be read; the cursor stays.
    pub fn read(&mut self, durable: Seq, max_bytes: usize) -> Result<TailStep, LogError> {
        let stood = (self.after, self.digest);
        // The place is looked for again, as after every error.
        self.read_on(durable, max_bytes).inspect_err(|_| (self.after, self.digest) = stood)
    }

    fn read_on(&mut self, durable: Seq, max_bytes: usize) -> Result<TailStep, LogError> {
        let (mut changes, mut bytes, mut scanned) = (Vec::new(), 0, 0);
        while self.after < durable && bytes < max_bytes && scanned < MAX_SCANNED_BYTES {
            let Some(place) = self.place.take().map_or_else(|| self.find(), |place| Ok(Some(place)))? else {
                return Ok(if changes.is_empty() { TailStep::Gone } else { self.step(changes) });
            };
            let mut opened = match ByCalls::open(&place.file.path) {
                Ok(opened) => opened,
                // Trimmed meanwhile, or damaged: looking for it again tells.
                Err(error) if place.file.path.exists() => return Err(error.into()),
                Err(_) => continue,
            };
            let header = opened.header()?;
            let (tag, of_header) = (self.check_header(&place.file, header)?, crc32c(header));
            let (mut offset, len) = (place.offset, opened.len());
            let mut crc = place.crc.unwrap_or(of_header);
            while self.after < durable && bytes < max_bytes && offset < len {
                let path = &place.file.path;
                let (header, record) = opened.record(offset, tag)?.map_err(|reason| {
                    let ranges = std::iter::once(offset as u64..len as u64).collect();
                    LogError::Damaged { path: path.clone(), offset: offset as u64, reason, ranges }
                })?;
                let payload = &record[RECORD_HEADER_BYTES..][..header.payload_len as usize];
                crc = crc32c_append(crc, record);
                if header.seq > self.after {
                    if payload::collection(payload) == Some(self.collection) {
                        changes.push((header.seq, decode_record(path, offset, &header, payload)?));
                        bytes += payload.len();
                    }
                    (self.after, self.digest) = (header.seq, Some(crc));
                }
                scanned += record.len();
                offset += record.len();
            }
            // At a file's end the next one is looked for by its first change.
            let is_end = offset >= len && self.after < durable;
            self.place = (!is_end).then_some(Place { file: place.file, offset, crc: Some(crc) });
        }
        Ok(self.step(changes))
    }

    fn step(&self, changes: Vec<(Seq, Change)>) -> TailStep {
        TailStep::Changes { changes, up_to: self.after }
    }

    /// The file that holds the change after the cursor, from its first record.
    fn find(&self) -> Result<Option<Place>, LogError> {
        let files = files::list(&self.paths)?;
        let holder = files.into_iter().rev().find(|file| file.first_seq <= self.after.next());
        Ok(holder.map(|file| Place { file, offset: FILE_HEADER_BYTES, crc: None }))
    }

    fn check_header(&self, file: &LogFile, bytes: &[u8]) -> Result<u32, LogError> {
        let (header, tag) = FileHeader::decode(&file.path, bytes)?;
        if header.identity != self.identity {
            let text = |identity: LogIdentity| {
                format!("{:032x} {}", u128::from_be_bytes(identity.store_id), identity.timeline)
            };
            let (found, expected) = (text(header.identity), text(self.identity));
            return Err(LogError::Foreign { path: file.path.clone(), what: "store and timeline", found, expected });
        }
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{EncodedRecord, LogWriter, ReadFrom, WriterOptions, read_from, trim};
    use crate::storage::fault::DeadSector;
    use crate::types::DocumentId;

    const IDENTITY: LogIdentity = LogIdentity { store_id: [7; 16], timeline: 1 };

    fn change(collection: u32, id: u64) -> Change {
        let ids = vec![DocumentId::new(&id.to_string()).unwrap()];
        Change::Delete { collection: CollectionId(collection), ids }
    }

    fn writer(paths: &DataPaths) -> LogWriter {
        let from = ReadFrom { after: Seq(0), at_least: Seq(0) };
        std::fs::create_dir_all(paths.log_dir()).unwrap();
        let recovery = read_from(paths, IDENTITY, from, &mut |_, _| Ok::<_, LogError>(())).unwrap();
        LogWriter::open(paths, IDENTITY, &recovery, WriterOptions { file_bytes: 600 }).unwrap()
    }

    fn write(writer: &mut LogWriter, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            writer.append_group(&mut [EncodedRecord::new(&change).unwrap()]).unwrap();
        }
    }

    fn seqs(step: TailStep) -> (Vec<u64>, u64) {
        match step {
            TailStep::Changes { changes, up_to } => (changes.iter().map(|(seq, _)| seq.0).collect(), up_to.0),
            TailStep::Gone => panic!("gone"),
        }
    }

    #[test]
    fn follows_a_growing_log_over_its_files_and_sees_one_collection() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        let mut writer = writer(&paths);
        let mut tail = LogTail::new(paths.clone(), IDENTITY, CollectionId(1), Seq(0));
        assert_eq!(seqs(tail.read(Seq(0), 1 << 20).unwrap()), (vec![], 0));
        let mut expected = 0;
        for round in 0..20u64 {
            write(&mut writer, (0..7).map(|n| change((n % 2) as u32, round * 7 + n)));
            let durable = writer.position().last_seq;
            let (read, up_to) = seqs(tail.read(durable, 1 << 20).unwrap());
            assert_eq!(read, [2, 4, 6].map(|n| round * 7 + n), "{round}");
            expected += read.len();
            assert_eq!(up_to, durable.0);
        }
        assert_eq!(expected, 60);
        assert!(writer.position().files > 3);
        let mut again = LogTail::new(paths.clone(), IDENTITY, CollectionId(1), Seq(100));
        // Nothing behind what is durable is looked at.
        assert_eq!(seqs(again.read(Seq(103), 1 << 20).unwrap()).1, 103);
        // A small bound is kept to, and nothing is passed over.
        let mut small = LogTail::new(paths, IDENTITY, CollectionId(1), Seq(0));
        let mut all = Vec::new();
        while all.len() < 60 {
            let (read, _) = seqs(small.read(Seq(140), 1).unwrap());
            assert!(read.len() <= 1);
            all.extend(read);
        }
        assert!(all.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn digests_are_the_same_wherever_they_are_read_from_and_tell_histories_apart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        let digest = |paths: &DataPaths, after| {
            LogTail::new(paths.clone(), IDENTITY, CollectionId(1), Seq(after)).digest().unwrap()
        };
        let mut writer = writer(&paths);
        assert_eq!(digest(&paths, 0), Some(0));
        write(&mut writer, (0..60).map(|n| change(1, n)));
        assert!(writer.position().files > 3);
        // Step by step, with a place that is kept, and with one that is looked for.
        let mut tail = LogTail::new(paths.clone(), IDENTITY, CollectionId(1), Seq(0));
        let mut seen = std::collections::BTreeSet::new();
        for seq in 1..=60 {
            assert_eq!(seqs(tail.read(Seq(seq), 1 << 20).unwrap()).1, seq);
            let read = tail.digest().unwrap().unwrap();
            assert_eq!(digest(&paths, seq), Some(read), "{seq}");
            assert!(seen.insert(read), "{seq}");
        }
        assert_eq!(digest(&paths, 61), None, "not written yet");
        trim(&paths, Seq(40)).unwrap();
        assert_eq!((digest(&paths, 3), digest(&paths, 60)), (None, tail.digest().unwrap()));

        // The same change at the same seq, after another history.
        let other = tempfile::tempdir().unwrap();
        let other = DataPaths::new(other.path());
        let mut writer = self::writer(&other);
        write(&mut writer, (0..59).map(|n| change(1, n + u64::from(n == 30))));
        write(&mut writer, [change(1, 59)]);
        assert_ne!(digest(&other, 60), digest(&paths, 60));
        assert!(digest(&other, 60).is_some());
    }

    #[test]
    fn what_the_disk_does_not_give_back_is_an_error_and_nothing_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        let mut writer = writer(&paths);
        write(&mut writer, (0..60).map(|n| change(1, n)));
        let file = files::list(&paths).unwrap().remove(1);
        let len = std::fs::metadata(&file.path).unwrap().len();
        let mut tail = LogTail::new(paths.clone(), IDENTITY, CollectionId(1), Seq(0));
        assert_eq!(seqs(tail.read(Seq(2), 1 << 20).unwrap()), (vec![1, 2], 2));
        for dead in [0..1, len - 1..len] {
            let first = dead.start;
            let dead = DeadSector::new(&file.path, dead);
            let error = tail.read(Seq(60), 1 << 20).unwrap_err();
            assert!(
                matches!(&error, LogError::Damaged { path, offset, .. } if *path == file.path && *offset <= first),
                "{error}"
            );
            // What stands before it can be read.
            let before = file.first_seq.0 - 1;
            assert_eq!(seqs(tail.read(Seq(before), 1 << 20).unwrap()).1, before);
            let mut within = LogTail::new(paths.clone(), IDENTITY, CollectionId(1), file.first_seq);
            assert_eq!(within.digest().is_err(), first == 0);
            drop(dead);
        }
        let (read, up_to) = seqs(tail.read(Seq(60), 1 << 20).unwrap());
        assert_eq!((read, up_to), ((file.first_seq.0..=60).collect(), 60));
    }

    #[test]
    fn says_when_the_log_begins_later() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        let mut writer = writer(&paths);
        write(&mut writer, (0..100).map(|n| change(1, n)));
        let mut behind = LogTail::new(paths.clone(), IDENTITY, CollectionId(1), Seq(3));
        assert_eq!(seqs(behind.read(Seq(5), 1 << 20).unwrap()), (vec![4, 5], 5));
        trim(&paths, Seq(60)).unwrap();
        assert_eq!(behind.read(Seq(100), 1 << 20).unwrap(), TailStep::Gone);
        let mut with = LogTail::new(paths.clone(), IDENTITY, CollectionId(1), Seq(60));
        assert_eq!(seqs(with.read(Seq(100), 1 << 20).unwrap()).0, (61..=100).collect::<Vec<_>>());
        let other = LogIdentity { timeline: 2, ..IDENTITY };
        let mut foreign = LogTail::new(paths, other, CollectionId(1), Seq(60));
        assert!(matches!(foreign.read(Seq(100), 1 << 20), Err(LogError::Foreign { .. })));
    }
}
