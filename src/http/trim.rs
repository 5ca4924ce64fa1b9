//! What large requests and answers have taken goes back to the system.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::storage::give_back_free_memory;

/// Bytes of a request or an answer that are worth it.
const LARGE_BYTES: usize = 4 << 20;
/// How long after one it is done, when most of what it took is free again; so also how often at most.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether it will be done anyway.
static PLANNED: AtomicBool = AtomicBool::new(false);

/// A request or an answer has so many bytes. Called within the server's runtime.
pub(crate) fn after(bytes: usize) {
    if bytes >= LARGE_BYTES {
        soon();
    }
}

/// Much memory was taken and is about to be free. Called within the server's runtime.
pub(crate) fn soon() {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if PLANNED.swap(true, Ordering::Relaxed) {
        return;
    }
    runtime.spawn(async {
        tokio::time::sleep(PAUSE).await;
        PLANNED.store(false, Ordering::Relaxed);
        // Nothing is lost where it fails.
        let _ = tokio::task::spawn_blocking(give_back_free_memory).await;
    });
}
