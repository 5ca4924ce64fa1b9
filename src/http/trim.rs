//! What large requests and answers have taken goes back to the system.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::storage::give_back_free_memory;

/// Bytes of a request or an answer that make a trim worth while.
const LARGE_BYTES: usize = 4 << 20;
/// Delay between a large request and the trim, by when most of its memory is free. Also the shortest time between two
/// trims.
const PAUSE: Duration = Duration::from_secs(2);

/// Whether a trim is planned already.
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
