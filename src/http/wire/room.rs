//! Memory for values that a client nests and names as it likes: they take many times their text, so they are counted
//! while they are read.

use std::cell::Cell;

use serde::de::Error;

use crate::types::Value;

/// How the message starts when [`within`] its bytes there was not enough.
pub(super) const REFUSED: &str = "values take more than";
/// Bytes of an array, beside those of its items: room for four at first.
pub(super) const ARRAY_BYTES: usize = 4 * ITEM_BYTES;
/// Bytes of an item of an array.
pub(super) const ITEM_BYTES: usize = size_of::<Value>();
/// Bytes of an object that is not empty, beside those of its entries: a node of a B-tree has eleven places.
pub(super) const OBJECT_BYTES: usize = 11 * (size_of::<String>() + ITEM_BYTES);
/// Bytes of an entry of an object, its share of a node and its key.
pub(super) const ENTRY_BYTES: usize = 4 * ITEM_BYTES;
/// Bytes of a string, beside its characters.
pub(super) const STRING_BYTES: usize = 32;

thread_local! {
    /// All bytes that the values at hand may take, and those that are left.
    static ROOM: Cell<(usize, usize)> = const { Cell::new((usize::MAX, usize::MAX)) };
}

/// Reads values that may take so many `bytes` of memory, and none beyond the room that there is around this call.
pub(super) fn within<T>(bytes: usize, read: impl FnOnce() -> T) -> T {
    /// Puts the room around back, less what was taken, also when `read` panics.
    struct Restore {
        around: (usize, usize),
        bytes: usize,
    }
    impl Drop for Restore {
        fn drop(&mut self) {
            let (all, left) = self.around;
            let taken = self.bytes - ROOM.get().1;
            ROOM.set((all, left - taken));
        }
    }
    let around = ROOM.get();
    let bytes = bytes.min(around.1);
    ROOM.set((bytes, bytes));
    let _restore = Restore { around, bytes };
    read()
}

/// Bytes that were taken of the room at hand.
pub(super) fn taken() -> usize {
    let (all, left) = ROOM.get();
    all - left
}

/// Takes so many bytes.
///
/// # Errors
/// Where there are not so many any more.
pub(super) fn take<E: Error>(bytes: usize) -> Result<(), E> {
    let (all, left) = ROOM.get();
    match left.checked_sub(bytes) {
        Some(left) => {
            ROOM.set((all, left));
            Ok(())
        }
        None => Err(E::custom(format_args!("{REFUSED} {} MiB of memory; send less at once", all >> 20))),
    }
}
