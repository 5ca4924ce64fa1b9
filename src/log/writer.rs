//! Appends groups of records, one write and one sync each, and begins new files.

use std::io::Write;

use super::format::{FILE_HEADER_BYTES, FileHeader, LogIdentity};
use super::newest::{self, Mark};
use super::reader::{LogEnd, Recovery};
use super::{EncodedRecord, LogError};
use crate::storage::{
    AppendFile, DataPaths, Publishing, StorageError, crc32c, crc32c_append, create_dir_all, is_disk_full,
    is_failed_sync, remove_temporaries,
};
use crate::types::{Chain, Seq};

/// Settings of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// A file that has reached this many bytes is followed by a new one.
    pub file_bytes: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { file_bytes: 64 << 20 }
    }
}

/// How far the log reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// Seq of the last durable change.
    pub last_seq: Seq,
    /// Bytes of all log files.
    pub bytes: u64,
    /// Bytes of the newest one.
    pub newest_bytes: u64,
    /// Number of log files.
    pub files: usize,
}

/// The end of the log, open for appending. There is one in a process, under the directory's lock.
#[derive(Debug)]
pub struct LogWriter {
    paths: DataPaths,
    identity: LogIdentity,
    options: WriterOptions,
    file: AppendFile,
    tag: u32,
    /// crc32c of the whole file, which the next file's header names.
    crc: u32,
    position: LogPosition,
    /// First seq of the present file.
    first_seq: Seq,
    /// The length that the present file is marked with as the newest, if it is.
    marked_len: Option<u64>,
    /// Why nothing more is written. Set by the first failed sync, or failed write that could not be undone, and never
    /// cleared.
    failed: Option<String>,
    buffer: Vec<u8>,
}

impl LogWriter {
    /// Opens the log at the end that [`super::read_from`] found; a log without files gets its first one, which begins
    /// after `recovery.last_seq`.
    ///
    /// # Errors
    /// [`LogError::Storage`]; [`LogError::BadHeader`] when the newest file is not as it was read.
    pub fn open(
        paths: &DataPaths,
        identity: LogIdentity,
        recovery: &Recovery,
        options: WriterOptions,
    ) -> Result<Self, LogError> {
        create_dir_all(&paths.log_dir())?;
        remove_temporaries(&paths.log_dir())?;
        let mut position = LogPosition {
            last_seq: recovery.last_seq,
            bytes: recovery.len_bytes,
            newest_bytes: 0,
            files: recovery.files,
        };
        let (end, mut file) = match &recovery.end {
            Some(end) => (end.clone(), AppendFile::open(paths.log_file(end.first_seq.0))?),
            None => {
                position.files = 1;
                position.bytes = FILE_HEADER_BYTES as u64;
                let (first_seq, previous_len, previous_crc) = (recovery.last_seq.next(), 0, 0);
                create_file(paths, FileHeader { identity, first_seq, previous_len, previous_crc })?
            }
        };
        position.newest_bytes = end.len;
        if file.len() != end.len {
            let reason = format!("it has {} bytes and had {} when it was read", file.len(), end.len);
            return Err(LogError::BadHeader { path: file.path().to_owned(), reason });
        }
        if end.last_group < end.len {
            file.rewrite_from(end.last_group)?;
        }
        let mark = newest::marked(paths)?.filter(|mark| mark.first_seq == end.first_seq);
        let marked_len = mark.map(|mark| mark.len);
        let (paths, first_seq, tag, crc) = (paths.clone(), end.first_seq, end.tag, end.crc);
        let (failed, buffer) = (None, Vec::new());
        let mut writer =
            Self { paths, identity, options, file, tag, crc, position, first_seq, marked_len, failed, buffer };
        match writer.mark_length() {
            Err(Refusal::Final(error)) => Err(error.into()),
            // A full disk can be read from; the first change tries again.
            Err(Refusal::Undone(_)) | Ok(()) => Ok(writer),
        }
    }

    /// Appends one group and makes it durable. The records get the seqs after [`LogPosition::last_seq`], in order.
    ///
    /// Returns the last record's seq.
    ///
    /// # Errors
    /// [`LogError::NotWritten`] when the disk refused the write, as a full one does: the group is not in the log, and a
    /// later one may succeed. [`LogError::Failed`], now and from now on, when the sync failed: the group may be in the
    /// log or not, and the sync is not tried again.
    ///
    /// # Panics
    /// When there are more than 65,536 records.
    pub fn append_group(&mut self, records: &mut [EncodedRecord]) -> Result<Seq, LogError> {
        self.guarded(|writer| writer.try_append(records))?;
        Ok(self.position.last_seq)
    }

    /// Goes on in a new file, so that the present one can be deleted once nothing needs it. Does nothing while the
    /// present file holds no record.
    ///
    /// # Errors
    /// As [`LogWriter::append_group`]; after [`LogError::NotWritten`] the present file is still the newest.
    pub fn rotate(&mut self) -> Result<(), LogError> {
        self.guarded(Self::try_rotate)
    }

    /// Notes how long the log is, so that an end which is cut off later is missed. It can be written to afterwards.
    ///
    /// # Errors
    /// As [`LogWriter::append_group`]; nothing that was acknowledged depends on it.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.guarded(Self::mark_length)
    }

    /// Where the log is.
    pub(super) fn paths(&self) -> &DataPaths {
        &self.paths
    }

    /// How far the log reaches, without what was trimmed since it was opened.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Refusal>) -> Result<(), LogError> {
        if self.failed.is_none() {
            match step(self) {
                Ok(()) => {}
                Err(Refusal::Undone(error)) => {
                    return Err(LogError::NotWritten {
                        disk_full: is_disk_full(&error),
                        reason: Chain(&error).to_string(),
                    });
                }
                Err(Refusal::Final(error)) => self.failed = Some(Chain(&error).to_string()),
            }
        }
        self.failed.clone().map_or(Ok(()), |reason| Err(LogError::Failed { reason }))
    }

    fn try_append(&mut self, records: &mut [EncodedRecord]) -> Result<(), Refusal> {
        assert!(records.len() <= 1 + usize::from(u16::MAX), "{} records in one group", records.len());
        if self.file.len() >= self.options.file_bytes {
            self.try_rotate()?;
        }
        if self.marked_len.is_none() {
            self.mark_length()?;
        }
        let mut seq = self.position.last_seq;
        for (index, record) in (0..=u16::MAX).zip(&mut *records) {
            seq = seq.next();
            record.stamp(seq, self.tag, index);
        }
        let bytes = match records {
            [] => return Ok(()),
            // The common case of one writer, and of one large record: nothing to gather.
            [record] => record.bytes(),
            records => {
                self.buffer.clear();
                records.iter().for_each(|record| self.buffer.extend_from_slice(record.bytes()));
                &self.buffer
            }
        };
        let len = self.file.len();
        if let Err(error) = self.file.append(bytes) {
            // What was written in part is cut and the cut is made durable, so that the group cannot come back.
            self.file.truncate(len).map_err(Refusal::Final)?;
            return Err(Refusal::Undone(error));
        }
        self.crc = crc32c_append(self.crc, bytes);
        self.position.bytes += bytes.len() as u64;
        self.position.newest_bytes = self.file.len();
        self.file.sync_data().map_err(Refusal::Final)?;
        self.position.last_seq = seq;
        Ok(())
    }

    fn try_rotate(&mut self) -> Result<(), Refusal> {
        if self.file.len() == FILE_HEADER_BYTES as u64 {
            return Ok(());
        }
        let header = FileHeader {
            identity: self.identity,
            first_seq: self.position.last_seq.next(),
            previous_len: self.file.len(),
            previous_crc: self.crc,
        };
        let (end, file) = create_file(&self.paths, header).map_err(|error| match is_failed_sync(&error) {
            // The file may have got its name, and then nothing more may go into the one before it.
            true => Refusal::Final(error),
            false => Refusal::Undone(error),
        })?;
        self.file = file;
        (self.tag, self.crc) = (end.tag, end.crc);
        self.position.files += 1;
        self.position.bytes += end.len;
        self.position.newest_bytes = end.len;
        (self.first_seq, self.marked_len) = (end.first_seq, None);
        self.mark_length()
    }

    /// Marks the present file as the newest with its length, unless it is. All of its bytes are durable.
    fn mark_length(&mut self) -> Result<(), Refusal> {
        let len = self.file.len();
        if self.marked_len != Some(len) {
            newest::mark(&self.paths, Mark { first_seq: self.first_seq, len }).map_err(
                |error| match is_failed_sync(&error) {
                    true => Refusal::Final(error),
                    false => Refusal::Undone(error),
                },
            )?;
            self.marked_len = Some(len);
        }
        Ok(())
    }
}

/// Why a step was not done.
enum Refusal {
    /// The log is as it was before.
    Undone(StorageError),
    /// What the log holds is not known.
    Final(StorageError),
}

/// Publishes a file that holds its header alone, and leaves it open: once it has its name nothing more may go into the
/// one before it, so nothing but a sync may fail from there on.
fn create_file(paths: &DataPaths, header: FileHeader) -> Result<(LogEnd, AppendFile), StorageError> {
    let (path, bytes) = (paths.log_file(header.first_seq.0), header.encode());
    let mut publishing = Publishing::create(&path)?;
    publishing.write_all(&bytes).map_err(|e| StorageError::io(&path, "write", e))?;
    let file = publishing.commit_open()?;
    let len = file.len();
    Ok((LogEnd { first_seq: header.first_seq, tag: header.tag(), len, crc: crc32c(&bytes), last_group: len }, file))
}
