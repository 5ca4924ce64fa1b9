//! Where an index's files stand: mapped for reading, written without syncing, each with a checksum at its end.
//!
//! The index is derived, so its writes need not be durable and must not slow the log's syncs down. In return nothing is
//! believed: a file is compared with its checksum when it is first opened, so that what a power cut or a flipped bit
//! left is an error before the index reads it.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tantivy::directory::error::{DeleteError, LockError, OpenDirectoryError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, FileSlice, Lock, MmapDirectory, TerminatingWrite,
    WatchCallback, WatchHandle, WritePtr,
};

use crate::storage::{self, Fields, SequentialFile, StorageError, crc32c, crc32c_append};

/// Magic, crc32c of the file's name and all before it, length of all before it.
const TRAILER_BYTES: usize = 16;
const MAGIC: u32 = u32::from_le_bytes(*b"PTX2");

/// An index's directory.
#[derive(Clone, Debug)]
pub(super) struct CheckedDirectory {
    root: PathBuf,
    mapped: MmapDirectory,
    /// Names of files that were compared with their checksums. A file never changes, and a name is never used twice.
    checked: Arc<Mutex<HashSet<PathBuf>>>,
}

impl CheckedDirectory {
    /// `root` must exist.
    pub(super) fn open(root: &Path) -> Result<Self, OpenDirectoryError> {
        Ok(Self { root: root.to_owned(), mapped: MmapDirectory::open(root)?, checked: Arc::default() })
    }

    fn body(&self, path: &Path) -> Result<FileSlice, OpenReadError> {
        let whole = FileSlice::new(self.mapped.get_file_handle(path)?);
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: io::Error| OpenReadError::wrap_io_error(error, path.to_owned());
        if !checked.contains(path) {
            let bytes = whole.read_bytes().map_err(failed)?;
            body_len(path, &bytes).ok_or_else(|| failed(damaged()))?;
            checked.insert(path.to_owned());
        }
        let body_len = whole.num_bytes().get_bytes() as usize - TRAILER_BYTES;
        Ok(whole.slice_to(body_len))
    }
}

/// The operating system's answer in an error of ours, which tantivy looks at by its kind.
fn io_error(error: StorageError) -> io::Error {
    match error {
        StorageError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file does not fit its checksum")
}

/// The bytes that go behind a file's `len` bytes.
fn trailer(crc: u32, len: u64) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes[8..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// The checksum of a name that nothing is written under yet: files that changed places do not fit theirs.
fn crc_of_name(path: &Path) -> u32 {
    crc32c(path.as_os_str().as_encoded_bytes())
}

/// The length of the bytes before the trailer; `None` where they are not what was written under this name.
fn body_len(path: &Path, file: &[u8]) -> Option<usize> {
    let (body, trailer) = file.split_at(file.len().checked_sub(TRAILER_BYTES)?);
    let mut fields = Fields::new(trailer);
    let (magic, crc, len) = (fields.u32()?, fields.u32()?, fields.u64()?);
    (magic == MAGIC && len == body.len() as u64 && crc == crc32c_append(crc_of_name(path), body)).then_some(body.len())
}

impl Directory for CheckedDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        Ok(Arc::new(self.body(path)?))
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        storage::remove_unsynced(&self.root.join(path)).map_err(|error| match io_error(error) {
            error if error.kind() == io::ErrorKind::NotFound => DeleteError::FileDoesNotExist(path.to_owned()),
            error => DeleteError::IoError { io_error: Arc::new(error), filepath: path.to_owned() },
        })?;
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.mapped.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let file = SequentialFile::create_new(self.root.join(path)).map_err(|error| match io_error(error) {
            error if error.kind() == io::ErrorKind::AlreadyExists => OpenWriteError::FileAlreadyExists(path.to_owned()),
            error => OpenWriteError::wrap_io_error(error, path.to_owned()),
        })?;
        Ok(BufWriter::new(Box::new(Summed { file, crc: crc_of_name(path), len: 0 })))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        // Not through the map: the file is replaced under its name.
        let failed = |error: io::Error| OpenReadError::wrap_io_error(error, path.to_owned());
        let read = storage::read_file(&self.root.join(path)).map_err(|error| failed(io::Error::other(error)))?;
        let mut bytes = read.ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))?;
        let len = body_len(path, &bytes).ok_or_else(|| failed(damaged()))?;
        bytes.truncate(len);
        Ok(bytes)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let crc = crc32c_append(crc_of_name(path), data);
        let bytes = [data, &trailer(crc, data.len() as u64)].concat();
        storage::replace(&self.root.join(path), &bytes).map_err(io::Error::other)
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.mapped.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.mapped.watch(callback)
    }
}

/// A file being written, and the checksum of its name and what has been.
struct Summed {
    file: SequentialFile,
    crc: u32,
    len: u64,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc = crc32c_append(self.crc, &bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl TerminatingWrite for Summed {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        self.file.write_all(&trailer(self.crc, self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_fits_only_its_file() {
        let name = Path::new("1234");
        let mut file = b"56789".to_vec();
        file.extend(trailer(crc32c_append(crc_of_name(name), b"56789"), 5));
        // As of "123456789", the check value of crc32c.
        assert_eq!(&file[5..], b"PTX2\x83\x92\x06\xe3\x05\0\0\0\0\0\0\0");
        assert_eq!((body_len(name, &file), body_len(Path::new("1235"), &file)), (Some(5), None));
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(body_len(name, &flipped), None, "{bit}");
        }
        for len in 0..file.len() {
            assert_eq!(body_len(name, &file[..len]), None, "{len}");
        }
        assert_eq!(body_len(name, &trailer(crc_of_name(name), 0)), Some(0));
    }

    #[test]
    fn files_come_back_and_damage_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let directory = CheckedDirectory::open(root.path()).unwrap();
        let (name, list) = (Path::new("a.term"), Path::new("meta.json"));
        let mut writer = directory.open_write(name).unwrap();
        writer.write_all(b"hello").unwrap();
        writer.terminate().unwrap();
        assert!(matches!(directory.open_write(name), Err(OpenWriteError::FileAlreadyExists(_))));
        directory.atomic_write(list, b"{}").unwrap();
        directory.atomic_write(list, b"[1]").unwrap();
        assert_eq!(directory.open_read(name).unwrap().read_bytes().unwrap().as_slice(), b"hello");
        assert_eq!(directory.atomic_read(list).unwrap(), b"[1]");
        assert!(matches!(directory.atomic_read(Path::new("b")), Err(OpenReadError::FileDoesNotExist(_))));
        for name in [name, list] {
            let mut bytes = std::fs::read(root.path().join(name)).unwrap();
            bytes[1] ^= 4;
            std::fs::write(root.path().join(name), bytes).unwrap();
        }
        let fresh = CheckedDirectory::open(root.path()).unwrap();
        assert!(matches!(fresh.open_read(name), Err(OpenReadError::IoError { .. })));
        assert!(matches!(fresh.atomic_read(list), Err(OpenReadError::IoError { .. })));
    }
}
