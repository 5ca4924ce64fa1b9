//! Files mapped into memory, with checked views of their numbers.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

#[cfg(any(test, feature = "local-models", target_os = "linux"))]
use memmap2::Advice;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use super::StorageError;

#[cfg(target_endian = "big")]
compile_error!("stored numbers are little-endian and are read where they lie; this target is big-endian");

mod sealed {
    pub trait Sealed {}
}

/// Numbers that every bit pattern is a value of, so that any bytes of their size can be read as one.
pub trait Plain: sealed::Sealed + Copy + 'static {}

macro_rules! plain {
    ($($number:ty),*) => { $(impl sealed::Sealed for $number {} impl Plain for $number {})* };
}
plain!(i8, u8, u16, u32, u64, i64, f32);

/// A whole file, mapped read-only.
///
/// The file must not be truncated or written while it is mapped: map only published files, which never change, and
/// files of the log before a writer opens them. Another program that truncates one makes reads of it fail with SIGBUS.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl Mapped {
    /// Maps the file `path`.
    ///
    /// # Errors
    /// [`StorageError::Io`] when it cannot be opened or mapped.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        let file = File::open(&path).map_err(|e| StorageError::io(&path, "open", e))?;
        let len = file.metadata().map_err(|e| StorageError::io(&path, "read the length of", e))?.len();
        if len == 0 {
            return Ok(Self { path, map: None });
        }
        // SAFETY: the map is read-only, and this program, which holds the directory's lock, neither writes nor
        // truncates a file while it is mapped; removing it only unlinks the name. Covered by `views_are_checked`.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| StorageError::io(&path, "map", e))?;
        Ok(Self { path, map: Some(map) })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every byte of the file.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// The bytes of `range` as numbers; `None` where the range leaves the file, is not a multiple of the number's size
    /// or does not begin at its alignment. An empty range is an empty view.
    #[inline]
    pub fn view<T: Plain>(&self, range: Range<usize>) -> Option<&[T]> {
        let bytes = self.bytes().get(range)?;
        if bytes.is_empty() {
            return Some(&[]);
        }
        let start = bytes.as_ptr().cast::<T>();
        if !bytes.len().is_multiple_of(size_of::<T>()) || !start.is_aligned() {
            return None;
        }
        // SAFETY: `start` is aligned and followed by `bytes.len()` readable bytes that live as long as `self`; `Plain`
        // types take any bit pattern; nothing writes to the map. Covered by `views_are_checked`.
        Some(unsafe { std::slice::from_raw_parts(start, bytes.len() / size_of::<T>()) })
    }

    /// The bytes of `range` as f32, under the conditions of [`Mapped::view`].
    #[cfg(any(test, feature = "local-models"))]
    #[inline]
    pub fn f32s(&self, range: Range<usize>) -> Option<&[f32]> {
        self.view(range)
    }

    /// Tells the operating system that reads will jump about, so that it reads no pages ahead.
    #[cfg(any(test, feature = "local-models"))]
    pub fn advise_random(&self) {
        self.advise(Advice::Random);
    }

    /// Tells the operating system that reads jump about in these bytes all the time, so that it maps them in large
    /// pages where its cache of the file has such, and reads them into such.
    pub fn advise_large_pages(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        self.advise_range(Advice::HugePage, range);
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Tells the operating system that little of these bytes is read, here and there, so that it maps no large pages.
    pub fn advise_small_pages(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        self.advise_range(Advice::NoHugePage, range);
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Takes these bytes out of the memory that counts as this process's, until they are read again. The system's cache
    /// of the file keeps them as long as it likes.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = &self.map
            && range.end <= map.len()
            && !range.is_empty()
        {
            // SAFETY: pages of a shared map of a file that is only read are mapped again, with the same bytes, by the
            // next read. Covered by `what_is_released_is_read_again`.
            let done = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            if let Err(error) = done {
                tracing::debug!(path = %self.path.display(), %error, "pages of a mapped file were not released");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    #[cfg(target_os = "linux")]
    fn advise_range(&self, advice: Advice, range: Range<usize>) {
        if let Some(map) = &self.map
            && range.end <= map.len()
            && !range.is_empty()
            && let Err(error) = map.advise_range(advice, range.start, range.len())
        {
            tracing::debug!(path = %self.path.display(), ?advice, %error, "advice on a mapped file was refused");
        }
    }

    /// Advice changes only speed, so a system that refuses it is no error.
    #[cfg(any(test, feature = "local-models"))]
    fn advise(&self, advice: Advice) {
        if let Some(map) = &self.map
            && let Err(error) = map.advise(advice)
        {
            tracing::debug!(path = %self.path.display(), ?advice, %error, "advice on a mapped file was refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut bytes = Vec::new();
        bytes.extend(1.5f32.to_le_bytes());
        bytes.extend((-2.0f32).to_le_bytes());
        bytes.extend(u64::MAX.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let mapped = Mapped::open(&path).unwrap();
        assert_eq!(mapped.bytes(), bytes);
        assert_eq!(mapped.f32s(0..8), Some([1.5, -2.0].as_slice()));
        assert_eq!(mapped.view::<u64>(8..16), Some([u64::MAX].as_slice()));
        assert_eq!(mapped.view::<i64>(8..16), Some([-1].as_slice()));
        assert_eq!(mapped.view::<i8>(9..11), Some([-1, -1].as_slice()));
        assert_eq!(mapped.view::<u32>(0..4), Some([0x3fc0_0000].as_slice()));
        assert_eq!(mapped.f32s(1..5), None, "not aligned");
        assert_eq!(mapped.f32s(0..7), None, "not a multiple of four");
        assert_eq!(mapped.f32s(8..20), None, "beyond the end");
        #[expect(clippy::reversed_empty_ranges, reason = "a range read from a damaged file may be reversed")]
        let reversed = mapped.f32s(8..4);
        assert_eq!(reversed, None);
        mapped.advise_random();
        mapped.advise_large_pages(3..13);
        mapped.advise_large_pages(9..9);
        mapped.advise_large_pages(0..99);
    }

    #[test]
    fn what_is_released_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mapped = Mapped::open(&path).unwrap();
        mapped.advise_small_pages(5_000..150_000);
        mapped.advise_small_pages(0..999_999);
        let held = mapped.view::<u8>(0..200_000).unwrap();
        for range in [0..200_000, 4_095..4_097, 100_000..100_001, 7..7, 0..200_001] {
            assert_eq!(held, bytes);
            mapped.release(range);
            assert_eq!(held, bytes);
        }
    }

    #[test]
    fn an_empty_file_has_no_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, []).unwrap();
        let mapped = Mapped::open(&path).unwrap();
        assert_eq!((mapped.bytes(), mapped.f32s(0..0)), ([].as_slice(), Some([].as_slice())));
        assert_eq!(mapped.path(), path);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Mapped::open("/nowhere/a").unwrap_err();
        assert_eq!(error.to_string(), "cannot open /nowhere/a");
    }
}
