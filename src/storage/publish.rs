//! Atomic publishing: a file appears under its name whole and durable, or not at all.

use std::ffi::OsStr;
use std::fs::TryLockError;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::StorageError;
use super::append::AppendFile;
use super::directory::{list_files, open_directory, parent_of, remove_file, sync_opened};
use super::disk::{self, DiskFile};
use super::sequential::SequentialFile;

/// Ends the names of unpublished files.
const TEMPORARY: &str = "tmp";
/// Bytes written at once: a large page of memory. The system's cache then holds the file in such pages, and maps of it
/// need few entries of the processor's table of pages.
const BUFFER_BYTES: usize = 2 << 20;

/// Keeps the temporaries of one path apart when two threads publish to it.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Writes a file whole: temporary, fsync, rename, fsync of the directory. What stood at `path` is replaced.
///
/// # Errors
/// [`StorageError::Io`]; `path` then holds what it held before or, if only the last step failed, the new bytes.
pub fn publish(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    Publishing::create(path)?.finish(bytes)
}

/// Writes a file whole, as [`publish`] does, that nobody but its owner may read at any moment: a secret may be in it.
///
/// # Errors
/// As [`publish`].
#[cfg(feature = "postgres")]
pub fn publish_private(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    Publishing::begin(path, DiskFile::create_private)?.finish(bytes)
}

/// Writes a file whole, as [`publish`] does but without a sync: after a power cut it may hold the old bytes, the new
/// ones, or neither. Only for what is derived and checked when it is read.
///
/// # Errors
/// [`StorageError::Io`]; `path` then holds what it held before.
#[cfg(any(test, feature = "text", feature = "fuzzing"))]
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = next_temporary(path);
    DiskFile::create(temporary.clone())
        .and_then(|file| file.write_at(0, bytes))
        .and_then(|()| disk::rename(&temporary, path))
        .map_err(|e| StorageError::io(path, "replace", e))
}

fn next_temporary(path: &Path) -> PathBuf {
    let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{number}.{TEMPORARY}"));
    temporary.into()
}

/// Removes what publishings that were cut short left in `dir`. Call it only while nothing is being published there.
///
/// Returns how many files were removed.
///
/// # Errors
/// [`StorageError::Io`].
pub fn remove_temporaries(dir: &Path) -> Result<usize, StorageError> {
    let mut removed = 0;
    for file in list_files(dir)? {
        if file.extension() == Some(OsStr::new(TEMPORARY)) {
            remove_file(&file)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The temporaries of one path.
fn temporaries_of(path: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut start = path.file_name().unwrap_or_default().to_owned();
    start.push(".");
    let is_one = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        let number = name.strip_prefix(start.as_encoded_bytes()).and_then(|rest| rest.strip_suffix(b".tmp"));
        number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    };
    Ok(list_files(parent_of(path))?.into_iter().filter(is_one).collect())
}

/// A file being written under a temporary name. Dropped without [`Publishing::commit`], it leaves nothing.
#[derive(Debug)]
pub struct Publishing {
    path: PathBuf,
    temporary: PathBuf,
    position: u64,
    /// `None` once the temporary has its final name, or is to be left to the next start's clean-up.
    writer: Option<BufWriter<SequentialFile>>,
}

impl Publishing {
    /// Begins a file that will stand at `path`; its directory must exist.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn create(path: &Path) -> Result<Self, StorageError> {
        Self::begin(path, DiskFile::create)
    }

    fn begin(path: &Path, create: fn(PathBuf) -> io::Result<DiskFile>) -> Result<Self, StorageError> {
        let temporary = next_temporary(path);
        let file = create(temporary.clone()).map_err(|e| StorageError::io(&temporary, "create", e))?;
        let writer = Some(BufWriter::with_capacity(BUFFER_BYTES, SequentialFile::new(file)));
        Ok(Self { path: path.to_owned(), temporary, position: 0, writer })
    }

    /// Begins a file outside the data directory, where no start cleans up: removes what processes that died while they
    /// wrote the same file left. The temporary is locked as long as it is written.
    ///
    /// # Errors
    /// [`StorageError::Io`], also while another process writes the same file.
    pub fn create_outside(path: &Path) -> Result<Self, StorageError> {
        for left in temporaries_of(path)? {
            let file = DiskFile::open_to_read(left.clone()).map_err(|e| StorageError::io(&left, "open", e))?;
            match file.handle().try_lock() {
                Ok(()) => remove_file(&left)?,
                Err(TryLockError::WouldBlock) => {
                    let reason = io::Error::other("another process is writing it");
                    return Err(StorageError::io(path, "write", reason));
                }
                // Not every file system has locks; then nothing tells whether it is still written.
                Err(TryLockError::Error(_)) => {}
            }
        }
        let mut publishing = Self::create(path)?;
        if let Err(error) = publishing.writer().get_ref().try_lock() {
            tracing::debug!(%error, "a temporary file cannot be locked");
        }
        Ok(publishing)
    }

    /// Writes all of the file, and commits it.
    fn finish(mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.write_all(bytes).map_err(|e| StorageError::io(&self.path, "write", e))?;
        self.commit()
    }

    /// Where the next byte goes, counted from the file's start.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`StorageError::Io`], as for [`publish`].
    pub fn commit(self) -> Result<(), StorageError> {
        self.commit_open().map(drop)
    }

    /// As [`Publishing::commit`], and hands the file out: to open it by its name would take one more descriptor, which
    /// there may not be.
    ///
    /// # Errors
    /// As [`Publishing::commit`].
    pub fn commit_open(mut self) -> Result<AppendFile, StorageError> {
        self.writer().flush().map_err(|e| StorageError::io(&self.temporary, "write", e))?;
        self.writer().get_ref().sync().map_err(|e| StorageError::sync(&self.temporary, e))?;
        let len = self.writer().get_ref().len();
        let len = len.map_err(|e| StorageError::io(&self.temporary, "read the length of", e))?;
        let directory = open_directory(parent_of(&self.path))?;
        disk::rename(&self.temporary, &self.path).map_err(|e| StorageError::io(&self.path, "publish", e))?;
        let writer = self.writer.take().expect("only this, which consumes self, takes the writer");
        sync_opened(&directory)?;
        // Nothing is buffered: it was flushed above.
        let (file, _) = writer.into_parts();
        Ok(AppendFile::new(file.into_disk().renamed(self.path.clone()), len))
    }

    fn writer(&mut self) -> &mut BufWriter<SequentialFile> {
        self.writer.as_mut().expect("only commit_open, which consumes self, takes the writer")
    }
}

impl Write for Publishing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Never beyond the end of a buffer, so that each begins at a multiple of its size.
        let room = BUFFER_BYTES - (self.position % BUFFER_BYTES as u64) as usize;
        let written = self.writer().write(&bytes[..bytes.len().min(room)])?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

impl Seek for Publishing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.writer().seek(to)?;
        Ok(self.position)
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        // What is still buffered must not be written to a file that nobody wants.
        let (file, _) = writer.into_parts();
        drop(file);
        // A temporary that cannot be removed now goes at the next start, by `remove_temporaries`.
        if let Err(error) = disk::remove_file(&self.temporary) {
            tracing::debug!(path = %self.temporary.display(), %error, "a temporary file was left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fault::{Faults, Operation, Then};
    use std::fs;

    #[test]
    fn the_order_is_write_sync_rename_sync() {
        let dir = tempfile::tempdir().unwrap();
        let faults = Faults::watch(dir.path());
        publish(&dir.path().join("a"), b"new").unwrap();
        use Operation::{Create, Rename, Sync, Write};
        assert_eq!(faults.seen(), [Create, Write, Sync, Rename, Sync]);
    }

    #[cfg(all(unix, feature = "postgres"))]
    #[test]
    fn a_private_file_is_its_owners_from_the_first_byte_on() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let publishing = Publishing::begin(&path, DiskFile::create_private).unwrap();
        assert_eq!(mode(&publishing.temporary), 0o600);
        publishing.finish(b"secret").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap().as_slice()), (0o600, b"secret".as_slice()));
    }

    #[test]
    fn a_crash_at_every_step_leaves_the_old_bytes_or_the_new() {
        for then in [Then::Crash, Then::Recover] {
            let mut outcomes = Vec::new();
            for fail_at in 0.. {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("a");
                publish(&path, b"old").unwrap();
                let faults = Faults::arm(dir.path(), fail_at, then);
                let result = publish(&path, b"the new bytes");
                let fired = faults.fired();
                drop(faults);
                assert_eq!(result.is_err(), fired, "{fail_at}");
                let bytes = fs::read(&path).unwrap();
                assert!(bytes == b"old" || bytes == b"the new bytes", "{fail_at}: {bytes:?}");
                let left = remove_temporaries(dir.path()).unwrap();
                assert!(left == 0 || then == Then::Crash, "{fail_at}: {left}");
                assert_eq!(list_files(dir.path()).unwrap(), [path]);
                outcomes.push(bytes == b"old");
                if !fired {
                    break;
                }
            }
            assert_eq!(outcomes, [true, true, true, true, false, false], "{then:?}");
        }
    }

    #[test]
    fn what_the_dead_left_of_a_file_is_removed_and_what_is_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for name in ["a.7.tmp", "a.x.tmp", "ab.7.tmp"] {
            fs::write(dir.path().join(name), b"half").unwrap();
        }
        let publishing = Publishing::create_outside(&path).unwrap();
        assert!(Publishing::create_outside(&path).is_err(), "it is being written");
        publishing.commit().unwrap();
        assert_eq!(list_files(dir.path()).unwrap(), ["a", "a.x.tmp", "ab.7.tmp"].map(|name| dir.path().join(name)));
    }

    #[test]
    fn a_committed_file_can_be_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut publishing = Publishing::create(&path).unwrap();
        publishing.write_all(b"head").unwrap();
        let mut file = publishing.commit_open().unwrap();
        assert_eq!((file.path(), file.len()), (path.as_path(), 4));
        file.append(b", body").unwrap();
        file.sync_data().unwrap();
        file.rewrite_from(2).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"head, body");
    }

    #[test]
    fn dropped_uncommitted_it_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut publishing = Publishing::create(&path).unwrap();
        publishing.write_all(b"half").unwrap();
        drop(publishing);
        assert_eq!(list_files(dir.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_header_can_be_filled_in_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut publishing = Publishing::create(&path).unwrap();
        publishing.write_all(&[0; 4]).unwrap();
        publishing.write_all(b"body").unwrap();
        assert_eq!(publishing.position(), 8);
        publishing.seek(SeekFrom::Start(0)).unwrap();
        publishing.write_all(b"head").unwrap();
        assert_eq!(publishing.position(), 4);
        publishing.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"headbody");
    }
}
