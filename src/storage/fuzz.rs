//! Files of any bytes, for the fuzzers' entrances.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{remove_file, replace};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Runs `read` on a file of these bytes, in memory where there is such a place. `false` where it cannot be made.
pub(crate) fn with_file(bytes: &[u8], read: impl FnOnce(&Path) -> bool) -> bool {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let name = format!("pannier-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = dir.join(name);
    if replace(&path, bytes).is_err() {
        return false;
    }
    let is_sound = read(&path);
    _ = remove_file(&path);
    is_sound
}
