//! The one place that changes files and directories: every change passes here, where tests watch, fail and record it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

#[cfg(test)]
use super::fault::{self, Step};

/// Does a change, as one step of the history that tests see.
#[cfg(test)]
macro_rules! change {
    ($step:expr, $act:expr) => {
        fault::pass($step, || $act)
    };
}
#[cfg(not(test))]
macro_rules! change {
    ($step:expr, $act:expr) => {
        $act
    };
}

/// An open file and its name. Reads and writes name their place, so that threads can share it.
#[derive(Debug)]
pub(super) struct DiskFile {
    path: PathBuf,
    file: File,
}

impl DiskFile {
    /// Makes an empty file; what stood there is emptied.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = change!(Step::CreateFile { path: &path }, open())?;
        Ok(Self { path, file })
    }

    /// Makes an empty file that nobody but its owner may read; what stood there is emptied.
    #[cfg(feature = "postgres")]
    pub(super) fn create_private(path: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = change!(Step::CreateFile { path: &path }, options.open(&path))?;
        Ok(Self { path, file })
    }

    /// Makes an empty file where there is none.
    #[cfg(feature = "text")]
    pub(super) fn create_new(path: PathBuf) -> io::Result<Self> {
        let open = || OpenOptions::new().write(true).create_new(true).open(&path);
        let file = change!(Step::OpenOrCreate { path: &path }, open())?;
        Ok(Self { path, file })
    }

    /// Opens a file that is there.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Opens a file that is there, only to be read.
    pub(super) fn open_to_read(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        Ok(Self { path, file })
    }

    /// Opens a file, or makes an empty one where there is none.
    pub(super) fn open_or_create(path: PathBuf) -> io::Result<Self> {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = change!(Step::OpenOrCreate { path: &path }, open())?;
        Ok(Self { path, file })
    }

    /// Under the name that it was given.
    pub(super) fn renamed(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The system's handle, for locking.
    pub(super) fn handle(&self) -> &File {
        &self.file
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads from `offset` on as many bytes as there are, up to all of `bytes`; returns how many.
    pub(super) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        #[cfg(test)]
        fault::pass_read(&self.path, offset, bytes.len())?;
        let mut done = 0;
        while done < bytes.len() {
            match read_once(&self.file, offset + done as u64, &mut bytes[done..]) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes` from `offset` on; a gap before them reads as zeros. After an error any part may be
    /// written.
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        return fault::pass_write(&self.path, offset, bytes, |part| write_all(&self.file, offset, part));
        #[cfg(not(test))]
        write_all(&self.file, offset, bytes)
    }

    pub(super) fn truncate(&self, len: u64) -> io::Result<()> {
        change!(Step::Truncate { path: &self.path, len }, self.file.set_len(len))
    }

    /// Makes the bytes and the length durable.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        change!(Step::SyncFile { path: &self.path }, self.file.sync_data())
    }

    /// Makes the bytes and everything else of the file durable.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        change!(Step::SyncFile { path: &self.path }, self.file.sync_all())
    }
}

/// Opens a file that is there, only to be read, and waits for nobody at the other end of it.
#[cfg(feature = "postgres")]
pub(super) fn open_unwaiting(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    options.open(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    change!(Step::Rename { from, to }, fs::rename(from, to))
}

/// Gives a file a second name, which must not be taken.
pub(super) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    change!(Step::Link { from, to }, fs::hard_link(from, to))
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    change!(Step::RemoveFile { path }, fs::remove_file(path))
}

pub(super) fn remove_dir_all(path: &Path) -> io::Result<()> {
    change!(Step::RemoveDir { path }, fs::remove_dir_all(path))
}

pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    change!(Step::CreateDir { path }, fs::create_dir(path))
}

/// A directory that is open. Only Unix lets a directory be opened and synced; elsewhere a rename itself is what there
/// is.
#[derive(Debug)]
pub(super) struct DiskDirectory {
    path: PathBuf,
    file: Option<File>,
}

impl DiskDirectory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = if cfg!(unix) { Some(File::open(path)?) } else { None };
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes names created, renamed and removed in it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        change!(Step::SyncDir { path: &self.path }, self.file.as_ref().map_or(Ok(()), File::sync_all))
    }
}

fn write_all(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write_once(file, offset + done as u64, &bytes[done..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_once(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset)
}

#[cfg(unix)]
fn write_once(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_once(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset)
}

#[cfg(windows)]
fn write_once(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}
