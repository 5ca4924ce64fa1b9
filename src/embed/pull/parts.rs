//! A file that was cut into parts, read as one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::embed::EmbedError;
use crate::storage::list_files;

/// The parts of a file, in order.
pub(super) struct Parts {
    /// Each with where it begins and how long it is.
    files: Vec<(File, u64, u64)>,
    len_bytes: u64,
    position: u64,
}

impl Parts {
    /// Opens the files in the directory `dir` as parts, in order of their names.
    ///
    /// # Errors
    /// [`EmbedError::Storage`].
    pub(super) fn open(dir: &Path) -> Result<Self, EmbedError> {
        let paths = list_files(dir)?;
        let (mut files, mut len_bytes) = (Vec::with_capacity(paths.len()), 0);
        for path in paths {
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (len, file) = opened.map_err(|e| EmbedError::io(&path, "open", e))?;
            files.push((file, len_bytes, len));
            len_bytes += len;
        }
        Ok(Self { files, len_bytes, position: 0 })
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let position = self.position;
        // Empty parts hold no position.
        let part = self.files.iter_mut().find(|(_, start, len)| (*start..start + *len).contains(&position));
        let Some((file, start, len)) = part else { return Ok(0) };
        let offset = position - *start;
        file.seek(SeekFrom::Start(offset))?;
        let count = file.take(*len - offset).read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Parts {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.len_bytes.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::other("a position before the beginning"))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::BufReader;

    use super::*;

    #[test]
    fn parts_read_and_seek_as_the_whole() {
        let whole: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut from = 0;
        for (index, len) in [700, 0, 1, 2299, 1000].into_iter().enumerate() {
            fs::write(dir.path().join(format!("model.zip.00{}", index + 1)), &whole[from..from + len]).unwrap();
            from += len;
        }
        let mut parts = Parts::open(dir.path()).unwrap();
        let mut read = Vec::new();
        parts.read_to_end(&mut read).unwrap();
        assert_eq!(read, whole);
        let mut parts = BufReader::new(parts);
        for (to, at) in [
            (SeekFrom::Start(699), 699),
            (SeekFrom::End(-1), 3999),
            (SeekFrom::Start(701), 701),
            (SeekFrom::Current(2), 704),
            (SeekFrom::End(5), 4005),
        ] {
            assert_eq!(parts.seek(to).unwrap(), at);
            let mut one = [0; 1];
            let expected = usize::from(at < 4000);
            assert_eq!(parts.read(&mut one).unwrap(), expected, "{to:?}");
            assert!(expected == 0 || one[0] == whole[at as usize], "{to:?}");
        }
        assert!(parts.seek(SeekFrom::Start(0)).is_ok() && parts.seek(SeekFrom::Current(-1)).is_err());
    }
}
