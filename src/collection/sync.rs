//! What a collection's state is shared by. Tests compile `state.rs` once more with a scheduler's in its place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64};
pub(super) use std::sync::{Condvar, Mutex, MutexGuard, RwLock};
