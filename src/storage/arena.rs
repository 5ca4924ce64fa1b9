//! Memory without a file, in large pages.

use std::alloc::{Layout, handle_alloc_error};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::{MmapOptions, MmapRaw};

use super::Plain;

/// Memory for large tables that are written once and read often, in the system's large pages where it has them: a page
/// of 4 KiB ends what the hardware reads ahead. Tables of one arena lie side by side, so that large pages are filled.
#[derive(Debug, Default)]
pub struct Arena {
    /// The map that tables are cut from, and how much of it is cut.
    current: Mutex<Option<(Arc<MmapRaw>, usize)>>,
}

/// A table cut from an [`Arena`]; its numbers belong to it alone. It begins at a cache line.
#[derive(Debug)]
pub struct Piece<T: Plain> {
    map: Arc<MmapRaw>,
    /// Where it begins in the map, in bytes.
    from: usize,
    len: usize,
    numbers: PhantomData<T>,
}

/// Bytes of a map that many tables share. What no table has written takes no memory.
const ARENA_BYTES: usize = 32 << 20;
const CACHE_LINE_BYTES: usize = 64;

impl Arena {
    /// `len` zeros. Ends the process where memory is exhausted, as every allocation does.
    pub fn zeroed<T: Plain>(&self, len: usize) -> Piece<T> {
        let layout = Layout::array::<T>(len).expect("a table is smaller than the address space");
        let len_bytes = layout.size().next_multiple_of(CACHE_LINE_BYTES);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, from) = match current.take() {
            Some((map, used)) if map.len() - used >= len_bytes => (map, used),
            _ => (Arc::new(anonymous(len_bytes.max(ARENA_BYTES)).unwrap_or_else(|_| handle_alloc_error(layout))), 0),
        };
        *current = Some((Arc::clone(&map), from + len_bytes));
        Piece { map, from, len, numbers: PhantomData }
    }
}

/// A map of zeros that asks for large pages.
fn anonymous(len_bytes: usize) -> std::io::Result<MmapRaw> {
    let map = MmapRaw::from(MmapOptions::new().len(len_bytes).map_anon()?);
    #[cfg(target_os = "linux")]
    if let Err(error) = map.advise(Advice::HugePage) {
        tracing::debug!(%error, "the system has no large pages");
    }
    Ok(map)
}

impl<T: Plain> Piece<T> {
    /// Its numbers.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: the arena cut `from..from + len` for this piece alone, aligned to a cache line, from a map that
        // `self` keeps; any bytes are a `Plain` number; `&self` keeps writers away. Covered by `pieces_are_apart`.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }

    /// Its numbers, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` is the only way to these numbers.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }

    fn start(&self) -> *mut T {
        self.map.as_mut_ptr().wrapping_add(self.from).cast()
    }
}

impl<T: Plain> AsRef<[T]> for Piece<T> {
    fn as_ref(&self) -> &[T] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_apart() {
        let arena = Arena::default();
        let mut pieces: Vec<Piece<u32>> = (0..100).map(|i| arena.zeroed(i * 37)).collect();
        let mut large: Piece<i8> = arena.zeroed(ARENA_BYTES + 1);
        let mut last: Piece<f32> = arena.zeroed(3);
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert!(piece.as_slice().iter().all(|&x| x == 0));
            assert!(piece.as_slice().as_ptr().addr().is_multiple_of(CACHE_LINE_BYTES));
            piece.as_mut_slice().fill(i as u32);
        }
        large.as_mut_slice().fill(-1);
        last.as_mut_slice().fill(1.5);
        drop(arena);
        for (i, piece) in pieces.iter().enumerate() {
            assert_eq!(piece.as_slice(), vec![i as u32; i * 37]);
        }
        assert!(large.as_slice().len() == ARENA_BYTES + 1 && large.as_slice().iter().all(|&x| x == -1));
        assert_eq!(last.as_slice(), [1.5; 3]);
    }
}
