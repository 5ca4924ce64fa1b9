//! Bytes and files: paths, atomic publishing, mapping, checksums, the lock, appending; threads in the background, free
//! memory. Nothing about vectors.

mod append;
mod arena;
mod background;
mod checksum;
mod directory;
mod disk;
mod error;
#[cfg(test)]
pub(crate) mod fault;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(feature = "server")]
mod heap;
mod lock;
mod mmap;
#[cfg(feature = "postgres")]
mod owner;
mod pace;
mod paths;
mod publish;
#[cfg(feature = "local-models")]
mod random_access;
mod read_only;
mod sequential;
mod threads;
mod transfer;

pub use append::AppendFile;
pub use arena::{Arena, Piece};
#[cfg(feature = "local-models")]
pub use background::cpu_time;
pub use background::give_way;
pub use checksum::{BLOCK_BYTES, BlockChecksums, Damage, VerifiedBlocks, crc32c, crc32c_append};
#[cfg(feature = "postgres")]
pub use directory::read_small;
#[cfg(feature = "text")]
pub use directory::remove_unsynced;
pub use directory::{
    create_dir_all, disk_free, file_len, list_entries, list_files, list_files_below, read_file, remove_dir_all,
    remove_file, sync_directories, sync_directory, sync_name,
};
pub use error::{StorageError, is_disk_full, is_failed_sync};
pub use fields::Fields;
#[cfg(feature = "server")]
pub use heap::give_back_free_memory;
pub use lock::DirectoryLock;
pub use mmap::{Mapped, Plain};
#[cfg(feature = "postgres")]
pub use owner::keep_to_owner;
#[cfg(feature = "server")]
pub use owner::{is_open_to_others, keep_new_files_to_owner};
pub use pace::RateLimit;
pub use paths::DataPaths;
#[cfg(feature = "postgres")]
pub use publish::publish_private;
#[cfg(any(test, feature = "text", feature = "fuzzing"))]
pub use publish::replace;
pub use publish::{Publishing, publish, remove_temporaries};
#[cfg(feature = "local-models")]
pub use random_access::RandomAccessFile;
pub use read_only::{ReadOnlyFile, WholeFile};
#[cfg(feature = "text")]
pub use sequential::SequentialFile;
#[cfg(test)]
pub(crate) use threads::refused as refused_threads;
pub use threads::start_thread;
pub use transfer::{copy, link, link_or_copy, rename};
